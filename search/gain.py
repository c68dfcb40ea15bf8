"""What compression gains where the model runs: measured beside what the FLOPs promise."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..compiler.api import CompileReport, compile_model
from ..errors import CanaoError, InputError, MissingDeviceError
from ..runtime_harness.comparison import compare
from ..runtime_harness.profile import ProfileRow, profile
from ..targets import get
from .compress_result import CompressionResult

__all__ = ["KEPT", "TargetGain", "explain", "measure_gains"]

KEPT = 0.8
"""The share of the promised gain below which a report warns."""

_PRODUCTS = ("matmul", "attention")
_OWN_PRODUCTS = ("product_", "sparse_", "weights8_", "weights4_")


@dataclass(frozen=True, kw_only=True)
class TargetGain:
    """Latency of one text on a target, and how many times faster compression made it.

    Times are medians in milliseconds. ``gain`` is the teacher's time over the compressed model's,
    with its 95 % interval, both compiled in ``precision`` and measured in the same rounds;
    ``promised`` is the ratio of their FLOPs. ``ms`` is by model: teacher, dense, compressed.
    ``reason`` says why less than 80 % of the promise was kept, else it is empty.
    """

    target: str
    device: str
    precision: str
    threads: int
    seq_len: int
    emulated: bool
    ms: Mapping[str, float]
    gain: float
    interval: tuple[float, float]
    stable: bool
    promised: float
    reason: str

    @property
    def kept(self) -> float:
        """The measured gain over the promised one."""
        return self.gain / self.promised

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "ms": dict(self.ms), "interval": list(self.interval)}


def measure_gains(
    result: CompressionResult,
    targets: Sequence[str],
    *,
    threads: int = 1,
    seq_len: int | None = None,
    rounds: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[TargetGain, ...]:
    """Compile teacher and students for each target and measure them in turns, on a device here.

    Both are compiled in the precision that is the recipe's default (f32 if there is none), and
    take turns for ``rounds`` rounds (None: as ``compare`` has it). Raises
    `InputError` where a target is unknown, `MissingDeviceError` where no device here runs one.
    """
    tell = progress or (lambda _: None)
    for target in targets:
        get(target)
    precision = str(result.recipe.get("default_precision") or "f32")
    length = seq_len or result.seq_len
    directories = {"teacher": result.teacher, "compressed": result.output}
    if result.dense_output is not None:
        directories["dense"] = result.dense_output
    found = []
    for target in targets:
        with tempfile.TemporaryDirectory(prefix="canao-report-") as scratch:
            reports = {}
            for who, directory in directories.items():
                tell(f"compiling the {who} model for {target}")
                reports[who] = compile_model(
                    directory,
                    target=target,
                    seq_len=length,
                    precision=precision,
                    output=Path(scratch) / who,
                )
            where = {"target": target, "seq_len": length, "threads": threads, "rounds": rounds}
            found.append(_measure(result, precision, where, reports, tell))
    return tuple(found)


def _measure(
    result: CompressionResult,
    precision: str,
    where: dict[str, Any],
    reports: Mapping[str, CompileReport],
    tell: Callable[[str], None],
) -> TargetGain:
    device = _device_for(where["target"], reports["teacher"])
    ours = reports["compressed"].bundle
    tell(f"measuring on {device}")
    against = compare(ours, reports["teacher"].bundle, device, **where)
    ms = {
        "teacher": against.other.median_ms,
        "compressed": against.measurement.median_ms,
    }
    if "dense" in reports:
        ms["dense"] = compare(ours, reports["dense"].bundle, device, **where).other.median_ms
    promised = result.before.flops / result.after.flops
    reason = ""
    if against.ratio < KEPT * promised:
        tell(f"looking for the rest of the gain on {device}")
        reason = _reason(reports, device, where, promised, bool(result.recipe.get("sparsity")))
    return TargetGain(
        target=where["target"],
        device=device,
        precision=precision,
        threads=where["threads"],
        seq_len=where["seq_len"],
        emulated=against.measurement.emulated,
        ms=ms,
        gain=against.ratio,
        interval=against.interval,
        stable=against.stable,
        promised=promised,
        reason=reason,
    )


def _device_for(target: str, report: CompileReport) -> str:
    """The device on which the compilation was checked: it can run it."""
    numerics = report.numerics.get(target)
    if numerics is None:
        raise MissingDeviceError(
            f"No device here runs {target}, so nothing can be measured: name another target."
        )
    return str(numerics["device"])


def _reason(
    reports: Mapping[str, CompileReport],
    device: str,
    where: Mapping[str, Any],
    promised: float,
    sparse: bool,
) -> str:
    where = {key: value for key, value in where.items() if key != "rounds"}
    try:
        teacher = profile(reports["teacher"].bundle, device, **where).rows
        compressed = profile(reports["compressed"].bundle, device, **where).rows
    except InputError as error:  # a device that cannot tell dispatches apart
        return f"not known: {error}"
    except CanaoError as error:
        return f"not known, the profile failed: {error}"
    return explain(teacher, compressed, promised, sparse=sparse)


def explain(
    teacher: Sequence[ProfileRow],
    compressed: Sequence[ProfileRow],
    promised: float,
    *,
    sparse: bool = False,
) -> str:
    """Where the rest of a promised gain is, from the times of the dispatches of both models.

    Products are what FLOPs count. Either the time outside them did not shrink with them; or they
    did not shrink as their FLOPs did: because blocks of zeros are multiplied all the same (the
    density is above where leaving them out pays), or because narrow products run at a lower rate.
    """
    before, after = _products(teacher), _products(compressed)
    rest_before, rest_after = _whole(teacher) - before, _whole(compressed) - after
    shrunk = before / after if after else promised
    if shrunk >= KEPT * promised:
        share = rest_after / _whole(compressed)
        return (
            f"products became {shrunk:.2f} times faster, but {share:.0%} of the time is outside "
            f"them, where FLOPs do not count: {rest_before:.3g} ms before, {rest_after:.3g} ms now"
        )
    if sparse and not any("sparse_" in row.name for row in compressed):
        return (
            "no product leaves its blocks of zeros out: at this density a dense one is faster "
            f"here (products became {shrunk:.2f} times faster)"
        )
    kind = "sparse and narrow" if sparse else "narrower"
    slower = shrunk / promised
    return (
        f"{kind} products run at {slower:.0%} of the teacher's rate: they became {shrunk:.2f} "
        f"times faster with {promised:.2f} times fewer FLOPs"
    )


def _products(rows: Sequence[ProfileRow]) -> float:
    return sum(
        row.ms
        for row in rows
        if row.kind in _PRODUCTS or any(name in row.name for name in _OWN_PRODUCTS)
    )


def _whole(rows: Sequence[ProfileRow]) -> float:
    return sum(row.ms for row in rows)
