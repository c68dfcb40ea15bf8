"""Where the benchmarks find and keep things."""

from __future__ import annotations

from pathlib import Path

__all__ = ["BENCHMARKS", "DOCS", "PEERS_PYTHON", "RESULTS", "ROOT", "cache_directory"]

BENCHMARKS = Path(__file__).resolve().parent.parent
RESULTS = BENCHMARKS / "results"
ROOT = BENCHMARKS.parent
DOCS = ROOT / "docs" / "benchmarks"
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"


def cache_directory() -> Path:
    """``benchmarks`` in canao's user cache directory; ``CANAO_CACHE_DIR`` moves that."""
    from canao.paths import cache_dir  # type: ignore[import-not-found,unused-ignore]

    return Path(cache_dir("benchmarks")).absolute()
