"""A study's directory: what is asked, and where everything of it is kept.

study.json      the plan, how many trials, where the trials are kept, the command
trials.log      the trials, unless another storage was named
trials.log.end  how many lines that has
controller.json what the controller has learnt
workers/        locks of the processes at work
finalists/      one directory for each model that was compiled, measured, trained
timings.db      every measurement, with the architecture that was measured
predictor.json  the predictor, which has learned from them
result.json     what came out
best.canao      the chosen model, compiled
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...compiler.compression import fields
from ...errors import InputError
from ...runtime_harness.bundle.atomic import os_errors, replace_file
from .plan import StudyPlan
from .typed import damaged, read_file, read_row

__all__ = ["StudyFolder"]

_VERSION = 2
_FILE = "study.json"
_REMEDY = "restore it from a copy, or begin another study"
_STUDY = {
    "version": int,
    "plan": Mapping[str, Any],
    "trials": int,
    "storage": str | None,
    "asked": Mapping[str, Any],
}
_ASKED = {
    "model": str,
    "data": str,
    "teacher": str | None,
    "dev": str | None,
    "split": str,
    "metric": str | None,
    "predictor": str | None,
}


@dataclass(frozen=True, kw_only=True)
class StudyFolder:
    """``trials``: how many there shall be; ``storage``: the URL of another storage, or None;
    ``asked``: the arguments of the call, for the report."""

    path: Path
    plan: StudyPlan
    trials: int
    storage: str | None
    asked: Mapping[str, Any]

    @property
    def journal(self) -> Path:
        """The study's own storage."""
        return self.path / "trials.log"

    @property
    def workers(self) -> Path:
        """Locks."""
        return self.path / "workers"

    @property
    def controller(self) -> Path:
        """What the controller has learnt."""
        return self.path / "controller.json"

    @property
    def calibration(self) -> Path:
        """What is known of the device."""
        return self.path / "calibration.json"

    @property
    def timings(self) -> Path:
        """Every measurement of this machine."""
        return self.path / "timings.db"

    @property
    def result(self) -> Path:
        """What came out."""
        return self.path / "result.json"

    def finalist(self, digest: str) -> Path:
        """The directory of a finalist, made if it is not there."""
        found = self.path / "finalists" / digest
        found.mkdir(parents=True, exist_ok=True)
        return found

    @classmethod
    def begin(
        cls,
        path: str | os.PathLike[str],
        plan: StudyPlan,
        *,
        trials: int,
        storage: str | None,
        asked: Mapping[str, Any],
    ) -> StudyFolder:
        """Make the directory, or go on in it; more ``trials`` than before may be asked for.

        Raises `InputError` where it holds another study, something else, or a damaged study.
        """
        place = Path(path)
        if type(trials) is not int or trials < 1:
            raise InputError(f"trials must be a whole number from 1 on, not {trials!r}.")
        if (place / _FILE).exists():
            known = cls.open(place)
            if changed := known.plan.differences(plan):
                raise InputError(
                    f"{place} holds a study with another {', '.join(changed)}: name another "
                    "directory, or ask for what it holds."
                )
            if known.storage != storage:
                raise InputError(
                    f"{place} keeps its trials in {known.storage or 'its own file'}: ask for that "
                    "storage, or name another directory."
                )
        elif place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise InputError(f"{place} is there and is no study: name another directory.")
        found = cls(path=place, plan=plan, trials=trials, storage=storage, asked=asked)
        with os_errors(f"making {place}"):
            found.workers.mkdir(parents=True, exist_ok=True)
        replace_file(place / _FILE, json.dumps(found._to_json(), indent=1).encode())
        return found

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> StudyFolder:
        """A study that is there. Raises `InputError` where there is none, or it is damaged."""
        place = Path(path)
        file = place / _FILE
        if not file.is_file():
            raise InputError(f"{place} holds no study: name a directory that 'canao search' made.")
        with damaged(file, _REMEDY):
            found = read_row(read_file(file), {"version": int}, "a study")
        if found["version"] != _VERSION:
            raise InputError(
                f"{file} is of version {found['version']}, and this canao reads {_VERSION}: begin "
                "another study."
            )
        with damaged(file, _REMEDY):
            found = read_row(found, _STUDY, "a study")
            return cls(
                path=place,
                plan=StudyPlan.from_json(found["plan"]),
                trials=fields.whole(found["trials"], "trials", least=1),
                storage=found["storage"],
                asked=read_row(found["asked"], _ASKED, "asked"),
            )

    def _to_json(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "plan": self.plan.to_json(),
            "trials": self.trials,
            "storage": self.storage,
            "asked": dict(self.asked),
        }
