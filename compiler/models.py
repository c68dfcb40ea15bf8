"""From what a user calls a model (a name, a directory, a config, a module) to a `SourceModel`.

A `SourceModel` is an eager PyTorch module in inference mode with the names, dtypes and shapes
of its inputs and outputs, and where its tokenizer lies. Everything after this file treats a
Hugging Face model and a plain ``nn.Module`` alike.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .checkpoint import HEADS, instantiate, locate, own_head, read_config
from .compression.manifest import read_manifest
from .compression.recipe import Recipe

if TYPE_CHECKING:
    import torch

__all__ = ["SourceModel", "from_module", "load_model"]


@dataclass(frozen=True, kw_only=True)
class SourceModel:
    """An eager model ready to be exported.

    ``input_names`` are keyword arguments of ``module.forward``. For a token model (``tokens``
    true) each is an int32 tensor of shape [batch, seq]; otherwise ``example_inputs`` gives one
    tensor per name and the shapes are fixed.
    """

    name: str
    module: torch.nn.Module
    family: str
    head: str
    tokens: bool
    input_names: tuple[str, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    example_inputs: tuple[torch.Tensor, ...] = ()
    directory: Path | None = None
    vocab_size: int | None = None
    pad_id: int = 0
    max_length: int | None = None
    has_trained_weights: bool = True
    limits: Mapping[str, int] = field(default_factory=dict)
    """Inputs that index a table, and the table's length."""
    recipe: Recipe | None = None
    """What a compressed model was made by."""

    def tokenizer_json(self) -> bytes | None:
        """The fast tokenizer's file, or None where the model directory has none."""
        path = self.directory / "tokenizer.json" if self.directory else None
        return path.read_bytes() if path and path.is_file() else None


def load_model(model: str | os.PathLike[str], *, head: str | None = None) -> SourceModel:
    """Load a Hugging Face model in float32 evaluation mode.

    ``model`` is a Hub id, a directory, a ``config.json`` alone (random weights from seed 0, for
    latency work) or ``minilm``; a directory may hold a model that canao compressed. ``head`` is
    a key of `HEADS`; None takes the checkpoint's own.
    Raises `InputError` where the name, the directory or the head is wrong, or a weight is NaN or
    infinite.
    """
    if head is not None and head not in HEADS:
        raise InputError(f"Unknown head {head!r}: choose one of {', '.join(HEADS)}.")
    name = os.fspath(model)
    location, directory = locate(name)
    config = read_config(location, name)
    chosen = head or own_head(config)
    compressed = read_manifest(Path(location))
    if compressed is None or compressed.plain:
        module, trained = instantiate(location, config, chosen, name)
    else:
        from .compression.loading import build_compressed

        module = build_compressed(Path(location), compressed, config, chosen, name)
        trained = True
    source = _describe(_short_name(name), module, config, chosen, directory, trained)
    return replace(source, recipe=compressed.recipe) if compressed else source


def from_module(
    module: torch.nn.Module,
    example_inputs: Sequence[torch.Tensor] | Mapping[str, torch.Tensor] | None,
    *,
    name: str | None = None,
) -> SourceModel:
    """Describe a live module: a Hugging Face one, or any ``nn.Module`` with example inputs.

    Raises `InputError` where the inputs do not fit the module, or a weight is NaN or
    infinite.
    """
    import torch

    label = name or type(module).__name__.lower()
    config = getattr(module, "config", None)
    if example_inputs is None:
        if config is None or not hasattr(config, "model_type"):
            raise InputError(
                f"{type(module).__name__} is not a Hugging Face model: pass example_inputs, "
                "one tensor per argument of its forward."
            )
        head = own_head(config, module)
        return _describe(label, _in_float32(module), config, head, None, True)
    if isinstance(example_inputs, Mapping):
        names, tensors = tuple(example_inputs), tuple(example_inputs.values())
    else:
        tensors = tuple(example_inputs)
        names = tuple(_forward_parameters(module)[: len(tensors)])
    if len(names) != len(tensors) or not tensors:
        raise InputError(
            f"{type(module).__name__}.forward takes {len(names)} named arguments, but "
            f"{len(tensors)} example inputs were given: pass one tensor per argument."
        )
    for arg, tensor in zip(names, tensors, strict=True):
        if not isinstance(tensor, torch.Tensor):
            raise InputError(f"Example input {arg!r} is a {type(tensor).__name__}, not a tensor.")
    return SourceModel(
        name=label,
        module=_finite(_in_float32(module)),
        family=type(module).__name__,
        head="module",
        tokens=False,
        input_names=names,
        example_inputs=tensors,
    )


def _in_float32(module: torch.nn.Module) -> torch.nn.Module:
    """The module in evaluation mode and float32; the caller's own is left as it was."""
    import copy

    import torch

    tensors = [*module.parameters(), *module.buffers()]
    exact = all(t.dtype == torch.float32 for t in tensors if t.is_floating_point())
    if exact and not any(part.training for part in module.modules()):
        return module
    return copy.deepcopy(module).float().eval()


def _finite(module: torch.nn.Module) -> torch.nn.Module:
    """``module``; `InputError` where a parameter of it holds NaN or infinity, which may show in
    no output that is looked at: in the row of a word, say."""
    import torch

    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter).all()):
            raise InputError(
                f"Parameter {name!r} holds NaN or infinity: check the model's weights."
            )
    return module


def _describe(
    name: str, module: Any, config: Any, head: str, directory: Path | None, trained: bool
) -> SourceModel:
    accepted = _forward_parameters(module)
    names = ["input_ids", "attention_mask"]
    if "token_type_ids" in accepted and (getattr(config, "type_vocab_size", 0) or 0) > 1:
        names.append("token_type_ids")
    missing = [n for n in names if n not in accepted]
    if missing:
        raise InputError(
            f"{type(module).__name__} takes no {missing[0]}: canao compiles text encoders and "
            "causal language models; pass example_inputs for any other module."
        )
    pad = getattr(config, "pad_token_id", None)
    return SourceModel(
        name=name,
        module=_finite(module.eval()),
        family=config.model_type,
        head=head,
        tokens=True,
        input_names=tuple(names),
        config=_config_facts(config),
        directory=directory,
        vocab_size=config.vocab_size,
        pad_id=pad if isinstance(pad, int) and 0 <= pad < config.vocab_size else 0,
        max_length=_max_length(config),
        has_trained_weights=trained,
        limits={
            "input_ids": config.vocab_size,
            "token_type_ids": getattr(config, "type_vocab_size", 0) or 1,
        },
    )


def _config_facts(config: Any) -> dict[str, Any]:
    """The configuration without what changes from one save to the next."""
    facts = json.loads(config.to_json_string(use_diff=False))
    noise = ("_name_or_path", "transformers_version", "_attn_implementation_autoset")
    return {key: value for key, value in sorted(facts.items()) if key not in noise}


def _max_length(config: Any) -> int | None:
    """Longest sequence that the position table allows; None where nothing limits it."""
    if config.model_type in ("t5", "mt5", "umt5"):
        return None  # relative positions only
    positions: Any = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return None
    # These families count positions from pad_token_id + 1, so the table is longer than the text.
    if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        return positions - int(config.pad_token_id) - 1
    return positions


def _forward_parameters(module: Any) -> list[str]:
    import inspect

    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(module.forward).parameters.values()
    return [p.name for p in parameters if p.kind in kinds]


def _short_name(name: str) -> str:
    path = Path(name)
    if path.suffix == ".json":
        return path.stem if path.stem != "config" else path.resolve().parent.name
    return path.name if path.is_dir() else name
