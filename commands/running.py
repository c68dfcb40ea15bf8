"""Bundles on devices: the demo, checking numbers, measuring."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import console
from ..errors import InputError
from .options import BundleArg, DeviceOpt, Json, SeqLenOpt, TargetOpt, ThreadsOpt, TimeoutOpt

__all__ = ["bench", "demo", "profile", "verify"]


def demo(json: Json = False) -> None:
    """Embed real sentences with the packaged MiniLM on every device that is here."""
    from ..demo import run_demo

    with console.progress() as tell:
        report = run_demo(progress=tell)
    if json:
        console.print_json(report.to_json())
    else:
        report.print()
    if not all(row["ok"] for row in report.rows):
        raise typer.Exit(4)


def verify(
    bundle: BundleArg,
    device: DeviceOpt,
    target: TargetOpt = None,
    seq_len: SeqLenOpt = None,
    timeout: TimeoutOpt = None,
    json: Json = False,
) -> None:
    """Run a bundle's reference inputs on a device and compare the outputs."""
    from ..runtime_harness.verify import verify as run

    found = run(bundle, device, target=target, seq_len=seq_len, timeout=timeout)
    if json:
        console.print_json(dict(found))
    else:
        verdict = "agrees with" if found["ok"] else "DIFFERS from"
        console.say(
            f"{bundle} on {device} {verdict} the reference: max abs error "
            f"{found['max_abs_err']}, cosine {found['cosine']}"
        )
    if not found["ok"]:
        raise typer.Exit(4)


def bench(
    bundle: BundleArg,
    device: DeviceOpt = "local",
    target: TargetOpt = None,
    seq_len: SeqLenOpt = None,
    threads: ThreadsOpt = 1,
    cores: Annotated[
        str | None,
        typer.Option("--cores", help="Cores to stay on, e.g. 0,1; the fastest if left."),
    ] = None,
    rounds: Annotated[int | None, typer.Option("--rounds", help="Rounds of turns.")] = None,
    repetitions: Annotated[
        int | None, typer.Option("--repetitions", help="Calls to time, at least, in all.")
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option("--compare", metavar="OTHER", help="Measure another bundle in turns."),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="BUNDLE", help="Instead of canao's own workload."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="FILE", help="A timing store to add the result to."),
    ] = None,
    timeout: TimeoutOpt = None,
    json: Json = False,
) -> None:
    """Measure the latency of a bundle on a device."""
    from .measuring import measure

    with console.progress() as tell:
        tell("measuring")
        report = measure(
            bundle,
            device,
            other=compare,
            store=store,
            target=target,
            seq_len=seq_len,
            threads=threads,
            cores=_cores(cores),
            rounds=rounds,
            repetitions=repetitions,
            reference=reference,
            timeout=timeout,
        )
    if json:
        console.print_json(report.to_json())
    else:
        report.print()
    if not report.right:
        raise typer.Exit(4)


def _cores(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"--cores takes whole numbers with commas between them, not {text!r}."
        ) from error


def profile(
    bundle: BundleArg,
    device: DeviceOpt = "local",
    target: TargetOpt = None,
    seq_len: SeqLenOpt = None,
    threads: ThreadsOpt = 1,
    timeout: TimeoutOpt = None,
    json: Json = False,
) -> None:
    """Time per dispatch, mapped back to the model's layers."""
    from ..runtime_harness.profile import profile as run

    found = run(bundle, device, target=target, seq_len=seq_len, threads=threads, timeout=timeout)
    if json:
        console.print_json(found.to_json())
        return
    if found.emulated:
        console.warn(f"{device} is emulated: these are not times of real silicon")
    console.print_table(
        ("dispatch", "layer", "kind", "calls", "ms", "%"),
        [
            (r.name, r.layer, r.kind, str(r.calls), f"{r.ms:.3f}", f"{100 * r.share:.1f}")
            for r in found.rows
        ],
    )
