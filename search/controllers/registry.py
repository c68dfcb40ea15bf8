"""The controllers by name."""

from __future__ import annotations

from ...errors import InputError
from .base import Choosable, Controller

__all__ = ["CONTROLLERS", "make"]

CONTROLLERS = ("nsga2", "tpe", "rnn", "random")
"""Their names, the default first."""


def make(
    name: str,
    space: Choosable,
    *,
    seed: int = 0,
    trials: int = 200,
    limit: float | None = None,
) -> Controller:
    """A controller for a space. ``trials``: how many there will be; ``limit``: the latency of the
    specification in milliseconds, or None.

    Raises `InputError` for an unknown name.
    """
    if name == "random":
        from .random_search import RandomController

        return RandomController(space, seed=seed)
    if name == "rnn":
        from .rnn import RnnController

        return RnnController(space, seed=seed, trials=trials, limit=limit)
    if name in ("nsga2", "tpe"):
        from . import sampling

        return (sampling.nsga2 if name == "nsga2" else sampling.tpe)(space, seed=seed)
    raise InputError(f"There is no controller {name!r}: there are {', '.join(CONTROLLERS)}.")
