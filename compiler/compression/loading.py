"""Reading a compressed model back, also one that a configuration of transformers cannot say."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from ...errors import CanaoError, InputError
from ..checkpoint import HEADS, own_head, quiet_transformers, read_config
from .blocks import expanded, unpacked
from .cutting import replace_parameters
from .low_rank import LowRankEmbedding, word_table
from .manifest import CompressedManifest, read_manifest
from .matching import matrices
from .position_bias import HEADS_BUFFER, pick_biases
from .saving import MASKS, PACKED
from .structure import structure_of

__all__ = ["build_compressed", "load_compressed", "load_masks"]


def load_compressed(directory: str | Path, *, head: str | None = None) -> Any:
    """The model that `save_compressed` wrote, float32, in evaluation mode.

    ``head`` is a key of `HEADS`; None takes the model's own. Raises `InputError` where the
    directory has no ``canao.json``, or where its files are damaged or disagree.
    """
    place = Path(directory)
    manifest = read_manifest(place)
    if manifest is None:
        raise InputError(f"{place} has no canao.json: it is no compressed model.")
    config = read_config(str(place), str(place))
    return build_compressed(place, manifest, config, head or own_head(config), str(place)).eval()


def build_compressed(
    directory: Path, manifest: CompressedManifest, config: Any, head: str, name: str
) -> Any:
    """The module with the sizes of ``manifest`` and the weights in ``directory``.

    Raises `InputError` where files are damaged or disagree, or where ``head`` has no weights.
    """
    from safetensors.torch import load_file

    try:
        tensors = load_file(directory / "model.safetensors")
        tensors |= _unpacked(directory, manifest, tensors)
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = _bare(config, head, tensors)
        return _filled(model, manifest, tensors, head, name)
    except CanaoError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise InputError(f"{name} cannot be loaded as {head}: {reason}.") from error


def load_masks(directory: str | Path) -> dict[str, torch.Tensor]:
    """By name of a weight [outputs, inputs], which of its elements are kept; bool, its shape.

    Empty where the model has no blocks of zeros. Raises `InputError` for damaged files.
    """
    from safetensors.torch import load_file

    place = Path(directory)
    manifest = read_manifest(place)
    if manifest is None or not manifest.masks:
        return {}
    weights = matrices(load_compressed(place))
    try:
        blocks = load_file(place / MASKS)
        return {
            name: expanded(
                blocks[name].bool(), facts.block, (weights[name].shape[0], weights[name].shape[1])
            )
            for name, facts in manifest.masks.items()
        }
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"The masks of {place} cannot be read: {error}.") from error


def _unpacked(
    directory: Path, manifest: CompressedManifest, tensors: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The matrices with blocks of zeros that are packed alone."""
    from safetensors.torch import load_file

    wanted = {n: f for n, f in manifest.masks.items() if n not in tensors and f.shape is not None}
    if not wanted:
        return {}
    masks, blocks = load_file(directory / MASKS), load_file(directory / PACKED)
    return {
        name: unpacked(blocks[name], masks[name].bool(), facts.block, facts.shape)
        for name, facts in wanted.items()
        if facts.shape is not None
    }


def _bare(config: Any, head: str, tensors: dict[str, torch.Tensor]) -> Any:
    """The module that transformers makes, with heads that divide any width."""
    import transformers

    bare = copy.deepcopy(config)
    if getattr(bare, "num_key_value_heads", None) is None:
        bare.num_attention_heads = 1
    auto = getattr(transformers, HEADS[head][0])
    poolers = any("pooler." in name for name in tensors)
    options = {"add_pooling_layer": False} if head == "base" and not poolers else {}
    try:
        model = auto.from_config(bare, **options)
    except TypeError:  # families that never have a pooler
        model = auto.from_config(bare)
    model.config.num_attention_heads = config.num_attention_heads
    return model.float()


def _filled(
    model: Any,
    manifest: CompressedManifest,
    tensors: dict[str, torch.Tensor],
    head: str,
    name: str,
) -> Any:
    tensors = _named_for(model, tensors)
    if manifest.rank is not None:
        parent, place, table = word_table(model)
        setattr(
            parent, place, LowRankEmbedding(table.num_embeddings, manifest.rank, _width(table))
        )
    structure = structure_of(model)
    if len(manifest.layers) != len(structure.layers):
        raise InputError(
            f"{name}: canao.json has {len(manifest.layers)} layers, config.json "
            f"{len(structure.layers)}: the directory is damaged."
        )
    for layer, sizes in zip(structure.layers, manifest.layers, strict=True):
        setattr(layer.attention, layer.family.head_size, sizes.head_size)
        if sizes.scaling is not None:
            layer.attention.scaling = sizes.scaling
    missing = sorted(n for n, _ in model.named_parameters() if n not in tensors)
    if missing:
        raise InputError(
            f"{name} has no trained weights for the head {head!r} ({missing[0]} is missing): "
            "choose the head it was trained with."
        )
    found = {id(parameter): tensors[n] for n, parameter in model.named_parameters()}
    replace_parameters(model, lambda parameter: found[id(parameter)].float())
    modules = {id(module): path for path, module in model.named_modules()}
    for layer, sizes in zip(structure.layers, manifest.layers, strict=True):
        picked = tensors.get(f"{modules[id(layer.attention)]}.{HEADS_BUFFER}")
        if picked is not None:
            pick_biases(layer.attention, picked)
        if (layer.heads, layer.ffn) != (sizes.heads, sizes.ffn):
            raise InputError(f"{name}: canao.json and model.safetensors disagree on a layer.")
        layer.note_heads()
    return model


def _named_for(model: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under the names that ``model`` has, with the base model's prefix or without."""
    prefix = f"{model.base_model_prefix}."
    if any(name.startswith(prefix) for name, _ in model.named_parameters()):
        return tensors
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _width(table: Any) -> int:
    return int(table.embedding_dim)
