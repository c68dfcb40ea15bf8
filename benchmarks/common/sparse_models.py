"""Linear layers with zeros, compiled as models are: what ``benchmarks/sparsity.py`` runs on GPUs,
and where whole inputs are zero."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import canao
from canao import targets

from .stats import significant

__all__ = ["LayerContestant", "layer_contestants", "layer_entries"]

_GPU = "vulkan-llvmpipe"
_DEVICES = {"host": "local", _GPU: "vulkan"}
_CASES = (
    (_GPU, "f32", "4 x 16"),
    (_GPU, "f16", "4 x 16"),
    (_GPU, "int8", "4 x 16"),
    (_GPU, "f32", "inputs"),
    ("host", "f32", "inputs"),
    ("host", "bf16", "inputs"),
    ("host", "int8", "inputs"),
)
_CALLS = 5


@dataclass(frozen=True, kw_only=True)
class LayerContestant:
    """A layer for one target; ``zeros`` are in blocks of inputs x outputs, or whole inputs."""

    target: str
    precision: str
    zeros: str
    density: float
    shape: tuple[int, ...]
    bundle: Path

    def fields(self) -> dict[str, Any]:
        """What the results say of it."""
        keys = ("target", "precision", "zeros", "density")
        return {key: getattr(self, key) for key in keys}


def layer_contestants(
    folder: Path, rows: int, depth: int, outputs: int, densities: Sequence[float]
) -> Iterator[LayerContestant]:
    """Each case dense, then with what is kept; compiled and verified."""
    shape = (1, rows, depth)
    for target, precision, zeros in _CASES:
        if precision not in targets.get(target).precisions:
            continue
        for density in (1.0, *densities):
            path = folder / f"{target}-{precision}-{zeros}-{density}".replace(" ", "")
            canao.compile(
                _layer(depth, outputs, zeros, density),
                example_inputs={"input": torch.randn(shape)},
                target=target,
                precision=precision,
                output=path,
            )
            yield LayerContestant(
                target=target,
                precision=precision,
                zeros=zeros,
                density=density,
                shape=shape,
                bundle=path,
            )


def layer_entries(
    ready: Sequence[LayerContestant], rounds: int, tell: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Every one in turn, ``rounds`` times some calls; the median and every sample of each."""
    samples: list[list[float]] = [[] for _ in ready]
    with contextlib.ExitStack() as stack:
        calls = [
            stack.enter_context(canao.load(one.bundle, device=_DEVICES[one.target], threads=1))
            for one in ready
        ]
        for number in range(rounds + 1):
            for place in np.random.default_rng(number).permutation(len(ready)):
                samples[place] += _timed(calls[place], ready[place])
            tell(f"layers: round {number} of {rounds}")
            if not number:  # shaders are compiled, memory is mapped
                samples = [[] for _ in ready]
    return [
        {
            **one.fields(),
            "median_us": significant(statistics.median(times)),
            "samples_us": [significant(time) for time in times],
        }
        for one, times in zip(ready, samples, strict=True)
    ]


def _timed(call: Any, one: LayerContestant) -> list[float]:
    """Microseconds of some calls: the processor's time where this thread computes, else the
    clock's."""
    now = time.thread_time if one.target == "host" else time.perf_counter
    x = np.random.default_rng(0).standard_normal(one.shape).astype(np.float32)
    found = []
    for _ in range(_CALLS):
        start = now()
        call(input=x)
        found.append(1e6 * (now() - start))
    return found


def _layer(depth: int, outputs: int, zeros: str, density: float) -> torch.nn.Module:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    layer = torch.nn.Linear(depth, outputs).eval()
    if zeros == "inputs":
        alive = np.zeros((1, depth), bool)
        alive[0, rng.permutation(depth)[: round(depth * density)]] = True
    else:
        blocks = rng.random((outputs // 16, depth // 4)).argsort(axis=1).argsort(axis=1)
        alive = (blocks < round(depth // 4 * density)).repeat(16, axis=0).repeat(4, axis=1)
    with torch.no_grad():
        layer.weight *= torch.from_numpy(alive)
    return torch.nn.Sequential(layer)
