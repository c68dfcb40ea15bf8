"""How much each part of a model matters: layers, heads, feed-forward units, hidden units.

First order (Michel et al. 2019, arXiv 1905.10650; Molchanov et al. 2019, arXiv 1906.10771): put a
gate of 1 on what a unit writes. The loss without the unit is about the loss minus the derivative
by its gate, and that derivative is the sum of weight times gradient over the weights that read
the unit. Scores are the means over batches of its size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ...errors import InputError
from .axes import axes_of
from .blocks import block_sums
from .cutting import input_axis
from .matching import matrices
from .structure import Layer, structure_of

__all__ = ["Importance", "magnitude_importance", "taylor_importance"]

Batch = Mapping[str, Any]
_Elements = Callable[[nn.Parameter], torch.Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Importance:
    """Scores, not negative; only their order within one tensor has a meaning.

    ``heads``: one [H] for each layer; ``ffn``: one [F] for each; ``hidden`` [D]; ``layers`` [L].
    ``weights``: by name of a matrix, a score for each of its weights, shaped like it.
    """

    heads: tuple[torch.Tensor, ...]
    ffn: tuple[torch.Tensor, ...]
    hidden: torch.Tensor
    layers: torch.Tensor
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def blocks(self, name: str, block: tuple[int, int]) -> torch.Tensor:
        """Scores of the blocks (inputs, outputs) of a matrix: [panels of outputs, groups].

        Raises `InputError` where no scores were kept for ``name``.
        """
        if name not in self.weights:
            raise InputError(f"There are no scores for the weights of {name!r}.")
        return block_sums(self.weights[name], block)


def magnitude_importance(model: Any) -> Importance:
    """Scores without data: sums of squares of the weights that read a unit."""
    structure = structure_of(model)
    with torch.no_grad():
        heads = tuple(_heads(layer, _square) for layer in structure.layers)
        ffn = tuple(_ffn(layer, _square) for layer in structure.layers)
        hidden = torch.zeros(structure.hidden)
        parameters = dict(model.named_parameters())
        for name, axes in axes_of(model, "hidden").items():
            for axis in axes:
                squares = _square(parameters[name]).transpose(0, axis)
                hidden += squares.reshape(len(hidden), -1).sum(1)
        return Importance(
            heads=heads,
            ffn=ffn,
            hidden=hidden,
            layers=_layers(heads, ffn),
            weights={name: _square(p) for name, p in matrices(model).items()},
        )


def taylor_importance(
    model: Any,
    batches: Iterable[Batch],
    loss: Callable[[Any, Batch], torch.Tensor] | None = None,
    *,
    weights: bool = False,
) -> Importance:
    """Scores from data. ``batches``: keyword arguments of the model, labels included.

    ``loss(outputs, batch)`` gives a scalar; None takes the outputs' own loss. ``weights`` keeps a
    score for every weight of a matrix too (as much memory again as the model). The model, its
    gradients and its mode are left as they were; dropout is off.

    Raises `InputError` where there is no batch, where the model has no loss for one, or where the
    loss is NaN or infinite.
    """
    structure = structure_of(model)
    norms = _norms(model)
    read = [p for layer in structure.layers for p in _readers(layer)]
    elements = matrices(model) if weights else {}
    wanted = list(dict.fromkeys([*read, *(p for pair in norms for p in pair), *elements.values()]))
    sums: dict[str, list[torch.Tensor]] = {}
    scores: dict[str, torch.Tensor] = {}
    count = 0
    for products in _products(model, wanted, batches, loss):
        count += 1
        of = products.__getitem__
        found = {
            "heads": [_heads(layer, of) for layer in structure.layers],
            "ffn": [_ffn(layer, of) for layer in structure.layers],
            "hidden": [sum((of(p) for p in pair), torch.zeros(())).abs() for pair in norms],
        }
        for name, tensors in found.items():
            before = sums.get(name, [torch.zeros(())] * len(tensors))
            sums[name] = [a + b for a, b in zip(before, tensors, strict=True)]
        for name, parameter in elements.items():
            scores[name] = scores.get(name, torch.zeros(())) + of(parameter).square()
    if not count:
        raise InputError("Importance needs at least one batch of data.")
    heads, ffn = ([t / count for t in sums[name]] for name in ("heads", "ffn"))
    return Importance(
        heads=tuple(heads),
        ffn=tuple(ffn),
        hidden=torch.stack(sums["hidden"]).sum(0) / count,
        layers=_layers(heads, ffn),
        weights={name: total / count for name, total in scores.items()},
    )


def _products(
    model: Any,
    wanted: Sequence[nn.Parameter],
    batches: Iterable[Batch],
    loss: Callable[[Any, Batch], torch.Tensor] | None,
) -> Iterator[dict[nn.Parameter, torch.Tensor]]:
    """For each batch, weight times gradient of each parameter."""
    frozen = [p for p in wanted if not p.requires_grad]
    training = model.training
    model.eval()
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        for batch in batches:
            with torch.enable_grad():
                outputs = model(**batch)
                value = loss(outputs, batch) if loss else getattr(outputs, "loss", None)
                if value is None:
                    raise InputError(
                        f"{type(model).__name__} gave no loss for a batch: put labels into it, "
                        "or pass a loss of your own."
                    )
                if not bool(torch.isfinite(value)):
                    raise InputError("The loss of a batch is NaN or infinite: check the data.")
                found = torch.autograd.grad(value, wanted, allow_unused=True)
            yield {
                p: torch.zeros_like(p) if g is None else p.detach() * g
                for p, g in zip(wanted, found, strict=True)
            }
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        model.train(training)


def _square(parameter: nn.Parameter) -> torch.Tensor:
    return parameter.detach().square()


def _norms(model: Any) -> list[tuple[nn.Parameter, ...]]:
    """Weight and bias of every norm over the hidden width: gates on what it writes."""
    hidden = axes_of(model, "hidden")
    return [
        tuple(module.parameters(recurse=False))
        for path, module in model.named_modules()
        if f"{path}.weight" in hidden and "Norm" in type(module).__name__
    ]


def _readers(layer: Layer) -> list[nn.Parameter]:
    """The weights that read heads, and those that read feed-forward units."""
    return [layer.part(path).weight for path in (layer.family.output, layer.family.ffn_out)]


def _heads(layer: Layer, of: _Elements) -> torch.Tensor:
    return _by_input(layer, layer.family.output, of).reshape(layer.heads, -1).sum(1).abs()


def _ffn(layer: Layer, of: _Elements) -> torch.Tensor:
    return _by_input(layer, layer.family.ffn_out, of).abs()


def _by_input(layer: Layer, path: str, of: _Elements) -> torch.Tensor:
    matrix = layer.part(path)
    return of(matrix.weight).sum(1 - input_axis(matrix))


def _layers(heads: Sequence[torch.Tensor], ffn: Sequence[torch.Tensor]) -> torch.Tensor:
    """What a layer writes is what its heads and its units write."""
    return torch.stack([h.sum() + f.sum() for h, f in zip(heads, ffn, strict=True)])
