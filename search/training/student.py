"""The module that is trained: a model, and what compares it with its teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ...compiler.compression.structure import structure_of
from ...errors import InputError
from .capture import Capture
from .losses import hidden_loss, logits_loss, task_loss
from .options import TrainingOptions
from .relations import relation_heads, relation_loss
from .targets import Targets

__all__ = ["LABELS", "Student", "Teacher", "logits_of", "matched_layers"]

LABELS = ("labels", "start_positions", "end_positions")


def matched_layers(layers: int, teacher_layers: int, asked: Sequence[int] | None) -> list[int]:
    """The teacher's layer that each layer follows: as asked, or evenly, the last by the last.

    Raises `InputError` where what was asked for does not fit.
    """
    if asked is not None:
        if len(asked) != layers or max(asked) >= teacher_layers:
            raise InputError(
                f"layer_map must name one of the teacher's layers, 0 to {teacher_layers - 1}, for "
                f"each of the student's {layers}, not {list(asked)}."
            )
        return list(asked)
    return [(place + 1) * teacher_layers // layers - 1 for place in range(layers)]


class Teacher:
    """A model that is only read; ``vocabulary``: its ids of the student's tokens, or None."""

    def __init__(
        self, model: Any, pairs: Mapping[int, int], relations: Sequence[int], vocabulary: Any
    ) -> None:
        self._model = model.eval()
        self._pairs = dict(pairs)
        self._vocabulary = vocabulary
        layers = {pairs[place] for place in relations}
        self._capture = Capture(model, sorted(set(pairs.values())), sorted(layers))
        self._relations = tuple(relations)

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> Targets:
        """The targets of a batch without labels."""
        given = dict(inputs)
        if self._vocabulary is not None:
            given["input_ids"] = self._vocabulary[given["input_ids"]]
        outputs = self._model(**given)
        hidden, projections = self._capture.take()
        return Targets(
            logits=logits_of(outputs),
            hidden={place: hidden[theirs] for place, theirs in self._pairs.items()},
            projections={place: projections[self._pairs[place]] for place in self._relations},
        )

    def close(self) -> None:
        """Leave the model as it was."""
        self._capture.close()


class Student(nn.Module):
    """``model`` and the projections of its hidden states onto the teacher's width.

    Its call gives the terms of the loss, weighted, and their sum as ``loss``; so gradients of
    many processes meet in one module.
    """

    accepts_loss_kwargs = False  # our losses are means of a batch

    def __init__(
        self, model: Any, kind: str, options: TrainingOptions, teacher: Any | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.register_state_dict_post_hook(_untie)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_retie)  # type: ignore[no-untyped-call]
        self._kind = kind
        self._options = options
        self.projections = nn.ModuleDict()
        self.pairs: dict[int, int] = {}
        self.relations: list[int] = []
        self._heads = 1
        if teacher is not None:
            self._match(teacher)
        self._capture = Capture(model, sorted(self.pairs), self.relations)

    def forward(
        self, targets: Targets | None = None, **batch: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Scalars in float32: ``loss``, and the terms that make it up."""
        options = self._options
        inputs = {name: value for name, value in batch.items() if name not in LABELS}
        outputs = logits_of(self.model(**inputs))
        hidden, projections = self._capture.take()
        terms: dict[str, torch.Tensor] = {}
        if options.task_weight or targets is None:
            weight = options.task_weight if targets is not None else 1.0
            terms["task"] = weight * task_loss(self._kind, outputs, batch)
        if targets is not None:
            terms |= self._compare(outputs, hidden, projections, targets, batch)
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    def close(self) -> None:
        """Leave the model as it was."""
        self._capture.close()

    def _match(self, teacher: Any) -> None:
        options = self._options
        ours, theirs = structure_of(self.model), structure_of(teacher)
        if options.hidden_weight or options.relation_weight:
            matched = matched_layers(len(ours.layers), len(theirs.layers), options.layer_map)
            self.pairs = dict(enumerate(matched))
            if options.hidden_weight:
                self.pairs[-1] = -1
        if options.relation_weight:
            self.relations = list(range(len(ours.layers)))[-options.relation_layers :]
            self._heads = options.relation_heads or max(theirs.heads)
        if options.hidden_weight and ours.hidden != theirs.hidden:
            # Drawn by the seed, whatever was drawn in this process before.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(options.seed)
                for place in self.pairs:
                    linear = nn.Linear(ours.hidden, theirs.hidden, bias=False)
                    self.projections[_name(place)] = linear

    def _compare(
        self,
        outputs: Mapping[str, torch.Tensor],
        hidden: Mapping[int, torch.Tensor],
        projections: Mapping[int, tuple[torch.Tensor, ...]],
        targets: Targets,
        batch: Mapping[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        options, mask = self._options, batch["attention_mask"]
        terms: dict[str, torch.Tensor] = {}
        if options.logits_weight:
            found = logits_loss(self._kind, outputs, targets.logits, batch, options.temperature)
            terms["logits"] = options.logits_weight * found
        if options.hidden_weight:
            losses = []
            for place in self.pairs:
                ours = hidden[place]
                if _name(place) in self.projections:
                    ours = self.projections[_name(place)](ours)
                losses.append(hidden_loss(ours, targets.hidden[place], mask))
            terms["hidden"] = options.hidden_weight * torch.stack(losses).mean()
        if options.relation_weight:
            losses = []
            for place in self.relations:
                pairs = zip(projections[place], targets.projections[place], strict=True)
                for ours, theirs in pairs:
                    heads = relation_heads(ours.shape[-1], theirs.shape[-1], self._heads)
                    losses.append(relation_loss(ours, theirs, mask, heads))
            terms["relations"] = options.relation_weight * torch.stack(losses).mean()
        return terms


def _untie(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Leave tied parameters out but once: files of tensors share no memory."""
    seen: dict[tuple[int, int], str] = {}
    for name, tensor in list(state.items()):
        if isinstance(tensor, torch.Tensor) and tensor.numel():
            place = (tensor.data_ptr(), tensor.numel())
            if seen.setdefault(place, name) != name:
                del state[name]


def _retie(module: nn.Module, incompatible: Any) -> None:
    """What `_untie` left out is not missing: it is read under the name that was written."""
    missing = incompatible.missing_keys
    if missing:
        written = module.state_dict()
        missing[:] = [name for name in missing if name in written]


def logits_of(outputs: Any) -> dict[str, torch.Tensor]:
    """What a model answers, by name."""
    names = ("logits", "start_logits", "end_logits")
    return {name: outputs[name] for name in names if name in outputs}


def _name(place: int) -> str:
    return "embeddings" if place < 0 else str(place)
