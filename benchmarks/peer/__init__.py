"""The contestants of ``benchmarks/peers.py``, one file each.

A file of this package whose module defines ``PEERS`` (a tuple of
:class:`~common.protocol.Peer`) is found by :func:`all_peers`; adding a contestant is adding
a file. Such a file imports its framework inside functions only: the driver reads every
file, also those of frameworks that live in another environment.
"""

from __future__ import annotations

import importlib
import pkgutil

from common.protocol import Peer

__all__ = ["all_peers"]


def all_peers() -> dict[str, Peer]:
    """Every contestant by name, in the order of file names, then of declaration."""
    found: dict[str, Peer] = {}
    for entry in sorted(pkgutil.iter_modules(__path__), key=lambda entry: entry.name):
        module = importlib.import_module(f"{__name__}.{entry.name}")
        for peer in module.PEERS:
            if peer.name in found:
                raise ValueError(f"two peers are named {peer.name!r}")
            found[peer.name] = peer
    return found
