"""The precisions that are decided on by running the model, and what they are made of."""

from typing import Literal

__all__ = ["QUANTIZED", "WEIGHT_BITS", "WIDER", "Activations"]

Activations = Literal["dynamic", "symmetric", "static"]
"""Ranges of what int8 products read; see `options.ACTIVATIONS`."""

QUANTIZED = ("int8", "int8-weights", "int4-weights")
"""What takes a calibration: weights are rounded with what they are multiplied by in view."""

WEIGHT_BITS = {"int8-weights": 8, "int4-weights": 4}
"""Bits of a weight where weights alone are narrow and products are of f32 or bf16."""

WIDER = {"int8": "bf16", "int8-weights": "bf16", "int4-weights": "int8-weights"}
"""What a layer becomes that cannot bear the precision."""
