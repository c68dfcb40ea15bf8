"""A manifest's tensors as NumPy and IREE know them: static shapes, dtypes, element types."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from ..errors import BundleError

if TYPE_CHECKING:
    import numpy as np

    from .bundle import ModuleEntry, TensorSpec

__all__ = ["BATCH", "SEQ", "WEIGHTS_FILE", "WEIGHTS_SCOPE", "iree_type", "numpy_dtype", "shape_of"]

BATCH = "batch"
SEQ = "seq"
WEIGHTS_FILE = "weights.safetensors"
WEIGHTS_SCOPE = "model"

_IREE_TYPES = {
    "bool": "i1",
    "int8": "i8",
    "uint8": "ui8",
    "int16": "i16",
    "uint16": "ui16",
    "int32": "i32",
    "uint32": "ui32",
    "int64": "i64",
    "uint64": "ui64",
    "float16": "f16",
    "bfloat16": "bf16",
    "float32": "f32",
    "float64": "f64",
}


@cache
def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the NumPy dtype of a manifest's dtype name; raises BundleError if there is none."""
    import numpy as np

    if name == "bfloat16":
        import ml_dtypes

        dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return dtype
    if name not in _IREE_TYPES:
        raise BundleError(f"the dtype {name!r} is not one canao knows")
    return np.dtype(name)


def iree_type(name: str) -> str:
    """Return the element type that IREE's tools call a manifest's dtype, e.g. ``"i32"``."""
    try:
        return _IREE_TYPES[name]
    except KeyError:
        raise BundleError(f"the dtype {name!r} is not one canao knows") from None


def shape_of(spec: TensorSpec, module: ModuleEntry) -> tuple[int, ...]:
    """Return the static shape that a tensor has in a module.

    Raises BundleError if a dimension is a word other than ``batch`` and ``seq``.
    """
    words = {BATCH: module.batch, SEQ: module.seq_len}
    shape = []
    for size in spec.shape:
        if isinstance(size, str) and size not in words:
            raise BundleError(f"the tensor {spec.name!r} has the dimension {size!r}: use a number")
        shape.append(words[size] if isinstance(size, str) else size)
    return tuple(shape)
