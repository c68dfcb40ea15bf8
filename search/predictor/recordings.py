"""Where measurements come from: files of JSON lines, timing stores, and what ships with canao."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ...errors import InputError
from ...runtime_harness.device import DispatchTime
from ...runtime_harness.protocol import PROTOCOL
from ...runtime_harness.timing_store import StoredTiming, TimingStore
from ...runtime_harness.timing_store.jsonl import read_lines
from ...targets.host import host_target
from ..space.architecture import Architecture
from .records import Record, Setting

__all__ = [
    "MOST_SLOWER",
    "MOST_SPREAD",
    "likeness",
    "most_like",
    "of_settings",
    "of_store",
    "read_recording",
    "select",
    "shipped",
    "shipped_for_this_cpu",
    "times_of",
]

MOST_SPREAD = 0.1
"""How wide, on either side, the interval of a measurement may be that counts."""
MOST_SLOWER = 1.25
"""How much longer than usual the reference may have taken beside a measurement that counts."""

_SHIPPED = Path(__file__).parent / "recorded"


def shipped() -> list[Record]:
    """All measurements that ship with canao; raises `InputError` where there are none."""
    files = sorted([*_SHIPPED.glob("*.jsonl"), *_SHIPPED.glob("*.jsonl.gz")])
    found = [record for file in files for record in read_recording(file)]
    if not found:
        raise InputError(f"No measurements ship in {_SHIPPED}: name a timing store.")
    return found


def shipped_for_this_cpu() -> list[Record]:
    """What ships of the device whose CPU is most like this machine's; raises as `shipped`."""
    return most_like(shipped(), host_target().features)


def most_like(records: Sequence[Record], features: Collection[str]) -> list[Record]:
    """The records of one device: of that whose CPU is most like one with ``features`` (LLVM's
    names), and of those the one that has most."""
    devices: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        devices[record.setting.fingerprint].append(record)

    def rank(found: list[Record]) -> tuple[float, int]:
        return likeness(found, features), len(found)

    return max(devices.values(), key=rank, default=[])


def likeness(records: Iterable[Record], features: Collection[str]) -> float:
    """Of the features that the CPU of a device's records or the other one has, the share that
    both have. Records of f32 name few of them: that counts which is most alike."""
    other = set(features)
    named = ({*record.setting.cpu_features} for record in records)
    return max(len(own & other) / len(own | other) if own | other else 0.0 for own in named)


def read_recording(path: str | os.PathLike[str]) -> list[Record]:
    """The records of a file, one a line, ``.gz`` or not. `InputError` names the line at fault."""
    found = []
    for number, value in read_lines(Path(path)):
        try:
            found.append(Record.from_json(value))
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from error
    return found


def of_store(
    path: str | os.PathLike[str],
    *,
    device: str | None = None,
    emulated: bool = False,
    protocol: int = PROTOCOL,
) -> tuple[list[Record], int]:
    """(records, rows left out) of one device in a timing store.

    Left out is what does not say its whole architecture, has no reference workload beside it, gave
    wrong numbers, or ran something else than one text of the architecture's length. Raises
    `InputError` where nothing is left, and as `TimingStore.query` does.
    """
    rows = TimingStore(path).query(device=device, emulated=emulated, protocol=protocol)
    found = [record for record in map(_of_row, rows) if record is not None]
    if not found:
        raise InputError(
            f"None of the {len(rows)} timings in {path} says the whole architecture of its model "
            "and its time relative to the reference: measure bundles of BERT that this canao "
            "compiled, which say it."
        )
    return found, len(rows) - len(found)


def of_settings(path: str | os.PathLike[str], settings: Collection[Setting]) -> list[Record]:
    """The records of some settings in a timing store, in the order they were stored; none where
    there is no store. Raises `InputError` where it is damaged."""
    if not Path(path).exists():
        return []
    records = map(_of_row, TimingStore(path))
    return [record for record in records if record is not None and record.setting in settings]


def times_of(dispatches: Iterable[DispatchTime]) -> tuple[tuple[str, float], ...]:
    """(name, milliseconds) of each call of a dispatch, as a `Record` has them."""
    return tuple((one.name, one.ms / one.calls) for one in dispatches for _ in range(one.calls))


def select(
    records: Iterable[Record],
    *,
    device: str | None = None,
    threads: int | None = None,
    target: str | None = None,
    emulated: bool = False,
    protocol: int = PROTOCOL,
) -> list[Record]:
    """The records of one setting, one for each architecture, in the order they came.

    ``device`` is a name or a fingerprint. What was measured again is joined to
    ``repeat_relative``. Disturbed measurements are left out, which can neither teach nor judge:
    whose own interval is wider than `MOST_SPREAD` on either side, or whose reference workload
    took over `MOST_SLOWER` times as long as it does in the quickest tenth.

    Raises `InputError`, telling what there is, where there is none or where several settings are
    left: they are never mixed.
    """
    given = list(records)
    chosen = [
        record
        for record in given
        for setting in [record.setting]
        if setting.emulated == emulated
        and setting.protocol == protocol
        and (device is None or device in (setting.device, setting.fingerprint))
        and (threads is None or setting.threads == threads)
        and (target is None or setting.target == target)
    ]
    settings = list(dict.fromkeys(record.setting for record in chosen))
    if len(settings) == 1:
        quick = sorted(map(_reference, chosen))[len(chosen) // 10]
        steady = [
            record
            for record in chosen
            if record.spread <= MOST_SPREAD and _reference(record) <= MOST_SLOWER * quick
        ]
        if not steady:
            raise InputError(
                f"All {len(chosen)} measurements of {settings[0]} were disturbed: their intervals "
                f"are wider than {MOST_SPREAD:.0%} on either side; measure again, undisturbed."
            )
        # A bundle in f32 says less of its machine: it names no features but those it needs.
        widest = max((record.setting for record in steady), key=lambda one: len(one.cpu_features))
        return _joined([replace(record, setting=widest) for record in steady])
    if settings:
        raise InputError(
            f"The measurements are of {len(settings)} settings, which cannot be mixed: choose "
            f"one by device, target and threads from {_told(settings)}."
        )
    wanted = [
        "emulated" if emulated else "real",
        "measurements",
        *([f"of {device}"] if device else []),
        *([f"for {target}"] if target else []),
        *([f"with {threads} threads"] if threads else []),
    ]
    there = list(dict.fromkeys(record.setting for record in given))
    raise InputError(
        f"There are no {' '.join(wanted)} by protocol {protocol}, but {_told(there) or 'nothing'}."
    )


def _reference(record: Record) -> float:
    """Milliseconds of the reference workload beside it."""
    return record.median_ms / record.relative


def _told(settings: Sequence[Setting]) -> str:
    return "; ".join(map(str, settings))


def _joined(records: Sequence[Record]) -> list[Record]:
    together: dict[Architecture, list[Record]] = defaultdict(list)
    for record in records:
        together[record.architecture].append(record)
    found = []
    for same in together.values():
        times = [time for one in same for time in (one.relative, *one.repeat_relative)]
        timed = next((one.dispatches for one in same if one.dispatches), ())
        calls = next((one.calls for one in same if one.calls), ())
        again = tuple(times[1:])
        found.append(replace(same[0], repeat_relative=again, dispatches=timed, calls=calls))
    return found


def _of_row(row: StoredTiming) -> Record | None:
    measured = row.measurement
    try:
        architecture = Architecture.from_json(row.architecture)
    except InputError:
        return None
    if measured.relative is None or measured.relative <= 0 or measured.median_ms <= 0:
        return None
    if measured.numerics_ok is False:
        return None
    if measured.seq_len != architecture.seq_len or measured.batch != 1:
        return None
    features = measured.device_details.get("cpu_features") or ()
    return Record(
        setting=Setting(
            device=measured.device,
            fingerprint=measured.fingerprint,
            emulated=measured.emulated,
            threads=measured.threads,
            target=measured.target,
            cpu_features=tuple(map(str, features)),
            protocol=measured.protocol,
        ),
        architecture=architecture,
        relative=measured.relative,
        # An emulator has too few rounds for one that tells.
        relative_interval=None if measured.emulated else measured.relative_interval,
        median_ms=measured.median_ms,
        dispatches=times_of(measured.dispatches),
        stable=measured.stable,
        peak_bytes=measured.peak_bytes,
    )
