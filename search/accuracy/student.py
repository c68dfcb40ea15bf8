"""The module that is trained: all sub-networks at once, beside a teacher that stays."""

from __future__ import annotations

from typing import Any

import torch

from ..space.space import ArchitectureSpace
from ..training.capture import Capture
from ..training.losses import hidden_loss, logits_loss, task_loss
from ..training.options import TrainingOptions
from ..training.student import LABELS, Student, logits_of, matched_layers
from ..training.targets import Targets
from .sandwich import dense, sandwich
from .supernet import Supernet

__all__ = ["SharedStudent"]


class SharedStudent(Student):
    """A `Student` whose loss is the mean over the sub-networks of a sandwich.

    The teacher is the supernet as it was before training, so hidden units stand in one order: a
    narrow sub-network is compared with the teacher's first units, without a projection. A
    shallow one follows the teacher's layers evenly, the last by the last.
    """

    def __init__(
        self,
        supernet: Supernet,
        space: ArchitectureSpace,
        networks: int,
        kind: str,
        options: TrainingOptions,
    ) -> None:
        super().__init__(supernet.model, kind, options)
        self._supernet = supernet
        self._space = space
        self._networks = networks
        # How many sandwiches were made: what is drawn follows from it, after a restart too.
        self.made: torch.Tensor
        self.register_buffer("made", torch.zeros((), dtype=torch.int64))
        places = range(len(supernet.layers))
        self._capture = Capture(supernet.model, list(places), [])
        self.pairs = {place: place for place in places}  # what the teacher tells of

    def forward(
        self, targets: Targets | None = None, **batch: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Scalars in float32: ``loss``, and the terms that make it up."""
        assert targets is not None, "a supernet has a teacher"
        networks = sandwich(self._space, self._networks, (self._options.seed, int(self.made)))
        self.made += 1
        sums: dict[str, torch.Tensor] = {}
        for network in map(dense, networks):
            for name, term in self._terms(network, targets, batch).items():
                sums[name] = sums.get(name, torch.zeros(())) + term / len(networks)
        return {"loss": torch.stack(list(sums.values())).sum(), **sums}

    def _terms(
        self, network: Any, targets: Targets, batch: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        options, mask = self._options, batch["attention_mask"]
        inputs = {name: value for name, value in batch.items() if name not in LABELS}
        with self._supernet.narrowed(network) as model:
            outputs = logits_of(model(**inputs))
            hidden, _ = self._capture.take()
        terms: dict[str, torch.Tensor] = {}
        if options.task_weight:
            terms["task"] = options.task_weight * task_loss(self._kind, outputs, batch)
        if options.logits_weight:
            found = logits_loss(self._kind, outputs, targets.logits, batch, options.temperature)
            terms["logits"] = options.logits_weight * found
        if options.hidden_weight:
            layers = self._supernet.chosen(network)
            followed = matched_layers(len(layers), len(self._supernet.layers), None)
            losses = [
                hidden_loss(hidden[ours], targets.hidden[theirs][..., : network.hidden], mask)
                for ours, theirs in zip(layers, followed, strict=True)
            ]
            terms["hidden"] = options.hidden_weight * torch.stack(losses).mean()
        return terms
