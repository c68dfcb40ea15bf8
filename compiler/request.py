"""What a lowering is asked, and what it answers: plain values that go between processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..targets import Target
from .kernels.choosing.problem import Problem
from .parameters import Derivation

if TYPE_CHECKING:
    from .idle import IdleLines
    from .sparsity import BlockCount

__all__ = ["LoweringRequest", "LoweringResult"]


@dataclass(frozen=True, kw_only=True)
class LoweringRequest:
    """Everything that decides what `lowering.lower` produces; it round-trips through JSON.

    ``parameters``: (name, shape, NumPy dtype) of every weight the module may read.
    ``pattern_modules``: modules to import first, so that their patterns register.
    ``patterns``: the names of the pipeline that must result; () takes what the pipeline gives.
    ``wider``: (weight, precision) of weights that stay wider than ``precision``. ``rounded``:
    (weight, its rounded form, its input's smoothing vector or ""), names of parameters all.
    ``ranges``: (weight, the range of its input), where that is static; ``symmetric``: whether a
    row's own range is, about zero. ``narrow_tables``: whether large tables of words are int8; None
    as ``precision`` has it.
    ``blocks``: how many blocks survive in weights with zeros (`sparsity.count_blocks`).
    ``idle``: their inputs and outputs without any weight (`idle.find_idle`).
    ``choices``: what was measured of products on the target (`choosing.choices.Choices`).
    """

    text: str
    target: Target
    fusion: str = "auto"
    precision: str = "f32"
    drop_patterns: tuple[str, ...] = ()
    parameters: tuple[tuple[str, tuple[int, ...], str], ...] = ()
    pattern_modules: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    wider: tuple[tuple[str, str], ...] = ()
    rounded: tuple[tuple[str, str, str], ...] = ()
    ranges: tuple[tuple[str, str], ...] = ()
    symmetric: bool = False
    narrow_tables: bool | None = None
    blocks: tuple[BlockCount, ...] = ()
    idle: tuple[IdleLines, ...] = ()
    choices: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**values, "target": self.target.to_json(), "choices": dict(self.choices)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LoweringRequest:
        """The inverse of `to_json`."""
        lists = ("drop_patterns", "pattern_modules", "patterns", "flags")
        return cls(
            **{
                **values,
                **{name: tuple(values[name]) for name in lists},
                "target": Target.from_json(values["target"]),
                "parameters": tuple((n, tuple(s), d) for n, s, d in values["parameters"]),
                "wider": tuple((name, wide) for name, wide in values["wider"]),
                "rounded": tuple((n, weight, v) for n, weight, v in values["rounded"]),
                "ranges": tuple((name, range_) for name, range_ in values["ranges"]),
                "blocks": tuple((n, g, p, m, c) for n, g, p, m, c in values["blocks"]),
                "idle": tuple((n, ins, outs) for n, ins, outs in values["idle"]),
                "choices": dict(values["choices"]),
            }
        )


@dataclass(frozen=True, kw_only=True)
class LoweringResult:
    """``calls``: (dispatch, model layer) of each dispatch that one call executes, in order;
    ``kernels``: how many operations each kind of kernel serves; ``fallbacks``: a line for each
    operation that a kernel might have served and linalg does; ``linalg``: how many of them there
    are, by what they are and why; ``unmeasured``: products that were chosen by rule, because
    nobody measured them.
    """

    calls: tuple[tuple[str, str], ...]
    patterns: Mapping[str, int]
    parameters: tuple[str, ...]
    derivations: tuple[Derivation, ...]
    seconds: float
    notes: tuple[str, ...] = ()
    kernels: Mapping[str, int] = field(default_factory=dict)
    fallbacks: tuple[str, ...] = ()
    linalg: Mapping[str, int] = field(default_factory=dict)
    unmeasured: tuple[Problem, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        derivations = [d.to_json() for d in self.derivations]
        unmeasured = [dataclasses.astuple(problem) for problem in self.unmeasured]
        return {**values, "derivations": derivations, "unmeasured": unmeasured}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LoweringResult:
        """The inverse of `to_json`."""
        return cls(
            calls=tuple((name, layer) for name, layer in values["calls"]),
            patterns=dict(values["patterns"]),
            parameters=tuple(values["parameters"]),
            derivations=tuple(Derivation.from_json(d) for d in values["derivations"]),
            seconds=values["seconds"],
            notes=tuple(values["notes"]),
            kernels=dict(values["kernels"]),
            fallbacks=tuple(values["fallbacks"]),
            linalg=dict(values["linalg"]),
            unmeasured=tuple(Problem(*one) for one in values["unmeasured"]),
        )
