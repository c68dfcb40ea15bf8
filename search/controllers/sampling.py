"""Optuna's samplers as controllers: NSGA-II and TPE, with two objectives and constraints.

The sampler works on a study in memory, which holds what the controller was told, no more: so it
knows nothing of where a study is kept, and the same tale gives the same proposals. A decision
whose choices are numbers in ascending order is an integer to the sampler, their place, so that
neighbours are near; any other is a category.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import TrialState

from ...errors import InputError
from ..space.space import Decision
from .base import Choosable, Values, place_of, seed_of
from .outcome import Outcome

__all__ = ["SamplerController", "nsga2", "tpe"]

_POPULATION = 20
_STARTUP = 16
_GENERATION = "NSGAIISampler:generation"
_UNKNOWN_MS = 1e6


def nsga2(space: Choosable, *, seed: int = 0, population: int = _POPULATION) -> SamplerController:
    """NSGA-II (Deb et al. 2002) with constrained domination: whoever meets the limits wins over
    who does not, among those who do not whoever misses them by less."""

    def sampler(number: int) -> BaseSampler:
        return NSGAIISampler(seed=number, population_size=population)

    return SamplerController("nsga2", space, sampler, seed=seed, population=population)


def tpe(space: Choosable, *, seed: int = 0) -> SamplerController:
    """The tree-structured Parzen estimator (Bergstra et al. 2011), for several objectives (Ozaki
    et al. 2022) and with constraints (Watanabe & Hutter 2023), as Optuna has it."""

    def sampler(number: int) -> BaseSampler:
        return TPESampler(seed=number, n_startup_trials=_STARTUP, constant_liar=False)

    return SamplerController("tpe", space, sampler, seed=seed)


class SamplerController:
    """A sampler of Optuna behind the face of a `Controller`.

    ``sampler`` makes one from a seed; ``population``: how many trials make a generation, for
    samplers that have them.
    """

    def __init__(
        self,
        name: str,
        space: Choosable,
        sampler: Callable[[int], BaseSampler],
        *,
        seed: int,
        population: int | None = None,
    ) -> None:
        self._name = name
        self._seed = seed
        self._make = sampler
        self._population = population
        self._decisions = space.decisions()
        self._distributions = {
            d.name: _distribution(d) for d in self._decisions if len(d.choices) > 1
        }
        self._start()

    @property
    def name(self) -> str:
        """See `Controller`."""
        return self._name

    def ask(self, trial: int, draw: int = 0) -> Values:
        """See `Controller`."""
        places: Mapping[str, int] = {}
        if self._distributions:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._study.sampler = self._make(seed_of(self._seed, trial, draw))
                asked = self._study.ask(fixed_distributions=self._distributions)
                places = asked.params
                # Only what was told counts: the sampler must not see what was merely asked.
                self._study.tell(asked, state=TrialState.FAIL)
        return {d.name: d.choices[places.get(d.name, 0)] for d in self._decisions}

    def tell(self, trial: int, values: Values, outcome: Outcome) -> None:
        """See `Controller`."""
        self._told.append((trial, dict(values), outcome))
        self._add(values, outcome)

    def state_json(self) -> dict[str, Any]:
        """See `Controller`."""
        told = [[trial, values, outcome.to_json()] for trial, values, outcome in self._told]
        return {"name": self._name, "told": told}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Controller`."""
        if state.get("name") != self._name or not isinstance(state.get("told"), list):
            raise InputError(f"This is no state of the controller {self._name}.")
        self._start()
        for entry in state["told"]:
            try:
                trial, values, outcome = entry
                self.tell(int(trial), values, Outcome.from_json(outcome))
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"The state of {self._name} cannot be read: {error}.") from error

    def _start(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it tells of each study made
        self._told: list[tuple[int, Values, Outcome]] = []
        self._worst = math.inf
        storage = optuna.storages.InMemoryStorage()
        storage.create_new_study((StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE), self._name)
        self._study = Study(self._name, storage)

    def _add(self, values: Values, outcome: Outcome) -> None:
        if outcome.accuracy is not None:
            self._worst = min(self._worst, outcome.accuracy)
        # An infeasible trial is ranked by its violation alone, but must have values.
        accuracy = outcome.accuracy
        if accuracy is None:
            accuracy = self._worst if math.isfinite(self._worst) else 0.0
        latency = _UNKNOWN_MS if outcome.latency is None else outcome.latency
        attributes: dict[str, Any] = {}
        if self._population is not None:
            attributes[_GENERATION] = (len(self._told) - 1) // self._population
        places = {
            d.name: place_of(d, values) for d in self._decisions if d.name in self._distributions
        }
        self._study.add_trial(
            optuna.trial.create_trial(
                params=places,
                distributions=self._distributions,
                values=(accuracy, math.log(max(latency, 1e-9))),
                constraints={"specification": outcome.violation},
                system_attrs=attributes,
            )
        )

        self._end_generation()

    def _end_generation(self) -> None:
        """Choose the parents of the next generation as soon as there can be: who asked first
        would see them in another order than who asks later."""
        sampler = self._make(0)
        if self._population is not None and isinstance(sampler, NSGAIISampler):
            generation, more = divmod(len(self._told), self._population)
            if not more:
                sampler.get_parent_population(self._study, generation)


def _distribution(decision: Decision) -> BaseDistribution:
    choices = decision.choices
    numbers = [c for c in choices if isinstance(c, int | float) and not isinstance(c, bool)]
    if len(numbers) == len(choices) and sorted(numbers) == numbers:
        return IntDistribution(0, len(choices) - 1)
    return CategoricalDistribution(tuple(range(len(choices))))
