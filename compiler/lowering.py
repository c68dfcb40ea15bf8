"""From a module in the torch dialect to a program for one target, patterns in between.

`lower` runs in this process; `compiler.isolation` runs it in a killable one.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CanaoError, CompileError, UnsupportedError
from ..targets import Target

if TYPE_CHECKING:
    from .patterns.base import Pattern, Stage

__all__ = ["LoweringRequest", "LoweringResult", "lower"]

_LAYER = re.compile(r'"([\w.\[\]-]+)":\d+')
_SNIPPET = 220


@dataclass(frozen=True, kw_only=True)
class LoweringRequest:
    """Everything that decides what `lower` produces; it round-trips through JSON.

    ``parameters``: (name, shape, NumPy dtype) of every weight the module may read.
    ``pattern_modules``: modules to import first, so that their patterns register.
    """

    text: str
    target: Target
    fusion: str = "auto"
    precision: str = "f32"
    drop_patterns: tuple[str, ...] = ()
    parameters: tuple[tuple[str, tuple[int, ...], str], ...] = ()
    pattern_modules: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**values, "target": self.target.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LoweringRequest:
        """The inverse of `to_json`."""
        lists = ("drop_patterns", "pattern_modules", "flags")
        return cls(
            **{
                **values,
                **{name: tuple(values[name]) for name in lists},
                "target": Target.from_json(values["target"]),
                "parameters": tuple((n, tuple(s), d) for n, s, d in values["parameters"]),
            }
        )


@dataclass(frozen=True, kw_only=True)
class LoweringResult:
    """``calls``: (dispatch, model layer) of each dispatch that one call executes, in order."""

    calls: tuple[tuple[str, str], ...]
    patterns: Mapping[str, int]
    parameters: tuple[str, ...]
    derivations: tuple[tuple[str, tuple[str, ...], int], ...]
    seconds: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LoweringResult:
        """The inverse of `to_json`."""
        return cls(
            calls=tuple((name, layer) for name, layer in values["calls"]),
            patterns=dict(values["patterns"]),
            parameters=tuple(values["parameters"]),
            derivations=tuple((n, tuple(s), axis) for n, s, axis in values["derivations"]),
            seconds=values["seconds"],
            notes=tuple(values["notes"]),
        )


def lower(
    request: LoweringRequest,
    output: Path,
    *,
    patterns: Mapping[Stage, Sequence[Pattern]] | None = None,
) -> LoweringResult:
    """Compile ``request`` into ``output`` (a .vmfb file).

    ``patterns`` replaces the pipeline that the request asks for (tests run patterns alone and
    in other orders so).

    Raises `UnsupportedError` where an op has no form on the target (the message names the op
    and the model layer), `CompileError` where the compiler or a pattern failed otherwise.
    """
    from .flags import NO_DATA_TILING, iree_flags
    from .patterns.registry import pipeline

    chosen = patterns or pipeline(
        request.target, fusion=request.fusion, drop=request.drop_patterns
    )
    flags = iree_flags(request.target, fusion=request.fusion) + request.flags
    try:
        return _lower(request, output, chosen, flags)
    except UnsupportedError:
        raise
    except CompileError as error:
        # Data tiling has no form for some shapes (a single token, for one); plain tiling has.
        if request.target.kind != "cpu" or NO_DATA_TILING in flags:
            raise
        try:
            result = _lower(request, output, chosen, (*flags, NO_DATA_TILING))
        except CompileError:
            raise error from None
        note = f"{request.target.name} was compiled without data tiling, because {error}"
        return dataclasses.replace(result, notes=(*result.notes, note))


def _lower(
    request: LoweringRequest,
    output: Path,
    chosen: Mapping[Stage, Sequence[Pattern]],
    flags: Sequence[str],
) -> LoweringResult:
    from .iree_session import PhasedCompiler
    from .parameters import Parameter, ParameterTable
    from .patterns.base import PatternContext

    started = time.perf_counter()
    table = ParameterTable(Parameter(*parameter) for parameter in request.parameters)
    context = PatternContext(target=request.target, precision=request.precision, parameters=table)
    compiler = PhasedCompiler(request.text, flags)
    applied: dict[str, int] = {}
    try:
        _run_patterns(compiler, chosen["torch"], context, applied)
        compiler.advance("input")
        _run_patterns(compiler, chosen["linalg"], context, applied)
        parameters = _parameter_names(compiler.module)
        compiler.advance("flow")
        _run_patterns(compiler, chosen["dispatch"], context, applied)
        compiler.advance("stream")
        calls = _executed_dispatches(compiler.module)
        compiler.advance("end")
        compiler.write(output)
    except CompileError as error:
        raise _explain(compiler, request.target, error) from error
    return LoweringResult(
        calls=calls,
        patterns=applied,
        parameters=parameters,
        derivations=tuple((d.name, d.sources, d.axis) for d in table.derivations.values()),
        seconds=time.perf_counter() - started,
        notes=tuple(context.notes),
    )


def _run_patterns(compiler: Any, patterns: Any, context: Any, applied: dict[str, int]) -> None:
    from iree.compiler import ir

    from .ir_check import check_module, entry_signature

    with compiler.context, ir.Location.unknown():
        signature = entry_signature(compiler.module)
        for pattern in patterns:
            try:
                applied[pattern.name] = pattern.run(compiler.module, context)
            except CanaoError:
                raise
            except Exception as error:
                raise CompileError(
                    f"Pattern {pattern.name} failed: {type(error).__name__}: {error}"
                ) from error
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
                calls.append((entry.strip('@"'), _layer(str(op.location))))
    return tuple(calls)


def _layer(location: str) -> str:
    """The module path of a location; the common parent where several layers were fused."""
    paths = sorted(set(_LAYER.findall(location)))
    if len(paths) < 2:
        return paths[0] if paths else "model"
    shared = []
    for words in zip(*(path.split(".") for path in paths), strict=False):
        if len(set(words)) > 1:
            break
        shared.append(words[0])
    return ".".join(shared) or paths[0]


def _explain(
    compiler: Any, target: Target, error: CompileError
) -> CompileError | UnsupportedError:
    """One sentence: the failing op and its layer, from the compiler's first error."""
    errors = compiler.errors()
    if not errors:
        return error
    first = errors[0]
    layer = _layer(first.location)
    quoted = re.search(r"'([\w.$-]+)' op|operation '([\w.$-]+)'|([\w]+\.[\w.]+)", first.message)
    op = next((group for group in quoted.groups() if group), "an op") if quoted else "an op"
    if op == "torch.operator":  # the importer's word for an op that has no class of its own
        inner = re.search(r'name = "([^"]+)"', first.message)
        op = inner[1] if inner else op
    message = " ".join(first.message.split())[:_SNIPPET]
    text = f"{op} in layer {layer} cannot be lowered for {target.name}: {message}"
    if "failed to legalize" in first.message or "unsupported" in first.message.lower():
        return UnsupportedError(text)
    return CompileError(text)
