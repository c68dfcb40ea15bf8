"""Architectures to measure: drawn so that their work spreads evenly over orders of magnitude."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from canao.search.space.architecture import KINDS, Architecture
from canao.search.space.space import ArchitectureSpace

__all__ = ["draw", "read_architectures", "write_architectures"]

_BINS = 24
_PER_WANTED = 40
# About how long a multiplication takes beside one of f32, and a dispatch beside 10^6 of them.
_WORK = {"f32": 1.0, "bf16": 0.2, "int8": 0.12}
_DISPATCH = 0.3e6


def draw(space: ArchitectureSpace, count: int, seed: int) -> list[Architecture]:
    """``count`` different ones, in a random order: as many from each of some equal ranges of the
    logarithm of their estimated work, as far as there are that many."""
    rng = np.random.default_rng(seed)
    pool = {
        found.digest: found for found in (space.sample(rng) for _ in range(count * _PER_WANTED))
    }
    ordered = sorted(pool.values(), key=_work)
    logs = [math.log(_work(one)) for one in ordered]
    low, high = np.quantile(logs, [0.001, 0.999])
    bins: list[list[Architecture]] = [[] for _ in range(_BINS)]
    for one, log in zip(ordered, logs, strict=True):
        place = int((log - low) / (high - low) * _BINS)
        bins[min(max(place, 0), _BINS - 1)].append(one)
    for members in bins:
        rng.shuffle(members)  # type: ignore[arg-type]
    chosen: list[Architecture] = []
    while len(chosen) < count:
        taken = [members.pop() for members in bins if members]
        rng.shuffle(taken)  # type: ignore[arg-type]
        chosen += taken
    return chosen[:count]


def write_architectures(path: Path, found: Sequence[Architecture]) -> None:
    """One as JSON on each line."""
    text = "".join(json.dumps(one.to_json(), separators=(",", ":")) + "\n" for one in found)
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def read_architectures(path: Path) -> list[Architecture]:
    """What `write_architectures` wrote."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Architecture.from_json(json.loads(line)) for line in lines]


def _work(a: Architecture) -> float:
    total = 12.0 * _DISPATCH
    for number, layer in enumerate(a.layers):
        for kind in KINDS:
            outputs, inputs, form = a.matrix(number, kind)
            count = outputs * inputs * (3 if kind == "qkv" else 1)
            total += a.seq_len * count * form.density * _WORK[form.precision]
        total += 2 * layer.heads * a.head_size * a.seq_len**2 + 8 * _DISPATCH
    return total
