"""What is in a timing store, and how it gets out and in."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import console
from .options import Json

__all__ = ["app"]

app = typer.Typer(
    name="timings", help="Timing stores that 'bench --store' writes.", no_args_is_help=True
)

_Store = Annotated[str, typer.Argument(metavar="STORE", help="A timing store.")]


@app.command()
def show(
    store: _Store,
    device: Annotated[
        str | None, typer.Option("--device", help="A device's name or fingerprint.")
    ] = None,
    emulated: Annotated[
        bool, typer.Option("--emulated", help="The emulated timings, instead of the real ones.")
    ] = False,
    protocol: Annotated[
        int | None, typer.Option("--protocol", help="The protocol's version; canao's own if left.")
    ] = None,
    json: Json = False,
) -> None:
    """The timings of one device, by one protocol."""
    from ..runtime_harness.protocol import PROTOCOL
    from ..runtime_harness.timing_store import TimingStore

    chosen = PROTOCOL if protocol is None else protocol
    rows = TimingStore(store).query(device=device, emulated=emulated, protocol=chosen)
    if json:
        console.print_json({"timings": [row.to_json() for row in rows]})
        return
    if emulated:
        console.warn("emulated timings are not those of real silicon")
    console.print_table(
        ("added", "device", "model", "target", "length", "threads", "median ms", "of reference",
         "stable"),
        [
            (
                row.added[:19],
                f"{found.device} {found.fingerprint}",
                found.model,
                f"{found.target} {found.precision}",
                str(found.seq_len),
                str(found.threads),
                console.milliseconds(found.median_ms),
                "-" if found.relative is None else f"{found.relative:.3f}",
                "yes" if found.stable else "no",
            )
            for row in rows
            for found in [row.measurement]
        ],
    )  # fmt: skip


@app.command()
def export(
    store: _Store,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="FILE", help="NAME.jsonl or NAME.jsonl.gz.")
    ],
    json: Json = False,
) -> None:
    """Write every row as a line of JSON."""
    from ..runtime_harness.timing_store import TimingStore

    count = TimingStore(store).export(output)
    if json:
        console.print_json({"path": output, "timings": count})
    else:
        console.say(f"{output}: {count} timings")


@app.command("import")
def import_(
    store: _Store,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What 'export' wrote.")],
    json: Json = False,
) -> None:
    """Add the rows of an exported file that are not in the store yet."""
    from ..runtime_harness.timing_store import TimingStore

    count = TimingStore(store).load(file)
    if json:
        console.print_json({"path": store, "added": count})
    else:
        console.say(f"{store}: {count} timings added")
