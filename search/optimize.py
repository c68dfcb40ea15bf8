"""``canao.optimize``: search for the model that is as accurate as possible and certain to meet a
device's specification.

Check the call; measure a few models on the device; prepare the shared weights; try
architectures; compile, train and measure the most promising; take the most accurate one that
meets every limit. What was done is kept in the study's directory, and not done again.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..compiler.models import load_model
from ..errors import DoesNotFitError, InputError, MissingDeviceError
from ..runtime_harness.bundle.atomic import os_errors, replace_file
from ..runtime_harness.devices import get
from ..runtime_harness.timing_store import TimingStore
from ..targets import get as get_target
from .compress_inputs import read_data, read_options
from .predictor.predictor import LatencyPredictor
from .space.space import ArchitectureSpace
from .study.calibration import Calibration, calibrate
from .study.call import (
    digest_of_file,
    digest_of_source,
    read_limits,
    read_space,
    read_target,
)
from .study.checks import check_metric, check_space, check_target
from .study.closing import hold
from .study.folder import StudyFolder
from .study.identity import identities
from .study.judging import judge_of, problem_of
from .study.ledger import Ledger
from .study.plan import StudyPlan
from .study.pool import DevicePool
from .study.possible import fastest
from .study.progress import Progress
from .study.result import StudyResult, none_possible
from .study.running import opened, run_trials
from .study.units import enough_latency, enough_memory
from .training.keys import digest_of_rows
from .training.options import TrainingOptions

__all__ = ["optimize"]

_CALIBRATION = -1
_FINALS = -1000
_PATIENCE = 60.0


def optimize(
    model: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    device: str | Sequence[str] = "local",
    latency: str | float | None = None,
    memory: str | int | None = None,
    max_loss: str | float | None = None,
    trials: int = 200,
    controller: str = "nsga2",
    space: ArchitectureSpace | str | os.PathLike[str] | None = None,
    storage: str | None = None,
    workers: int = 1,
    seed: int = 0,
    finalists: int = 2,
    target: str | None = None,
    threads: int = 1,
    teacher: str | os.PathLike[str] | None = None,
    options: TrainingOptions | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    predictor: str | os.PathLike[str] | None = None,
    dev: str | os.PathLike[str] | None = None,
    split: str = "dev",
    metric: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> StudyResult:
    """Search in the study ``output``, which goes on if it is there, and return what it found.

    ``model``, ``data``, ``teacher``, ``options``, ``dev``, ``split`` and ``metric`` are as for
    ``canao.compress``; options are those of the finalists' training. ``device``: one, or several
    of one kind. ``latency`` (milliseconds, or a text such as ``"10ms"``), ``memory`` (bytes, or
    ``"64MB"``) and ``max_loss`` (points of the metric, or ``"1%"``) are the specification; None:
    no limit. ``trials``: how many architectures are tried; ``controller``: nsga2, tpe, rnn or
    random. ``space``: what may be chosen from, a value or a file; all sub-networks of the model
    if left. ``storage``: where trials are kept, see `study.storage.open_storage`; processes on
    other machines join by the same call. ``workers``: processes here. ``finalists``: how many
    are trained until they pass. ``target``: the first that the device runs, if left; a process
    that names it, and a storage that others share, takes part in trials without the device.
    ``predictor``: a file of ``canao predict train``; what ships with canao if left.

    Raises `DoesNotFitError` where no model meets the specification, saying how near the best
    came; `InputError` for whatever is wrong with the call, before anything is trained;
    `DeviceError` where the device is lost: the same call then goes on.
    """
    began = time.monotonic()
    tell = progress or (lambda _: None)
    specification = read_limits(latency, memory, max_loss)
    devices = (device,) if isinstance(device, str) else tuple(device)
    if type(workers) is not int or workers < 1:
        raise InputError(f"workers must be a whole number from 1 on, not {workers!r}.")
    chosen = read_options(options)
    source = LatencyPredictor.load(predictor) if predictor is not None else None
    target, absent = read_target(devices, target, storage)
    place = get_target(target)
    check_target(place)
    tell("reading the data")
    origin = os.fspath(teacher if teacher is not None else model)
    task, train, judged = read_data(origin, os.fspath(data), os.fspath(dev or data), split, metric)
    check_metric(task)
    offered = read_space(space, origin, task, place)
    check_space(offered, place, task, load_model(origin).module)
    plan = StudyPlan(
        model=digest_of_source(origin),
        data=digest_of_rows(train.rows),
        dev=digest_of_rows(judged.rows),
        metric=task.primary,
        devices=devices,
        target=target,
        threads=threads,
        space=offered,
        specification=specification,
        controller=controller,
        seed=seed,
        finalists=finalists,
        options=chosen,
        predictor=None if predictor is None else digest_of_file(Path(predictor)),
    )
    asked = {
        "model": os.fspath(model),
        "data": os.fspath(data),
        "teacher": None if teacher is None else os.path.abspath(teacher),
        "dev": None if dev is None else os.fspath(dev),
        "split": split,
        "metric": metric,
        "predictor": None if predictor is None else os.fspath(predictor),
    }
    folder = StudyFolder.begin(output, plan, trials=trials, storage=storage, asked=asked)
    TimingStore(folder.timings).check()
    number = _FINALS - trials
    with opened(folder) as ledger:
        if number in ledger.finished():
            return _told(folder, StudyResult.from_json(ledger.finished()[number]))
        if absent is not None:
            _await(ledger, _CALIBRATION, absent, "the calibration", tell)
        known = _calibrated(folder, ledger, source, tell)
        try:
            _check_possible(folder, known)
        except DoesNotFitError as error:
            took = round(time.monotonic() - began, 1)
            return _told(folder, none_possible(folder, str(error), took))
    judge_of(folder, tell)  # Here, so that workers find the shared weights in the cache.
    done = run_trials(
        folder, problem_of, workers=workers, told=Progress(trials, specification, tell)
    )
    with opened(folder) as ledger:
        if absent is not None:
            _await(ledger, number, absent, "the finals", tell)
        tell("choosing finalists")
        record = ledger.once(number, lambda: hold(folder, done, tell, began).to_json())
    return _told(folder, StudyResult.from_json(record))


def _told(folder: StudyFolder, result: StudyResult) -> StudyResult:
    replace_file(folder.result, json.dumps(result.to_json(), indent=1).encode())
    if result.best is None:
        raise DoesNotFitError(result.message, result.to_json())
    _place_best(folder, result)
    return result


def _await(
    ledger: Ledger, number: int, absent: str, what: str, tell: Callable[[str], None]
) -> None:
    """Wait until another process has made a record for which a device is needed."""
    tell(f"waiting for {what}, on a machine that has the device")
    if ledger.awaited(number, _PATIENCE) is None:
        raise MissingDeviceError(
            f"{absent.rstrip('.')}; no other process of the study is at {what}: give the same "
            "command on a machine that has the device."
        )


def _calibrated(
    folder: StudyFolder,
    ledger: Ledger,
    source: LatencyPredictor | None,
    tell: Callable[[str], None],
) -> Calibration:
    """What is known of the device: measured once for a study, wherever it is run."""
    from .study.bench import measure_record

    plan = folder.plan
    tell("looking at the device")
    here = identities(plan.devices, plan.target, threads=plan.threads)

    def make() -> dict[str, Any]:
        store = TimingStore(folder.timings)
        measure = partial(measure_record, target=plan.target, threads=plan.threads, store=store)
        pool = DevicePool[Any](plan.devices, available=lambda name: get(name).info().available)
        return calibrate(
            plan.space,
            folder.path / "calibration",
            measure,
            pool,
            target=plan.target,
            here=here,
            seed=plan.seed,
            predictor=source,
            tell=tell,
        ).to_json()

    record = ledger.once(_CALIBRATION, make)
    replace_file(folder.path / "calibration.json", json.dumps(dict(record)).encode())
    known = Calibration.from_json(record)
    known.check(here)
    return known


def _check_possible(folder: StudyFolder, known: Calibration) -> None:
    """Raise `DoesNotFitError` where not even the smallest model can be hoped to fit."""
    plan, given = folder.plan, folder.plan.specification
    problem = problem_of(folder, estimator=None, calibration=known)
    quick, small = fastest(plan.space, problem, plan.seed)
    if given.latency_ms is not None and quick > given.latency_ms:
        raise DoesNotFitError(
            f"No architecture of the space can be hoped to take {given.latency_ms:g} ms on "
            f"{plan.devices[0]}: the fastest is predicted at {quick:.3g} ms at best; ask for "
            f"--latency {enough_latency(quick * 1.1)} or more, or give a --space with smaller "
            "sizes."
        )
    if given.memory_bytes is not None and small > given.memory_bytes:
        raise DoesNotFitError(
            f"No architecture of the space can be hoped to take {given.memory_bytes / 1e6:.3g} MB "
            f"on {plan.devices[0]}: the smallest is estimated at {small / 1e6:.3g} MB, of which "
            f"{known.memory_base / 1e6:.3g} MB are the runtime's; ask for --memory "
            f"{enough_memory(small * 1.1)} or more, or give a --space with smaller sizes."
        )


def _place_best(folder: StudyFolder, result: StudyResult) -> None:
    """Have the chosen bundle at ``best.canao`` too, with what was verified of it; on another
    machine it is not there."""
    bundle = Path(str((result.best or {}).get("bundle")))
    if result.machine != platform.node() or not bundle.is_file():
        return
    for ending in ("", ".numerics.json"):
        source = bundle.with_name(bundle.name + ending)
        place = folder.path / f"best.canao{ending}"
        temporary = place.with_name(f".{place.name}.new")
        with os_errors(f"writing {place}"):
            temporary.unlink(missing_ok=True)
            if source.is_file():
                os.link(source, temporary)
                os.replace(temporary, place)
