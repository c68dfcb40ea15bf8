"""Measure the table of products that ships with canao, on this machine.

    python benchmarks/choose_products.py [--models minilm,encoder] [--rows 32,128,384]
                                         [--precisions f32,bf16,int8] [--again]

For each product of the models, every candidate (engines, blocks, IREE by itself) is checked and
timed in turns. It writes after each product, so that it may be stopped and started again: what
is there for this CPU is not measured again, unless ``--again`` asks for it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.options import one_of, whole_numbers
from roofline.cases import MODELS, products_of

from canao import targets
from canao.compiler.kernels.choosing.host import cpu_key
from canao.compiler.kernels.choosing.measure import Measured
from canao.compiler.kernels.choosing.problem import Problem
from canao.compiler.kernels.choosing.table import read_table
from canao.compiler.kernels.choosing.tuning import SHIPPED, extend_table

__all__ = ["main"]

_PRECISIONS = ("f32", "bf16", "int8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing; 0 if all of it is there then."""
    options = _parser().parse_args(arguments)
    wanted = {
        Problem(precision, rows, depth, outputs)
        for precision in options.precisions
        for rows in options.rows
        for name in options.models
        for depth, outputs in products_of(MODELS[name])
    }
    table, ignored = read_table(options.table)
    for sentence in ignored:
        _tell(sentence)
    known = set() if options.again else set(table.of(cpu_key()))
    notes = extend_table(
        options.table, wanted - known, targets.get("host"), _tell, told=_tell_times
    )
    for note in notes:
        _tell(note)
    table, _ = read_table(options.table)
    missing = wanted - set(table.of(cpu_key()))
    _tell(f"{len(wanted) - len(missing)} of {len(wanted)} products are measured")
    return int(bool(missing))


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
    parser.add_argument("--again", action="store_true", help="measure also what is there")
    parser.add_argument("--table", type=Path, default=SHIPPED, help="where the table is")
    return parser


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
