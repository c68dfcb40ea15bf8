"""Which layers cannot bear it: the model runs with some quantised, compared with itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..wrapper import Entry
from .fake import FakeLinear, replaced
from .samples import Samples
from .sites import Inputs, Site

__all__ = ["Found", "Goals", "Judge", "wide_sites"]

_MOST_NEEDED = 0.5
"""The share of the multiply-adds that may stay wider where there is no bundle otherwise."""


@dataclass(frozen=True)
class Goals:
    """The cosines to reach on texts and on drawn tokens."""

    texts: float
    drawn: float

    @classmethod
    def above(cls, cosine: float, room: float = 1.0) -> Goals:
        """With room above the cosine that a compiled bundle must have on drawn tokens: 0.999 and
        0.9984 above 0.998. ``room`` is a share of what they then may miss 1 by."""
        return cls(1 - (1 - cosine) / 2 * room, 1 - (1 - cosine) * 0.8 * room)


@dataclass(frozen=True)
class Found:
    """The cosine similarity of an output: the least on texts (None without any); on drawn tokens
    the least of what is verified, or the mean of all samples if that is less."""

    texts: float | None
    drawn: float

    def short(self, goals: Goals) -> float:
        """How far below the goals it is; not positive where they are met."""
        short = goals.drawn - self.drawn
        return short if self.texts is None else max(short, goals.texts - self.texts)


class Judge:
    """Runs the model with some of its sites quantised, and compares."""

    def __init__(
        self,
        entry: Entry,
        samples: Samples,
        fakes: Mapping[Site, Sequence[FakeLinear]],
        tables: Mapping[torch.nn.Embedding, torch.Tensor],
        wide: Mapping[Site, Sequence[FakeLinear]] | None = None,
    ) -> None:
        """``wide``: how sites are computed that are not quantised as ``fakes`` (exactly, if they
        are not in it). Each is of both, or of none."""
        self._entry, self._fakes, self._tables = entry, fakes, tables
        self._wide = wide or {}
        self._verified = samples.verified
        self._texts = [(sample, self._run(sample)) for sample in samples.texts]
        self._drawn = [(sample, self._run(sample)) for sample in samples.drawn]

    def find(self, sites: Sequence[Site]) -> Found:
        """With these sites, and the large tables, quantised."""
        computed = {**self._wide, **{site: self._fakes[site] for site in sites}}
        linears = {
            linear: fake
            for site, fakes in computed.items()
            for linear, fake in zip(site.linears.values(), fakes, strict=True)
        }
        with replaced(linears, self._tables):
            drawn = [self._cosine(*pair) for pair in self._drawn]
            texts = [self._cosine(*pair) for pair in self._texts]
        if not drawn:
            return Found(min(texts, default=None), 1.0)
        # Of few numbers one cosine says little: another rounding anywhere may double what it
        # misses 1 by.
        mean = sum(drawn) / len(drawn)
        return Found(min(texts, default=None), min((mean, *drawn[: self._verified])))

    def _run(self, sample: Inputs) -> list[torch.Tensor]:
        with torch.no_grad():
            results = self._entry(*sample)
        return [result for result in results if result.is_floating_point()]

    def _cosine(self, sample: Inputs, exact: Sequence[torch.Tensor]) -> float:
        pairs = zip(self._run(sample), exact, strict=True)
        return min((_cosine(one, other) for one, other in pairs), default=1.0)


def wide_sites(
    judge: Judge, sites: Sequence[Site], goals: Goals, most: float
) -> tuple[list[Site], Found]:
    """The sites whose quantisation alone costs most, as few as the goals need; what is left.

    At most a share ``most`` of the multiply-adds stays wider, or half where without that the
    goal on drawn tokens is missed, which there is no bundle without.
    """
    found = judge.find(sites)
    if found.short(goals) <= 0:
        return [], found
    alone = {site: judge.find([site]).short(goals) for site in sites}
    ordered = sorted(sites, key=lambda site: -alone[site])
    total, taken = sum(site.multiply_adds for site in sites), 0
    wide: list[Site] = []
    least = Goals(-1.0, goals.drawn)
    for share, wanted in ((most, goals), (max(most, _MOST_NEEDED), least)):
        for site in ordered:
            if found.short(wanted) <= 0:
                return wide, found
            if site in wide or taken + site.multiply_adds > share * total:
                continue
            taken += site.multiply_adds
            wide.append(site)
            found = judge.find([other for other in sites if other not in wide])
    return wide, found


def _cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    a, b = one.flatten().double(), other.flatten().double()
    sizes = float(a.norm()) * float(b.norm())
    value = float(a @ b) / sizes if sizes else float(not (a.any() or b.any()))
    return value if math.isfinite(value) else -1.0
