"""One architecture on the device: compiled with drawn weights, measured, and kept in a file.

What is kept holds for the device that was measured and for the compiler that made the program. On
another device, or after a change of the compiler, it is measured again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

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
    """A bundle with drawn weights, and the architecture in it."""
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
        # Layers may be kept wider.
        described = report.bundle.manifest.architecture(target, architecture.seq_len)
        return bundle, Architecture.from_json(described)
    raise AssertionError("unreachable")
