"""What a forked child inherits of IREE, it must neither use nor destroy.

Their threads do not exist in the child, so destroying IREE's devices there waits for ever, at
the latest when the child's interpreter ends. Such objects are kept until the process is gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["in_child"]


def in_child(action: Callable[[], None]) -> None:
    """Do ``action`` in every child that this process forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=action)
