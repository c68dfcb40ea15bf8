"""A space from a file or from plain values."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...compiler.compression import fields
from ...compiler.compression.fields import shown
from ...errors import InputError
from ...targets import PRECISIONS
from .architecture import HEADS, KINDS
from .choices import OF, MatrixChoices, choices

__all__ = ["read_fields", "read_file"]

_VERSION = 1
_LARGEST_FILE = 1 << 20


def read_file(place: Path) -> object:
    """What a file says: TOML if its name ends in ``.toml``, JSON if in ``.json``. Raises
    `InputError` where it cannot be read."""
    if place.suffix not in (".json", ".toml"):
        raise InputError("its name must end in .json or .toml.")
    try:
        with place.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            raise InputError(f"it is larger than {_LARGEST_FILE >> 20} MiB.")
        text = data.decode("utf-8")
        value: object = tomllib.loads(text) if place.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise InputError(f"{error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"it is no {place.suffix[1:].upper()}: {reason}.") from error
    return value


def read_fields(
    value: object, names: Sequence[str], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of an `ArchitectureSpace`, each checked by itself; ``names`` are all that there
    are. Raises `InputError` naming the field that is wrong."""
    found = fields.table(value, "The space", names, of=OF)
    version = found.get("version")
    if isinstance(version, bool) or version != _VERSION:
        raise InputError(f"version of the space must be {_VERSION}, not {shown(version)}.")
    read: dict[str, Any] = {
        name: choices(found, "", name, fields.integer)
        for name in ("layers", "hidden", "heads", "ffn")
    }
    for name in ("seq_lens", "vocabularies"):
        read[name] = choices(found, "", name, fields.integer, defaults[name])
    name = "embedding_ranks"
    read[name] = choices(found, "", name, _rank, defaults[name])
    name = "embedding_int8"
    read[name] = choices(found, "", name, fields.boolean, defaults[name])
    if "per_layer" in found:
        read["per_layer"] = fields.items(found["per_layer"], "per_layer", fields.text)
    read["head_size"] = fields.integer(found.get("head_size"), "head_size")
    for name in ("positions", "types", "labels"):
        read[name] = fields.integer(found.get(name, defaults[name]), name)
    for kind in KINDS:
        if kind in found:
            read[kind] = MatrixChoices.from_json(found[kind], kind)
    if "block" in found:
        read["block"] = fields.pair(found["block"], "block")
    for name, known in (("head", HEADS), ("rest", PRECISIONS)):
        read[name] = found.get(name, defaults[name])
        if read[name] not in known:
            raise InputError(f"{name} must be one of {', '.join(known)}: {shown(read[name])}.")
    return read


def _rank(value: object, field: str) -> int | None:
    return None if value is None or value == "none" else fields.integer(value, field)
