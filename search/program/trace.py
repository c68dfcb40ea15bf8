"""A model's operations as far as kernels are concerned, and the calls that come of them.

The rules are the compiler's own: what each planned kernel wants and offers, which conversions are
missing, which calls fuse by rows (`compiler.patterns`). Here they meet a list of operations in
place of a module; the places at which calls are inserted are those of `emit_kernels`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from ...compiler.kernels.executable import Kernel
from ...compiler.kernels.forms import Form, plain
from ...compiler.kernels.fused_rows import Step, most_weight_bytes
from ...compiler.kernels.isa import Isa
from ...compiler.patterns.emit_kernels import conversion
from ...compiler.patterns.fuse_rows import Calls, row_chains, row_kernel
from ...compiler.patterns.planned import Planned, written_forms

__all__ = ["Trace", "Value"]


class _Tensor:
    """What a call reads or writes."""


@dataclass(eq=False)
class _Item:
    """A place in the program: a call of a ``kernel``, a dispatch of IREE's own called ``name``, a
    planned kernel that is yet to be written, or (none of these) something that only reads."""

    kernel: Kernel | None = None
    name: str = ""
    reads: tuple[_Tensor, ...] = ()
    writes: tuple[_Tensor, ...] = ()


@dataclass(eq=False)
class Value:
    """A matrix [rows, width] of activations."""

    rows: int
    width: int
    source: _Item
    readers: list[tuple[Planned, int]] = field(default_factory=list)
    others: bool = False
    """Whether anything but a planned kernel reads it."""

    forms: dict[Form, list[_Tensor]] = field(default_factory=dict)


@dataclass(eq=False)
class _Node:
    planned: Planned
    operands: list[Value | None]
    result: Value


class Trace:
    """Records operations in program order; `calls` are the dispatches that run."""

    def __init__(self, isa: Isa) -> None:
        self._isa = isa
        self._items: list[_Item] = []
        self._nodes: list[_Node] = []

    def plan(
        self, planned: Planned, operands: Sequence[Value | None], shape: tuple[int, int]
    ) -> Value:
        """A kernel; ``operands`` in its order, None for a parameter or what it takes as it is."""
        item = self._append(_Item())
        result = Value(*shape, source=item)
        for place, value in enumerate(operands):
            if value is not None:
                value.readers.append((planned, place))
        self._nodes.append(_Node(planned, list(operands), result))
        return result

    def other(self, name: str, rows: int, width: int, *reads: Value) -> Value:
        """A dispatch of IREE's own; with the name "" none, a view say."""
        for value in reads:
            value.others = True
        return Value(rows, width, self._append(_Item(name=name)))

    def calls(self) -> list[Kernel | str]:
        """What runs, in order: kernels, and the names of IREE's own dispatches."""
        for node in self._nodes:
            self._emit(node)
        self._fuse()
        return [item.kernel or item.name for item in self._items if item.kernel or item.name]

    def _append(self, item: _Item) -> _Item:
        self._items.append(item)
        return item

    def _emit(self, node: _Node) -> None:
        result, planned = node.result, node.planned
        operands: list[list[_Tensor]] = []
        for value, form in zip(node.operands, planned.wants(), strict=True):
            known = value is not None and form is not None
            operands.append(self._in_form(value, form) if known else [_Tensor()])  # type: ignore[arg-type]
        wanted: dict[Form, None] = {}
        for reader, place in result.readers:
            form = reader.wants()[place]
            assert form is not None  # `plan` was given a value for it
            wanted[form] = None
        flat = plain(result.rows, result.width)
        forms = written_forms(planned, list(wanted), flat, others=result.others)
        at = self._items.index(result.source)
        calls = _Recorder(self._items, at)
        written = planned.emit(calls, operands, forms)  # type: ignore[arg-type]
        result.forms = {form: list(tensors) for form, tensors in written.items()}
        # What follows a kernel's result is inserted right behind the call.
        result.source = self._items[calls.at - 1]
        if result.others:
            self._items.insert(calls.at, _Item(reads=tuple(result.forms[flat])))

    def _in_form(self, value: Value, form: Form) -> list[_Tensor]:
        flat = plain(form.rows, form.width)
        if form not in value.forms:
            if flat not in value.forms:
                value.forms[flat] = [_Tensor()]
            if form != flat:
                at = self._items.index(value.source) + 1
                calls = _Recorder(self._items, at)
                kernel = conversion(form, self._isa)
                value.forms[form] = calls.call(
                    kernel, [*value.forms[flat], *calls.smoothing(form)]
                )
        return value.forms[form]

    def _fuse(self) -> None:
        kernels = [item for item in self._items if item.kernel]
        most = most_weight_bytes(self._isa.lanes)
        known = _Items(self._items)
        for chain in row_chains(kernels, known, most):
            numbers: dict[_Tensor, int] = {}

            def number(tensor: _Tensor, numbers: dict[_Tensor, int] = numbers) -> int:
                return numbers.setdefault(tensor, len(numbers))

            steps = [
                Step(item.kernel, tuple(map(number, item.reads)), tuple(map(number, item.writes)))
                for item in chain
                if item.kernel
            ]
            written = [tensor for item in chain for tensor in item.writes]
            private = {number(tensor) for tensor in written if known.is_read_by(tensor, chain)}
            chain[-1].kernel = row_kernel(steps, private)
            for item in chain[:-1]:
                self._items.remove(item)


class _Recorder:
    """In place of `KernelCalls`: notes calls instead of writing them, one after another."""

    def __init__(self, items: list[_Item], at: int) -> None:
        self._items = items
        self.at = at

    def call(self, kernel: Kernel, arguments: Sequence[_Tensor]) -> list[_Tensor]:
        """Note a call; returns what it writes."""
        results = [_Tensor() for _ in kernel.outputs]
        self._items.insert(
            self.at, _Item(kernel=kernel, reads=tuple(arguments), writes=tuple(results))
        )
        self.at += 1
        return results

    def parameter(self, parameter: object) -> _Tensor:
        """A parameter as a tensor."""
        return _Tensor()

    def builtin(self, value: _Tensor) -> _Tensor:
        """The tensor behind a value."""
        return value

    def smoothing(self, form: Form) -> list[_Tensor]:
        """What a kernel quantises by, where that is given."""
        return [_Tensor() for name in (form.smoothing, form.static) if name]


class _Items(Calls[_Item]):
    """The calls of a trace."""

    def __init__(self, items: Sequence[_Item]) -> None:
        self._place = {item: place for place, item in enumerate(items)}
        self._readers: dict[_Tensor, list[_Item]] = {}
        for item in items:
            for tensor in item.reads:
                self._readers.setdefault(tensor, []).append(item)

    def kernel(self, call: _Item) -> Kernel | None:
        return call.kernel

    def links(self, chain: Sequence[_Item], call: _Item) -> Collection[str]:
        written = {tensor for member in chain for tensor in member.writes}
        assert call.kernel is not None  # only calls of kernels are asked about
        return [
            operand.name
            for tensor, operand in zip(call.reads, call.kernel.inputs, strict=True)
            if tensor in written
        ]

    def is_read_by(self, tensor: _Tensor, items: Sequence[_Item]) -> bool:
        """Whether nobody but ``items`` reads it."""
        return all(reader in items for reader in self._readers.get(tensor, ()))

    def is_free(self, chain: Sequence[_Item], call: _Item) -> bool:
        members = [*chain, call]
        return all(
            reader in members or self._place[reader] > self._place[call]
            for member in chain
            for tensor in member.writes
            for reader in self._readers.get(tensor, ())
        )
