"""From a module in the torch dialect to a program for one target, patterns in between.

`lower` runs in this process; `compiler.isolation` runs it in a killable one.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CanaoError, CompileError, InputError, UnsupportedError
from ..targets import Target
from .locations import layer_of
from .request import LoweringRequest, LoweringResult

if TYPE_CHECKING:
    from .iree_session import PhasedCompiler, PipelineError
    from .patterns.base import Pattern, PatternContext, Stage

__all__ = ["executed_calls", "lower", "one_line"]

_SNIPPET = 220
_LONGEST = 600


def one_line(text: str, *, limit: int = _SNIPPET) -> str:
    """``text`` with every run of white space as one space, cut to ``limit`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def lower(
    request: LoweringRequest,
    output: Path,
    *,
    patterns: Mapping[Stage, Sequence[Pattern]] | None = None,
    log: Path | None = None,
) -> LoweringResult:
    """Compile ``request`` into ``output`` (a .vmfb file).

    ``patterns`` replaces the pipeline that the request asks for (tests run patterns alone and
    in other orders so). ``log`` is the file that this process's standard error goes to, where
    it goes to one.

    Raises `UnsupportedError` where an op has no form on the target (the message names the op
    and the model layer), `InputError` where this process does not have the patterns that the
    request names, `CompileError` where the compiler or a pattern failed otherwise. Every
    message is one line.
    """
    from .patterns.registry import pipeline

    try:
        if patterns is None:
            patterns = pipeline(request.target, fusion=request.fusion, drop=request.drop_patterns)
            _check_names(request, patterns)
        return _lower_or_retry(request, output, patterns, log)
    except CanaoError as error:
        text = one_line(str(error), limit=_LONGEST)
        if text == str(error):
            raise
        raise type(error)(text) from error


def executed_calls(request: LoweringRequest) -> tuple[tuple[str, str], ...]:
    """The dispatches that one call of the compiled ``request`` would execute, in order, each with
    its layer: all of the compilation but the code of each. Raises as `lower` does."""
    from .flags import iree_flags
    from .iree_session import PipelineError
    from .patterns.registry import pipeline

    patterns = pipeline(request.target, fusion=request.fusion, drop=request.drop_patterns)
    flags = iree_flags(request.target, fusion=request.fusion) + request.flags
    try:
        return _arranged(request, patterns, flags, None).calls
    except PipelineError as failure:
        raise _explain(failure, request.target) from failure


def _check_names(request: LoweringRequest, chosen: Mapping[Stage, Sequence[Pattern]]) -> None:
    from .patterns.registry import ordered_names

    found = ordered_names(chosen)
    if request.patterns and found != request.patterns:
        differing = sorted(set(request.patterns) ^ set(found))
        what = f"lacks or adds {', '.join(differing)}" if differing else "has another order"
        raise InputError(
            f"The pipeline of the compiling process {what}: move each such pattern, with its "
            "registration, into a module that can be imported, or compile with isolated=False."
        )


def _lower_or_retry(
    request: LoweringRequest,
    output: Path,
    chosen: Mapping[Stage, Sequence[Pattern]],
    log: Path | None,
) -> LoweringResult:
    from .flags import NO_DATA_TILING, iree_flags
    from .iree_session import PipelineError

    flags = iree_flags(request.target, fusion=request.fusion) + request.flags
    try:
        return _lower(request, output, chosen, flags, log)
    except PipelineError as failure:
        error = _explain(failure, request.target)
        # Data tiling has no form for some shapes (a single token, for one); plain tiling has.
        tiled = request.target.kind == "cpu" and NO_DATA_TILING not in flags
        if isinstance(error, UnsupportedError) or not tiled:
            raise error from failure
    try:
        result = _lower(request, output, chosen, (*flags, NO_DATA_TILING), log)
    except CompileError:
        raise error from None
    note = f"{request.target.name} was compiled without data tiling, because {error}"
    return dataclasses.replace(result, notes=(*result.notes, note))


def _lower(
    request: LoweringRequest,
    output: Path,
    chosen: Mapping[Stage, Sequence[Pattern]],
    flags: Sequence[str],
    log: Path | None,
) -> LoweringResult:
    started = time.perf_counter()
    found = _arranged(request, chosen, flags, log)
    found.compiler.advance("end")
    found.compiler.write(output)
    context = found.context
    return LoweringResult(
        calls=found.calls,
        patterns=found.applied,
        parameters=found.parameters,
        derivations=tuple(context.parameters.derivations.values()),
        seconds=time.perf_counter() - started,
        notes=tuple(context.notes),
        kernels=dict(context.kernels),
        fallbacks=tuple(map(str, context.fallbacks)),
        linalg=dict(Counter(fallback.summary for fallback in context.fallbacks)),
        unmeasured=tuple(context.unmeasured),
    )


@dataclass(frozen=True)
class _Arranged:
    """A module whose dispatches stand in their order; none has code yet."""

    compiler: PhasedCompiler
    context: PatternContext
    applied: dict[str, int]
    parameters: tuple[str, ...]
    calls: tuple[tuple[str, str], ...]


def _arranged(
    request: LoweringRequest,
    chosen: Mapping[Stage, Sequence[Pattern]],
    flags: Sequence[str],
    log: Path | None,
) -> _Arranged:
    from .idle import idle_by_parameter
    from .iree_session import PhasedCompiler
    from .parameters import Parameter, ParameterTable
    from .patterns.base import PatternContext
    from .sparsity import by_parameter

    table = ParameterTable(Parameter(*parameter) for parameter in request.parameters)
    context = PatternContext(
        target=request.target,
        precision=request.precision,
        parameters=table,
        fusion=request.fusion,
        wider=dict(request.wider),
        rounded={name: (weight, vector) for name, weight, vector in request.rounded},
        ranges=dict(request.ranges),
        symmetric=request.symmetric,
        narrow_tables=request.narrow_tables,
        blocks=by_parameter(request.blocks),
        idle=idle_by_parameter(request.idle),
        choices=request.choices,
    )
    compiler = PhasedCompiler(request.text, flags, log=log)
    applied: dict[str, int] = {}
    _run_patterns(compiler, chosen["torch"], context, applied)
    compiler.advance("input")
    _run_patterns(compiler, chosen["linalg"], context, applied)
    parameters = _parameter_names(compiler.module)
    compiler.advance("flow")
    _run_patterns(compiler, chosen["dispatch"], context, applied)
    compiler.advance("stream")
    calls = _executed_dispatches(compiler.module)
    return _Arranged(compiler, context, applied, parameters, calls)


def _run_patterns(compiler: Any, patterns: Any, context: Any, applied: dict[str, int]) -> None:
    from iree.compiler import ir

    from .ir_check import check_module, entry_signature

    with compiler.context, ir.Location.unknown():
        signature = entry_signature(compiler.module)
        for pattern in patterns:
            try:
                applied[pattern.name] = pattern.run(compiler.module, context)
            except (CanaoError, MemoryError):
                raise
            except Exception as error:
                reason = one_line(f"{type(error).__name__}: {error}")
                raise CompileError(f"Pattern {pattern.name} failed: {reason}") from error
            check_module(
                compiler.module,
                pattern=pattern.name,
                parameters=context.parameters,
                signature=signature,
            )


def _parameter_names(module: Any) -> tuple[str, ...]:
    """Names of the parameters that the module loads, sorted."""
    names = []
    for op in module.body:
        if op.operation.name == "util.global":
            attributes = op.operation.attributes
            value = str(attributes["initial_value"]) if "initial_value" in attributes else ""
            if value.startswith("#flow.parameter.named"):
                names.append(value.split('"')[3])
    return tuple(sorted(names))


def _executed_dispatches(module: Any) -> tuple[tuple[str, str], ...]:
    """Dispatches of the entry function; those of initialisers run once, at load."""
    from .patterns.base import walk

    calls = []
    for function in module.body:
        if function.operation.name != "util.func":
            continue
        for op in walk(function.operation):
            if op.name == "stream.cmd.dispatch":
                entry = str(op.attributes["entry_points"]).strip("[]").split("::")[-1]
                calls.append((entry.strip('@"'), layer_of(str(op.location))))
    return tuple(calls)


def _explain(failure: PipelineError, target: Target) -> CompileError | UnsupportedError:
    """One sentence: the failing op and its layer, from the compiler's first error."""
    if not failure.diagnostics:
        return CompileError(f"{failure} for {target.name}, and gave no reason.")
    first = failure.diagnostics[0]
    layer = layer_of(first.location)
    quoted = re.search(r"'([\w.$-]+)' op|operation '([\w.$-]+)'|([\w]+\.[\w.]+)", first.message)
    op = next((group for group in quoted.groups() if group), "an op") if quoted else "an op"
    if op == "torch.operator":  # the importer's word for an op that has no class of its own
        inner = re.search(r'name = "([^"]+)"', first.message)
        op = inner[1] if inner else op
    text = f"{op} in layer {layer} cannot be lowered for {target.name}: {one_line(first.message)}"
    if "failed to legalize" in first.message or "unsupported" in first.message.lower():
        return UnsupportedError(text)
    return CompileError(text)
