"""Names for what training keeps: hashes of everything that decides it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data import Row

__all__ = ["digest_of_model", "digest_of_rows", "key_of"]

# Raised when training with the same options would give something else than before.
_VERSION = 1
_FILES = ("*.safetensors", "config.json", "canao.json", "tokenizer.json", "vocab.txt")


def digest_of_model(directory: Path) -> str:
    """SHA-256 of a model's weights, configuration and tokenizer."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _FILES for path in directory.glob(pattern)}):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        digest.update(path.name.encode() + b"\0" + content)
    return digest.hexdigest()


def digest_of_rows(rows: Sequence[Row]) -> str:
    """SHA-256 of rows in their order, wherever they were read from."""
    digest = hashlib.sha256()
    for row in rows:
        plain = {name: value for name, value in row.items() if name != "place"}
        digest.update(json.dumps(plain, sort_keys=True, default=list).encode() + b"\n")
    return digest.hexdigest()


def key_of(**parts: Any) -> str:
    """A name of 32 letters for plain JSON values, and the packages that compute with them."""
    packages = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    text = json.dumps({**parts, "packages": packages, "version": _VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
