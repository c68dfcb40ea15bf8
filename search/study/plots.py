"""The plots of a study's page, as HTML that shares one script."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .pareto import front_of, hypervolume
from .result import StudyResult
from .specification import Specification
from .trial import Trial

__all__ = [
    "curves",
    "front_plot",
    "quality",
    "quality_plot",
    "script",
    "search_plot",
    "trials_plot",
]

_LAYOUT: dict[str, Any] = {"template": "plotly_white", "margin": {"t": 20, "r": 10}}
_COLOURS = ("#2563a8", "#c2410c", "#0f9d76", "#8b5cf6", "#64748b", "#be185d")


def front_plot(result: StudyResult) -> str:
    """Accuracy over measured latency, with intervals: what was trained, what was measured with
    inherited weights, the front of each, the teacher, the limit."""
    import plotly.graph_objects as graph

    figure = graph.Figure()
    for trained, name, colour in (
        (True, "front of the trained", "#0f9d76"),
        (False, "front of the not trained, by estimate", "#2563a8"),
    ):
        front = [row for row in result.pareto if row["trained"] is trained]
        figure.add_trace(
            graph.Scatter(
                x=[row["latency_ms"] for row in front],
                y=[_height(row) for row in front],
                mode="lines",
                line={"shape": "hv", "color": colour, "width": 1},
                name=name,
            )
        )
    _add_measured(figure, result)
    _finish(figure, result.specification, _metric(result))
    return _html(figure, "front")


def trials_plot(trials: Mapping[int, Trial], specification: Specification) -> str:
    """Accuracy over latency of the trials, both estimated, and the front of those that may meet
    the specification."""
    import plotly.graph_objects as graph

    figure = graph.Figure()
    judged = [t for t in trials.values() if t.outcome.accuracy is not None and t.finding]
    for feasible, name, colour in (
        (True, "trial, estimated", "#94a3b8"),
        (False, "trial, estimated to miss a limit", "#f1b48a"),
    ):
        some = [t for t in judged if t.outcome.feasible is feasible]
        figure.add_trace(
            graph.Scatter(
                x=[t.outcome.latency for t in some],
                y=[t.outcome.accuracy for t in some],
                text=[f"trial {t.number}" for t in some],
                mode="markers",
                marker={"size": 6, "color": colour},
                name=name,
            )
        )
    front = front_of([t for t in judged if t.outcome.feasible], _point)
    figure.add_trace(
        graph.Scatter(
            x=[t.outcome.latency for t in front],
            y=[t.outcome.accuracy for t in front],
            mode="lines",
            line={"shape": "hv", "color": "#64748b", "width": 1},
            name="estimated front",
        )
    )
    _finish(figure, specification, "estimated accuracy")
    return _html(figure, "trials")


def script() -> str:
    """What the plots of a page have in common, which stands before them."""
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script>"


def _finish(figure: Any, specification: Specification, accuracy: str) -> None:
    if specification.latency_ms is not None:
        limit = specification.latency_ms
        figure.add_vline(x=limit, line={"color": "#c2410c", "dash": "dash"})
        figure.add_annotation(  # on a logarithmic axis places are logarithms, those of lines not
            x=math.log10(limit),
            y=0,  # above, the toolbar would hide it
            yref="paper",
            yanchor="bottom",
            xanchor="left",
            xshift=3,
            text=f"limit {limit:g} ms",
            showarrow=False,
        )
    figure.update_xaxes(title_text="latency, ms", type="log")
    figure.update_yaxes(title_text=accuracy)
    figure.update_layout(height=460, **_LAYOUT)


def quality(result: StudyResult) -> list[tuple[float, float, tuple[float, float], int]]:
    """(predicted, measured, interval of the prediction, trial) of all that was measured."""
    return [
        (
            float(row["predicted_ms"]),
            float(row["latency_ms"]),
            (float(row["predicted_interval"][0]), float(row["predicted_interval"][1])),
            int(row["trial"]),
        )
        for row in result.measured
    ]


def quality_plot(points: Sequence[tuple[float, float, tuple[float, float], int]]) -> str:
    """Predicted over measured latency, with the predictor's intervals."""
    import plotly.graph_objects as graph

    figure = graph.Figure()
    ends = [min(min(p[0], p[1]) for p in points), max(max(p[0], p[1]) for p in points)]
    figure.add_trace(
        graph.Scatter(
            x=ends, y=ends, mode="lines", line={"color": "#cbd5e1"}, name="right", hoverinfo="skip"
        )
    )
    figure.add_trace(
        graph.Scatter(
            x=[p[1] for p in points],
            y=[p[0] for p in points],
            text=[f"trial {p[3]}" for p in points],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [p[2][1] - p[0] for p in points],
                "arrayminus": [p[0] - p[2][0] for p in points],
            },
            mode="markers",
            marker={"size": 9, "color": "#2563a8"},
            name="model",
        )
    )
    span = [math.log10(ends[0]) - 0.1, math.log10(ends[1]) + 0.1]
    figure.update_xaxes(title_text="measured, ms", type="log", range=span)
    figure.update_yaxes(title_text="predicted, ms", type="log", range=span)
    figure.update_layout(height=380, showlegend=False, **_LAYOUT)
    return _html(figure, "quality")


def curves(studies: Sequence[tuple[str, Mapping[int, Trial]]]) -> list[list[float]]:
    """Of each study, the hypervolume of the estimated front after each trial, by one reference:
    the slowest latency and the worst accuracy that any trial has."""
    judged = [t for _, trials in studies for t in trials.values() if t.outcome.feasible]
    if not judged:
        return [[] for _ in studies]
    slowest = max(_point(t)[0] for t in judged)
    worst = min(_point(t)[1] for t in judged)
    reference = (math.log(slowest), worst)
    found = []
    for _, trials in studies:
        points: list[tuple[float, float]] = []
        curve = []
        for number in sorted(trials):
            trial = trials[number]
            if trial.outcome.feasible:
                points.append((math.log(_point(trial)[0]), _point(trial)[1]))
            curve.append(hypervolume(points, reference))
        found.append(curve)
    return found


def search_plot(studies: Sequence[tuple[str, Mapping[int, Trial]]]) -> str:
    """How the front grew, trial by trial, in this study and in those that it is compared with."""
    import plotly.graph_objects as graph

    figure = graph.Figure()
    for number, ((name, _), curve) in enumerate(zip(studies, curves(studies), strict=True)):
        figure.add_trace(
            graph.Scatter(
                x=list(range(1, len(curve) + 1)),
                y=curve,
                mode="lines",
                line={"color": _COLOURS[number % len(_COLOURS)], "shape": "hv"},
                name=name,
            )
        )
    figure.update_xaxes(title_text="trials")
    figure.update_yaxes(title_text="hypervolume (points x ln ms)", rangemode="tozero")
    figure.update_layout(height=340, showlegend=True, **_LAYOUT)
    return _html(figure, "search")


def _add_measured(figure: Any, result: StudyResult) -> None:
    import plotly.graph_objects as graph

    kinds: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
        ("measured, fits", "#0f9d76", lambda r: r["passed"]),
        ("measured, trained, refused", "#c2410c", lambda r: r["trained"] and not r["passed"]),
        ("measured, not trained: estimate", "#2563a8", lambda r: not r["trained"]),
    )
    for name, colour, belongs in kinds:
        rows = [row for row in result.measured if belongs(row)]
        heights = [_height(row) for row in rows]
        spreads = [
            row["accuracy_interval" if row["trained"] else "estimate_interval"] or (height, height)
            for row, height in zip(rows, heights, strict=True)
        ]
        figure.add_trace(
            graph.Scatter(
                x=[row["latency_ms"] for row in rows],
                y=heights,
                text=[f"trial {row['trial']}" for row in rows],
                error_x=_bars(
                    [r["latency_ms"] for r in rows], [r["latency_interval"] for r in rows]
                ),
                error_y=_bars(heights, spreads),
                mode="markers",
                marker={"size": 10, "color": colour},
                name=name,
            )
        )
    teacher = result.teacher
    if teacher is None:
        return
    figure.add_trace(
        graph.Scatter(
            x=[teacher["measured"]["latency_ms"]],
            y=[teacher["metric"]],
            error_x=_bars([teacher["measured"]["latency_ms"]], [teacher["measured"]["interval"]]),
            error_y=_bars([teacher["metric"]], [teacher["interval"]]),
            mode="markers",
            marker={"size": 11, "color": "#64748b", "symbol": "diamond"},
            name="teacher, measured",
        )
    )


def _bars(middles: Sequence[float], intervals: Sequence[Sequence[float]]) -> dict[str, Any]:
    pairs = list(zip(middles, intervals, strict=True))
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - middle for middle, (_, high) in pairs],
        "arrayminus": [middle - low for middle, (low, _) in pairs],
    }


def _point(trial: Trial) -> tuple[float, float]:
    return trial.outcome.latency or 0.0, trial.outcome.accuracy or 0.0


def _height(row: Mapping[str, Any]) -> float:
    return float(row["accuracy"] if row["trained"] else row["estimate"])


def _metric(result: StudyResult) -> str:
    return "accuracy" if result.teacher is None else str(result.teacher["name"])


def _html(figure: Any, name: str) -> str:
    text: str = figure.to_html(full_html=False, include_plotlyjs=False, div_id=name)
    return text
