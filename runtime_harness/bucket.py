"""One compiled length of a model: pads inputs to its static shapes, cuts outputs to the real."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .feeds import TOKEN_IDS, Feeds
from .tensors import BATCH, SEQ

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .bundle import Manifest, ModuleEntry, TensorSpec
    from .engine import Program

__all__ = ["Bucket"]

Index = tuple[slice, ...]
_SHORTEST_WAIT = 0.001


class Bucket:
    """A program and how to call it with fewer or more rows, and fewer positions, than it takes."""

    def __init__(self, manifest: Manifest, module: ModuleEntry, program: Program) -> None:
        self._batch, self._seq_len, self._program = module.batch, module.seq_len, program
        self._ins, self._outs = manifest.inputs, manifest.outputs
        pad_id = (manifest.tokenizer or {}).get("pad_id", 0)
        self._pads = [pad_id if spec.name == TOKEN_IDS else 0 for spec in self._ins]
        self._windows_for: tuple[int, int] | None = None
        self._in_windows: list[Index] = []
        self._out_windows: list[Index] = []

    def run(self, feeds: Feeds, deadline: float | None) -> list[NDArray[Any]]:
        """Return new arrays with the outputs of all rows, in the manifest's order.

        ``deadline`` is a time of ``time.monotonic`` that the program is told to keep.
        """
        import numpy as np

        rows = self._batch if feeds.rows is None else feeds.rows
        length = feeds.length or 0
        if rows == self._batch:
            return self._once(feeds.arrays, rows, length, deadline)
        for spec in self._outs:
            if BATCH not in spec.shape:
                raise InputError(
                    f"the output {spec.name!r} is one for all rows together, so the model takes "
                    f"exactly {self._batch} rows in one call, not {rows}"
                )
        parts = []
        for start in range(0, rows, self._batch):
            chunk = slice(start, min(start + self._batch, rows))
            arrays = tuple(
                array[_window(spec, chunk, slice(None))]
                for spec, array in zip(self._ins, feeds.arrays, strict=True)
            )
            parts.append(self._once(arrays, chunk.stop - start, length, deadline))
        return [
            np.concatenate(pieces, axis=spec.shape.index(BATCH))
            for spec, pieces in zip(self._outs, zip(*parts, strict=True), strict=True)
        ]

    def _once(
        self, arrays: tuple[NDArray[Any], ...], rows: int, length: int, deadline: float | None
    ) -> list[NDArray[Any]]:
        if self._windows_for != (rows, length):
            self._set_windows(rows, length)
        for index, (target, array) in enumerate(zip(self._program.inputs, arrays, strict=True)):
            if length < self._seq_len:
                target.fill(self._pads[index])
            target[self._in_windows[index]] = array
            if rows < self._batch:
                self._repeat_last_row(self._ins[index], target, rows)
        left = None if deadline is None else max(_SHORTEST_WAIT, deadline - time.monotonic())
        found = self._program.invoke(left)
        # Copies, for the next call writes over what the program gave.
        return [
            array[window].copy() for array, window in zip(found, self._out_windows, strict=True)
        ]

    def _set_windows(self, rows: int, length: int) -> None:
        real = slice(length) if length else slice(None)
        self._in_windows = [_window(spec, slice(rows), real) for spec in self._ins]
        self._out_windows = [_window(spec, slice(rows), real) for spec in self._outs]
        self._windows_for = (rows, length)

    def _repeat_last_row(self, spec: TensorSpec, target: NDArray[Any], rows: int) -> None:
        # Rows nobody asked for repeat a real one: masked out or left over from an earlier
        # call, they could be NaN, out of range, or slow.
        everything = slice(None)
        if BATCH in spec.shape:
            last = target[_window(spec, slice(rows - 1, rows), everything)]
            target[_window(spec, slice(rows, None), everything)] = last

    def close(self) -> None:
        """Give back what the program holds."""
        self._program.close()


def _window(spec: TensorSpec, rows: slice, positions: slice) -> Index:
    """Return the index of ``rows`` on the axis ``batch`` and ``positions`` on ``seq``."""
    return tuple(
        rows if size == BATCH else positions if size == SEQ else slice(None) for size in spec.shape
    )
