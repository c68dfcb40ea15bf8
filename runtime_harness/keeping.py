"""IREE's objects that may not be destroyed: kept until the process is gone, without complaint."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_for_ever"]


def keep_for_ever(thing: object) -> None:
    """Make sure that ``thing`` and all it refers to is never destroyed."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    binding = sys.modules.get("iree.runtime._binding")
    if binding is not None:  # or it would complain of each object when the process ends
        binding.disable_leak_checker()
