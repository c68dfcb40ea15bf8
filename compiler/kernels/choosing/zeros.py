"""What is zero in a weight, as far as measurements of products are told apart by it.

Zeros come in blocks of four inputs by a *panel* of outputs, or as whole inputs. How many are kept
is rounded, so that one measurement serves all matrices that are about as sparse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["GROUPS", "INPUTS", "PANELS", "WHOLE", "Zeros", "mask_of", "zeros_of"]

INPUTS, GROUPS = 0, 4
"""In place of a panel: zeros are whole inputs; or whole blocks of four inputs, all outputs."""

WHOLE = (INPUTS, GROUPS)
"""What may be left out by picking inputs."""

PANELS = (16, 32, 48)
"""Outputs of a block, as far as they are told apart."""

_STEP = 5
_GROUP_IN = 4
_ALIKE = 1.15
_FILL = 16


@dataclass(frozen=True)
class Zeros:
    """``kept`` per cent of the blocks, a multiple of five from 5 to 95."""

    panel: int
    kept: int

    @property
    def label(self) -> str:
        """As part of a key."""
        blocks = {INPUTS: "inputs", GROUPS: "groups"}.get(self.panel, self.panel)
        return f"{self.kept}%of{blocks}"

    def spelled(self) -> str:
        """For people."""
        whole = {INPUTS: "inputs", GROUPS: "fours of inputs"}
        blocks = whole.get(self.panel, f"blocks of {_GROUP_IN} x {self.panel}")
        return f"{self.kept} % of its {blocks} kept"


def zeros_of(densities: Mapping[int, float], inputs: float) -> Zeros | None:
    """How a weight is told apart: ``densities`` of its blocks by panel, where they are known, and
    the part of its ``inputs`` that have weights. None where next to nothing is zero.

    The panel is the widest whose blocks are hardly fewer zeros than narrower ones.
    """
    known = [panel for panel in PANELS if panel in densities]
    if not known:
        return None
    least = densities[known[0]]
    if inputs * _ALIKE < least and _rounded(inputs) < 100:
        return Zeros(INPUTS, _rounded(inputs))
    kept = _rounded(least)
    if kept >= 100:
        return None
    if inputs <= max(least * _ALIKE, _STEP / 100):
        return Zeros(GROUPS, kept)
    alike = [panel for panel in known if densities[panel] <= least * _ALIKE]
    return Zeros(max(alike), kept)


def _rounded(part: float) -> int:
    return max(_STEP, round(100 * part / _STEP) * _STEP)


def mask_of(zeros: Zeros | None, outputs: int, depth: int) -> NDArray[np.bool_]:
    """[outputs, depth]: a weight with such zeros, as many blocks in each panel."""
    if zeros is None:
        return np.ones((outputs, depth), np.bool_)
    rng = np.random.default_rng(1)
    if zeros.panel in WHOLE:
        # Inputs are kept by whole tiles.
        run = zeros.panel or 1
        count = max(_FILL, round(depth * zeros.kept / 100 / _FILL) * _FILL)
        alive = (rng.permutation(-(-depth // run)) < count // run).repeat(run)[:depth]
        return np.broadcast_to(alive, (outputs, depth)).copy()
    panels, columns = -(-outputs // zeros.panel), -(-depth // _GROUP_IN)
    ranks = rng.random((panels, columns)).argsort(axis=1).argsort(axis=1)
    blocks = ranks < max(1, round(columns * zeros.kept / 100))
    return blocks.repeat(zeros.panel, axis=0).repeat(_GROUP_IN, axis=1)[:outputs, :depth]
