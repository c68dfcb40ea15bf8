"""The kernels that ``benchmarks/sparsity.py`` compares, with arguments and results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canao.compiler.kernels.engines.base import Engine
from canao.compiler.kernels.engines.registry import ENGINES
from canao.compiler.kernels.epilogue import Epilogue
from canao.compiler.kernels.executable import Kernel
from canao.compiler.kernels.forms import form_for
from canao.compiler.kernels.product import ProductShape, product_kernel
from canao.compiler.kernels.sparse_format import SparseLayout, layout_for
from canao.compiler.kernels.sparse_product import sparse_form, sparse_product_kernel
from canao.compiler.kernels.sparse_tiles import SparseTiles
from canao.compiler.kernels.words import words_kernel

__all__ = ["DENSITIES", "Contestant", "contestants"]

Array = NDArray[Any]

DENSITIES = (0.5, 0.25, 0.1)
_NOTHING = 0.0
_EPILOGUE = Epilogue()
_PANELS = (48, 16)
_NAMES = ("avx512_f32", "avx512_bf16", "avx512_int8", "amx_bf16", "amx_int8")


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """Kernels that run one after another, each on the result of the one before it."""

    engine: str
    precision: str
    depth: int
    outputs: int
    panel: int
    density: float
    kernels: tuple[Kernel, ...]
    arguments: tuple[Array, ...]
    expected: Array

    @property
    def name(self) -> str:
        """What tells it from the others."""
        kind = "dense" if self.density == 1 else f"{self.density:g}of4x{self.panel}"
        return f"{self.engine}_{self.depth}x{self.outputs}_{kind}"

    def fields(self) -> dict[str, Any]:
        """What the results say of it."""
        keys = ("engine", "precision", "depth", "outputs", "panel", "density")
        return {key: getattr(self, key) for key in keys}

    def program(self, *, storage: bool = True) -> str:
        """A module whose ``main`` runs the kernels; with ``storage`` the result goes to a
        buffer that is its last argument."""
        text = "".join(kernel.declaration() for kernel in self.kernels)
        parameters, lines = [], []
        previous = ""
        for number, kernel in enumerate(self.kernels):
            names = [f"%in{number}_{i}" for i in range(len(kernel.inputs))]
            parameters += [
                f"{name}: {operand.tensor}"
                for name, operand in zip(names, kernel.inputs, strict=True)
            ][1 if previous else 0 :]
            lines.append(f"%r{number} = {kernel.call([previous or names[0], *names[1:]])}")
            previous = f"%r{number}"
        if storage:
            parameters.append("%storage: !hal.buffer {iree.abi.output = 0 : index}")
        (result,) = self.kernels[-1].outputs
        lines.append(f"return {previous} : {result.tensor}")
        body = "\n".join(lines)
        return (
            f"{text}func.func @main({', '.join(parameters)}) -> {result.tensor} {{\n{body}\n}}\n"
        )


def contestants(
    features: Sequence[str], rows: int, depth: int, outputs: int
) -> Iterator[Contestant]:
    """For each engine the dense product, the sparse ones, and what is left without any block."""
    for name in _NAMES:
        (kind,) = (kind for kind in ENGINES if kind.name == name)
        if not set(kind.features) <= set(features):
            continue
        yield _contestant(kind(), rows, depth, outputs, 48, 1)
        for panel in _PANELS:
            for density in (*DENSITIES, _NOTHING):
                yield _contestant(kind(), rows, depth, outputs, panel, density)


def _contestant(
    dense: Engine, rows: int, depth: int, outputs: int, panel: int, density: float
) -> Contestant:
    rng = np.random.default_rng(0)
    tiles = SparseTiles(dense.precision, panel // 16) if dense.name.startswith("amx") else None
    engine = type(dense).for_blocks(panel // 16, rows) if not tiles else dense
    layout = tiles.layout(outputs, depth) if tiles else layout_for(engine, outputs, depth)
    survivors = _drawn(layout, density, rng)
    wide = survivors.repeat(layout.panel, axis=0).repeat(4, axis=1)[:outputs, :depth]
    if density == 1:
        form = form_for(dense, rows, depth)
    else:
        form = tiles.form(rows, depth) if tiles else sparse_form(engine, rows, layout)
    padded = (form.padded_rows, form.stride)
    if dense.precision == "int8":
        x, weight = rng.integers(0, 256, padded), rng.integers(-127, 128, (outputs, depth))
        stored, weight = x.astype(np.uint8).view(np.int8), (weight * wide).astype(np.int8)
        exact = weight.astype(np.float64)
    else:
        x = rng.standard_normal(padded).astype(np.float32)
        weight = rng.standard_normal((outputs, depth)).astype(np.float32) * wide
        # Numbers that bf16 holds, so that both precisions have the same result.
        x, weight = _short(x), _short(weight)
        exact = weight.astype(np.float64)
        stored = x
        if dense.precision == "bf16":
            stored, weight = _upper_half(x), _upper_half(weight)
    arguments: list[Array] = [stored]
    kernels: list[Kernel] = []
    if density == 1:
        shape = ProductShape(rows, depth, outputs)
        kernels.append(product_kernel(dense, shape, _EPILOGUE))
        arguments.append(dense.pack(weight))
    else:
        packed, (places, starts) = layout.pack(weight, survivors), layout.index(survivors)
        arguments += [packed.reshape(1, -1), places, starts]
        if tiles:
            kernels.append(words_kernel(*padded, tiles.element, tiles.block_rows))
            kernels.append(tiles.kernel(rows, layout, len(places), _EPILOGUE))
        else:
            kernels.append(sparse_product_kernel(engine, rows, layout, len(places), _EPILOGUE))
    expected = x[:rows, :depth].astype(np.float64) @ exact.T
    if dense.precision == "int8":
        scales = rng.random((form.padded_rows, 2)).astype(np.float32)
        weight_scales, sums = rng.random((2, outputs)).astype(np.float32) * 1e-3
        arguments += [scales, weight_scales, sums]
        expected = expected * (scales[:rows, :1] * weight_scales) + scales[:rows, 1:] * sums
    bias = rng.standard_normal(outputs).astype(np.float32)
    return Contestant(
        engine=dense.name,
        precision=dense.precision,
        depth=depth,
        outputs=outputs,
        panel=panel,
        density=density,
        kernels=tuple(kernels),
        arguments=(*arguments, bias),
        expected=expected + bias,
    )


def _drawn(layout: SparseLayout, density: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """As many surviving blocks in each panel."""
    kept = round(layout.columns * density)
    ranks = rng.random((layout.panels, layout.columns)).argsort(axis=1).argsort(axis=1)
    return ranks < kept


def _short(values: Array) -> Array:
    """f32 without the bits that bf16 lacks."""
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def _upper_half(values: Array) -> Array:
    """bf16 in i16, of numbers that it holds."""
    return (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16).view(np.int16)
