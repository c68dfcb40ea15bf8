"""Attention in one dispatch: softmax(q k^T * scale + bias) v for all heads.

Before (per layer)::

    q, k, v split into heads by transpositions, a batched product, scale, mask, softmax in several
    dispatches, a second batched product, heads joined by a transposition

After: one dispatch that reads q, k and v where the products before it left them and writes the
rows that the product after it reads. Each work-group does one head, or the heads of q that share
a head of k and v: that head of k and v is packed as an engine's weights, scores of a block of
queries go through scratch in the first cache, and only normalised sums are written.
"""

from __future__ import annotations

import math

from .attention_block import Work
from .attention_context import Context
from .attention_plan import Plan, plan_for
from .attention_shape import AttentionForm, AttentionShape, Sources
from .emitter import Emitter
from .engines.base import Engine
from .executable import Kernel, Operand
from .values import Buffer, Value

__all__ = ["AttentionForm", "attention_kernel", "serves"]

_WIDEST_HEAD = 256


def serves(engine: Engine, shape: AttentionShape) -> str | None:
    """Why no kernel of ``engine`` computes ``shape``; None where one does."""
    if engine.precision not in ("f32", "bf16"):
        return f"{engine.name} multiplies integers"
    if max(shape.head_dim, shape.value_dim) > _WIDEST_HEAD:
        return f"a head is wider than {_WIDEST_HEAD}"
    if plan_for(engine, shape) is None:
        return "one head's keys and values do not fit on the stack"
    return None


def attention_kernel(
    engine: Engine, shape: AttentionShape, sources: Sources, form: AttentionForm
) -> Kernel:
    """The kernel; its inputs are the matrices of ``sources`` and then the ``bias``, if any.

    ``result``: [batch * queries, heads * value_dim], or as large as ``form`` says. Raises
    `ValueError` for what `serves` gives a reason against.
    """
    reason = serves(engine, shape)
    plan = plan_for(engine, shape)
    if reason or plan is None:
        raise ValueError(f"no attention for {shape}: {reason}")
    sources.check(shape)
    form.check(shape)
    rows = form.output_rows or shape.batch * shape.queries
    stride = form.output_stride or shape.heads * shape.value_dim
    inputs = [
        Operand(f"matrix{i}", (matrix.rows, matrix.width), matrix.element)
        for i, matrix in enumerate(sources.matrices)
    ]
    if form.bias:
        inputs.append(Operand("bias", form.bias, "f32"))
    result = Operand("result", (rows, stride), "i16" if form.output == "bf16" else "f32")

    def body(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
        state = plan.scores.prepare(e)
        work = Work(Context(e, plan, shape, sources, form, buffers, state, group))
        _all_items(e, plan, shape, work)
        _zero_columns(e, plan, shape, buffers["result"], group)
        plan.scores.finish(e)

    return Kernel(
        name=(
            f"attention_{plan.label}_{shape.label}_{sources.label}_{form.label}_{rows}x{stride}"
        ),
        inputs=tuple(inputs),
        outputs=(result,),
        workgroups=shape.batch * shape.heads // plan.heads_per_group,
        body=body,
    )


def _all_items(e: Emitter, plan: Plan, shape: AttentionShape, work: Work) -> None:
    """Every block of queries of the work-group's heads, against every chunk of keys."""
    items = plan.heads_per_group * math.ceil(shape.queries / plan.rows)
    if not plan.items:
        work.pack(e.index(0), shape.keys)
        with e.loop(0, items) as loop:
            work.at_once(loop.index)
        return
    with e.loop(0, items, plan.items) as batch:
        last = e.least(e.add(batch.index, e.index(plan.items)), items)
        count = e.sub(last, batch.index)
        work.forget(count)
        whole, rest = divmod(shape.keys, plan.chunk)
        chunks = [(e.index(whole * plan.chunk), rest)] if rest else []
        with e.loop(0, whole * plan.chunk, plan.chunk) as chunk:
            work.pack(chunk.index, plan.chunk)
            with e.loop(0, count) as loop:
                item = e.add(batch.index, loop.index)
                work.in_part(item, loop.index, chunk.index, plan.chunk)
        for first, keys in chunks:
            work.pack(first, keys)
            with e.loop(0, count) as loop:
                work.in_part(e.add(batch.index, loop.index), loop.index, first, keys)
        with e.loop(0, count) as loop:
            work.write(e.add(batch.index, loop.index), loop.index)


def _zero_columns(
    e: Emitter, plan: Plan, shape: AttentionShape, result: Buffer, group: Value
) -> None:
    """Zeros beyond the heads' columns, by the work-group of each sequence's last head."""
    start = shape.heads * shape.value_dim
    if start == result.shape[1]:
        return
    groups = e.index(shape.heads // plan.heads_per_group)
    last = e.compare("eq", e.add(e.remainder(group, groups), e.index(1)), groups)
    first = e.mul(e.div(group, groups), e.index(shape.queries))
    count = e.select(last, e.index(shape.queries), e.index(0))
    zero = e.number(0, result.element)
    with e.loop(first, e.add(first, count)) as rows, e.loop(start, result.shape[1]) as columns:
        e.store(zero, result, [rows.index, columns.index])
