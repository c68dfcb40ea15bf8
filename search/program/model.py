"""BERT as the compiler's kernels see it: its operations in program order, each planned.

Every decision is a call of the compiler's own rules: which engine takes a product and whether it
leaves blocks out, which neurons are cut, which form each kernel reads and writes, what fuses. Only
the order of the operations and the names of the few dispatches that are no kernels stand here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ...compiler.kernels.attention import serves
from ...compiler.kernels.attention_shape import AttentionShape, Sources
from ...compiler.kernels.embedding import Term
from ...compiler.kernels.executable import Kernel
from ...compiler.kernels.isa import isa_for
from ...compiler.parameters import Parameter, ParameterTable
from ...compiler.patterns.base import PatternContext
from ...compiler.patterns.cut_hidden import better_sparse
from ...compiler.patterns.cut_weights import Meeting
from ...compiler.patterns.gather_lines import gathered
from ...compiler.patterns.kernel_attention import PlannedAttention, attention_engine
from ...compiler.patterns.kernel_embedding import PlannedEmbedding
from ...compiler.patterns.kernel_layer_norm import PlannedNorm
from ...compiler.patterns.kernel_linear import planned_product, product_engine
from ...compiler.quantization.tables import LEAST_TABLE
from ...errors import UnsupportedError
from ...targets import Target
from ..space.architecture import KINDS, Architecture
from ..space.masks import parts_of
from .trace import Trace, Value
from .zeros import Drawn, counts_of, idle_of

__all__ = ["Blocks", "Model"]

_EPS = 1e-12
_PARTS = ("query", "key", "value")

Blocks = Callable[[int, str, int], NDArray[np.bool_] | None]
"""Gets a layer's number, a kind of matrix and its part (`space.masks.drawn_blocks`)."""


class Model:
    """BERT's operations in program order, as the patterns before `emit_kernels` leave them."""

    def __init__(
        self,
        architecture: Architecture,
        target: Target,
        precision: str,
        choices: Mapping[str, str],
        blocks: Blocks,
    ) -> None:
        self.a = architecture
        shapes, wider, drawn = _weights(architecture, precision, blocks)
        idle = {name: found for name, one in drawn.items() if (found := idle_of(name, one))}
        self.context = PatternContext(
            target=target,
            precision=precision,
            parameters=ParameterTable(
                Parameter(name, shape, "float32") for name, shape in shapes.items()
            ),
            wider=wider,
            blocks={name: counts_of(one) for name, one in drawn.items()},
            idle=idle,
            choices=choices,
        )
        self.isa = isa_for(target.features)
        self.trace = Trace(self.isa)

    def calls(self) -> list[Kernel | str]:
        """What runs."""
        a, rows = self.a, self.a.seq_len
        hidden = self._norm(self._embedded())
        self.trace.other(
            "main_elementwise" if rows == 1 else f"main_elementwise_{rows}_i32xf32", 1, rows
        )
        for number, _ in enumerate(a.layers):
            hidden = self._layer(number, hidden)
        self._head(hidden)
        return self.trace.calls()

    def _embedded(self) -> Value:
        """Tables are read and added; a factorised one is a product, to which the others are."""
        a, rank = self.a, self.a.embedding_rank
        words = self._ids(a.vocabulary, rank or a.hidden)
        others = [self._ids(a.types, a.hidden), self._positions()]
        if rank is None:
            return self._looked_up([words, *others], a.hidden)
        projected = self._linear("projection", self._looked_up([words], rank), biased=False)
        return self._looked_up(others, a.hidden, projected)

    def _looked_up(self, tables: list[Term], width: int, added: Value | None = None) -> Value:
        """The sum of ``added`` and of rows of ``tables``."""
        rows = self.a.seq_len
        whole = [] if added is None else [Term(table_rows=rows, period=rows, first=0)]
        planned = PlannedEmbedding(
            isa=self.isa,
            rows=rows,
            width=width,
            terms=(*whole, *tables),
            matrix=None if added is None else 0,
        )
        operands = [added if form else None for form in planned.wants()]
        return self.trace.plan(planned, operands, (rows, width))

    def _ids(self, table_rows: int, width: int) -> Term:
        codes = self.a.embedding_int8 and table_rows * width >= LEAST_TABLE
        return Term(table_rows=table_rows, period=self.a.seq_len, codes=codes)

    def _positions(self) -> Term:
        return dataclasses.replace(self._ids(self.a.positions, self.a.hidden), first=0)

    def _layer(self, number: int, hidden: Value) -> Value:
        a = self.a
        inner = a.layers[number].heads * a.head_size
        name = f"{number}.%s".__mod__
        # In the order of the patterns: neurons first, then inputs, then Q, K and V are joined.
        up, down = self._cut(name("up"), name("down"))
        queries = [name(part) for part in _PARTS]
        source, queries = self._gathered(queries, hidden)
        joined = self.context.parameters.concatenate(queries, axis=0).name
        attended = self._attention(number, self._linear(joined, source), inner)
        source, (output,) = self._gathered([name("output")], attended)
        seen = self._norm(self._linear(output, source, residual=hidden))
        source, (up,) = self._gathered([up], seen)
        units = self._linear(up, source, activation="gelu")
        source, (down,) = self._gathered([down], units)
        return self._norm(self._linear(down, source, residual=seen))

    def _head(self, hidden: Value) -> None:
        a, other = self.a, self.trace.other
        hidden.others = True
        if a.head in ("base", "sequence-classification"):
            first = other("", 1, a.hidden, hidden)
            hidden = self._linear("pooler", first, activation="tanh")
            hidden.others = True
        if a.head != "base":
            hidden = self._linear("classifier", hidden)
        if a.head == "question-answering" and a.seq_len > 1:
            # Starts and ends are outputs of their own.
            for _ in range(2):
                other("main_slow_memcpy", a.seq_len, 1, hidden)

    def _norm(self, value: Value) -> Value:
        planned = PlannedNorm(
            isa=self.isa, rows=value.rows, width=value.width, eps=_EPS, biased=True
        )
        return self.trace.plan(planned, [value, None, None], (value.rows, value.width))

    def _linear(
        self,
        name: str,
        source: Value,
        *,
        activation: str = "none",
        biased: bool = True,
        residual: Value | None = None,
    ) -> Value:
        rows = source.rows
        outputs, depth = self.context.parameters[name].shape
        engine = product_engine(self.context, name, rows)
        if isinstance(engine, str):
            # By IREE: the activations are laid out for its product first.
            encoded = self.trace.other(
                f"_encoding_0_encode_{rows}x{depth}xf32_to_{rows}x{depth}xf32", rows, depth, source
            )
            reads = [encoded, *([] if residual is None else [residual])]
            return self.trace.other(
                f"main_matmul_{rows}x{outputs}x{depth}_f32", rows, outputs, *reads
            )
        planned = planned_product(
            self.context,
            engine,
            name,
            rows,
            activation=activation,
            biased=biased,
            added=residual is not None,
        )
        operands = [source, *([None] if biased else [])]
        operands += [] if residual is None else [residual]
        return self.trace.plan(planned, operands, (rows, outputs))

    def _attention(self, number: int, joined: Value, inner: int) -> Value:
        a, rows = self.a, self.a.seq_len
        engine = attention_engine(self.context)
        shape = AttentionShape(1, rows, rows, a.layers[number].heads, a.head_size)
        reason = "no engine is for it" if engine is None else serves(engine, shape)
        if engine is None or reason is not None:
            raise UnsupportedError(
                f"layers[{number}]: no kernel serves the attention, because {reason}; such a "
                "model is compiled another way, which cannot be told without compiling."
            )
        element = "i16" if engine.precision == "bf16" else "f32"
        planned = PlannedAttention(
            engine=engine,
            shape=shape,
            sources=Sources.joined(shape, element),
            scale=a.head_size**-0.5,
            bias=(1, 1, 1, rows),
            causal=False,
        )
        return self.trace.plan(planned, [joined, None], (rows, inner))

    def _cut(self, up: str, down: str) -> tuple[str, str]:
        """The two weights without neurons that `cut_hidden` cuts."""
        if not self.context.idle:
            return up, down
        size = self.context.parameters[down].shape[1]
        meeting = Meeting(context=self.context, size=size, readers=(down,), maker=up)
        kept = meeting.kept
        rows = self.a.seq_len
        if kept == size or better_sparse(self.context, [(up, rows), (down, rows)], kept / size):
            return up, down
        down, up = meeting.cut(down, 1), meeting.cut(up, 0)
        return up, down

    def _gathered(self, names: list[str], source: Value) -> tuple[Value, list[str]]:
        """What the layers ``names`` read in place of ``source``, and their weights."""
        meeting = gathered(self.context, tuple(names), source.rows) if self.context.idle else None
        if meeting is None:
            return source, names
        kept = meeting.kept
        picked = self.trace.other(
            f"main_elementwise_{source.rows}x{kept}_f32", source.rows, kept, source
        )
        return picked, [meeting.cut(name, 1) for name in names]


def _weights(
    a: Architecture, precision: str, blocks: Blocks
) -> tuple[dict[str, tuple[int, int]], dict[str, str], dict[str, Drawn]]:
    """Shapes of all matrices, the precision of those that are wider, and which have zeros."""
    shapes: dict[str, tuple[int, int]] = {}
    wider: dict[str, str] = {}
    drawn: dict[str, Drawn] = {}
    for number in range(len(a.layers)):
        for kind in KINDS:
            outputs, inputs, form = a.matrix(number, kind)
            for part in range(parts_of(kind)):
                name = f"{number}.{_PARTS[part] if kind == 'qkv' else kind}"
                shapes[name] = outputs, inputs
                if form.precision != precision:
                    wider[name] = form.precision
                kept = blocks(number, kind, part)
                if kept is not None:
                    drawn[name] = Drawn(kept, a.block, (outputs, inputs))
    rest: dict[str, tuple[int, int]] = {
        "projection": (a.hidden, a.embedding_rank or 0),
        "pooler": (a.hidden, a.hidden),
        "classifier": (a.labels, a.hidden),
    }
    if a.rest != precision:
        wider |= dict.fromkeys(rest, a.rest)
    return {**shapes, **rest}, wider, drawn
