"""A teacher's targets, computed once for all rows and kept.

What is distilled from a teacher does not change from epoch to epoch, while a small student's own
pass costs less than the teacher's. The targets of all rows are computed in one pass before the
training, in an order that depends on the rows alone, so that a training that goes on gets the very
same. They lie in memory where they take at most a quarter of it, else in a file, if that takes at
most half of what is free on its disk.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import torch

from ..tasks import Feature
from ..tasks.batching import length_batches
from .batches import SEQUENCE, Collator
from .student import LABELS, Teacher
from .targets import Columns, Targets

__all__ = ["RememberedTeacher", "Room", "remember"]

_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Room:
    """Where targets may lie: in ``memory`` bytes of memory, or in ``disk`` bytes of ``folder``."""

    memory: int
    disk: int
    folder: Path

    @classmethod
    def of(cls, folder: Path) -> Room:
        """A quarter of the machine's memory, and half of what is free where ``folder`` is."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        folder.mkdir(parents=True, exist_ok=True)
        return cls(memory=memory // 4, disk=shutil.disk_usage(folder).free // 2, folder=folder)


class RememberedTeacher:
    """Gives the targets of features by their numbers."""

    def __init__(
        self,
        columns: Columns,
        kept: _Kept,
        dtype: torch.dtype,
        ends: Sequence[int],
        texts: Sequence[torch.Tensor],
    ) -> None:
        self._columns, self._kept, self._dtype, self._texts = columns, kept, dtype, texts
        self._ends = [0, *ends]

    def __call__(self, sequences: torch.Tensor, length: int) -> Targets:
        """Targets of the features ``sequences`` [rows], padded with zeros to ``length`` tokens."""
        numbers = sequences.tolist()
        joined = torch.zeros((len(numbers), length, self._columns.width), dtype=self._dtype)
        for row, number in enumerate(numbers):
            start, stop = self._ends[number], self._ends[number + 1]
            self._kept.read(start, joined[row, : stop - start])
        return self._columns.cut(joined, [found[sequences] for found in self._texts])


def remember(
    teacher: Teacher,
    features: Sequence[Feature],
    collate: Collator,
    room: Room,
    *,
    autocast: Callable[[], AbstractContextManager[None]],
    dtype: torch.dtype = torch.float32,
    progress: Callable[[float], object] = lambda _: None,
) -> RememberedTeacher | None:
    """Ask ``teacher`` for all ``features`` and keep what it says of each token in ``dtype``.

    ``progress`` is told which share of the features is done, at whole percents. None where there
    is no ``room``, which the first batch already shows, and where there are no features.
    """
    lengths = [len(feature["input_ids"]) for feature in features]
    ends = torch.tensor(lengths).cumsum(0).tolist()

    def answers() -> Iterator[tuple[list[int], Targets]]:
        for order in length_batches(lengths, _BATCH):
            batch = collate([features[number] for number in order])
            inputs = {name: batch[name] for name in batch if name not in (*LABELS, SEQUENCE)}
            with autocast():
                targets = teacher(inputs)
            yield order, targets

    asked = answers()
    first = next(asked, None)
    if first is None:
        return None
    columns = Columns(first[1])
    kept = _place(ends[-1], columns.width, dtype, room)
    if kept is None:
        return None
    texts = [one.new_empty((len(features), *one.shape[1:])) for one in columns.texts(first[1])]
    done = 0
    for order, targets in chain([first], asked):
        if columns.width:
            joined = columns.join(targets)
            for row, number in enumerate(order):
                kept.write(ends[number] - lengths[number], joined[row, : lengths[number]])
        for found, one in zip(texts, columns.texts(targets), strict=True):
            found[order] = one
        before, done = done, done + len(order)
        if 100 * before // len(features) < 100 * done // len(features):
            progress(done / len(features))
    return RememberedTeacher(columns, kept, dtype, ends, texts)


class _Kept(Protocol):
    """What is kept of tokens, one after the other."""

    def write(self, start: int, rows: torch.Tensor) -> None:
        """Keep ``rows`` [tokens, width] from the token ``start`` on."""

    def read(self, start: int, rows: torch.Tensor) -> None:
        """Fill ``rows`` with what was kept."""


class _InMemory:
    def __init__(self, tokens: int, width: int, dtype: torch.dtype) -> None:
        self._all = torch.empty((tokens, width), dtype=dtype)

    def write(self, start: int, rows: torch.Tensor) -> None:
        self._all[start : start + len(rows)] = rows

    def read(self, start: int, rows: torch.Tensor) -> None:
        rows[:] = self._all[start : start + len(rows)]


class _OnDisk:
    """In a file without a name: it goes with this process, however that ends.

    It is read a text at a time. Mapped, each text read would bring in megabytes beside it.
    """

    def __init__(self, folder: Path, size: int, width: int, dtype: torch.dtype) -> None:
        # Closed when nobody has it any more.
        self._file = tempfile.TemporaryFile(prefix="targets-", dir=folder, buffering=0)  # noqa: SIM115
        self._bytes = width * dtype.itemsize
        self._dtype = dtype
        os.posix_fallocate(self._file.fileno(), 0, size)  # a full disk says so here
        os.posix_fadvise(self._file.fileno(), 0, size, os.POSIX_FADV_RANDOM)

    def write(self, start: int, rows: torch.Tensor) -> None:
        data = memoryview(_bytes(rows.to(self._dtype).contiguous()))
        place = start * self._bytes
        while data:
            done = os.pwrite(self._file.fileno(), data, place)
            data, place = data[done:], place + done

    def read(self, start: int, rows: torch.Tensor) -> None:
        data = memoryview(_bytes(rows))
        place = start * self._bytes
        while data:
            done = os.preadv(self._file.fileno(), [data], place)
            data, place = data[done:], place + done


def _bytes(rows: torch.Tensor) -> Any:
    """The memory of a contiguous tensor, as an array of bytes."""
    return rows.view(-1).view(torch.uint8).numpy()


def _place(tokens: int, width: int, dtype: torch.dtype, room: Room) -> _Kept | None:
    """Where [tokens, width] can lie, if anywhere."""
    size = tokens * width * dtype.itemsize
    if size <= room.memory:
        return _InMemory(tokens, width, dtype)
    try:
        return _OnDisk(room.folder, size, width, dtype) if size <= room.disk else None
    except OSError:
        return None
