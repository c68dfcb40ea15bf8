"""Executed ARM instructions, counted under emulation."""
