"""Kernels of our own: products, attention, normalization and quantisation written in MLIR."""
