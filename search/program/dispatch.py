"""What runs: the dispatches that one call of a compiled model executes, in order, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...compiler.compression import fields
from ...compiler.compression.fields import shown
from ...errors import InputError

__all__ = ["KINDS", "Dispatch", "Program"]

VERSION = 1
_OF = "a program"
KINDS = (
    "product",
    "sparse",
    "weights",
    "rows",
    "attention",
    "norm",
    "quantize",
    "convert",
    "words",
    "embedding",
    "matmul",
    "encode",
    "elementwise",
)
"""Dense products, products that leave blocks out, products by weights in 8 or 4 bits alone,
several kernels fused by rows, attention, norms, what changes the form of activations (the next
three), sums of rows of tables, and IREE's own dispatches."""

Scalar = int | float | str | bool


@dataclass(frozen=True, kw_only=True)
class Dispatch:
    """One executed dispatch.

    ``rows`` x ``depth`` activations become ``rows`` x ``outputs`` (attention: queries, numbers of
    all heads, the same; element-wise ones: no depth). ``precision`` is that of what is multiplied
    or written; ``density`` the share of blocks that are multiplied. ``flops``: 2 for each
    multiply-add. ``bytes``: operands and results, once each. ``detail`` is what else its kind has,
    e.g. ``engine``, ``heads``, ``parts``.
    """

    kind: str
    rows: int
    depth: int
    outputs: int
    precision: str = "f32"
    density: float = 1.0
    flops: int = 0
    bytes: int = 0
    detail: Mapping[str, Scalar] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: object, name: str) -> Dispatch:
        """Read one; raises `InputError` with the name of what is wrong."""
        found = fields.table(value, name, cls.__dataclass_fields__, of=_OF)
        if found.get("kind") not in KINDS:
            raise InputError(f"{name}.kind must be one of {', '.join(KINDS)}.")
        numbers = {
            key: fields.whole(found.get(key), f"{name}.{key}")
            for key in ("rows", "depth", "outputs", "flops", "bytes")
        }
        detail = found.get("detail", {})
        if not isinstance(detail, Mapping) or not all(
            isinstance(key, str) and isinstance(one, (int, float, str))
            for key, one in detail.items()
        ):
            raise InputError(f"{name}.detail must be a table of numbers and texts.")
        return cls(
            kind=found["kind"],
            precision=fields.text(found.get("precision"), f"{name}.precision"),
            density=fields.number(found.get("density"), f"{name}.density"),
            detail=dict(detail),
            **numbers,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**self.__dict__, "detail": dict(self.detail)}


@dataclass(frozen=True, kw_only=True)
class Program:
    """The dispatches of one call for a target, on ``threads`` threads, at ``seq_len`` tokens."""

    version: int = VERSION
    target: str
    threads: int = 1
    seq_len: int
    dispatches: tuple[Dispatch, ...]

    @property
    def flops(self) -> int:
        """Of all dispatches."""
        return sum(one.flops for one in self.dispatches)

    @property
    def bytes(self) -> int:
        """Of all dispatches."""
        return sum(one.bytes for one in self.dispatches)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**self.__dict__, "dispatches": [one.to_json() for one in self.dispatches]}

    @classmethod
    def from_json(cls, value: object) -> Program:
        """The inverse of `to_json`; raises `InputError` naming the field that is wrong."""
        found = fields.table(value, "The program", cls.__dataclass_fields__, of=_OF)
        version = found.get("version")
        if isinstance(version, bool) or version != VERSION:
            raise InputError(f"version of the program must be {VERSION}, not {shown(version)}.")
        return cls(
            target=fields.text(found.get("target"), "target"),
            threads=fields.integer(found.get("threads"), "threads"),
            seq_len=fields.integer(found.get("seq_len"), "seq_len"),
            dispatches=fields.items(found.get("dispatches"), "dispatches", Dispatch.from_json),
        )
