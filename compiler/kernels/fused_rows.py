"""Several kernels on the same rows as one dispatch: a work-group does all of them for its rows.

Before::

    %h = product(%x)        work-groups by columns; every core waits for the others
    %q = quantize(%h)       work-groups by rows: most of %h comes from other cores' caches

After: one dispatch whose work-groups take a block of rows each, through the product and what
follows it, some rows after the other. What lies in between stays in the caches of one core, and
the next rows overwrite it: ``%h`` has a few rows for each work-group.

Every work-group reads all weights, so they must not be more than a core's second cache holds.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from .emitter import Emitter
from .executable import ByRows, Kernel, Operand, Shared
from .values import Buffer, Value

__all__ = ["Step", "block_rows", "fused_rows", "most_weight_bytes"]

# Of AVX2 and AVX-512 as measured; a core of ARM's has a second cache of 512 KiB, or more.
_SECOND_CACHE = {4: 1 << 19}
_SECOND_CACHE_OF_OTHERS = 1 << 21
_MOST_GROUPS = 8
_LEAST_ROWS = 32


def most_weight_bytes(lanes: int) -> int:
    """Of a step, for a core with vectors of ``lanes``: each block of rows reads its weights
    again, so the second cache must hold them, and leave room."""
    return _SECOND_CACHE.get(lanes, _SECOND_CACHE_OF_OTHERS) * 5 // 8


@dataclass(frozen=True)
class Step:
    """A kernel with ``by_rows``; the tensors that are its inputs and outputs, by number."""

    kernel: Kernel
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def by_rows(self) -> ByRows:
        """How the kernel does a block of rows."""
        assert self.kernel.by_rows is not None
        return self.kernel.by_rows


def block_rows(rows: int, multiple: int) -> int:
    """How many rows a work-group takes: at most eight work-groups of 32 rows or more."""
    wanted = max(_LEAST_ROWS, math.ceil(rows / _MOST_GROUPS))
    whole = math.lcm(multiple, _LEAST_ROWS)
    return math.ceil(wanted / whole) * whole


def fused_rows(
    steps: Sequence[Step], *, rows_at_once: int, private: Collection[int] = ()
) -> Kernel:
    """The steps in order. Tensors are told apart by their numbers.

    The inputs are those tensors that no step writes, the outputs those that one does, each in
    the order in which they are first named. A step may read what an earlier one writes only as
    one of its ``by_rows.operands``. Of what is written, the ``private`` tensors are only for the
    steps themselves: those outputs are scratch memory. Raises ValueError where the steps do not
    fit together.
    """
    rows = _checked(steps)
    inputs, outputs = _operands(steps)
    names = {number: f"t{place}" for place, number in enumerate([*inputs, *outputs])}
    groups = math.ceil(rows / rows_at_once)
    part = _rows_of_part(steps, rows_at_once)
    kept = {
        number: replace(operand, shape=(groups * part, *operand.shape[1:]))
        for number, operand in outputs.items()
        if number in private
    }

    def some(
        e: Emitter, buffers: dict[str, Buffer], shared: Shared, rows: tuple[Value, int], to: Value
    ) -> None:
        first, count = rows
        found = {
            number: e.shifted(buffers[names[number]], outputs[number].shape[0], first, to)
            for number in kept
        }
        for step in steps:
            operands = (*step.kernel.inputs, *step.kernel.outputs)
            numbers = (*step.inputs, *step.outputs)
            own = {
                operand.name: found.get(number) or buffers[names[number]]
                for operand, number in zip(operands, numbers, strict=True)
            }
            step.by_rows.body(e, own, shared, first, count)

    def block(
        e: Emitter,
        buffers: dict[str, Buffer],
        shared: Shared,
        rows: tuple[Value, int],
        group: Value,
    ) -> None:
        first, count = rows
        to = e.mul(group, e.index(part))
        whole, rest = divmod(count, part)
        if whole == 1:
            some(e, buffers, shared, (first, part), to)
        elif whole:
            with e.loop(first, e.add(first, e.index(whole * part)), part) as loop:
                some(e, buffers, shared, (loop.index, part), to)
        if rest:
            some(e, buffers, shared, (e.add(first, e.index(whole * part)), rest), to)

    def body(e: Emitter, buffers: dict[str, Buffer], group: Value) -> None:
        shared = Shared(e)
        for step in steps:
            step.by_rows.prepare(shared)
        first = e.mul(group, e.index(rows_at_once))
        whole, rest = divmod(rows, rows_at_once)
        if not rest:
            block(e, buffers, shared, (first, rows_at_once), group)
        else:
            # One of the two loops runs, once.
            if whole:
                end = e.least(e.add(first, e.index(rows_at_once)), whole * rows_at_once)
                with e.loop(first, end, rows_at_once) as loop:
                    block(e, buffers, shared, (loop.index, rows_at_once), group)
            with e.loop(e.greatest(first, whole * rows_at_once), e.add(first, e.index(1))) as loop:
                block(e, buffers, shared, (loop.index, rest), group)
        shared.finish()

    return Kernel(
        _name(steps, names, rows_at_once, kept),
        tuple(Operand(names[n], o.shape, o.element) for n, o in inputs.items()),
        tuple(
            Operand(names[n], o.shape, o.element)
            for n, o in ((n, kept.get(n, o)) for n, o in outputs.items())
        ),
        groups,
        body,
    )


def _operands(steps: Sequence[Step]) -> tuple[dict[int, Operand], dict[int, Operand]]:
    """The operand of each number that is read from outside, and of each that is written."""
    inputs: dict[int, Operand] = {}
    outputs: dict[int, Operand] = {}
    for step in steps:
        for number, operand in zip(step.inputs, step.kernel.inputs, strict=True):
            if number not in outputs:
                inputs.setdefault(number, operand)
        outputs.update(zip(step.outputs, step.kernel.outputs, strict=True))
    return inputs, outputs


def _checked(steps: Sequence[Step]) -> int:
    """The rows that all steps have in common."""
    (rows, *others) = {step.by_rows.rows for step in steps}
    if others:
        raise ValueError("kernels of different numbers of rows do not fuse")
    written: set[int] = set()
    for step in steps:
        operands = step.by_rows.operands
        for number, operand in zip(step.inputs, step.kernel.inputs, strict=True):
            if number in written and operand.name not in operands:
                raise ValueError(f"{step.kernel.name} reads more of {operand.name} than its rows")
        if not {operand.name for operand in step.kernel.outputs} <= operands:
            raise ValueError(f"{step.kernel.name} does not write by rows")
        written.update(step.outputs)
    return rows


def _rows_of_part(steps: Sequence[Step], rows_at_once: int) -> int:
    """How many rows go through all steps before the next do: as many as should meet weights."""
    found = math.lcm(*(step.by_rows.at_once for step in steps))
    multiple = math.lcm(*(step.by_rows.multiple for step in steps))
    return rows_at_once if found % multiple else min(found, rows_at_once)


def _name(
    steps: Sequence[Step], names: dict[int, str], rows_at_once: int, private: Collection[int]
) -> str:
    """What the steps are, briefly, and a digest of all of it."""
    parts = [step.kernel.name for step in steps]
    wires = [[names[n] for n in (*step.inputs, *step.outputs)] for step in steps]
    told = (parts, wires, sorted(names[n] for n in private))
    digest = hashlib.sha256(repr(told).encode()).hexdigest()[:16]
    kinds = "_".join(_brief(part) for part in parts)
    return f"rows_{kinds}_{rows_at_once}of{steps[0].by_rows.rows}_{digest}"


def _brief(name: str) -> str:
    """The kind of a kernel; its shape of an embedding, of a product its engine too."""
    words = name.split("_")
    if "norm" in words[:3]:
        return "norm"
    if words[0] == "embedding":
        return f"embedding_{words[-3]}"
    if words[0] != "product":
        return words[0]
    shape = next(place for place, word in enumerate(words) if word.count("x") == 2)
    return "_".join(words[: shape + 1])
