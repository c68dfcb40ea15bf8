"""The process that compiles: reads a request, writes a program and a result, and may be killed.

    python -m canao.compiler.worker DIRECTORY

DIRECTORY holds request.json; module.vmfb and result.json appear beside it.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
from pathlib import Path

from .. import errors
from .lowering import LoweringRequest, lower

__all__ = ["main"]


def main(directory: str) -> int:
    """Run one request; 0 where result.json tells of success or of an error canao knows."""
    folder = Path(directory)
    envelope = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    limit = envelope["memory_limit"]
    if limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    result: dict[str, object]
    try:
        request = LoweringRequest.from_json(envelope["request"])
        for module in request.pattern_modules:
            importlib.import_module(module)
        lowered = lower(request, folder / "module.vmfb")
        result = {"ok": lowered.to_json()}
    except errors.CanaoError as error:
        result = {"error": {"kind": type(error).__name__, "message": str(error)}}
    except MemoryError:
        result = {"error": {"kind": "CompileError", "message": "out of memory"}}
    result["peak_bytes"] = _peak_bytes()
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return 0


def _peak_bytes() -> int:
    """Largest resident memory of this process."""
    try:
        # Not ru_maxrss: across fork and exec it remembers the parent's memory.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
