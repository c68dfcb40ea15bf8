"""How good a sub-network is, without training each from the start."""
