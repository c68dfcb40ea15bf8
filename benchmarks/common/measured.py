"""Running a command in a process of its own, and what it took."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .stats import significant

__all__ = ["Cost", "run_measured", "run_script"]

_POLL_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a command took; memory in bytes, resident.

    ``tree_peak_bytes`` is the largest sum over the process and its descendants at any of the
    moments looked at; ``process_peak_bytes`` the largest of any single one, from the kernel.
    """

    wall_s: float
    cpu_s: float
    tree_peak_bytes: int
    process_peak_bytes: int

    def to_json(self) -> dict[str, float | int]:
        """Plain data, seconds to four digits."""
        return {k: significant(v) if isinstance(v, float) else v for k, v in asdict(self).items()}


def run_measured(command: list[str], environment: Mapping[str, str]) -> Cost:
    """Run a command to its end; RuntimeError with its last words if it fails."""
    import psutil

    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
        watched = psutil.Process(process.pid)
        peak = 0
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, _tree_bytes(watched))
            time.sleep(_POLL_SECONDS)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            words = log.read().decode(errors="replace").strip().splitlines()[-3:]
            raise RuntimeError(f"{' '.join(command)} failed: {' / '.join(words)}")
    unit = 1 if sys.platform == "darwin" else 1024
    largest = usage.ru_maxrss * unit
    return Cost(
        wall_s=wall,
        cpu_s=usage.ru_utime + usage.ru_stime,
        tree_peak_bytes=max(peak, largest),
        process_peak_bytes=largest,
    )


def run_script(script: str, *arguments: Any) -> Any:
    """Run Python source in a fresh process and return the JSON that it prints.

    ``arguments`` are passed as strings; whatever is not a path goes as JSON.
    """
    texts = [os.fspath(a) if isinstance(a, os.PathLike) else json.dumps(a) for a in arguments]
    done = subprocess.run(
        [sys.executable, "-c", script, *texts], stdout=subprocess.PIPE, check=True, text=True
    )
    return json.loads(done.stdout)


def _tree_bytes(process: Any) -> int:
    import psutil

    total = 0
    with contextlib.suppress(psutil.Error):
        for member in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += member.memory_info().rss
    return total
