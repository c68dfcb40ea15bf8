"""Kernels against what the core could do at most: peaks, cases, and the page."""
