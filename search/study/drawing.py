"""An architecture as a picture: one row a layer, one box a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..space.architecture import KINDS, Architecture

__all__ = ["draw", "legend"]

_COLOURS = {"f32": "#64748b", "bf16": "#2563a8", "f16": "#2563a8", "int8": "#0f9d76"}
_OTHER = "#8b5cf6"
_HEIGHT, _GAP, _LEFT, _SCALE = 26, 10, 84, 150
_NAMES = {"qkv": "Q, K, V", "output": "output", "up": "up", "down": "down"}


def draw(architecture: Architecture, teacher: Architecture | None = None) -> str:
    """SVG. A box is as wide as its matrix has outputs, next to those of the largest matrix; its
    colour is the precision, and only as much of it is filled as blocks stay. A thin line behind
    is the matrix of ``teacher``, or of the largest layer without one.
    """
    a = architecture
    whole = teacher or a
    widest = {
        kind: max(
            _outputs(of, number, kind) for of in (a, whole) for number in range(len(of.layers))
        )
        for kind in KINDS
    }
    total = sum(_share(widest[kind], widest) for kind in KINDS)
    width = round(_LEFT + total + _GAP * (len(KINDS) + 1))
    height = (len(a.layers) + 2) * (_HEIGHT + _GAP) + _GAP
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        'xmlns="http://www.w3.org/2000/svg" font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{escape(_summary(a))}</title>",
    ]
    left = float(_LEFT)
    for kind in KINDS:
        parts.append(f'<text x="{left:.0f}" y="16" fill="#475569">{_NAMES[kind]}</text>')
        left += _share(widest[kind], widest) + _GAP
    for number in range(len(a.layers)):
        parts += _layer(a, number, widest)
    bottom = _GAP + (len(a.layers) + 1) * (_HEIGHT + _GAP)
    parts.append(f'<text x="0" y="{bottom + 8}" fill="#475569">{escape(_rest(a))}</text>')
    return "".join([*parts, "</svg>"])


def _layer(a: Architecture, number: int, widest: dict[str, int]) -> list[str]:
    top = _GAP + _HEIGHT + number * (_HEIGHT + _GAP)
    shape = a.layers[number]
    parts = [f'<text x="0" y="{top + 17}" fill="#1c2430">layer {number + 1}</text>']
    left = float(_LEFT)
    for kind in KINDS:
        outputs, inputs, form = a.matrix(number, kind)
        full = _share(widest[kind], widest)
        wide = full * _outputs(a, number, kind) / widest[kind]
        colour = _COLOURS.get(form.precision, _OTHER)
        says = {"qkv": f"{shape.heads} heads", "output": "", "up": str(shape.ffn), "down": ""}[
            kind
        ]
        tip = f"{outputs} x {inputs}, {form.precision}, {form.density:.0%} of blocks"
        parts += [
            f"<g><title>{escape(_NAMES[kind])}: {tip}</title>",
            f'<rect x="{left:.1f}" y="{top}" width="{full:.1f}" height="{_HEIGHT}" fill="none" '
            'stroke="#d8dee6"/>',
            f'<rect x="{left:.1f}" y="{top}" width="{wide:.1f}" height="{_HEIGHT}" '
            f'fill="{colour}" fill-opacity="0.22" stroke="{colour}"/>',
            f'<rect x="{left:.1f}" y="{top + _HEIGHT * (1 - form.density):.1f}" '
            f'width="{wide:.1f}" height="{_HEIGHT * form.density:.1f}" fill="{colour}" '
            'fill-opacity="0.55"/>',
            f'<text x="{left + 5:.1f}" y="{top + 17}" fill="#10151d">{says or form.precision}'
            "</text></g>",
        ]
        left += full + _GAP
    return parts


def _outputs(a: Architecture, number: int, kind: str) -> int:
    """What tells the size of a matrix: of those that write the hidden width, their inputs."""
    outputs, inputs, _ = a.matrix(number, kind)
    return inputs if kind in ("output", "down") else outputs


def _share(size: int, widest: dict[str, int]) -> float:
    return max(70.0, _SCALE * size / max(widest.values()))


def _rest(a: Architecture) -> str:
    rank = f", rank {a.embedding_rank}" if a.embedding_rank is not None else ""
    table = f"{a.vocabulary:,} words{rank}{', in 8 bits' if a.embedding_int8 else ''}"
    return f"width {a.hidden}, {table}, texts of {a.seq_len} tokens"


def _summary(a: Architecture) -> str:
    return f"{len(a.layers)} layers, {_rest(a)}"


def legend(precisions: Sequence[str]) -> list[tuple[str, str]]:
    """(precision, colour) of each."""
    return [(name, _COLOURS.get(name, _OTHER)) for name in precisions]
