"""One architecture on the device: compiled with drawn weights, measured, and kept in a file.

What is kept holds for the device that was measured and for the compiler that made the program. On
another device, or after a change of the compiler, it is measured again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...compiler.cache import compiler_digest
from ...errors import CanaoError, InputError, NumericsError
from ...runtime_harness.bundle.atomic import replace_file
from ...targets import get as get_target
from ..predictor.records import Record
from ..space.architecture import Architecture
from .pool import DevicePool

__all__ = ["Measure", "Sample", "Samples"]

_SEEDS = 3
# Of drawn weights only the speed counts.
_COSINE = 0.9
_KINDS = {
    "attention.self": "qkv",
    "attention.output.dense": "output",
    "intermediate.dense": "up",
    "output.dense": "down",
}
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)$")

Sample = tuple[Record, int | None]
"""A measurement, and the peak of memory in bytes, None where the device cannot tell."""
Measure = Callable[[Path, str, Architecture], Sample]
"""Measures a bundle of an architecture on the device of that name."""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Measurements for ``target`` in ``folder``. ``here``: the fingerprint of each device that is
    here, by name."""

    folder: Path
    measure: Measure
    pool: DevicePool[Sample]
    target: str
    here: Mapping[str, str]

    def of(self, architecture: Architecture) -> Sample:
        """What is kept of an architecture, or else measured now. Raises as `DevicePool.run` and
        what compiles and measures do."""
        kept = self.folder / f"{architecture.digest}.json"
        compiler = compiler_digest(get_target(self.target))
        found = self._kept(kept, compiler)
        if found is not None:
            return found
        self.folder.mkdir(parents=True, exist_ok=True)
        bundle, made = _compiled(architecture, self.folder, self.target)
        (result,) = self.pool.run([lambda device: self.measure(bundle, device, made)])
        if isinstance(result, CanaoError):
            raise result
        record, peak = result
        text = json.dumps({"record": record.to_json(), "peak_bytes": peak, "compiler": compiler})
        replace_file(kept, text.encode())
        for left in (bundle, bundle.with_name(f"{bundle.name}.numerics.json")):
            left.unlink(missing_ok=True)
        return record, peak

    def _kept(self, file: Path, compiler: str) -> Sample | None:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            record, peak = Record.from_json(found["record"]), found["peak_bytes"]
            same = found["compiler"] == compiler
        except (OSError, ValueError, KeyError, TypeError, InputError):
            return None  # not there, or from another canao
        setting = record.setting
        same = same and self.here.get(setting.device) == setting.fingerprint
        return (record, peak) if same else None


def _compiled(architecture: Architecture, folder: Path, target: str) -> tuple[Path, Architecture]:
    """A bundle with drawn weights, and the architecture in it: layers may be kept wider."""
    from ...compiler.api import compile_model
    from ..space.models import fresh_model

    recipe = architecture.recipe()
    int8 = any(rule.precision == "int8" for rule in recipe.precision)
    bundle = folder / f"{architecture.digest}.canao"
    for seed in range(_SEEDS):
        bundle.unlink(missing_ok=True)
        try:
            report = compile_model(
                fresh_model(architecture, seed),
                target=target,
                seq_len=architecture.seq_len,
                recipe=recipe,
                output=bundle,
                name=f"bert-{architecture.digest}",
                cosine=_COSINE if int8 else None,
            )
        except NumericsError:
            if seed == _SEEDS - 1:
                raise
            continue  # of other weights the outputs may not nearly cancel
        wider = (report.quantization or {}).get("wider", ())
        return bundle, _widened(architecture, wider, target)
    raise AssertionError("unreachable")


def _widened(architecture: Architecture, wider: Sequence[str], target: str) -> Architecture:
    """With the layers of the names ``wider`` as the compiler keeps them: bf16, or, where the
    target has no instructions for it, products of f32."""
    precision = "bf16" if "bf16" in get_target(target).precisions else "f32"
    layers = list(architecture.layers)
    for name in wider:
        match = _LAYER.search(name)
        kind = next((k for path, k in _KINDS.items() if match and match[2].startswith(path)), None)
        if match is None or kind is None:
            continue
        number = int(match[1])
        form = replace(layers[number].form(kind), precision=precision)
        changed: dict[str, Any] = {kind: form}
        layers[number] = replace(layers[number], **changed)
    return replace(architecture, layers=tuple(layers))
