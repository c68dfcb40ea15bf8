"""Where canao keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import InputError

__all__ = ["cache_dir"]


def cache_dir(*parts: str) -> Path:
    """A folder of canao's user cache, made if it is not there; CANAO_CACHE_DIR moves the root."""
    import platformdirs

    configured = os.environ.get("CANAO_CACHE_DIR")
    root = Path(configured) if configured else Path(platformdirs.user_cache_dir("canao"))
    folder = root.joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The cache {root} cannot be written ({error.strerror}): set CANAO_CACHE_DIR to a "
            "directory that can."
        ) from error
    return folder
