"""What speaks against a caller's calibration text: told, never decided."""

from __future__ import annotations

from collections.abc import Sequence

from ..wrapper import Entry
from .samples import Tokenized
from .sites import Site, observe

__all__ = ["doubts"]

_MOST_UNKNOWN = 0.05
_FAR = 2.0


def doubts(
    entry: Entry, sites: Sequence[Site], given: Tokenized | None, own: Tokenized | None
) -> tuple[str, ...]:
    """Warnings where the text is not what the model was made for, as far as can be measured."""
    if given is None or own is None:
        return ()
    found = []
    if given.unknown > _MOST_UNKNOWN:
        found.append(
            f"{given.unknown:.0%} of the calibration's tokens are unknown to the model's "
            "tokenizer: is the text in a language that the model was trained on?"
        )
    usual = {site.name: site for site in observe(entry, own.inputs)}
    seen = observe(entry, given.inputs)
    ratios = {
        site.name: site.largest / usual[site.name].largest
        for site in seen
        if site.name in usual and usual[site.name].largest > 0
    }
    worst = max(ratios, key=lambda name: ratios[name], default=None)
    if worst is not None and ratios[worst] > _FAR:
        found.append(
            f"With the calibration text, activations before {worst} are up to "
            f"{ratios[worst]:.1f} times those of ordinary English: does it represent what the "
            "model will read?"
        )
    return tuple(found)
