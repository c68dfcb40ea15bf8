"""Functions on vectors of f32, of any number of lanes, as straight vector code.

Each takes an `Emitter` and a value and returns a value of the same type; no call of libm, no
table, no loop. NaN gives NaN. Beside each stands what it approximates, in NumPy's float64; the
coefficients are minimax fits to that (iteratively reweighted least squares on Chebyshev nodes).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from .emitter import Emitter
from .values import Value, element_of, vector

__all__ = [
    "Accuracy",
    "exp",
    "exp2_nonpositive",
    "exp2_reference",
    "exp_reference",
    "gelu",
    "gelu_reference",
    "gelu_tanh",
    "gelu_tanh_reference",
    "relu",
    "relu_reference",
    "silu",
    "silu_reference",
    "tanh",
    "tanh_reference",
]

Accuracy = Literal["accurate", "fast"]
"""``accurate`` for f32 results; ``fast`` where the result is rounded to bf16 or 8 bits."""

_Array = np.ndarray[Any, Any]

# 1.5 * 2**23: adding it to |x| < 2**22 leaves round(x) in the low bits of the sum.
_MAGIC = 12582912.0
_LOG2E = 1.4426950216293335
_LOG2E_REST = 1.925963033500865e-08
_EXP_LOWEST = -87.0
_EXP_HIGHEST = 88.375
# 2**f on [-0.5, 0.5], exact at 0.
_EXP2 = (1.0, 0.693147004, 0.240222424, 0.0555073358, 0.00967151392, 0.00132647273)
_EXP2_FAST = (1.0, 0.693282927, 0.24221096, 0.05500893)
# 2**f on [0, 1], exact at 0.
_EXP2_ABOVE = (1.0, 0.693151312, 0.24016445, 0.0557999134, 0.00901702988, 0.00186713028)
_EXP2_ABOVE_FAST = (1.0, 0.69511679, 0.227644977, 0.0770670553)
_EXP2_LOWEST = -125.5
# Of VREDUCEPS: what is left above the next whole number below, no exception.
_ABOVE_WHOLE = 9
_CURRENT_ROUNDING = 4

# -a * (1 - Phi(a)), which is gelu(a) - relu(a) by a = |x|; Phi exact or by tanh.
# Accurate: powers of 2 a / limit - 1, for which the coefficients are small. Fast: of a, from a**1.
_ERF_LIMIT = 5.3
_ERF = (
    *(-0.0106651559, 0.0729894489, -0.21007511, 0.295886278, -0.101804778, -0.340745181),
    *(0.588212669, -0.298257858, -0.246731251, 0.444327086, -0.12821193, -0.221219584),
    *(0.168901429, 0.0512123406, -0.0718880817, -0.00419262238, 0.0122620938),
)
_ERF_FAST_LIMIT = 3.85
_ERF_FAST = (
    *(-0.498741329, 0.382412016, 0.0567938946, -0.150872812),
    *(0.0619046986, -0.0107750194, 0.000708654756),
)
_TANH_LIMIT = 5.0
_TANH = (
    *(-0.0150842099, 0.0948798656, -0.238274336, 0.255423516, 0.0428940505, -0.426360488),
    *(0.425866276, -0.0469147451, -0.235323071, 0.205711916, -0.0359758474, -0.0980071425),
    *(0.0900605917, 0.0141268345, -0.0415120386, 0.00114020391, 0.00734855933),
)
_TANH_FAST_LIMIT = 3.8
_TANH_FAST = (
    *(-0.498635083, 0.382618129, 0.0552553758, -0.149325117),
    *(0.0613267049, -0.0106870187, 0.000704423059),
)

# tanh(x) = x * P(x**2) / Q(x**2) on [-8, 8].
_RATIONAL_LIMIT = 8.0
_NUMERATOR = (1.0, 0.134444773, 0.00357157178, 2.18941332e-05, 1.52294497e-08)
_DENOMINATOR = (1.0, 0.467778057, 0.0261643492, 0.000341124542, 8.52210349e-07)


def exp(e: Emitter, x: Value) -> Value:
    """e**x, with a relative error of at most 2e-7 on [-87, 88.375].

    Below it stays at exp(-87), some 1.6e-38, also at -inf; above at exp(88.375), some 2.4e38.
    exp(0) is exactly 1. The base is 2: x / ln 2 = n + f, with n added to the exponent of 2**f.
    """
    constant = _constants(e, x)
    x = e.maximum(constant(_EXP_LOWEST), x)
    x = e.minimum(constant(_EXP_HIGHEST), x)
    return _power(e, x, _EXP2)


def exp2_nonpositive(
    e: Emitter, x: Value, accuracy: Accuracy = "accurate", *, native: bool = False
) -> Value:
    """2**x for x <= 0, or somewhat above, for a softmax; from 127 on it is undefined.

    Relative errors: ``accurate`` 2e-7, ``fast`` 1.2e-4 in 9 instructions. 2**0 is exactly 1;
    below -125.5 it is at most 2**-125.5, some 1.6e-38, also at -inf. ``native`` has, for 16
    lanes, AVX-512's instructions for the parts of x and for the power: 5 in all for ``fast``.
    """
    if native and x.type == vector(16, "f32"):
        return _power_in_parts(e, x, _EXP2_ABOVE_FAST if accuracy == "fast" else _EXP2_ABOVE)
    constant = _constants(e, x)
    x = e.maximum(constant(_EXP2_LOWEST), x)
    shifted = e.add(x, constant(_MAGIC))
    fraction = e.sub(x, e.sub(shifted, constant(_MAGIC)))
    return _scaled(e, shifted, fraction, _EXP2_FAST if accuracy == "fast" else _EXP2)


def gelu(e: Emitter, x: Value, accuracy: Accuracy = "accurate") -> Value:
    """x * Phi(x), Phi the normal distribution.

    Absolute errors: ``accurate`` 2.5e-7 * max(1, |x|) in 20 instructions, ``fast`` 1.4e-4 in 10.
    At -inf about 0, at inf inf.
    """
    if accuracy == "fast":
        return _relu_minus_tail_fast(e, x, _ERF_FAST_LIMIT, _ERF_FAST)
    return _relu_minus_tail(e, x, _ERF_LIMIT, _ERF)


def gelu_tanh(e: Emitter, x: Value, accuracy: Accuracy = "accurate") -> Value:
    """0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))), as `gelu` in all else."""
    if accuracy == "fast":
        return _relu_minus_tail_fast(e, x, _TANH_FAST_LIMIT, _TANH_FAST)
    return _relu_minus_tail(e, x, _TANH_LIMIT, _TANH)


def silu(e: Emitter, x: Value) -> Value:
    """x / (1 + exp(-x)), with a relative error of at most 4e-7 above -87; about 0 below."""
    constant = _constants(e, x)
    x = e.maximum(constant(_EXP_LOWEST), x)
    return e.div(x, e.add(exp(e, e.negate(x)), constant(1.0)))


def relu(e: Emitter, x: Value) -> Value:
    """The larger of x and 0, exactly."""
    return e.maximum(_constants(e, x)(0.0), x)


def tanh(e: Emitter, x: Value) -> Value:
    """The hyperbolic tangent, with a relative error of at most 4e-7; never beyond +-1."""
    constant = _constants(e, x)
    x = e.minimum(constant(_RATIONAL_LIMIT), e.maximum(constant(-_RATIONAL_LIMIT), x))
    square = e.mul(x, x)
    numerator = e.mul(x, _polynomial(e, square, _NUMERATOR))
    return e.div(numerator, _polynomial(e, square, _DENOMINATOR))


def exp_reference(x: _Array) -> _Array:
    """What `exp` approximates, its saturation included."""
    return np.exp(np.clip(x.astype(np.float64), _EXP_LOWEST, _EXP_HIGHEST))


def exp2_reference(x: _Array) -> _Array:
    """What `exp2_nonpositive` approximates; one of its forms goes on below -125.5."""
    return np.exp2(np.maximum(x.astype(np.float64), _EXP2_LOWEST))


def gelu_reference(x: _Array) -> _Array:
    """What `gelu` approximates."""
    wide = x.astype(np.float64)
    tail = np.vectorize(math.erfc, otypes=[np.float64])(np.abs(wide) / math.sqrt(2.0)) / 2.0
    return _with_tail(wide, tail)


def gelu_tanh_reference(x: _Array) -> _Array:
    """What `gelu_tanh` approximates."""
    wide = x.astype(np.float64)
    size = np.minimum(np.abs(wide), 1e3)
    inner = math.sqrt(2.0 / math.pi) * (size + 0.044715 * size**3)
    return _with_tail(wide, 1.0 / (1.0 + np.exp(np.minimum(2.0 * inner, 700.0))))


def silu_reference(x: _Array) -> _Array:
    """What `silu` approximates."""
    wide = np.maximum(x.astype(np.float64), _EXP_LOWEST)
    return wide / (1.0 + np.exp(-wide))


def relu_reference(x: _Array) -> _Array:
    """What `relu` computes."""
    return np.maximum(x.astype(np.float64), 0.0)


def tanh_reference(x: _Array) -> _Array:
    """What `tanh` approximates."""
    return np.tanh(x.astype(np.float64))


def _power(e: Emitter, x: Value, coefficients: Sequence[float]) -> Value:
    """e**x of an x in range, 2**f being a polynomial; every bit of log2(e) counts."""
    constant = _constants(e, x)
    shifted = e.fma(x, constant(_LOG2E), constant(_MAGIC))
    whole = e.sub(shifted, constant(_MAGIC))
    fraction = e.fma(x, constant(_LOG2E), e.negate(whole))
    fraction = e.fma(x, constant(_LOG2E_REST), fraction)
    return _scaled(e, shifted, fraction, coefficients)


def _scaled(e: Emitter, shifted: Value, fraction: Value, coefficients: Sequence[float]) -> Value:
    """2**fraction times 2 to what the low bits of ``shifted`` say."""
    power = _polynomial(e, fraction, coefficients)
    integers = fraction.type.replace("f32", "i32")
    exponent = e.shift_left(e.bitcast(shifted, integers), 23)
    return e.bitcast(e.add(e.bitcast(power, integers), exponent), fraction.type)


def _power_in_parts(e: Emitter, x: Value, coefficients: Sequence[float]) -> Value:
    """2**(x - floor(x)) by a polynomial, times 2**floor(x)."""
    all_lanes = e.literal(-1, "i16")
    rounding = e.literal(_CURRENT_ROUNDING, "i32")
    operands = [x, e.literal(_ABOVE_WHOLE, "i32"), x, all_lanes, rounding]
    above = e.intrinsic("llvm.x86.avx512.mask.reduce.ps.512", operands, x.type)
    power = _polynomial(e, above, coefficients)
    operands = [power, x, x, all_lanes, rounding]
    return e.intrinsic("llvm.x86.avx512.mask.scalef.ps.512", operands, x.type)


def _with_tail(x: _Array, tail: _Array) -> _Array:
    """max(x, 0) - |x| * tail, where 0 times infinity is 0."""
    size = np.minimum(np.abs(x), 1e300)
    result: _Array = np.maximum(x, 0.0) - size * tail
    return result


def _relu_minus_tail(e: Emitter, x: Value, limit: float, coefficients: Sequence[float]) -> Value:
    """max(x, 0) plus a polynomial of |x| up to ``limit``, in the accurate form."""
    constant = _constants(e, x)
    size = e.minimum(constant(limit), e.absolute(x))
    centred = e.fma(size, constant(2.0 / limit), constant(-1.0))
    return e.add(relu(e, x), _polynomial(e, centred, coefficients))


def _relu_minus_tail_fast(
    e: Emitter, x: Value, limit: float, coefficients: Sequence[float]
) -> Value:
    """max(x, 0) plus a polynomial of |x| up to ``limit``, in the fast form."""
    size = e.minimum(_constants(e, x)(limit), e.absolute(x))
    return e.fma(_polynomial(e, size, coefficients), size, relu(e, x))


def _polynomial(e: Emitter, x: Value, coefficients: Sequence[float]) -> Value:
    """The sum of coefficients[k] * x**k, by Horner's rule."""
    constant = _constants(e, x)
    result = constant(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        result = e.fma(result, x, constant(coefficient))
    return result


def _constants(e: Emitter, x: Value) -> Callable[[float], Value]:
    """Makes numbers of the type of ``x``, which must be f32 or a vector of it."""
    if element_of(x.type) != "f32":
        raise ValueError(f"a function of f32 was given {x.type}")
    return lambda number: e.number(number, x.type)
