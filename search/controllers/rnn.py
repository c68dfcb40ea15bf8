"""The paper's controller: a recurrent network that learns from reward, in two phases.

As in CANAO (arXiv 2009.06823, 2106.00526), the first phase learns how deep the model should be,
the second its sizes, given the depth; the reward joins accuracy and latency, with the
specification. How they are joined is our choice:

    R = (a - a_low) / (a_high - a_low)    where every limit and the trial's target are met
    R = -log(1 + v)                       elsewhere

with a the accuracy, a_low and a_high the worst and best accuracy seen, and v the sum of all
violations, each as a share of its limit. So whoever meets the specification earns more than who
does not, and who misses it earns more the less he does.

The *target* of a trial is a latency: the limit itself every other time, else drawn, evenly in
its logarithm, between the fastest model seen and the limit (without a limit: the slowest seen).
The network reads it, so that one network learns a whole Pareto front.

The gradient is that of REINFORCE (Williams 1992) with a moving baseline and a bonus for entropy,
over the last trials, each weighted by how much more likely it has become, within bounds (Schulman
et al. 2017). The trials of the Pareto front, which were better than expected for the latency that
they have, are learnt from again (Oh et al. 2018, self-imitation): 200 trials are few.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...errors import InputError
from .base import Choosable, Values, generator, place_of
from .outcome import Outcome
from .packing import packed, unpacked
from .policy import Made, Policy

__all__ = ["RnnController"]

_WINDOW = 8
_RATE = 0.005
_ENTROPY = 0.15
_CLIP = 0.3
_BASELINE = 0.9
_ELITE = 24
_IMITATION = 10.0
_PARTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """A trial that was told; ``behaviour``: how likely its choices were then, as a logarithm."""

    made: Made
    target: float
    outcome: Outcome
    behaviour: float

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "made": [list(pair) for pair in self.made.items()],
            "target": self.target if math.isfinite(self.target) else None,
            "outcome": self.outcome.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> _Seen:
        return cls(
            made={int(number): int(choice) for number, choice in value["made"]},
            target=math.inf if value["target"] is None else float(value["target"]),
            outcome=Outcome.from_json(value["outcome"]),
            behaviour=float(value["behaviour"]),
        )


class RnnController:
    """See the module's docstring.

    ``limit``: the latency of the specification, in milliseconds, or None. ``trials``: how many
    the study will have; the first phase takes an eighth of them.
    """

    name = "rnn"

    def __init__(
        self,
        space: Choosable,
        *,
        seed: int = 0,
        trials: int = 200,
        limit: float | None = None,
    ) -> None:
        self._space = space
        self._decisions = space.decisions()
        self._numbers = {d.name: number for number, d in enumerate(self._decisions)}
        self._first = [n for n, d in enumerate(self._decisions) if d.phase == 1]
        self._seed = seed
        self._phase_one = trials // 8
        self._limit = limit
        self._policy = Policy(self._decisions, torch.Generator().manual_seed(seed))
        self._optimiser = torch.optim.Adam(self._policy.parameters(), lr=_RATE)
        self._seen: list[_Seen] = []
        self._front: list[_Seen] = []
        self._told = 0
        self._accuracies: tuple[float, float] | None = None
        self._latencies: tuple[float, float] | None = None
        self._baseline = 0.0

    def ask(self, trial: int, draw: int = 0) -> Values:
        """See `Controller`."""
        rng = generator(self._seed, trial, draw)

        def pick(number: int, logits: torch.Tensor) -> int:
            if trial < self._phase_one and number not in self._first:
                return int(rng.integers(len(logits)))
            chances = torch.softmax(logits.double(), dim=-1).numpy()
            return int(rng.choice(len(chances), p=chances / chances.sum()))

        with _one_thread():
            made = self._policy.choose(self._reading(self._target(trial)), pick, self._follows)
        return {d.name: d.choices[made.get(number, 0)] for number, d in enumerate(self._decisions)}

    def tell(self, trial: int, values: Values, outcome: Outcome) -> None:
        """See `Controller`."""
        made: Made = {}
        while left := [number for number in self._follows(made) if number not in made]:
            made[left[0]] = place_of(self._decisions[left[0]], values)
        target = self._target(trial)
        self._accuracies = _widened(self._accuracies, outcome.accuracy)
        self._latencies = _widened(self._latencies, outcome.latency)
        # What a trial of the first phase teaches is the depth: its sizes were drawn.
        learnt = made if trial >= self._phase_one else {n: made[n] for n in self._first}
        with _one_thread(), torch.no_grad():
            chosen, _ = self._policy.score([self._reading(target)], [learnt])
        seen = _Seen(made=learnt, target=target, outcome=outcome, behaviour=float(chosen))
        self._seen = [*self._seen, seen][-_WINDOW:]
        self._front = _front([*self._front, _Seen(**{**vars(seen), "made": made})])
        keep = _BASELINE if self._told else 0.0
        self._baseline = keep * self._baseline + (1 - keep) * self._reward(seen)
        self._told += 1
        with _one_thread():
            self._step()

    def state_json(self) -> dict[str, Any]:
        """See `Controller`."""
        adam = self._optimiser.state_dict()["state"]
        moments = [torch.as_tensor(adam[key][part]) for key in adam for part in _PARTS]
        return {
            "name": self.name,
            "told": self._told,
            "accuracies": self._accuracies and list(self._accuracies),
            "latencies": self._latencies and list(self._latencies),
            "baseline": self._baseline,
            "weights": packed(list(self._policy.state_dict().values())),
            "moments": packed(moments),
            "seen": [seen.to_json() for seen in self._seen],
            "front": [seen.to_json() for seen in self._front],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Controller`."""
        if state.get("name") != self.name:
            raise InputError(f"This is the state of {state.get('name')!r:.40}, not of rnn.")
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"The state of rnn cannot be read: {error}.") from error

    def _restore(self, state: Mapping[str, Any]) -> None:
        weights = self._policy.state_dict()
        tensors = unpacked(state["weights"], list(weights.values()))
        self._policy.load_state_dict(dict(zip(weights, tensors, strict=True)))
        parameters = list(self._policy.parameters()) if state["told"] else []
        likes = [like for p in parameters for like in (torch.zeros(()), p, p)]
        moments = iter(unpacked(state["moments"], likes))
        own = self._optimiser.state_dict()
        own["state"] = {
            key: {part: next(moments) for part in _PARTS} for key in range(len(parameters))
        }
        self._optimiser.load_state_dict(own)
        self._told = int(state["told"])
        self._accuracies = state["accuracies"] and tuple(state["accuracies"])
        self._latencies = state["latencies"] and tuple(state["latencies"])
        self._baseline = float(state["baseline"])
        self._seen = [_Seen.from_json(seen) for seen in state["seen"]]
        self._front = [_Seen.from_json(seen) for seen in state["front"]]

    def _follows(self, made: Made) -> Sequence[int]:
        if any(number not in made for number in self._first):
            return self._first
        values = {self._decisions[n].name: self._decisions[n].choices[made[n]] for n in made}
        return [*self._first, *(self._numbers[name] for name in self._space.active(values))]

    def _target(self, trial: int) -> float:
        """The latency that a trial aims at, in milliseconds; infinite while none is known."""
        top = self._limit or (self._latencies[1] if self._latencies else math.inf)
        if (trial % 2 == 0 and self._limit) or self._latencies is None:
            return top
        low = min(self._latencies[0], top)
        share = float(np.random.default_rng((self._seed, trial, 1 << 20)).random())
        return math.exp(math.log(low) + share * (math.log(top) - math.log(low)))

    def _reading(self, target: float) -> float:
        """A target as the network reads it: 0 the fastest model seen, 1 the limit."""
        if self._latencies is None or not math.isfinite(target):
            return 1.0
        low = self._latencies[0]
        top = self._limit or self._latencies[1]
        if top <= low:
            return 1.0
        return min(1.0, max(0.0, math.log(target / low) / math.log(top / low)))

    def _reward(self, seen: _Seen) -> float:
        outcome = seen.outcome
        violation = outcome.violation
        if outcome.latency is not None and math.isfinite(seen.target):
            violation += max(0.0, outcome.latency / seen.target - 1)
        if violation > 0 or outcome.accuracy is None or self._accuracies is None:
            return -math.log1p(violation)
        low, high = self._accuracies
        return (outcome.accuracy - low) / (high - low) if high > low else 1.0

    def _step(self) -> None:
        elite = self._front if self._told > self._phase_one else []
        readings = [self._reading(seen.target) for seen in self._seen]
        readings += [self._reading(seen.outcome.latency or math.inf) for seen in elite]
        logs, entropies = self._policy.score(
            readings, [seen.made for seen in (*self._seen, *elite)]
        )
        recent = len(self._seen)
        rewards = torch.tensor([self._reward(seen) for seen in self._seen])
        advantages = rewards - self._baseline
        behaviour = torch.tensor([seen.behaviour for seen in self._seen])
        ratios = torch.exp(torch.clamp(logs[:recent] - behaviour, -5, 5))
        bounded = torch.clamp(ratios, 1 - _CLIP, 1 + _CLIP)
        gain = torch.minimum(ratios * advantages, bounded * advantages).mean()
        if elite:
            gain = gain + _IMITATION * logs[recent:].mean() / len(self._decisions)
        gain = gain + _ENTROPY * entropies.mean()
        self._optimiser.zero_grad()
        (-gain).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._policy.parameters(), 1.0)
        self._optimiser.step()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """So small a network is slower on several, and sums in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _front(trials: Sequence[_Seen]) -> list[_Seen]:
    """Those that meet every limit and that none beats in both accuracy and latency, at most 24:
    the fastest of equals first."""
    fitting = [seen for seen in trials if seen.outcome.feasible]
    fitting.sort(key=lambda seen: (seen.outcome.latency, -(seen.outcome.accuracy or 0.0)))
    front: list[_Seen] = []
    for seen in fitting:
        if not front or (seen.outcome.accuracy or 0.0) > (front[-1].outcome.accuracy or 0.0):
            front.append(seen)
    return front[-_ELITE:]


def _widened(
    bounds: tuple[float, float] | None, value: float | None
) -> tuple[float, float] | None:
    if value is None:
        return bounds
    return (value, value) if bounds is None else (min(bounds[0], value), max(bounds[1], value))
