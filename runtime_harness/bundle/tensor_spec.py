"""One input or output of a model, as the manifest describes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .fields import Fields

__all__ = ["DTYPES", "TensorSpec"]

DTYPES = (
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
)


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output: its name, NumPy dtype name and shape.

    A dimension is a positive number or a word: ``"batch"``, ``"seq"``. An output's axis
    ``"seq"`` is cut to the positions that the input really has. ``limit`` bounds an integer
    input that indexes a table: its values are at least 0 and below it.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    limit: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON values."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "limit": self.limit,
        }

    @classmethod
    def from_json(cls, value: object, where: str = "tensor") -> TensorSpec:
        """Build from JSON values; raises BundleError if they are not a spec."""
        taken = Fields(value, where)
        shape = taken.take(
            "shape",
            "a list of positive numbers and words",
            lambda item: isinstance(item, list) and all(map(_is_dimension, item)),
        )
        spec = cls(
            name=taken.text("name"),
            dtype=taken.text("dtype", choices=DTYPES),
            shape=tuple(shape),
            limit=taken.optional_integer("limit", minimum=1),
        )
        taken.done()
        return spec


def _is_dimension(value: object) -> bool:
    if isinstance(value, str):
        return bool(value)
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
