"""What speaks against a caller's calibration text: told, never decided.

The usual is what sentences of our own give, in English. Text in another language that a model's
vocabulary can spell is cut into many pieces, and lies elsewhere at every layer: its mean
activations are far from the usual ones, by what the means of usual texts differ among each other.
Either alone is seen in plain English too (names of drugs, words without a sentence).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ..wrapper import Entry
from .samples import Tokenized
from .sites import Inputs, Site, observe

__all__ = ["doubts"]

_MOST_UNKNOWN = 0.05
_FAR = 2.0
# Measured on MiniLM: plain English of a dozen kinds has at most 0.47 and 1.3, or 0.42 and 1.6;
# German 0.8 and 2.1, Russian 1.7 and 5.2, French 0.6 and 1.6.
_ELSEWHERE = 0.5
_MANY_PIECES = 1.4

_Seen = Mapping[str, Sequence[Site]]
"""A site of each text, by name."""


def doubts(entry: Entry, given: Tokenized | None, own: Tokenized | None) -> tuple[str, ...]:
    """Warnings where the text is not what the model was made for, as far as can be measured."""
    if given is None or own is None:
        return ()
    found = []
    if given.unknown > _MOST_UNKNOWN:
        found.append(
            f"{given.unknown:.0%} of the calibration's tokens are unknown to the model's "
            "tokenizer: is the text in a language that the model was trained on?"
        )
    usual, seen = _observed(entry, own.inputs), _observed(entry, given.inputs)
    ratios = {
        name: _largest(sites) / _largest(usual[name])
        for name, sites in seen.items()
        if name in usual and _largest(usual[name]) > 0
    }
    worst = max(ratios, key=lambda name: ratios[name], default=None)
    if worst is not None and ratios[worst] > _FAR:
        found.append(
            f"With the calibration text, activations before {worst} are up to "
            f"{ratios[worst]:.1f} times those of ordinary English: does it represent what the "
            "model will read?"
        )
    pieces = given.pieces / own.pieces if own.pieces else 0.0
    if pieces > _MANY_PIECES and _distance(seen, usual) > _ELSEWHERE:
        found.append(
            f"The calibration's words are cut into {pieces:.1f} times as many pieces as ordinary "
            "English, and activations lie elsewhere: is the text in a language that the model "
            "was trained on?"
        )
    return tuple(found)


def _observed(entry: Entry, texts: Sequence[Inputs]) -> _Seen:
    found: dict[str, list[Site]] = {}
    for text in texts:
        for site in observe(entry, [text]):
            found.setdefault(site.name, []).append(site)
    return found


def _largest(sites: Sequence[Site]) -> float:
    return max(site.largest for site in sites)


def _distance(seen: _Seen, usual: _Seen) -> float:
    """Squared, between the means of texts, in variances among usual texts; without what chance
    has a part in. Over all sites."""
    found = []
    for name in seen.keys() & usual.keys():
        ours, theirs = (
            torch.stack([site.rows.mean(dim=0) for site in known[name]]) for known in (usual, seen)
        )
        variance = float(ours.var(dim=0).sum()) if len(ours) > 1 else 0.0
        if variance > 0:
            apart = float((theirs.mean(dim=0) - ours.mean(dim=0)).square().sum())
            found.append(apart / variance - 1 / len(ours) - 1 / len(theirs))
    return sum(found) / max(1, len(found))
