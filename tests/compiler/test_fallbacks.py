"""What no kernel serves is said: in the report, in the bundle, and to people."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from iree.compiler import ir

from canao import console, targets
from canao.compiler.api import compile_model
from canao.compiler.flags import iree_flags
from canao.compiler.iree_session import PhasedCompiler
from canao.compiler.parameters import Parameter, ParameterTable
from canao.compiler.patterns.base import PatternContext
from canao.compiler.patterns.registry import pipeline
from canao.inspection import describe
from canao.targets import Target

from . import families
from .support import imported, lower_and_run, relative_error

X86 = Target(
    name="x86",
    kind="cpu",
    description="with every engine of AVX-512",
    triple="x86_64-unknown-linux-gnu",
    features=("avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512bf16"),
    precisions=("f32", "bf16", "int8"),
)
BARE = Target(
    name="bare",
    kind="cpu",
    description="a CPU that no kernel knows",
    triple="x86_64-unknown-linux-gnu",
    precisions=("f32", "int8"),
)
WRITTEN = "attention by linalg, because the model writes it as products and a softmax"
NORM = "norm by linalg, because it is written out, and no RMS norm"
TAKEN = "by linalg, because no product's kernel takes it in"


def said(model: Any, target: Target = X86, precision: str = "f32") -> Counter[str]:
    """What is recorded while kernels are planned; nothing is compiled."""
    context = PatternContext(
        target=target,
        precision=precision,
        parameters=ParameterTable(
            Parameter(name, tuple(tensor.shape), "float32")
            for name, tensor in model.parameters.items()
        ),
    )
    compiler = PhasedCompiler(model.text, iree_flags(target))
    with compiler.context, ir.Location.unknown():
        for pattern in pipeline(target)["torch"]:
            pattern.run(compiler.module, context)
    return Counter(fallback.summary for fallback in context.fallbacks)


# What linalg serves of each family with two layers; not their kernels' own lines.
EXPECTED = {
    "BERT": {},
    "MPNet": {WRITTEN: 2},
    "DeBERTa-v2": {WRITTEN: 2},
    "ALBERT": {f"activation tanh {TAKEN}": 2},
    "GPT-2": {f"activation tanh {TAKEN}": 2},
    "ModernBERT": {f"activation gelu {TAKEN}": 2},
    "T5 encoder": {},
    "Llama": {f"activation silu {TAKEN}": 2},
    "Qwen3": {f"activation silu {TAKEN}": 2},
}


@pytest.mark.parametrize("family", EXPECTED)
def test_what_a_family_writes_out_is_said(family: str) -> None:
    model, _, _ = imported(families.build(family))
    for precision in ("f32", "int8"):
        assert said(model, precision=precision) == EXPECTED[family]


def test_a_cpu_without_engines_is_told_of_all() -> None:
    model, _, _ = imported(families.build("BERT"))
    assert said(model, BARE, "int8") == {
        "attention by linalg, because no kernel does it on this CPU": 2,
        "linear layer by linalg in int8, because no kernel does int8 on this CPU": 9,
    }


class Odd(torch.nn.Module):
    """QuickGELU, a product by a weight that is no linear layer, and a norm by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.Linear(32, 32)
        self.turn = torch.nn.Parameter(torch.eye(32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.up(x)
        y = (y * torch.sigmoid(1.702 * y)) @ self.turn.T
        y = y - y.mean(-1, keepdim=True)
        return y / torch.sqrt(y.square().mean(-1, keepdim=True) + 1e-6)


def test_what_is_spelled_another_way_is_said() -> None:
    model, _, _ = imported(Odd().eval(), [torch.randn(1, 4, 32)])
    assert said(model) == {
        f"activation sigmoid {TAKEN}": 1,
        NORM: 1,
        "product by linalg, because the model does not write a linear layer": 1,
    }


class Deep(torch.nn.Module):
    """One layer whose sums of products of codes always fit in 32 bits, two whose may not."""

    def __init__(self, *depths: int) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList(torch.nn.Linear(depth, 16) for depth in depths)
        with torch.no_grad():
            for part in self.parts:
                part.weight.abs_()

    def forward(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> tuple[Any, ...]:
        return tuple(part(x) for part, x in zip(self.parts, (a, b, c), strict=True))


@pytest.mark.skipif("int8" not in targets.get("host").precisions, reason="no int8 kernels here")
def test_sums_of_a_deep_int8_product_fit(tmp_path: Path) -> None:
    depths = (66304, 70000, 132112)
    module = Deep(*depths).eval()
    drawn = [1 - 1e-3 * torch.rand(1, depth) for depth in depths]
    for x in drawn:
        x[0, 0] = 0.0  # nearly all codes are the largest
    model, entry, inputs = imported(module, drawn)
    found, result = lower_and_run(model, inputs, tmp_path, precision="int8")
    assert relative_error(found, entry(*inputs)) < 1e-3
    signed = targets.get("host").arch == "aarch64"
    assert result.linalg == {
        **(
            {}
            if signed
            else {
                "linear layer by linalg in int8, because a sum of 70000 products of codes may not "
                "fit in 32 bits": 1
            }
        ),
        "linear layer by linalg, because a sum of 132112 products of codes may not fit in 32 bits": 1,  # noqa: E501
    }


def test_the_bundle_and_people_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(32, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8))
    report = compile_model(
        module.eval(),
        example_inputs={"input": torch.randn(2, 32)},
        isolated=False,
        output=tmp_path / "bundle",
    )
    counts = {
        "linear layer by linalg, because 32 x 8 is too small to tile": 1,
        "linear layer by linalg, because 8 x 8 is too small to tile": 1,
    }
    assert report.to_json()["linalg"] == {"host/1": counts}
    assert report.bundle.manifest.model["linalg"] == {"host/1": counts}
    describe(tmp_path / "bundle").print()
    text = "; ".join(f"1 x {line}" for line in counts)
    assert f"no kernels, host/1: {text}" in " ".join(capsys.readouterr().out.split())


def test_modules_that_are_alike_share_a_line() -> None:
    counts = {"a/1": {"this": 2, "that": 1}, "a/2": {"this": 2, "that": 1}, "b/1": {}}
    assert console.counted(counts) == ["a/1, a/2: 2 x this; 1 x that"]
