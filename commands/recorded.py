"""Recorded measurements, as the commands about the predictor name them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .. import console

if TYPE_CHECKING:
    from ..search.predictor.records import Record

__all__ = [
    "Device",
    "Emulated",
    "Protocol",
    "Seed",
    "Store",
    "Target",
    "Threads",
    "records_of",
]

Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="FILE",
        help="A timing store, or recorded .jsonl[.gz]; what ships with canao if left.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Draws which measurements test, and trees.")]
Device = Annotated[
    str | None, typer.Option("--device", help="A device's name or fingerprint in the data.")
]
Target = Annotated[str | None, typer.Option("--target", help="A target in the data.")]
Threads = Annotated[int, typer.Option("--threads", help="Of the measurements.")]
Emulated = Annotated[
    bool, typer.Option("--emulated", help="The emulated measurements, not the real ones.")
]
Protocol = Annotated[
    int | None, typer.Option("--protocol", help="The protocol's version; canao's own if left.")
]


def records_of(
    store: str | None,
    device: str | None,
    target: str | None,
    threads: int,
    emulated: bool,
    protocol: int | None,
) -> list[Record]:
    """The measurements of one setting, from ``store`` or from what ships with canao (of the CPU
    most like this machine's, unless ``device`` names one); what is left out on the way is told.
    Raises `InputError` where there are none."""
    from ..runtime_harness.protocol import PROTOCOL
    from ..search.predictor.recordings import (
        of_store,
        read_recording,
        select,
        shipped,
        shipped_for_this_cpu,
    )

    chosen = PROTOCOL if protocol is None else protocol
    if store is None:
        found = shipped_for_this_cpu() if device is None else shipped()
    elif store.endswith((".jsonl", ".jsonl.gz")):
        found = read_recording(store)
    else:
        found, left = of_store(store, device=device, emulated=emulated, protocol=chosen)
        if left:
            console.warn(
                f"{left} timings in {store} were left out: they do not say the whole "
                "architecture, or have no reference beside them"
            )
    if emulated:
        console.warn("emulated timings are not those of real silicon")
    return select(
        found, device=device, threads=threads, target=target, emulated=emulated, protocol=chosen
    )
