"""How good a model or a bundle is on a data set."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import console
from .options import DeviceOpt, Json, TargetOpt, TimeoutOpt

__all__ = ["eval"]


def eval(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL_OR_BUNDLE",
            help="A bundle, or a Hub id, a directory, or 'minilm', which run in PyTorch.",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DATA",
            help="A directory with dev.jsonl.gz or the like, a file, a Hub id or ID:CONFIG.",
        ),
    ],
    split: Annotated[str, typer.Option("--split", help="Which part of the data.")] = "dev",
    device: DeviceOpt = "local",
    metric: Annotated[
        str | None, typer.Option("--metric", help="The metric to tell; the data's own if left.")
    ] = None,
    seq_len: Annotated[
        int | None,
        typer.Option("--seq-len", help="Tokens that count: 128, or 192 for questions, if left."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", help="The first N rows alone.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Sequences per call.")] = 32,
    bf16: Annotated[bool, typer.Option("--bf16", help="PyTorch under bfloat16 autocast.")] = False,
    target: TargetOpt = None,
    threads: Annotated[
        int | None, typer.Option("--threads", help="CPU threads; 1 for a bundle if left.")
    ] = None,
    timeout: TimeoutOpt = None,
    seed: Annotated[int, typer.Option("--seed", help="Draws the interval.")] = 0,
    json: Json = False,
) -> None:
    """Tell a model's metric on a data set, in PyTorch or compiled and on a device."""
    from ..search.evaluation import evaluate

    with console.progress() as tell:
        found = evaluate(
            model,
            data,
            split=split,
            device=device,
            metric=metric,
            seq_len=seq_len,
            limit=limit,
            batch_size=batch_size,
            bf16=bf16,
            target=target,
            threads=threads,
            timeout=timeout,
            seed=seed,
            progress=tell,
        )
    if found.truncated:
        console.warn(
            f"{found.truncated} of the texts are too long for {found.seq_len} tokens and were cut"
        )
    if json:
        console.print_json(found.to_json())
        return
    low, high = found.interval
    console.say(
        f"{found.model} on {found.data} ({found.split}, {found.n:,} "
        f"{'tokens' if found.task == 'language_modelling' else 'rows'}): {found.metric} "
        f"{found.value:.2f}, 95 % interval {low:.2f} to {high:.2f}"
    )
    others = {name: value for name, value in found.metrics.items() if name != found.metric}
    where = "PyTorch" if found.backend == "pytorch" else f"{found.target} on {found.device}"
    emulated = ", emulated: not a time of real silicon" if found.emulated else ""
    console.say(
        ", ".join(f"{name} {value:.2f}" for name, value in others.items())
        + f"; {where}, {found.precision}, {found.seconds:.1f} s{emulated}"
    )
