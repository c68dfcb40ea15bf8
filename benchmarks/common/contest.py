"""One configuration (model, sequence length, threads): check everyone, then take turns."""

from __future__ import annotations

import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from .machine import choose_cpus, load_average, peak_gflops
from .models import Samples
from .processes import PeerError, PeerProcess, model_fields
from .protocol import Array, ModelSpec, Peer, Precision
from .stats import ratio_of, round_median, significant

__all__ = ["Configuration", "Entrant", "Entry", "Turns", "hold", "measure", "ratios"]

_PREPARE_SECONDS = 900.0
_CHECK_SECONDS = 120.0
_SETTLE_SECONDS = 0.02  # between turns: the last one's threads stop spinning
_CALIBRATION_CALLS = 5

# Logits count as right within these, the same for everyone at a precision. The bound on int8
# is there to catch what is broken, not to rank recipes of different accuracy: how close each
# one came stands in the results.
_MAX_RELATIVE_ERROR: dict[Precision, float] = {"f32": 1e-4}
_MIN_COSINE: dict[Precision, float] = {"bf16": 0.9995, "f16": 0.9995, "int8": 0.95}


@dataclass(frozen=True, kw_only=True)
class Turns:
    """How long to measure: in each round everyone has one turn, in random order."""

    rounds: int = 15
    turn_ms: float = 300.0  # aimed at, by the number of calls
    min_calls: int = 4
    max_calls: int = 20
    warmup: int = 2  # calls at the start of each turn that are not kept

    def calls(self, median_ms: float) -> int:
        """How many calls a turn has for one that takes ``median_ms``."""
        return max(self.min_calls, min(self.max_calls, round(self.turn_ms / median_ms)))


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What is run, and on how many cores."""

    model: ModelSpec
    seq_len: int
    threads: int


@dataclass(frozen=True)
class Entrant:
    """Who takes part, with what it built (or why it could not), and what it is held to."""

    peer: Peer
    artifact: Path | PeerError
    configuration: Configuration
    samples: Samples


@dataclass(kw_only=True)
class Entry:
    """One contestant's result; ``rounds`` holds its calls in milliseconds, per round."""

    name: str
    title: str
    precision: Precision
    ours: bool
    status: Literal["timed", "wrong", "failed"]
    reason: str = ""
    max_abs_err: float | None = None
    max_rel_err: float | None = None  # of the largest reference logit
    cosine: float | None = None  # the minimum over outputs and samples
    median_ms: float | None = None
    load_seconds: float | None = None
    cpu_per_wall: float | None = None  # about the number of threads, unless disturbed
    info: dict[str, Any] = field(default_factory=dict)
    rounds: list[list[float]] = field(default_factory=list)

    @classmethod
    def of(cls, peer: Peer) -> Entry:
        """An entry with nothing measured yet."""
        return cls(
            name=peer.name,
            title=peer.title,
            precision=peer.precision,
            ours=peer.ours,
            status="failed",
        )


def hold(
    configuration: Configuration,
    artifacts: Mapping[str, Path | PeerError],
    peers: Sequence[Peer],
    samples: Samples,
    turns: Turns,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure one configuration and return its part of the results as plain data.

    ``artifacts`` maps each contestant's name to what it built, or to why it could not.
    Contestants that fail, or whose logits differ from PyTorch's, are reported and not timed.
    """
    cpus = choose_cpus(configuration.threads)
    began = {"load": load_average(), "peak_gflops": peak_gflops(cpus)}
    entries = measure(
        [Entrant(peer, artifacts[peer.name], configuration, samples) for peer in peers],
        turns,
        seed=seed,
    )
    ended = {"load": load_average(), "peak_gflops": peak_gflops(cpus)}
    timed = [entry for entry in entries if entry.status == "timed"]
    return {
        "model": configuration.model.name,
        "title": configuration.model.title,
        "random_weights": configuration.model.random_weights,
        "seq_len": configuration.seq_len,
        "threads": configuration.threads,
        "cpus": cpus,
        "before": began,
        "after": ended,
        "entries": [asdict(entry) for entry in entries],
        "ratios": ratios(timed),
    }


def measure(entrants: Sequence[Entrant], turns: Turns, *, seed: int = 0) -> list[Entry]:
    """Check everyone, then take turns on the same cores; the entries in the same order.

    All have as many threads; those that fail, or whose logits are wrong, are not timed.
    """
    cpus = choose_cpus(entrants[0].configuration.threads)
    entries = [Entry.of(entrant.peer) for entrant in entrants]
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as scratch:
        running: list[tuple[PeerProcess, Entry]] = []
        for entrant, entry in zip(entrants, entries, strict=True):
            try:
                if isinstance(entrant.artifact, PeerError):
                    raise entrant.artifact
                process = stack.enter_context(PeerProcess(entrant.peer))
                _prepare(process, entry, entrant, cpus, Path(scratch))
                if entry.status == "timed":
                    running.append((process, entry))
                else:
                    process.close()
            except PeerError as error:
                entry.status, entry.reason = "failed", str(error)
            _tell(f"  {entry.name}: {entry.status} {entry.reason or _numbers(entry)}")
        _take_turns(running, turns, random.Random(seed))
    return entries


def ratios(timed: Sequence[Entry]) -> list[dict[str, Any]]:
    """Every contestant's time over that of each of our own (above 1: ours is faster)."""
    found = []
    for ours in (entry for entry in timed if entry.ours):
        for theirs in (entry for entry in timed if not entry.ours):
            ratio = ratio_of(theirs.rounds, ours.rounds)
            numbers = {key: significant(value) for key, value in asdict(ratio).items()}
            found.append({"ours": ours.name, "theirs": theirs.name, **numbers})
    return found


def _prepare(
    process: PeerProcess, entry: Entry, entrant: Entrant, cpus: list[int], scratch: Path
) -> None:
    """Load the model in its process and compare its logits; sets the entry's status."""
    import numpy as np

    first, every, outputs = (scratch / f"{name}.npz" for name in ("first", "every", "outputs"))
    configuration, samples = entrant.configuration, entrant.samples
    ids, mask = samples.input_ids, samples.attention_mask
    np.savez(first, input_ids=ids[0], attention_mask=mask[0])
    np.savez(every, input_ids=ids, attention_mask=mask)
    prepared = process.request(
        "prepare",
        timeout=_PREPARE_SECONDS,
        artifact=str(entrant.artifact),
        model=model_fields(configuration.model),
        seq_len=configuration.seq_len,
        threads=configuration.threads,
        cpus=cpus,
        inputs=str(first),
    )
    entry.info = prepared["info"]
    entry.load_seconds = significant(prepared["seconds"])
    process.request("check", timeout=_CHECK_SECONDS, inputs=str(every), outputs=str(outputs))
    with np.load(outputs) as answer:
        _compare(entry, samples, [answer[name] for name in answer.files])


def _compare(entry: Entry, samples: Samples, outputs: Sequence[Array]) -> None:
    """Hold the logits against PyTorch's; those of tokens where a token is not padding."""
    import numpy as np

    errors, relative, cosines = [0.0], [0.0], [1.0]
    for output, reference in zip(outputs, samples.outputs, strict=True):
        for index, mask in enumerate(samples.attention_mask):
            right = reference[index, 0].astype(np.float64)
            real = mask[0] != 0 if right.size == mask.size else np.ones(right.size, bool)
            got = output[index].reshape(-1)[: real.size].astype(np.float64)
            right, got = right[real], got[real] if got.size == real.size else got
            if got.shape != right.shape or not np.isfinite(got).all():
                entry.status, entry.reason = "wrong", "the logits are not finite numbers"
                return
            error = float(np.abs(got - right).max())
            errors.append(error)
            relative.append(error / float(np.abs(right).max()))
            norms = float(np.linalg.norm(got) * np.linalg.norm(right))
            cosines.append(float(got @ right) / norms if norms else 0.0)
    entry.max_abs_err = significant(max(errors))
    entry.max_rel_err = significant(max(relative))
    entry.cosine = significant(min(cosines), 6)
    entry.status = "timed"
    bound = _MAX_RELATIVE_ERROR.get(entry.precision)
    if bound is not None and max(relative) > bound:
        entry.status = "wrong"
        entry.reason = f"relative error {max(relative):.2g}, at most {bound:g} is right"
    bound = _MIN_COSINE.get(entry.precision)
    if bound is not None and min(cosines) < bound:
        entry.status = "wrong"
        entry.reason = f"cosine {min(cosines):.5f}, at least {bound:g} is right"


def _take_turns(
    running: Sequence[tuple[PeerProcess, Entry]], turns: Turns, order: random.Random
) -> None:
    calls: list[int] = []
    used = [[0.0, 0.0] for _ in running]
    for process, _ in running:
        trial = process.request(
            "run", timeout=_CHECK_SECONDS, n=_CALIBRATION_CALLS, warmup=turns.warmup
        )
        calls.append(turns.calls(statistics.median(trial["samples_ms"])))
    for number in range(turns.rounds):
        places = list(range(len(running)))
        order.shuffle(places)
        for place in places:
            process, entry = running[place]
            time.sleep(_SETTLE_SECONDS)
            turn = process.request(
                "run", timeout=_CHECK_SECONDS, n=calls[place], warmup=turns.warmup
            )
            entry.rounds.append([significant(x) for x in turn["samples_ms"]])
            used[place][0] += turn["cpu_ms"]
            used[place][1] += turn["wall_ms"]
        _tell(f"  round {number + 1}/{turns.rounds}", end="\r")
    for (_, entry), (cpu, wall) in zip(running, used, strict=True):
        entry.median_ms = significant(round_median(entry.rounds))
        entry.cpu_per_wall = significant(cpu / wall, 3)
        _tell(f"  {entry.name}: {entry.median_ms:g} ms, {entry.cpu_per_wall:g} cores busy")


def _numbers(entry: Entry) -> str:
    return f"(error {entry.max_abs_err:g}, cosine {entry.cosine:g}) {entry.info or ''}"


def _tell(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)
