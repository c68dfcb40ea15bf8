"""Writing a compressed model: an ordinary directory of transformers, and what that cannot say.

``config.json``, ``model.safetensors`` and the tokenizer are as transformers writes them;
``canao.json`` holds the recipe and the sizes of each layer, ``masks.safetensors`` which blocks
of a matrix are kept ([panels of outputs, groups of inputs], bool), and ``packed.safetensors``
those blocks ([kept, outputs of a block, inputs of a block], in the masks' order).

transformers reads the directory wherever its configuration can say what the model is; for its
sake ``model.safetensors`` has such matrices whole then, zeros included, and is what counts. Where
only canao reads it, they are in the packed file alone, apart from those whose shapes have
transformers refuse the directory: what is missing it would draw at random.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError
from ...runtime_harness.bundle.atomic import os_errors, staged, swap_in, sync_directory
from .blocks import block_sums, packed
from .low_rank import LowRankEmbedding, word_table
from .manifest import MANIFEST, CompressedManifest, LayerSizes, MaskFacts
from .matching import matrices, rule_for
from .recipe import Recipe
from .structure import structure_of

__all__ = ["MASKS", "PACKED", "save_compressed"]

MASKS = "masks.safetensors"
PACKED = "packed.safetensors"


def save_compressed(
    model: Any,
    tokenizer: Any,
    directory: str | os.PathLike[str],
    recipe: Recipe,
    masks: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Write ``model`` and its tokenizer (or None) to ``directory``, whole or not at all.

    ``masks`` are those of `BlockSparsifier.masks`; None takes the blocks of zeros that the
    weights have where the recipe has a rule. A model that canao wrote there before is replaced.

    Raises `InputError` where the directory holds anything else, where a mask is of no matrix, or
    where a weight is not zero where its mask says so.
    """
    from safetensors.torch import save_file

    place = Path(directory)
    if place.exists() and not (place / MANIFEST).is_file() and _occupied(place):
        raise InputError(f"{place} is there and is no compressed model: name another directory.")
    blocks = _block_masks(model, recipe, masks)
    plain, weights = _is_plain(model), matrices(model)
    manifest = CompressedManifest(
        recipe=recipe,
        plain=plain,
        layers=_layer_sizes(model),
        rank=_rank(model),
        masks={
            name: MaskFacts(
                block=block,
                blocks=alive.numel(),
                kept=int(alive.sum()),
                shape=(weights[name].shape[0], weights[name].shape[1]),
            )
            for name, (alive, block) in blocks.items()
        },
    )
    with os_errors(f"writing {place}"):
        place.parent.mkdir(parents=True, exist_ok=True)
        with staged(place) as temporary:
            temporary.mkdir()
            _write_config(model, temporary)
            whole = _tensors(model)
            if not plain:
                alone = blocks.keys() - _misfits(model)
                whole = {name: tensor for name, tensor in whole.items() if name not in alone}
            save_file(whole, temporary / "model.safetensors", {"format": "pt"})
            if blocks:
                masks_ = {name: alive.contiguous().cpu() for name, (alive, _) in blocks.items()}
                save_file(masks_, temporary / MASKS)
                kept = {
                    name: packed(weights[name].detach(), alive, block).cpu()
                    for name, (alive, block) in blocks.items()
                }
                save_file(kept, temporary / PACKED)
            if tokenizer is not None:
                tokenizer.save_pretrained(temporary)
            text = json.dumps(manifest.to_json(), indent=1) + "\n"
            (temporary / MANIFEST).write_text(text, encoding="utf-8")
            swap_in(temporary, place)
            sync_directory(place.parent)
    return place


def _occupied(place: Path) -> bool:
    return not place.is_dir() or any(place.iterdir())


def _write_config(model: Any, directory: Path) -> None:
    config = model.config
    before = config.architectures
    config.architectures = [type(model).__name__]
    try:
        config.save_pretrained(directory)
    finally:
        config.architectures = before
    if model.can_generate() and model.generation_config is not None:
        model.generation_config.save_pretrained(directory)


def _tensors(model: Any) -> dict[str, torch.Tensor]:
    """Parameters and saved buffers, each under its first name alone."""
    kept = {name for name, _ in model.named_parameters()}
    shared = {name for name, _ in model.named_parameters(remove_duplicate=False)} - kept
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if name not in shared
    }


def _misfits(model: Any) -> set[str]:
    """The tensors whose shapes are not those that the configuration says."""
    try:
        with torch.device("meta"):
            bare = type(model)(copy.deepcopy(model.config))
    except Exception:  # of many kinds; transformers refuses the configuration itself
        return set()
    said = {name: tensor.shape for name, tensor in bare.state_dict().items()}
    found = model.state_dict().items()
    return {name for name, tensor in found if said.get(name, tensor.shape) != tensor.shape}


def _is_plain(model: Any) -> bool:
    """Whether the configuration alone gives the same names, shapes and heads."""
    if _rank(model) is not None:
        return False
    try:
        with torch.device("meta"):
            bare = type(model)(model.config)
    except ValueError:  # heads that do not divide the width
        return False
    own, found = (
        {name: tuple(tensor.shape) for name, tensor in one.state_dict().items()}
        for one in (model, bare)
    )
    without_pooler = {name for name in found if ".pooler." not in f".{name}"}
    sizes = [(layer.head_size, layer.heads) for layer in structure_of(model).layers]
    return (
        all(own.get(name) == shape for name, shape in found.items() if name in without_pooler)
        and set(own) <= set(found)
        and sizes == [(layer.head_size, layer.heads) for layer in structure_of(bare).layers]
    )


def _layer_sizes(model: Any) -> tuple[LayerSizes, ...]:
    return tuple(
        LayerSizes(
            heads=layer.heads,
            head_size=layer.head_size,
            ffn=layer.ffn,
            scaling=getattr(layer.attention, "scaling", None),
        )
        for layer in structure_of(model).layers
    )


def _rank(model: Any) -> int | None:
    _, _, table = word_table(model)
    return table.table.embedding_dim if isinstance(table, LowRankEmbedding) else None


def _block_masks(
    model: Any, recipe: Recipe, masks: Mapping[str, torch.Tensor] | None
) -> dict[str, tuple[torch.Tensor, tuple[int, int]]]:
    """By name, which blocks are kept, and their shape."""
    weights = matrices(model)
    found = {}
    for name in masks or ():
        if name not in weights or rule_for(recipe.sparsity, name, model) is None:
            raise InputError(f"There is a mask for {name!r}, but no matrix or no rule for it.")
    for name, weight in weights.items():
        rule = rule_for(recipe.sparsity, name, model)
        if rule is None or (masks is not None and name not in masks):
            continue
        filled = weight.detach() != 0
        alive = filled if masks is None else masks[name].to(filled.device, torch.bool)
        if alive.shape != filled.shape or bool((filled & ~alive).any()):
            raise InputError(
                f"The weight {name!r} is not zero where its mask says so: apply the masks "
                "before saving."
            )
        found[name] = (block_sums(alive.float(), rule.block) > 0, rule.block)
    return found
