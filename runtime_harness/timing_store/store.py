"""The store of timings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ..measurement import Measurement
from ..protocol import PROTOCOL
from .database import connect, faults_told
from .jsonl import read_lines, write_lines
from .row import StoredTiming, object_or_none

if TYPE_CHECKING:
    from ..bundle import Bundle

__all__ = ["TimingStore"]

# What is looked for by, a row's texts, and what is too long to stand among the others.
_FOUND_BY = (
    "device",
    "fingerprint",
    "emulated",
    "protocol",
    "target",
    "threads",
    "seq_len",
    "batch",
    "precision",
    "module",
    "median_ms",
    "relative",
    "stable",
)
_APART = ("environment", "samples_ms", "dispatches")
_COLUMNS = ("digest", "added", *_FOUND_BY, "architecture", "recipe", *_APART, "measurement")
_INSERT = (
    f"INSERT OR IGNORE INTO timings ({', '.join(_COLUMNS)}) "
    f"VALUES ({', '.join('?' * len(_COLUMNS))})"
)
_ROWS = f"SELECT {', '.join(_COLUMNS)} FROM timings"


class TimingStore:
    """Timings in an SQLite file, one row per measurement.

    Several processes may write at once. A row that ``add`` returned from is never lost, even if
    the process is killed the moment after. Files are opened when they are needed and closed
    again, so that a store needs no closing.

    Every method raises InputError, in one sentence, for a file that is no store, has a newer
    schema, is damaged, or may not be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)

    @property
    def path(self) -> Path:
        """Where the store is."""
        return self._path

    def check(self) -> None:
        """Raise InputError unless rows can be added; makes the store if it is not there."""
        with closing(connect(self._path, write=True)) as connection, faults_told(self._path):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")

    def add(
        self,
        measurement: Measurement,
        *,
        architecture: Mapping[str, Any] | None = None,
        recipe: Mapping[str, Any] | None = None,
    ) -> StoredTiming:
        """Store a measurement; both others are JSON objects. Returns what was stored."""
        row = StoredTiming(
            measurement=measurement,
            architecture=object_or_none("architecture", architecture),
            recipe=object_or_none("recipe", recipe),
            added=datetime.now(UTC).isoformat(timespec="microseconds"),
        )
        self._insert([row])
        return row

    def add_of(self, bundle: Bundle, measurement: Measurement) -> StoredTiming:
        """Store a measurement of a bundle: with the architecture that its manifest says, at the
        measured length, and the recipe. Where it says none, its description of the model stands in
        the place, which no predictor learns from."""
        manifest = bundle.manifest
        return self.add(
            measurement,
            architecture=manifest.architecture(measurement.target, measurement.seq_len)
            or manifest.model,
            recipe=manifest.recipe or manifest.model.get("recipe"),
        )

    def query(
        self,
        *,
        device: str | None = None,
        emulated: bool = False,
        protocol: int = PROTOCOL,
    ) -> list[StoredTiming]:
        """Return the timings of one device, by one protocol, in the order they were stored.

        ``device`` is a name or a fingerprint; without it, all must be of the same device.
        Emulated timings are never among real ones, nor the other way round. Raises InputError
        if there are none, telling what there is, or if they are of several devices.
        """
        condition = "emulated = ? AND protocol = ?"
        values: list[Any] = [emulated, protocol]
        if device is not None:
            condition += " AND ? IN (device, fingerprint)"
            values.append(device)
        rows = [
            self._row(columns)
            for columns in self._select(f"{_ROWS} WHERE {condition} ORDER BY id", values)
        ]
        found = {row.measurement.fingerprint: row.measurement.device for row in rows}
        if len(found) > 1:
            listed = ", ".join(f"{digest} ({name})" for digest, name in found.items())
            raise InputError(
                f"the timing store {self._path} holds timings of {len(found)} devices, which "
                f"cannot be mixed: name one of {listed}"
            )
        if not rows:
            kind = "emulated" if emulated else "real"
            raise InputError(
                f"the timing store {self._path} holds no {kind} timings"
                f"{f' of {device}' if device else ''} by protocol {protocol}, but "
                f"{self._contents()}: measure on that device, or name what there is"
            )
        return rows

    def __iter__(self) -> Iterator[StoredTiming]:
        """All timings of all devices, in the order they were stored."""
        yield from map(self._row, self._select(f"{_ROWS} ORDER BY id"))

    def __len__(self) -> int:
        found = self._select("SELECT count(*) FROM timings")
        return int(found[0][0]) if found else 0

    def export(self, path: str | os.PathLike[str]) -> int:
        """Write all rows as JSON lines (compressed if the name ends in ``.gz``); return how many.

        The file is there whole or not at all. Each row says whether it is emulated.
        """
        return write_lines(Path(path), (row.to_json() for row in self))

    def load(self, path: str | os.PathLike[str]) -> int:
        """Add the rows of an exported file that are not here yet; return how many.

        All of them or, if a line is bad, none.
        """
        rows = []
        for number, value in read_lines(Path(path)):
            try:
                rows.append(StoredTiming.from_json(value))
            except InputError as error:
                raise InputError(f"{path}, line {number}: {error}") from error
        return self._insert(rows)

    def _insert(self, rows: Iterable[StoredTiming]) -> int:
        values = [_columns(row) for row in rows]
        with closing(connect(self._path, write=True)) as connection, faults_told(self._path):
            connection.execute("BEGIN IMMEDIATE")
            before = connection.total_changes
            connection.executemany(_INSERT, values)
            connection.execute("COMMIT")
            return connection.total_changes - before

    def _select(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with closing(connect(self._path, write=False)) as connection, faults_told(self._path):
            there = "SELECT 1 FROM sqlite_master WHERE name = 'timings'"
            if connection.execute(there).fetchone() is None:
                return []  # an empty file
            return connection.execute(query, values).fetchall()

    def _row(self, columns: tuple[Any, ...]) -> StoredTiming:
        texts = dict(zip(_COLUMNS, columns, strict=True))
        try:
            parts = {name: json.loads(texts[name]) for name in _APART}
            described = {
                name: None if texts[name] is None else json.loads(texts[name])
                for name in ("architecture", "recipe")
            }
            row = StoredTiming(
                measurement=Measurement.from_json(json.loads(texts["measurement"]) | parts),
                added=texts["added"],
                **described,
            )
            same = _columns(row) == columns
        except (ValueError, TypeError, InputError) as error:
            raise self._damaged(str(error)) from error
        if not same:
            raise self._damaged("its content was changed")
        return row

    def _damaged(self, why: str) -> InputError:
        return InputError(
            f"the timing store {self._path} is damaged (a row is not what was stored: {why}): "
            "use a copy of it, or start anew"
        )

    def _contents(self) -> str:
        query = (
            "SELECT count(*), device, fingerprint, emulated, protocol FROM timings "
            "GROUP BY device, fingerprint, emulated, protocol"
        )
        kinds = [
            f"{count} of {device} ({digest}{', emulated' * emulated}, protocol {protocol})"
            for count, device, digest, emulated, protocol in self._select(query)
        ]
        return ", ".join(kinds) or "nothing"


def _columns(row: StoredTiming) -> tuple[Any, ...]:
    found = row.measurement
    value = found.to_json()
    apart = [_text(value.pop(key)) for key in _APART]
    return (
        row.digest,
        row.added,
        *(getattr(found, name) for name in _FOUND_BY),
        None if row.architecture is None else _text(row.architecture),
        None if row.recipe is None else _text(row.recipe),
        *apart,
        _text(value),
    )


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
