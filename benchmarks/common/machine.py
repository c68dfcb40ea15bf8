"""What a timing was taken on: processor, memory, software, load, and peak arithmetic rate."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["choose_cpus", "load_average", "machine_record", "peak_gflops", "stamp"]

# Of the many flags of a processor, those that decide which kernels a runtime takes.
_TELLING_FLAGS = (
    *("avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl"),
    *("avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2", "sme", "hypervisor"),
)

_PEAK = """
import json, os, sys, time
cpus = json.loads(sys.argv[1])
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, cpus)
import torch
n = 1024
torch.set_num_threads(len(cpus))
a, b = torch.rand(n, n), torch.rand(n, n)
out = torch.empty(n, n)
best = float("inf")
for _ in range(30):
    started = time.perf_counter()
    torch.mm(a, b, out=out)
    best = min(best, time.perf_counter() - started)
print(json.dumps(2 * n**3 / best / 1e9))
"""


def choose_cpus(threads: int) -> list[int]:
    """The last ``threads`` of the cores that this process may use (ValueError: too few)."""
    if hasattr(os, "sched_getaffinity"):
        available = sorted(os.sched_getaffinity(0))
    else:
        available = list(range(os.cpu_count() or 1))
    if threads > len(available):
        raise ValueError(f"{threads} threads asked for, {len(available)} cores are available")
    return available[-threads:]


def load_average() -> float | None:
    """How many processes wanted to run during the last minute, on average."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def peak_gflops(cpus: list[int]) -> float:
    """The best f32 rate of a 1024^3 product in PyTorch on these cores, in GFLOP/s."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, json.dumps(cpus)], check=True, capture_output=True, text=True
    )
    return round(float(json.loads(done.stdout)), 1)


def machine_record() -> dict[str, Any]:
    """Describe this machine, without its name."""
    import psutil

    cpuinfo = _cpuinfo()
    flags = (cpuinfo.get("flags") or cpuinfo.get("Features") or "").split()
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "processor": cpuinfo.get("model name") or platform.processor() or platform.machine(),
        "family_model_stepping": "/".join(
            cpuinfo.get(key, "?") for key in ("cpu family", "model", "stepping")
        ),
        "features": [flag for flag in _TELLING_FLAGS if flag in flags],
        "architecture": platform.machine(),
        "cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "governor": governor.read_text().strip() if governor.exists() else None,
        "python": platform.python_version(),
    }


def stamp() -> dict[str, Any]:
    """What stands at the head of results: the version of their form, when, on what, how busy."""
    return {
        "schema": 1,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine_record(),
        "load": load_average(),
    }


def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return fields
