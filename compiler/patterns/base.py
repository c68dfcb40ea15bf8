"""What a pattern is, and the tools that patterns share.

A pattern is one file: a docstring that draws the IR before and after and states the law that
makes the rewrite right, and a subclass of `Pattern`. It sees a whole module at one stage of
compilation and says how often it applied.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from iree.compiler import ir

from ...targets import Target
from ..locations import layer_of
from ..parameters import ParameterTable

if TYPE_CHECKING:
    from ..idle import Idle
    from ..kernels.choosing.problem import Problem
    from ..kernels.executable import Kernel
    from ..sparsity import BlockCounts
    from .planned import Planned

__all__ = ["Fallback", "Pattern", "PatternContext", "Stage", "operations", "walk"]

# Where a pattern enters: "torch" before any lowering; "linalg" after IREE's input conversion
# (linalg on tensors); "dispatch" after dispatches are formed, before they are translated.
Stage = Literal["torch", "linalg", "dispatch"]


@dataclass
class Fallback:
    """What linalg serves in place of a kernel: where, what, why; how narrow, if it is not f32."""

    layer: str
    what: str
    reason: str
    precision: str = ""

    def __str__(self) -> str:
        return f"{self.layer}: {self.summary}"

    @property
    def summary(self) -> str:
        """Without the layer: the same for all that fell back alike."""
        way = f"by linalg in {self.precision}" if self.precision else "by linalg"
        return f"{self.what} {way}, {self.reason}"


@dataclass(kw_only=True)
class PatternContext:
    """What a pattern may know and change beside the IR."""

    target: Target
    precision: str
    parameters: ParameterTable
    fusion: str = "auto"
    wider: Mapping[str, str] = field(default_factory=dict)
    """The precision of each weight that is to stay wider than ``precision``."""

    rounded: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Of each weight rounded with its input in view: the rounded one, and the smoothing vector
    of that input or ""."""

    ranges: Mapping[str, str] = field(default_factory=dict)
    """Of each weight whose input is quantised by one range, the parameter [2] that it is."""

    symmetric: bool = False
    """Whether a row's own range reaches as far below zero as above."""

    narrow_tables: bool | None = None
    """Whether large tables of words are int8; None as the precision has it."""

    blocks: BlockCounts = field(default_factory=dict)
    """How many blocks survive in weights with zeros."""

    idle: Mapping[str, Idle] = field(default_factory=dict)
    """The inputs and outputs of weights that have no weight but zeros."""

    notes: list[str] = field(default_factory=list)
    plans: list[Planned] = field(default_factory=list)
    """Kernels that stand in the module by number until `emit_kernels` writes them."""

    emitted: dict[str, Kernel] = field(default_factory=dict)
    """Every kernel that is called, by name."""

    kernels: Counter[str] = field(default_factory=Counter)
    """How many operations each kind of kernel serves."""

    fallbacks: list[Fallback] = field(default_factory=list)
    """Each operation that a kernel could have served but does not."""

    choices: Mapping[str, str] = field(default_factory=dict)
    """What was measured of products on the target (`choosing.choices.Choices`)."""

    unmeasured: dict[Problem, None] = field(default_factory=dict)
    """Products that were chosen by rule, in order."""

    def fall_back(self, op: Any, what: str, reason: str) -> None:
        """Record that the compiler's general path serves ``op``."""
        self.fallbacks.append(Fallback(layer_of(str(op.location)), what, reason))

    def stays_wide(self, op: Any, what: str, reason: str) -> None:
        """Record that ``op`` stays in f32, unless it is recorded why no kernel serves it."""
        layer = layer_of(str(op.location))
        if not any((known.layer, known.what) == (layer, what) for known in self.fallbacks):
            self.fall_back(op, what, reason)

    def narrowed(self, op: Any, what: str, precision: str) -> None:
        """Record that the general path serves ``op`` in ``precision``, fallen back or not."""
        self.kernels[f"product linalg_{precision}"] += 1
        layer = layer_of(str(op.location))
        for fallback in self.fallbacks:
            if (fallback.layer, fallback.what, fallback.precision) == (layer, what, ""):
                fallback.precision = precision


class Pattern(ABC):
    """A named rewrite. ``name`` is namespaced (``canao.fuse_qkv``); ``stage`` is where it runs."""

    name: ClassVar[str]
    stage: Stage
    after: ClassVar[tuple[str, ...]] = ()
    """Names of patterns that, where both run, must have run before this one."""

    required: ClassVar[bool] = False
    """Whether nothing compiles without it: it then runs with any ``--fusion``."""

    product_path: ClassVar[bool] = False
    """Whether it is how products are computed, which ``--fusion none`` keeps."""

    target_kinds: ClassVar[tuple[str, ...]] = ("cpu", "vulkan")
    """The kinds of target in whose pipeline it belongs."""

    def applies_to(self, target: Target) -> bool:
        """Whether the pattern belongs in this target's pipeline; by the target's kind."""
        return target.kind in self.target_kinds

    @abstractmethod
    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Rewrite ``module`` in place; returns how often the pattern applied."""


def operations(module: ir.Module, name: str) -> list[Any]:
    """Every operation of that name, in program order, as a list that is safe to rewrite over."""
    return [op for op in walk(module.operation) if op.name == name]


def walk(root: Any) -> Iterator[Any]:
    """Every operation below ``root``, in program order, nested regions included."""
    found: list[Any] = []

    def visit(op: Any) -> ir.WalkResult:
        found.append(op)
        return ir.WalkResult.ADVANCE

    root.walk(visit, ir.WalkOrder.PRE_ORDER)
    yield from (op.operation for op in found)
