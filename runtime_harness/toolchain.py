"""IREE's tools applied to a bundle's modules: run once, time, and time each dispatch."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BundleError, DeviceError, InputError
from .device import DispatchTime
from .dispatch_events import median_dispatches, read_events
from .mismatch import contradiction
from .tensors import WEIGHTS_FILE, WEIGHTS_SCOPE, iree_type, numpy_dtype, shape_of
from .tools import run_tool

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .bundle import Bundle, Manifest, ModuleEntry

__all__ = ["Toolchain", "module_files"]

_REPORT = "report.json"
_EVENTS = "events.ireeprof"


def module_files(bundle: Bundle, modules: Sequence[ModuleEntry]) -> list[str]:
    """Return the names of the bundle's files that the tools need for these modules."""
    names = [module.file for module in modules]
    if WEIGHTS_FILE in bundle.manifest.files:
        names.append(WEIGHTS_FILE)
    return names


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """Where IREE's tools are and how they are started.

    ``prefix`` comes before each command (an emulator), ``flags`` choose the device and ``name``
    is the device's in messages. ``profiling_mode`` is what IREE calls the times of dispatches.
    """

    name: str
    directory: Path
    flags: tuple[str, ...]
    prefix: tuple[str, ...] = ()
    profiling_mode: str = "host-execution"

    def run(
        self,
        manifest: Manifest,
        module: ModuleEntry,
        files: Path,
        inputs: Mapping[str, NDArray[Any]],
        *,
        timeout: float | None,
    ) -> list[NDArray[Any]]:
        """Run a module once and return its outputs, in the manifest's order.

        ``files`` is the directory with the bundle's files. Raises InputError for inputs that
        are not of the module's shapes and types, BundleError if the module is not what the
        manifest says, and DeviceError.
        """
        import numpy as np

        with tempfile.TemporaryDirectory(prefix="canao-") as scratch:
            flags = _input_flags(manifest, module, inputs, Path(scratch))
            places = [Path(scratch, f"out{i}.bin") for i in range(len(manifest.outputs))]
            flags += [f"--output=@{place.name}" for place in places]
            self._start("iree-run-module", module, files, flags, Path(scratch), timeout)
            outputs = []
            for spec, place in zip(manifest.outputs, places, strict=True):
                shape, dtype = shape_of(spec, module), numpy_dtype(spec.dtype)
                data = place.read_bytes() if place.exists() else b""
                if len(data) != int(np.prod(shape)) * dtype.itemsize:
                    raise BundleError(
                        f"{module.file} on {self.name} gave {len(data)} bytes for the output "
                        f"{spec.name!r}, where the manifest says {dtype} {list(shape)}: "
                        "build the bundle again"
                    )
                outputs.append(np.frombuffer(data, dtype).reshape(shape).copy())
        return outputs

    def time_calls(
        self,
        manifest: Manifest,
        module: ModuleEntry,
        files: Path,
        inputs: Mapping[str, NDArray[Any]],
        *,
        calls: int,
        timeout: float | None,
    ) -> tuple[list[float], int | None]:
        """Time single calls in one process; return milliseconds each, and peak memory in bytes."""
        with tempfile.TemporaryDirectory(prefix="canao-") as scratch:
            flags = _input_flags(manifest, module, inputs, Path(scratch))
            flags += [
                f"--benchmark_repetitions={calls}",
                "--benchmark_min_time=1x",
                "--benchmark_time_unit=ms",
                f"--benchmark_out={_REPORT}",
                "--benchmark_out_format=json",
            ]
            peak = self._start(
                "iree-benchmark-module", module, files, flags, Path(scratch), timeout
            )
            times = _read_report(Path(scratch, _REPORT), f"timing {module.file} on {self.name}")
        if len(times) != calls:
            raise DeviceError(f"{self.name} timed {len(times)} calls instead of {calls}")
        return times, peak

    def time_dispatches(
        self,
        manifest: Manifest,
        module: ModuleEntry,
        files: Path,
        inputs: Mapping[str, NDArray[Any]],
        *,
        calls: int,
        timeout: float | None,
    ) -> list[DispatchTime]:
        """Time each dispatch of an inference, in order: the median over ``calls`` of them.

        The first of several calls does not count. Empty if the device cannot tell.
        """
        with tempfile.TemporaryDirectory(prefix="canao-") as scratch:
            flags = _input_flags(manifest, module, inputs, Path(scratch))
            flags += [
                f"--benchmark_repetitions={calls}",
                "--benchmark_min_time=1x",
                f"--device_profiling_mode={self.profiling_mode}",
                f"--device_profiling_output={_EVENTS}",
            ]
            self._start("iree-benchmark-module", module, files, flags, Path(scratch), timeout)
            events = read_events(Path(scratch, _EVENTS))
        return median_dispatches(events, calls)

    def _start(
        self,
        tool: str,
        module: ModuleEntry,
        files: Path,
        flags: Sequence[str],
        cwd: Path,
        timeout: float | None,
    ) -> int | None:
        command = [
            *self.prefix,
            str(self.directory / tool),
            f"--module={files / module.file}",
            f"--function={module.function}",
            *self.flags,
            *flags,
        ]
        weights = files / WEIGHTS_FILE
        if weights.exists():
            command.append(f"--parameters={WEIGHTS_SCOPE}={weights}")
        verb = "timing" if "benchmark" in tool else "running"
        what = f"{verb} {module.file} on {self.name}"
        try:
            return run_tool(command, what=what, timeout=timeout, cwd=cwd).peak_bytes
        except DeviceError as error:
            words = contradiction(str(error))
            if not words:
                raise
            raise BundleError(
                f"{module.file} is not what the manifest says ({words}): build the bundle again"
            ) from error


def _read_report(report: Path, what: str) -> list[float]:
    """Return the times of the single repetitions in milliseconds."""
    try:
        rows = json.loads(report.read_text(encoding="utf-8"))["benchmarks"]
        rows = [row for row in rows if row["run_type"] == "iteration"]
        failed = [row["error_message"] for row in rows if row.get("error_occurred")]
        if not failed and all(row["time_unit"] == "ms" for row in rows):
            return [float(row["real_time"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeviceError(f"{what} left no report that can be read") from error
    raise DeviceError(f"{what} failed: {failed[0] if failed else 'its times are not in ms'}")


def _input_flags(
    manifest: Manifest, module: ModuleEntry, inputs: Mapping[str, NDArray[Any]], scratch: Path
) -> list[str]:
    """Write the inputs as raw files into ``scratch``; return the flags that name them."""
    import numpy as np

    flags = []
    for index, spec in enumerate(manifest.inputs):
        shape, dtype = shape_of(spec, module), numpy_dtype(spec.dtype)
        if spec.name not in inputs:
            raise InputError(f"the input {spec.name!r} is missing")
        array = np.asarray(inputs[spec.name])
        if array.shape != shape or array.dtype != dtype:
            raise InputError(
                f"the input {spec.name!r} of {module.file} must be {dtype} {list(shape)}, "
                f"not {array.dtype} {list(array.shape)}"
            )
        file = scratch / f"in{index}.bin"
        file.write_bytes(array.tobytes())
        dims = "".join(f"{size}x" for size in shape)
        flags.append(f"--input={dims}{iree_type(spec.dtype)}=@{file.name}")
    return flags
