"""From an architecture to a bundle of it, and from bundles to recorded latencies."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canao import TimingStore
from canao.compiler.api import CompileReport, compile_model
from canao.errors import CanaoError, NumericsError
from canao.runtime_harness.bundle import Bundle, ModuleEntry
from canao.runtime_harness.contest import Entrant, hold
from canao.runtime_harness.device import DispatchTime
from canao.runtime_harness.devices import get
from canao.runtime_harness.measurement import Measurement
from canao.search.space.architecture import Architecture
from canao.search.space.models import fresh_model

from .stats import significant

__all__ = ["Compiled", "compile_one", "measure_group", "read_lines", "write_lines"]

_ROUNDS = 12
_SEEDS = 3
_ATTEMPTS = 3
_MOST_FOREIGN = 0.1
"""Of the cores' time, what other processes may use: beside more, latencies do not repeat."""
# Drawn weights are not worth keeping layers wider for; bf16 has its own bound.
_COSINE = 0.9


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """A bundle on disk, and the architecture that is in it: the compiler may have kept layers
    wider than ``digest``, the one that was drawn, asks for. ``seconds``: None if it was there."""

    digest: str
    architecture: Architecture
    bundle: Path
    seconds: float | None = None

    @classmethod
    def read(cls, work: Path, drawn: Architecture) -> Compiled | None:
        """What was compiled before; None where it was not."""
        facts, bundle = work / f"{drawn.digest}.json", work / f"{drawn.digest}.canao"
        if not facts.is_file() or not bundle.is_file():
            return None
        found = Architecture.from_json(json.loads(facts.read_text(encoding="utf-8")))
        return cls(digest=drawn.digest, architecture=found, bundle=bundle)


def compile_one(drawn: Architecture, work: Path) -> Compiled | str:
    """Compile ``drawn`` into ``work``, unless it is there; why not, where it cannot be."""
    found = Compiled.read(work, drawn)
    if found is not None:
        return found
    began = time.monotonic()
    bundle = work / f"{drawn.digest}.canao"
    reason = ""
    for seed in range(_SEEDS):
        bundle.unlink(missing_ok=True)
        try:
            report = _compiled(drawn, seed, bundle)
        except NumericsError as error:
            # Of other weights the outputs may not nearly cancel.
            reason = str(error)
            continue
        except CanaoError as error:
            return str(error)
        described = report.bundle.manifest.architecture("host", drawn.seq_len)
        made = Architecture.from_json(described)
        facts = work / f"{drawn.digest}.json"
        temporary = facts.with_suffix(".new")
        temporary.write_text(json.dumps(made.to_json()), encoding="utf-8")
        temporary.replace(facts)
        return Compiled(
            digest=drawn.digest,
            architecture=made,
            bundle=bundle,
            seconds=time.monotonic() - began,
        )
    return reason


def _compiled(drawn: Architecture, seed: int, bundle: Path) -> CompileReport:
    recipe = drawn.recipe()
    int8 = any(rule.precision == "int8" for rule in recipe.precision)
    return compile_model(
        fresh_model(drawn, seed),
        target="host",
        seq_len=drawn.seq_len,
        recipe=recipe,
        output=bundle,
        name=f"bert-{drawn.digest}",
        isolated=False,
        cosine=_COSINE if int8 else None,
    )


def measure_group(
    group: Sequence[Compiled], work: Path, threads: int, *, dispatches: bool
) -> Iterator[tuple[Compiled, dict[str, Any]]]:
    """Measure some bundles in turns; each with its line for the predictor.

    While something else used the cores they are measured again, some times; what was disturbed
    each time is left out.
    """
    device = get("local")
    store = TimingStore(work / "timings.db")
    left = list(group)
    for _ in range(_ATTEMPTS):
        entrants = [
            Entrant.of(Bundle.open(one.bundle), device, target="host", seq_len=None)
            for one in left
        ]
        found, _ = hold(
            entrants,
            device,
            threads=threads,
            cores=None,
            rounds=_ROUNDS,
            repetitions=None,
            warmup=None,
            reference=None,
            dispatches=dispatches,
            timeout=120.0,
        )
        disturbed = []
        for one, entrant, measurement in zip(left, entrants, found, strict=True):
            share = measurement.environment["disturbance"]["foreign_share"]
            if share is not None and share > _MOST_FOREIGN:
                disturbed.append(one)
                continue
            store.add(measurement, architecture=one.architecture.to_json())
            yield one, _line(one, measurement, entrant.module)
        if not disturbed:
            return
        left = disturbed


def _line(one: Compiled, found: Measurement, module: ModuleEntry) -> dict[str, Any]:
    if found.relative is None or found.relative_interval is None:
        raise CanaoError("The reference workload does not run here, so nothing can be compared.")
    line: dict[str, Any] = {
        "version": 1,
        "digest": one.digest,
        "device": found.device,
        "fingerprint": found.fingerprint,
        "emulated": found.emulated,
        "threads": found.threads,
        "target": found.target,
        "cpu_features": list(module.features),
        "protocol": found.protocol,
        "architecture": one.architecture.to_json(),
        "relative": significant(found.relative, 5),
        "relative_interval": [significant(end, 5) for end in found.relative_interval],
        "median_ms": significant(found.median_ms, 5),
        "peak_bytes": found.peak_bytes,
        "stable": found.stable,
        "repeat_relative": [],
    }
    if found.dispatches:
        line["dispatches"] = _in_order(found.dispatches, module)
    else:
        line["calls"] = [name for name, _ in module.calls]
    return line


def _in_order(times: Sequence[DispatchTime], module: ModuleEntry) -> list[list[Any]]:
    """[name, milliseconds] of each call in the order of execution; a function whose calls are not
    told apart has their mean."""
    left: dict[str, list[float]] = {}
    for item in times:
        left.setdefault(item.name, []).extend([item.ms / item.calls] * item.calls)
    return [[name, significant(left[name].pop(0), 4)] for name, _ in module.calls]


def read_lines(path: Path) -> dict[str, dict[str, Any]]:
    """The lines of a file by the architecture that was drawn; none where there is no file."""
    if not path.exists():
        return {}
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    return {line["digest"]: line for line in lines}


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
