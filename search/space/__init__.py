"""Architectures: what the search may choose from."""
