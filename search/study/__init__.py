"""A search that can be killed and goes on: trials, workers, devices, finalists, report."""
