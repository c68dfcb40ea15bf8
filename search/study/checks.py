"""What can be said against a search before anything is compiled, measured or trained.

A study takes hours, and some of what ends it can be seen in its call: a target for which nothing
can be predicted, a space of what the target cannot do or the teacher has no part for, a metric
that the search would maximise although less of it is better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import InputError, UnsupportedError
from ..space.architecture import KINDS
from ..space.scalings import extremes
from ..space.space import ArchitectureSpace

if TYPE_CHECKING:
    from ...targets import Target
    from ..tasks import Task

__all__ = ["check_metric", "check_space", "check_target"]


def check_target(target: Target) -> None:
    """Raise `UnsupportedError` for a target that is no CPU."""
    if target.kind != "cpu":
        raise UnsupportedError(
            f"The search predicts latencies for CPUs only, and target {target.name} is of kind "
            f"{target.kind}: search for a device with a CPU's target."
        )


def check_metric(task: Task) -> None:
    """Raise `UnsupportedError` where less of the task's metric is better."""
    if task.lower_is_better:
        raise UnsupportedError(
            f"The search needs a metric of which more is better, and of {task.primary} less is: "
            "name another metric, or other data."
        )


def check_space(space: ArchitectureSpace, target: Target, task: Task, model: Any) -> None:
    """Raise `InputError`, naming the field, where a space has precisions that ``target`` cannot
    do, another head than ``task``, or architectures that are no sub-networks of ``model``;
    `UnsupportedError` where that is no BERT."""
    offered = {f"{kind}.precisions": getattr(space, kind).precisions for kind in KINDS}
    for field, precisions in {**offered, "rest": (space.rest,)}.items():
        for precision in precisions:
            if precision not in target.precisions:
                raise InputError(
                    f"{field}: the space has {precision}, which target {target.name} cannot do: "
                    f"it can do {', '.join(target.precisions)}."
                )
    for field, found, needed in (
        ("head", space.head, task.head),
        ("labels", space.labels, task.num_labels or space.labels),
    ):
        if found != needed:
            raise InputError(f"{field}: the space has {found}, and the data need {needed}.")
    from ..accuracy.supernet import Supernet

    whole = Supernet(model, ())
    for architecture in extremes(space):
        whole.check(architecture)
