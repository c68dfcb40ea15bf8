"""Reading numbers and arrays that nobody vouches for: each error names its field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...compiler.compression.fields import shown
from ...errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["array", "names", "real", "record"]

_MOST = 1_000_000


def real(value: object, field: str, *, above: float = -math.inf) -> float:
    """A finite number greater than ``above``."""
    try:
        good = not isinstance(value, (bool, str)) and math.isfinite(float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good or not value > above:  # type: ignore[operator]
        kind = "a finite number" if above == -math.inf else f"a number above {above:g}"
        raise InputError(f"{field} must be {kind}, not {shown(value)}.")
    return float(value)  # type: ignore[arg-type]


def record(value: object, field: str, keys: tuple[str, ...]) -> Mapping[str, Any]:
    """An object with exactly these keys."""
    if not isinstance(value, Mapping) or set(value) != set(keys):
        raise InputError(f"{field} must be an object with {', '.join(keys)}, not {shown(value)}.")
    return value


def names(value: object, field: str) -> tuple[str, ...]:
    """A list of different texts."""
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InputError(f"{field} must be a list of texts, not {shown(value)}.")
    if len(set(value)) != len(value):
        raise InputError(f"{field} has a text twice: {shown(value)}.")
    return tuple(value)


def array(value: object, field: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Nested lists of finite numbers as float64 of this shape."""
    import numpy as np

    _check(value, field, shape)
    if math.prod(shape) > _MOST:
        raise InputError(f"{field} has more than {_MOST} numbers.")
    return np.array(value, np.float64).reshape(shape)


def _check(value: object, field: str, shape: tuple[int, ...]) -> None:
    if not shape:
        real(value, field)
        return
    if not isinstance(value, list) or len(value) != shape[0]:
        raise InputError(f"{field} must be a list of {shape[0]}, not {shown(value)}.")
    for index, one in enumerate(value):
        _check(one, f"{field}[{index}]", shape[1:])
