"""What a model computes on its way: hidden states and projections of chosen layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...compiler.compression.structure import Layer, structure_of

__all__ = ["Capture"]


class Capture:
    """While it is open, keeps what the last call of ``model`` wrote in the layers asked for.

    ``hidden[i]`` is what layer i wrote, [rows, tokens, width], and ``hidden[-1]`` what the first
    layer read: the embeddings. ``projections[i]`` are its queries, keys and values, each
    [rows, tokens, heads * size].
    """

    def __init__(self, model: Any, hidden: Sequence[int], projections: Sequence[int]) -> None:
        layers = structure_of(model).layers
        self.hidden: dict[int, torch.Tensor] = {}
        self.projections: dict[int, dict[str, torch.Tensor]] = {}
        self._hooks: list[Any] = []
        for place in hidden:
            if place < 0:
                hook = layers[0].module.register_forward_pre_hook(self._read, with_kwargs=True)
            else:
                hook = layers[place].module.register_forward_hook(self._wrote(place))
            self._hooks.append(hook)
        for place in projections:
            for part, path in _matrices(layers[place]).items():
                module = layers[place].part(path)
                self._hooks.append(module.register_forward_hook(self._projected(place, part)))

    def take(self) -> tuple[dict[int, torch.Tensor], dict[int, tuple[torch.Tensor, ...]]]:
        """The hidden states and the projections, which are forgotten here."""
        hidden, found = dict(self.hidden), dict(self.projections)
        self.hidden.clear()
        self.projections.clear()
        return hidden, {place: _parts(parts) for place, parts in found.items()}

    def close(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _read(self, module: Any, arguments: Any, keywords: Any) -> None:
        del module
        self.hidden[-1] = arguments[0] if arguments else keywords["hidden_states"]

    def _wrote(self, place: int) -> Any:
        def keep(module: Any, arguments: Any, output: Any) -> None:
            del module, arguments
            self.hidden[place] = output[0] if isinstance(output, tuple) else output

        return keep

    def _projected(self, place: int, part: str) -> Any:
        def keep(module: Any, arguments: Any, output: torch.Tensor) -> None:
            del module, arguments
            self.projections.setdefault(place, {})[part] = output

        return keep


def _matrices(layer: Layer) -> dict[str, str]:
    family = layer.family
    if layer.joined:
        return {"joined": family.query}
    return {"query": family.query, "key": family.key, "value": family.value}


def _parts(found: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    if "joined" in found:
        return found["joined"].chunk(3, dim=-1)
    return found["query"], found["key"], found["value"]
