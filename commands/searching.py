"""Searching for a model that meets a device's specification, and reporting what was found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import console
from ..errors import DoesNotFitError
from .options import DataOpt, DevOpt, Json, ModelArg, SplitOpt, TeacherOpt, TrainingOpt

if TYPE_CHECKING:
    from ..search.study.result import StudyResult

__all__ = ["report", "search"]


def search(
    model: ModelArg,
    data: DataOpt,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="STUDY", help="A directory; it goes on there.")
    ],
    device: Annotated[
        list[str] | None,
        typer.Option("--device", help="Where it shall run: local if left; several of one kind."),
    ] = None,
    latency: Annotated[
        str | None, typer.Option("--latency", metavar="10ms", help="The most that a text takes.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="64MB", help="The most that a process takes.")
    ] = None,
    max_loss: Annotated[
        str | None,
        typer.Option("--max-loss", metavar="1%", help="Points of the metric below the teacher."),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", help="Architectures to try.")] = 200,
    controller: Annotated[
        str, typer.Option("--controller", help="nsga2, tpe, rnn or random.")
    ] = "nsga2",
    space: Annotated[
        str | None,
        typer.Option("--space", metavar="FILE", help="What may be chosen from: JSON or TOML."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL",
            help="Where trials are kept, if not in STUDY: journal://, sqlite://, postgresql:// "
            "or grpc://HOST:PORT.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="Processes that try.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Draws all that is drawn.")] = 0,
    finalists: Annotated[
        int, typer.Option("--finalists", help="Models to train until so many fit.")
    ] = 2,
    target: Annotated[
        str | None, typer.Option("--target", help="What to compile for, of what D runs.")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", help="CPU threads of measurements.")] = 1,
    teacher: TeacherOpt = None,
    training: TrainingOpt = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Of each finalist.")] = None,
    predictor: Annotated[
        str | None,
        typer.Option("--predictor", metavar="FILE", help="From canao predict train."),
    ] = None,
    dev: DevOpt = None,
    split: SplitOpt = "dev",
    metric: Annotated[
        str | None, typer.Option("--metric", help="The metric; the data's own if left.")
    ] = None,
    json: Json = False,
) -> None:
    """Search for the most accurate model that meets a specification; a second call goes on."""
    from ..search.study.specification import Specification

    given = Specification.parse(latency=latency, memory=memory, max_loss=max_loss)
    from ..search.optimize import optimize  # which takes seconds to load
    from ..search.training.options import TrainingOptions

    options = TrainingOptions() if training is None else TrainingOptions.load(training)
    if epochs is not None:
        options = options.replace(epochs=epochs)
    try:
        with console.progress() as tell:
            found = optimize(
                model,
                data=data,
                output=output,
                device=device or ["local"],
                latency=given.latency_ms,
                memory=given.memory_bytes,
                max_loss=given.max_loss,
                trials=trials,
                controller=controller,
                space=space,
                storage=storage,
                workers=workers,
                seed=seed,
                finalists=finalists,
                target=target,
                threads=threads,
                teacher=teacher,
                options=options,
                predictor=predictor,
                dev=dev,
                split=split,
                metric=metric,
                progress=tell,
            )
    except DoesNotFitError as error:
        # What was measured, and what was refused and why, tells programs what would have to give.
        if json and error.found is not None:
            console.print_json(error.found)
        raise
    _tell(found, json)


def report(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="What canao search made.")],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE.html", help="One page, self-contained.")
    ],
    compare: Annotated[
        list[str] | None,
        typer.Option(
            "--compare", metavar="STUDY", help="Another study, drawn beside it; may repeat."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write a page about a study: what it found, what it refused, and how to do it again."""
    from ..search.study.report import write_study_report

    place = write_study_report(study, output, compare or ())
    if json:
        console.print_json({"path": str(place)})
        return
    console.say(str(place))


def _tell(found: StudyResult, json: bool) -> None:
    best = found.best
    assert best is not None
    if best["emulated"]:
        console.warn("the latencies are of an emulated device, not of real silicon")
    if not best["stable"]:
        console.warn(
            "the measurements of the chosen model were not stable; measure it again with "
            f"'canao bench {best['bundle']}'"
        )
    if json:
        console.print_json(found.to_json())
        return
    name = best["metric"]
    columns = ("trial", name, "loss", "ms", "at most, ms", "memory, MB", "")
    console.print_table(
        columns, [_cells(row, row["trial"] == best["trial"]) for row in found.measured]
    )
    console.say(
        f"{found.specification}: trial {best['trial']}, {name} {best['accuracy']:.2f} "
        f"({best['loss']:.2f} lost), {best['latency_ms']:.3g} ms; of {found.trials} trials "
        f"{len(found.refused)} were refused"
    )
    console.say(f"{best['model']}, {best['bundle']}: {found.seconds / 60:.1f} min")


def _cells(row: Any, is_best: bool) -> tuple[str, ...]:
    memory = row["memory_bytes"]
    verdict = "best" if is_best else "fits" if row["passed"] else "refused"
    if not row["trained"] and not row["passed"] and verdict == "refused":
        verdict = "not trained"
    return (
        str(row["trial"]),
        f"{row['accuracy']:.2f}" if row["trained"] else "-",
        f"{row['loss']:.2f}" if row["trained"] else "-",
        f"{row['latency_ms']:.3g}",
        f"{row['latency_interval'][1]:.3g}",
        "-" if memory is None else f"{memory / 1e6:.3g}",
        verdict,
    )
