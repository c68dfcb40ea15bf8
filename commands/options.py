"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "BundleArg",
    "DataOpt",
    "DevOpt",
    "DeviceOpt",
    "Json",
    "ModelArg",
    "SeqLenOpt",
    "SplitOpt",
    "TargetOpt",
    "TeacherOpt",
    "ThreadsOpt",
    "TimeoutOpt",
    "TrainingOpt",
]

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
BundleArg = Annotated[str, typer.Argument(metavar="BUNDLE", help="A directory or .canao file.")]
DeviceOpt = Annotated[str, typer.Option("--device", help="local, vulkan or qemu.")]
TargetOpt = Annotated[
    str | None, typer.Option("--target", help="Which of the bundle's targets to run.")
]
SeqLenOpt = Annotated[
    int | None, typer.Option("--seq-len", help="Which length; the longest by default.")
]
ThreadsOpt = Annotated[int, typer.Option("--threads", help="CPU threads.")]
TimeoutOpt = Annotated[float | None, typer.Option("--timeout", help="Seconds allowed per call.")]
ModelArg = Annotated[
    str, typer.Argument(metavar="MODEL", help="A Hub id, a directory or 'minilm'.")
]
DataOpt = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="DATA",
        help="A directory with train.jsonl.gz and dev.jsonl.gz or the like, or a Hub id.",
    ),
]
TeacherOpt = Annotated[
    str | None,
    typer.Option("--teacher", metavar="DIR", help="Cut from this fine-tuned model instead."),
]
TrainingOpt = Annotated[
    str | None,
    typer.Option("--training", metavar="FILE", help="Training options: JSON or TOML."),
]
DevOpt = Annotated[
    str | None,
    typer.Option("--dev", metavar="DATA", help="Other data to evaluate on."),
]
SplitOpt = Annotated[str, typer.Option("--split", help="The split to evaluate on.")]
