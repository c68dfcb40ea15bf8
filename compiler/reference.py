"""Reference inputs and outputs: what the compiled model is measured against, everywhere.

The reference is the uncompiled model in float32. Token models get three samples per length:
one that fills it, one that fills about five eighths and one of a few tokens. The short ones
are *not* padded here; the session that runs them pads, so that a module whose real positions
are touched by padding differs from its reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from .models import SourceModel
from .wrapper import Entry, boundary

__all__ = ["Reference", "draw_samples", "evaluate", "output_shapes"]

_SEED = 20210600


@dataclass(frozen=True)
class Reference:
    """Samples for one length: inputs and outputs by name, as NumPy arrays."""

    inputs: tuple[dict[str, np.ndarray[Any, Any]], ...]
    outputs: tuple[dict[str, np.ndarray[Any, Any]], ...]

    def tensors(self) -> dict[str, np.ndarray[Any, Any]]:
        """Flat names as they stand in the bundle: ``0/in/input_ids``, ``0/out/logits``."""
        flat = {}
        for index, (given, found) in enumerate(zip(self.inputs, self.outputs, strict=True)):
            flat.update({f"{index}/in/{name}": array for name, array in given.items()})
            flat.update({f"{index}/out/{name}": array for name, array in found.items()})
        return flat


def draw_samples(
    source: SourceModel, seq_len: int, batch: int
) -> tuple[tuple[torch.Tensor, ...], ...]:
    """Inputs in the order of ``source.input_names``; the first sample fills the length."""
    if not source.tokens:
        given = tuple(boundary(tensor) for tensor in source.example_inputs)
        if not any(tensor.is_floating_point() for tensor in given):
            return (given,)
        return (given, _perturbed(given))
    lengths = sorted({seq_len, max(1, seq_len * 5 // 8), min(4, seq_len)}, reverse=True)
    generator = torch.Generator().manual_seed(_SEED)
    return tuple(_draw_tokens(source, batch, length, generator) for length in lengths)


def evaluate(entry: Entry, samples: tuple[tuple[torch.Tensor, ...], ...]) -> Reference:
    """Run the uncompiled model. Raises `InputError` where its outputs are not finite."""
    names = entry.input_names
    inputs, outputs = [], []
    for sample in samples:
        with torch.no_grad():
            results = entry(*sample)
        found = {n: t.numpy().copy() for n, t in zip(entry.output_names, results, strict=True)}
        for name, array in found.items():
            if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
                raise InputError(
                    f"The uncompiled model itself gives NaN or infinity in {name!r}, though its "
                    "parameters are finite: check its buffers and what it computes."
                )
        inputs.append({n: t.numpy().copy() for n, t in zip(names, sample, strict=True)})
        outputs.append(found)
    return Reference(tuple(inputs), tuple(outputs))


def output_shapes(
    source: SourceModel, reference: Reference, seq_len: int
) -> tuple[tuple[int | str, ...], ...]:
    """Each output's shape with ``"batch"`` and ``"seq"`` in place of what varies.

    An axis is the sequence where its size follows the length of the sample.
    """
    full = reference.outputs[0]
    if not source.tokens:
        return tuple(tuple(array.shape) for array in full.values())
    lengths = [next(iter(given.values())).shape[1] for given in reference.inputs]
    shapes: list[tuple[int | str, ...]] = []
    for name, array in full.items():
        shape: list[int | str] = list(array.shape)
        for axis in range(array.ndim):
            sizes = [found[name].shape[axis] for found in reference.outputs]
            if sizes == lengths and (len(set(lengths)) > 1 or axis == 1):
                shape[axis] = "seq"
        if shape and shape[0] == next(iter(reference.inputs[0].values())).shape[0]:
            shape[0] = "batch"
        shapes.append(tuple(shape))
    return tuple(shapes)


def _draw_tokens(
    source: SourceModel, batch: int, length: int, generator: torch.Generator
) -> tuple[torch.Tensor, ...]:
    vocabulary = source.vocab_size or 2
    ids = torch.randint(0, vocabulary, (batch, length), generator=generator, dtype=torch.int32)
    # A pad token inside the text would change what some families take for its length.
    ids[ids == source.pad_id] = (source.pad_id + 1) % vocabulary
    types = torch.zeros_like(ids)
    types[:, (length + 1) // 2 :] = 1
    made = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": types,
    }
    return tuple(made[name] for name in source.input_names)


def _perturbed(tensors: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """A second sample near the first: floats scaled by up to a tenth, so that their signs and
    ranges stay; integers and booleans as they are."""
    generator = torch.Generator().manual_seed(_SEED)
    return tuple(
        (t * (1 + 0.1 * torch.rand(t.shape, generator=generator))).to(t.dtype)
        if t.is_floating_point()
        else t
        for t in tensors
    )
