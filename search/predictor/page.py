"""A predictor on one page: how good it is, where it errs, what it takes work to cost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import pages
from .assessment import Assessment
from .quality import Quality, errors_of
from .transfer import Adapted
from .workload import TERMS

if TYPE_CHECKING:
    from .predictor import LatencyPredictor

__all__ = ["cost_table", "facts", "quality_table", "write_page"]

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def quality_table(found: Assessment) -> Table:
    """(columns, rows) for people: the predictor, then what it is held against; no rows where
    nothing was tried."""
    columns = (
        *("", "Spearman", "Kendall", "error, %", "in 5 %", "in 10 %", "covered, %"),
        *("trained", "tried"),
    )
    if found.quality is None:
        return columns, []
    rows = [_row("predictor", found.quality)]
    rows += [_row(name, one) for name, one in found.others.items()]
    if not found.others:
        rows.append(("simpler ones", *("-",) * 6, "too few", "-"))
    if found.repeats is not None:
        repeats = found.repeats
        rows.append(
            (
                *("measuring again", "-", "-", f"{100 * repeats['mape']:.1f}"),
                *(f"{100 * repeats[name]:.1f}" for name in ("within_5", "within_10")),
                *("-", "-", f"{repeats['n']:.0f}"),
            )
        )
    return columns, rows


def facts(predictor: LatencyPredictor) -> list[str]:
    """What a predictor is, in sentences."""
    model = predictor.model
    source = model.source if isinstance(model, Adapted) else model
    found = [
        f"Of {predictor.setting}.",
        f"Learned from {len(predictor.trained_on)} architectures; the reference workload takes "
        f"{predictor.reference_ms:.3g} ms there.",
    ]
    if predictor.adapted_from is not None:
        found.append(f"Adapted from a predictor of {predictor.adapted_from}.")
    kept = source.share * (model.kept if isinstance(model, Adapted) else 1.0)
    found.append(
        f"{len(source.forests)} forests of {sum(len(one.values) for one in source.forests)} trees "
        f"correct the physical model, by {kept:.0%} of what they say."
        if source.forests
        else "The physical model stands alone: too few measurements for trees, or no LightGBM."
    )
    typical = float(np.median(predictor.familiarity.errors))
    found.append(f"Half of its errors on what it had not seen were below {typical:.1%}.")
    return found


def cost_table(predictor: LatencyPredictor) -> Table:
    """(columns, rows): what the dispatches of each group cost, in the device's own units."""
    model = predictor.model
    ms = predictor.reference_ms
    rows: list[tuple[str, ...]] = []
    for group, cost in model.costs().items():
        each = dict(zip(TERMS, cost, strict=True))
        rows.append(
            (
                group,
                f"{each['launches'] * ms * 1000:.2f}",
                _rate(each["operations"] * ms, 1e3, "GOP/s"),
                *(_rate(each[name] * ms, 1.0, "") for name in ("inputs", "outputs", "activated")),
                _rate(each["held"] * ms, 1.0, "GB/s"),
            )
        )
    columns = ("dispatches", "launch, µs", "operations", "G read/s", "G written/s")
    return (*columns, "G activated/s", "from memory"), rows


def _rate(ms: float, scale: float, unit: str) -> str:
    """How much goes through in a second where one unit takes so many milliseconds."""
    return f"{scale / ms:.4g} {unit}".strip() if ms > 0 else "-"


def write_page(found: Assessment, path: str | os.PathLike[str]) -> Path:
    """Write one self-contained page, whole or not at all. Raises `InputError` for a bad path."""
    outside = [one for one in found.predictions if one.outside]
    setting = found.predictor.setting
    warnings = []
    if setting.emulated:
        warnings.append("These are times of an emulator, not of real silicon.")
    if outside:
        warnings.append(
            f"{len(outside)} of those tried lie outside of what was measured, for example: "
            f"{outside[0].reason}."
        )
    if found.untried:
        warnings.append(found.untried)
    return pages.write_page(
        path,
        "predictor.html",
        title=f"Latency predictor for {setting.device}, {setting.target}",
        warnings=warnings,
        facts=facts(found.predictor),
        quality=quality_table(found),
        costs=cost_table(found.predictor),
        plot=_plot(found) if found.tested else "",
    )


def _row(name: str, one: Quality) -> tuple[str, ...]:
    held = "-" if one.coverage_90 is None else f"{100 * one.coverage_90:.1f}"
    return (
        name,
        f"{one.spearman:.4f}",
        f"{one.kendall:.4f}",
        f"{100 * one.mape:.1f}",
        f"{100 * one.within_5:.1f}",
        f"{100 * one.within_10:.1f}",
        held,
        str(one.n_train),
        str(one.n_test),
    )


def _plot(found: Assessment) -> str:
    """Predicted over measured with its interval, and the error over what was measured."""
    import plotly.graph_objects as graph
    from plotly.subplots import make_subplots

    reference = found.predictor.reference_ms
    measured = [one.typical * reference for one in found.tested]
    predicted = [one.relative * reference for one in found.predictions]
    spread: dict[str, Any] = {
        "type": "data",
        "symmetric": False,
        "array": [(one.high - one.relative) * reference for one in found.predictions],
        "arrayminus": [(one.relative - one.low) * reference for one in found.predictions],
        "thickness": 0.8,
    }
    colours = ["#c2410c" if one.outside else "#2563a8" for one in found.predictions]
    texts = [one.architecture.digest for one in found.tested]
    marker = {"size": 6, "color": colours}
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.1)
    ends = [min(measured) * 0.9, max(measured) * 1.1]
    line = {"color": "#94a3b8", "width": 1}
    figure.add_trace(graph.Scatter(x=ends, y=ends, mode="lines", line=line), row=1, col=1)
    figure.add_trace(
        graph.Scatter(
            x=measured, y=predicted, error_y=spread, mode="markers", marker=marker, text=texts
        ),
        row=1,
        col=1,
    )
    for level in (-10, 10):
        dotted = {**line, "dash": "dot"}
        figure.add_trace(
            graph.Scatter(x=ends, y=[level, level], mode="lines", line=dotted), row=1, col=2
        )
    errors = 100 * errors_of(found.predictions, found.tested)
    figure.add_trace(
        graph.Scatter(x=measured, y=errors, mode="markers", marker=marker, text=texts),
        row=1,
        col=2,
    )
    figure.update_xaxes(title_text="measured, ms", type="log")
    figure.update_yaxes(title_text="predicted, ms", type="log", row=1, col=1)
    figure.update_yaxes(title_text="predicted over measured less 1, %", row=1, col=2)
    figure.update_layout(template="plotly_white", height=440, margin={"t": 20}, showlegend=False)
    html: str = figure.to_html(full_html=False, include_plotlyjs="inline", div_id="predictions")
    return html
