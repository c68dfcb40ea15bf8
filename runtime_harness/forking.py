"""What a forked child inherits of IREE, it must neither use nor destroy.

Their threads do not exist in the child, so destroying IREE's devices there waits for ever, at
the latest when the child's interpreter ends. Such objects are kept until the process is gone.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable

__all__ = ["in_child", "keep_for_ever"]


def keep_for_ever(thing: object) -> None:
    """Make sure that ``thing`` and all it refers to is never destroyed."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
    binding = sys.modules.get("iree.runtime._binding")
    if binding is not None:  # or it would complain of each object when the process ends
        binding.disable_leak_checker()


def in_child(action: Callable[[], None]) -> None:
    """Do ``action`` in every child that this process forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=action)
