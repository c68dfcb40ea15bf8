"""The page of ``benchmarks/sparsity.py``: tables of times and ratios, and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .results import replace_text, table

__all__ = ["write_report"]

_TITLES = {
    "avx512_f32": "f32, AVX-512",
    "avx512_bf16": "bf16, AVX-512",
    "avx512_int8": "int8, AVX-512 VNNI",
    "amx_bf16": "bf16, AMX",
    "amx_int8": "int8, AMX",
}
_VECTORS = {"amx_int8": "avx512_int8", "amx_bf16": "avx512_bf16"}
_COLOURS = {48: "#0b6e4f", 16: "#7fc8a9"}

Key = tuple[str, int, int, int, float]


def write_report(results: Mapping[str, Any], folder: Path, densities: Sequence[float]) -> None:
    """Write ``sparsity.md`` and ``sparsity.svg``."""
    times = {_key(entry): entry["median_us"] for entry in results["entries"]}
    replace_text(folder / "sparsity.md", _page(results, times, densities))
    _draw(times, densities, folder / "sparsity.svg")


def _key(entry: Mapping[str, Any]) -> Key:
    return (
        entry["engine"],
        entry["depth"],
        entry["outputs"],
        entry["panel"],
        entry["density"],
    )


def _page(
    results: Mapping[str, Any], times: Mapping[Key, float], densities: Sequence[float]
) -> str:
    machine = results["machine"]
    parts = [
        "# Weights with blocks of zeros",
        "Made by `python benchmarks/sparsity.py`; every sample is in "
        f"`benchmarks/results/sparsity.json`. One thread, {results['rows']} rows.",
        "## Kernels",
        "F32 results with a bias (int8: dequantised). A ratio is how many times faster than the "
        "dense product of the same engine in the same run; a block is inputs x outputs. Medians "
        "of the processor's time, all outputs checked first. In AMX tiles the time includes "
        "turning the activations. *Most possible* is the kernel with no block kept: what remains "
        "then is the epilogue, which a sparse product has as much of as a dense one (3072 outputs "
        "are 1.5 MB to write), and in tiles the turning of activations and sums. No sparsity can "
        "be faster than that. Where few blocks survive, the kernel for vectors may be faster than "
        "the one for tiles: it then stands in for a dense product in tiles.",
        table(_kernel_rows(times, densities), numbers_from=2),
        "![How many times faster than dense](sparsity.svg)",
        "## Layers",
        "A linear layer of 768 x 3072, compiled as models are, beside the same layer without "
        "zeros. The fastest of all calls, because other work ran meanwhile: the processor's time "
        "on the host, the clock's on software Vulkan. *Inputs*: whole inputs are zero, in no "
        "order; the others are picked, and then multiplied densely.",
        table(_layer_rows(results["layers"], densities), numbers_from=3),
        f"{results['date']}, {machine['processor']} "
        f"(family/model/stepping {machine['family_model_stepping']}), "
        f"{machine['logical_cores']} cores, {machine['system']}, Python {machine['python']}; "
        f"load average {results['load']} at the start.",
    ]
    return "\n\n".join(parts) + "\n"


def _kernel_rows(times: Mapping[Key, float], densities: Sequence[float]) -> list[list[str]]:
    kept_titles = [f"{density:.0%} kept" for density in densities]
    rows = [["Engine", "Weight", "Dense, µs", "Blocks", *kept_titles, "Most possible"]]
    blocks = sorted({key[3] for key in times}, reverse=True)
    for (engine, depth, outputs, _, density), dense in times.items():
        if density != 1:
            continue
        for block in blocks:
            row = [_TITLES[engine], f"{depth} x {outputs}", f"{dense:.0f}", f"4 x {block}"]
            found = [times.get((engine, depth, outputs, block, d)) for d in (*densities, 0)]
            rows.append([*row, *(_ratio(dense, time) for time in found)])
        vectors = _VECTORS.get(engine, "")
        found = [times.get((vectors, depth, outputs, blocks[0], d)) for d in (*densities, 0)]
        if any(found):
            row = [f"{_TITLES[engine]}; sparse by vectors", f"{depth} x {outputs}", f"{dense:.0f}"]
            row.append(f"4 x {blocks[0]}")
            rows.append([*row, *(_ratio(dense, time) for time in found)])
    return rows


def _layer_rows(
    entries: Sequence[Mapping[str, Any]], densities: Sequence[float]
) -> list[list[str]]:
    rows = [["Target", "Precision", "Zeros", "Dense, µs", *(f"{d:.0%} kept" for d in densities)]]
    cases = {(entry["target"], entry["precision"], entry["zeros"]): None for entry in entries}
    for case in cases:
        times = {
            entry["density"]: min(entry["samples_us"])
            for entry in entries
            if (entry["target"], entry["precision"], entry["zeros"]) == case
        }
        rows.append(
            [*case, f"{times[1]:.0f}", *(_ratio(times[1], times.get(d)) for d in densities)]
        )
    return rows


def _ratio(dense: float, time: float | None) -> str:
    return f"{dense / time:.2f}x ({time:.0f} µs)" if time else "wrong"


def _draw(times: Mapping[Key, float], densities: Sequence[float], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    shapes = sorted({(key[1], key[2]) for key in times})
    engines = [name for name in _TITLES if any(key[0] == name for key in times)]
    with mpl.rc_context({"svg.hashsalt": "canao", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = plt.subplots(
            len(shapes),
            len(engines),
            figsize=(2.6 * len(engines), 2.6 * len(shapes)),
            squeeze=False,
            sharey=True,
            layout="constrained",
        )
        for line, (depth, outputs) in zip(axes, shapes, strict=True):
            for axis, engine in zip(line, engines, strict=True):
                dense = times[(engine, depth, outputs, 48, 1)]
                for panel, colour in _COLOURS.items():
                    found = [
                        (kept, dense / times[(engine, depth, outputs, panel, kept)])
                        for kept in densities
                        if (engine, depth, outputs, panel, kept) in times
                    ]
                    axis.plot(*zip(*found, strict=True), "o-", color=colour, label=f"4 x {panel}")
                axis.plot(densities, [1 / d for d in densities], ":", color="#5a6270", label="1/d")
                axis.set_xscale("log")
                axis.set_yscale("log")
                axis.set_xticks(densities, [f"{d:.0%}" for d in densities])
                axis.set_yticks([1, 2, 4, 8], ["1x", "2x", "4x", "8x"])
                axis.minorticks_off()
                axis.set_title(f"{_TITLES[engine]}\n{depth} x {outputs}", fontsize=8)
                axis.spines[["top", "right"]].set_visible(False)
        axes[0][0].legend(frameon=False, fontsize=8)
        figure.supylabel("times faster than dense", fontsize=8)
        figure.supxlabel("blocks kept", fontsize=8)
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=120, metadata=metadata)
        plt.close(figure)
