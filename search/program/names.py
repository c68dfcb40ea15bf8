"""From the name of an executed dispatch to what it is.

A kernel's name tells all that its text depends on (`compiler.kernels`), and IREE's own dispatches
are called by what they do; so a manifest's calls say all of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache

from ...compiler.kernels.sparse_choice import SparseEngine, sparse_by_label, sparse_layout
from ...compiler.kernels.sparse_gpu import SparseLanes
from ...errors import InputError
from .dispatch import Dispatch

__all__ = ["dispatch_of"]

_WIDTH = {"f32": 4, "bf16": 2, "int8": 1}
_SIZES = r"(?P<rows>\d+)x(?P<depth>\d+)x(?P<outputs>\d+)"
_ENGINE = r"(?P<engine>\w+?)_(?P<precision>f32|bf16|int8)_(?P<block>\d+x\d+)"
_EPILOGUE = r"(?P<activation>none|gelu_tanh|gelu|relu|silu|tanh)_(?P<rest>\w+)"
_NORM = r"(?P<rows>\d+)x(?P<depth>\d+)_to_\d+x\d+_by\d+_in\d+"

Reader = Callable[[re.Match[str]], Dispatch]


@lru_cache(maxsize=65536)
def dispatch_of(name: str) -> Dispatch:
    """The dispatch that a manifest calls ``name``. Raises `InputError` for a name that says
    nothing: that of another compiler, or of a later one."""
    for pattern, read in _READERS:
        match = pattern.fullmatch(name)
        if match is not None:
            return read(match)
    raise InputError(
        f"The dispatch {name!r} is none that this canao compiles: compile the model again."
    )


def _product(match: re.Match[str]) -> Dispatch:
    rows, depth, outputs = _sizes(match)
    return _of_product("product", match, rows, depth, outputs, depth * outputs, 1.0)


def _stored(match: re.Match[str]) -> Dispatch:
    rows, depth, outputs = _sizes(match)
    bits = int(match["bits"])
    found = _of_product("weights", match, rows, depth, outputs, 0, 1.0)
    weights = depth * outputs * bits // 8 + 4 * outputs
    detail = {**found.detail, "bits": bits}
    return _with(found, bytes=found.bytes + weights, detail=detail)


def _sparse(match: re.Match[str]) -> Dispatch:
    rows, depth, outputs = _sizes(match)
    engine = sparse_by_label(f"{match['engine']}_{match['precision']}_{match['block']}")
    stored = int(match["stored"])
    layout = sparse_layout(_cpu(engine), outputs, depth)
    density = min(1.0, stored / (layout.panels * layout.columns))
    held = stored * layout.block_size
    found = _of_product("sparse", match, rows, depth, outputs, held, density)
    return _with(found, bytes=found.bytes + 4 * (stored + layout.panels + 1))


def _cpu(engine: SparseEngine | SparseLanes) -> SparseEngine:
    if isinstance(engine, SparseLanes):
        raise InputError("Programs are of CPUs.")
    return engine


def _of_product(
    kind: str,
    match: re.Match[str],
    rows: int,
    depth: int,
    outputs: int,
    weights: int,
    density: float,
) -> Dispatch:
    precision, rest = match["precision"], match["rest"].split("_")
    written = 2 if "bf16" in rest else 4
    residual = 4 * rows * outputs if "residual" in rest else 0
    width = _WIDTH[precision]
    return Dispatch(
        kind=kind,
        rows=rows,
        depth=depth,
        outputs=outputs,
        precision=precision,
        density=density,
        flops=round(2 * rows * depth * outputs * density),
        bytes=width * (rows * depth + weights) + written * rows * outputs + residual,
        detail={
            "engine": match["engine"],
            "block": match["block"],
            "activation": match["activation"],
        },
    )


def _rows(match: re.Match[str]) -> Dispatch:
    """Kernels fused by rows: a product at most, and norms or what changes forms."""
    product = _PRODUCT_PART.search(match["parts"])
    embedding = _EMBEDDING_PART.search(match["parts"])
    rows = int(match["of"])
    others = _EMBEDDING_PART.sub("", _PRODUCT_PART.sub("", match["parts"]))
    kinds = [word for word in others.split("_") if word]
    detail = {
        "block_rows": int(match["block_rows"]),
        "norms": kinds.count("norm"),
        "forms": len(kinds) - kinds.count("norm"),
        "embeddings": int(embedding is not None),
    }
    if product is None:
        width = 0 if embedding is None else int(embedding["width"])
        size = 8 * rows * width
        return Dispatch(kind="rows", rows=rows, depth=0, outputs=width, bytes=size, detail=detail)
    _, depth, outputs = _sizes(product)
    width = _WIDTH[product["precision"]]
    groups = math.ceil(rows / int(match["block_rows"]))
    weights = width * depth * outputs
    return Dispatch(
        kind="rows",
        rows=rows,
        depth=depth,
        outputs=outputs,
        precision=product["precision"],
        flops=2 * rows * depth * outputs,
        # Every work-group reads all weights.
        bytes=weights * groups + 4 * rows * (depth + outputs),
        detail={**detail, "engine": product["engine"], "block": product["block"]},
    )


def _attention(match: re.Match[str]) -> Dispatch:
    batch, queries, keys = (int(match[name]) for name in ("batch", "queries", "keys"))
    heads, size, values = (int(match[name]) for name in ("heads", "size", "values"))
    precision = match["precision"]
    read = _WIDTH[precision] * batch * heads * (queries * size + keys * (size + values))
    written = (2 if match["output"] == "bf16" else 4) * batch * heads * queries * values
    bias = 0 if match["bias"] == "nobias" else math.prod(map(int, match["bias"].split("x")))
    return Dispatch(
        kind="attention",
        rows=batch * queries,
        depth=keys,
        outputs=heads * values,
        precision=precision,
        flops=2 * batch * heads * queries * keys * (size + values),
        bytes=read + written + 4 * bias,
        detail={
            "engine": match["engine"],
            "block": match["block"],
            "heads": heads,
            "head_size": size,
        },
    )


def _norm(match: re.Match[str]) -> Dispatch:
    words = match["written"].split("_")
    precision = "int8" if {"u8", "s8"} & set(words) else "f32"
    precision = "bf16" if {"native", "bf16"} & set(words) else precision
    written = 4 * ("f32" in words) + (_WIDTH[precision] if precision != "f32" else 0)
    return _by_element("norm", match, precision, 4 + written)


def _quantize(match: re.Match[str]) -> Dispatch:
    return _by_element("quantize", match, "int8", 5)


def _convert(match: re.Match[str]) -> Dispatch:
    return _by_element("convert", match, "bf16", 6)


def _embedding(match: re.Match[str]) -> Dispatch:
    terms = match["terms"].split("_")
    narrow = sum(term.startswith("q") for term in terms)
    each = 4 + 4 * (len(terms) - narrow) + narrow
    return _by_element("embedding", match, "int8" if narrow else "f32", each)


def _words(match: re.Match[str]) -> Dispatch:
    precision, width = {"i8": ("int8", 1), "i16": ("bf16", 2)}[match["element"]]
    return _by_element("words", match, precision, 2 * width)


def _by_element(kind: str, match: re.Match[str], precision: str, each: int) -> Dispatch:
    rows, width = int(match["rows"]), int(match["depth"])
    return Dispatch(
        kind=kind,
        rows=rows,
        depth=0,
        outputs=width,
        precision=precision,
        bytes=each * rows * width,
    )


def _matmul(match: re.Match[str]) -> Dispatch:
    rows, outputs, depth = (int(match[name]) for name in ("rows", "outputs", "depth"))
    rows *= int(match["batch"] or 1)
    return Dispatch(
        kind="matmul",
        rows=rows,
        depth=depth,
        outputs=outputs,
        flops=2 * rows * depth * outputs,
        bytes=4 * (rows * depth + depth * outputs + rows * outputs),
    )


def _encode(match: re.Match[str]) -> Dispatch:
    return _copied("encode", match["shape"])


def _elementwise(match: re.Match[str]) -> Dispatch:
    return _copied("elementwise", match["shape"] or "1")


def _copied(kind: str, shape: str) -> Dispatch:
    """Something read and written once, of four bytes each."""
    *lead, width = (int(size) for size in shape.split("x"))
    rows = math.prod(lead)
    return Dispatch(kind=kind, rows=rows, depth=0, outputs=width, bytes=8 * rows * width)


def _sizes(match: re.Match[str]) -> tuple[int, int, int]:
    return int(match["rows"]), int(match["depth"]), int(match["outputs"])


def _with(dispatch: Dispatch, **changed: object) -> Dispatch:
    return Dispatch(**{**dispatch.__dict__, **changed})


_PRODUCT_PART = re.compile(rf"product_{_ENGINE}_{_SIZES}")
_EMBEDDING_PART = re.compile(r"embedding_\d+x(?P<width>\d+)")
_READERS: tuple[tuple[re.Pattern[str], Reader], ...] = tuple(
    (re.compile(pattern), read)
    for pattern, read in (
        (rf"run_product_{_ENGINE}_{_SIZES}_{_EPILOGUE}", _product),
        (rf"run_weights(?P<bits>\d)_{_ENGINE}_{_SIZES}_{_EPILOGUE}", _stored),
        (rf"run_sparse_{_ENGINE}_{_SIZES}(?:_by\d+)?_of(?P<stored>\d+)_{_EPILOGUE}", _sparse),
        (r"run_rows_(?P<parts>\w+)_(?P<block_rows>\d+)of(?P<of>\d+)_[0-9a-f]{16}", _rows),
        (
            rf"run_attention_{_ENGINE}_\w+?_(?P<batch>\d+)x(?P<queries>\d+)x(?P<keys>\d+)"
            r"_(?P<heads>\d+)of\d+x(?P<size>\d+)x(?P<values>\d+)_[0-9a-f]{12}_[0-9a-f]{8}"
            r"_(?P<bias>nobias|\d+x\d+x\d+x\d+)_(?:\w+_)?(?P<output>f32|bf16)_\d+x\d+",
            _attention,
        ),
        (rf"run_(?:layer|rms)_norm_[0-9a-f]{{8}}_(?P<written>\w+?)_{_NORM}", _norm),
        (rf"run_quantize_\w+?_{_NORM}", _quantize),
        (
            r"run_embedding_(?P<terms>\w+?)_(?P<rows>\d+)x(?P<depth>\d+)_by\d+_in\d+",
            _embedding,
        ),
        (rf"run_convert_bf16_\w+?_{_NORM}", _convert),
        (r"run_words_(?P<element>i8|i16)_(?P<rows>\d+)x(?P<depth>\d+)_by\d+", _words),
        (
            r".*_matmul_(?:(?P<batch>\d+)x)?(?P<rows>\d+)x(?P<outputs>\d+)x(?P<depth>\d+)_\w+",
            _matmul,
        ),
        (r"_encoding_\d+_encode_(?P<shape>\d+(?:x\d+)*)x[a-z]\w+", _encode),
        # Of single numbers, and of copies, IREE's names say no size.
        (
            r".*_(?:elementwise|slow_memcpy)(?:_broadcast)?(?:_(?P<shape>\d+(?:x\d+)*)_\w+)?",
            _elementwise,
        ),
    )
)
