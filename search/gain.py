"""What compression gains where the model runs: measured beside what the FLOPs promise."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..compiler.api import CompileReport, compile_model
from ..compiler.compression.matching import products, serving
from ..compiler.compression.recipe import EmbeddingRecipe, Recipe
from ..compiler.models import load_model
from ..errors import CanaoError, InputError, MissingDeviceError
from ..runtime_harness import devices
from ..runtime_harness.comparison import compare
from ..runtime_harness.device import check_threads
from ..runtime_harness.profile import profile
from ..runtime_harness.tensors import WEIGHTS_FILE
from ..targets import get
from .compress_result import CompressionResult
from .gain_reason import KEPT, explain

__all__ = ["KEPT", "NARROW", "TargetGain", "check_targets", "explain", "measure_gains"]

NARROW = "narrow teacher"
"""The teacher in the precisions of a recipe."""


@dataclass(frozen=True, kw_only=True)
class TargetGain:
    """Latency of one text on a target, and how many times faster compression made it.

    Times ``ms`` are medians in milliseconds, by model: ``teacher``, in f32; ``narrow teacher``,
    compiled in the precisions of the recipe where those are others; ``dense``; ``compressed``.
    ``gain`` is the time of the teacher in the recipe's precisions over the compressed model's,
    with its 95 % interval, both measured in the same rounds: what cutting gave, so ``promised``
    is the ratio of their FLOPs. ``whole`` is the same from the teacher in f32 on: what narrow
    numbers gave is in it too. ``weights`` are bytes of weights in the bundles. ``precision`` is
    the compressed bundle's. ``reason`` says why less than 80 % of the promise was kept, else it
    is empty.
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
    whole: float
    whole_interval: tuple[float, float]
    weights: Mapping[str, int]
    stable: bool
    promised: float
    reason: str

    @property
    def kept(self) -> float:
        """The measured gain over the promised one."""
        return self.gain / self.promised

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **vars(self),
            "ms": dict(self.ms),
            "interval": list(self.interval),
            "whole_interval": list(self.whole_interval),
            "weights": dict(self.weights),
        }


def check_targets(targets: Sequence[str], recipe: Recipe, threads: int = 1) -> None:
    """Raise now what measuring would raise after the training.

    `InputError` where a target is unknown, lacks a precision of ``recipe``, or ``threads`` is no
    number of them; `MissingDeviceError` where no device here runs a target.
    """
    check_threads(threads, device="a device")
    wanted = [recipe.default_precision or "f32", *(rule.precision for rule in recipe.precision)]
    for name in targets:
        target = get(name)
        # The teacher runs in f32 beside.
        for precision in ("f32", *wanted):
            if precision not in target.precisions:
                raise InputError(
                    f"Target {name} cannot do {precision}, so the report cannot measure there: "
                    f"it can do {', '.join(target.precisions)}."
                )
        infos = [devices.get(device).info() for device in target.devices]
        if not any(info.available and name in info.targets for info in infos):
            missing = next((info.missing for info in infos if info.missing), "")
            raise MissingDeviceError(
                f"No device here runs {name}, so the report cannot measure there"
                f"{f' ({missing})' if missing else ''}: name another target."
            )


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

    The students are compiled as their recipe says, matrix by matrix; the teacher in f32 and, if
    that is something else, as the recipe says too. They take turns for ``rounds`` rounds (None:
    as ``compare`` has it). Raises as `check_targets` does.
    """
    tell = progress or (lambda _: None)
    recipe = Recipe.from_json(result.recipe)
    check_targets(targets, recipe, threads)
    length = seq_len or result.seq_len
    directories = {"teacher": result.teacher, "compressed": result.output}
    if result.dense_output is not None:
        directories["dense"] = result.dense_output
    alike = _precisions_for(result.teacher, recipe)
    found = []
    for target in targets:
        with tempfile.TemporaryDirectory(prefix="canao-report-") as scratch:

            def compiled(
                who: str, at: Path, target: str = target, scratch: str = scratch, **asked: Any
            ) -> CompileReport:
                tell(f"compiling the {who} model for {target}")
                where = Path(scratch) / who.replace(" ", "-")
                return compile_model(at, target=target, seq_len=length, output=where, **asked)

            reports = {
                who: compiled(who, at, precision="f32" if who == "teacher" else "auto")
                for who, at in directories.items()
            }
            if alike != Recipe():
                reports[NARROW] = compiled(NARROW, result.teacher, recipe=alike)
            where = {"target": target, "seq_len": length, "threads": threads, "rounds": rounds}
            found.append(_measure(result, where, reports, tell))
    return tuple(found)


def _precisions_for(teacher: Path, recipe: Recipe) -> Recipe:
    """What ``recipe`` says of precisions, as far as the teacher has such matrices."""
    module = load_model(teacher).module
    embedding = recipe.embedding
    return Recipe(
        default_precision=None if recipe.default_precision == "f32" else recipe.default_precision,
        precision=serving(recipe.precision, products(module), module),
        embedding=EmbeddingRecipe(int8=True) if embedding and embedding.int8 else None,
    )


def _measure(
    result: CompressionResult,
    where: dict[str, Any],
    reports: Mapping[str, CompileReport],
    tell: Callable[[str], None],
) -> TargetGain:
    device = _device_for(where["target"], reports["teacher"])
    ours = reports["compressed"].bundle
    tell(f"measuring on {device}")
    others = {
        who: compare(ours, report.bundle, device, **where)
        for who, report in reports.items()
        if who != "compressed"
    }
    whole = others["teacher"]
    against = others.get(NARROW, whole)
    ms = {who: found.other.median_ms for who, found in others.items()}
    promised = result.before.flops / result.after.flops
    reason = ""
    if against.ratio < KEPT * promised:
        tell(f"looking for the rest of the gain on {device}")
        pair = (reports.get(NARROW, reports["teacher"]), reports["compressed"])
        reason = _reason(pair, device, where, promised, bool(result.recipe.get("sparsity")))
    return TargetGain(
        target=where["target"],
        device=device,
        precision=ours.manifest.precision,
        threads=where["threads"],
        seq_len=where["seq_len"],
        emulated=against.measurement.emulated,
        ms={**ms, "compressed": against.measurement.median_ms},
        gain=against.ratio,
        interval=against.interval,
        whole=whole.ratio,
        whole_interval=whole.interval,
        weights={who: len(report.bundle.read(WEIGHTS_FILE)) for who, report in reports.items()},
        stable=against.stable and whole.stable,
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
    reports: tuple[CompileReport, CompileReport],
    device: str,
    where: Mapping[str, Any],
    promised: float,
    sparse: bool,
) -> str:
    where = {key: value for key, value in where.items() if key != "rounds"}
    try:
        teacher, compressed = (profile(one.bundle, device, **where).rows for one in reports)
    except InputError as error:  # a device that cannot tell dispatches apart
        return f"not known: {error}"
    except CanaoError as error:
        return f"not known, the profile failed: {error}"
    return explain(teacher, compressed, promised, sparse=sparse)
