"""From a bundle to a measurement of it: what is done before, around and after the rounds."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import UnsupportedError
from .affinity import pinned
from .bootstrap import median_of, ratio_of
from .device import check_timeout
from .environment import collect
from .fingerprint import facts_of, fingerprint
from .interleave import measured_cores, take_turns
from .measurement import Measurement
from .modes import outliers
from .pace import unusual_pace
from .protocol import COMPARED, EMULATED, PROTOCOL, REAL
from .reference import example_inputs, load_reference
from .selection import choose_target, open_bundle
from .stability import judge, percentile
from .turns import Contestant
from .verify import check_numerics
from .workload import reference_bundle, workload_target

if TYPE_CHECKING:
    from .bundle import Bundle, ModuleEntry
    from .device import Device, DispatchTime, RawTiming
    from .interleave import Series, Timed

__all__ = ["Entrant", "hold"]

_KNOWN = 0.0075


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A module that is to be measured, with its inputs."""

    contestant: Contestant

    @classmethod
    def of(
        cls, bundle: Bundle, device: Device, *, target: str | None, seq_len: int | None
    ) -> Entrant:
        """Choose the module; raises InputError or MissingDeviceError if there is none."""
        module = bundle.module(choose_target(bundle, device, target), seq_len)
        inputs = example_inputs(bundle, module)
        return cls(contestant=Contestant(bundle=bundle, module=module, inputs=inputs))

    @property
    def bundle(self) -> Bundle:
        """The bundle."""
        return self.contestant.bundle

    @property
    def module(self) -> ModuleEntry:
        """The module of it."""
        return self.contestant.module

    def dispatches(
        self, device: Device, threads: int, timeout: float | None
    ) -> tuple[DispatchTime, ...]:
        """Return the time of each dispatch, in order; empty where the device cannot tell."""
        try:
            return tuple(
                device.profile(
                    self.bundle,
                    self.module,
                    self.contestant.inputs,
                    threads=threads,
                    timeout=timeout,
                )
            )
        except UnsupportedError:
            return ()


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """What is known before the rounds: the numbers' verdict, and a call in a bare process."""

    numerics_ok: bool | None
    raw: RawTiming


@dataclass(frozen=True, kw_only=True)
class _Circumstances:
    """What all measurements of the same rounds share."""

    device: Device
    threads: int
    cores: tuple[int, ...] | None
    reference: Contestant | None
    environment: dict[str, Any]
    timed: Timed
    notes: tuple[str, ...]


def hold(
    entrants: Sequence[Entrant],
    device: Device,
    *,
    threads: int,
    cores: Sequence[int] | None,
    rounds: int | None,
    repetitions: int | None,
    warmup: int | None,
    reference: Bundle | str | os.PathLike[str] | None,
    dispatches: bool,
    timeout: float | None,
) -> tuple[list[Measurement], Timed]:
    """Measure modules for the same target, in the same rounds; arguments are as of ``bench``.

    Returns a measurement of each, and the rounds that they were taken from.
    """
    check_timeout(timeout)
    module = entrants[0].module
    plan = REAL if len(entrants) == 1 else COMPARED
    if device.info().emulated:
        plan = EMULATED
    plan = plan.changed(rounds=rounds, repetitions=repetitions, warmup=warmup)
    chosen = measured_cores(device, module.kind, cores, threads)
    beside = _reference(device, module.target, reference)
    ready = [_prepare(entrant, device, threads, chosen, timeout) for entrant in entrants]
    environment = collect()
    timed = take_turns(
        device,
        [*(entrant.contestant for entrant in entrants), *([beside] if beside else [])],
        plan,
        threads=threads,
        cores=chosen,
        references=1 if beside else 0,
        timeout=timeout,
        enough=_is_known,
    )
    shared = _Circumstances(
        device=device,
        threads=threads,
        cores=chosen,
        reference=beside,
        environment=environment,
        timed=timed,
        notes=unusual_pace(
            fingerprint(facts_of(device, ready[0].raw)), beside, timed.series[-1], threads, chosen
        )
        if beside and not ready[0].raw.emulated
        else (),
    )
    single = [
        entrant.dispatches(device, threads, timeout) if dispatches else () for entrant in entrants
    ]
    found = [
        _assess(entrant, each, number, shared, single[number])
        for number, (entrant, each) in enumerate(zip(entrants, ready, strict=True))
    ]
    return found, timed


def _is_known(rounds: Sequence[Sequence[Sequence[float]]]) -> bool:
    """Whether the ratio of the first two is known to less than half of what one is held to."""
    return ratio_of(rounds[1], rounds[0]).uncertainty <= _KNOWN


def _prepare(
    entrant: Entrant,
    device: Device,
    threads: int,
    cores: Sequence[int] | None,
    timeout: float | None,
) -> _Ready:
    """Compare the outputs with the reference, and see how much memory a call takes."""
    bundle, module = entrant.bundle, entrant.module
    samples = load_reference(bundle, module.seq_len)
    options: dict[str, Any] = {"threads": threads, "timeout": timeout}
    ok: bool | None = None
    with pinned(cores):
        if samples:
            references = {module.seq_len: samples}
            ok = check_numerics(bundle, device, module.target, references, **options).ok
        inputs = entrant.contestant.inputs
        raw = device.bench(bundle, module, inputs, repetitions=1, warmup=0, **options)
    return _Ready(numerics_ok=ok, raw=raw)


def _reference(
    device: Device, target: str, reference: Bundle | str | os.PathLike[str] | None
) -> Contestant | None:
    """Return the reference workload beside ``target``'s module: the caller's, or canao's own.

    None if canao's own has no module for the device.
    """
    if reference is not None:
        chosen = Entrant.of(open_bundle(reference), device, target=None, seq_len=None)
        return chosen.contestant
    own = workload_target(device, target)
    if own is None:
        return None
    return Entrant.of(reference_bundle(), device, target=own, seq_len=None).contestant


def _assess(
    entrant: Entrant,
    ready: _Ready,
    number: int,
    shared: _Circumstances,
    dispatches: tuple[DispatchTime, ...],
) -> Measurement:
    """Return the measurement of the contestant ``number``; the reference was the last one."""
    timed, raw, module = shared.timed, ready.raw, entrant.module
    series = timed.series[number]
    samples = series.samples_ms
    beside = timed.series[-1] if shared.reference is not None else None
    estimate = median_of(series.rounds)
    relative = ratio_of(series.rounds, beside.rounds) if beside else None
    disturbance = series.disturbance + beside.disturbance if beside else series.disturbance
    notes = [] if series.steady else ["the calls did not become steady while warming up"]
    notes += shared.notes
    notes += dict.fromkeys(reading.hot for reading in timed.readings[1:] if reading.hot)
    verdict = judge(
        samples,
        estimate=estimate,
        disturbance=disturbance,
        reference=beside.samples_ms if beside else (),
        notes=notes,
    )
    facts = facts_of(shared.device, raw)
    manifest = entrant.bundle.manifest
    return Measurement(
        device=shared.device.name,
        target=module.target,
        seq_len=module.seq_len,
        batch=module.batch,
        threads=shared.threads,
        precision=manifest.precision,
        model=str(manifest.model.get("name", "")),
        bundle=entrant.bundle.digest,
        module=manifest.files[module.file]["sha256"],
        median_ms=statistics.median(samples),
        interval=estimate.interval,
        p90_ms=percentile(samples, 0.9),
        p99_ms=percentile(samples, 0.99),
        samples_ms=samples,
        rounds=len(series.rounds),
        warmup_ms=series.warmup_ms,
        outliers=len(outliers(samples)),
        stable=verdict.stable,
        reason=verdict.reason,
        relative=relative.value if relative else None,
        relative_interval=relative.interval if relative else None,
        reference=_told(shared.reference, beside) if shared.reference and beside else None,
        emulated=raw.emulated,
        peak_bytes=raw.peak_bytes,
        numerics_ok=ready.numerics_ok,
        cores=shared.cores,
        method=timed.method,
        protocol=PROTOCOL,
        fingerprint=fingerprint(facts),
        device_facts=facts,
        dispatches=dispatches,
        device_details=raw.details,
        environment={
            **shared.environment,
            "readings": [reading.to_json() for reading in timed.readings],
            "disturbance": disturbance.to_json(),
        },
    )


def _told(reference: Contestant, series: Series) -> dict[str, Any]:
    return {
        "bundle": reference.bundle.digest,
        "target": reference.module.target,
        "median_ms": statistics.median(series.samples_ms),
        "samples_ms": list(series.samples_ms),
    }
