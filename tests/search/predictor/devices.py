"""Devices that are a formula: a roofline with launches, padding, caches, threads and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from canao.search.predictor.records import Record, Setting
from canao.search.program.derive import program_of
from canao.search.program.dispatch import Dispatch
from canao.search.space.architecture import Architecture
from canao.search.space.choices import MatrixChoices
from canao.search.space.space import ArchitectureSpace

__all__ = ["SETTING", "SPACE", "Formula", "drawn", "latency", "measured"]

SETTING = Setting(
    device="formula",
    fingerprint="00ff00ff00ff00ff",
    emulated=False,
    threads=1,
    target="arm64-i8mm",
    protocol=1,
)
_FORMS = MatrixChoices(precisions=("f32", "bf16", "int8"), densities=(1.0, 0.5, 0.25))
SPACE = ArchitectureSpace(
    layers=(1, 2, 3, 4),
    hidden=(96, 192, 288),
    heads=(1, 3, 6),
    ffn=(96, 192, 384, 768),
    head_size=32,
    qkv=_FORMS,
    output=_FORMS,
    up=_FORMS,
    down=_FORMS,
    seq_lens=(8, 16, 32, 64),
    vocabularies=(8000,),
)
_REFERENCE_MS = 2.0


@dataclass(frozen=True, kw_only=True)
class Formula:
    """Operations a microsecond by precision, bytes a microsecond, microseconds of a launch."""

    f32: float = 90e3
    bf16: float = 300e3
    int8: float = 500e3
    near: float = 40e3
    far: float = 12e3
    launch: float = 2.5
    cache: float = 1.5e6
    threads: int = 1

    def time(self, one: Dispatch) -> float:
        """Microseconds of a dispatch."""
        rate = float(getattr(self, one.precision)) * (0.6 if one.density < 1 else 1.0)
        padded = math.ceil(one.rows / 8) * 8 / max(one.rows, 1)
        band = self.far if one.bytes > self.cache else self.near
        shared = self.threads * 0.9 if self.threads > 1 and one.flops > 2e6 else 1.0
        work = one.flops * padded / rate / shared
        return self.launch + max(work, one.bytes / band) + 0.3 * min(work, one.bytes / band)


@lru_cache(maxsize=4)
def drawn(count: int, seed: int = 0) -> tuple[Architecture, ...]:
    """Different architectures of a small space."""
    rng = np.random.default_rng(seed)
    found: dict[Architecture, None] = {}
    while len(found) < count:
        found[SPACE.sample(rng)] = None
    return tuple(found)


def latency(architecture: Architecture, formula: Formula, setting: Setting = SETTING) -> float:
    """Milliseconds of a call."""
    program = _program(architecture, setting.target)
    return sum(map(formula.time, program)) / 1000 + 0.005


def measured(
    architectures: Sequence[Architecture],
    formula: Formula | None = None,
    *,
    setting: Setting = SETTING,
    noise: float = 0.01,
    seed: int = 0,
    dispatches: bool = False,
) -> list[Record]:
    """What measuring them on the formula's device tells; ``noise`` in logarithms."""
    formula = formula or Formula()
    setting = replace(setting, threads=formula.threads)
    rng = np.random.default_rng(seed)
    found = []
    for one in architectures:
        ms = latency(one, formula, setting) * float(np.exp(noise * rng.standard_normal()))
        relative = ms / _REFERENCE_MS
        timed = [
            (f"{number}", formula.time(dispatch) / 1000)
            for number, dispatch in enumerate(_program(one, setting.target))
        ]
        found.append(
            Record(
                setting=setting,
                architecture=one,
                relative=relative,
                relative_interval=(relative * 0.99, relative * 1.01),
                median_ms=ms,
                dispatches=tuple(timed) if dispatches else (),
            )
        )
    return found


@lru_cache(maxsize=2048)
def _program(architecture: Architecture, target: str) -> tuple[Dispatch, ...]:
    return program_of(architecture, target=target).dispatches
