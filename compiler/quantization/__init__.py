"""How a model becomes int8: what is measured of it, and what is decided before it is compiled."""
