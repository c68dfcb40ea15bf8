"""Each pattern alone and in any allowed order: it applies, the IR is valid, numbers stay."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from iree.compiler import ir

from canao import targets
from canao.compiler.flags import iree_flags
from canao.compiler.iree_session import PhasedCompiler
from canao.compiler.parameters import Parameter, ParameterTable
from canao.compiler.patterns.base import Pattern, PatternContext, operations
from canao.compiler.patterns.bind_parameters import BindParameters
from canao.compiler.patterns.cut_hidden import CutHidden
from canao.compiler.patterns.decompose_attention import DecomposeAttention
from canao.compiler.patterns.emit_kernels import EmitKernels
from canao.compiler.patterns.fuse_qkv import FuseQKV
from canao.compiler.patterns.gather_lines import GatherLines
from canao.compiler.patterns.kernel_attention import KernelAttention
from canao.compiler.patterns.kernel_embedding import KernelEmbedding
from canao.compiler.patterns.kernel_layer_norm import KernelLayerNorm
from canao.compiler.patterns.kernel_linear import KernelLinear
from canao.compiler.patterns.linear_of_addmm import LinearOfAddmm
from canao.compiler.patterns.narrow_integers import NarrowIntegers
from canao.compiler.patterns.registry import PIPELINE, names, pipeline, register
from canao.compiler.patterns.single_queue import SingleQueue
from canao.compiler.patterns.split_heads import SplitHeads
from canao.compiler.patterns.strip_checks import StripChecks
from canao.compiler.patterns.strip_copies import StripCopies
from canao.errors import CompileError, InputError, UnsupportedError

from ..profiles import compiling
from . import families
from .support import default_pipeline, imported, lower_and_run, relative_error

TOLERANCE = 1e-5
FREE = (
    StripCopies,
    LinearOfAddmm,
    CutHidden,
    GatherLines,
    FuseQKV,
    KernelAttention,
    KernelEmbedding,
    SplitHeads,
    DecomposeAttention,
    KernelLinear,
    KernelLayerNorm,
)


def apply(pattern: Pattern, model: Any, *, upto: str | None = None) -> tuple[int, str]:
    """Run one pattern on an imported model; (times applied, IR afterwards)."""
    table = ParameterTable(
        Parameter(name, tuple(t.shape), "float32") for name, t in model.parameters.items()
    )
    context = PatternContext(target=targets.get("host"), precision="f32", parameters=table)
    compiler = PhasedCompiler(model.text, ["--iree-hal-target-device=local"])
    with compiler.context, ir.Location.unknown():
        if upto:
            for required in (StripChecks(), BindParameters()):
                required.run(compiler.module, context)
            compiler.advance(upto)
        count = pattern.run(compiler.module, context)
        assert compiler.module.operation.verify()
        return count, str(compiler.module)


@functools.cache
def imported_family(family: str) -> Any:
    """Importing is the slow part and the same for every order of patterns."""
    return imported(families.build(family))


class Projections(torch.nn.Module):
    """Three projections of one input, one of another."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.a = torch.nn.Linear(8, 6, bias=bias)
        self.b = torch.nn.Linear(8, 10, bias=bias)
        self.c = torch.nn.Linear(8, 4, bias=bias)
        self.alone = torch.nn.Linear(4, 8, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([self.a(x), self.b(x).tanh()], dim=-1)
        return joined.sum(-1, keepdim=True) + self.alone(self.c(x))


@pytest.mark.parametrize("bias", [True, False])
def test_fuse_qkv_joins_projections_of_one_input(bias: bool, tmp_path: Any) -> None:
    model, entry, inputs = imported(Projections(bias).eval(), [torch.randn(1, 5, 8)])
    count, text = apply(FuseQKV(), model)
    assert count == 1
    assert text.count("torch.aten.linear") == 2
    assert "!torch.vtensor<[1,5,20],f32>" in text
    found, result = lower_and_run(model, inputs, tmp_path)
    assert relative_error(found, entry(*inputs)) < TOLERANCE
    assert result.patterns["canao.fuse_qkv"] == 1
    joined = [d.name for d in result.derivations]
    assert len(joined) == (2 if bias else 1)
    # The parts are gone: only the joined weight and the one that stands alone are loaded.
    assert set(result.parameters) == {*joined, "alone.weight", *(["alone.bias"] if bias else [])}


def test_fuse_qkv_leaves_projections_of_different_inputs_alone() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)).eval()
    model, _, _ = imported(module, [torch.randn(2, 8)])
    count, text = apply(FuseQKV(), model)
    assert count == 0
    assert text.count("torch.aten.linear") == 2


class Vectors(torch.nn.Module):
    """Linear maps to a scalar: their weights are vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.randn(8))
        self.b = torch.nn.Parameter(torch.randn(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        linear = torch.nn.functional.linear
        return linear(x, self.a) + linear(x, self.b)


class Shared(torch.nn.Module):
    """A weight that serves a joinable projection and something else."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) + self.b(x) + self.a.weight.sum(0)


@pytest.mark.parametrize("module", [Vectors(), Shared()])
def test_fuse_qkv_leaves_vectors_and_shared_weights_alone(
    module: torch.nn.Module, tmp_path: Any
) -> None:
    model, entry, inputs = imported(module.eval(), [torch.randn(5, 8)])
    found, result = lower_and_run(model, inputs, tmp_path)
    assert result.patterns["canao.fuse_qkv"] == 0
    assert relative_error(found, entry(*inputs)) < TOLERANCE


def test_fuse_qkv_respects_the_largest_buffer() -> None:
    model, _, _ = imported(Projections(bias=True).eval(), [torch.randn(1, 5, 8)])
    table = ParameterTable(
        Parameter(name, tuple(t.shape), "float32") for name, t in model.parameters.items()
    )
    small = dataclasses.replace(targets.get("vulkan-adreno"), max_storage_buffer_bytes=500)
    compiler = PhasedCompiler(model.text, ["--iree-hal-target-device=local"])
    with compiler.context, ir.Location.unknown():
        context = PatternContext(target=small, precision="f32", parameters=table)
        assert FuseQKV().run(compiler.module, context) == 0


def test_fuse_qkv_leaves_biased_and_unbiased_apart() -> None:
    module = Projections(bias=True).eval()
    module.b = torch.nn.Linear(8, 10, bias=False)
    model, _, _ = imported(module, [torch.randn(1, 5, 8)])
    count, text = apply(FuseQKV(), model)
    assert count == 1
    assert text.count("torch.aten.linear") == 3


def fused(module: torch.nn.Module, inputs: Any = None) -> str:
    """IR of a model after its projections were joined, then split into heads."""
    model, _, _ = imported(module, inputs)
    table = ParameterTable(
        Parameter(name, tuple(t.shape), "float32") for name, t in model.parameters.items()
    )
    context = PatternContext(target=targets.get("host"), precision="f32", parameters=table)
    compiler = PhasedCompiler(model.text, ["--iree-hal-target-device=local"])
    with compiler.context, ir.Location.unknown():
        assert FuseQKV().run(compiler.module, context) == 2
        assert SplitHeads().run(compiler.module, context) == 2
        assert compiler.module.operation.verify()
        return str(compiler.module)


@pytest.mark.parametrize("family", ["BERT", "DistilBERT", "ELECTRA"])
def test_split_heads_takes_parts_from_one_transposition(family: str) -> None:
    text = fused(families.build(family))
    assert len(re.findall(r"select\.int .*\[3,1,2,12,16\]", text)) == 6


class Heads(torch.nn.Module):
    """Projections of one input, each reshaped and permuted."""

    def __init__(self, sizes: tuple[int, ...], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList(torch.nn.Linear(8, size) for size in sizes)
        self.shape = shape

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(part(x).view(self.shape).transpose(1, 2) for part in self.parts)


@pytest.mark.parametrize(
    ("sizes", "shape", "times"),
    [
        ((8, 8), (1, 3, 2, 4), 1),
        ((8, 8, 8, 8), (1, 3, 4, 2), 1),
        ((8, 8), (1, 6, 2, 2), 0),  # not a split of the last dimension alone
        ((8, 8), (3, 1, 2, 4), 0),
        ((8, 4), (1, 3, 2, -1), 0),  # parts of unequal width
    ],
)
def test_split_heads_keeps_numbers_where_it_applies_and_where_not(
    sizes: tuple[int, ...], shape: tuple[int, ...], times: int, tmp_path: Any
) -> None:
    model, entry, inputs = imported(Heads(sizes, shape).eval(), [torch.randn(1, 3, 8)])
    found, result = lower_and_run(model, inputs, tmp_path)
    assert result.patterns["canao.fuse_qkv"] == 1
    assert result.patterns["canao.split_heads"] == times
    assert relative_error(found, entry(*inputs)) < TOLERANCE


class Attention(torch.nn.Module):
    """scaled_dot_product_attention with its options."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options

    def forward(self, q: Any, k: Any, v: Any, mask: Any = None) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, **self.options
        )


def _qkv(rows: int = 6, columns: int = 9, heads: int = 2) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 2, rows, 4)] + [torch.randn(2, heads, columns, 4) for _ in range(2)]


def _closed(mask: torch.Tensor, value: Any) -> torch.Tensor:
    """The mask with one row that allows nothing: PyTorch's operator gives zeros there."""
    mask[0, 0, 2] = value
    return mask


ATTENTIONS: dict[str, Any] = {
    "plain": ({}, _qkv()),
    "scale": ({"scale": 0.25}, _qkv()),
    "causal": ({"is_causal": True}, _qkv(columns=6)),
    "grouped": ({"enable_gqa": True}, _qkv(heads=1)),
    "bool mask": ({}, [*_qkv(), torch.rand(2, 1, 6, 9) > 0.3]),
    "mask of two dimensions": ({}, [*_qkv(), torch.rand(6, 9) > 0.3]),
    "float mask": ({}, [*_qkv(), torch.randn(2, 1, 6, 9)]),
    "closed row of bools": ({}, [*_qkv(), _closed(torch.rand(2, 1, 6, 9) > 0.3, False)]),
    "closed row of floats": ({}, [*_qkv(), _closed(torch.randn(2, 1, 6, 9), -torch.inf)]),
    "row of lowest floats": (
        {},
        [*_qkv(), _closed(torch.zeros(2, 1, 6, 9), torch.finfo(torch.float32).min)],
    ),
    "three dimensions": ({}, [tensor[0] for tensor in _qkv()]),
}


@pytest.mark.parametrize(("options", "inputs"), ATTENTIONS.values(), ids=ATTENTIONS.keys())
def test_decompose_attention_keeps_its_numbers(options: Any, inputs: Any, tmp_path: Any) -> None:
    module = Attention(**options).eval()
    model, entry, given_inputs = imported(module, inputs)
    count, text = apply(DecomposeAttention(), model)
    assert count == 1
    assert "scaled_dot_product_attention" not in text
    assert len(re.findall(r"torch\.aten\.matmul", text)) == 2
    dropped = ("canao.kernel_attention",)
    found, _ = lower_and_run(model, given_inputs, tmp_path, drop_patterns=dropped)
    assert relative_error(found, entry(*given_inputs)) < TOLERANCE


@pytest.mark.parametrize(("options", "inputs"), ATTENTIONS.values(), ids=ATTENTIONS.keys())
def test_kernel_attention_keeps_its_numbers(options: Any, inputs: Any, tmp_path: Any) -> None:
    model, entry, given_inputs = imported(Attention(**options).eval(), inputs)
    found, result = lower_and_run(model, given_inputs, tmp_path)
    served = given_inputs[0].ndim == 4
    assert result.patterns["canao.kernel_attention"] == int(served)
    assert len(result.fallbacks) == int(not served)
    assert relative_error(found, entry(*given_inputs)) < TOLERANCE


def test_decompose_attention_makes_one_bias_for_all_layers() -> None:
    model, _, _ = imported(families.build("BERT"))
    count, text = apply(DecomposeAttention(), model)
    assert count == 2
    # One bias and one "allows anything" for both layers.
    assert text.count("torch.aten.where.Scalar") == 2


def test_strip_checks_removes_every_assertion() -> None:
    model, _, _ = imported(families.build("BERT"))
    assert "_assert" in model.text
    count, text = apply(StripChecks(), model)
    assert count > 0
    assert "_assert" not in text


def test_bind_parameters_declares_each_weight_once() -> None:
    model, _, _ = imported(families.build("ALBERT"))
    count, text = apply(BindParameters(), model)
    assert "canao.parameter" not in text
    assert text.count("util.global private") == count == len(model.parameters)


@pytest.mark.parametrize("family", ["BERT", "DeBERTa-v2", "T5 encoder", "ModernBERT", "MPNet"])
def test_narrow_integers_leaves_no_64_bit_value(family: str) -> None:
    model, _, _ = imported(families.build(family))
    count, text = apply(NarrowIntegers(), model, upto="input")
    assert count > 0
    # Attributes (predicates, offsets) may stay 64 bits wide; values may not.
    lines = [re.sub(r"array<i64[^>]*>|<{.*}>", "", line) for line in text.splitlines()]
    assert not [line for line in lines if re.search(r"\bi64\b|xi64", line)]


class Wide(torch.nn.Module):
    """64-bit arithmetic on small numbers, and a bound that only fits 64 bits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(x.shape[1]) * 3 - 1
        chosen = torch.where(x > 2, x.long() + positions, torch.tensor(7))
        return chosen.clamp(max=2**40).to(torch.int32)


class Hash(torch.nn.Module):
    """Arithmetic that needs more than 32 bits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.long() * 2654435761) % 1000


class Shift(torch.nn.Module):
    """A shift beyond 32 bits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.long() >> 33


def test_narrow_integers_keeps_numbers(tmp_path: Any) -> None:
    model, entry, inputs = imported(Wide().eval(), [torch.tensor([[1, 2, 3, 40]])])
    stages = default_pipeline()
    stages["linalg"] = [NarrowIntegers()]
    found, _ = lower_and_run(model, inputs, tmp_path, patterns=stages)
    assert relative_error(found, entry(*inputs)) == 0


@pytest.mark.parametrize("module", [Hash(), Shift()])
def test_narrow_integers_refuses_what_needs_64_bits(
    module: torch.nn.Module, tmp_path: Any
) -> None:
    model, _, inputs = imported(module.eval(), [torch.tensor([[1, 2, 3, 40]])])
    stages = default_pipeline()
    stages["linalg"] = [NarrowIntegers()]
    with pytest.raises(UnsupportedError, match="64-bit"):
        lower_and_run(model, inputs, tmp_path, patterns=stages)


@pytest.mark.parametrize("family", families.CONFIGS)
def test_narrow_integers_keeps_the_numbers_of_every_family(family: str, tmp_path: Any) -> None:
    """The targets without 64-bit integers cannot be run here; this machine runs their form."""
    model, entry, inputs = imported_family(family)
    stages = default_pipeline()
    # These leave no 64-bit integers in some families, and no GPU has them.
    kernels = (KernelAttention, KernelEmbedding)
    stages["torch"] = [one for one in stages["torch"] if not isinstance(one, kernels)]
    stages["linalg"] = [NarrowIntegers()]
    found, result = lower_and_run(model, inputs, tmp_path, patterns=stages)
    assert result.patterns["canao.narrow_integers"] > 0
    assert relative_error(found, entry(*inputs)) < TOLERANCE


@compiling()
@given(
    order=st.permutations(FREE),
    kept=st.sets(st.sampled_from(FREE)),
    family=st.sampled_from(["BERT", "DistilBERT", "GPT-2", "Llama", "T5 encoder"]),
)
def test_any_allowed_order_of_any_patterns(
    order: Any, kept: Any, family: str, tmp_path_factory: Any
) -> None:
    chosen = [pattern for pattern in order if pattern in kept]
    position = {pattern.name: index for index, pattern in enumerate(chosen)}
    assume(all(position.get(name, -1) < position[p.name] for p in chosen for name in p.after))
    model, entry, inputs = imported_family(family)
    stages = default_pipeline()
    stages["torch"] = [
        StripChecks(),
        *(pattern() for pattern in order if pattern in kept),
        EmitKernels(),
        BindParameters(),
    ]
    found, _ = lower_and_run(model, inputs, tmp_path_factory.mktemp("order"), patterns=stages)
    assert relative_error(found, entry(*inputs)) < TOLERANCE


def test_the_pipeline_is_in_an_allowed_order_for_every_target() -> None:
    for name in targets.names():
        assert pipeline(targets.get(name))["torch"][-1].name == "canao.bind_parameters"


def test_fusion_stock_keeps_required_patterns_and_none_the_product_path_too() -> None:
    products = ["linear_of_addmm", "quantize_embeddings", "kernel_linear"]
    products += ["quantize_linear", "narrow_linear"]
    for fusion, more in (("stock", []), ("none", [f"canao.{name}" for name in products])):
        chosen = pipeline(targets.get("host"), fusion=fusion)
        patterns = [pattern for stage in chosen.values() for pattern in stage]
        assert [pattern.name for pattern in patterns if not pattern.required] == more


def test_dropping_a_pattern_leaves_it_out() -> None:
    chosen = pipeline(targets.get("host"), drop=["canao.fuse_qkv"])
    assert "canao.fuse_qkv" not in [p.name for p in chosen["torch"]]


@pytest.mark.parametrize("name", ["canao.nothing", "canao.bind_parameters"])
def test_dropping_what_cannot_be_dropped_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=name):
        pipeline(targets.get("host"), drop=[name])


def test_registering_a_name_twice_is_refused() -> None:
    with pytest.raises(InputError, match=r"canao\.fuse_qkv"):
        register(FuseQKV())


def test_single_queue_pins_every_affinity() -> None:
    model, _, _ = imported(torch.nn.Linear(4, 4).eval(), [torch.randn(1, 4)])
    compiler = PhasedCompiler(model.text, iree_flags(targets.get("vulkan-llvmpipe")))
    table = ParameterTable(
        Parameter(name, tuple(t.shape), "float32") for name, t in model.parameters.items()
    )
    context = PatternContext(target=targets.get("host"), precision="f32", parameters=table)
    with compiler.context, ir.Location.unknown():
        BindParameters().run(compiler.module, context)
        compiler.advance("flow")
        loose = "#hal.device.affinity<@__device_0>"
        assert loose in str(compiler.module)
        assert SingleQueue().run(compiler.module, context) > 0
        assert loose not in str(compiler.module)
        assert compiler.module.operation.verify()


class Breaks(Pattern):
    """Erases what others use."""

    name = "test.breaks"
    stage = "torch"

    def run(self, module: ir.Module, context: PatternContext) -> int:
        for op in operations(module, "func.return"):
            op.erase()
        return 1


def test_a_pattern_that_breaks_the_ir_is_named(tmp_path: Any) -> None:
    model, _, inputs = imported(torch.nn.Linear(4, 4).eval(), [torch.randn(1, 4)])
    stages = default_pipeline()
    stages["torch"].insert(0, Breaks())
    with pytest.raises(CompileError, match=r"test\.breaks"):
        lower_and_run(model, inputs, tmp_path, patterns=stages)


def test_every_pattern_has_a_documented_before_and_after() -> None:
    import sys

    assert len(names()) == len(PIPELINE) == len(set(names()))
    for pattern in PIPELINE:
        text = sys.modules[type(pattern).__module__].__doc__ or ""
        assert "Before" in text
        assert "After" in text
        assert "Law:" in text
