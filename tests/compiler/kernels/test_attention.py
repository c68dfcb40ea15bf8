"""The attention kernel against float64, on every engine that this machine can run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.kernels.attention import attention_kernel, serves
from canao.compiler.kernels.attention_plan import plan_for
from canao.compiler.kernels.attention_reference import attention_reference, from_bf16
from canao.compiler.kernels.attention_shape import (
    AttentionForm,
    AttentionShape,
    Matrix,
    Sources,
    View,
)
from canao.compiler.kernels.convert import convert_reference
from canao.compiler.kernels.engines.amx import AmxBf16
from canao.compiler.kernels.engines.avx512 import Avx512Bf16, Avx512F32, Avx512Int8
from canao.compiler.kernels.engines.base import Engine
from canao.compiler.kernels.engines.registry import ENGINES, engines
from canao.targets import Target

from ...profiles import compiling
from .batch import ARM, run_batch

_Array = np.ndarray[Any, Any]

HOST = targets.get("host")
PRECISIONS = ("f32", "bf16")
KINDS = [
    kind
    for kind in ENGINES
    if kind.precision in PRECISIONS and set(kind.features) <= set(HOST.features)
]
# Each where the fewest features are.
KINDS_ON_ARM = [
    (next(n for n in ARM if set(kind.features) <= set(targets.get(n).features)), kind)
    for kind in ENGINES
    if kind.precision in PRECISIONS and kind.name.startswith("neon")
]
EVERYWHERE = [*(("host", kind) for kind in KINDS), *KINDS_ON_ARM]
LOWEST = np.finfo(np.float32).min
# Of the largest |v|.
TOLERANCE = {"f32": 2e-6, "bf16": 4e-3}


@dataclasses.dataclass(frozen=True)
class Case:
    """A kernel's parameters, and its numbers by a seed."""

    shape: AttentionShape
    sources: Sources
    form: AttentionForm
    seed: int = 0
    size: float = 1.0

    def numbers(self, precision: str) -> list[_Array]:
        """The operands; what no head may read is NaN."""
        generator = np.random.default_rng(self.seed)
        shape, sources = self.shape, self.sources
        matrices = [np.full((m.rows, m.width), np.nan, np.float32) for m in sources.matrices]
        for view, length, width in (
            (sources.query, shape.queries, shape.heads * shape.head_dim),
            (sources.key, shape.keys, shape.kv_heads * shape.head_dim),
            (sources.value, shape.keys, shape.kv_heads * shape.value_dim),
        ):
            rows = shape.batch * length
            part = generator.standard_normal((rows, width)).astype(np.float32)
            part *= 1.0 if view is sources.value else self.size
            if precision == "bf16":
                part = from_bf16(convert_reference(part))
            matrices[view.matrix][:rows, view.column : view.column + width] = part
        operands = [
            convert_reference(found) if matrix.element == "i16" else found
            for matrix, found in zip(sources.matrices, matrices, strict=True)
        ]
        if self.form.bias is not None:
            bias = generator.standard_normal(self.form.bias).astype(np.float32)
            chosen = generator.random(self.form.bias)
            bias[chosen < 0.2] = -np.inf
            bias[chosen > 0.9] = LOWEST
            rows_of_bias = bias.reshape(-1, shape.keys)
            rows_of_bias[generator.random(len(rows_of_bias)) < 0.1] = -np.inf
            rows_of_bias[generator.random(len(rows_of_bias)) < 0.1] = LOWEST
            operands.append(bias)
        return operands

    def largest_value(self, matrices: Sequence[_Array]) -> float:
        """The largest |v|."""
        shape, view = self.shape, self.sources.value
        found = matrices[view.matrix]
        found = from_bf16(found) if found.dtype == np.int16 else found
        columns = slice(view.column, view.column + shape.kv_heads * shape.value_dim)
        return float(np.abs(found[: shape.batch * shape.keys, columns]).max())

    def check(self, engine: Engine, operands: Sequence[_Array], found: _Array) -> None:
        """Raise `AssertionError` where ``found`` is not right."""
        shape, form = self.shape, self.form
        bias = operands[-1] if form.bias is not None else None
        matrices = operands[: len(self.sources.matrices)]
        expected = attention_reference(shape, self.sources, form, matrices, bias)
        rows, width = expected.shape
        result = from_bf16(found) if form.output == "bf16" else found
        assert found.shape == (form.output_rows or rows, form.output_stride or width)
        assert not result[:rows, width:].any()
        result = result[:rows, :width]
        tolerance = TOLERANCE["bf16" if form.output == "bf16" else engine.precision]
        # Large scores are known to some roundings of their own size only.
        tolerance += 5e-7 * (self.size**2 - 1.0)
        assert np.abs(result - expected).max() <= tolerance * self.largest_value(matrices)
        assert not result[~expected.any(axis=1)].any()


def form_of(shape: AttentionShape, **parameters: Any) -> AttentionForm:
    return AttentionForm(scale=shape.head_dim**-0.5, **parameters)


def engine_of(kind: type[Engine], target: Target = HOST) -> Engine:
    found = engines(target.features, kind.precision)
    return next(engine for engine in found if type(engine) is kind)


def run(engine: Engine, cases: Sequence[Case], target: Target = HOST) -> None:
    """Compile the cases into one module, run it, check each."""
    batch = []
    for case in cases:
        kernel = attention_kernel(engine, case.shape, case.sources, case.form)
        batch.append((kernel, case.numbers(engine.precision)))
    results = run_batch(batch, target)
    for case, (_, operands), found in zip(cases, batch, results, strict=True):
        case.check(engine, operands, found)


@st.composite
def cases(draw: st.DrawFn, target: Target = HOST) -> Case:
    queries = draw(st.integers(1, 70))
    kv_heads = draw(st.integers(1, 3))
    shape = AttentionShape(
        batch=draw(st.integers(1, 3)),
        queries=queries,
        keys=draw(st.just(queries) | st.integers(1, 150)),
        heads=kv_heads * draw(st.integers(1, 3)),
        kv_heads=kv_heads,
        head_dim=(
            dim := draw(st.sampled_from([16, 24, 32, 64, 80, 96, 128]) | st.integers(1, 40))
        ),
        value_dim=draw(st.just(dim) | st.integers(1, 70)),
    )
    sources = Sources.separate(shape)
    if shape.keys == shape.queries and draw(st.booleans()):
        sources = Sources.joined(shape)
    margin = draw(st.integers(0, 9))
    matrices = [
        Matrix(
            matrix.rows + draw(st.integers(0, 3)),
            margin + matrix.width + draw(st.integers(0, 3)),
            draw(st.sampled_from(["f32", "i16"])),
        )
        for matrix in sources.matrices
    ]
    views = [
        View(view.matrix, margin + view.column)
        for view in (sources.query, sources.key, sources.value)
    ]
    bias = (shape.batch, shape.heads, shape.queries)
    sizes = [draw(st.sampled_from([1, size])) for size in bias]
    width = shape.heads * shape.value_dim
    form = form_of(
        shape,
        bias=(*sizes, shape.keys) if draw(st.booleans()) else None,
        causal=draw(st.booleans()),
        output=draw(st.sampled_from(["f32", "bf16"])),
        output_rows=shape.batch * shape.queries + draw(st.integers(0, 20)),
        output_stride=width + draw(st.sampled_from([0, 1, 40])),
        native_bf16="avx512bf16" in target.features and draw(st.booleans()),
    )
    seed = draw(st.integers(0, 2**32))
    size = draw(st.sampled_from([0.0, 1.0, 1.0, 30.0]))
    return Case(shape, Sources(tuple(matrices), *views), form, seed, size)


def long_cases() -> list[Case]:
    """Keys that come in chunks: shared heads, a rest, a mask, causal ones of every chunk."""
    found = []
    for shape, parameters in (
        (AttentionShape(1, 40, 512, 1, 64), {"bias": (1, 1, 1, 512)}),
        (AttentionShape(2, 33, 700, 4, 128, 2), {"bias": (2, 1, 33, 700)}),
        (AttentionShape(1, 600, 600, 1, 64), {"causal": True, "output": "bf16"}),
        (AttentionShape(1, 5, 4096, 2, 40, 1), {}),
    ):
        found.append(Case(shape, Sources.separate(shape), form_of(shape, **parameters)))
    return found


def small_cases() -> list[Case]:
    """One of each kind, for emulation."""
    found = []
    for shape, parameters in (
        (AttentionShape(1, 9, 21, 2, 16, 1), {"bias": (1, 2, 9, 21)}),
        (AttentionShape(2, 6, 6, 1, 24), {"causal": True}),
        (AttentionShape(1, 7, 13, 1, 5, 1, 9), {"bias": (1, 1, 1, 13), "output_stride": 12}),
        (AttentionShape(1, 3, 900, 1, 64), {"output": "bf16"}),
    ):
        found.append(Case(shape, Sources.separate(shape), form_of(shape, **parameters)))
    return found


def test_this_machine_has_an_engine() -> None:
    assert KINDS


@pytest.mark.parametrize("kind", KINDS)
@compiling(3)
@given(drawn=st.lists(cases(), min_size=3, max_size=3))
def test_any_attention(kind: type[Engine], drawn: list[Case]) -> None:
    engine = engine_of(kind)
    run(engine, drawn)


@pytest.mark.parametrize("kind", KINDS)
def test_more_keys_than_fit(kind: type[Engine]) -> None:
    engine = engine_of(kind)
    plans = [plan_for(engine, case.shape) for case in long_cases()]
    assert any(plan is not None and plan.items for plan in plans)
    run(engine, long_cases())


@pytest.mark.parametrize(("name", "kind"), KINDS_ON_ARM)
@compiling(6)  # half of what runs here: it takes longest to compile
@given(data=st.data())
def test_any_attention_on_arm(name: str, kind: type[Engine], data: st.DataObject) -> None:
    target = targets.get(name)
    drawn = data.draw(st.lists(cases(target), min_size=3, max_size=3))
    run(engine_of(kind, target), drawn, target)


@pytest.mark.parametrize(("name", "kind"), KINDS_ON_ARM)
def test_one_of_each_on_arm(name: str, kind: type[Engine]) -> None:
    target = targets.get(name)
    run(engine_of(kind, target), small_cases(), target)


@pytest.mark.parametrize(("name", "kind"), EVERYWHERE)
def test_heads_do_not_touch_one_another(name: str, kind: type[Engine]) -> None:
    """NaN in one head, or in one sequence, stays there."""
    target = targets.get(name)
    engine = engine_of(kind, target)
    shape = AttentionShape(2, 20, 20, 3, 24)
    case = Case(shape, Sources.joined(shape), form_of(shape))
    (clean,) = case.numbers(engine.precision)
    spoiled = clean.copy()
    spoiled[:20, 24:48] = spoiled[:20, 96:120] = spoiled[:20, 168:192] = np.nan
    kernel = attention_kernel(engine, shape, case.sources, case.form)
    (found,) = run_batch([(kernel, [spoiled])], target)
    assert np.isnan(found[:20, 24:48]).all()
    expected = attention_reference(shape, case.sources, case.form, [clean])
    found[:20, 24:48] = expected[:20, 24:48]
    case.check(engine, [clean], found)


@pytest.mark.parametrize(("name", "kind"), EVERYWHERE)
def test_a_row_of_huge_biases_keeps_the_largest(name: str, kind: type[Engine]) -> None:
    """Scores that differ by nothing or by more than counts, of both signs, also in chunks."""
    target = targets.get(name)
    engine = engine_of(kind, target)
    found = []
    for keys in (300, 4096):
        shape = AttentionShape(1, 7, keys, 1, 16)
        case = Case(shape, Sources.separate(shape), form_of(shape, bias=(1, 1, 7, keys)))
        operands = case.numbers(engine.precision)
        bias = operands[-1]
        bias[...] = np.random.default_rng(1).choice([LOWEST, -3.3e38, -np.inf], bias.shape)
        bias[0, 0, 1] = -3.3e38
        bias[0, 0, 2:, [7, -1]] = -2.1e38
        for row, largest in enumerate((-1.9e38, -1e20, -1e6, 3.3e38), 3):
            bias[0, 0, row, 290] = largest
        found.append((case, operands))
    batch = [
        (attention_kernel(engine, case.shape, case.sources, case.form), operands)
        for case, operands in found
    ]
    for (case, operands), result in zip(found, run_batch(batch, target), strict=True):
        case.check(engine, operands, result)


def test_says_what_it_does_not_serve() -> None:
    shape = AttentionShape(1, 8, 8, 1, 16)
    assert "integers" in str(serves(Avx512Int8(), shape))
    assert "wider" in str(serves(Avx512F32(), AttentionShape(1, 8, 8, 1, 512)))
    for engine in (Avx512F32(), Avx512Bf16(), AmxBf16()):
        for keys in (128, 384, 512, 4096):
            assert serves(engine, AttentionShape(1, keys, keys, 12, 64)) is None
        assert serves(engine, AttentionShape(1, 512, 512, 12, 256)) is None
    with pytest.raises(ValueError, match="integers"):
        attention_kernel(Avx512Int8(), shape, Sources.separate(shape), form_of(shape))


def test_refuses_what_does_not_fit() -> None:
    shape = AttentionShape(1, 8, 8, 2, 16)
    sources = Sources.separate(shape)
    for form in (
        form_of(shape, bias=(1, 1, 1, 7)),
        form_of(shape, bias=(1, 3, 1, 8)),
        form_of(shape, output="f16"),
        form_of(shape, output_rows=7),
        form_of(shape, output_stride=31),
    ):
        with pytest.raises(ValueError):  # noqa: PT011 (each says something else)
            attention_kernel(Avx512F32(), shape, sources, form)
    with pytest.raises(ValueError, match="beyond"):
        attention_kernel(
            Avx512F32(), shape, dataclasses.replace(sources, query=View(0, 1)), form_of(shape)
        )
    with pytest.raises(ValueError, match="shape"):
        AttentionShape(1, 8, 8, 3, 16, 2)


def test_a_name_tells_everything() -> None:
    shape = AttentionShape(1, 8, 8, 2, 16)
    joined, separate = Sources.joined(shape), Sources.separate(shape)
    forms = [
        form_of(shape),
        AttentionForm(scale=0.3),
        form_of(shape, bias=(1, 1, 1, 8)),
        form_of(shape, bias=(1, 1, 8, 8)),
        form_of(shape, causal=True),
        form_of(shape, output="bf16"),
        form_of(shape, output="bf16", native_bf16=True),
        form_of(shape, output_rows=16),
        form_of(shape, output_stride=64),
    ]
    made = [attention_kernel(Avx512F32(), shape, joined, form) for form in forms]
    made.append(attention_kernel(Avx512F32(), shape, separate, forms[0]))
    made.append(attention_kernel(Avx512Bf16(), shape, joined, forms[0]))
    wider = AttentionShape(1, 8, 8, 2, 16, 2, 8)
    made.append(attention_kernel(Avx512F32(), wider, joined, forms[0]))
    assert len({kernel.name for kernel in made}) == len(made)
    assert len({kernel.declaration() for kernel in made}) == len(made)
