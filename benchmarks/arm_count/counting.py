"""Runs an ARM program under emulation and counts the instructions of compiled code by class.

The counts are exact and repeatable. They say nothing of the time on real hardware.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

__all__ = ["CLASSES", "classify", "count", "missing"]

_EMULATOR = "qemu-aarch64"
_SYSROOT = "/usr/aarch64-linux-gnu"
_SOURCE = Path(__file__).with_name("count.c")

# Class, mask, bits under the mask: the first that fits. After Arm's A64 encoding index.
_PATTERNS: tuple[tuple[str, int, int], ...] = (
    ("sdot", 0xFFE0FC00, 0x4E809400),
    ("sdot", 0xFFC0F400, 0x4F80E000),
    ("smmla", 0xFFE0FC00, 0x4E80A400),
    ("bfmmla", 0xFFE0FC00, 0x6E40EC00),
    ("fmla", 0xFFE0FC00, 0x4E20CC00),
    ("fmla", 0xFFC0F400, 0x4F801000),
    ("load vector pair", 0x3E400000, 0x2C400000),
    ("store vector pair", 0x3E400000, 0x2C000000),
    ("load vector", 0x3F400000, 0x3D400000),
    ("load vector", 0x3F600C00, 0x3C400000),
    ("load vector", 0x3F600C00, 0x3C400400),
    ("load vector", 0x3F600C00, 0x3C400C00),
    ("load vector", 0x3F600C00, 0x3C600800),
    ("load vector", 0xBE400000, 0x0C400000),
    ("load vector", 0x3F000000, 0x1C000000),
    ("store vector", 0x3F400000, 0x3D000000),
    ("store vector", 0x3F600C00, 0x3C000000),
    ("store vector", 0x3F600C00, 0x3C000400),
    ("store vector", 0x3F600C00, 0x3C000C00),
    ("store vector", 0x3F600C00, 0x3C200800),
    ("store vector", 0xBE400000, 0x0C000000),
    ("load or store", 0x0A000000, 0x08000000),
    ("vector", 0x0E000000, 0x0E000000),
    ("branch", 0x1C000000, 0x14000000),
    ("integer", 0x1C000000, 0x10000000),
    ("integer", 0x0E000000, 0x0A000000),
)
CLASSES = (*dict.fromkeys(name for name, _, _ in _PATTERNS), "other")


def classify(word: int) -> str:
    """The class of a 32-bit instruction."""
    return next((name for name, mask, bits in _PATTERNS if word & mask == bits), "other")


def missing() -> str:
    """What must be installed to count; empty if all is there."""
    packages = {_EMULATOR: "qemu-user", "gcc": "gcc"}
    absent = [package for tool, package in packages.items() if shutil.which(tool) is None]
    return f"apt install {' '.join(absent)} (Debian's names)" if absent else ""


def count(
    command: Sequence[str],
    *,
    cpu: str = "max",
    sysroot: str = _SYSROOT,
    everything: bool = False,
    timeout: float = 1800.0,
) -> Counter[str]:
    """Instructions of each class that ``command``, an ARM program, executes in compiled code.

    ``everything``: in any code, its own and its libraries' included. Raises RuntimeError if it
    fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        plugin, found = Path(folder) / "count.so", Path(folder) / "blocks"
        build = ["gcc", "-O2", "-shared", "-fPIC", "-o", str(plugin), str(_SOURCE)]
        settings = f"{plugin},out={found}" + (",everything=on" if everything else "")
        run = [_EMULATOR, "-cpu", cpu, "-L", sysroot, "-plugin", settings]
        # Dictionaries in the same order in each run: the same instructions.
        environment = dict(os.environ, PYTHONHASHSEED="0")
        for step in (build, [*run, *command]):
            done = subprocess.run(
                step,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
                env=environment,
            )
            if done.returncode != 0:
                raise RuntimeError(f"{step[0]} failed: {done.stderr.strip()[-2000:]}")
        return _total(found.read_text())


def _total(blocks: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for line in blocks.splitlines():
        executions, words = line.split()
        for start in range(0, len(words), 8):
            total[classify(int(words[start : start + 8], 16))] += int(executions)
    return total
