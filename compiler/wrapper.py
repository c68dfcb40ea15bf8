"""The function that is compiled: tensors in, a flat tuple of tensors out.

Hugging Face models take keyword arguments and return records with optional fields. Exporting
wants positional tensors and a tuple, so `Entry` stands between them, and remembers the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..errors import InputError
from .models import SourceModel

__all__ = ["Entry", "make_entry"]


class Entry(torch.nn.Module):
    """``module`` called with ``input_names`` as keywords, its tensors returned as a tuple."""

    def __init__(self, source: SourceModel) -> None:
        super().__init__()
        self.model = source.module
        self._input_names = source.input_names
        self._tokens = source.tokens
        self.output_names: tuple[str, ...] = ()

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the model on tensors in the order of ``input_names``."""
        named = self._call(tensors)
        return tuple(named[name] for name in self.output_names)

    def _call(self, tensors: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        if not self._tokens:
            result = self.model(**dict(zip(self._input_names, tensors, strict=True)))
            return _flatten(result)
        kwargs: dict[str, Any] = dict(zip(self._input_names, tensors, strict=True))
        config = self.model.config
        if getattr(config, "use_cache", None) is not None:
            kwargs["use_cache"] = False
        return _flatten(self.model(**kwargs, return_dict=True))


def make_entry(source: SourceModel, inputs: tuple[torch.Tensor, ...]) -> Entry:
    """An `Entry` whose output names are known, found by one eager call on ``inputs``.

    Raises `InputError` where the model refuses the inputs or returns no tensor.
    """
    entry = Entry(source).eval()
    try:
        with torch.no_grad():
            named = entry._call(inputs)
    except Exception as error:
        shapes = ", ".join(f"{n} {tuple(t.shape)}" for n, t in zip(
            source.input_names, inputs, strict=True))
        raise InputError(
            f"{source.name} cannot be called with {shapes}: {str(error).splitlines()[0]}"
        ) from error
    if not named:
        raise InputError(f"{source.name} returns no tensor: there is nothing to compile.")
    entry.output_names = tuple(named)
    return entry


def _flatten(result: Any) -> dict[str, torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return {"output": result}
    if isinstance(result, Mapping):
        items = list(result.items())
    elif isinstance(result, (tuple, list)):
        items = [(f"output_{i}", value) for i, value in enumerate(result)]
    else:
        raise TypeError(f"the model returns a {type(result).__name__}, not tensors")
    return {name: value for name, value in items if isinstance(value, torch.Tensor)}
