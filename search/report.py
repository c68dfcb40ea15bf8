"""Teacher, dense student and compressed model side by side: a table, and one page of HTML.

The page holds all that it shows, its plot's script included: it needs no network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..compiler.compression.recipe import Recipe
from .compress_result import CompressionResult, ModelFacts
from .gain import NARROW, TargetGain
from .gain_reason import KEPT
from .metrics import lower_is_better
from .pages import write_page
from .training.simulation import precision_told

__all__ = ["comparison", "report_notes", "report_warnings", "write_report"]

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def models_of(result: CompressionResult) -> dict[str, ModelFacts]:
    """The models of a result by what they are, the teacher first."""
    found = {"teacher": result.before}
    if result.dense is not None:
        found["dense"] = result.dense
    return {**found, "compressed": result.after}


def comparison(result: CompressionResult, gains: Sequence[TargetGain] = ()) -> Table:
    """(columns, rows) for people: what each model costs, how fast and how good it is."""
    models = models_of(result)
    name = result.before.metric_name
    times = tuple(f"{gain.target}, ms" for gain in gains)
    columns = (
        "model",
        "parameters",
        "FLOPs",
        "of teacher",
        "bytes",
        name,
        "95 % interval",
        *times,
    )
    rows = []
    for who, facts in models.items():
        low, high = facts.interval
        cells = (
            who,
            f"{facts.params / 1e6:.2f} M",
            f"{facts.flops / 1e9:.3f} G",
            f"{facts.flops / result.before.flops:.1%}",
            f"{facts.bytes / 1e6:.1f} MB",
            f"{facts.metric:.2f}",
            f"{low:.2f} to {high:.2f}",
        )
        times = tuple(f"{gain.ms[who]:.3g}" if who in gain.ms else "-" for gain in gains)
        rows.append(cells + times)
    return columns, rows


def report_warnings(result: CompressionResult, gains: Sequence[TargetGain]) -> list[str]:
    """Those of the result, and one for each target that keeps under 80 % of what FLOPs promise."""
    found = list(result.warnings)
    for gain in gains:
        marks = " (emulated: no time of real silicon)" if gain.emulated else ""
        if gain.kept < KEPT:
            found.append(
                f"{gain.target}: {gain.gain:.2f} times faster where the FLOPs promise "
                f"{gain.promised:.2f} ({gain.kept:.0%} of it){marks}: {gain.reason}."
            )
        if not gain.stable:
            found.append(f"{gain.target}: the measurement was not stable; measure again.")
    return found


def report_notes(result: CompressionResult) -> list[str]:
    """How a block-sparse model compares with the dense one of equal FLOPs."""
    if result.dense is None:
        if result.recipe.get("sparsity"):
            return ["No dense model of equal FLOPs was trained beside this block-sparse one."]
        return []
    dense, sparse = result.dense, result.after
    overlap = dense.interval[1] >= sparse.interval[0] and sparse.interval[1] >= dense.interval[0]
    lower = lower_is_better(sparse.metric_name)
    difference = (sparse.metric - dense.metric) * (-1 if lower else 1)
    figures = (
        f"{sparse.metric_name} {sparse.metric:.2f} at {sparse.flops / 1e9:.3f} GFLOP against "
        f"{dense.metric:.2f} at {dense.flops / 1e9:.3f}"
    )
    why = "their intervals overlap"
    if result.difference is not None:
        low, high = result.difference.interval
        overlap, why = low <= 0 <= high, "the interval of their difference has 0 in it"
        figures += f": {result.difference.value:+.2f}, on the same rows {low:.2f} to {high:.2f}"
    if overlap:
        return [
            f"The dense model of equal FLOPs, trained alike, is as good as the block-sparse one: "
            f"{why} ({figures})."
        ]
    verdict = "better" if difference > 0 else "worse"
    return [
        f"The block-sparse model is {verdict} than the dense one of equal FLOPs, trained alike "
        f"({figures})."
    ]


def write_report(
    result: CompressionResult, gains: Sequence[TargetGain], path: str | os.PathLike[str]
) -> Path:
    """Write one self-contained page, whole or not at all. Raises `InputError` for a bad path."""
    columns, rows = comparison(result, gains)
    return write_page(
        path,
        "report.html",
        title=f"Compressed for {result.data}",
        facts=[
            f"Costs are of one text of {result.seq_len} tokens: 2 FLOPs a multiply-add, blocks of "
            f"zeros left out; bytes as in a bundle. {result.before.metric_name} is of "
            f"{result.before.n:,} rows, its interval by resampling them.",
            *_precision_facts(result),
        ],
        warnings=report_warnings(result, gains),
        notes=report_notes(result),
        columns=columns,
        rows=rows,
        plot=_plot(result, gains),
        seq_len=result.seq_len,
        gains=[_gain_cells(gain) for gain in gains],
        gain_columns=(
            *("target", "device", "precision", "teacher f32, ms", "teacher alike, ms"),
            *("compressed, ms", "times faster", "95 % interval", "promised", "kept"),
            *("than f32", "95 % interval", "MB in bundles", "threads"),
        ),
        training=_training(result),
        training_columns=(
            *("model", "rows", "held out", "steps", "minutes", "best on held out"),
            *("at step", "padding saved", "bf16", "processes"),
        ),
        recipe=json.dumps(result.recipe, indent=1),
        options=json.dumps(result.options, indent=1),
    )


def _gain_cells(gain: TargetGain) -> tuple[str, ...]:
    return (
        gain.target + (" (emulated)" if gain.emulated else ""),
        gain.device,
        gain.precision,
        f"{gain.ms['teacher']:.3g}",
        f"{gain.ms.get(NARROW, gain.ms['teacher']):.3g}",
        f"{gain.ms['compressed']:.3g}",
        f"{gain.gain:.2f}",
        f"{gain.interval[0]:.2f} to {gain.interval[1]:.2f}",
        f"{gain.promised:.2f}",
        f"{gain.kept:.0%}",
        f"{gain.whole:.2f}",
        f"{gain.whole_interval[0]:.2f} to {gain.whole_interval[1]:.2f}",
        f"{gain.weights['teacher'] / 1e6:.1f} to {gain.weights['compressed'] / 1e6:.1f}",
        str(gain.threads),
    )


def _precision_facts(result: CompressionResult) -> list[str]:
    """In what precision the metric was found."""
    recipe = Recipe.from_json(result.recipe)
    if precision_told(recipe) == "float32":
        return []
    return [
        "The students' metric is of their recipe's precisions, simulated in PyTorch with weights "
        "rounded to the nearest value; the teacher's is f32's."
    ]


def _training(result: CompressionResult) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for who, report in result.training.items():
        if report is None:
            continue
        rows.append(
            (
                who,
                f"{report['rows']:,}",
                f"{report['held_rows']:,}",
                f"{report['steps']:,} of {report['planned_steps']:,}",
                f"{report['seconds'] / 60:.1f}",
                f"{report['best']:.2f}",
                f"{report['best_step']:,}",
                f"{report['padding']['saved']:.0%}",
                "yes" if report["bf16"] else "no",
                str(report["processes"]),
            )
        )
    return rows


def _plot(result: CompressionResult, gains: Sequence[TargetGain]) -> str:
    """The metric with its interval over FLOPs, and over time for each target."""
    import plotly.graph_objects as graph
    from plotly.subplots import make_subplots

    models = models_of(result)
    axes: list[tuple[str, dict[str, float]]] = [
        ("GFLOP", {who: facts.flops / 1e9 for who, facts in models.items()})
    ]
    axes += [(f"{gain.target}, ms", dict(gain.ms)) for gain in gains]
    figure = make_subplots(rows=1, cols=len(axes), shared_yaxes=True)
    colours = {"teacher": "#64748b", "dense": "#c2410c", "compressed": "#2563a8"}
    for column, (title, places) in enumerate(axes, 1):
        for who, facts in models.items():
            if who not in places:
                continue
            low, high = facts.interval
            spread: dict[str, Any] = {
                "type": "data",
                "symmetric": False,
                "array": [high - facts.metric],
                "arrayminus": [facts.metric - low],
            }
            figure.add_trace(
                graph.Scatter(
                    x=[places[who]],
                    y=[facts.metric],
                    error_y=spread,
                    mode="markers",
                    marker={"size": 11, "color": colours[who]},
                    name=who,
                    legendgroup=who,
                    showlegend=column == 1,
                ),
                row=1,
                col=column,
            )
        figure.update_xaxes(title_text=title, rangemode="tozero", row=1, col=column)
    figure.update_yaxes(title_text=result.before.metric_name, row=1, col=1)
    figure.update_layout(template="plotly_white", height=380, margin={"t": 20})
    html: str = figure.to_html(full_html=False, include_plotlyjs="inline", div_id="models")
    return html
