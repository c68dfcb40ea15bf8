"""Which tables of embeddings are worth an int8 form."""

__all__ = ["LEAST_TABLE"]

LEAST_TABLE = 1 << 20
"""Numbers in a table from which on it is quantised: words are, positions and types are not."""
