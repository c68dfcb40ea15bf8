"""Which parameters a glob of a recipe names."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, Protocol, TypeVar

from torch import nn

__all__ = ["Rule", "matrices", "rule_for"]


class Rule(Protocol):
    """Anything with a glob."""

    @property
    def match(self) -> str:
        """The glob."""


R = TypeVar("R", bound=Rule)


def matrices(model: Any, *, tied: bool = False) -> dict[str, nn.Parameter]:
    """The weights [outputs, inputs] of a model's linear layers by name.

    One that is a table of words too is none, for rows of it are read, unless with ``tied``.
    """
    found: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding) and not tied}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and id(module.weight) not in seen | tables:
            weight = module.get_parameter("weight")
            seen.add(id(weight))
            found[f"{path}.weight"] = weight
    return found


def rule_for(rules: Iterable[R], name: str, model: Any) -> R | None:
    """The first rule whose glob fits ``name``, or ``name`` as the base model has it."""
    short = name.removeprefix(f"{model.base_model_prefix}.")
    for rule in rules:
        if fnmatchcase(name, rule.match) or fnmatchcase(short, rule.match):
            return rule
    return None
