"""What the search may choose from: for each size of an `Architecture`, a list of choices.

In TOML::

    version = 1
    layers = [2, 3, 4, 6]
    hidden = [192, 288, 384]
    heads = [2, 4, 8, 12]
    ffn = [384, 768, 1536]
    head_size = 32
    per_layer = ["heads", "ffn"]
    [qkv]
    precisions = ["f32", "int8"]
    densities = [1.0, 0.25]

Decisions have two phases, as in the paper (arXiv 2106.00526): first how deep the model is (and how
long its texts are), then its sizes. Their number and order are fixed; those of layers beyond the
depth are there and are ignored.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...compiler.compression.fields import shown
from ...errors import InputError
from .architecture import KINDS, Architecture, LayerShape, MatrixForm
from .choices import MatrixChoices
from .defaults import default_choices
from .reading import read_fields, read_file

if TYPE_CHECKING:
    import numpy as np

__all__ = ["PER_LAYER", "ArchitectureSpace", "Decision", "Scalar"]

Scalar = int | float | str | bool | None
"""A choice: what JSON has, without lists and tables."""
PER_LAYER = ("heads", "ffn", *(f"{k}.{part}" for k in KINDS for part in ("precision", "density")))
"""What each layer may choose for itself."""
_DENSE = MatrixChoices()


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One thing to choose. ``phase`` 1: depth and length; 2: sizes, given those."""

    name: str
    choices: tuple[Scalar, ...]
    phase: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"name": self.name, "choices": list(self.choices), "phase": self.phase}


@dataclass(frozen=True, kw_only=True)
class ArchitectureSpace:
    """See the module's docstring; the fields are those of `Architecture`, as lists of choices.

    ``per_layer`` names what each layer chooses for itself (of `PER_LAYER`); everything else is one
    choice for all layers. Raises `InputError`, naming the field, for a space without
    architectures, or with ones that could not be built.
    """

    version: int = 1
    layers: tuple[int, ...]
    hidden: tuple[int, ...]
    heads: tuple[int, ...]
    ffn: tuple[int, ...]
    head_size: int
    qkv: MatrixChoices = _DENSE
    output: MatrixChoices = _DENSE
    up: MatrixChoices = _DENSE
    down: MatrixChoices = _DENSE
    seq_lens: tuple[int, ...] = (128,)
    vocabularies: tuple[int, ...] = (30522,)
    embedding_ranks: tuple[int | None, ...] = (None,)
    embedding_int8: tuple[bool, ...] = (False,)
    block: tuple[int, int] = (4, 48)
    positions: int = 512
    types: int = 2
    head: str = "sequence-classification"
    labels: int = 2
    rest: str = "f32"
    per_layer: tuple[str, ...] = ("heads", "ffn")

    def __post_init__(self) -> None:
        for width in self.hidden:
            for heads in self.heads:
                if width % heads:
                    raise InputError(
                        f"heads: {heads} heads do not divide a width of {width}, and every "
                        "choice of heads must go with every choice of hidden."
                    )
        for name in self.per_layer:
            if name not in PER_LAYER:
                raise InputError(f"per_layer: {shown(name)} is none of {', '.join(PER_LAYER)}.")
        # Whatever clashes does so in the smallest sizes or in the largest ones.
        for extreme in (min, max):
            for rank in self.embedding_ranks:
                self._extreme(extreme, rank)

    @classmethod
    def of_teacher(
        cls, config: Any, *, precisions: Collection[str] | None = None, **choices_of: Any
    ) -> ArchitectureSpace:
        """The sub-networks of a BERT of this configuration (and, trained anew, models of those
        sizes), in those of f32, bf16 and int8 that ``precisions`` has (a target's; None: all).
        ``choices_of`` replaces fields, e.g. ``seq_lens=(32,)``; ``head_size`` must be given where
        the model's heads were pruned.

        Raises `UnsupportedError` where it is no BERT.
        """
        return cls(**{**default_choices(config, precisions), **choices_of})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ArchitectureSpace:
        """Read a file: TOML if its name ends in ``.toml``, JSON if in ``.json``.

        Raises `InputError`, naming the file and the field, for whatever is wrong with it.
        """
        place = Path(path)
        try:
            return cls.from_json(read_file(place))
        except InputError as error:
            raise InputError(f"The space {place} cannot be used: {error}") from error

    @classmethod
    def from_json(cls, value: object) -> ArchitectureSpace:
        """Build from plain JSON values; a list of one choice may stand as that choice, and
        "none" for the rank that is none. Raises `InputError` naming the field that is wrong."""
        defaults = {
            name: field.default
            for name, field in cls.__dataclass_fields__.items()
            if field.default is not MISSING
        }
        return cls(**read_fields(value, tuple(cls.__dataclass_fields__), defaults))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the inverse of `from_json`."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            name: value.to_json()
            if isinstance(value, MatrixChoices)
            else list(value)
            if isinstance(value, tuple)
            else value
            for name, value in plain.items()
        }

    def decisions(self) -> tuple[Decision, ...]:
        """All of them, in the order in which they are best made. Their names: ``hidden``, and
        ``layer.3.ffn`` for what each layer chooses (numbers from 0)."""
        found = [
            Decision(name="layers", choices=self.layers, phase=1),
            Decision(name="seq_len", choices=self.seq_lens, phase=1),
            Decision(name="hidden", choices=self.hidden, phase=2),
            Decision(name="vocabulary", choices=self.vocabularies, phase=2),
            Decision(name="embedding_rank", choices=self.embedding_ranks, phase=2),
            Decision(name="embedding_int8", choices=self.embedding_int8, phase=2),
        ]
        for name in PER_LAYER:
            if name not in self.per_layer:
                found.append(Decision(name=name, choices=self._choices(name), phase=2))
        for number in range(max(self.layers)):
            for name in PER_LAYER:
                if name in self.per_layer:
                    whole = f"layer.{number}.{name}"
                    found.append(Decision(name=whole, choices=self._choices(name), phase=2))
        return tuple(found)

    def active(self, values: Mapping[str, Scalar]) -> tuple[str, ...]:
        """Names of the decisions that matter at the depth that ``values`` has, in order."""
        depth = self._chosen(values, "layers", self.layers)
        return tuple(
            decision.name for decision in self.decisions() if _layer_of(decision.name) < depth
        )

    def build(self, values: Mapping[str, Scalar]) -> Architecture:
        """The architecture of these choices. Values of layers beyond the depth may be missing.

        Raises `InputError`, naming the decision, for a value that is missing or no choice.
        """
        depth: int = self._chosen(values, "layers", self.layers)

        def value(name: str, number: int) -> Any:
            whole = f"layer.{number}.{name}" if name in self.per_layer else name
            return self._chosen(values, whole, self._choices(name))

        layers = tuple(
            LayerShape(
                heads=value("heads", number),
                ffn=value("ffn", number),
                **{
                    kind: MatrixForm(
                        precision=value(f"{kind}.precision", number),
                        density=value(f"{kind}.density", number),
                    )
                    for kind in KINDS
                },
            )
            for number in range(depth)
        )
        return Architecture(
            hidden=self._chosen(values, "hidden", self.hidden),
            seq_len=self._chosen(values, "seq_len", self.seq_lens),
            vocabulary=self._chosen(values, "vocabulary", self.vocabularies),
            embedding_rank=self._chosen(values, "embedding_rank", self.embedding_ranks),
            embedding_int8=self._chosen(values, "embedding_int8", self.embedding_int8),
            layers=layers,
            **self._fixed(),
        )

    def values(self, architecture: Architecture) -> dict[str, Scalar]:
        """What `build` makes ``architecture`` of: its active decisions.

        Raises `InputError`, naming what is no choice, where it is not of this space.
        """
        a = architecture
        for name, wanted in self._fixed().items():
            if getattr(a, name) != wanted:
                raise InputError(
                    f"{name} is {shown(getattr(a, name))}; in this space it is {shown(wanted)}."
                )
        found: dict[str, Scalar] = {
            "layers": len(a.layers),
            "seq_len": a.seq_len,
            "hidden": a.hidden,
            "vocabulary": a.vocabulary,
            "embedding_rank": a.embedding_rank,
            "embedding_int8": a.embedding_int8,
        }
        for number, layer in enumerate(a.layers):
            for name in PER_LAYER:
                whole = f"layer.{number}.{name}" if name in self.per_layer else name
                value = _value(layer, name)
                if found.setdefault(whole, value) != value:
                    raise InputError(f"{name} differs by layer, but not in this space.")
        for decision in self.decisions():
            if decision.name in found:
                self._chosen(found, decision.name, decision.choices)
        return {name: found[name] for name in self.active(found)}

    def contains(self, architecture: Architecture) -> bool:
        """Whether `build` can make it."""
        try:
            self.values(architecture)
        except InputError:
            return False
        return True

    def sample(self, rng: np.random.Generator) -> Architecture:
        """One architecture: each decision drawn alike from its choices."""
        return self.build(
            {d.name: d.choices[int(rng.integers(len(d.choices)))] for d in self.decisions()}
        )

    def size(self) -> int:
        """How many different architectures there are."""
        whole = self.decisions()
        return sum(
            math.prod(
                len(d.choices) for d in whole if d.name != "layers" and _layer_of(d.name) < depth
            )
            for depth in self.layers
        )

    def _fixed(self) -> dict[str, Any]:
        names = ("head_size", "block", "positions", "types", "head", "labels", "rest")
        return {name: getattr(self, name) for name in names}

    def _choices(self, name: str) -> tuple[Scalar, ...]:
        """Of one of `PER_LAYER`."""
        kind, _, part = name.partition(".")
        if not part:
            found: tuple[Scalar, ...] = getattr(self, name)
            return found
        of: MatrixChoices = getattr(self, kind)
        return of.precisions if part == "precision" else of.densities

    def _chosen(self, values: Mapping[str, Scalar], name: str, allowed: tuple[Scalar, ...]) -> Any:
        if name not in values:
            raise InputError(f"{name}: there is no value for this decision.")
        value = values[name]
        for choice in allowed:
            # 1 is True and 1.0 to Python; only numbers may be spelled otherwise.
            if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                return choice
        raise InputError(f"{name} is {shown(value)}, which is none of {shown(list(allowed))}.")

    def _extreme(self, extreme: Any, rank: int | None) -> Architecture:
        """The smallest or largest architecture, with the least of each density."""
        forms = {kind: MatrixForm(density=min(getattr(self, kind).densities)) for kind in KINDS}
        layer = LayerShape(heads=extreme(self.heads), ffn=extreme(self.ffn), **forms)
        return Architecture(
            hidden=extreme(self.hidden),
            seq_len=max(self.seq_lens),
            vocabulary=extreme(self.vocabularies),
            embedding_rank=rank,
            layers=(layer,) * extreme(self.layers),
            **self._fixed(),
        )


def _layer_of(name: str) -> int:
    """The number of the layer that a decision is of; -1 for one that is of all."""
    part = name.split(".")
    return int(part[1]) if part[0] == "layer" else -1


def _value(layer: LayerShape, name: str) -> Scalar:
    kind, _, part = name.partition(".")
    found: Scalar = getattr(layer.form(kind), part) if part else getattr(layer, name)
    return found
