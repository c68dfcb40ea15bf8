"""What models and products cost on 64-bit ARM, in executed instructions under emulation.

    python benchmarks/arm.py [--models minilm] [--rows 128] [--json FILE]

Each model is compiled for both ARM targets in each precision, each product for the older target
that can run it; all are called once. LiteRT's own ARM build runs the same models beside them. The
counts are exact and the same in every run, on any machine; they are not times.
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
from arm_count.litert import count_litert, missing_litert
from common.models import MODELS, ModelSpec, materialize
from common.options import add_outputs, one_of, whole_numbers
from common.paths import cache_directory
from common.processes import PeerError
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
_PRECISIONS = {"arm64": ("f32", "int8"), "arm64-i8mm": ("f32", "bf16", "int8")}
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
            write_json(options.json, results)
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
    """One inference of a model for each target and precision, everything in it included."""
    model = materialize(name, cache_directory())
    found = []
    for target, precisions in _PRECISIONS.items():
        for precision in precisions:
            counts = {"canao": _canao(model, seq_len, target, precision)}
            if precision != "bf16":
                counts["LiteRT"] = _litert(model, seq_len, target, precision)
            for runtime, classes in counts.items():
                if classes is None:
                    continue
                total = sum(classes.values())
                told = f"{model.title}, {target}, {precision}, {runtime}"
                print(f"{told}: {total / 1e6:.1f} million", file=sys.stderr)
                found.append(
                    {
                        "model": name,
                        "title": model.title,
                        "seq_len": seq_len,
                        "runtime": runtime,
                        "target": target,
                        "precision": precision,
                        "instructions": total,
                        "classes": classes,
                    }
                )
    return found


def _canao(model: ModelSpec, seq_len: int, target: str, precision: str) -> dict[str, int]:
    with tempfile.TemporaryDirectory(prefix="canao-bench-") as folder:
        path = Path(folder) / model.name
        compile_model(
            model.directory, target=target, seq_len=seq_len, precision=precision, output=path
        )
        bundle = canao.Bundle.open(path)
        module = bundle.module(target, seq_len)
        inputs = [(shape_of(one, module), "i32") for one in bundle.manifest.inputs]
        weights = path / WEIGHTS_FILE
        flags = [f"--parameters={WEIGHTS_SCOPE}={weights}"] if weights.exists() else []
        return _count(path / module.file, module.function, inputs, flags)


def _litert(model: ModelSpec, seq_len: int, target: str, precision: str) -> dict[str, int] | None:
    """LiteRT's count; None where it cannot be had, which is said on standard error."""
    if absent := missing_litert():
        print(f"LiteRT is not counted: it needs {absent}", file=sys.stderr)
        return None
    try:
        found = count_litert(model, seq_len, precision, target, cache_directory())
    except (PeerError, RuntimeError) as error:
        print(f"LiteRT is not counted: {error}", file=sys.stderr)
        return None
    return {name: found[name] for name in CLASSES if found[name]}


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
    models = [["Model", "Tokens", "Target", "Precision", "Runtime", "Instructions, million"]]
    models[0] += ["Products, %", "Loads, %", "Of LiteRT's, %"]
    peers = {
        _key(one): one["instructions"] for one in results["models"] if one["runtime"] == "LiteRT"
    }
    for one in results["models"]:
        classes, total = one["classes"], one["instructions"]
        products = sum(classes.get(name, 0) for name in _MULTIPLIES)
        models.append(
            [
                one["title"],
                str(one["seq_len"]),
                one["target"],
                one["precision"],
                one["runtime"],
                f"{total / 1e6:.0f}",
                f"{100 * products / total:.0f}",
                f"{100 * _loads(classes) / total:.0f}",
                f"{100 * total / peers[_key(one)]:.0f}" if _key(one) in peers else "",
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
        "BERT models with a question-answering head, one inference: of canao the module's own "
        "code, of LiteRT's ARM build everything (the runtime's work is a small share).\n\n"
        f"{table(models, numbers_from=5)}\n\n"
        "## Products\n\n"
        "Kernels by themselves. An instruction does at most 4 multiply-adds in f32 (FMLA), 16 "
        "in int8 with dot products (SDOT) and in bf16 (BFMMLA), 32 in int8 with i8mm (SMMLA); "
        "the column *Multiply-adds each* says how near a whole kernel comes, its epilogue "
        "included.\n\n"
        f"{table(rows, numbers_from=3)}\n\n{results['date']}\n"
    )


def _key(one: dict[str, Any]) -> tuple[Any, ...]:
    return one["model"], one["seq_len"], one["target"], one["precision"]


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
