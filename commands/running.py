"""Bundles on devices: the demo, checking numbers, measuring."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import console
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
    repetitions: Annotated[
        int | None, typer.Option("--repetitions", help="Calls to time.")
    ] = None,
    timeout: TimeoutOpt = None,
    json: Json = False,
) -> None:
    """Measure the latency of a bundle on a device."""
    from ..runtime_harness.bench import bench as run

    options = {} if repetitions is None else {"repetitions": repetitions}
    found = run(
        bundle, device, target=target, seq_len=seq_len, threads=threads, timeout=timeout, **options
    )
    if json:
        console.print_json(found.to_json())
        return
    marks = "" if found.stable else f", UNSTABLE ({found.reason})"
    marks += ", emulated: not a time of real silicon" if found.emulated else ""
    console.say(
        f"{found.target} at {found.seq_len} on {device}, {found.threads} thread(s): median "
        f"{console.milliseconds(found.median_ms)} ms, p90 {console.milliseconds(found.p90_ms)} ms "
        f"over {len(found.samples_ms)} calls{marks}"
    )


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
