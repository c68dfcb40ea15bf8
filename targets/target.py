"""What a target is: everything the compiler and the devices must know of a machine."""

from __future__ import annotations

import dataclasses
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import InputError

__all__ = ["PRECISIONS", "Target", "machine_arch"]

PRECISIONS = ("f32", "bf16", "f16", "int8", "int8-weights", "int4-weights")
"""Every precision a model can be compiled in; a target names those that work on it."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_ARCH_ALIASES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}


def machine_arch() -> str:
    """Return the architecture of this machine in LLVM's spelling (``x86_64``, ``aarch64``)."""
    machine = platform.machine().lower()
    return _ARCH_ALIASES.get(machine, machine)


@dataclass(frozen=True, kw_only=True)
class Target:
    """One kind of machine that canao compiles for.

    ``kind`` is ``"cpu"`` or ``"vulkan"``. A CPU target has ``triple`` (an LLVM triple; empty
    for this machine's), ``cpu`` (an LLVM CPU name, or empty) and ``features``: the LLVM feature
    names, without ``+``, that a machine must have to run what was compiled. A Vulkan target has
    ``gpu``, the value of ``--iree-vulkan-target``, and ``vulkan_device_patterns``: lower-case
    parts of the driver's device names on which its modules compute the right numbers.

    ``max_storage_buffer_bytes`` bounds one buffer, weights included (None: no bound);
    ``subgroup_size`` is the number of lanes the code was generated for; ``has_int64`` says
    whether 64-bit integers may appear in it; ``devices`` names the devices that may run it.

    Raises InputError when a field contradicts another or is not of its type.
    """

    name: str
    kind: Literal["cpu", "vulkan"]
    description: str
    triple: str = ""
    cpu: str = ""
    features: tuple[str, ...] = ()
    gpu: str = ""
    precisions: tuple[str, ...]
    max_storage_buffer_bytes: int | None = None
    subgroup_size: int | None = None
    has_int64: bool = True
    devices: tuple[str, ...] = ()
    vulkan_device_patterns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_type(self.name, field.name, field.type, getattr(self, field.name))
        self._require(_NAME.fullmatch(self.name) is not None, "name must be lower-case words")
        self._require(self.kind in ("cpu", "vulkan"), "kind must be 'cpu' or 'vulkan'")
        self._require(bool(self.precisions), "precisions must not be empty")
        for precision in self.precisions:
            self._require(
                precision in PRECISIONS, f"precision {precision!r} is not one of {PRECISIONS}"
            )
        for size in ("max_storage_buffer_bytes", "subgroup_size"):
            value = getattr(self, size)
            self._require(value is None or value > 0, f"{size} must be positive")
        for feature in self.features:
            self._require(
                bool(feature) and feature[0] not in "+-" and "," not in feature,
                f"feature {feature!r} must be a bare LLVM feature name",
            )
        for pattern in self.vulkan_device_patterns:
            self._require(
                bool(pattern) and pattern == pattern.lower(),
                f"device pattern {pattern!r} must be lower-case",
            )
        if self.kind == "vulkan":
            self._require(bool(self.gpu), "a vulkan target needs gpu")
            self._require(
                not (self.triple or self.cpu or self.features),
                "a vulkan target has no triple, cpu or features",
            )
        else:
            self._require(not self.gpu, "a cpu target has no gpu")

    def _require(self, condition: bool, rule: str) -> None:
        if not condition:
            raise InputError(f"target {self.name!r} is not valid: {rule}")

    @property
    def arch(self) -> str:
        """The CPU architecture in LLVM's spelling, e.g. ``"aarch64"``; empty for Vulkan."""
        if self.kind == "vulkan":
            return ""
        return self.triple.split("-")[0] if self.triple else machine_arch()

    def to_json(self) -> dict[str, Any]:
        """Return the target as JSON values; ``from_json`` gives back an equal target."""
        return {
            field.name: list(value) if isinstance(value, tuple) else value
            for field in dataclasses.fields(self)
            for value in [getattr(self, field.name)]
        }

    @classmethod
    def from_json(cls, value: object) -> Target:
        """Build a target from what ``to_json`` gave; raises InputError on anything else."""
        if not isinstance(value, Mapping):
            raise InputError(f"a target must be a JSON object, not {type(value).__name__}")
        fields = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(str(key) for key in value if key not in fields)
        if unknown:
            raise InputError(f"a target has no field {unknown[0]!r}")
        for name, field in fields.items():
            if field.default is dataclasses.MISSING and name not in value:
                raise InputError(f"a target needs the field {name!r}")
        # __post_init__ checks every type, so whatever JSON holds may be passed on.
        arguments: dict[str, Any] = {
            key: tuple(item) if isinstance(item, list) else item for key, item in value.items()
        }
        return cls(**arguments)


def _check_type(target: str, name: str, annotation: object, value: object) -> None:
    kind = str(annotation)
    if kind == "tuple[str, ...]":
        good = isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    elif kind == "int | None":
        good = value is None or (isinstance(value, int) and not isinstance(value, bool))
    elif kind == "bool":
        good = isinstance(value, bool)
    else:
        good = isinstance(value, str)
    if not good:
        raise InputError(f"target {target!r} is not valid: {name} must be {kind}, not {value!r}")
