"""The findings as one HTML file that needs no network: plotly.js stands in it once, every text is escaped."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from tamiz.audit.findings import Plot
from tamiz.audit.report import Report
from tamiz.extras import require
from tamiz.reports.shell import Places, render

__all__ = ["write_page"]

_HEIGHT = 340


def write_page(report: Report, path: Path) -> None:
    """Write a report as one HTML file.

    Raises:
        MissingExtraError: plotly or Jinja2 is not installed.
    """
    require("plotly", extra="train")
    places = Places()
    plots = [[places.draw(_figure(plot)) for plot in finding.plots] for finding in report.findings]
    page = render("check.html", title=f"Data of {report.project}", places=places, findings=report.findings, plots=plots)
    path.write_text(page, encoding="utf-8", errors="replace")


def _figure(plot: Plot) -> Any:
    """Return the plot as plotly has it; names are escaped because plotly reads tags in them."""
    from plotly import graph_objects as graph

    x = [escape(value) if isinstance(value, str) else value for value in plot.x]
    figure = graph.Figure()
    for name, values in plot.series.items():
        trace = graph.Bar if plot.kind == "bar" else graph.Scatter
        figure.add_trace(trace(x=x, y=list(values), name=escape(name)))
    figure.update_layout(
        title=escape(plot.title),
        template="plotly_white",
        height=_HEIGHT,
        showlegend=len(plot.series) > 1,
        margin={"l": 60, "r": 20, "t": 50, "b": 60},
    )
    # Labels such as "2020" are names, not numbers.
    names = bool(x) and isinstance(x[0], str) and plot.kind == "bar"
    figure.update_xaxes(title=plot.x_title, **({"type": "category"} if names else {}))
    figure.update_yaxes(title=plot.y_title, rangemode="tozero", type="log" if plot.log else "linear")
    return figure
