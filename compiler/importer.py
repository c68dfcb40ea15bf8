"""A model as MLIR in the torch dialect, through torch.export and torch-mlir's FX importer.

The IR that leaves here keeps three things that patterns and profiles live on:

* operations the compiler has forms of its own for (linear, layer_norm, gelu, softmax,
  scaled_dot_product_attention) stay whole instead of being decomposed;
* every floating-point parameter is a placeholder, ``torch.operator "torch.canao.parameter"``
  with its name, so that no weight is ever copied into the IR and one file of weights serves
  every target and every length;
* every operation's location is the path of the module that made it, e.g.
  ``loc("encoder.layer.0.attention.self.query":17:0)``.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch_mlir import ir
from torch_mlir.dialects import torch as torch_dialect
from torch_mlir.extras.fx_decomp_util import get_decomposition_table
from torch_mlir.extras.fx_importer import FxImporter, FxImporterHooks

from ..errors import UnsupportedError
from .wrapper import Entry

__all__ = ["PARAMETER_OP", "ImportedModel", "import_model"]

PARAMETER_OP = "torch.canao.parameter"

# Kept whole: each has a lowering downstream, and patterns match it by name.
_WHOLE = frozenset(
    f"aten.{name}"
    for name in (
        "linear",
        "layer_norm",
        "gelu",
        "softmax.int",
        "_softmax",
        "scaled_dot_product_attention",
        "addmm",
        "silu",
    )
)


@dataclass(frozen=True, kw_only=True)
class ImportedModel:
    """``text``: the module in the torch dialect; ``parameters``: name -> tensor, unshared."""

    text: str
    parameters: dict[str, torch.Tensor]


def import_model(entry: Entry, inputs: tuple[torch.Tensor, ...]) -> ImportedModel:
    """Export ``entry`` for the static shapes of ``inputs`` and import it as MLIR text.

    Raises `UnsupportedError` naming the op and the layer where torch.export or the importer
    has no form for something the model does.
    """
    program = _export(entry, inputs)
    _refuse_mutation(program)
    for index, node in enumerate(program.graph.nodes):
        # The importer turns `File "x", line n` of a stack trace into a location.
        node.stack_trace = f'File "{_layer_of(node)}", line {index}, in canao'
    context = ir.Context()
    torch_dialect.register_dialect(context)
    hooks = _ParameterHooks()
    importer = FxImporter(context=context, hooks=hooks)
    try:
        importer.import_program(program, func_name="main")
    except Exception as error:
        raise UnsupportedError(_explain_import(program, error)) from error
    text = importer.module.operation.get_asm(enable_debug_info=True)
    return ImportedModel(text=text, parameters=hooks.parameters)


def _export(entry: Entry, inputs: tuple[torch.Tensor, ...]) -> torch.export.ExportedProgram:
    table = {
        op: rule
        for op, rule in get_decomposition_table().items()
        if not any(str(op) == whole or str(op).startswith(whole + ".") for whole in _WHOLE)
    }
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # torch warns its own callers of what it will change in itself.
            warnings.simplefilter("ignore")
            program = torch.export.export(entry, inputs, strict=False)
            decomposed: torch.export.ExportedProgram = program.run_decompositions(table)
            return decomposed
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise UnsupportedError(
            f"torch.export cannot trace the model: {lines[0] if lines else type(error).__name__}"
        ) from error


def _refuse_mutation(program: torch.export.ExportedProgram) -> None:
    """A compiled module keeps nothing from one call to the next."""
    signature = program.graph_signature
    buffers = [name.removeprefix("model.") for name in signature.buffers_to_mutate.values()]
    inputs = list(signature.user_inputs_to_mutate.values())
    for kind, names in (("buffer", buffers), ("input", inputs)):
        if names:
            raise UnsupportedError(
                f"The model changes its {kind} {names[0]!r} in forward, and a compiled module "
                "has no state: return the new value as an output instead."
            )


class _ParameterHooks(FxImporterHooks):  # type: ignore[misc]
    """Floating-point parameters become placeholders; integers and small tensors stay inline."""

    def __init__(self) -> None:
        self.parameters: dict[str, torch.Tensor] = {}
        self._by_storage: dict[tuple[Any, ...], str] = {}

    def resolve_input(self, gni: Any, value: Any, info: Any) -> Any:
        return self._placeholder(gni, value, info.input_spec.target or info.node.name)

    def resolve_literal(self, gni: Any, literal: Any, info: Any) -> Any:
        if not isinstance(literal, torch.Tensor):
            return None
        if not literal.is_floating_point():
            return _dense_literal(gni, literal)
        # Named by content: another length of the same model may lift another constant.
        digest = hashlib.sha256(f"{literal.dtype}{tuple(literal.shape)}".encode())
        digest.update(literal.detach().contiguous().numpy().tobytes())
        return self._placeholder(gni, literal, f"constant.{digest.hexdigest()[:16]}")

    def _placeholder(self, gni: Any, value: Any, name: str) -> Any:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return None  # resolve_literal is asked next
        if value.dim() == 0:  # a scalar is cheaper inside the module than as a parameter
            return None
        name = name.removeprefix("model.")
        # Tied weights are one tensor under several names: keep the first name.
        key = (value.data_ptr(), tuple(value.shape), tuple(value.stride()), value.dtype)
        name = self._by_storage.setdefault(key, name)
        self.parameters[name] = value.detach()
        result = gni._cc.tensor_to_vtensor_type(value)
        attributes = {
            "name": ir.StringAttr.get(PARAMETER_OP),
            "canao.name": ir.StringAttr.get(name),
        }
        return ir.Operation.create(
            "torch.operator", results=[result], attributes=attributes
        ).result


def _dense_literal(gni: Any, tensor: torch.Tensor) -> Any:
    """An integer constant spelled out in the IR, where patterns can read and retype it."""
    result = gni._cc.tensor_to_vtensor_type(tensor)
    values = np.array(tensor.tolist(), dtype=tensor.numpy().dtype)
    value = ir.DenseElementsAttr.get(values, signless=False)
    return ir.Operation.create(
        "torch.vtensor.literal", results=[result], attributes={"value": value}
    ).result


def _layer_of(node: torch.fx.Node) -> str:
    """Path of the innermost module that made this node, without the entry's own prefix."""
    stack = node.meta.get("nn_module_stack")
    path = next(reversed(stack.values()))[0] if stack else ""
    for prefix in ("L['self'].", "L['self']", "self."):
        path = path.removeprefix(prefix)
    if path == "model":
        path = ""
    return path.removeprefix("model.") or "model"


def _explain_import(program: torch.export.ExportedProgram, error: Exception) -> str:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    for node in program.graph.nodes:
        if node.op == "call_function" and str(node.target) in str(error):
            return f"No MLIR form for {node.target} in layer {_layer_of(node)}: {text}"
    return f"The model cannot be imported as MLIR: {text}"
