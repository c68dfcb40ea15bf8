"""The real workbench: canao's own compressing, compiling and measuring."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...compiler.api import compile_model
from ...compiler.models import load_model
from ...errors import NumericsError, UnsupportedError
from ...runtime_harness.bench import bench
from ...runtime_harness.bundle import Bundle
from ...runtime_harness.measurement import Measurement
from ...runtime_harness.timing_store import TimingStore
from ..compress import compress
from ..evaluation import evaluate
from ..predictor.recordings import MOST_SPREAD, times_of
from ..predictor.records import Record, Setting
from ..space.architecture import Architecture
from ..space.models import sub_network
from ..training.options import TrainingOptions
from .finalist import Judged, Trained
from .measured import Measured
from .workbench import INHERITED

if TYPE_CHECKING:
    from ..accuracy.estimator import AccuracyEstimator

__all__ = ["Bench", "measure_record"]

_TIMEOUT = 300.0
_COSINE = 0.9
_TRIES = 3
_STEPS = 50


class Bench:
    """See `workbench.Workbench`.

    ``teacher``: the fine-tuned model's directory; ``estimator``: judges by the weights that its
    sub-networks share; ``data``, ``dev``, ``split`` and ``metric`` as
    for `compress`; ``store``: where all measurements are kept.
    """

    def __init__(
        self,
        *,
        teacher: Path,
        estimator: AccuracyEstimator,
        data: str,
        dev: str | None,
        split: str,
        metric: str | None,
        options: TrainingOptions,
        target: str,
        threads: int,
        store: TimingStore,
        tell: Callable[[str], None],
    ) -> None:
        self._teacher = teacher
        self._estimator = estimator
        self._judged: dict[str, Any] = {"data": data, "dev": dev, "split": split, "metric": metric}
        self._options = options
        self._target = target
        self._threads = threads
        self._store = store
        self._tell = tell
        self._module: Any = None

    def inherit(self, architecture: Architecture, folder: Path) -> Path:
        """See `Workbench`. Which words stay does not matter yet: the first ones do."""
        teacher = self._teacher_module()
        tokens = None
        if architecture.vocabulary < teacher.config.vocab_size:
            tokens = range(architecture.vocabulary)
        model = sub_network(teacher, architecture, tokens=tokens)
        recipe = architecture.recipe()
        narrow = any(rule.precision.startswith("int") for rule in recipe.precision)
        bundle = folder / INHERITED
        bundle.unlink(missing_ok=True)
        compile_model(
            model,
            target=self._target,
            seq_len=architecture.seq_len,
            recipe=recipe,
            output=bundle,
            name=f"inherited-{architecture.digest}",
            cosine=_COSINE if narrow else None,
        )
        return bundle

    def adapt(self, architecture: Architecture) -> float:
        """See `Workbench`."""
        return self._estimator.evaluate(architecture, steps=_STEPS, progress=self._tell).value

    def train(self, architecture: Architecture, folder: Path) -> Trained:
        """See `Workbench`."""
        result = compress(
            self._teacher,
            recipe=architecture.recipe(self._teacher_module().config),
            output=folder / "model",
            teacher=self._teacher,
            options=self._options.replace(seq_len=architecture.seq_len),
            dense=False,
            progress=self._tell,
            **self._judged,
        )
        after = result.after
        return Trained(
            directory=str(result.output),
            name=after.metric_name,
            metric=after.metric,
            interval=after.interval,
            held=float(result.training["student"]["best"]),
            params=after.params,
            flops=after.flops,
            bytes=after.bytes,
            seconds=result.seconds,
        )

    def compile(
        self, architecture: Architecture, trained: Trained, folder: Path
    ) -> tuple[Path, Architecture]:
        """See `Workbench`; raises `NumericsError` where no device here can check the numbers."""
        bundle = folder / "model.canao"
        bundle.unlink(missing_ok=True)
        report = compile_model(
            trained.directory,
            target=self._target,
            seq_len=architecture.seq_len,
            output=bundle,
            require_verified=True,
        )
        described = report.bundle.manifest.architecture(self._target, architecture.seq_len)
        return bundle, Architecture.from_json(described)

    def evaluate(self, architecture: Architecture, bundle: Path, device: str) -> Judged:
        """See `Workbench`."""
        found = evaluate(
            bundle,
            self._judged["dev"] or self._judged["data"],
            split=self._judged["split"],
            metric=self._judged["metric"],
            device=device,
            target=self._target,
            threads=self._threads,
            seq_len=architecture.seq_len,
            timeout=_TIMEOUT,
        )
        return Judged(device=device, metric=found.value, interval=found.interval)

    def teacher(self, folder: Path, seq_len: int) -> Path:
        """The teacher as it is, compiled for texts of ``seq_len`` tokens."""
        bundle = folder / "teacher.canao"
        bundle.unlink(missing_ok=True)
        compile_model(
            self._teacher, target=self._target, seq_len=seq_len, output=bundle, name="teacher"
        )
        return bundle

    def measure(self, bundle: Path, device: str) -> Measured:
        """See `Workbench`. What was not stable is measured again; if it never is, the slowest
        stands, and says so. Raises `NumericsError` where the numbers are wrong."""
        found: list[Measured] = []
        for _ in range(_TRIES):
            one = _measure(bundle, device, self._target, self._threads, self._store)
            found.append(Measured.of(one))
            if one.stable:
                return found[-1]
        return max(found, key=lambda one: one.interval[1])

    def _teacher_module(self) -> Any:
        if self._module is None:
            self._module = load_model(self._teacher).module
        return self._module


def measure_record(
    bundle: Path,
    device: str,
    architecture: Architecture,
    *,
    target: str,
    threads: int,
    store: TimingStore,
) -> tuple[Record, int | None]:
    """A measurement as predictors learn from it, and the peak of memory; kept in ``store``.

    One too disturbed to learn from is taken again; the least disturbed stands. An emulator has too
    few rounds for an interval that tells. Raises `UnsupportedError` where the reference workload
    does not run on the device.
    """
    tried: list[tuple[Record, int | None]] = []
    for _ in range(_TRIES):
        tried.append(_recorded(bundle, device, architecture, target, threads, store))
        if tried[-1][0].spread <= MOST_SPREAD:
            break
    return min(tried, key=lambda one: one[0].spread)


def _recorded(
    bundle: Path,
    device: str,
    architecture: Architecture,
    target: str,
    threads: int,
    store: TimingStore,
) -> tuple[Record, int | None]:
    found = _measure(bundle, device, target, threads, store)
    if found.relative is None:
        raise UnsupportedError(
            f"The reference workload does not run on {device}, so latencies there cannot be "
            "predicted: search for another device."
        )
    module = Bundle.open(bundle).module(target, None)
    setting = Setting(
        device=found.device,
        fingerprint=found.fingerprint,
        emulated=found.emulated,
        threads=found.threads,
        target=found.target,
        cpu_features=tuple(module.features),
        protocol=found.protocol,
    )
    record = Record(
        setting=setting,
        architecture=architecture,
        relative=found.relative,
        relative_interval=None if found.emulated else found.relative_interval,
        median_ms=found.median_ms,
        dispatches=times_of(found.dispatches),
        calls=tuple(name for name, _ in module.calls),
        stable=found.stable,
        peak_bytes=found.peak_bytes,
    )
    return record, found.peak_bytes


def _measure(
    bundle: Path, device: str, target: str, threads: int, store: TimingStore
) -> Measurement:
    opened = Bundle.open(bundle)
    found = bench(
        opened, device, target=target, threads=threads, dispatches=True, timeout=_TIMEOUT
    )
    if found.numerics_ok is False:
        raise NumericsError(f"On {device} its numbers differ from PyTorch's.")
    store.add_of(opened, found)
    return found
