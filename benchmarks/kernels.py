"""Each kernel against the roof of the core, measured in the same run.

    python benchmarks/kernels.py [--models minilm,bert-base] [--rows 32,128] [--rounds N]
                                 [--again] [--json FILE] [--docs DIRECTORY]

Products of every engine that this machine has, attention, layer norm and quantising, at the
shapes of the models; the page says how much of the roof each reaches. A model with a number of
rows is one group, timed in turns; it writes after each group, and what the file has of this
machine is not measured again, unless ``--again`` asks for it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.machine import load_average, machine_record
from common.options import add_outputs, one_of, whole_numbers
from common.results import write_json
from roofline.cases import (
    MODELS,
    attention_cases,
    product_cases,
    products_of,
    roof_cases,
    row_cases,
)
from roofline.report import held, write_report
from roofline.timing import timed

from canao import targets
from canao.compiler.kernels.choosing.process import Effort

__all__ = ["main"]

_DRIFT = 0.2  # of an empty call, which is short


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the results and their page."""
    options = _parser().parse_args(arguments)
    target = targets.get("host")
    results: dict[str, Any] = {
        "schema": 1,
        "kind": "kernels",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine_record(),
        "groups": [] if options.again else _known(options.json),
    }
    effort = Effort(rounds=options.rounds, most_rounds=3 * options.rounds, drift=_DRIFT)
    known = {group["title"] for group in results["groups"]}
    for name in options.models:
        model = MODELS[name]
        for rows in options.rows:
            title = f"{model.title}, {rows} rows"
            if title in known:
                continue
            _tell(title)
            cases = roof_cases(target)
            for depth, outputs in products_of(model):
                cases += product_cases(target, rows, depth, outputs)
            cases += attention_cases(target, rows, model)
            cases += row_cases(target, rows, model)
            load = load_average()
            group = {"load": load, **timed(title, cases, target, effort)}
            if not group["rounds"]:
                _tell("  the machine is too busy: this group is left out")
                continue
            results["groups"].append(group)
            for one in held({"groups": [group]}):
                _tell(f"  {one.name}: {one.time:.1f} us, {one.share:.0%} of {one.bound}")
            write_json(options.json, results)
    if options.docs and results["groups"]:
        write_report(results, options.docs)
    return int(len(results["groups"]) < len(options.models) * len(options.rows))


def _known(path: Path) -> list[dict[str, Any]]:
    """The groups that the file has, if it is of this version and this machine."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    now = machine_record()
    same = ("processor", "family_model_stepping", "features")
    if found.get("schema") != 1 or any(found["machine"][key] != now[key] for key in same):
        return []
    groups: list[dict[str, Any]] = found["groups"]
    return groups


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=one_of(MODELS), default=list(MODELS))
    parser.add_argument("--rows", type=whole_numbers, default=[32, 128, 384], help="32,128,384")
    parser.add_argument("--rounds", type=int, default=11, help="rounds to keep (%(default)s)")
    parser.add_argument("--again", action="store_true", help="measure also what is there")
    add_outputs(parser, "kernels.json")
    return parser


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
