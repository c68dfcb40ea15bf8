"""Latencies of architectures that nobody measured: the predictor is trained, tried and shown."""

from __future__ import annotations

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
    from ..search.predictor.assessment import Assessment
    from ..search.predictor.records import Record

__all__ = ["app"]

app = typer.Typer(
    name="predict", help="The latency predictor of the search.", no_args_is_help=True
)

_From = Annotated[
    str | None,
    typer.Option("--adapt", metavar="PREDICTOR", help="Adapt one of another device or setting."),
]
_Samples = Annotated[
    int, typer.Option("--samples", help="Measurements to adapt by; the others test.")
]


@app.command()
def train(
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Where it goes, as JSON; not kept if left.",
        ),
    ] = None,
    store: Store = None,
    seed: Seed = 0,
    device: Device = None,
    target: Target = None,
    threads: Threads = 1,
    emulated: Emulated = False,
    protocol: Protocol = None,
    adapt: _From = None,
    samples: _Samples = 20,
    everything: Annotated[
        bool,
        typer.Option("--all", help="What is written learns from the test's measurements too."),
    ] = False,
    json: Json = False,
) -> None:
    """Train a predictor, write it, and tell how good it is on measurements left out."""
    from ..search.predictor.predictor import LatencyPredictor

    records = records_of(store, device, target, threads, emulated, protocol)
    found = _assessed(records, seed, adapt, samples)
    predictor = found.predictor
    if everything:
        setting = records[0].setting
        marks: dict[str, Any] = {"emulated": setting.emulated, "protocol": setting.protocol}
        predictor = (
            LatencyPredictor.load(adapt).adapt(records, **marks)
            if adapt is not None
            else LatencyPredictor.fit(records, **marks, seed=seed)
        )
    if output is not None:
        predictor.save(output)
    learned = len(predictor.trained_on)
    told = {**found.to_json(), "path": output, "learned_from": learned}
    where = output or "not kept (name a file with -o)"
    _tell(found, told, json, f"{where}: learned from {learned} architectures")


@app.command()
def eval(
    store: Store = None,
    seed: Seed = 0,
    device: Device = None,
    target: Target = None,
    threads: Threads = 1,
    emulated: Emulated = False,
    protocol: Protocol = None,
    predictor: Annotated[
        str | None,
        typer.Option(
            "--predictor",
            metavar="FILE",
            help="Try this one on what it has not learned from, instead of training one.",
        ),
    ] = None,
    adapt: _From = None,
    samples: _Samples = 20,
    json: Json = False,
) -> None:
    """Train a predictor on some measurements, try it on the others, beside simpler ones."""
    records = records_of(store, device, target, threads, emulated, protocol)
    found = _assessed(records, seed, adapt, samples, predictor=predictor)
    _tell(found, found.to_json(), json)


@app.command()
def show(
    predictor: Annotated[
        str | None,
        typer.Argument(metavar="[PREDICTOR]", help="What 'train' wrote; trained now if left."),
    ] = None,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE.html", help="Where the page goes.")
    ] = "predictor.html",
    store: Store = None,
    seed: Seed = 0,
    device: Device = None,
    target: Target = None,
    threads: Threads = 1,
    emulated: Emulated = False,
    protocol: Protocol = None,
    json: Json = False,
) -> None:
    """Print what a predictor is, and write its plots as one page."""
    from ..search.pages import check_report_path
    from ..search.predictor.assessment import described
    from ..search.predictor.page import cost_table, facts, write_page
    from ..search.predictor.predictor import LatencyPredictor

    check_report_path(output)
    records = records_of(store, device, target, threads, emulated, protocol)
    if predictor is None:
        found = _assessed(records, seed, None, 0)
    else:
        found = described(LatencyPredictor.load(predictor), records)
    write_page(found, output)
    told = {**found.to_json(), "path": output, "facts": facts(found.predictor)}
    if not json:
        for text in told["facts"]:
            console.say(text)
        console.print_table(*cost_table(found.predictor))
    _tell(found, told, json, output)


def _assessed(
    records: list[Record],
    seed: int,
    adapt: str | None,
    samples: int,
    *,
    predictor: str | None = None,
) -> Assessment:
    from ..search.predictor.assessment import assess, assess_adapted, assess_fitted
    from ..search.predictor.predictor import LatencyPredictor

    if predictor is not None and adapt is not None:
        raise InputError("--predictor tries what is there, --adapt makes another: give one.")
    with console.progress() as tell:
        tell("training and trying the predictor")
        if predictor is not None:
            return assess_fitted(LatencyPredictor.load(predictor), records)
        if adapt is not None:
            source = LatencyPredictor.load(adapt)
            return assess_adapted(source, records, samples=samples, seed=seed)
        return assess(records, seed=seed)


def _tell(found: Assessment, told: dict[str, Any], json: bool, last: str | None = None) -> None:
    from ..search.predictor.page import quality_table

    if json:
        console.print_json(told)
        return
    if found.untried:
        console.warn(found.untried)
    else:
        console.print_table(*quality_table(found))
    if last is not None:
        console.say(last)
