"""What the benchmarks share: the models, the processes, the statistics, the report."""
