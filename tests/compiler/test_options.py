"""Options are refused before any work is done, each with what would be right."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.flags import iree_flags
from canao.compiler.options import CompileOptions
from canao.errors import InputError


def checked(**changes: Any) -> CompileOptions:
    return CompileOptions.checked(**{"target": "host", "seq_len": 128, **changes})


def test_defaults() -> None:
    options = checked()
    assert options.precision == "f32"
    assert options.seq_lens == (128,)
    assert [t.name for t in options.targets] == ["host"]


@given(lengths=st.lists(st.integers(1, 65536), min_size=1, max_size=8))
def test_lengths_ascend_without_repeats(lengths: list[int]) -> None:
    assert checked(seq_len=lengths).seq_lens == tuple(sorted(set(lengths)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target": "toaster"}, "arm64"),
        ({"target": []}, "target"),
        ({"seq_len": 0}, "1 to 65536"),
        ({"seq_len": []}, "sequence length"),
        ({"seq_len": [128, True]}, "True"),
        ({"seq_len": "128"}, "whole number"),
        ({"batch": 0}, "batch"),
        ({"precision": "f8"}, "f32"),
        ({"precision": "int8"}, "can do f32"),
        ({"fusion": "cold"}, "stock"),
        ({"drop_patterns": ["canao.no"]}, "canao.fuse_qkv"),
        ({"timeout": 0}, "timeout"),
        ({"memory_limit": -1}, "memory_limit"),
    ],
)
def test_wrong_options_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        checked(**changes)


@pytest.mark.parametrize("target", targets.names())
@pytest.mark.parametrize("fusion", ["auto", "stock", "none"])
def test_flags_name_features_and_never_the_host(target: str, fusion: str) -> None:
    found = iree_flags(targets.get(target), fusion=fusion)
    assert not any(flag.endswith("=host") for flag in found)
    assert len(found) == len(set(found))
