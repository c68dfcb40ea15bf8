"""Which parameters a glob of a recipe names."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, Protocol, TypeVar

from torch import nn
from transformers.pytorch_utils import Conv1D

__all__ = ["Rule", "matrices", "products", "rule_for", "serving"]


class Rule(Protocol):
    """Anything with a glob."""

    @property
    def match(self) -> str:
        """The glob."""


R = TypeVar("R", bound=Rule)


def matrices(model: Any) -> dict[str, nn.Parameter]:
    """The weights [outputs, inputs] of a model's linear layers by name.

    One that is a table of words too is none, for rows of it are read; nor is one of GPT-2's
    Conv1D, which is [inputs, outputs].
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return {
        name: module.get_parameter("weight")
        for name, module in products(model).items()
        if isinstance(module, nn.Linear) and id(module.weight) not in tables
    }


def products(model: Any, *, shared: bool = False) -> dict[str, Any]:
    """The layers that multiply by a weight, linear ones and Conv1D, by the name of that weight.

    Of layers that share one the first alone, unless ``shared``. What a rule of precision may
    name is among these.
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        if not isinstance(module, (nn.Linear, Conv1D)):
            continue
        if shared or id(module.weight) not in seen:
            seen.add(id(module.weight))
            found[f"{path}.weight"] = module
    return found


def serving(rules: Iterable[R], names: Iterable[str], model: Any) -> tuple[R, ...]:
    """Those of the rules that are the first to fit one of ``names``."""
    known = tuple(rules)
    used = {id(rule_for(known, name, model)) for name in names}
    return tuple(rule for rule in known if id(rule) in used)


def rule_for(rules: Iterable[R], name: str, model: Any) -> R | None:
    """The first rule whose glob fits ``name``, or ``name`` as the base model has it."""
    short = name.removeprefix(f"{model.base_model_prefix}.")
    for rule in rules:
        if fnmatchcase(name, rule.match) or fnmatchcase(short, rule.match):
            return rule
    return None
