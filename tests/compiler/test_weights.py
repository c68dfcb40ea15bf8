"""Weights are written as safetensors reads them, aligned, the same bytes every time."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from canao.compiler.weights import ALIGNMENT, write_weights
from canao.errors import InputError

SHAPES = st.lists(st.integers(1, 9), max_size=3).map(tuple)
DTYPES = st.sampled_from(
    [torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int16, torch.int8]
)


@given(given_=st.dictionaries(st.text(min_size=1), st.tuples(SHAPES, DTYPES), max_size=5))
def test_round_trip(given_: dict[str, tuple[tuple[int, ...], torch.dtype]],
                    tmp_path_factory: pytest.TempPathFactory) -> None:  # fmt: skip
    given_.pop("__metadata__", None)
    tensors = {
        name: (torch.arange(torch.Size(shape).numel()) % 100).reshape(shape).to(dtype)
        for name, (shape, dtype) in given_.items()
    }
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    write_weights(path, tensors)
    first = path.read_bytes()
    assert (8 + struct.unpack("<Q", first[:8])[0]) % ALIGNMENT == 0
    found = load_file(path)
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    write_weights(path, dict(reversed(tensors.items())))
    assert path.read_bytes() == first


def test_an_unknown_dtype_names_the_parameter(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'w' is complex64"):
        write_weights(tmp_path / "w", {"w": torch.zeros(2, dtype=torch.complex64)})
