"""A folder of the cache in which one training works, and which one process at a time may use."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ...errors import CanaoError
from ...leases import mark_used
from ...paths import cache_dir
from ...runtime_harness.bundle.atomic import replace_file

__all__ = ["Workshop", "agreed", "is_first", "processes", "together", "workshop"]

_RESULT = "result.json"
_Value = TypeVar("_Value")


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """``checkpoints`` hold what is not finished; ``model`` and the result are there when all is.

    Several processes that train together share one; the first of them writes.
    """

    folder: Path

    @property
    def checkpoints(self) -> Path:
        """Where the training goes on."""
        return self.folder / "checkpoints"

    @property
    def model(self) -> Path:
        """The finished model's directory."""
        return self.folder / "model"

    def result(self) -> dict[str, Any] | None:
        """What `finish` was told, the same in every process; None before that."""
        return agreed(self._read() if is_first() else None)

    def finish(self, write_model: Callable[[Path], object], result: dict[str, Any]) -> None:
        """Keep the finished model and its result; checkpoints are needed no more."""
        together()  # none reads a checkpoint any more
        if is_first():
            write_model(self.model)
            replace_file(self.folder / _RESULT, json.dumps(result, indent=1).encode())
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        together()

    def amend(self, result: dict[str, Any]) -> None:
        """Keep another result of the finished model."""
        if is_first():
            replace_file(self.folder / _RESULT, json.dumps(result, indent=1).encode())
        together()

    def _read(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.folder / _RESULT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if self.model.is_dir() else None


@contextlib.contextmanager
def workshop(key: str) -> Iterator[Workshop]:
    """The workshop of that name in the user's cache, for this process (and those it trains with).

    Raises `CanaoError` where another process is at the same training.
    """
    folder = cache_dir("training", key)
    mark_used(folder)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if not agreed(is_first() and _locked(descriptor)):
            raise CanaoError(
                f"Another process is at the very same training (in {folder}): wait for it, "
                "its result will be found."
            )
        yield Workshop(folder=folder)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_first() -> bool:
    """Whether this process is alone, or the first of those that train together."""
    return bool(_state().is_main_process)


def processes() -> int:
    """How many processes train together."""
    return int(_state().num_processes)


def together() -> None:
    """Wait until every process that trains with this one is here."""
    _state().wait_for_everyone()


def agreed(value: _Value) -> _Value:
    """What the first process passes, in every process that trains with it."""
    from accelerate.utils import broadcast_object_list

    if processes() == 1:
        return value
    shared = [value]
    broadcast_object_list(shared)
    return shared[0]


def _state() -> Any:
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())
