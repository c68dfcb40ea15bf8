"""``canao.json``: what a compressed model's directory says beside its ``config.json``."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from . import fields
from .recipe import Recipe

__all__ = [
    "MANIFEST",
    "CompressedManifest",
    "LayerSizes",
    "MaskFacts",
    "read_manifest",
    "recipe_of",
]

MANIFEST = "canao.json"
_FORMAT = "canao-compressed-model"
_VERSION = 1
_LARGEST = 1 << 24


@dataclass(frozen=True, kw_only=True)
class LayerSizes:
    """One layer: heads of queries, numbers in a head, feed-forward units, and the factor of the
    scores, where the attention module has one."""

    heads: int
    head_size: int
    ffn: int
    scaling: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**self.__dict__}

    @classmethod
    def from_json(cls, value: object, field: str) -> LayerSizes:
        """Read one; raises `InputError`."""
        found = fields.table(value, field, ("heads", "head_size", "ffn", "scaling"))
        scaling = found.get("scaling")
        if scaling is not None and (isinstance(scaling, bool) or not _is_factor(scaling)):
            raise InputError(f"{field}.scaling must be a positive number.")
        return cls(
            heads=fields.integer(found.get("heads"), f"{field}.heads"),
            head_size=fields.integer(found.get("head_size"), f"{field}.head_size"),
            ffn=fields.integer(found.get("ffn"), f"{field}.ffn"),
            scaling=None if scaling is None else float(scaling),
        )


@dataclass(frozen=True, kw_only=True)
class MaskFacts:
    """A matrix with blocks of zeros: their shape (inputs, outputs), how many there are and how
    many are kept. Which: ``masks.safetensors``. ``shape`` [outputs, inputs] of the matrix is None
    in directories whose blocks were not packed."""

    block: tuple[int, int]
    blocks: int
    kept: int
    shape: tuple[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        found = {"block": list(self.block), "blocks": self.blocks, "kept": self.kept}
        return found if self.shape is None else {**found, "shape": list(self.shape)}

    @classmethod
    def from_json(cls, value: object, field: str) -> MaskFacts:
        """Read one; raises `InputError`."""
        found = fields.table(value, field, ("block", "blocks", "kept", "shape"))
        shape = found.get("shape")
        return cls(
            block=fields.pair(found.get("block"), f"{field}.block"),
            blocks=fields.integer(found.get("blocks"), f"{field}.blocks"),
            kept=fields.whole(found.get("kept"), f"{field}.kept"),
            shape=None if shape is None else fields.pair(shape, f"{field}.shape"),
        )


@dataclass(frozen=True, kw_only=True)
class CompressedManifest:
    """``plain``: transformers alone rebuilds the model from its ``config.json``. ``rank`` of a
    factorised table of words, or None."""

    recipe: Recipe
    plain: bool
    layers: tuple[LayerSizes, ...]
    rank: int | None
    masks: dict[str, MaskFacts]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "recipe": self.recipe.to_json(),
            "plain": self.plain,
            "layers": [layer.to_json() for layer in self.layers],
            "rank": self.rank,
            "masks": {name: facts.to_json() for name, facts in sorted(self.masks.items())},
        }

    @classmethod
    def from_json(cls, value: object) -> CompressedManifest:
        """The inverse of `to_json`; raises `InputError` naming the field that is wrong."""
        names = ("format", "version", "recipe", "plain", "layers", "rank", "masks")
        found = fields.table(value, "The file", names)
        if found.get("format") != _FORMAT or found.get("version") != _VERSION:
            raise InputError(f"format and version must be {_FORMAT} and {_VERSION}.")
        masks = found.get("masks")
        if not isinstance(masks, dict):
            raise InputError("masks must be a table.")
        rank = found.get("rank")
        return cls(
            recipe=Recipe.from_json(found.get("recipe")),
            plain=fields.boolean(found.get("plain"), "plain"),
            layers=fields.items(found.get("layers"), "layers", LayerSizes.from_json),
            rank=None if rank is None else fields.integer(rank, "rank"),
            masks={
                str(name): MaskFacts.from_json(facts, f"masks[{name!r}]")
                for name, facts in masks.items()
            },
        )


def read_manifest(directory: Path) -> CompressedManifest | None:
    """The manifest of a compressed model; None where the directory has none.

    Raises `InputError` where it cannot be used.
    """
    place = directory / MANIFEST
    if not place.is_file():
        return None
    try:
        with place.open("rb") as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise InputError(f"it is larger than {_LARGEST >> 20} MiB")
        return CompressedManifest.from_json(json.loads(data.decode("utf-8")))
    except (OSError, ValueError, RecursionError, InputError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"{place} cannot be used: {reason}.") from error


def recipe_of(model: object) -> Recipe | None:
    """The recipe of a compressed model's directory; None for anything else that a model may be."""
    if not isinstance(model, (str, os.PathLike)) or os.fspath(model) == "minilm":
        return None
    found = read_manifest(Path(model))
    return None if found is None else found.recipe


def _is_factor(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 < value < 1e6
