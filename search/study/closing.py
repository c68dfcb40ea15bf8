"""The last part of a study: the teacher's figures, the finals, the result."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

from ...errors import CanaoError
from ...runtime_harness.bundle.atomic import replace_file
from ...runtime_harness.devices import get
from ...runtime_harness.timing_store import TimingStore
from ..evaluation import evaluate
from .bench import Bench
from .finals import hold_finals
from .folder import StudyFolder
from .identity import identities, strangers
from .judging import calibration_of, judge_of
from .learning import keep_predictor, revised
from .measured import Measured
from .pool import DevicePool
from .result import TEACHER, StudyResult, result_of
from .trial import Trial
from .typed import damaged, read_file, read_row

__all__ = ["hold"]


def hold(
    folder: StudyFolder,
    trials: Mapping[int, Trial],
    tell: Callable[[str], None],
    began: float,
) -> StudyResult:
    """Hold a study's finals; ``began`` is when, by the monotonic clock, the search did.

    Goes on where it was killed. Raises as `hold_finals` does.
    """
    plan, asked = folder.plan, folder.asked
    estimator = judge_of(folder, tell)
    bench = Bench(
        teacher=estimator.teacher,
        estimator=estimator,
        data=asked["data"],
        dev=asked["dev"],
        split=asked["split"],
        metric=asked["metric"],
        options=plan.options,
        target=plan.target,
        threads=plan.threads,
        store=TimingStore(folder.timings),
        tell=tell,
    )
    pool = DevicePool[Any](plan.devices, available=lambda name: get(name).info().available)
    here = _devices(folder)
    teacher = _teacher(folder, str(estimator.teacher), bench, pool, here, tell)
    known = calibration_of(folder)
    finals = hold_finals(
        folder,
        trials,
        bench,
        pool,
        teacher=teacher["metric"],
        here=here,
        tell=tell,
        revise=partial(revised, folder, known),
    )
    keep_predictor(folder, known)
    return result_of(
        trials,
        finals,
        specification=plan.specification,
        teacher=teacher,
        study=str(folder.path.absolute()),
        machine=platform.node(),
        seconds=round(time.monotonic() - began, 1),
    )


def _devices(folder: StudyFolder) -> dict[str, str]:
    """The fingerprint of each device of the study, by name: of those that were calibrated, which
    must not have changed, and of those that are here."""
    plan, known = folder.plan, calibration_of(folder)
    here = identities(plan.devices, plan.target, threads=plan.threads)
    known.check(here)
    return {**known.devices, **here}


def _teacher(
    folder: StudyFolder,
    directory: str,
    bench: Bench,
    pool: DevicePool[Any],
    here: Mapping[str, str],
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """The teacher's metric on the development split, read once, and its latency."""
    file = folder.path / "teacher.json"
    with damaged(file, "delete it, it is made again"):
        kept = read_file(file)
        if kept is not None:
            read_row(kept, TEACHER, "the teacher")
            found = dict(cast(Mapping[str, Any], kept))
            if not strangers([Measured.from_json(found["measured"])], here):
                return found
    tell("evaluating the teacher")
    asked = folder.asked
    judged = evaluate(
        directory, asked["dev"] or asked["data"], split=asked["split"], metric=asked["metric"]
    )
    tell("compiling the teacher")
    bundle = bench.teacher(folder.path, max(folder.plan.space.seq_lens))
    tell("measuring the teacher")
    (measured,) = pool.run([lambda device: bench.measure(bundle, device)])
    for left in (bundle, bundle.with_name(f"{bundle.name}.numerics.json")):
        left.unlink(missing_ok=True)
    if isinstance(measured, CanaoError):
        raise measured
    found = {
        "directory": directory,
        "name": judged.metric,
        "metric": judged.value,
        "interval": list(judged.interval),
        "n": judged.n,
        "seq_len": max(folder.plan.space.seq_lens),
        "measured": measured.to_json(),
    }
    replace_file(file, json.dumps(found, indent=1).encode())
    return found
