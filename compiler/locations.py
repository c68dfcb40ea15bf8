"""From an MLIR location to the model's layer: the importer writes layers as file names."""

from __future__ import annotations

import re

__all__ = ["layer_of"]

_LAYER = re.compile(r'"([\w.\[\]-]+)":\d+')


def layer_of(location: str) -> str:
    """The module path of a location; the common parent where several layers were fused."""
    paths = sorted(set(_LAYER.findall(location)))
    if len(paths) < 2:
        return paths[0] if paths else "model"
    shared = []
    for words in zip(*(path.split(".") for path in paths), strict=False):
        if len(set(words)) > 1:
            break
        shared.append(words[0])
    return ".".join(shared) or paths[0]
