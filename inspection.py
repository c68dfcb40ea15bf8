"""``canao inspect``: what a bundle holds, without running it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from . import console
from .runtime_harness.bundle import Bundle

__all__ = ["BundleReport", "describe"]


@dataclass(frozen=True, kw_only=True)
class BundleReport:
    """``manifest`` as JSON values; sizes in bytes; ``dispatches`` by TARGET/SEQ."""

    path: str
    manifest: dict[str, Any]
    bytes: int
    dispatches: dict[str, int | None]
    numerics: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The keys of ``canao inspect --json``."""
        return {
            "bundle": self.path,
            "manifest": self.manifest,
            "bytes": self.bytes,
            "dispatches": self.dispatches,
            "numerics": self.numerics,
        }

    def print(self) -> None:
        """For people."""
        m = self.manifest
        model = m["model"]
        kinds = ", ".join(str(model[key]) for key in ("family", "head") if key in model)
        console.say(
            f"{self.path}: {model.get('name', 'a model')} ({kinds}), "
            f"{m['precision']}, fusion {m['fusion']}, {self.bytes / 1e6:.1f} MB"
        )
        for kind in ("inputs", "outputs"):
            for spec in m[kind]:
                console.say(f"  {kind[:-1]:6} {spec['name']}: {spec['dtype']} {spec['shape']}")
        console.print_table(
            ("module", "dispatches", "bytes", "checked on"),
            [self._module_row(entry) for entry in m["modules"]],
        )
        for target, entry in {entry["target"]: entry for entry in m["modules"]}.items():
            applied = [f"{name} x{count}" for name, count in entry["patterns"].items() if count]
            console.say(f"{target}: {', '.join(applied) or 'no patterns'}")
            if entry["features"]:
                console.say(f"  needs {' '.join(entry['features'])}")
        for line in console.counted(_linalg(model)):
            console.say(f"no kernels, {line}")
        versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
        console.say(f"made by canao {m['canao']} with {versions}")

    def _module_row(self, entry: dict[str, Any]) -> tuple[str, ...]:
        checked = self.numerics.get(entry["target"]) or {}
        return (
            f"{entry['target']}/{entry['seq_len']}",
            str(entry["dispatches"]),
            str(self.manifest["files"][entry["file"]]["bytes"]),
            str(checked.get("device") or "not verified"),
        )


def _linalg(model: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What no kernel serves, as far as a manifest says so: older ones do not."""
    found = model.get("linalg")
    entries = found.items() if isinstance(found, dict) else ()
    return {key: counts for key, counts in entries if isinstance(counts, dict)}


def describe(path: str | os.PathLike[str]) -> BundleReport:
    """Open a bundle, check every file's hash, and describe it."""
    bundle = Bundle.open(path)
    bundle.check()
    manifest = bundle.manifest.to_json()
    return BundleReport(
        path=str(bundle.path),
        manifest=manifest,
        bytes=bundle.size_bytes,
        dispatches={f"{m.target}/{m.seq_len}": m.dispatches for m in bundle.manifest.modules},
        numerics=dict(bundle.numerics),
    )
