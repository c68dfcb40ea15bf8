"""What a call of ``canao.optimize`` asks for, read and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...compiler.checkpoint import locate, read_config
from ...errors import InputError, MissingDeviceError
from ...runtime_harness.devices import get
from ...targets import Target
from ...targets import get as get_target
from ..space.space import ArchitectureSpace
from ..tasks import Task
from ..training.keys import digest_of_model
from .specification import Specification
from .units import parse_latency, parse_loss, parse_memory

__all__ = ["digest_of_file", "digest_of_source", "read_limits", "read_space", "read_target"]


def read_limits(
    latency: str | float | None, memory: str | int | None, max_loss: str | float | None
) -> Specification:
    """The limits, texts read by their unit; `InputError`, naming the limit, for a wrong one."""
    return Specification(
        latency_ms=parse_latency(latency) if isinstance(latency, str) else latency,
        memory_bytes=parse_memory(memory) if isinstance(memory, str) else memory,
        max_loss=parse_loss(max_loss) if isinstance(max_loss, str) else max_loss,
    )


def read_target(
    devices: Sequence[str], target: str | None, storage: str | None
) -> tuple[str, str | None]:
    """The target to compile for, and why no device is here, if none is: who names the target and a
    storage that machines share leaves measuring to others.

    Raises `MissingDeviceError` where a device is not here otherwise.
    """
    found = target
    infos = {name: get(name).info() for name in devices}
    absent = [
        f"The device {name} is not here: {info.missing.rstrip('.')}. {info.remedy}".strip()
        for name, info in infos.items()
        if not info.available
    ]
    if absent and target is not None and storage is not None and len(absent) == len(infos):
        return get_target(target).name, absent[0]
    if absent:
        raise MissingDeviceError(absent[0])
    for name, info in infos.items():
        found = found or next(iter(info.targets), None)
        if found is None or found not in info.targets:
            listed = ", ".join(info.targets)
            raise InputError(f"The device {name} does not run {found}: it runs {listed}.")
    assert found is not None
    return get_target(found).name, None


def read_space(space: Any, model: str, task: Task, target: Target) -> ArchitectureSpace:
    """A space, a value or a file; None: what of ``model``'s sub-networks ``target`` runs."""
    if isinstance(space, ArchitectureSpace):
        return space
    if space is not None:
        return ArchitectureSpace.load(space)
    location, _ = locate(model)
    config = read_config(location, model)
    return ArchitectureSpace.of_teacher(
        config, precisions=target.precisions, head=task.head, labels=task.num_labels or 2
    )


def digest_of_source(model: str) -> str:
    """Of a model's weights and tokenizer; `InputError` where it has no directory with them."""
    _, directory = locate(model)
    if directory is None:
        raise InputError(f"{model} has no directory with weights and a tokenizer: give one.")
    return digest_of_model(directory)


def digest_of_file(path: Path) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
