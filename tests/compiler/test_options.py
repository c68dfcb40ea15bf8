"""Options are refused before any work is done, each with what would be right."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.compiler.flags import iree_flags
from canao.compiler.options import CompileOptions
from canao.compiler.parameters import Derivation
from canao.compiler.request import LoweringRequest, LoweringResult
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
        ({"precision": "f16"}, "can do f32"),
        ({"calibration": ["A text."]}, "for int8"),
        ({"calibration": ["A text."], "precision": "bf16"}, "for int8"),
        ({"calibration": [], "precision": "int8"}, "no text"),
        ({"calibration": [" "], "precision": "int8"}, "no text"),
        ({"calibration": [7], "precision": "int8"}, "not a int"),
        ({"calibration": "/no/such/file", "precision": "int8"}, "/no/such/file"),
        ({"fusion": "cold"}, "stock"),
        ({"drop_patterns": ["canao.no"]}, "canao.fuse_qkv"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
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


WORDS = st.text(min_size=1, max_size=8)
REQUESTS = st.builds(
    LoweringRequest,
    text=st.text(max_size=20),
    target=st.sampled_from([targets.get(name) for name in targets.names()]),
    fusion=st.sampled_from(["auto", "stock", "none"]),
    drop_patterns=st.lists(WORDS, max_size=3).map(tuple),
    parameters=st.lists(
        st.tuples(WORDS, st.lists(st.integers(0, 99), max_size=3).map(tuple), WORDS), max_size=3
    ).map(tuple),
    pattern_modules=st.lists(WORDS, max_size=2).map(tuple),
    flags=st.lists(WORDS, max_size=2).map(tuple),
    wider=st.lists(st.tuples(WORDS, WORDS), max_size=2).map(tuple),
    rounded=st.lists(st.tuples(WORDS, WORDS, WORDS), max_size=2).map(tuple),
)
RESULTS = st.builds(
    LoweringResult,
    calls=st.lists(st.tuples(WORDS, WORDS), max_size=3).map(tuple),
    patterns=st.dictionaries(WORDS, st.integers(0, 9), max_size=3),
    parameters=st.lists(WORDS, max_size=3).map(tuple),
    derivations=st.lists(
        st.builds(
            Derivation,
            name=WORDS,
            kind=WORDS,
            sources=st.lists(WORDS, max_size=3).map(tuple),
            attributes=st.lists(
                st.tuples(WORDS, st.one_of(st.integers(0, 3), WORDS)), max_size=2
            ).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
    seconds=st.floats(0, 100),
    notes=st.lists(WORDS, max_size=2).map(tuple),
    kernels=st.dictionaries(WORDS, st.integers(0, 9), max_size=2),
    fallbacks=st.lists(WORDS, max_size=2).map(tuple),
    linalg=st.dictionaries(WORDS, st.integers(0, 9), max_size=2),
)


@given(request=REQUESTS)
def test_requests_round_trip_through_json(request: LoweringRequest) -> None:
    assert LoweringRequest.from_json(json.loads(json.dumps(request.to_json()))) == request


@given(result=RESULTS)
def test_results_round_trip_through_json(result: LoweringResult) -> None:
    assert LoweringResult.from_json(json.loads(json.dumps(result.to_json()))) == result
