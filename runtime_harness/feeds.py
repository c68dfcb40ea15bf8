"""What a caller gives a session, checked: names, shapes, types and values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .tensors import BATCH, SEQ, numpy_dtype

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .bundle import Manifest, TensorSpec

__all__ = ["ATTENTION_MASK", "DEFAULTS", "TOKEN_IDS", "Feeds", "check_feeds"]

TOKEN_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
DEFAULTS = {ATTENTION_MASK: 1, "token_type_ids": 0}
"""Inputs that may be left out, and the value that then stands in every real position."""


@dataclass(frozen=True)
class Feeds:
    """Checked inputs in the manifest's order, as the caller gave them or cut to ``length``.

    Each casts to its spec's dtype without loss. ``rows`` and ``length`` are the sizes of the
    axes ``batch`` and ``seq``; None where no input has that axis.
    """

    arrays: tuple[NDArray[Any], ...]
    rows: int | None
    length: int | None


def check_feeds(
    manifest: Manifest, given: Mapping[str, Any], *, longest: int, truncate: bool = False
) -> Feeds:
    """Check what was given by name against the manifest's inputs.

    ``longest`` is the longest sequence length compiled; with ``truncate``, longer sequences are
    cut at their end. Left-out inputs of DEFAULTS are filled in. Raises InputError, in one
    sentence, for a name, shape, dtype or value that the model does not take.
    """
    import numpy as np

    specs = {spec.name: spec for spec in manifest.inputs}
    for name in given:
        if name not in specs:
            raise InputError(f"the model has no input {name!r}: give {', '.join(specs)}")
    arrays: dict[str, NDArray[Any]] = {}
    sizes: dict[str, tuple[int, str]] = {}
    for name, spec in specs.items():
        if name in given:
            array = _as_array(name, given[name])
            _check_shape(spec, array, sizes)
            arrays[name] = array
        elif name not in DEFAULTS:
            raise InputError(f"the input {name!r} is missing")
    length = sizes[SEQ][0] if SEQ in sizes else None
    if length is not None and length > longest:
        if not truncate:
            raise InputError(
                f"the input is {length} tokens long, but this bundle's longest length for the "
                f"target is {longest}: shorten it, pass truncate=True, or compile a longer one"
            )
        arrays = {name: _cut(specs[name], array, longest) for name, array in arrays.items()}
        length = longest
    for name, array in arrays.items():
        arrays[name] = _check_values(specs[name], array, given[name], manifest.vocab_size)
    known: dict[str | int, int] = {word: size for word, (size, _) in sizes.items()}
    if length is not None:
        known[SEQ] = length
    for name, spec in specs.items():
        if name not in arrays:
            try:
                shape = [known[size] if isinstance(size, str) else size for size in spec.shape]
            except KeyError:
                raise InputError(f"the input {name!r} is missing") from None
            arrays[name] = np.broadcast_to(np.array(DEFAULTS[name], np.int8), shape)
    rows = sizes[BATCH][0] if BATCH in sizes else None
    return Feeds(tuple(arrays[name] for name in specs), rows, length)


def _as_array(name: str, value: Any) -> NDArray[Any]:
    import numpy as np

    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"the input {name!r} is no array: its rows must be numbers, of equal lengths"
        ) from error


def _check_shape(spec: TensorSpec, array: NDArray[Any], sizes: dict[str, tuple[int, str]]) -> None:
    expected = "[" + ", ".join(map(str, spec.shape)) + "]"
    if array.ndim != len(spec.shape):
        raise InputError(
            f"the input {spec.name!r} must have the shape {expected}, not {list(array.shape)}"
        )
    for wanted, size in zip(spec.shape, array.shape, strict=True):
        if size == 0:
            raise InputError(f"the input {spec.name!r} is empty: its shape is {list(array.shape)}")
        if isinstance(wanted, int):
            if size != wanted:
                raise InputError(
                    f"the input {spec.name!r} must have the shape {expected}, "
                    f"not {list(array.shape)}"
                )
        elif sizes.setdefault(wanted, (size, spec.name))[0] != size:
            other_size, other = sizes[wanted]
            raise InputError(
                f"the inputs {other!r} and {spec.name!r} differ in {wanted}: "
                f"{other_size} and {size}"
            )


def _cut(spec: TensorSpec, array: NDArray[Any], length: int) -> NDArray[Any]:
    return array[tuple(slice(length) if size == SEQ else slice(None) for size in spec.shape)]


def _check_values(
    spec: TensorSpec, array: NDArray[Any], given: Any, vocab_size: int | None
) -> NDArray[Any]:
    import numpy as np

    dtype = numpy_dtype(spec.dtype)
    kind = array.dtype.kind
    if spec.name == ATTENTION_MASK and kind in "biuf":
        if not ((array == 0) | (array == 1)).all():
            raise InputError(f"the input {spec.name!r} must hold only 0 and 1")
        return array
    if array.dtype != dtype:
        if kind in "iu" and dtype.kind in "iu":
            _check_range(spec.name, array, np.iinfo(dtype).min, np.iinfo(dtype).max + 1)
        elif not _is_lossless(array, given, dtype):
            raise InputError(
                f"the input {spec.name!r} must be {spec.dtype}, not {array.dtype}: convert it"
            )
    limit = vocab_size if spec.name == TOKEN_IDS and spec.limit is None else spec.limit
    if limit is not None:
        _check_range(spec.name, array, 0, limit)
    return array


def _is_lossless(array: NDArray[Any], given: Any, dtype: np.dtype[Any]) -> bool:
    import numpy as np

    if not isinstance(given, (np.ndarray, np.generic)):
        # Python's own numbers are of double precision without anybody having asked for it.
        return array.dtype.kind in "fiu" and dtype.kind in "fV"
    return array.dtype.kind != "b" and np.can_cast(array.dtype, dtype, "safe")


def _check_range(name: str, array: NDArray[np.integer[Any]], low: int, high: int) -> None:
    least, most = int(array.min()), int(array.max())
    if least < low or most >= high:
        raise InputError(
            f"the input {name!r} holds {least if least < low else most}, "
            f"which is not in the range from {low} to {high - 1}"
        )
