"""From trials to models worth training: compiled with the weights they inherit, and measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import CanaoError, NumericsError
from .finalist import Finalist
from .folder import StudyFolder
from .guarantee import misses
from .identity import strangers
from .measured import Measured
from .pool import DevicePool
from .trial import Trial
from .workbench import Workbench, job, tried

__all__ = ["screen"]


def screen(
    folder: StudyFolder,
    batch: Sequence[Trial],
    bench: Workbench,
    pool: DevicePool[Any],
    *,
    here: Mapping[str, str],
    wanted: int,
    tell: Callable[[str], None],
) -> list[Finalist]:
    """Compile with inherited weights and measure; refuse who is too slow or too large.

    Where more are left than the ``wanted`` ones, each is trained for a few steps too: whom they
    help promises more.
    """
    found: list[Finalist] = []
    for number, trial in enumerate(batch, 1):
        place = folder.finalist(trial.architecture.digest)
        one = _on_these(Finalist.read(place) or _entered(trial), here)
        if one.bundle is None and one.trained is None and not one.refused:
            tell(f"compiling candidate {number} of {len(batch)} (trial {trial.number})")
            one = tried(one, partial(_inherited, one, bench, place))
            one.save(place)
        found.append(one)
    waiting = [at for at, one in enumerate(found) if _unmeasured(one)]
    if waiting:
        tell(f"measuring {len(waiting)} candidates")
    jobs = [partial(_screened, folder, found[at], bench, here) for at in waiting]
    for at, result in zip(waiting, pool.run(jobs), strict=True):
        one = found[at]
        if isinstance(result, CanaoError):
            one = one.replace(refused=(f"could not be measured: {result}",))
            found[at] = one.save(folder.finalist(one.architecture.digest))
        else:
            found[at] = _judged(folder, one, result, here)
    fitting = [at for at, one in enumerate(found) if not one.refused]
    for number, at in enumerate(fitting if len(fitting) > wanted else (), 1):
        if found[at].adapted is None and found[at].trained is None:
            tell(f"adapting candidate {number} of {len(fitting)} (trial {found[at].trial})")
            found[at] = _adapted(found[at], bench)
            found[at].save(folder.finalist(found[at].architecture.digest))
    return found


def _screened(
    folder: StudyFolder, one: Finalist, bench: Workbench, here: Mapping[str, str], device: str
) -> Measured:
    """A job: measure one, and keep that at once, whatever becomes of the others."""
    result = job(bench, one)(device)
    _judged(folder, one, result, here).save(folder.finalist(one.architecture.digest))
    return result


def _judged(
    folder: StudyFolder, one: Finalist, screened: Measured, here: Mapping[str, str]
) -> Finalist:
    reasons = strangers([screened], here) or misses(folder.plan.specification, [screened])
    return one.replace(screened=screened, refused=tuple(reasons))


def _on_these(one: Finalist, here: Mapping[str, str]) -> Finalist:
    """Without what was measured on other devices than those ``here``, and what followed."""
    measured = [*([one.screened] if one.screened else []), *one.measured]
    if not strangers(measured, here):
        return one
    return one.replace(
        screened=None, bundle=None, compiled=None, measured=(), judged=None, refused=()
    )


def _adapted(one: Finalist, bench: Workbench) -> Finalist:
    try:
        return one.replace(adapted=bench.adapt(one.architecture))
    except NumericsError:
        return one  # it diverged in a few steps: what it inherited stands


def _entered(trial: Trial) -> Finalist:
    assert trial.finding is not None
    return Finalist(
        trial=trial.number,
        architecture=trial.architecture,
        estimate=trial.outcome.accuracy or 0.0,
        predicted_ms=trial.finding.latency_ms,
        predicted_interval=trial.finding.latency_interval,
    )


def _unmeasured(one: Finalist) -> bool:
    waits = one.screened is None and one.trained is None and not one.refused
    return waits and one.bundle is not None


def _inherited(one: Finalist, bench: Workbench, place: Path) -> Finalist:
    return one.replace(bundle=str(bench.inherit(one.architecture, place)))
