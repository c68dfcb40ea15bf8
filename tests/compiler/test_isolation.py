"""A compiler that fails, loops or eats memory costs its own process and says why."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from canao.compiler.isolation import lower_isolated
from canao.compiler.lowering import LoweringRequest, LoweringResult, lower
from canao.errors import CanaoError, CompileError, UnsupportedError

from .support import imported, request_for


@pytest.fixture(scope="module")
def request_() -> LoweringRequest:
    model, _, _ = imported(torch.nn.Linear(8, 8).eval(), [torch.randn(4, 8)])
    return request_for(model)


def test_isolated_gives_what_in_process_gives(request_: LoweringRequest, tmp_path: Path) -> None:
    inside = lower(request_, tmp_path / "a.vmfb")
    outside, peak = lower_isolated(request_, tmp_path / "b.vmfb")
    assert (tmp_path / "a.vmfb").read_bytes() == (tmp_path / "b.vmfb").read_bytes()
    assert dataclasses.replace(inside, seconds=0) == dataclasses.replace(outside, seconds=0)
    assert peak > 10_000_000


def test_request_and_result_round_trip(request_: LoweringRequest, tmp_path: Path) -> None:
    assert LoweringRequest.from_json(request_.to_json()) == request_
    result = lower(request_, tmp_path / "a.vmfb")
    assert LoweringResult.from_json(result.to_json()) == result
    assert [layer for _, layer in result.calls] == ["model"] * len(result.calls)


def test_a_time_out_kills_and_says_so(request_: LoweringRequest, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"more than 0\.01 s"):
        lower_isolated(request_, tmp_path / "a.vmfb", timeout=0.01)
    assert not (tmp_path / "a.vmfb").exists()


def test_a_memory_limit_is_told_as_such(request_: LoweringRequest, tmp_path: Path) -> None:
    with pytest.raises(CanaoError):
        lower_isolated(request_, tmp_path / "a.vmfb", memory_limit=300 * 2**20)
    assert not (tmp_path / "a.vmfb").exists()


def test_an_op_without_a_form_is_named_with_its_layer(tmp_path: Path) -> None:
    text = (
        "module { func.func @main(%x: !torch.vtensor<[2],f32>) -> !torch.vtensor<[2],f32> {\n"
        '  %y = torch.operator "torch.acme.mystery"(%x) : (!torch.vtensor<[2],f32>) -> '
        '!torch.vtensor<[2],f32> loc("encoder.layer.3.mystery":1:0)\n'
        "  return %y : !torch.vtensor<[2],f32> } }"
    )
    from canao import targets

    request = LoweringRequest(text=text, target=targets.get("host"))
    with pytest.raises(UnsupportedError) as raised:
        lower_isolated(request, tmp_path / "a.vmfb")
    assert "encoder.layer.3.mystery" in str(raised.value)
    assert "torch.acme.mystery" in str(raised.value)


def test_invalid_ir_is_refused(tmp_path: Path) -> None:
    from canao import targets

    request = LoweringRequest(text="module {", target=targets.get("host"))
    with pytest.raises(CompileError, match="not valid IR"):
        lower_isolated(request, tmp_path / "a.vmfb")
