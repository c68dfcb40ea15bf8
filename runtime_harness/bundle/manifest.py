"""The manifest: what is in a bundle, and how it was made."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ...errors import BundleError, InputError
from ...targets import PRECISIONS
from ...targets import get as get_target
from .consistency import check_consistent
from .fields import Fields, check_plain, dump_json, parse_json
from .module_entry import ModuleEntry
from .names import MANIFEST_NAME, check_names, shown
from .records import shallow_json
from .tensor_spec import TensorSpec

__all__ = ["SCHEMA", "Manifest"]

SCHEMA = 1
"""The version of the manifest's layout that this canao writes, and the newest it reads."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a bundle's ``manifest.json`` says.

    ``schema`` is the layout's version and ``canao`` that of the writer. ``model`` describes the
    model (name, family, head, configuration, and its ``architecture`` in the search's words, if it
    has one), ``precision`` and ``fusion`` how it was compiled,
    ``recipe`` how it was compressed, and ``versions`` with what. A module takes ``inputs`` in
    this order and returns ``outputs`` in this order. ``tokenizer`` tells of ``tokenizer.json``.
    ``tolerance`` is ``{"max_abs_rel": x}`` (largest absolute error over the largest absolute
    reference value) or ``{"cosine": x}`` (smallest cosine). ``vocab_size`` bounds token ids.
    ``reference`` maps a sequence length, in digits, to its file of inputs and outputs.
    ``files`` gives ``sha256`` and ``bytes`` of every file but the manifest.
    """

    schema: int = SCHEMA
    canao: str
    model: dict[str, Any]
    precision: str
    fusion: str
    recipe: dict[str, Any] | None = None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    modules: tuple[ModuleEntry, ...]
    tokenizer: dict[str, Any] | None = None
    tolerance: dict[str, float]
    vocab_size: int | None = None
    reference: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as JSON values; ``from_json`` gives back an equal manifest."""
        value = shallow_json(self)
        for name in ("inputs", "outputs", "modules"):
            value[name] = [item.to_json() for item in getattr(self, name)]
        return value

    def to_bytes(self) -> bytes:
        """Return the canonical bytes of ``manifest.json``."""
        return dump_json(self.to_json())

    def architecture(self, target: str, seq_len: int) -> dict[str, Any] | None:
        """What the model is on a target at a length, as JSON values of the search's
        `Architecture`; None where the writer could not say it, as older ones never did."""
        found = self.model.get("architecture")
        if not isinstance(found, dict):
            return None
        told = {**found, "seq_len": seq_len}
        # What is kept wider is in bf16, or, without instructions for it, in f32.
        return told if _has_bf16(target) else _without_bf16(told)

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Manifest:
        """Read the bytes of a ``manifest.json``; raises BundleError whatever is wrong."""
        return cls.from_json(parse_json(data, MANIFEST_NAME))

    @classmethod
    def from_json(cls, value: object) -> Manifest:
        """Build from JSON values; raises BundleError if they are not a consistent manifest."""
        check_plain(value, MANIFEST_NAME)
        taken = Fields(value, MANIFEST_NAME)
        schema = taken.integer("schema", minimum=1)
        if schema > SCHEMA:
            raise BundleError(
                f"it has schema {schema}, and this canao reads none newer than {SCHEMA}: "
                "update canao"
            )
        manifest = cls(
            schema=schema,
            canao=taken.text("canao"),
            model=taken.mapping("model"),
            precision=taken.text("precision", choices=PRECISIONS),
            fusion=taken.text("fusion"),
            recipe=taken.optional_mapping("recipe"),
            inputs=taken.items("inputs", TensorSpec.from_json),
            outputs=taken.items("outputs", TensorSpec.from_json),
            modules=taken.items("modules", ModuleEntry.from_json),
            tokenizer=taken.optional_mapping("tokenizer"),
            tolerance=_tolerance(taken),
            vocab_size=taken.optional_integer("vocab_size", minimum=1),
            reference=taken.text_map("reference"),
            versions=taken.text_map("versions"),
            files=_files(taken),
        )
        taken.done()
        check_consistent(manifest)
        return manifest


def _has_bf16(target: str) -> bool:
    try:
        return "bf16" in get_target(target).precisions
    except InputError:  # of a package that is not here
        return True


def _without_bf16(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_bf16(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_bf16(item) for item in value]
    return "f32" if value == "bf16" else value


def _tolerance(taken: Fields) -> dict[str, float]:
    def good(value: object) -> bool:
        return (
            isinstance(value, dict)
            and len(value) == 1
            and value.keys() <= {"max_abs_rel", "cosine"}
            and all(
                isinstance(item, (int, float)) and not isinstance(item, bool) and item >= 0
                for item in value.values()
            )
        )

    value: dict[str, float] = taken.take(
        "tolerance", 'either {"max_abs_rel": number} or {"cosine": number}', good
    )
    return dict(value)


def _files(taken: Fields) -> dict[str, dict[str, Any]]:
    files: dict[str, dict[str, Any]] = {}
    for name, value in taken.mapping("files").items():
        entry = Fields(value, f"{taken.where}: files[{shown(name)}]")
        digest = entry.take(
            "sha256",
            "64 hexadecimal digits",
            lambda item: isinstance(item, str) and _SHA256.fullmatch(item) is not None,
        )
        files[name] = {"sha256": digest, "bytes": entry.integer("bytes", minimum=0)}
        entry.done()
    # With the manifest among them, so that none of them can take its place.
    check_names([MANIFEST_NAME, *files])
    return files
