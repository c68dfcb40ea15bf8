"""Writing weights.safetensors so that the runtime can use it where it lies.

The format allows spaces after the header's JSON. Padded to 64 bytes, and with tensors whose
size is a multiple of 64 bytes first, nearly every weight starts at an address that IREE maps
instead of copying.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["ALIGNMENT", "write_weights"]

ALIGNMENT = 64

_DTYPES = {
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
}


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write contiguous ``tensors`` to ``path``; the same tensors give the same bytes.

    Raises InputError for a dtype that the runtime has no parameters of.
    """
    import torch

    def size(name: str) -> int:
        return tensors[name].numel() * tensors[name].element_size()

    order = sorted(tensors, key=lambda name: (size(name) % ALIGNMENT != 0, name))
    header: dict[str, object] = {}
    offset = 0
    for name in order:
        dtype = str(tensors[name].dtype).removeprefix("torch.")
        if dtype not in _DTYPES:
            raise InputError(f"Parameter {name!r} is {dtype}: convert the model to float32 first.")
        span = [offset, offset + size(name)]
        shape = list(tensors[name].shape)
        header[name] = {"dtype": _DTYPES[dtype], "shape": shape, "data_offsets": span}
        offset = span[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for name in order:
            flat = tensors[name].detach().contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)
