"""One compiled module of a bundle, as the manifest describes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, cast

from .fields import Fields
from .records import shallow_json

__all__ = ["ModuleEntry"]


@dataclass(frozen=True, kw_only=True)
class ModuleEntry:
    """One compiled module: for one target and sequence length (tokens), at one batch size.

    ``file`` is its place in the bundle and ``function`` what to call in it. ``features`` are
    the LLVM feature names the CPU must have and ``arch`` its architecture (empty for Vulkan,
    where ``features`` are Vulkan's names of what the driver must have).
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
        return shallow_json(self)

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


def _is_pairs(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(word, str) for word in pair)
        for pair in value
    )
