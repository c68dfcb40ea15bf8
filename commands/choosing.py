"""Which architectures to measure next, so that a predictor learns most."""

from __future__ import annotations

import json as plain
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import console
from ..errors import InputError
from .options import Json
from .recorded import (
    Device,
    Emulated,
    Protocol,
    Seed,
    Store,
    Target,
    Threads,
    records_of,
)

if TYPE_CHECKING:
    from ..search.predictor.predictor import LatencyPredictor
    from ..search.predictor.records import Record, Setting
    from ..search.space.architecture import Architecture
    from ..search.space.space import ArchitectureSpace

__all__ = ["choose"]

_POOL = 500


def choose(
    predictor: Annotated[
        str | None,
        typer.Argument(metavar="[PREDICTOR]", help="What 'train' wrote; trained now if left."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", metavar="MODEL", help="Whose sub-networks are looked at.")
    ] = "minilm",
    space: Annotated[
        str | None,
        typer.Option("--space", metavar="FILE", help="What may be chosen from instead."),
    ] = None,
    count: Annotated[int, typer.Option("--count", help="How many to choose.")] = 8,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FILE.jsonl", help="One as JSON on each line."),
    ] = None,
    store: Store = None,
    seed: Seed = 0,
    device: Device = None,
    target: Target = None,
    threads: Threads = 1,
    emulated: Emulated = False,
    protocol: Protocol = None,
    json: Json = False,
) -> None:
    """Choose what to measure next, the most telling first.

    What was measured already, in the data, is left out. With a predictor of another setting than
    the data's (or, without data, than the target and threads named), those are chosen that would
    tell most of how the settings differ.
    """
    from ..runtime_harness.bundle.atomic import replace_file
    from ..search.predictor.active import choose_next
    from ..search.predictor.predictor import LatencyPredictor

    if count < 1:
        raise InputError(f"--count must be a whole number from 1 on, not {count}.")
    source = LatencyPredictor.load(predictor) if predictor is not None else None
    records: list[Record] = []
    if source is None or store is not None:
        records = records_of(store, device, target, threads, emulated, protocol)
    if source is None:
        setting = records[0].setting
        marks: dict[str, Any] = {"emulated": setting.emulated, "protocol": setting.protocol}
        source = LatencyPredictor.fit(records, **marks, seed=seed)
    to = _setting(source, records, target, threads)
    measured = [record.architecture for record in records]
    with console.progress() as tell:
        tell("choosing architectures")
        pool = _pool(_space(space, model, to.target), measured, count, seed)
        found = choose_next(source, pool, count, measured=measured, to=to, seed=seed)
    if output is not None:
        lines = (plain.dumps(one.to_json(), separators=(",", ":")) + "\n" for one in found)
        replace_file(Path(output), "".join(lines).encode())
    if json:
        told = [{"digest": one.digest, "architecture": one.to_json()} for one in found]
        console.print_json({"setting": to.to_json(), "architectures": told, "path": output})
        return
    columns = ("architecture", "layers", "hidden", "tokens", "GFLOP")
    console.print_table(columns, [_row(one) for one in found])
    console.say(f"{output or 'to keep them, name a file with -o'}: for {to}")


def _setting(
    source: LatencyPredictor, records: list[Record], target: str | None, threads: int
) -> Setting:
    """What is to be learned: the data's setting, or what the call names."""
    if records:
        return records[0].setting
    known = source.setting
    return replace(known, target=target or known.target, threads=threads)


def _space(space: str | None, model: str, target: str) -> ArchitectureSpace:
    from ..compiler.checkpoint import locate, read_config
    from ..search.space.space import ArchitectureSpace
    from ..targets import get

    if space is not None:
        return ArchitectureSpace.load(space)
    location, _ = locate(model)
    return ArchitectureSpace.of_teacher(
        read_config(location, model), precisions=get(target).precisions
    )


def _pool(
    space: ArchitectureSpace, measured: list[Architecture], count: int, seed: int
) -> list[Architecture]:
    import numpy as np

    rng = np.random.default_rng(seed)
    drawn = dict.fromkeys(space.sample(rng) for _ in range(max(_POOL, 4 * count)))
    return [one for one in drawn if one not in measured]


def _row(one: Architecture) -> tuple[str, ...]:
    sizes = (len(one.layers), one.hidden, one.seq_len)
    return (one.digest, *map(str, sizes), f"{one.costs().flops / 1e9:.3f}")
