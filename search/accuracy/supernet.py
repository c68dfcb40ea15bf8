"""One set of weights for every sub-network of a teacher.

The teacher's heads, feed-forward units and hidden units are put in the order of their importance,
once; it computes the same afterwards. A sub-network is then a prefix along each axis of each
weight: a view, no copy. Which layers it has follows from their importance too. So it has the very
units that structured pruning by the same importance would keep (`compression.structured`).

Weights that are trained through such views serve all sub-networks at once (Cai et al. 2020,
Once-for-All, 1908.09791; Hou et al. 2020, DynaBERT, 2004.04037; Yin et al. 2021, AutoTinyBERT,
2107.13686).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ...compiler.compression.axes import axes_of
from ...compiler.compression.cutting import keep
from ...compiler.compression.importance import Importance
from ...compiler.compression.low_rank import word_table
from ...compiler.compression.structure import structure_of
from ...errors import InputError, UnsupportedError
from ..space.architecture import Architecture
from ..space.recipes import check_teacher
from .forms import (
    as_stored,
    blocks_kept,
    narrow_inputs,
    reads_int8,
    stored_table,
    word_basis,
)
from .layout import matrices_of, sized_axes
from .rebuilding import Moments, rebuilt
from .views import swapped

__all__ = ["Supernet"]


class Supernet:
    """``model``: a BERT whose units stand in the order of their importance; ``layers``: the
    numbers of its layers, the most important first. Raises `UnsupportedError` for another family.
    """

    def __init__(self, model: Any, layers: tuple[int, ...]) -> None:
        if model.config.model_type != "bert":
            raise UnsupportedError(
                f"Weights are shared within a BERT, and this model is {model.config.model_type!r}."
            )
        self.model = model
        self.layers = layers
        self._structure = structure_of(model)
        self._axes = sized_axes(self._structure)
        self._bases: dict[tuple[int, int], torch.Tensor] = {}
        self._tables: dict[tuple[int, int], torch.Tensor] = {}

    @classmethod
    def of(cls, teacher: Any, importance: Importance) -> Supernet:
        """A copy of ``teacher`` in the order of ``importance``, which is of it."""
        model = copy.deepcopy(teacher)
        structure = structure_of(model)
        for number, layer in enumerate(structure.layers):
            heads, units = importance.heads[number], importance.ffn[number]
            keep(layer.module, [*layer.keep_heads(_order(heads)), *layer.keep_ffn(_order(units))])
        hidden, parameters = _order(importance.hidden), dict(model.named_parameters())
        keep(
            model,
            [
                (parameters[name], axis, hidden)
                for name, axes in axes_of(model, "hidden").items()
                for axis in axes
            ],
        )
        return cls(model, tuple(_order(importance.layers).tolist()))

    def chosen(self, architecture: Architecture) -> list[int]:
        """Numbers of the layers that a sub-network has, ascending."""
        return sorted(self.layers[: len(architecture.layers)])

    def check(self, architecture: Architecture) -> None:
        """Raise `InputError`, naming the field, where an architecture is no sub-network."""
        check_teacher(architecture, self.model.config)
        size = self._structure.layers[0].head_size
        if architecture.head_size != size:
            raise InputError(
                f"head_size is {architecture.head_size}, but the teacher's heads are of {size}: "
                "heads keep their size."
            )

    @contextmanager
    def narrowed(
        self,
        architecture: Architecture,
        *,
        stored: bool = False,
        rows: torch.Tensor | None = None,
        seen: Mapping[tuple[int, str], Moments] | None = None,
    ) -> Iterator[Any]:
        """Inside the block ``model`` is the sub-network; gradients reach the shared weights.

        Blocks are gone as its densities say, those with the smallest squares, and the table of
        words has its rank. ``stored``: weights and activations also have its precisions (without
        gradients). ``rows`` int64: the tokens of a cut vocabulary, which ids then number.
        ``seen``: what matrices read, by place of the layer and kind; their blocks are chosen and
        rebuilt by it (without gradients). Raises `InputError` where the architecture is larger
        than the model.
        """
        self.check(architecture)
        chosen = self.chosen(architecture)
        tensors = self._views(architecture, chosen)
        narrow: list[nn.Linear] = []
        for place, number in enumerate(chosen):
            for kind, linear in matrices_of(self._structure.layers[number]):
                form = architecture.layers[place].form(kind)
                at = (linear, "weight")
                if form.density < 1 and seen is not None:
                    tensors[at], tensors[linear, "bias"] = rebuilt(
                        tensors[at],
                        tensors[linear, "bias"],
                        seen[place, kind],
                        architecture.block,
                        form.density,
                    )
                elif form.density < 1:
                    kept = blocks_kept(tensors[at], architecture.block, form.density)
                    tensors[at] = tensors[at] * kept
                if stored:
                    tensors[at] = as_stored(tensors[at], form.precision)
                    narrow += [linear] if reads_int8(tensors[at], form.precision) else []
        if stored:
            for linear in self._others():
                at = (linear, "weight")
                tensors[at] = as_stored(tensors[at], architecture.rest)
                narrow += [linear] if reads_int8(tensors[at], architecture.rest) else []
        table = word_table(self.model)[2]
        tensors[table, "weight"] = self._words(
            tensors[table, "weight"], architecture, stored, rows
        )
        with ExitStack() as stack:
            stack.enter_context(swapped(tensors))
            stack.enter_context(self._depth(chosen))
            stack.enter_context(narrow_inputs(narrow))
            yield self.model

    def readers(self, architecture: Architecture) -> dict[tuple[int, str], nn.Linear]:
        """Of each matrix that loses blocks one that reads the same, by place of the layer and
        kind."""
        found: dict[tuple[int, str], nn.Linear] = {}
        for place, number in enumerate(self.chosen(architecture)):
            for kind, linear in matrices_of(self._structure.layers[number]):
                if architecture.layers[place].form(kind).density < 1:
                    found[place, kind] = linear
        return found

    def _views(
        self, architecture: Architecture, chosen: list[int]
    ) -> dict[tuple[nn.Module, str], torch.Tensor]:
        """By module and name, each parameter's part, of all that the sub-network has."""
        shapes = dict(zip(chosen, architecture.layers, strict=True))
        found: dict[tuple[nn.Module, str], torch.Tensor] = {}
        for at, (parameter, layer, axes) in self._axes.items():
            if layer is not None and layer not in shapes:
                continue
            view: torch.Tensor = parameter
            for axis, what in axes:
                if what == "hidden":
                    size = architecture.hidden
                else:
                    assert layer is not None
                    shape = shapes[layer]
                    heads = shape.heads * architecture.head_size
                    size = heads if what == "heads" else shape.ffn
                if size < view.shape[axis]:
                    view = view.narrow(axis, 0, size)
            found[at] = view
        return found

    def _words(
        self,
        view: torch.Tensor,
        architecture: Architecture,
        stored: bool,
        rows: torch.Tensor | None,
    ) -> torch.Tensor:
        """The table that the sub-network reads, without gradients where it is not a view."""
        rank, hidden = architecture.embedding_rank, architecture.hidden
        int8 = stored and architecture.embedding_int8
        if rank is None and rows is None and not int8:
            return view
        plain = rows is None and not stored
        if plain and rank is not None and (hidden, rank) in self._tables:
            return self._tables[hidden, rank]
        with torch.no_grad():
            table = view.detach() if rows is None else view.detach()[rows]
            basis = None
            if rank is not None:
                key = (hidden, table.shape[0])
                if key not in self._bases:
                    self._bases[key] = word_basis(table)
                basis = self._bases[key]
            precision = architecture.rest if stored else "f32"
            made = stored_table(table, basis, rank=rank, int8=int8, precision=precision)
        if plain and rank is not None:
            self._tables[hidden, rank] = made
        return made

    def _others(self) -> list[nn.Linear]:
        """Linear layers that are in no layer of the encoder."""
        inner = {id(m) for layer in self._structure.layers for m in layer.module.modules()}
        return [
            module
            for module in self.model.modules()
            if isinstance(module, nn.Linear) and id(module) not in inner
        ]

    @contextmanager
    def _depth(self, chosen: list[int]) -> Iterator[None]:
        """The chosen layers alone, one after the other."""
        path, _, name = self._structure.family.layers.rpartition(".")
        parent = self._structure.base.get_submodule(path)
        every = getattr(parent, name)
        setattr(parent, name, nn.ModuleList([every[number] for number in chosen]))
        try:
            yield
        finally:
            setattr(parent, name, every)


def _order(scores: torch.Tensor) -> torch.Tensor:
    """Places from the largest score on; of equal ones the first comes first."""
    return torch.argsort(scores.detach().cpu(), descending=True, stable=True)
