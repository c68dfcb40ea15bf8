"""The process that compiles: reads a request, writes a program and a result, and may be killed.

    python -P -m canao.compiler.worker DIRECTORY

DIRECTORY holds request.json and stderr.txt, which is this process's standard error;
module.vmfb and result.json appear beside them.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from .. import errors
from ..errors import InputError
from ..runtime_harness.exit_stop import resident_peak
from .lowering import lower, one_line
from .request import LoweringRequest

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1


def main(directory: str) -> int:
    """Run one request; 0 where result.json tells of success or of an error canao knows."""
    folder = Path(directory)
    envelope = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    _die_with(envelope["parent"])
    limit = envelope["memory_limit"]
    if limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    result: dict[str, object]
    try:
        request = LoweringRequest.from_json(envelope["request"])
        _import_patterns(request.pattern_modules)
        lowered = lower(request, folder / "module.vmfb", log=folder / "stderr.txt")
        result = {"ok": lowered.to_json()}
    except errors.CanaoError as error:
        result = {"error": {"kind": type(error).__name__, "message": str(error)}}
    except MemoryError:
        result = {"error": {"kind": "MemoryError", "message": ""}}
    result["peak_bytes"] = _peak_bytes()
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return 0


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, in whatever way.

    Strictly, when the *thread* that started it dies; that thread waits for this process to
    end, so it lives as long.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was told
        os._exit(1)


def _import_patterns(modules: Iterable[str]) -> None:
    for module in modules:
        try:
            importlib.import_module(module)
        except MemoryError:
            raise
        except Exception as error:
            raise InputError(
                f"The compiling process cannot import {module}, which has patterns "
                f"({one_line(f'{type(error).__name__}: {error}')}): move them into a module "
                "that can be imported anywhere, or compile with isolated=False."
            ) from error


def _peak_bytes() -> int:
    """Largest resident memory of this process."""
    # Not ru_maxrss, if anything else tells: across fork and exec it remembers the parent's memory.
    return resident_peak("self") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
