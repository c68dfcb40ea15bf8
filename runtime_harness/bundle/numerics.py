"""How far a bundle's modules are from the reference, recorded beside the bundle.

The record is a file of its own, ``<bundle path>.numerics.json``, so that verifying a bundle on
one more device never changes the bundle. It names the bundle by the SHA-256 of its manifest:
after a rebuild that changes anything, the old record no longer counts.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypedDict

from ...errors import BundleError, InputError
from .atomic import replace_file
from .fields import Fields, dump_json, parse_json
from .names import shown

__all__ = ["Numerics", "numerics_path", "read_numerics", "write_numerics"]

_SCHEMA = 1
_SUFFIX = ".numerics.json"


class Numerics(TypedDict):
    """One target's check: on which device, how far off, and whether within the tolerance.

    ``max_abs_err`` is the largest absolute error and ``cosine`` the smallest cosine, over all
    outputs and reference samples; None where nothing was run or the number is not finite.
    """

    verified: bool
    device: str | None
    max_abs_err: float | None
    cosine: float | None
    ok: bool | None


def numerics_path(bundle: Path) -> Path:
    """Return where the record of the bundle at ``bundle`` lies."""
    return bundle.with_name(bundle.name + _SUFFIX)


def read_numerics(bundle: Path, digest: str) -> dict[str, Numerics]:
    """Return each target's check; empty if there is none for the manifest with this digest.

    Raises BundleError if the record is there but cannot be read.
    """
    path = numerics_path(bundle)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    try:
        found, targets = _from_json(parse_json(data, "its JSON"))
    except BundleError as error:
        raise BundleError(
            f"{path} is not a record of numerics: {error}; delete it and verify the bundle again"
        ) from None
    return targets if found == digest else {}


def write_numerics(bundle: Path, digest: str, targets: dict[str, Numerics]) -> None:
    """Replace the record by ``targets``, atomically."""
    plain = {
        target: {
            **value,
            "max_abs_err": _finite(value["max_abs_err"]),
            "cosine": _finite(value["cosine"]),
        }
        for target, value in targets.items()
    }
    for target, value in targets.items():
        if value["ok"] and plain[target] != value:
            raise InputError(f"the numerics of {target} cannot be right with a number not finite")
    replace_file(
        numerics_path(bundle),
        dump_json({"schema": _SCHEMA, "bundle": digest, "targets": plain}),
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _from_json(value: object) -> tuple[str, dict[str, Numerics]]:
    taken = Fields(value, "the record")
    schema = taken.integer("schema", minimum=1)
    if schema > _SCHEMA:
        raise BundleError(f"it has schema {schema}, newer than this canao's {_SCHEMA}")
    digest = taken.text("bundle")
    targets = {
        name: _entry(entry, f"the target {shown(name)}")
        for name, entry in taken.mapping("targets").items()
    }
    taken.done()
    return digest, targets


def _entry(value: object, where: str) -> Numerics:
    taken = Fields(value, where)

    def optional(name: str, expected: str, *kinds: type) -> Any:
        if taken.is_null(name):
            return None
        return taken.take(name, expected, lambda item: type(item) in kinds)

    entry = Numerics(
        verified=taken.take("verified", "true or false", lambda item: isinstance(item, bool)),
        device=optional("device", "text or null", str),
        max_abs_err=optional("max_abs_err", "a number or null", int, float),
        cosine=optional("cosine", "a number or null", int, float),
        ok=optional("ok", "true, false or null", bool),
    )
    taken.done()
    return entry
