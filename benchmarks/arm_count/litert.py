"""LiteRT's own build for 64-bit ARM under emulation: the instructions of one inference.

Its wheel runs in a small directory of Debian's arm64 packages, made once in the cache: neither
root nor a foreign architecture in the system's package database is needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from common.models import ModelSpec
from common.paths import BENCHMARKS
from common.processes import PeerProcess, model_fields
from peer.litert import PEERS

from .counting import count

__all__ = ["count_litert", "missing_litert"]

_PACKAGES = """
    libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 libbz2-1.0 liblzma5 libssl3 libuuid1
    libsqlite3-0 libreadline8 libpython3.11-minimal libpython3.11-stdlib python3.11-minimal
"""
_WHEELS = ("ai-edge-litert", "numpy")
_PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in (17, 27, 28)]
# What LiteRT reads to choose its kernels, beside the processor's own registers.
_DOT_PRODUCTS = "fp asimd atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
_CPUS = {
    "arm64": ("cortex-a76", _DOT_PRODUCTS, "0xd0b"),
    "arm64-i8mm": ("max,sve=off,sme=off", f"{_DOT_PRODUCTS} i8mm bf16", "0xd40"),
}
_SCRIPT = """
import sys
sys.path.insert(0, "/opt/site")
import numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
for one in interpreter.get_input_details():
    interpreter.set_tensor(one["index"], np.ones(one["shape"], one["dtype"]))
for _ in range(int(sys.argv[2])):
    interpreter.invoke()
"""


def missing_litert() -> str:
    """What must be there to count LiteRT; empty if all is."""
    absent = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    return f"{' and '.join(absent)} of a Debian 12 or one like it" if absent else ""


def count_litert(
    model: ModelSpec, seq_len: int, precision: str, target: str, cache: Path
) -> Counter[str]:
    """Instructions of each class in one inference, LiteRT's runtime included.

    That of two inferences less that of one: loading and Python's own work are in both. Raises
    RuntimeError or PeerError if something needed cannot be had.
    """
    peer = next(peer for peer in PEERS if peer.precision == precision)
    with PeerProcess(peer) as process:
        built = process.request(
            "build", timeout=900.0, model=model_fields(model), seq_len=seq_len, cache=str(cache)
        )
    root = _sysroot(cache)
    cpu, features, part = _CPUS[target]
    with tempfile.TemporaryDirectory(prefix="canao-bench-") as folder:
        own = Path(folder) / "root"
        shutil.copytree(root, own, symlinks=True, copy_function=os.link)
        (own / "proc").mkdir()
        (own / "proc/cpuinfo").write_text(_cpuinfo(features, part))
        (own / "opt/run.py").write_text(_SCRIPT)
        shutil.copyfile(built["artifact"], own / "opt/model.tflite")
        command = [str(own / "usr/bin/python3.11"), "-B", "/opt/run.py", "/opt/model.tflite"]
        once, twice = (
            count([*command, calls], cpu=cpu, sysroot=str(own), everything=True)
            for calls in ("1", "2")
        )
    return twice - once


def _sysroot(cache: Path) -> Path:
    """Debian's packages and the wheels, unpacked; made whole or not at all."""
    pins = [line for line in _pins() if line.split("==")[0] in _WHEELS]
    root = cache / "arm64-sysroot" / "-".join(pins).replace("==", "-")
    if root.exists():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        work = Path(folder)
        for name in ("lists/partial", "cache/archives/partial", "deb", "wheels", "root/opt/site"):
            (work / name).mkdir(parents=True)
        settings = {
            "APT::Architecture": "arm64",
            "APT::Architectures": "arm64",
            "Dir::State::Lists": str(work / "lists"),
            "Dir::Cache": str(work / "cache"),
            "Dir::State::status": "/dev/null",
            "APT::Sandbox::User": "",
        }
        apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in settings.items())]
        _run([*apt, "update"], work)
        _run([*apt, "download", *_PACKAGES.split()], work / "deb")
        for package in sorted((work / "deb").glob("*.deb")):
            _run(["dpkg-deb", "--extract", str(package), str(work / "root")], work)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        platforms = [f"--platform={name}" for name in _PLATFORMS]
        _run(
            [*pip, "--only-binary=:all:", "--python-version=3.11", *platforms, *pins, "-dwheels"],
            work,
        )
        for wheel in sorted((work / "wheels").glob("*.whl")):
            shutil.unpack_archive(wheel, work / "root/opt/site", "zip")
        (work / "root").rename(root)
    return root


def _pins() -> list[str]:
    text = (BENCHMARKS / "peers-requirements.txt").read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if "==" in line]


def _run(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()[-500:]}")


def _cpuinfo(features: str, part: str) -> str:
    return "".join(
        f"processor\t: {number}\nBogoMIPS\t: 50.00\nFeatures\t: {features}\n"
        "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x1\n"
        f"CPU part\t: {part}\nCPU revision\t: 1\n\n"
        for number in range(2)
    )
