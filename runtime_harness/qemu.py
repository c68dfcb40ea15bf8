"""The device ``qemu``: modules for 64-bit ARM, run under emulation to check their numbers."""

from __future__ import annotations

import os
import shutil
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CanaoError, MissingDeviceError
from . import aarch64_runtime
from .device import MAX_THREADS, DeviceInfo
from .local import cpu_flags
from .refusals import Absence, Needs, Objection
from .selection import choose_target
from .tool_device import ToolDevice
from .toolchain import Toolchain
from .tools import run_tool

if TYPE_CHECKING:
    from .bundle import Bundle, ModuleEntry
    from .session import Session

__all__ = ["QemuDevice"]

_ARCH = "aarch64"
_EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")
_DEFAULT_SYSROOT = "/usr/aarch64-linux-gnu"
_LIBRARIES = {
    "ld-linux-aarch64.so.1": "libc6-arm64-cross",
    "libc.so.6": "libc6-arm64-cross",
    "libstdc++.so.6": "libstdc++6-arm64-cross",
    "libgcc_s.so.1": "libgcc-s1-arm64-cross",
}
# In the emulator's "max" CPU since QEMU 5, though IREE's tool does not report them.
_ALWAYS = frozenset({"neon", "fp-armv8", "crc", "rdm", "complxnum", "jsconv", "fptoint", "rcpc"})
_PROBE_SECONDS = 60.0
_REMEDY = "compile the model for the target 'arm64'"
_FETCH = "python -m canao.runtime_harness.aarch64_runtime"


class QemuDevice(ToolDevice):
    """An emulated ARM CPU with every feature that QEMU knows. Each call is a process.

    Its timings say nothing of real hardware. The environment variable ``QEMU_LD_PREFIX`` names
    the directory with the ARM libraries (default: /usr/aarch64-linux-gnu).
    """

    name = "qemu"
    max_threads = MAX_THREADS

    def absence(self) -> Absence | None:
        """Return what is missing of the emulator, the libraries and the ARM tools."""
        absence = _missing()
        if absence is None:
            try:
                _features()
            except CanaoError as error:
                return Absence(
                    missing=f"QEMU does not work: {error}.",
                    remedy="Install another version of it.",
                )
        return absence

    def about(self) -> DeviceInfo:
        """Return that it emulates, and which features it has."""
        here = self.absence() is None
        return DeviceInfo(
            name=self.name,
            available=True,
            emulated=True,
            description="64-bit ARM under emulation (QEMU): for checking numbers, not for speed",
            details={"arch": _ARCH, "features": sorted(_features())} if here else {},
        )

    def objection(self, needs: Needs) -> Objection | None:
        """Return what the emulated CPU is or has not."""
        if needs.kind != "cpu" or needs.arch != _ARCH:
            kind = f"{needs.arch} CPUs" if needs.kind == "cpu" else "a GPU"
            return Objection(
                reason=f"for {kind}, and {self.name} runs {_ARCH} only", remedy=_REMEDY
            )
        lacking = [feature for feature in needs.features if feature not in _features()]
        if lacking:
            return Objection(
                reason=f"for CPUs with features that this QEMU lacks ({', '.join(lacking)})",
                remedy=_REMEDY,
            )
        return None

    def session(
        self,
        bundle: Bundle,
        *,
        target: str | None = None,
        threads: int = 1,
        timeout: float | None = None,
        truncate: bool = False,
    ) -> Session:
        """Return a session that runs one process per call."""
        return self.isolated_session(
            bundle,
            target=choose_target(bundle, self, target),
            threads=threads,
            timeout=timeout,
            truncate=truncate,
        )

    def toolchain(self, module: ModuleEntry, threads: int) -> Toolchain:
        """Return the ARM tools, started by the emulator."""
        return Toolchain(
            name=self.name, directory=_tools(), flags=cpu_flags(threads), prefix=_prefix()
        )

    def facts(self, module: ModuleEntry) -> tuple[bool, dict[str, Any]]:
        """Return that times are emulated, and what emulates."""
        return True, {"arch": _ARCH, "emulator": Path(_prefix()[0]).name, "cpu": "max"}


def _emulator() -> str | None:
    return next(filter(None, map(shutil.which, _EMULATORS)), None)


def _sysroot() -> Path:
    return Path(os.environ.get("QEMU_LD_PREFIX") or _DEFAULT_SYSROOT)


def _missing() -> Absence | None:
    packages: list[str] = []
    parts: list[str] = []
    if _emulator() is None:
        parts.append(f"the emulator {_EMULATORS[0]} is not installed")
        packages.append("qemu-user-static")
    library = _sysroot() / "lib"
    absent = [name for name in _LIBRARIES if not (library / name).exists()]
    if absent:
        parts.append(f"{library} lacks the ARM libraries {', '.join(absent)}")
        packages += dict.fromkeys(_LIBRARIES[name] for name in absent)
    remedies = [f"apt install {' '.join(packages)} (Debian's names)"] if packages else []
    if aarch64_runtime.find() is None:
        parts.append("IREE's tools for ARM were not fetched")
        remedies.append(f"{_FETCH} (some 15 MB)")
    if not parts:
        return None
    text = " and ".join(parts)
    return Absence(
        missing=f"{text[0].upper()}{text[1:]}.", remedy=f"To get it: {' and '.join(remedies)}."
    )


def _prefix() -> tuple[str, ...]:
    return (_emulator() or _EMULATORS[0], "-cpu", "max", "-L", str(_sysroot()))


def _tools() -> Path:
    tools = aarch64_runtime.find()
    if tools is None:
        raise MissingDeviceError(f"IREE's tools for ARM were not fetched: run {_FETCH}")
    return tools


def _features() -> frozenset[str]:
    return _ask_features(_prefix(), str(_tools() / "iree-cpuinfo"))


@lru_cache(maxsize=8)
def _ask_features(prefix: tuple[str, ...], tool: str) -> frozenset[str]:
    """Ask IREE, under the emulator, which CPU features it sees (``dotprod    1``)."""
    done = run_tool([*prefix, tool], what="asking QEMU for its features", timeout=_PROBE_SECONDS)
    rows = (line.split() for line in done.stdout.splitlines())
    return _ALWAYS.union(row[0] for row in rows if len(row) == 2 and row[1] == "1")
