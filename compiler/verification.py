"""Checking a staged bundle's numbers on every device here that can run one of its targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import InputError, NumericsError
from ..runtime_harness import devices
from ..runtime_harness.bundle import Bundle, Numerics
from ..runtime_harness.device import Device
from ..runtime_harness.reference import load_reference
from ..runtime_harness.refusals import ModuleRefusedError
from ..runtime_harness.verify import check_numerics
from ..targets import Target

__all__ = ["verify_targets"]

# A large model under emulation takes minutes for one call; a lost device takes for ever.
_CALL_TIMEOUT_S = 1800.0


def verify_targets(
    bundle: Bundle, targets: Sequence[Target], tell: Callable[[str], None]
) -> tuple[dict[str, Numerics | None], tuple[str, ...]]:
    """Each target's numbers on the first device that runs it, and warnings where none does.

    None stands for a target that nothing here can run: it is not verified. Raises
    NumericsError, with the output and the sample that differ, where a module is wrong, and
    DeviceError where a device fails.
    """
    numerics: dict[str, Numerics | None] = {}
    warnings = []
    for target in targets:
        device, why = _device_for(bundle, target)
        if device is None:
            numerics[target.name] = None
            warnings.append(f"{target.name} was compiled but not verified: {why}")
            continue
        tell(f"verifying {target.name} on {device.name}")
        numerics[target.name] = _check(bundle, target, device)
    return numerics, tuple(warnings)


def _device_for(bundle: Bundle, target: Target) -> tuple[Device | None, str]:
    """The first device that may run the target here; else None and the first refusal."""
    why = "no device is known for it"
    for index, name in enumerate(target.devices):
        device = devices.get(name)
        try:
            device.check(bundle, bundle.module(target.name))
        except InputError as error:
            why = _reason(error) if index == 0 else why
        else:
            return device, ""
    return None, why


def _reason(error: InputError) -> str:
    """Why a device refuses; what to do instead is no advice to who just compiled for it."""
    if isinstance(error, ModuleRefusedError):
        return f"it is {error.objection.reason}"
    return str(error)


def _check(bundle: Bundle, target: Target, device: Device) -> Numerics:
    lengths = bundle.seq_lens(target.name)
    references = {length: load_reference(bundle, length) for length in lengths}
    found = check_numerics(bundle, device, target.name, references, timeout=_CALL_TIMEOUT_S)
    if not found.ok:
        raise NumericsError(
            f"{target.name} on {device.name} differs from the uncompiled model: {found.reason}; "
            "no bundle was written."
        )
    return {
        "verified": True,
        "device": device.name,
        "max_abs_err": found.max_abs_err,
        "cosine": found.cosine,
        "ok": True,
    }
