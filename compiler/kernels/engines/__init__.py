"""Engines: the ways a core multiplies, one instruction set a file."""
