"""The page of ``benchmarks/sparsity.py``: a table of times and ratios, and a plot."""

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
    rows = [["Engine", "Weight", "Dense, µs", "Blocks", *(f"{d:.0%} kept" for d in densities)]]
    for (engine, depth, outputs, panel, density), dense in times.items():
        if density != 1:
            continue
        for block in sorted({key[3] for key in times}, reverse=True):
            row = [_TITLES[engine], f"{depth} x {outputs}", f"{dense:.0f}", f"4 x {block}"]
            for kept in densities:
                time = times.get((engine, depth, outputs, block, kept))
                row.append(f"{dense / time:.2f}x ({time:.0f} µs)" if time else "wrong")
            rows.append(row)
        del panel
    parts = [
        "# Weights with blocks of zeros",
        "Made by `python benchmarks/sparsity.py`; every sample is in "
        f"`benchmarks/results/sparsity.json`. One thread, {results['rows']} rows, f32 results "
        "with a bias (int8: dequantised). A ratio is how many times faster than the dense "
        "product of the same engine in the same run; a block is inputs x outputs. Medians of "
        "the processor's time, all outputs checked first. In AMX tiles the time includes turning "
        "the activations.",
        table(rows, numbers_from=2),
        "![How many times faster than dense](sparsity.svg)",
        "Where the ratio stays below 1 / density, what remains is the epilogue, which a sparse "
        "product has as much of as a dense one: with 3072 outputs it writes 1.5 MB.",
        f"{results['date']}, {machine['processor']} "
        f"(family/model/stepping {machine['family_model_stepping']}), "
        f"{machine['logical_cores']} cores, {machine['system']}, Python {machine['python']}; "
        f"load average {results['load']} at the start.",
    ]
    return "\n\n".join(parts) + "\n"


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
