"""All trials of a study, by one process or several."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NoReturn

from ...errors import CanaoError
from ..controllers import Controller, make
from ..controllers.warm_start import WarmStart
from ..space.scalings import scalings
from .folder import StudyFolder
from .ledger import Ledger, finished_in
from .liveness import BEAT, PATIENCE, Watch, Worker
from .problem import Evaluator
from .storage import open_storage, reachable
from .trial import Trial
from .work import Snapshot, read_trials, trials_of, work

__all__ = ["MakeEvaluator", "looked_at", "opened", "run_trials"]

MakeEvaluator = Callable[[StudyFolder], Evaluator]
"""Makes what judges architectures, in each worker. It is called by name in processes that are
started for it, so it must be a function of a module."""

_POLL = 0.3
_MOST_DEATHS = 9
# A worker that stops for a reason adds its error's own code to this.
_REFUSED = 66
_CODES = range(1, 10)
_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def opened(
    folder: StudyFolder, beat: float = BEAT, patience: float = PATIENCE
) -> Iterator[Ledger]:
    """The study's trials, for this process as a worker."""
    storage = open_storage(folder.storage, folder.journal)
    with Worker(folder.workers) as worker, reachable(folder.storage):
        yield Ledger(
            storage,
            _name(folder),
            plan=folder.plan.digest,
            worker=worker,
            watch=Watch(folder.workers, patience),
            beat=beat,
        )


def looked_at(folder: StudyFolder) -> dict[int, Trial]:
    """A study's finished trials, for who takes no part in it: nothing is written."""
    storage = open_storage(folder.storage, folder.journal, look=True)
    with reachable(folder.storage):
        found = read_trials(finished_in(storage, _name(folder), folder.plan.digest))
    return {number: found[number] for number in found if number < folder.trials}


def _name(folder: StudyFolder) -> str:
    return f"canao-{folder.plan.digest}"


def run_trials(
    folder: StudyFolder,
    evaluator: MakeEvaluator,
    *,
    workers: int = 1,
    told: Callable[[Mapping[int, Trial]], None] | None = None,
) -> dict[int, Trial]:
    """Do what is left of a study's trials and return all, by number.

    ``workers``: how many processes; with one it is this process. ``told`` is called with all
    finished trials whenever there are more. A process that ends by itself has its trial done by
    another. Raises `CanaoError` where processes keep ending.
    """
    if workers == 1:
        return _work(folder, evaluator, told)
    with opened(folder) as ledger:
        context = multiprocessing.get_context("spawn")
        crew = _Crew(context, folder.path, evaluator, workers)
        try:
            _supervise(crew, ledger, folder.trials, told)
        finally:
            crew.end()
        found = trials_of(ledger)
    return {number: found[number] for number in found if number < folder.trials}


class _Crew:
    """Processes at work; whoever ends too early is followed by another."""

    def __init__(
        self,
        context: multiprocessing.context.SpawnContext,
        path: Path,
        evaluator: MakeEvaluator,
        count: int,
    ) -> None:
        self._context = context
        self._arguments = (path, evaluator, os.getpid(), count)
        self.members = [self.start() for _ in range(count)]

    def start(self) -> BaseProcess:
        """One more."""
        member = self._context.Process(target=_member, args=self._arguments)
        member.start()
        return member

    def end(self) -> None:
        """Stop them all."""
        for member in self.members:
            member.terminate()
        for member in self.members:
            member.join()


def _supervise(
    crew: _Crew,
    ledger: Ledger,
    trials: int,
    told: Callable[[Mapping[int, Trial]], None] | None,
) -> None:
    deaths, known = 0, -1
    while any(member.is_alive() for member in crew.members):
        time.sleep(_POLL)
        found = trials_of(ledger)
        if told is not None and len(found) != known:
            known = len(found)
            told(found)
        for place, member in enumerate(crew.members):
            if member.exitcode in (None, 0):
                continue
            if (code := member.exitcode - _REFUSED) in _CODES:
                error = CanaoError("A worker stopped with the error above; the study can go on.")
                error.exit_code = code
                raise error
            deaths += 1
            ledger.bury_process(member.pid or 0)
            if deaths > _MOST_DEATHS:
                raise CanaoError(
                    f"Workers of the study ended {deaths} times by themselves (the last one with "
                    f"code {member.exitcode}): give them more memory, or take fewer workers."
                )
            crew.members[place] = crew.start()


def _member(path: Path, evaluator: MakeEvaluator, parent: int, count: int) -> None:
    _die_with(parent)
    # Before torch is imported: workers share the cores.
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // count))
    try:
        _work(StudyFolder.open(path), evaluator, None)
    except CanaoError as error:
        _stop(str(error), error.exit_code)
    except MemoryError:
        raise  # as if the kernel had killed it: another may have more
    except Exception as error:
        traceback.print_exc()
        _stop(f"unexpected {type(error).__name__}: {error}", CanaoError.exit_code)


def _stop(why: str, code: int) -> NoReturn:
    sys.stderr.write(f"canao: {why}\n")
    sys.stderr.flush()
    os._exit(_REFUSED + code)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, in whatever way."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was told
        os._exit(1)


def _work(
    folder: StudyFolder,
    evaluator: MakeEvaluator,
    told: Callable[[Mapping[int, Trial]], None] | None,
) -> dict[int, Trial]:
    plan = folder.plan

    def controller() -> Controller:
        made = make(
            plan.controller,
            plan.space,
            seed=plan.seed,
            trials=folder.trials,
            limit=plan.specification.latency_ms,
        )
        # What the others are compared with stays random.
        return made if plan.controller == "random" else WarmStart(made, scalings(plan.space))

    with opened(folder) as ledger:
        finished = trials_of(ledger)
        if all(number in finished for number in range(folder.trials)):
            return {number: finished[number] for number in range(folder.trials)}
        return work(
            ledger,
            controller,
            plan.space,
            evaluator(folder),
            trials=folder.trials,
            snapshot=Snapshot(path=folder.controller),
            told=told,
        )
