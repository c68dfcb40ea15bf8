"""What every device must do, as checks that any third-party device can run.

A check takes the device and a bundle that has a module for it, with reference outputs, and
raises AssertionError if the device does otherwise. With pytest::

    @pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
    def test_my_device(check):
        check(MyDevice(), my_bundle)
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import CanaoError, DeviceError, InputError, MissingDeviceError, UnsupportedError
from .device import Device, DeviceInfo
from .numerics import compare
from .readings import Reading
from .reference import Sample, example_inputs, load_reference
from .selection import choose_target
from .tensors import BATCH

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .bundle import Bundle, ModuleEntry

__all__ = ["CHECKS", "Check", "run_all"]

Check = Callable[[Device, "Bundle"], None]

_NO_TIME = 1e-4


def run_all(device: Device, bundle: Bundle) -> None:
    """Run every check; the first that fails raises AssertionError."""
    for check in CHECKS:
        check(device, bundle)


def info_is_consistent(device: Device, bundle: Bundle) -> None:
    """``info`` names the device, is JSON, and tells what is missing only if something is."""
    info = device.info()
    _require(isinstance(info, DeviceInfo), f"info() gave a {type(info).__name__}")
    _require(info.name == device.name, f"info() is of {info.name!r}, not of {device.name!r}")
    _require(bool(info.description), "info() describes nothing")
    json.dumps(info.to_json(), allow_nan=False)
    _require(
        info.available != bool(info.missing) and info.available != bool(info.remedy),
        "missing and remedy must be given if, and only if, the device is not available",
    )
    _require(info.available, f"the checks need the device: {info.missing} {info.remedy}")


def foreign_modules_are_refused(device: Device, bundle: Bundle) -> None:
    """``check`` accepts a fitting module, and refuses others by MissingDeviceError."""
    module = _module(device, bundle)
    device.check(bundle, module)
    foreign = [
        dataclasses.replace(module, kind="vulkan", target="no-such-gpu", arch="", features=()),
        dataclasses.replace(module, kind="cpu", target="no-such-cpu", arch="no-such-arch"),
        dataclasses.replace(
            module, kind="cpu", arch=module.arch or "x86_64", features=("no-such-feature",)
        ),
    ]
    for other in foreign:
        _raises(MissingDeviceError, partial(device.check, bundle, other), str(other))


def run_matches_the_reference(device: Device, bundle: Bundle) -> None:
    """``run`` gives the manifest's outputs in order, twice the same, within tolerance."""
    module = _module(device, bundle)
    inputs = example_inputs(bundle, module)
    names = [spec.name for spec in bundle.manifest.outputs]
    first = dict(zip(names, device.run(bundle, module, inputs), strict=True))
    again = dict(zip(names, device.run(bundle, module, inputs), strict=True))
    for name in names:
        _require(
            first[name].tobytes() == again[name].tobytes(), f"{name!r} changes from run to run"
        )
    for sample in load_reference(bundle, module.seq_len):
        if all(sample.inputs[name].tobytes() == inputs[name].tobytes() for name in inputs):
            _require_close(bundle, first, sample)
            return
    raise AssertionError("the bundle has no reference sample of the module's full shape")


def run_refuses_wrong_inputs(device: Device, bundle: Bundle) -> None:
    """``run`` raises InputError for a missing input and for one of another shape or type."""
    import numpy as np

    module = _module(device, bundle)
    inputs = example_inputs(bundle, module)
    name, array = next(iter(inputs.items()))
    for wrong in (
        {key: value for key, value in inputs.items() if key != name},
        {**inputs, name: array[..., :0]},
        {**inputs, name: array.astype(np.complex64)},
    ):
        _raises(InputError, partial(device.run, bundle, module, wrong), name)


def run_keeps_its_time_limit(device: Device, bundle: Bundle) -> None:
    """``run`` raises DeviceError when time is up, and the device can be used afterwards."""
    module = _module(device, bundle)
    inputs = example_inputs(bundle, module)
    _raises(
        DeviceError,
        lambda: device.run(bundle, module, inputs, timeout=_NO_TIME),
        "a call without time to run",
    )
    device.run(bundle, module, inputs)


def bad_arguments_are_refused(device: Device, bundle: Bundle) -> None:
    """Threads below 1, times that are not positive and unknown targets raise InputError."""
    module = _module(device, bundle)
    inputs = example_inputs(bundle, module)
    calls: dict[str, Callable[[], object]] = {
        "threads=0": lambda: device.run(bundle, module, inputs, threads=0),
        "timeout=0": lambda: device.run(bundle, module, inputs, timeout=0),
        "session threads=0": lambda: device.session(bundle, threads=0),
        "session timeout=-1": lambda: device.session(bundle, timeout=-1),
        "session target": lambda: device.session(bundle, target="no-such-target"),
        "repetitions=0": lambda: device.bench(bundle, module, inputs, repetitions=0, warmup=0),
    }
    for what, call in calls.items():
        _raises(InputError, call, what)


def session_matches_the_reference(device: Device, bundle: Bundle) -> None:
    """A session gives the reference's outputs, as arrays of its own, until it is closed."""
    module = _module(device, bundle)
    sample = _sample(bundle, module)
    with device.session(bundle) as session:
        _require(session.target == module.target, f"it runs {session.target}")
        outputs = session(**sample.inputs)
        kept = {name: array.copy() for name, array in outputs.items()}
        _require_close(bundle, outputs, sample)
        others = load_reference(bundle, module.seq_len)
        session(**others[-1].inputs)
        for name, array in outputs.items():
            _require(
                array.tobytes() == kept[name].tobytes(), f"{name!r} was changed by a later call"
            )
    _raises(InputError, lambda: session(**sample.inputs), "a call after close()")


def session_takes_any_number_of_rows(device: Device, bundle: Bundle) -> None:
    """Rows beyond the module's batch size are run in turn, each as if it were alone."""
    import numpy as np

    module = _module(device, bundle)
    sample = _sample(bundle, module)
    specs = bundle.manifest.outputs
    if not all(BATCH in spec.shape for spec in (*bundle.manifest.inputs, *specs)):
        return
    copies = module.batch + 1
    axes = {spec.name: spec.shape.index(BATCH) for spec in bundle.manifest.inputs}
    many = {
        name: np.concatenate([array] * copies, axis=axes[name])
        for name, array in sample.inputs.items()
    }
    with device.session(bundle) as session:
        outputs = session(**many)
    expected = {
        spec.name: np.concatenate([sample.outputs[spec.name]] * copies, spec.shape.index(BATCH))
        for spec in specs
    }
    found = compare(outputs, expected, bundle.manifest.tolerance)
    _require(found.ok, f"{copies} copies of a sample: {found.reason}")


def bench_gives_every_sample(device: Device, bundle: Bundle) -> None:
    """``bench`` gives at least the samples asked for, all positive, warm-up apart."""
    module = _module(device, bundle)
    raw = device.bench(bundle, module, example_inputs(bundle, module), repetitions=3, warmup=1)
    _require(len(raw.samples_ms) >= 3, f"{len(raw.samples_ms)} samples instead of 3")
    _require(len(raw.warmup_ms) >= 1, "no warm-up")
    for value in (*raw.samples_ms, *raw.warmup_ms):
        _require(math.isfinite(value) and value > 0, f"{value!r} is no time of a call")
    _require(raw.peak_bytes is None or raw.peak_bytes > 0, f"{raw.peak_bytes!r} bytes")
    _require(bool(raw.method), "it does not say how it measured")
    json.dumps(raw.details, allow_nan=False)


def readings_are_told_if_at_all(device: Device, bundle: Bundle) -> None:
    """``reading``, if the device has it, gives a Reading of the moment asked for, in JSON."""
    read = getattr(device, "reading", None)
    if read is None:
        return
    found = read("before")
    _require(isinstance(found, Reading), f"reading() gave a {type(found).__name__}")
    _require(found.when == "before", f"reading() is of {found.when!r}, not of 'before'")
    json.dumps(found.to_json(), allow_nan=False)


def profile_tells_dispatches_or_refuses(device: Device, bundle: Bundle) -> None:
    """``profile`` gives named, timed dispatches, or raises UnsupportedError."""
    module = _module(device, bundle)
    try:
        found = device.profile(bundle, module, example_inputs(bundle, module))
    except UnsupportedError:
        return
    _require(bool(found), "nothing was profiled, and nothing said why")
    for item in found:
        good = item.name and item.calls >= 1 and math.isfinite(item.ms) and item.ms >= 0
        _require(bool(good), f"{item} is no dispatch")


CHECKS: tuple[Check, ...] = (
    info_is_consistent,
    foreign_modules_are_refused,
    run_matches_the_reference,
    run_refuses_wrong_inputs,
    run_keeps_its_time_limit,
    bad_arguments_are_refused,
    session_matches_the_reference,
    session_takes_any_number_of_rows,
    bench_gives_every_sample,
    readings_are_told_if_at_all,
    profile_tells_dispatches_or_refuses,
)
"""Every check, in the order in which they make sense."""


def _module(device: Device, bundle: Bundle) -> ModuleEntry:
    return bundle.module(choose_target(bundle, device))


def _sample(bundle: Bundle, module: ModuleEntry) -> Sample:
    samples = load_reference(bundle, module.seq_len)
    _require(bool(samples), f"the bundle has no reference for length {module.seq_len}")
    return samples[0]


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)


def _require_close(bundle: Bundle, outputs: Mapping[str, NDArray[Any]], sample: Sample) -> None:
    found = compare(outputs, sample.outputs, bundle.manifest.tolerance)
    _require(found.ok, f"sample {sample.name}: {found.reason}")


def _raises(kind: type[CanaoError], call: Callable[[], object], what: str) -> None:
    try:
        call()
    except kind as error:
        _require(bool(str(error)), f"{what}: the error says nothing")
    else:
        raise AssertionError(f"{what} was accepted instead of raising {kind.__name__}")
