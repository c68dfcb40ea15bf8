"""Where the benchmarks find and keep things."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["BENCHMARKS", "PEERS_PYTHON", "ROOT", "cache_directory"]

BENCHMARKS = Path(__file__).resolve().parent.parent
ROOT = BENCHMARKS.parent
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"


def cache_directory() -> Path:
    """``benchmarks`` in canao's user cache directory; ``CANAO_CACHE_DIR`` moves that."""
    configured = os.environ.get("CANAO_CACHE_DIR")
    if configured:
        return Path(configured).expanduser().absolute() / "benchmarks"
    import platformdirs

    return Path(platformdirs.user_cache_dir("canao")) / "benchmarks"
