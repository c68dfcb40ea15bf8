"""IREE as it comes: torch-mlir's importer, IREE's own flags, none of canao's patterns.

Which of IREE's fusion settings is fastest depends on the model, so three are compiled, all
of them with data tiling, and the fastest of those that compile is the one that is measured;
``info`` in the results says which, and what the others took.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from common.protocol import Array, ModelSpec, Peer, Runner, artifact_path

__all__ = ["PEERS"]

_PACKAGES = ("iree-base-compiler", "iree-base-runtime", "torch-mlir", "torch", "transformers")

_FLAGS = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=host",
    "--iree-opt-data-tiling",
)
SETTINGS: dict[str, tuple[str, ...]] = {
    "O0": ("--iree-opt-level=O0",),
    "O2": ("--iree-opt-level=O2",),
    "O2-no-aggressive-fusion": (
        "--iree-opt-level=O2",
        "--iree-dispatch-creation-enable-aggressive-fusion=false",
    ),
}
_TRIAL_SECONDS = 0.4  # per setting and round
_TRIAL_ROUNDS = 3


class _Module:
    def __init__(self, path: Path, threads: int) -> None:
        import iree.runtime as rt

        config = rt.Config("local-sync" if threads == 1 else "local-task")
        context = rt.SystemContext(config=config)
        context.add_vm_module(rt.VmModule.mmap(config.vm_instance, str(path)))
        self._main = context.modules.module["main"]
        self.info: dict[str, Any] = {}

    def __call__(self, input_ids: Array, attention_mask: Array) -> tuple[Array, ...]:
        found = self._main(input_ids, attention_mask)
        outputs = found if isinstance(found, tuple) else (found,)
        return tuple(output.to_host() for output in outputs)


def _build(model: ModelSpec, seq_len: int, cache: Path) -> Path:
    directory = artifact_path(
        cache, model, seq_len, "stock-iree", _PACKAGES, f"{_FLAGS} {SETTINGS} {_processor()}"
    )
    if directory.exists():
        return directory
    temporary = directory.with_name(f"{directory.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        imported = temporary / "model.mlirbc"
        _import(model, seq_len, imported)
        outcome = {name: _compile(imported, temporary, name) for name in SETTINGS}
        if all(outcome.values()):
            raise RuntimeError(f"no setting of IREE compiles this model: {outcome}")
        imported.unlink()
        (temporary / "errors.json").write_text(json.dumps(outcome))
        temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory


def _import(model: ModelSpec, seq_len: int, path: Path) -> None:
    from common.modules import example_inputs, load_module
    from torch_mlir import fx

    module = load_module(model)
    # The importer cannot resolve buffers that are missing from the state dict.
    for submodule in module.modules():
        submodule._non_persistent_buffers_set.clear()
    imported = fx.export_and_import(
        module, *example_inputs(seq_len), output_type="torch", func_name="main"
    )
    with path.open("wb") as file:
        imported.operation.write_bytecode(file)


def _compile(imported: Path, directory: Path, setting: str) -> str:
    """Compile one setting; return "", or the compiler's complaint."""
    from iree.compiler.tools import binaries

    command = [binaries.find_tool("iree-compile"), str(imported), *_FLAGS, *SETTINGS[setting]]
    command += ["-o", str(directory / f"{setting}.vmfb")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    return errors[0].partition("error:")[2].strip()[:300] if errors else "unknown error"


def _prepare(path: Path, model: ModelSpec, seq_len: int, threads: int) -> Runner:
    import iree.runtime as rt
    import numpy as np

    if threads > 1:
        rt.flags.parse_flags(f"--task_topology_group_count={threads}")
    candidates = {
        name: _Module(path / f"{name}.vmfb", threads)
        for name in SETTINGS
        if (path / f"{name}.vmfb").exists()
    }
    ids = np.full((1, seq_len), 2000, np.int32)
    mask = np.ones((1, seq_len), np.int32)
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(_TRIAL_ROUNDS):
        for name, candidate in candidates.items():
            candidate(ids, mask)
            begun = time.perf_counter()
            while time.perf_counter() - begun < _TRIAL_SECONDS:
                started = time.perf_counter()
                candidate(ids, mask)
                times[name].append((time.perf_counter() - started) * 1e3)
    medians = {name: statistics.median(samples) for name, samples in times.items()}
    best = min(medians, key=lambda name: medians[name])
    complaints = json.loads((path / "errors.json").read_text())
    runner = candidates[best]
    runner.info = {
        "setting": best,
        "trial_median_ms": {name: float(f"{value:.4g}") for name, value in medians.items()},
        "does_not_compile": {name: text for name, text in complaints.items() if text},
    }
    return runner


def _processor() -> str:
    """The processor that ``target-cpu=host`` stands for."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return "\n".join(sorted({x for x in lines if x.startswith(("model name", "flags", "Feat"))}))


PEERS = (
    Peer(
        name="iree-f32",
        title="stock IREE",
        precision="f32",
        environment="main",
        packages=_PACKAGES,
        build=_build,
        prepare=_prepare,
    ),
)
