"""What IREE says of a module that is not what its manifest says, told from a device's failures.

A wrong manifest is a fault of the bundle, the same on every device and at every attempt, where
a failure of the device may be gone the next time.
"""

from __future__ import annotations

import re

__all__ = ["contradiction"]

_SIGN = re.compile(
    r"NOT_FOUND; (?=no function )"
    r"|INVALID_ARGUMENT; (?=input\d+ |input list and function mismatch|function expected )"
    r"|OUT_OF_RANGE; (?=\d+ outputs specified )"
)
_CLAUSES = 2


def contradiction(text: str) -> str:
    """Return what does not agree, in IREE's words; empty if ``text`` tells another failure."""
    found = _SIGN.search(text)
    return "; ".join(text[found.end() :].split("; ")[:_CLAUSES]) if found else ""
