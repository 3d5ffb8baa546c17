"""Charts of a report, from the numbers of `measures`, as the JSON that plotly.js draws: for any page or dashboard.

They are plain documents, not objects of plotly's Python library, which needs a tenth of a second for each
and writes its whole template into it. `plotly.graph_objects.Figure(chart)` makes one.

Plotly takes names for its own markup: every label is escaped and shortened before it enters a chart. Axes of labels
are numbered, so that two labels whose beginnings are alike stay apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tamiz.reports.measures import Curve, Reliability, ThresholdCurve
from tamiz.types import IntArray

__all__ = [
    "Figure",
    "confusion_chart",
    "learning_chart",
    "precision_recall_chart",
    "reliability_chart",
    "roc_chart",
    "speed_chart",
    "threshold_chart",
]

Figure = dict[str, Any]
"""What plotly.js draws: `data`, a list of traces, and `layout`."""
Trace = dict[str, Any]

_LONGEST = 40
_HEIGHT = 420
_NAME_WIDTH, _NAME_HEIGHT = 0.3, 0.05  # of a name, as parts of the chart
_MOST_CELL_TEXTS = 15  # labels; above, numbers in the cells of a matrix cannot be read
# ColorBrewer's Blues in nine classes; plotly.js has another scale of this name.
_BLUES = ("#f7fbff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c", "#08306b")
_DIAGONAL = {"color": "#999", "dash": "dash", "width": 1}
_UNIT = {"range": [-0.02, 1.02], "constrain": "domain"}


def plain(text: str) -> str:
    """Return text that plotly shows as it is, shortened.

    Example:
        >>> plain("<b>a & b")
        '&lt;b&gt;a &amp; b'
    """
    text = " ".join(text.split())
    return escape(text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…", quote=False)


def _figure(
    traces: Sequence[Trace],
    title: str,
    x: str,
    y: str,
    *,
    xaxis: Mapping[str, Any] | None = None,
    yaxis: Mapping[str, Any] | None = None,
    **layout: Any,
) -> Figure:
    usual = {
        "title": {"text": title, "font": {"size": 15}},
        "height": _HEIGHT,
        "margin": {"l": 60, "r": 20, "t": 50, "b": 50},
        "xaxis": {"title": {"text": x}, **(xaxis or {})},
        "yaxis": {"title": {"text": y}, **(yaxis or {})},
    }
    return {"data": list(traces), "layout": {**usual, **layout}}


def _scatter(x: Sequence[float], y: Sequence[float | None], name: str, *, mode: str = "lines", **about: Any) -> Trace:
    return {"type": "scatter", "mode": mode, "x": list(x), "y": list(y), "name": name, **about}


def _diagonal(name: str) -> Trace:
    return _scatter([0, 1], [0, 1], name, line=_DIAGONAL, hoverinfo="skip")


def confusion_chart(matrix: IntArray, labels: Sequence[str], totals: IntArray | None = None) -> Figure:
    """Draw a confusion matrix `(k, k)` as shares of each true label, with counts where there is room.

    Args:
        matrix: examples by true and decided label.
        labels: the `k` labels.
        totals: examples of each label `(k,)`, those without an answer too; by default all are answered.
    """
    totals = matrix.sum(axis=1) if totals is None else totals
    shares = matrix / totals.clip(min=1)[:, None]
    names = [plain(label) for label in labels]
    ticks = {"tickvals": list(range(len(names))), "ticktext": names, "automargin": True}
    trace = {
        "type": "heatmap",
        "z": shares.tolist(),
        "customdata": matrix.tolist(),
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[i / (len(_BLUES) - 1), color] for i, color in enumerate(_BLUES)],
        "hovertemplate": (
            "truth %{y}<br>answer %{x}<br>%{customdata:,} examples<br>%{z:.1%} of the label<extra></extra>"
        ),
        "colorbar": {"tickformat": ".0%"},
    }
    if len(names) <= _MOST_CELL_TEXTS:
        trace |= {"text": matrix.tolist(), "texttemplate": "%{text:,}"}
    axes = {"xaxis": ticks, "yaxis": {**ticks, "autorange": "reversed"}}
    high = max(_HEIGHT, min(1000, 120 + 24 * len(names)))
    return _figure([trace], "Answers by truth", "answer", "truth", **axes, height=high)


def _lines(curves: Sequence[Curve], area: str) -> list[Trace]:
    return [_scatter(c.x.tolist(), c.y.tolist(), f"{plain(c.name)}, {area} {c.area:.3f}") for c in curves]


def roc_chart(curves: Sequence[Curve]) -> Figure:
    """Draw true against false positive rate."""
    traces = [*_lines(curves, "AUC"), _diagonal("chance")]
    return _figure(
        traces, "ROC", "false positive rate", "true positive rate", xaxis=_UNIT, yaxis=_UNIT, showlegend=True
    )


def precision_recall_chart(curves: Sequence[Curve]) -> Figure:
    """Draw precision against recall."""
    traces = _lines(curves, "AP")
    return _figure(traces, "Precision and recall", "recall", "precision", xaxis=_UNIT, yaxis=_UNIT, showlegend=True)


def reliability_chart(found: Mapping[str, Reliability]) -> Figure:
    """Draw the share of right answers against confidence; one line a name, such as before and after calibration."""
    traces = [_diagonal("ideal")]
    for name, reliability in found.items():
        traces.append(
            _scatter(
                [part.confidence for part in reliability.bins],
                [part.frequency for part in reliability.bins],
                f"{plain(name)}, ECE {reliability.ece:.4f}",
                mode="lines+markers",
                customdata=[part.examples for part in reliability.bins],
                hovertemplate="confidence %{x:.3f}<br>right %{y:.3f}<br>%{customdata:,} answers",
            )
        )
    return _figure(traces, "Reliability", "confidence", "share that is right", xaxis=_UNIT, yaxis=_UNIT)


def threshold_chart(curve: ThresholdCurve, chosen: float | None = None) -> Figure:
    """Draw precision, recall and F1 of one label against its threshold, with the threshold in use."""
    parts = {"precision": curve.precision, "recall": curve.recall, "F1": curve.f1}
    x = curve.thresholds.tolist()
    # NaN, which JSON does not know, becomes a gap.
    traces = [_scatter(x, [None if y != y else y for y in values.tolist()], name) for name, values in parts.items()]
    figure = _figure(traces, f"Threshold: {plain(curve.name)}", "threshold", "value", xaxis=_UNIT, yaxis=_UNIT)
    if chosen is not None:
        high = {"xref": "x", "yref": "y domain"}  # whatever part of the axis is shown
        line = {"type": "line", "x0": chosen, "x1": chosen, "y0": 0, "y1": 1, "line": _DIAGONAL}
        note = {"text": f"in use: {chosen:.3f}", "x": chosen, "y": 1, "xanchor": "left", "yanchor": "top"}
        figure["layout"] |= {"shapes": [line | high], "annotations": [note | high | {"showarrow": False}]}
    return figure


def learning_chart(points: Sequence[tuple[int, float]], metric: str) -> Figure:
    """Draw a validation figure against the number of training examples."""
    x, y = [size for size, _ in points], [value for _, value in points]
    trace = _scatter(x, y, metric, mode="lines+markers")
    axis = {"type": "log", "tickvals": x, "ticktext": [f"{size:,}" for size in x]}
    return _figure([trace], "Learning curve", "training examples", metric, xaxis=axis)


def speed_chart(points: Sequence[tuple[str, float, float, float | None]], quality: str) -> Figure:
    """Draw quality against latency; a name that would cover another is shown under the pointer alone.

    Args:
        points: name, median latency in ms, quality and, if known, size in MB.
        quality: name of the metric.
    """
    names = [plain(name) for name, _, _, _ in points]
    places = _text_places([(latency, value) for _, latency, value, _ in points])
    trace = _scatter(
        [latency for _, latency, _, _ in points],
        [value for _, _, value, _ in points],
        quality,
        mode="markers+text",
        text=[name if place else "" for name, place in zip(names, places, strict=True)],
        hovertext=names,
        customdata=["size unknown" if size is None else f"{size:,.2f} MB" for *_, size in points],
        textposition=[place or "top center" for place in places],
        marker={"size": 12},
        hovertemplate="%{hovertext}<br>%{x:.3f} ms<br>%{y:.4f}<br>%{customdata}<extra></extra>",
        cliponaxis=False,  # names of the outermost points stand beyond the axes
    )
    axis = {"type": "log", **_log_ticks([latency for _, latency, _, _ in points])}
    margin = {"l": 60, "r": 60, "t": 70, "b": 50}
    return _figure([trace], "Speed against quality", "ms for a text (median)", quality, xaxis=axis, margin=margin)


def _text_places(points: Sequence[tuple[float, float]]) -> list[str | None]:
    """Return where the name of each point, x on a logarithmic axis, covers none before it; `None`: nowhere."""
    logs, values = [math.log10(x) for x, _ in points], [y for _, y in points]
    wide, high = (max(max(own) - min(own), 1e-9) for own in (logs, values))
    taken: list[tuple[float, float]] = []
    places: list[str | None] = []
    for x, y in zip(logs, values, strict=True):
        for place, shift in (("top center", _NAME_HEIGHT), ("bottom center", -_NAME_HEIGHT)):
            at = (x / wide, y / high + shift)
            if all(abs(at[0] - a) > _NAME_WIDTH or abs(at[1] - b) > _NAME_HEIGHT for a, b in taken):
                taken.append(at)
                places.append(place)
                break
        else:
            places.append(None)
    return places


def _log_ticks(values: Sequence[float]) -> dict[str, Any]:
    """Return ticks at 1, 2 and 5 of each power of ten around the values; plotly's own leave the power out."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    ticks = [float(f"{step}e{power}") for power in range(low, high + 1) for step in (1, 2, 5)]
    return {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
