"""What the compiler makes of an architecture, without code for each dispatch."""

from __future__ import annotations

from typing import Any

from canao.compiler.compression.precisions import asked_precisions, bundle_precision
from canao.compiler.importer import import_model
from canao.compiler.kernels.choosing.tuning import choices_for
from canao.compiler.kernels.executable import Kernel
from canao.compiler.lowering import executed_calls
from canao.compiler.models import from_module
from canao.compiler.options import CompileOptions
from canao.compiler.quantization.plan import QuantizationPlan
from canao.compiler.reference import draw_samples
from canao.compiler.wrapper import make_entry
from canao.search.program.names import dispatch_of
from canao.search.space.architecture import Architecture
from canao.search.space.models import fresh_model
from tests.compiler.support import request_for

__all__ = ["agree", "calls_by_compiler"]


def calls_by_compiler(
    architecture: Architecture, targets: tuple[str, ...], model: Any = None
) -> list[list[str]]:
    """For each target the names of what one call executes, weights not rounded beforehand;
    ``model`` is one of the architecture (None: a fresh one)."""
    recipe, model = architecture.recipe(), model or fresh_model(architecture)
    source = from_module(model, None)
    (first, *_) = draw_samples(source, architecture.seq_len, 1)
    entry = make_entry(source, first)
    imported = import_model(entry, first)
    precision = bundle_precision(recipe)
    found = []
    for name in targets:
        (target,) = CompileOptions.checked(
            target=name, seq_len=architecture.seq_len, precision=precision
        ).targets
        asked = asked_precisions(recipe, model, targets=[target])
        request = request_for(
            imported,
            target,
            precision=precision,
            narrow_tables=asked.tables,
            choices=choices_for(target)[0],
            wider=QuantizationPlan(wider=asked.wider).fields(imported.parameters)["wider"],
        )
        found.append([name for name, _ in executed_calls(request)])
    return found


def agree(derived: list[Kernel | str], compiled: list[str]) -> str:
    """Where the derived calls and the names of the compiled ones differ; "" where they do not.

    IREE keeps one of several kernels with the same code, so the name may be that of another one;
    its own dispatches are compared as what is read from their names.
    """
    if len(derived) != len(compiled):
        mine = [call if isinstance(call, str) else call.entry for call in derived]
        return f"{len(derived)} and {len(compiled)} calls: {mine} {compiled}"
    known = {call.entry: call for call in derived if isinstance(call, Kernel)}
    for place, (mine, theirs) in enumerate(zip(derived, compiled, strict=True)):
        if isinstance(mine, str):
            if theirs.startswith("run_") or dispatch_of(mine) != dispatch_of(theirs):
                return f"call {place}: {mine} and {theirs}"
        elif mine.entry != theirs:
            twin = known.get(theirs)
            if twin is None or _code(twin) != _code(mine):
                return f"call {place}: {mine.entry} and {theirs}"
    return ""


def _code(kernel: Kernel) -> str:
    return kernel.declaration().replace(kernel.name, "")
