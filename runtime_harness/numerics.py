"""How far a compiled model's outputs may lie from the reference, and the comparison itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Comparison", "compare", "merge"]

_TOLERANCES = ("max_abs_rel", "cosine")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a comparison found.

    ``max_abs_err`` is the largest absolute difference over all floating-point outputs and
    ``cosine`` the smallest cosine similarity of one output, flattened; both are None where
    nothing could be measured (a shape that differs, NaN or infinities). ``ok`` says whether
    everything lies within the tolerance and ``reason`` why not (empty if ok).
    """

    max_abs_err: float | None
    cosine: float | None
    ok: bool
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "max_abs_err": self.max_abs_err,
            "cosine": self.cosine,
            "ok": self.ok,
            "reason": self.reason,
        }


def compare(
    actual: Mapping[str, NDArray[Any]],
    reference: Mapping[str, NDArray[Any]],
    tolerance: Mapping[str, float],
) -> Comparison:
    """Compare outputs by name with their reference.

    ``tolerance`` holds ``"max_abs_rel"`` (largest absolute error of an output, as a fraction
    of the largest absolute reference value of that output), ``"cosine"`` (smallest allowed
    cosine similarity), or both, and then both must hold. Outputs of integers and booleans must
    be equal. NaN or an infinity on either side, a missing output or another shape is never ok.

    Raises InputError if ``tolerance`` is empty, or has another key or a value that is not a
    finite number of at least 0.
    """
    _check_tolerance(tolerance)
    if not reference:
        return Comparison(
            max_abs_err=None, cosine=None, ok=False, reason="the reference has no outputs"
        )
    return merge(
        _compare_one(name, actual.get(name), expected, tolerance)
        for name, expected in reference.items()
    )


def merge(parts: Iterable[Comparison]) -> Comparison:
    """Return the worst of several comparisons; nothing at all is not ok."""
    found = list(parts)
    errors = [part.max_abs_err for part in found if part.max_abs_err is not None]
    cosines = [part.cosine for part in found if part.cosine is not None]
    failed = next((part for part in found if not part.ok), None)
    reason = failed.reason if failed else "" if found else "nothing was compared"
    # Where one output could not be measured at all, the extremes of the others would mislead.
    measured = all(part.max_abs_err is not None for part in found)
    return Comparison(
        max_abs_err=max(errors) if errors and measured else None,
        cosine=min(cosines) if cosines and measured else None,
        ok=bool(found) and failed is None,
        reason=reason,
    )


def _check_tolerance(tolerance: Mapping[str, float]) -> None:
    if not tolerance:
        raise InputError(f"the tolerance is empty: give {' or '.join(_TOLERANCES)}")
    for key, value in tolerance.items():
        if key not in _TOLERANCES:
            raise InputError(f"the tolerance has the unknown key {key!r}: use {_TOLERANCES}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(f"the tolerance {key} must be a number, not {value!r}")
        if not math.isfinite(value) or value < 0:
            raise InputError(f"the tolerance {key} must be finite and not negative, not {value!r}")


def _compare_one(
    name: str,
    actual: NDArray[Any] | None,
    expected: NDArray[Any],
    tolerance: Mapping[str, float],
) -> Comparison:
    import numpy as np

    def failed(reason: str) -> Comparison:
        return Comparison(max_abs_err=None, cosine=None, ok=False, reason=reason)

    if actual is None:
        return failed(f"the output {name!r} is missing")
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        return failed(
            f"the output {name!r} has shape {list(actual.shape)}, "
            f"but the reference has {list(expected.shape)}"
        )
    if _is_exact(expected.dtype):
        return _compare_exactly(name, actual, expected)
    left = actual.astype(np.float64)
    right = expected.astype(np.float64)
    for side, values in (("output", left), ("reference of output", right)):
        bad = values.size - int(np.count_nonzero(np.isfinite(values)))
        if bad:
            return failed(f"the {side} {name!r} holds {bad} values that are NaN or infinite")
    error = float(np.max(np.abs(left - right), initial=0.0))
    cosine = _cosine(left.ravel(), right.ravel())
    reason = ""
    limit = tolerance.get("max_abs_rel")
    if limit is not None:
        scale = float(np.max(np.abs(right), initial=0.0))
        if error > limit * scale:
            reason = (
                f"the output {name!r} differs by up to {error:.3g}, "
                f"more than {limit:g} of the largest reference value {scale:.3g}"
            )
    least = tolerance.get("cosine")
    if not reason and least is not None and cosine < least:
        reason = f"the output {name!r} has cosine similarity {cosine:.6f}, below {least:g}"
    return Comparison(max_abs_err=error, cosine=cosine, ok=not reason, reason=reason)


def _is_exact(dtype: np.dtype[Any]) -> bool:
    # bfloat16 comes from an extension of NumPy and is of kind "V".
    return dtype.kind in "biu"


def _compare_exactly(name: str, actual: NDArray[Any], expected: NDArray[Any]) -> Comparison:
    import numpy as np

    kinds = {actual.dtype.kind, expected.dtype.kind}
    if len(kinds) > 1 and kinds != {"i", "u"}:
        reason = f"the output {name!r} is {actual.dtype}, but the reference is {expected.dtype}"
        return Comparison(max_abs_err=None, cosine=None, ok=False, reason=reason)
    wrong = int(np.count_nonzero(actual != expected))
    left, right = actual.astype(np.float64), expected.astype(np.float64)
    return Comparison(
        max_abs_err=float(np.max(np.abs(left - right), initial=0.0)),
        cosine=_cosine(left.ravel(), right.ravel()),
        ok=not wrong,
        reason=f"the output {name!r} differs in {wrong} of {expected.size} values"
        if wrong
        else "",
    )


def _cosine(left: NDArray[Any], right: NDArray[Any]) -> float:
    """Cosine similarity in [-1, 1]; two zero vectors are alike, one alone is not."""
    import numpy as np

    # Scaled first, so that squares neither overflow nor vanish.
    scales = [float(np.max(np.abs(side), initial=0.0)) for side in (left, right)]
    if not all(scales):
        return 1.0 if not any(scales) else 0.0
    left, right = left / scales[0], right / scales[1]
    value = float(left @ right) / math.sqrt(float(left @ left) * float(right @ right))
    return max(-1.0, min(1.0, value))
