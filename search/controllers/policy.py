"""The recurrent network that chooses: one decision after another, each given those before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..space.space import Decision

__all__ = ["Made", "Policy"]

_WIDTH = 48
_FACTS = 2

Made = dict[int, int]
"""The place of a choice by the number of its decision, in the order in which they were made."""


class Policy(nn.Module):
    """An LSTM over decisions. What is read before a decision is the choice before it, which kind
    of decision comes, the layer that it is of and the target of the trial.

    Layers share what they know: ``layer.3.ffn`` and ``layer.0.ffn`` are of one kind, with one
    table of choices and one output for each. Outputs start at 0: the first choices are drawn
    alike.
    """

    def __init__(self, decisions: Sequence[Decision], rng: torch.Generator) -> None:
        super().__init__()
        counts = {_kind(d): len(d.choices) for d in decisions}
        names, total = list(counts), sum(counts.values())
        starts = {name: sum(list(counts.values())[:place]) for place, name in enumerate(names)}
        deepest = 1 + max((_layer(d) for d in decisions), default=0)
        self._kinds = torch.tensor([names.index(_kind(d)) for d in decisions])
        self._starts = torch.tensor([starts[_kind(d)] for d in decisions])
        self._layers = torch.tensor([_layer(d) / deepest for d in decisions])
        self._foreign = torch.ones(len(decisions), total, dtype=torch.bool)
        for number, decision in enumerate(decisions):
            start = starts[_kind(decision)]
            self._foreign[number, start : start + len(decision.choices)] = False
        self._nothing = total  # what is read before the first decision
        self.kinds = nn.Embedding(len(names), _WIDTH)
        self.choices = nn.Embedding(total + 1, _WIDTH)
        self.lstm = nn.LSTM(2 * _WIDTH + _FACTS, _WIDTH)
        self.output = nn.Linear(_WIDTH, total)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-0.1, 0.1, generator=rng)
            for parameter in self.output.parameters():
                parameter.zero_()

    @torch.no_grad()
    def choose(
        self,
        target: float,
        pick: Callable[[int, torch.Tensor], int],
        follows: Callable[[Made], Sequence[int]],
    ) -> Made:
        """Make every decision. ``pick`` draws a place from [choices] logits of the decision of
        that number; ``follows`` lists the decisions to make, given those that were made."""
        made: Made = {}
        previous, state = self._nothing, None
        while left := [number for number in follows(made) if number not in made]:
            number = torch.tensor([[left[0]]])
            read = self._read(torch.tensor([[previous]]), number, torch.tensor([target]))
            output, state = self.lstm(read, state)
            own = ~self._foreign[left[0]]
            made[left[0]] = pick(left[0], self.output(output[0, 0])[own])
            previous = int(self._starts[left[0]]) + made[left[0]]
        return made

    def score(
        self, targets: Sequence[float], trials: Sequence[Made]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """([trials] log-probabilities of all that was chosen, [trials] sums of entropies)."""
        longest = max(map(len, trials))
        numbers = torch.zeros(longest, len(trials), dtype=torch.int64)
        chosen = torch.zeros_like(numbers)
        there = torch.zeros(longest, len(trials))
        for column, made in enumerate(trials):
            numbers[: len(made), column] = torch.tensor(list(made))
            chosen[: len(made), column] = torch.tensor(list(made.values()))
            there[: len(made), column] = 1
        chosen += self._starts[numbers]
        before = torch.cat([torch.full((1, len(trials)), self._nothing), chosen[:-1]])
        outputs, _ = self.lstm(self._read(before, numbers, torch.tensor(list(targets))))
        logits = self.output(outputs).masked_fill(self._foreign[numbers], -1e9)
        logs = torch.log_softmax(logits, dim=-1)
        picked = logs.gather(-1, chosen[..., None])[..., 0]
        entropies = -(logs.exp() * logs).sum(-1)
        return (picked * there).sum(0), (entropies * there).sum(0)

    def _read(
        self, before: torch.Tensor, numbers: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        facts = torch.stack([targets.expand(numbers.shape), self._layers[numbers]], dim=-1)
        return torch.cat([self.choices(before), self.kinds(self._kinds[numbers]), facts], dim=-1)


def _kind(decision: Decision) -> str:
    parts = decision.name.split(".")
    return ".".join(parts[2:]) if parts[0] == "layer" else decision.name


def _layer(decision: Decision) -> int:
    parts = decision.name.split(".")
    return int(parts[1]) if parts[0] == "layer" else 0
