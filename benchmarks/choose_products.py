"""Measure the table of products that ships with canao, on this machine.

    python benchmarks/choose_products.py [--models minilm,encoder] [--rows 32,128,384]
                                         [--precisions f32,bf16,int8] [--zeros 48:25,inputs:50]
                                         [--again] [--plan]

For each product of the models, every candidate (engines, blocks, IREE by itself) is checked and
timed in turns; then, with 128 rows, for each that has zeros in its weights: dense, by blocks in
every way, and gathered. It writes after each product, so that it may be stopped and started
again: what is there for this CPU is not measured again, unless ``--again`` asks for it. ``--plan``
says what is missing, and measures nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from common.options import one_of, whole_numbers
from roofline.cases import MODELS, products_of

from canao import targets
from canao.compiler.kernels.choosing.host import cpu_key
from canao.compiler.kernels.choosing.measure import Measured
from canao.compiler.kernels.choosing.problem import Problem
from canao.compiler.kernels.choosing.table import read_table
from canao.compiler.kernels.choosing.tuning import SHIPPED, extend_table
from canao.compiler.kernels.choosing.zeros import GROUPS, INPUTS, PANELS, WHOLE, Zeros
from canao.compiler.quantization.precisions import WEIGHT_BITS

__all__ = ["main", "planned"]

_PRECISIONS = ("f32", "bf16", "int8", "int8-weights", "int4-weights")
_ROWS_WITH_ZEROS = 128  # how a weight is packed is no matter of rows
_ZEROS = tuple(
    [Zeros(panel, kept) for panel in (16, 48) for kept in (50, 25, 10)]
    + [Zeros(panel, kept) for panel in WHOLE for kept in (50, 25)]
)


_NAMES = {"inputs": INPUTS, "groups": GROUPS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing; 0 if all of it is there then."""
    options = _parser().parse_args(arguments)
    wanted = planned(options.models, options.rows, options.precisions, options.zeros)
    table, ignored = read_table(options.table)
    for sentence in ignored:
        _tell(sentence)
    known = set() if options.again else set(table.of(cpu_key()))
    if options.plan:
        for problem in sorted(wanted - known):
            _tell(problem.spelled())
        return 0
    notes = extend_table(
        options.table, wanted - known, targets.get("host"), _tell, told=_tell_times
    )
    for note in notes:
        _tell(note)
    table, _ = read_table(options.table)
    missing = wanted - set(table.of(cpu_key()))
    _tell(f"{len(wanted) - len(missing)} of {len(wanted)} products are measured")
    return int(bool(missing))


def planned(
    models: Iterable[str],
    rows: Iterable[int],
    precisions: Iterable[str],
    zeros: Iterable[Zeros] = _ZEROS,
) -> set[Problem]:
    """All that the table should have of some models."""
    shapes = [shape for name in models for shape in products_of(MODELS[name])]
    dense = {
        Problem(precision, count, *shape)
        for precision in precisions
        for count in rows
        for shape in shapes
    }
    # Weights alone in 8 or 4 bits are not multiplied by blocks.
    sparse = {
        Problem(precision, _ROWS_WITH_ZEROS, *shape, one.panel, one.kept)
        for precision in precisions
        if precision not in WEIGHT_BITS
        for shape in shapes
        for one in zeros
    }
    return dense | sparse


def _zeros(text: str) -> list[Zeros]:
    """``48:25`` is blocks of 48 outputs of which 25 per cent are kept, ``inputs:25`` inputs,
    ``groups:25`` fours of them; ``none`` is none."""
    found = []
    for one in text.split(",") if text != "none" else ():
        panel, _, kept = one.partition(":")
        wide = _NAMES[panel] if panel in _NAMES else int(panel)
        if wide not in (*WHOLE, *PANELS) or int(kept) not in range(5, 100, 5):
            raise argparse.ArgumentTypeError(f"{one!r} is not like 48:25 or inputs:50")
        found.append(Zeros(wide, int(kept)))
    return found


def _tell_times(found: Measured) -> None:
    ordered = sorted(found.times.items(), key=lambda item: item[1])
    listed = ", ".join(f"{label} {time:.4g}" for label, time in ordered[:3])
    kept = f"{len(found.rounds)} rounds kept, {found.discarded} discarded"
    _tell(f"  {listed} us ({kept})" if listed else f"  nothing ({kept})")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=one_of(MODELS), default=list(MODELS))
    parser.add_argument("--rows", type=whole_numbers, default=[32, 128, 384], help="32,128,384")
    parser.add_argument("--precisions", type=one_of(_PRECISIONS), default=list(_PRECISIONS))
    parser.add_argument("--zeros", type=_zeros, default=list(_ZEROS), help="48:25,inputs:50")
    parser.add_argument("--plan", action="store_true", help="say what is missing")
    parser.add_argument("--again", action="store_true", help="measure also what is there")
    parser.add_argument("--table", type=Path, default=SHIPPED, help="where the table is")
    return parser


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
