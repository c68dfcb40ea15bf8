"""Where the time goes: each dispatch of a model, told by the layer that it came from."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .reference import example_inputs
from .selection import choose_target, open_bundle

if TYPE_CHECKING:
    from .bundle import Bundle
    from .device import Device, DispatchTime

__all__ = ["Profile", "ProfileRow", "kind_of", "profile", "tabulate"]

# The first that is found in a dispatch's name; IREE and our kernels name them by what they do.
_KINDS = (
    ("attention", ("attention", "sdpa")),
    ("softmax", ("softmax",)),
    ("layer_norm", ("layer_norm", "layernorm", "rms_norm", "rmsnorm")),
    ("matmul", ("matmul", "mmt4d", "matvec", "vecmat", "gemm", "contract", "inner_tiled")),
    ("conv", ("conv_", "conv1d", "conv2d", "convolution")),
    ("quantize", ("quantize", "quantise", "quant")),
    ("pack", ("unpack", "pack", "encode", "encoding", "im2col")),
    ("gather", ("gather", "embedding", "lookup")),
    ("scatter", ("scatter",)),
    ("reduction", ("reduction", "reduce")),
    ("transpose", ("transpose",)),
    ("copy", ("slow_memcpy", "memcpy", "copy", "slice", "fill", "memset")),
    ("elementwise", ("elementwise", "broadcast", "gelu", "generic")),
)


@dataclass(frozen=True, kw_only=True)
class ProfileRow:
    """One dispatch function, per inference: its ``calls``, its ``ms`` in all, its ``share``.

    ``share`` is the fraction, from 0 to 1, of the time of all dispatches. ``layer`` is the
    model's layer (empty if not known) and ``kind`` what is computed.
    """

    name: str
    layer: str
    kind: str
    calls: int
    ms: float
    share: float

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {
            "name": self.name,
            "layer": self.layer,
            "kind": self.kind,
            "calls": self.calls,
            "ms": self.ms,
            "share": self.share,
        }


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The dispatches of one module on one device, the slowest first; iterates over its rows.

    ``ms`` is the time from a dispatch's start to its end. ``emulated`` times are not those of
    real hardware, not even their shares.
    """

    device: str
    target: str
    seq_len: int
    threads: int
    emulated: bool
    rows: tuple[ProfileRow, ...]

    def __iter__(self) -> Iterator[ProfileRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def to_json(self) -> dict[str, Any]:
        """Return the profile as JSON values."""
        return {
            "device": self.device,
            "target": self.target,
            "seq_len": self.seq_len,
            "threads": self.threads,
            "emulated": self.emulated,
            "rows": [row.to_json() for row in self.rows],
        }


def profile(
    bundle: Bundle | str | os.PathLike[str],
    device: str | Device = "local",
    *,
    target: str | None = None,
    seq_len: int | None = None,
    threads: int = 1,
    timeout: float | None = None,
) -> Profile:
    """Time each dispatch of a model on a device, in a process that may take ``timeout`` seconds.

    Raises UnsupportedError where IREE cannot tell dispatches apart (a GPU without time stamps),
    and otherwise as ``bench`` does.
    """
    from .devices import get

    found = open_bundle(bundle)
    place = get(device) if isinstance(device, str) else device
    chosen = choose_target(found, place, target)
    module = found.module(chosen, seq_len)
    times = place.profile(
        found, module, example_inputs(found, module), threads=threads, timeout=timeout
    )
    return Profile(
        device=place.name,
        target=chosen,
        seq_len=module.seq_len,
        threads=threads,
        emulated=place.info().emulated,
        rows=tabulate(times, module.calls),
    )


def tabulate(
    times: Sequence[DispatchTime], calls: Sequence[tuple[str, str]]
) -> tuple[ProfileRow, ...]:
    """Return a row for each dispatch function and layer, the slowest first.

    ``calls`` lists (dispatch, layer) in the order of execution. The n-th call of a function in
    ``times`` is matched with its n-th in ``calls``, where both have as many; else the layer is
    told only if the function has but one.
    """
    expected: dict[str, list[str]] = {}
    for name, layer in calls:
        expected.setdefault(name, []).append(layer)
    counted = Counter[str]()
    for item in times:
        counted[item.name] += item.calls
    totals: dict[tuple[str, str], list[float]] = {}
    position = Counter[str]()
    for item in times:
        layers = expected.get(item.name, [])
        if len(layers) != counted[item.name]:
            only = layers[0] if len(set(layers)) == 1 else ""
            layers = [only] * counted[item.name]
        start = position[item.name]
        position[item.name] += item.calls
        for layer in layers[start : start + item.calls]:
            totals.setdefault((item.name, layer), []).append(item.ms / item.calls)
    whole = sum(sum(each) for each in totals.values())
    rows = [
        ProfileRow(
            name=name,
            layer=layer,
            kind=kind_of(name),
            calls=len(each),
            ms=sum(each),
            share=sum(each) / whole if whole else 0.0,
        )
        for (name, layer), each in totals.items()
    ]
    return tuple(sorted(rows, key=lambda row: row.ms, reverse=True))


def kind_of(name: str) -> str:
    """Return what a dispatch computes, judged by its name; ``"other"`` if that does not tell."""
    lower = name.lower()
    for kind, words in _KINDS:
        if any(word in lower for word in words):
            return kind
    return "other"
