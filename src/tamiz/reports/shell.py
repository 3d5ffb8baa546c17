"""What all pages share: templates, and charts that plotly draws from JSON in the page itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from html import unescape
from typing import Any, NamedTuple

from pydantic_core import to_json

from tamiz.extras import require

__all__ = ["Chart", "Places", "render"]


class Chart(NamedTuple):
    """A chart, the place in the page it is drawn at, and its title, for those who cannot see it."""

    id: str
    data: str
    title: str


class Places:
    """Number the charts of a page."""

    def __init__(self) -> None:
        self.made: list[Chart] = []

    def draw(self, figure: Mapping[str, Any] | None) -> Chart | None:
        """Keep a figure, as the JSON that plotly draws, for the end of the page; return what stands in its place."""
        if figure is None:
            return None
        title = unescape(figure["layout"].get("title", {}).get("text", ""))  # plotly reads tags in it
        chart = Chart(f"chart-{len(self.made)}", _in_script(to_json(figure, inf_nan_mode="null").decode()), title)
        self.made.append(chart)
        return chart


def render(template: str, *, title: str, places: Places, **about: Any) -> str:
    """Return a page that asks the network for nothing; everything in `about` is escaped.

    Args:
        template: file in `templates`.
        title: of the page.
        places: its charts.
        about: what else the template names.

    Raises:
        MissingExtraError: plotly or Jinja2 is not installed.
    """
    script, look = ("", "") if not places.made else _plotly()
    page = _environment().get_template(template)
    return str(page.render(title=title, charts=places.made, plotly_js=script, look=look, **about))


@cache
def _plotly() -> tuple[str, str]:
    """Return plotly.js, and the look of the charts as JSON."""
    script = require("plotly.offline", extra="train").get_plotlyjs().replace("</script", "<\\/script")
    look = require("plotly.io", extra="train").templates["plotly_white"].to_plotly_json()
    return script, _in_script(json.dumps(look))


def _in_script(data: str) -> str:
    """Return JSON that cannot end the script element it stands in."""
    return data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _environment() -> Any:
    jinja2 = require("jinja2", extra="train")
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("tamiz.reports", "templates"),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["figure"] = _number
    made.filters["interval"] = lambda bounds: "" if bounds is None else f"{bounds[0]:.4f} – {bounds[1]:.4f}"
    made.filters["short"] = _short
    made.filters["cell"] = lambda value: f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"
    return made


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.1f}"


def _short(value: object, limit: int = 60) -> str:
    text = value if isinstance(value, str) else json.dumps(_rounded(value), ensure_ascii=False, default=str)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _rounded(value: object) -> object:
    """Return a record with its fractions cut to four places, for the eye."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, (list, tuple)) else value
