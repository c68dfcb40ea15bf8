"""What models and products cost on 64-bit ARM, in executed instructions under emulation.

    python benchmarks/arm.py [--models minilm] [--rows 128] [--json FILE]

Each model is compiled for both ARM targets, each product for the older one that can run it; all
are called once. The counts are exact and the same in every run, on any machine; they are not
times.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arm_count.counting import CLASSES, count, missing
from common.models import MODELS, materialize
from common.options import add_outputs, one_of, whole_numbers
from common.paths import cache_directory
from common.results import replace_text, table, write_json

import canao
from canao import targets
from canao.compiler.api import compile_model
from canao.compiler.kernels.engines.registry import engine_for
from canao.compiler.kernels.epilogue import Epilogue
from canao.compiler.kernels.executable import Kernel
from canao.compiler.kernels.product import ProductShape, product_kernel
from canao.compiler.kernels.trial import build, program
from canao.runtime_harness import aarch64_runtime
from canao.runtime_harness.tensors import WEIGHTS_FILE, WEIGHTS_SCOPE, shape_of
from canao.targets import Target

__all__ = ["main"]

# The products of MiniLM-L6 and of BERT_BASE: depth, outputs, and what follows them.
_PRODUCTS = (
    (384, 384, "residual"),
    (384, 1152, "bias"),
    (384, 1536, "gelu"),
    (1536, 384, "residual"),
    (768, 768, "residual"),
    (768, 2304, "bias"),
    (768, 3072, "gelu"),
    (3072, 768, "residual"),
)
_EPILOGUES = {
    "bias": Epilogue(),
    "residual": Epilogue(residual=True),
    "gelu": Epilogue(activation="gelu", accurate=False),
}
_TARGETS = ("arm64", "arm64-i8mm")
_ENGINES = (("arm64", "f32"), ("arm64", "int8"), ("arm64-i8mm", "bf16"), ("arm64-i8mm", "int8"))
_MULTIPLIES = {"fmla": 4, "sdot": 16, "smmla": 32, "bfmmla": 16}


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, and write the results and their page."""
    options = _parser().parse_args(arguments)
    if absent := missing():
        print(f"error: {absent}", file=sys.stderr)
        return 1
    results: dict[str, Any] = {
        "schema": 1,
        "kind": "arm-instructions",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "models": [],
        "products": [],
    }
    for name in options.models:
        for rows in options.rows:
            results["models"] += _model(name, rows)
    for rows in options.rows:
        for target, precision in _ENGINES:
            for depth, outputs, after in _PRODUCTS:
                shape = ProductShape(rows, depth, outputs)
                found = _product(targets.get(target), precision, shape, after)
                results["products"].append(found)
                share = found["instructions"] / shape.multiply_adds
                print(f"{found['kernel']}: {share:.4f} a multiply-add", file=sys.stderr)
    write_json(options.json, results)
    if options.docs:
        replace_text(options.docs / "arm.md", markdown(results))
    return 0


def _product(target: Target, precision: str, shape: ProductShape, after: str) -> dict[str, Any]:
    engine = engine_for(target.features, precision, shape.outputs, shape.rows)
    if engine is None:
        raise ValueError(f"{target.name} has no engine for {precision}")
    kernel = product_kernel(engine, shape, _EPILOGUES[after])
    counts = count_kernel(kernel, target)
    return {
        "kernel": kernel.name,
        "target": target.name,
        "engine": engine.label,
        "precision": precision,
        "shape": [shape.rows, shape.depth, shape.outputs],
        "epilogue": after,
        "multiply_adds": shape.multiply_adds,
        "instructions": sum(counts.values()),
        "classes": counts,
    }


def count_kernel(kernel: Kernel, target: Target) -> dict[str, int]:
    """Executed instructions of each class in one call; the values are all one."""
    with tempfile.TemporaryDirectory(prefix="canao-bench-") as folder:
        module = Path(folder) / "kernel.vmfb"
        build(program(kernel), target, module)
        return _count(module, "main", [(one.shape, one.element) for one in kernel.inputs])


def _model(name: str, seq_len: int) -> list[dict[str, Any]]:
    """One inference of a model for each target, everything in it included."""
    model = materialize(name, cache_directory())
    found = []
    with tempfile.TemporaryDirectory(prefix="canao-bench-") as folder:
        path = Path(folder) / name
        compile_model(model.directory, target=_TARGETS, seq_len=seq_len, output=path)
        bundle = canao.Bundle.open(path)
        for target in _TARGETS:
            module = bundle.module(target, seq_len)
            inputs = [(shape_of(one, module), "i32") for one in bundle.manifest.inputs]
            weights = path / WEIGHTS_FILE
            flags = [f"--parameters={WEIGHTS_SCOPE}={weights}"] if weights.exists() else []
            counts = _count(path / module.file, module.function, inputs, flags)
            total = sum(counts.values())
            print(f"{model.title}, {target}: {total / 1e6:.1f} million", file=sys.stderr)
            found.append(
                {
                    "model": name,
                    "title": model.title,
                    "seq_len": seq_len,
                    "target": target,
                    "precision": bundle.manifest.precision,
                    "instructions": total,
                    "classes": counts,
                }
            )
    return found


def _count(
    module: Path,
    function: str,
    inputs: Sequence[tuple[Sequence[int], str]],
    flags: Sequence[str] = (),
) -> dict[str, int]:
    """Call a function once, every value being one."""
    tool = str(aarch64_runtime.ensure() / "iree-run-module")
    command = [tool, f"--module={module}", f"--function={function}", "--device=local-sync"]
    command += [f"--input={'x'.join(map(str, (*shape, kind)))}=1" for shape, kind in inputs]
    found = count([*command, *flags])
    return {name: found[name] for name in CLASSES if found[name]}


def markdown(results: dict[str, Any]) -> str:
    """The page: what whole models execute, and what each engine does for each product."""
    models = [["Model", "Target", "Precision", "Tokens", "Instructions, million", "Products, %"]]
    models[0] += ["Loads, %"]
    for one in results["models"]:
        classes, total = one["classes"], one["instructions"]
        products = sum(classes.get(name, 0) for name in _MULTIPLIES)
        models.append(
            [
                one["title"],
                one["target"],
                one["precision"],
                str(one["seq_len"]),
                f"{total / 1e6:.0f}",
                f"{100 * products / total:.0f}",
                f"{100 * _loads(classes) / total:.0f}",
            ]
        )
    head = ["Rows x depth x outputs", "After it", "Engine", "Instructions, million"]
    head += ["Multiply-adds each", "Products, %", "Loads, %"]
    rows = [head]
    for one in results["products"]:
        classes, total = one["classes"], one["instructions"]
        kind = next((name for name in ("smmla", "sdot", "bfmmla") if name in classes), "fmla")
        products = one["multiply_adds"] / _MULTIPLIES[kind]
        rows.append(
            [
                " x ".join(map(str, one["shape"])),
                one["epilogue"],
                one["engine"],
                f"{total / 1e6:.2f}",
                f"{one['multiply_adds'] / total:.2f}",
                f"{100 * products / total:.0f}",
                f"{100 * _loads(classes) / total:.0f}",
            ]
        )
    return (
        "# Instructions on 64-bit ARM\n\n"
        "Made by `python benchmarks/arm.py`; every count is in `benchmarks/results/arm.json`. "
        "Executed instructions of compiled code in one call under emulation (QEMU): exact, the "
        "same on any machine, and no times.\n\n"
        "## Models\n\n"
        "BERT models with a question-answering head, one inference.\n\n"
        f"{table(models, numbers_from=3)}\n\n"
        "## Products\n\n"
        "Kernels by themselves. An instruction does at most 4 multiply-adds in f32 (FMLA), 16 "
        "in int8 with dot products (SDOT) and in bf16 (BFMMLA), 32 in int8 with i8mm (SMMLA); "
        "the column *Multiply-adds each* says how near a whole kernel comes, its epilogue "
        "included.\n\n"
        f"{table(rows, numbers_from=3)}\n\n{results['date']}\n"
    )


def _loads(classes: dict[str, int]) -> int:
    return sum(n for name, n in classes.items() if name.startswith("load vector"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", type=one_of(MODELS), default=["minilm"], help=f"{', '.join(MODELS)} (minilm)"
    )
    parser.add_argument("--rows", type=whole_numbers, default=[128], help="tokens (128)")
    add_outputs(parser, "arm.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
