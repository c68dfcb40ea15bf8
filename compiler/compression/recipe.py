"""What a model is compressed to: a typed, versioned value, read from JSON or TOML.

A field that is left out leaves that part of the model as it is. In JSON::

    {"version": 1, "layers": 4, "heads": 8, "ffn": 768,
     "sparsity": [{"match": "*.intermediate.dense.weight", "block": [4, 16], "density": 0.5}],
     "default_precision": "int8",
     "precision": [{"match": "*pooler*", "precision": "f32"}],
     "embedding": {"vocabulary": 12000, "rank": 128, "int8": true}}
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...targets import PRECISIONS
from . import fields
from .fields import shown

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["VERSION", "EmbeddingRecipe", "PrecisionRule", "Recipe", "SparsityRule"]

VERSION = 1
_LARGEST_FILE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class SparsityRule:
    """Matrices whose name ``match`` (a glob) fits keep the share ``density`` of their blocks.

    ``block`` is (inputs, outputs): how many neighbouring inputs and outputs live or die together.
    Of several rules that fit, the first counts.
    """

    match: str
    block: tuple[int, int]
    density: float

    @classmethod
    def from_json(cls, value: object, field: str) -> SparsityRule:
        """Read one; raises `InputError` with the name of what is wrong."""
        found = fields.table(value, field, ("match", "block", "density"))
        _demand(found, field, ("match", "block", "density"))
        return cls(
            match=fields.text(found["match"], f"{field}.match"),
            block=fields.pair(found["block"], f"{field}.block"),
            density=fields.number(found["density"], f"{field}.density"),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"match": self.match, "block": list(self.block), "density": self.density}


@dataclass(frozen=True, kw_only=True)
class PrecisionRule:
    """Matrices whose name ``match`` (a glob) fits are stored and multiplied in ``precision``.

    Of several rules that fit, the first counts.
    """

    match: str
    precision: str

    @classmethod
    def from_json(cls, value: object, field: str) -> PrecisionRule:
        """Read one; raises `InputError` with the name of what is wrong."""
        found = fields.table(value, field, ("match", "precision"))
        _demand(found, field, ("match", "precision"))
        return cls(
            match=fields.text(found["match"], f"{field}.match"),
            precision=_precision(found["precision"], f"{field}.precision"),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"match": self.match, "precision": self.precision}


@dataclass(frozen=True, kw_only=True)
class EmbeddingRecipe:
    """What becomes of the table of words: [V, H] numbers, often half of a small model.

    ``int8``: 8 bits with a scale for each row. ``rank``: the table as [V, rank] x [rank, H].
    ``vocabulary``: how many tokens stay, those that a corpus needs most.
    """

    int8: bool = False
    rank: int | None = None
    vocabulary: int | None = None

    @classmethod
    def from_json(cls, value: object, field: str) -> EmbeddingRecipe:
        """Read one; raises `InputError` with the name of what is wrong."""
        found = fields.table(value, field, ("int8", "rank", "vocabulary"))
        return cls(
            int8=fields.boolean(found.get("int8", False), f"{field}.int8"),
            rank=_optional(found.get("rank"), f"{field}.rank", fields.integer),
            vocabulary=_optional(found.get("vocabulary"), f"{field}.vocabulary", fields.integer),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"int8": self.int8, "rank": self.rank, "vocabulary": self.vocabulary}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """See the module's docstring.

    ``layers``: how many stay, or which (numbers from 0, ascending). ``hidden``: the width of the
    model. ``heads`` and ``ffn``: attention heads and inner width of the feed-forward network, one
    number for all kept layers or one for each. Heads keep their size. ``default_precision``
    holds for what no rule of ``precision`` names; None is f32.
    """

    version: int = VERSION
    layers: tuple[int, ...] | int | None = None
    hidden: int | None = None
    heads: int | tuple[int, ...] | None = None
    ffn: int | tuple[int, ...] | None = None
    sparsity: tuple[SparsityRule, ...] = ()
    precision: tuple[PrecisionRule, ...] = ()
    default_precision: str | None = None
    embedding: EmbeddingRecipe | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read a file: TOML if its name ends in ``.toml``, else JSON.

        Raises `InputError`, naming the file and the field, for whatever is wrong with it.
        """
        place = Path(path)
        if place.suffix not in (".json", ".toml"):
            raise InputError(f"The recipe {place} must be a .json or a .toml file.")
        try:
            with place.open("rb") as file:
                data = file.read(_LARGEST_FILE + 1)
        except OSError as error:
            raise InputError(
                f"The recipe {place} cannot be read: {error.strerror or error}."
            ) from error
        if len(data) > _LARGEST_FILE:
            raise InputError(f"The recipe {place} is larger than {_LARGEST_FILE >> 20} MiB.")
        try:
            content = data.decode("utf-8")
            if place.suffix == ".toml":
                values: object = tomllib.loads(content)
            else:
                values = json.loads(content, object_pairs_hook=_without_doubles)
        except (ValueError, RecursionError) as error:
            kind = place.suffix[1:].upper()
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise InputError(f"The recipe {place} is not {kind}: {reason}.") from error
        try:
            return cls.from_json(values)
        except InputError as error:
            raise InputError(f"The recipe {place}: {error}") from error

    @classmethod
    def from_json(cls, value: object) -> Recipe:
        """Build from plain JSON values. Raises `InputError` naming the field that is wrong."""
        found = fields.table(value, "The recipe", _NAMES)
        if "version" not in found:
            raise InputError(f"version is missing from the recipe: it is {VERSION}.")
        version = found["version"]
        if isinstance(version, bool) or version != VERSION:
            raise InputError(f"version of the recipe must be {VERSION}, not {shown(version)}.")
        return cls(
            layers=_optional(found.get("layers"), "layers", _layers),
            hidden=_optional(found.get("hidden"), "hidden", fields.integer),
            heads=_optional(found.get("heads"), "heads", _sizes),
            ffn=_optional(found.get("ffn"), "ffn", _sizes),
            sparsity=fields.items(found.get("sparsity", ()), "sparsity", SparsityRule.from_json),
            precision=fields.items(
                found.get("precision", ()), "precision", PrecisionRule.from_json
            ),
            default_precision=_optional(
                found.get("default_precision"), "default_precision", _precision
            ),
            embedding=_optional(found.get("embedding"), "embedding", EmbeddingRecipe.from_json),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: the inverse of `from_json`."""
        return {
            "version": self.version,
            "layers": _plain(self.layers),
            "hidden": self.hidden,
            "heads": _plain(self.heads),
            "ffn": _plain(self.ffn),
            "sparsity": [rule.to_json() for rule in self.sparsity],
            "precision": [rule.to_json() for rule in self.precision],
            "default_precision": self.default_precision,
            "embedding": None if self.embedding is None else self.embedding.to_json(),
        }

    def validate(self, config: PretrainedConfig) -> None:
        """Raise `InputError`, naming the field, where a model of ``config`` cannot become this.

        `UnsupportedError` where canao cannot compress this family.
        """
        from .validation import check_config

        check_config(self, config)


_NAMES = tuple(Recipe.__dataclass_fields__)


def _demand(found: Mapping[str, Any], field: str, names: tuple[str, ...]) -> None:
    for name in names:
        if name not in found:
            raise InputError(f"{field}.{name} is missing.")


def _optional(value: object, field: str, read: Callable[[object, str], Any]) -> Any:
    return None if value is None else read(value, field)


def _precision(value: object, field: str) -> str:
    if value not in PRECISIONS:
        raise InputError(f"{field} must be one of {', '.join(PRECISIONS)}, not {shown(value)}.")
    return str(value)


def _layers(value: object, field: str) -> tuple[int, ...] | int:
    if isinstance(value, int):
        return fields.integer(value, field)
    found = fields.items(value, field, fields.whole)
    if not found or list(found) != sorted(set(found)):
        raise InputError(f"{field} must name at least one layer, each once, ascending.")
    return found


def _sizes(value: object, field: str) -> tuple[int, ...] | int:
    if isinstance(value, int):
        return fields.integer(value, field)
    found = fields.items(value, field, fields.integer)
    if not found:
        raise InputError(f"{field} must have a number for each kept layer.")
    return found


def _plain(value: tuple[int, ...] | int | None) -> list[int] | int | None:
    return list(value) if isinstance(value, tuple) else value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {double!r} stands there twice")
    return found
