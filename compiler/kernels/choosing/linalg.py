"""A product as IREE compiles it by itself: linalg as text, for the chooser."""

from __future__ import annotations

from .problem import Problem

__all__ = ["linalg_program"]


def linalg_program(problem: Problem, copies: int) -> str:
    """A module with functions ``linalg_0``, ...: one for each parameter ``w0``, ... in turn.

    Inputs: activations [rows, depth] and bias [outputs]. The weights are parameters, as in a
    model, so that what IREE does to a weight is done once, at load.
    """
    rows, depth, outputs = problem.rows, problem.depth, problem.outputs
    x, w = f"tensor<{rows}x{depth}xf32>", f"tensor<{outputs}x{depth}xf32>"
    y, b = f"tensor<{rows}x{outputs}xf32>", f"tensor<{outputs}xf32>"
    maps = ", ".join(f"affine_map<(m, n, k) -> ({place})>" for place in ("m, k", "n, k", "m, n"))
    text = []
    for i in range(copies):
        text.append(
            f'util.global private @w{i} = #flow.parameter.named<"model"::"w{i}"> : {w}\n'
            f"func.func @linalg_{i}(%x: {x}, %b: {b}) -> {y} {{\n"
            f"%w = util.global.load @w{i} : {w}\n"
            "%zero = arith.constant 0.0 : f32\n"
            f"%empty = tensor.empty() : {y}\n"
            f"%start = linalg.fill ins(%zero : f32) outs(%empty : {y}) -> {y}\n"
            f"%p = linalg.matmul indexing_maps = [{maps}] ins(%x, %w : {x}, {w}) "
            f"outs(%start : {y}) -> {y}\n"
            "%r = linalg.generic {indexing_maps = [affine_map<(m, n) -> (m, n)>, "
            "affine_map<(m, n) -> (n)>, affine_map<(m, n) -> (m, n)>], "
            'iterator_types = ["parallel", "parallel"]} '
            f"ins(%p, %b : {y}, {b}) outs(%empty : {y}) {{\n"
            "^bb0(%one: f32, %two: f32, %out: f32):\n"
            "%sum = arith.addf %one, %two : f32\n"
            f"linalg.yield %sum : f32\n}} -> {y}\n"
            f"return %r : {y}\n}}\n"
        )
    return "".join(text)
