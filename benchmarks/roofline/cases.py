"""The kernels that are held against the roof, in groups that are timed together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from canao.compiler.kernels.attention import AttentionForm, attention_kernel, serves
from canao.compiler.kernels.attention_shape import AttentionShape, Sources
from canao.compiler.kernels.choosing.problem import Problem, numbers_for
from canao.compiler.kernels.engines.base import Engine
from canao.compiler.kernels.engines.registry import ENGINES, engines, fitted
from canao.compiler.kernels.epilogue import Epilogue
from canao.compiler.kernels.executable import Kernel
from canao.compiler.kernels.isa import isa_for
from canao.compiler.kernels.normalize import layer_norm_kernel
from canao.compiler.kernels.product import product_kernel
from canao.compiler.kernels.quantize import quantize_kernel
from canao.targets import PRECISIONS, Target

from .peaks import compute_peak, nothing, reading

__all__ = [
    "MODELS",
    "Case",
    "Model",
    "attention_cases",
    "product_cases",
    "products_of",
    "roof_cases",
    "row_cases",
]

Array = np.ndarray[Any, Any]

NEAR_BYTES = 1 << 20
FAR_BYTES = 24 << 20
_FAR_COPIES_BYTES = 6 << 20
_PEAK_ROUNDS = 10_000


@dataclass(frozen=True)
class Model:
    """What the kernels of a model are shaped by."""

    title: str
    width: int
    heads: int
    feed_forward: int


MODELS = {
    "minilm": Model("MiniLM-L6", 384, 12, 1536),
    "bert-base": Model("BERT_BASE", 768, 12, 3072),
    "encoder": Model("4.6-GFLOP encoder", 512, 8, 1920),
}


def products_of(model: Model) -> list[tuple[int, int]]:
    """(depth, outputs) of a layer: q, k and v together, what follows attention, the two of the
    feed-forward network."""
    width, wide = model.width, model.feed_forward
    return [(width, 3 * width), (width, width), (width, wide), (wide, width)]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A kernel with its arguments, and what it has to do at least.

    ``multiply_adds`` by instructions of ``engine`` (a name); ``near_bytes`` that a layer before
    left in the core's own caches or that stay there; ``far_bytes`` of weights, which in a model
    come from beyond them: argument ``weights`` has ``copies`` that take turns.
    """

    name: str
    kind: str
    kernel: Kernel
    arguments: list[Array]
    engine: str = ""
    multiply_adds: int = 0
    near_bytes: int = 0
    far_bytes: int = 0
    weights: int | None = None
    copies: int = 1


def roof_cases(target: Target) -> list[Case]:
    """The call itself (the baseline), bandwidths, and the peak of each engine of ``target``."""
    lanes = isa_for(target.features).lanes
    zeros = np.zeros(16, np.float32)
    found = [Case(name="call", kind="call", kernel=nothing(), arguments=[zeros])]
    for name, size, times in (("near", NEAR_BYTES, 8), ("far", FAR_BYTES, 1)):
        found.append(
            Case(
                name=name,
                kind="bandwidth",
                kernel=reading(size, lanes, times),
                arguments=[np.ones(size // 4, np.float32)],
                near_bytes=size * times if name == "near" else 0,
                far_bytes=size * times if name == "far" else 0,
            )
        )
    for precision in PRECISIONS:
        for engine in engines(target.features, precision):
            peak = compute_peak(engine, _PEAK_ROUNDS)
            if peak:
                kernel, work = peak
                shapes = ((o.shape, _dtype(o.element)) for o in kernel.inputs)
                found.append(
                    Case(
                        name=f"peak {engine.name}",
                        kind="peak",
                        kernel=kernel,
                        arguments=[np.zeros(shape, dtype) for shape, dtype in shapes],
                        engine=engine.name,
                        multiply_adds=work,
                    )
                )
    return found


def product_cases(target: Target, rows: int, depth: int, outputs: int) -> list[Case]:
    """The product of every engine, with the block that the rule gives it."""
    found = []
    for kind in ENGINES:
        if not set(kind.features) <= set(target.features):
            continue
        engine = fitted(kind, outputs, rows)
        problem = Problem(engine.precision, rows, depth, outputs)
        epilogue = Epilogue(accurate=engine.precision == "f32")
        kernel = product_kernel(engine, problem.shape, epilogue)
        arguments = numbers_for(problem).arguments(engine)
        far = arguments[1].nbytes
        found.append(
            Case(
                name=f"{engine.label} {rows} x {depth} x {outputs}",
                kind="product",
                kernel=kernel,
                arguments=arguments,
                engine=engine.name,
                multiply_adds=problem.shape.multiply_adds,
                near_bytes=sum(a.nbytes for a in arguments) - far + rows * outputs * 4,
                far_bytes=far,
                weights=1,
                copies=max(1, -(-_FAR_COPIES_BYTES // far)),
            )
        )
    return found


def attention_cases(target: Target, tokens: int, model: Model) -> list[Case]:
    """Attention over q, k and v that one product wrote, in f32 and in bf16."""
    shape = AttentionShape(1, tokens, tokens, model.heads, model.width // model.heads)
    found = []
    for precision, element in (("f32", "f32"), ("bf16", "i16")):
        engine = _best_for_attention(target, precision, shape)
        if engine is None:
            continue
        form = AttentionForm(scale=shape.head_dim**-0.5, bias=(1, 1, 1, tokens))
        kernel = attention_kernel(engine, shape, Sources.joined(shape, element), form)
        matrix, bias = kernel.inputs
        data = _random(matrix.shape)
        arguments = [_narrow(data) if element == "i16" else data, np.zeros(bias.shape, np.float32)]
        found.append(
            Case(
                name=f"attention {engine.name} {tokens} tokens, {shape.heads} x {shape.head_dim}",
                kind="attention",
                kernel=kernel,
                arguments=arguments,
                engine=engine.name,
                multiply_adds=2 * shape.heads * tokens * tokens * shape.head_dim,
                near_bytes=arguments[0].nbytes + tokens * model.width * 4,
            )
        )
    return found


def row_cases(target: Target, rows: int, model: Model) -> list[Case]:
    """Layer norm with the residual before it, the same quantising, and quantising alone."""
    isa = isa_for(target.features)
    width = model.width
    norm = {"lanes": isa.lanes, "eps": 1e-12, "residual": True}
    kernels = {
        "layer norm": layer_norm_kernel(rows, width, **norm),  # type: ignore[arg-type]
        "layer norm, quantising": layer_norm_kernel(rows, width, outputs=("f32", "q"), **norm),  # type: ignore[arg-type]
        "quantise": quantize_kernel(rows, model.feed_forward, lanes=isa.lanes),
    }
    found = []
    for name, kernel in kernels.items():
        arguments = [_random(operand.shape) for operand in kernel.inputs]
        sizes = [np.prod(o.shape) * _dtype(o.element).itemsize for o in kernel.outputs]
        depth = kernel.inputs[0].shape[1]
        found.append(
            Case(
                name=f"{name} {rows} x {depth}",
                kind=name,
                kernel=kernel,
                arguments=arguments,
                near_bytes=sum(a.nbytes for a in arguments) + int(sum(sizes)),
            )
        )
    return found


def _best_for_attention(target: Target, precision: str, shape: AttentionShape) -> Engine | None:
    found = engines(target.features, precision)
    return next((engine for engine in found if serves(engine, shape) is None), None)


def _random(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _narrow(values: Array) -> Array:
    return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.int16)


def _dtype(element: str) -> np.dtype[Any]:
    names = {"f32": "float32", "i16": "int16", "i8": "int8", "i32": "int32"}
    return np.dtype(names[element])
