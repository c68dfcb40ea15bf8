"""What valid IR is, as an executable check that runs after every pattern."""

from __future__ import annotations

from collections import Counter
from typing import Any

from iree.compiler import ir

from ..errors import CompileError
from .parameters import ParameterTable
from .patterns.base import walk
from .patterns.torch_ops import parameter_name, tensor_shape

__all__ = ["check_module", "entry_signature"]


def entry_signature(module: ir.Module) -> str:
    """The type of the public function, which no pattern may change."""
    return "; ".join(str(op.attributes["function_type"]) for op in _entries(module))


def check_module(
    module: ir.Module, *, pattern: str, parameters: ParameterTable, signature: str
) -> None:
    """Raise `CompileError`, naming ``pattern``, where it left anything but valid IR.

    Valid is: MLIR's own verifier accepts it; the public function has the type it had; every
    placeholder names a known parameter and has its shape; every global is declared once.
    """
    try:
        _check(module, pattern, parameters, signature)
    except (CompileError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CompileError(
            f"Pattern {pattern} left IR that cannot be checked: {reason}"
        ) from error


def _check(module: ir.Module, pattern: str, parameters: ParameterTable, signature: str) -> None:
    try:
        module.operation.verify()
    except ir.MLIRError as error:
        reason = str(error).splitlines()
        raise CompileError(f"Pattern {pattern} left invalid IR: {' '.join(reason[:2])}") from error
    if entry_signature(module) != signature:
        raise CompileError(
            f"Pattern {pattern} changed the model's interface from {signature} "
            f"to {entry_signature(module)}."
        )
    for op in walk(module.operation):
        if op.name == "torch.operator":
            _check_placeholder(op, pattern, parameters)
    symbols = Counter(
        str(op.attributes["sym_name"]) for op in module.body if op.operation.name == "util.global"
    )
    for name, count in symbols.items():
        if count > 1:
            raise CompileError(f"Pattern {pattern} declared the global {name} {count} times.")


def _check_placeholder(op: Any, pattern: str, parameters: ParameterTable) -> None:
    if len(op.results) == 0:  # called for its effect, so it stands for no value
        return
    name = parameter_name(op.results[0])
    if name is None:
        return
    if name not in parameters:
        raise CompileError(f"Pattern {pattern} reads a parameter {name!r} that does not exist.")
    shape, _ = tensor_shape(op.results[0])
    if shape != parameters[name].shape:
        raise CompileError(
            f"Pattern {pattern} reads {name!r} as {list(shape)}, "
            f"but it is {list(parameters[name].shape)}."
        )


def _entries(module: ir.Module) -> list[Any]:
    functions = ("func.func", "util.func")
    return [op.operation for op in module.body if op.operation.name in functions and _public(op)]


def _public(op: Any) -> bool:
    attributes = op.operation.attributes
    return "sym_visibility" not in attributes or str(attributes["sym_visibility"]) == '"public"'
