"""Latency of an architecture, learned from measurements."""
