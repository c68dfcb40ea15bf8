"""An encoder of BERT's kind as a value: every size, every matrix's form, one sequence length.

It says all that a compiler needs to know of a model besides its weights, so latency can be
predicted from it, and all that a `Recipe` needs to make such a model of a larger one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...compiler.compression import fields
from ...compiler.compression.fields import shown
from ...errors import InputError
from ...targets import PRECISIONS

if TYPE_CHECKING:
    from ...compiler.compression.costs import Costs
    from ...compiler.compression.recipe import Recipe

__all__ = ["HEADS", "KINDS", "Architecture", "LayerShape", "MatrixForm"]

VERSION = 1
KINDS = ("qkv", "output", "up", "down")
"""The matrices of a layer: queries, keys and values; what attention writes; the feed-forward
network's two."""
HEADS = ("base", "sequence-classification", "token-classification", "question-answering")
_OF = "an architecture"
_MOST_LAYERS = 256


@dataclass(frozen=True, kw_only=True)
class MatrixForm:
    """How a weight is stored: its precision, and the share of its blocks that is kept."""

    precision: str = "f32"
    density: float = 1.0

    @classmethod
    def from_json(cls, value: object, field: str) -> MatrixForm:
        """Read one; raises `InputError` with the name of what is wrong."""
        found = fields.table(value, field, ("precision", "density"), of=_OF)
        return cls(
            precision=_precision(found.get("precision", "f32"), f"{field}.precision"),
            density=fields.number(found.get("density", 1.0), f"{field}.density"),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"precision": self.precision, "density": self.density}


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """One encoder layer: attention heads, feed-forward units, and the form of each matrix.

    Queries, keys and values have one form: the compiler joins them to one matrix.
    """

    heads: int
    ffn: int
    qkv: MatrixForm = MatrixForm()
    output: MatrixForm = MatrixForm()
    up: MatrixForm = MatrixForm()
    down: MatrixForm = MatrixForm()

    @classmethod
    def from_json(cls, value: object, field: str) -> LayerShape:
        """Read one; raises `InputError` with the name of what is wrong."""
        found = fields.table(value, field, ("heads", "ffn", *KINDS), of=_OF)
        forms = {k: MatrixForm.from_json(found[k], f"{field}.{k}") for k in KINDS if k in found}
        return cls(
            heads=fields.integer(found.get("heads"), f"{field}.heads"),
            ffn=fields.integer(found.get("ffn"), f"{field}.ffn"),
            **forms,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        forms = {kind: self.form(kind).to_json() for kind in KINDS}
        return {"heads": self.heads, "ffn": self.ffn, **forms}

    def form(self, kind: str) -> MatrixForm:
        """The form of one of `KINDS`."""
        found: MatrixForm = getattr(self, kind)
        return found


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """See the module's docstring. Raises `InputError`, naming the field, where sizes clash.

    ``hidden``: the width of what passes from layer to layer; ``head_size``: numbers in a head;
    ``block``: (inputs, outputs) of the blocks that live or die together; ``embedding_rank``: the
    table of words [vocabulary, hidden] as [vocabulary, rank] times [rank, hidden], None: whole;
    ``embedding_int8``: large tables in 8 bits; ``seq_len``: tokens of a text, at most
    ``positions``; ``types``: rows of the table of token types; ``head``: one of `HEADS`, with
    ``labels`` outputs (2 for question-answering); ``rest``: the precision of every matrix that
    is in no layer, which is dense.
    """

    version: int = VERSION
    hidden: int
    head_size: int
    layers: tuple[LayerShape, ...]
    block: tuple[int, int] = (4, 48)
    vocabulary: int = 30522
    embedding_rank: int | None = None
    embedding_int8: bool = False
    seq_len: int = 128
    positions: int = 512
    types: int = 2
    head: str = "sequence-classification"
    labels: int = 2
    rest: str = "f32"

    def __post_init__(self) -> None:
        if not 0 < len(self.layers) <= _MOST_LAYERS:
            raise InputError(f"layers: there must be 1 to {_MOST_LAYERS}, not {len(self.layers)}.")
        if self.head not in HEADS:
            raise InputError(f"head must be one of {', '.join(HEADS)}: {shown(self.head)}.")
        if self.head == "question-answering" and self.labels != 2:
            raise InputError(f"labels: an answer has a start and an end, 2, not {self.labels}.")
        if self.seq_len > self.positions:
            raise InputError(
                f"seq_len is {self.seq_len}, but the model has {self.positions} positions."
            )
        rank, width = self.embedding_rank, self.hidden
        if rank is not None and rank * (self.vocabulary + width) >= self.vocabulary * width:
            raise InputError(
                f"embedding_rank {rank} saves nothing on a table of {self.vocabulary} x {width}: "
                "take a smaller one, or none."
            )
        self._check_blocks()

    @classmethod
    def from_json(cls, value: object) -> Architecture:
        """Build from plain JSON values. Raises `InputError` naming the field that is wrong."""
        found = fields.table(value, "The architecture", _NAMES, of=_OF)
        version = found.get("version")
        if isinstance(version, bool) or version != VERSION:
            raise InputError(f"version of the architecture must be {VERSION}: {shown(version)}.")
        read: dict[str, Any] = {"version": VERSION}
        for name in ("hidden", "head_size"):
            read[name] = fields.integer(found.get(name), name)
        read["layers"] = fields.items(found.get("layers"), "layers", LayerShape.from_json)
        for name in ("vocabulary", "seq_len", "positions", "types", "labels"):
            if name in found:
                read[name] = fields.integer(found[name], name)
        if "block" in found:
            read["block"] = fields.pair(found["block"], "block")
        if found.get("embedding_rank") is not None:
            read["embedding_rank"] = fields.integer(found["embedding_rank"], "embedding_rank")
        if "embedding_int8" in found:
            read["embedding_int8"] = fields.boolean(found["embedding_int8"], "embedding_int8")
        if "head" in found:
            read["head"] = found["head"]
        if "rest" in found:
            read["rest"] = _precision(found["rest"], "rest")
        return cls(**read)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the inverse of `from_json`."""
        plain = {name: getattr(self, name) for name in _NAMES}
        layers = [layer.to_json() for layer in self.layers]
        return {**plain, "layers": layers, "block": list(self.block)}

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that name this architecture."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def matrix(self, number: int, kind: str) -> tuple[int, int, MatrixForm]:
        """(outputs, inputs, form) of a matrix of a layer; ``qkv`` is each of the three."""
        layer = self.layers[number]
        inner = layer.heads * self.head_size
        outputs, inputs = {
            "qkv": (inner, self.hidden),
            "output": (self.hidden, inner),
            "up": (layer.ffn, self.hidden),
            "down": (self.hidden, layer.ffn),
        }[kind]
        return outputs, inputs, layer.form(kind)

    def costs(self) -> Costs:
        """Numbers stored, multiplications of one text, bytes in a bundle, in closed form: what
        `compression.costs.model_costs` finds in such a model."""
        from .closed_form import costs_of

        return costs_of(self)

    def recipe(self, teacher_config: Any = None) -> Recipe:
        """What makes such a model of a larger one; with its configuration, only what changes.

        Raises `InputError`, naming the field, where ``teacher_config`` is not at least as large.
        """
        from .recipes import recipe_of

        return recipe_of(self, teacher_config)

    def _check_blocks(self) -> None:
        for number in range(len(self.layers)):
            for kind in KINDS:
                outputs, inputs, form = self.matrix(number, kind)
                panels, groups = -(-outputs // self.block[1]), -(-inputs // self.block[0])
                if round(form.density * panels * groups) == 0:
                    raise InputError(
                        f"layers[{number}].{kind}.density {form.density} leaves an empty matrix: "
                        f"ask for at least {1 / (panels * groups):.2g}."
                    )


_NAMES: Mapping[str, Any] = Architecture.__dataclass_fields__


def _precision(value: object, field: str) -> str:
    if value not in PRECISIONS:
        raise InputError(f"{field} must be one of {', '.join(PRECISIONS)}, not {shown(value)}.")
    return str(value)
