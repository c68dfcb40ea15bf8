"""Files of JSON lines, written whole or not at all, compressed if their name says so."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ...errors import InputError

__all__ = ["read_lines", "write_lines"]


def write_lines(path: Path, values: Iterable[Any]) -> int:
    """Write each value on a line; return how many. The same values give the same bytes."""
    lines = [json.dumps(value, separators=(",", ":"), allow_nan=False) for value in values]
    data = "".join(f"{line}\n" for line in lines).encode()
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(
            f"{path} cannot be written ({error.strerror}): name a place that can, or make room"
        ) from error
    return len(lines)


def read_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield each line's number and value; raises InputError for what is no JSON."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as JSON lines: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            # Python reads numbers and texts that JSON does not have: NaN, halves of letters.
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number} is not JSON: {error}") from error
        yield number, value
