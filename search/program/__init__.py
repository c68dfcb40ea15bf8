"""The dispatches that the compiler would emit for an architecture, without running it."""
