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


def _figure(plot: Plot) -> dict[str, Any]:
    """Return the plot as plotly draws it; names are escaped because plotly reads tags in them."""
    x = [escape(value) if isinstance(value, str) else value for value in plot.x]
    # Labels such as "2020" are names, not numbers.
    names = bool(x) and isinstance(x[0], str) and plot.kind == "bar"
    layout = {
        "title": {"text": escape(plot.title)},
        "height": _HEIGHT,
        "showlegend": len(plot.series) > 1,
        "margin": {"l": 60, "r": 20, "t": 50, "b": 60},
        "xaxis": {"title": {"text": plot.x_title}, **({"type": "category"} if names else {})},
        "yaxis": {"title": {"text": plot.y_title}, "rangemode": "tozero", "type": "log" if plot.log else "linear"},
    }
    kind = "bar" if plot.kind == "bar" else "scatter"
    traces = [{"type": kind, "x": x, "y": list(y), "name": escape(name)} for name, y in plot.series.items()]
    return {"data": traces, "layout": layout}
