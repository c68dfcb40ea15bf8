"""canao: compile a transformer for phones, run it there, and measure it.

The public interface is what this module names; everything else may change.

>>> bundle = canao.compile("minilm", target="host", seq_len=128)
>>> session = canao.load(bundle)
>>> session(input_ids=ids)["last_hidden_state"]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    BundleError,
    CanaoError,
    CompileError,
    DeviceError,
    DoesNotFitError,
    InputError,
    MissingDeviceError,
    NumericsError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from .compiler.api import compile
    from .runtime_harness.bench import bench
    from .runtime_harness.bundle import Bundle
    from .runtime_harness.comparison import compare
    from .runtime_harness.measurement import Measurement
    from .runtime_harness.session import Session, load
    from .runtime_harness.timing_store import TimingStore
    from .search.compress import compress
    from .search.optimize import optimize

__all__ = [
    "Bundle",
    "BundleError",
    "CanaoError",
    "CompileError",
    "DeviceError",
    "DoesNotFitError",
    "InputError",
    "Measurement",
    "MissingDeviceError",
    "NumericsError",
    "Session",
    "TimingStore",
    "UnsupportedError",
    "bench",
    "compare",
    "compile",
    "compress",
    "load",
    "optimize",
]

# Resolved on first use, so that `import canao` costs no torch, compiler or runtime.
_LAZY = {
    "Bundle": "runtime_harness.bundle",
    "Measurement": "runtime_harness.measurement",
    "Session": "runtime_harness.session",
    "TimingStore": "runtime_harness.timing_store",
    "bench": "runtime_harness.bench",
    "compare": "runtime_harness.comparison",
    "compile": "compiler.api",
    "compress": "search.compress",
    "load": "runtime_harness.session",
    "optimize": "search.optimize",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        module = import_module(f".{_LAZY[name]}", __name__)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(__name__):
            raise
        raise InputError(
            f"canao.{name} needs the package {error.name!r}: pip install 'canao[compiler]'."
        ) from error
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
