"""The findings as one HTML file that needs no network: plotly.js stands in it once, every text is escaped."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from tamiz.audit.findings import Plot
from tamiz.audit.report import Report
from tamiz.extras import require

__all__ = ["write_page"]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<title>Data of {{ report.project }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: .5rem 0 1.5rem } caption { text-align: left; font-weight: 600 }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums } td { overflow-wrap: anywhere }
.severity { border-radius: .3rem; padding: .1rem .5rem; color: #fff; font-size: 85% }
.ok { background: #2a7d4f } .note { background: #2563a8 } .warning { background: #b3401c }
section { border-top: 1px solid #ccc; margin-top: 2rem } .plot { max-width: 55rem }
</style>
{% if plotly %}<script>{{ plotly }}</script>{% endif %}
</head>
<body>
<h1>Data of {{ report.project }}</h1>
<table>
{% for finding in report.findings %}
<tr><td><span class="severity {{ finding.severity }}">{{ finding.severity }}</span></td>
<td><a href="#f{{ loop.index }}">{{ finding.name }}</a></td><td>{{ finding.summary }}</td></tr>
{% endfor %}
</table>
{% for finding in report.findings %}
<section id="f{{ loop.index }}">
<h2>{{ finding.name }} <span class="severity {{ finding.severity }}">{{ finding.severity }}</span></h2>
<p>{{ finding.summary }}</p>
{% if finding.details %}<ul>{% for detail in finding.details %}<li>{{ detail }}</li>{% endfor %}</ul>{% endif %}
{% for plot in plots[loop.index0] %}<div class="plot">{{ plot }}</div>{% endfor %}
{% for table in finding.tables %}
<table><caption>{{ table.title }}</caption>
<tr>{% for column in table.columns %}<th>{{ column }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr>
{%- for cell in row %}<td{% if cell is number %} class="number"{% endif %}>{{ cell }}</td>{% endfor -%}
</tr>
{% endfor %}</table>
{% endfor %}
</section>
{% endfor %}
</body>
</html>
"""


def write_page(report: Report, path: Path) -> None:
    """Write a report as one HTML file.

    Raises:
        MissingExtraError: plotly or Jinja2 is not installed.
    """
    markup = require("markupsafe", extra="train").Markup
    environment = require("jinja2", extra="train").Environment(autoescape=True, trim_blocks=True)
    # Plotly writes "<", ">" and "/" in a figure's JSON as escapes, so nothing in it can end the script.
    plots = [
        [markup(_html(plot, f"plot-{place}-{number}")) for number, plot in enumerate(finding.plots)]
        for place, finding in enumerate(report.findings)
    ]
    library = require("plotly.offline", extra="train").get_plotlyjs() if any(plots) else ""
    html = environment.from_string(_PAGE).render(report=report, plots=plots, plotly=markup(library))
    path.write_text(html, encoding="utf-8", errors="replace")


def _html(plot: Plot, div_id: str) -> str:
    from plotly.io import to_html

    return str(
        to_html(
            _figure(plot),
            full_html=False,
            include_plotlyjs=False,
            div_id=div_id,
            default_height=340,
            config={"displaylogo": False, "responsive": True},
        )
    )


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
        showlegend=len(plot.series) > 1,
        margin={"l": 60, "r": 20, "t": 50, "b": 60},
    )
    # Labels such as "2020" are names, not numbers.
    names = bool(x) and isinstance(x[0], str) and plot.kind == "bar"
    figure.update_xaxes(title=plot.x_title, **({"type": "category"} if names else {}))
    figure.update_yaxes(title=plot.y_title, rangemode="tozero", type="log" if plot.log else "linear")
    return figure
