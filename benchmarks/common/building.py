"""Having contestants build their models, each in a process of its own."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from .processes import PeerError, PeerProcess, model_fields
from .protocol import ModelSpec, Peer

__all__ = ["build"]

_SECONDS = 1800.0


def build(
    peer: Peer, model: ModelSpec, seq_len: int, cache: Path, versions: dict[str, Any]
) -> Path | PeerError:
    """Have one contestant build its model; note the versions of its packages."""
    began = time.monotonic()
    try:
        with PeerProcess(peer) as process:
            hello = process.request("hello", timeout=60.0)
            versions.setdefault(peer.environment, {}).update(hello["versions"])
            answer = process.request(
                "build",
                timeout=_SECONDS,
                model=model_fields(model),
                seq_len=seq_len,
                cache=str(cache),
            )
    except PeerError as error:
        _tell(f"  {peer.name}: {error}")
        return error
    _tell(f"  {peer.name}: ready after {time.monotonic() - began:.0f} s")
    return Path(answer["artifact"])


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
