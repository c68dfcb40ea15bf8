"""What there is: targets, devices and patterns."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .. import console
from ..errors import InputError
from .options import Json

__all__ = ["devices", "patterns", "targets"]


def targets(json: Json = False) -> None:
    """What can be compiled for."""
    from .. import targets as table

    listed = [table.get(name) for name in table.names()]
    if json:
        console.print_json({"targets": [target.to_json() for target in listed]})
        return
    console.print_table(
        ("target", "kind", "precisions", "devices", "description"),
        [
            (t.name, t.kind, ", ".join(t.precisions), ", ".join(t.devices), t.description)
            for t in listed
        ],
    )


def devices(
    json: Json = False,
    fetch: Annotated[
        str | None,
        typer.Option("--fetch", help="Download what a device needs from PyPI: qemu."),
    ] = None,
) -> None:
    """What is here to run on; what is missing, and how to get it."""
    from ..runtime_harness import devices as table

    if fetch is not None:
        _fetch(fetch)
    listed = table.infos()
    if json:
        console.print_json({"devices": [info.to_json() for info in listed]})
        return
    console.print_table(
        ("device", "here", "emulated", "runs", "description"),
        [
            (
                info.name,
                "yes" if info.available else "no",
                "yes" if info.emulated else "no",
                ", ".join(info.targets),
                info.description if info.available else f"{info.missing} {info.remedy}",
            )
            for info in listed
        ],
    )


def _fetch(device: str) -> None:
    if device != "qemu":
        raise InputError(f"Nothing can be fetched for {device!r}: only 'qemu' needs a download.")
    from ..runtime_harness.aarch64_runtime import ensure

    ensure()


def patterns(
    target: Annotated[str, typer.Option("--target", help="Whose pipeline.")] = "host",
    json: Json = False,
) -> None:
    """The rewrite patterns that run for a target, in order."""
    from .. import targets as table
    from ..compiler.patterns.registry import pipeline

    chosen = pipeline(table.get(target))
    rows = [
        {
            "name": pattern.name,
            "stage": str(stage),
            "required": pattern.required,
            "summary": (sys.modules[type(pattern).__module__].__doc__ or "")
            .strip()
            .split("\n")[0],
        }
        for stage, listed in chosen.items()
        for pattern in listed
    ]
    if json:
        console.print_json({"target": target, "patterns": rows})
        return
    console.print_table(
        ("pattern", "stage", "may be dropped", "what it does"),
        [
            (str(r["name"]), str(r["stage"]), "no" if r["required"] else "yes", str(r["summary"]))
            for r in rows
        ],
    )
