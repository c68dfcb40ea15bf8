"""The manifest: what is in a bundle, and how it was made."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast

from ...errors import BundleError
from ...targets import PRECISIONS
from .fields import Fields, check_plain, dump_json, parse_json
from .names import MANIFEST_NAME, check_names, shown

__all__ = ["DTYPES", "SCHEMA", "Manifest", "ModuleEntry", "TensorSpec"]

SCHEMA = 1
"""The version of the manifest's layout that this canao writes, and the newest it reads."""

DTYPES = (
    "bool",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DECIMAL = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output: its name, NumPy dtype name and shape.

    A dimension is a positive number or a word: ``"batch"``, ``"seq"``. An output's axis
    ``"seq"`` is cut to the positions that the input really has. ``limit`` bounds an integer
    input that indexes a table: its values are at least 0 and below it.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    limit: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON values."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "limit": self.limit,
        }

    @classmethod
    def from_json(cls, value: object, where: str = "tensor") -> TensorSpec:
        """Build from JSON values; raises BundleError if they are not a spec."""
        taken = Fields(value, where)
        shape = taken.take(
            "shape",
            "a list of positive numbers and words",
            lambda item: isinstance(item, list) and all(map(_is_dimension, item)),
        )
        spec = cls(
            name=taken.text("name"),
            dtype=taken.text("dtype", choices=DTYPES),
            shape=tuple(shape),
            limit=taken.optional_integer("limit", minimum=1),
        )
        taken.done()
        return spec


def _is_pairs(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(word, str) for word in pair)
        for pair in value
    )


def _is_dimension(value: object) -> bool:
    if isinstance(value, str):
        return bool(value)
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


@dataclass(frozen=True, kw_only=True)
class ModuleEntry:
    """One compiled module: for one target and sequence length (tokens), at one batch size.

    ``file`` is its place in the bundle and ``function`` what to call in it. ``features`` are
    the LLVM feature names the CPU must have and ``arch`` its architecture (empty for Vulkan).
    ``calls`` lists the dispatches that one call executes, in order, each with the model's layer
    that it came from; ``dispatches`` is their number, where it is known. ``patterns`` tells how
    often each rewrite applied, and ``parameters`` names the
    tensors of ``weights.safetensors`` that it loads.
    """

    target: str
    seq_len: int
    batch: int
    file: str
    function: str = "main"
    kind: Literal["cpu", "vulkan"]
    features: tuple[str, ...] = ()
    arch: str
    dispatches: int | None = None
    patterns: dict[str, int] = field(default_factory=dict)
    calls: tuple[tuple[str, str], ...] = ()
    parameters: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON values."""
        return _shallow_json(self)

    @classmethod
    def from_json(cls, value: object, where: str = "module") -> ModuleEntry:
        """Build from JSON values; raises BundleError if they are not an entry."""
        taken = Fields(value, where)
        entry = cls(
            target=taken.text("target"),
            seq_len=taken.integer("seq_len", minimum=1),
            batch=taken.integer("batch", minimum=1),
            file=taken.text("file"),
            function=taken.text("function"),
            kind=cast("Literal['cpu', 'vulkan']", taken.text("kind", choices=("cpu", "vulkan"))),
            features=taken.texts("features"),
            arch=taken.text("arch"),
            dispatches=taken.optional_integer("dispatches", minimum=0),
            patterns=taken.count_map("patterns"),
            calls=tuple(
                (name, layer)
                for name, layer in taken.take("calls", "a list of pairs of words", _is_pairs)
            ),
            parameters=taken.texts("parameters"),
        )
        taken.done()
        return entry


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a bundle's ``manifest.json`` says.

    ``schema`` is the layout's version and ``canao`` that of the writer. ``model`` describes the
    model (name, family, head, configuration), ``precision`` and ``fusion`` how it was compiled,
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
        value = _shallow_json(self)
        for name in ("inputs", "outputs", "modules"):
            value[name] = [item.to_json() for item in getattr(self, name)]
        return value

    def to_bytes(self) -> bytes:
        """Return the canonical bytes of ``manifest.json``."""
        return dump_json(self.to_json())

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
        _check_consistent(manifest)
        return manifest


def _shallow_json(value: Any) -> dict[str, Any]:
    return {
        item.name: _listed(part) for item in fields(value) for part in [getattr(value, item.name)]
    }


def _listed(value: Any) -> Any:
    """Tuples as lists, one level of nesting included."""
    if not isinstance(value, tuple):
        return value
    return [list(part) if isinstance(part, tuple) else part for part in value]


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


def _check_consistent(manifest: Manifest) -> None:
    def need(name: object, user: str) -> None:
        if not isinstance(name, str) or name not in manifest.files:
            raise BundleError(
                f"{MANIFEST_NAME}: {user} needs the file {shown(str(name))}, which is not listed"
            )

    seen: set[tuple[str, int]] = set()
    for module in manifest.modules:
        key = (module.target, module.seq_len)
        user = f"the module for {shown(module.target)} at length {module.seq_len}"
        if key in seen:
            raise BundleError(f"{MANIFEST_NAME}: {user} is there twice")
        seen.add(key)
        need(module.file, user)
    for length, name in manifest.reference.items():
        if _DECIMAL.fullmatch(length) is None:
            raise BundleError(
                f"{MANIFEST_NAME}: reference has {shown(length)}, which is not a length"
            )
        need(name, f"the reference for length {length}")
    if manifest.tokenizer is not None:
        need(manifest.tokenizer.get("file"), "tokenizer")
    for kind, specs in (("input", manifest.inputs), ("output", manifest.outputs)):
        names = [spec.name for spec in specs]
        for name in names:
            if names.count(name) > 1:
                raise BundleError(f"{MANIFEST_NAME}: the {kind} {shown(name)} is there twice")
