"""From a model to a bundle, and what is in one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from .. import console
from ..errors import InputError
from .options import BundleArg, Json

__all__ = ["compile", "inspect"]


def compile(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A Hub id, a directory, a config.json (random weights) or 'minilm'.",
        ),
    ],
    target: Annotated[
        list[str], typer.Option("--target", help="Repeat for several; see 'canao targets'.")
    ],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="OUT", help="A directory, or NAME.canao.")
    ],
    seq_len: Annotated[str, typer.Option("--seq-len", help="Lengths, e.g. 32,128,384.")] = "128",
    precision: Annotated[
        str,
        typer.Option(
            "--precision", help="auto, f32, bf16, f16 (GPUs), int8, int8-weights, int4-weights."
        ),
    ] = "auto",
    fusion: Annotated[str, typer.Option("--fusion", help="auto, stock or none.")] = "auto",
    drop_pattern: Annotated[
        list[str] | None,
        typer.Option("--drop-pattern", metavar="NAME", help="Leave a pattern out; may repeat."),
    ] = None,
    head: Annotated[
        str | None, typer.Option("--head", help="The checkpoint's own if left.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", help="Rows per call of the module.")] = 1,
    require_verified: Annotated[
        bool,
        typer.Option("--require-verified", help="Exit 4 unless every target was run here."),
    ] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Seconds allowed per compiled module.")
    ] = None,
    memory_limit: Annotated[
        float | None,
        typer.Option("--memory-limit", metavar="GIB", help="Memory of one compiling process."),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            "--calibration",
            metavar="FILE",
            help="Texts for 8 bits or fewer, one a line, or .jsonl.",
        ),
    ] = None,
    activations: Annotated[
        str, typer.Option("--activations", help="Ranges in int8: dynamic, symmetric or static.")
    ] = "dynamic",
    cosine: Annotated[
        float | None,
        typer.Option("--cosine", help="The least for 8 bits or fewer; 0.998 if left."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", metavar="FILE", help="Precisions by matrix, .json or .toml."),
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Measure products here that nobody measured yet.")
    ] = False,
    json: Json = False,
) -> None:
    """Compile a model for one or more targets, check its numbers, write a bundle."""
    from ..compiler.api import compile_model

    with console.progress() as tell:
        report = compile_model(
            model,
            target=target,
            seq_len=_lengths(seq_len),
            precision=precision,
            fusion=fusion,
            drop_patterns=tuple(drop_pattern or ()),
            head=head,
            batch=batch,
            output=output,
            require_verified=require_verified,
            timeout=timeout,
            memory_limit=None if memory_limit is None else int(memory_limit * 2**30),
            tune=tune,
            calibration=calibration,
            activations=activations,
            cosine=cosine,
            recipe=recipe,
            progress=tell,
        )
    for warning in report.warnings:
        console.warn(warning)
    if json:
        console.print_json(report.to_json())
        return
    console.print_table(
        ("module", "dispatches", "checked on", "max abs error", "cosine"),
        [
            (key, str(count), *_numbers(report.numerics[key.rpartition("/")[0]]))
            for key, count in report.dispatches.items()
        ],
    )
    console.say(
        f"{report.bundle.path}: {report.bytes / 1e6:.1f} MB, {report.seconds:.1f} s, patterns: "
        + ", ".join(f"{name} x{count}" for name, count in report.patterns.items())
    )
    for line in console.counted(report.kernels):
        console.say(f"kernels, {line}")
    for line in console.counted(report.linalg):
        console.say(f"no kernels, {line}")
    if report.quantization is not None:
        console.say(_quantized(report.quantization))


def _lengths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"--seq-len takes whole numbers with commas between them, not {text!r}."
        ) from error


def _quantized(found: Mapping[str, Any]) -> str:
    cosines = [
        f"{value:.5f} on {kind}"
        for kind, value in found["simulated_cosine"].items()
        if value is not None
    ]
    wide = ", ".join(found["wider"]) or "nothing"
    known = found["activations"]
    what = found["precision"] + (f", {known}" if known in ("symmetric", "static") else "")
    return (
        f"{what}, calibration {found['calibration']}: cosine {', '.join(cosines)}; wider: {wide}"
    )


def _numbers(found: Any) -> tuple[str, str, str]:
    if found is None:
        return "not verified", "-", "-"
    return found["device"], f"{found['max_abs_err']:.2g}", f"{found['cosine']:.6f}"


def inspect(bundle: BundleArg, json: Json = False) -> None:
    """What is inside a bundle, how it was made, and how large it is."""
    from ..inspection import describe

    report = describe(bundle)
    if json:
        console.print_json(report.to_json())
    else:
        report.print()
