"""The function that is compiled: tensors in, a flat tuple of tensors out.

Hugging Face models take keyword arguments and return records with optional fields. Exporting
wants positional tensors and a tuple, so `Entry` stands between them, and remembers the names.
At this boundary integers are int32 and floats float32: phones' GPUs have nothing wider.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..errors import InputError
from .models import SourceModel

__all__ = ["Entry", "boundary", "make_entry"]

_BOUNDARY = {torch.int64: torch.int32, torch.float64: torch.float32}


def boundary(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` in the dtype that it has outside the compiled model."""
    return tensor.to(_BOUNDARY.get(tensor.dtype, tensor.dtype))


class Entry(torch.nn.Module):
    """``module`` called with ``input_names`` as keywords, its tensors returned as a tuple."""

    def __init__(self, source: SourceModel) -> None:
        super().__init__()
        self.model = source.module
        self.input_names = source.input_names
        self.output_names: tuple[str, ...] = ()
        self._tokens = source.tokens
        # A module that indexes with its inputs wants them in the dtype of the example.
        self._inner = {
            name: tensor.dtype
            for name, tensor in zip(source.input_names, source.example_inputs, strict=False)
        }

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run the model on tensors in the order of ``input_names``."""
        named = self.call(tensors)
        return tuple(boundary(named[name]) for name in self.output_names)

    def call(self, tensors: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
        """Run the model; its tensor results by name."""
        kwargs: dict[str, Any] = dict(zip(self.input_names, tensors, strict=True))
        if not self._tokens:
            return _flatten(
                self.model(**{name: t.to(self._inner[name]) for name, t in kwargs.items()})
            )
        if getattr(self.model.config, "use_cache", None) is not None:
            kwargs["use_cache"] = False
        return _flatten(self.model(**kwargs, return_dict=True))


def make_entry(source: SourceModel, inputs: tuple[torch.Tensor, ...]) -> Entry:
    """An `Entry` whose output names are known, found by one eager call on ``inputs``.

    Raises `InputError` where the model refuses the inputs or returns no tensor.
    """
    entry = Entry(source).eval()
    try:
        with torch.no_grad():
            named = entry.call(inputs)
    except Exception as error:
        shapes = ", ".join(
            f"{name} {list(tensor.shape)}"
            for name, tensor in zip(source.input_names, inputs, strict=True)
        )
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{source.name} cannot be called with {shapes}: {reason}") from error
    if not named:
        raise InputError(f"{source.name} returns no tensor: there is nothing to compile.")
    entry.output_names = tuple(named)
    return entry


def _flatten(result: Any) -> dict[str, torch.Tensor]:
    """Every tensor that the model returns, nested ones included, under stable names."""
    if isinstance(result, torch.Tensor):
        return {"output": result}
    named: dict[str, torch.Tensor] = {}
    prefix = "" if isinstance(result, Mapping) else "output"
    _collect(result, prefix, named)
    return named


def _collect(value: Any, name: str, named: dict[str, torch.Tensor]) -> None:
    if value is None:
        return
    if isinstance(value, torch.Tensor):
        named[name] = value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _collect(item, f"{name}_{key}" if name else str(key), named)
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            _collect(item, f"{name}_{index}", named)
    else:
        raise TypeError(f"its output {name!r} is a {type(value).__name__}, not a tensor")
