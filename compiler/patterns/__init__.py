"""Rewrite patterns, one a file, and the pipeline that orders them."""
