"""A smaller model from a larger one, trained to answer as it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import console
from ..errors import InputError
from .options import DataOpt, DevOpt, Json, ModelArg, SplitOpt, TeacherOpt, TrainingOpt

if TYPE_CHECKING:
    from ..search.compress_result import CompressionResult
    from ..search.gain import TargetGain

__all__ = ["compress"]


def compress(
    model: ModelArg,
    data: DataOpt,
    recipe: Annotated[
        str, typer.Option("--recipe", metavar="FILE", help="What to compress to: JSON or TOML.")
    ],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="DIR", help="The compressed model.")
    ],
    teacher: TeacherOpt = None,
    training: TrainingOpt = None,
    epochs: Annotated[float | None, typer.Option("--epochs", help="Of the student.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Of the student, at its highest.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Rows per step.")] = None,
    seq_len: Annotated[
        int | None,
        typer.Option("--seq-len", help="Tokens that count: 128, or 192 for questions, if left."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Draws all that is drawn.")] = None,
    bf16: Annotated[
        bool | None,
        typer.Option("--bf16/--no-bf16", help="Train in bfloat16; where the CPU has it, if left."),
    ] = None,
    dev: DevOpt = None,
    split: SplitOpt = "dev",
    metric: Annotated[
        str | None, typer.Option("--metric", help="The metric to tell; the data's own if left.")
    ] = None,
    report: Annotated[
        str | None,
        typer.Option("--report", metavar="FILE.html", help="Write a page; measures on targets."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option("--target", help="Where the report measures: host if left; may repeat."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", help="CPU threads of measurements.")] = 1,
    dense: Annotated[
        bool,
        typer.Option(
            "--dense/--no-dense",
            help="Train a dense model of equal FLOPs beside a block-sparse one.",
        ),
    ] = True,
    json: Json = False,
) -> None:
    """Prune, sparsify, distil and quantise a model for a task; a second call goes on."""
    from ..search.compress import compress as run
    from ..search.compress_inputs import read_recipe
    from ..search.gain import check_targets, measure_gains
    from ..search.pages import check_report_path
    from ..search.report import write_report
    from ..search.training.options import TrainingOptions
    from ..search.training.workshop import is_first

    options = TrainingOptions() if training is None else TrainingOptions.load(training)
    given = {
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "seq_len": seq_len,
        "seed": seed,
        "bf16": bf16,
    }
    options = options.replace(**{key: value for key, value in given.items() if value is not None})
    targets = target or ["host"]
    if report is not None:
        check_report_path(report)
        check_targets(targets, read_recipe(recipe), threads)
    elif target:
        raise InputError("--target says where the report measures: name one with --report.")
    with console.progress() as tell:
        result = run(
            model,
            data=data,
            recipe=recipe,
            output=output,
            teacher=teacher,
            options=options,
            dev=dev,
            split=split,
            metric=metric,
            dense=dense,
            progress=tell,
        )
        if not is_first():  # one of several processes that trained together
            return
        gains: tuple[TargetGain, ...] = ()
        if report is not None:
            gains = measure_gains(result, targets, threads=threads, progress=tell)
            write_report(result, gains, report)
    _tell(result, gains, report, json)


def _tell(
    result: CompressionResult, gains: tuple[TargetGain, ...], report: str | None, json: bool
) -> None:
    from ..search.report import comparison, report_notes, report_warnings

    for warning in report_warnings(result, gains):
        console.warn(warning)
    if json:
        found: dict[str, Any] = {**result.to_json(), "notes": report_notes(result)}
        if report is not None:
            found |= {"report": report, "gains": [gain.to_json() for gain in gains]}
        console.print_json(found)
        return
    console.print_table(*comparison(result, gains))
    for note in report_notes(result):
        console.say(note)
    where = f", {report}" if report else ""
    console.say(f"{result.output}{where}: {result.seconds / 60:.1f} min")
