"""Training the shared weights, once for the same teacher, task, space and options."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ...compiler.compression.loading import load_compressed
from ...compiler.compression.recipe import Recipe
from ...compiler.compression.saving import save_compressed
from ...compiler.models import load_model
from ..evaluation import evaluate_model
from ..space.scalings import extremes
from ..space.space import ArchitectureSpace
from ..training.distillation import importance_of
from ..training.keys import digest_of_model, digest_of_rows, key_of
from ..training.options import TrainingOptions
from ..training.run import TrainingData, sign_of, train
from ..training.teacher import load_tokenizer, task_facts
from ..training.trainer import bf16_in_hardware
from ..training.workshop import processes, workshop
from .options import SharingOptions
from .sandwich import dense, sandwich
from .student import SharedStudent
from .supernet import Supernet

__all__ = ["FoundSupernet", "share"]

_JUDGED = 1 << 32
"""What is judged is drawn by no seed that training draws by: those are below it."""


@dataclass(frozen=True, kw_only=True)
class FoundSupernet:
    """``directory`` holds the shared weights as an ordinary model; ``training`` tells how they
    came about."""

    supernet: Supernet
    directory: Path
    training: dict[str, Any]


def share(
    teacher: Path,
    data: TrainingData,
    space: ArchitectureSpace,
    options: TrainingOptions,
    sharing: SharingOptions | None = None,
    progress: Callable[[str], None] | None = None,
) -> FoundSupernet:
    """One set of weights for all of ``space``, cut from ``teacher`` and trained; kept in the
    cache by content, and gone on in where it was killed.

    ``options`` are those of the trainings to come: their seed and ``importance_rows`` say by what
    units are ordered, as compression will order them. Raises `InputError` where the space is not
    of such a teacher, `NumericsError` where the loss is not finite, `CanaoError` where another
    process is at the same.
    """
    tell = progress or (lambda _: None)
    sharing = sharing or SharingOptions()
    training = sharing.training.replace(
        seq_len=options.seq_len or data.task.default_seq_len,
        seed=options.seed,
        bf16=bf16_in_hardware() if options.bf16 is None else options.bf16,
    )
    key = key_of(
        what="share",
        teacher=digest_of_model(teacher),
        space=space.to_json(),
        task=task_facts(data.task),
        train=digest_of_rows(data.train),
        held=digest_of_rows(data.held),
        importance=[options.importance_rows, options.seed],
        options={**sharing.to_json(), "training": training.to_json()},
        processes=processes(),
    )
    with workshop(key) as place:
        found = place.result()
        if found is None:
            model = load_model(teacher).module
            for network in extremes(space):
                Supernet(model, ()).check(network)
            tell("shared weights: what matters in the teacher")
            supernet = Supernet.of(model, importance_of(model, data, options))
            del model
            report = _train(supernet, data, space, sharing, training, place.checkpoints, progress)
            found = {"layers": list(supernet.layers), "training": report}
            place.finish(
                lambda target: save_compressed(
                    supernet.model, load_tokenizer(teacher), target, Recipe()
                ),
                found,
            )
        return FoundSupernet(
            supernet=Supernet(load_compressed(place.model), tuple(found["layers"])),
            directory=place.model,
            training=found["training"],
        )


def _train(
    supernet: Supernet,
    data: TrainingData,
    space: ArchitectureSpace,
    sharing: SharingOptions,
    training: TrainingOptions,
    folder: Path,
    progress: Callable[[str], None] | None,
) -> dict[str, Any]:
    judged = sandwich(space, sharing.judged, (training.seed, _JUDGED))
    # The smallest is hardly better than chance.
    chosen = [dense(network) for network in (judged[0], *judged[2:])]

    def judge() -> float:
        values = []
        for network in chosen:
            with supernet.narrowed(network) as model:
                values.append(
                    evaluate_model(
                        model,
                        data.tokenizer,
                        data.task,
                        data.held,
                        seq_len=training.seq_len,
                        bf16=bool(training.bf16),
                    ).value
                )
        return sign_of(data.task) * fmean(values)

    report = train(
        supernet.model,
        data,
        training,
        folder,
        what="shared weights",
        teacher=copy.deepcopy(supernet.model),
        student_of=lambda kind, options: SharedStudent(
            supernet, space, sharing.networks, kind, options
        ),
        judge=judge,
        progress=progress,
    )
    return report.to_json()
