"""What the parts of a manifest must be to each other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ...errors import BundleError
from .names import MANIFEST_NAME, shown

if TYPE_CHECKING:
    from .manifest import Manifest
    from .module_entry import ModuleEntry

__all__ = ["check_consistent"]

_DECIMAL = re.compile(r"[1-9][0-9]{0,8}")


def check_consistent(manifest: Manifest) -> None:
    """Raise BundleError unless the manifest is one of a bundle that can be run."""
    for kind, listed in (("module", manifest.modules), ("output", manifest.outputs)):
        if not listed:
            raise BundleError(
                f"{MANIFEST_NAME} lists no {kind}, so there is nothing to run: "
                "compile the model again"
            )
    _check_files(manifest)
    _check_twins(manifest)


def _check_files(manifest: Manifest) -> None:
    def need(name: object, user: str) -> None:
        if not isinstance(name, str) or name not in manifest.files:
            raise BundleError(
                f"{MANIFEST_NAME}: {user} needs the file {shown(str(name))}, which is not listed"
            )

    for module in manifest.modules:
        need(module.file, _called(module))
    for length, name in manifest.reference.items():
        if _DECIMAL.fullmatch(length) is None:
            raise BundleError(
                f"{MANIFEST_NAME}: reference has {shown(length)}, which is not a length"
            )
        need(name, f"the reference for length {length}")
    if manifest.tokenizer is not None:
        need(manifest.tokenizer.get("file"), "tokenizer")


def _check_twins(manifest: Manifest) -> None:
    seen: set[tuple[str, int]] = set()
    for module in manifest.modules:
        key = (module.target, module.seq_len)
        if key in seen:
            raise BundleError(f"{MANIFEST_NAME}: {_called(module)} is there twice")
        seen.add(key)
    for kind, specs in (("input", manifest.inputs), ("output", manifest.outputs)):
        names = [spec.name for spec in specs]
        for name in names:
            if names.count(name) > 1:
                raise BundleError(f"{MANIFEST_NAME}: the {kind} {shown(name)} is there twice")


def _called(module: ModuleEntry) -> str:
    return f"the module for {shown(module.target)} at length {module.seq_len}"
