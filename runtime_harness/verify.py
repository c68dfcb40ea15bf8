"""Running a bundle on a device and comparing with the reference outputs it carries."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .numerics import Comparison, compare, merge
from .process_engine import ProcessEngine
from .reference import Sample, load_reference
from .selection import choose_target, open_bundle
from .session import Session
from .tool_device import ToolDevice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .bundle import Bundle, ModuleEntry, Numerics
    from .device import Device

__all__ = ["check_numerics", "verify"]


def verify(
    bundle: Bundle | str | os.PathLike[str],
    device: str | Device = "local",
    *,
    target: str | None = None,
    seq_len: int | None = None,
    threads: int = 1,
    timeout: float | None = None,
    record: bool = True,
) -> Numerics:
    """Run a target's modules on ``device`` and compare with the stored reference outputs.

    ``seq_len`` restricts it to one length. Each call is a process of its own and may take
    ``timeout`` seconds, so that a module that crashes or hangs is told, not suffered. The
    result is recorded beside the bundle unless ``record`` is false or only one of several
    lengths was run.

    Raises InputError if there is no such target, length or reference, MissingDeviceError if
    the device is not here or may not run the modules, and DeviceError if it fails.
    """
    from .devices import get

    found = open_bundle(bundle)
    place = get(device) if isinstance(device, str) else device
    chosen = choose_target(found, place, target)
    lengths = found.seq_lens(chosen)
    wanted = lengths if seq_len is None else (found.module(chosen, seq_len).seq_len,)
    references = {length: load_reference(found, length) for length in wanted}
    for length, samples in references.items():
        if not samples:
            raise InputError(
                f"{found.path} has no reference for sequence length {length}: compile it again"
            )
    result = check_numerics(found, place, chosen, references, threads=threads, timeout=timeout)
    numerics: Numerics = {
        "verified": True,
        "device": place.name,
        "max_abs_err": result.max_abs_err,
        "cosine": result.cosine,
        "ok": result.ok,
    }
    if record and wanted == lengths:
        found.record_numerics(chosen, **numerics)
    return numerics


def check_numerics(
    bundle: Bundle,
    device: Device,
    target: str,
    references: Mapping[int, Sequence[Sample]],
    *,
    threads: int = 1,
    timeout: float | None = None,
) -> Comparison:
    """Run samples, by sequence length, on the modules of ``target`` and compare the outputs."""
    results = []
    for length, samples in references.items():
        with _session(bundle, device, target, length, threads, timeout) as session:
            for sample in samples:
                found = compare(
                    session(**sample.inputs), sample.outputs, bundle.manifest.tolerance
                )
                where = f" (sample {sample.name}, length {length})"
                results.append(replace(found, reason=found.reason and found.reason + where))
    return merge(results)


def _session(
    bundle: Bundle,
    device: Device,
    target: str,
    seq_len: int,
    threads: int,
    timeout: float | None,
) -> Session:
    """Return a session of one length whose every call is a process of its own."""
    if isinstance(device, ToolDevice):
        return device.isolated_session(
            bundle, target=target, seq_lens=(seq_len,), threads=threads, timeout=timeout
        )

    def run(
        module: ModuleEntry, inputs: dict[str, NDArray[Any]], limit: float | None
    ) -> list[NDArray[Any]]:
        return device.run(bundle, module, inputs, threads=threads, timeout=limit)

    return Session(
        bundle,
        ProcessEngine(bundle, check=device.check, run=run),
        device=device.name,
        target=target,
        seq_lens=(seq_len,),
        timeout=timeout,
    )
