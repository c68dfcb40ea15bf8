"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "BundleArg",
    "DeviceOpt",
    "Json",
    "SeqLenOpt",
    "TargetOpt",
    "ThreadsOpt",
    "TimeoutOpt",
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
