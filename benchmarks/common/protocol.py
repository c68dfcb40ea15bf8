"""What a contestant must provide, and the model it is given. Standard library only."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

__all__ = ["Array", "Environment", "ModelSpec", "Peer", "Precision", "Runner", "artifact_path"]

Precision = Literal["f32", "bf16", "f16", "int8"]
Array = Any  # numpy.ndarray; NumPy itself is not imported by the driver's listing of peers
Environment = Literal["main", "peers"]


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A BERT with a head, as a Hugging Face directory."""

    name: str
    title: str
    directory: Path  # config.json and model.safetensors, f32
    fingerprint: str  # changes whenever the weights or the configuration do
    random_weights: bool
    head: Literal["question-answering", "sequence-classification"] = "question-answering"


class Runner(Protocol):
    """A loaded model: one call is one inference, timed as a whole.

    ``info`` goes into the results as it is (which of several settings was taken, say).
    """

    info: dict[str, Any]

    def __call__(self, input_ids: Array, attention_mask: Array) -> tuple[Array, ...]:
        """Return the head's logits, f32, from two int32 arrays of shape (1, seq_len).

        The arrays come from and go to ordinary memory: copying the inputs in and reading
        the outputs back belongs to the call.
        """


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One contestant at one precision.

    ``build`` makes whatever can be kept (a converted or compiled model) and returns its
    path; it runs in a process of its own before anything is timed, on all cores.
    ``prepare`` loads that path in the process that is timed, already pinned to as many
    cores as it may use threads.
    """

    name: str
    title: str
    precision: Precision
    environment: Environment
    packages: tuple[str, ...]  # distributions whose versions are recorded
    build: Callable[[ModelSpec, int, Path], Path]  # (model, seq_len, cache directory)
    prepare: Callable[[Path, ModelSpec, int, int], Runner]  # (path, model, seq_len, threads)
    ours: bool = False
    # Whether it can take part at all; one that cannot is left out of the default selection.
    # Called in the main environment only.
    offered: Callable[[], bool] = lambda: True
    hint: str = ""  # what to do when its environment is missing


def artifact_path(
    cache: Path, model: ModelSpec, seq_len: int, kind: str, packages: tuple[str, ...], extra: str
) -> Path:
    """Where to keep what was built; the name covers everything that the content depends on.

    ``extra`` is any further dependence, a hash of the sources or the flags for example.
    """
    versions = [f"{name}={importlib.metadata.version(name)}" for name in packages]
    key = hashlib.sha256("\n".join([model.fingerprint, *versions, extra]).encode()).hexdigest()
    return cache / kind / f"{model.name}-{seq_len}-{key[:16]}"
