"""Read report pages as a browser would, and make small samples for them."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import numpy as np
import plotly.graph_objects as go

from tamiz.decision import DecisionRule
from tamiz.metrics import score
from tamiz.model import new_manifest
from tamiz.reports.findings import Contender, Findings, label_counts
from tamiz.reports.mistakes import mistakes
from tamiz.reports.sample import Sample
from tamiz.reports.slices import slice_figures
from tamiz.types import Task

_VOID = {"meta", "br", "wbr", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """A parsed page.

    Attributes:
        elements: name and attributes of every element.
        tables: rows of cells of each table, by the order in the page.
        by_id: the same for tables with an id.
        scripts: content of the script elements.
        text: all text outside of scripts and styles.
        open: elements that were not closed.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.by_id: dict[str, list[list[str]]] = {}
        self.scripts: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements.append((tag, given))
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")
        elif tag == "table":
            self.tables.append([])
            if given.get("id"):
                self.by_id[str(given["id"])] = self.tables[-1]
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts[-1] += data
        elif "style" not in self.open:
            self.text += data
            if "td" in self.open or "th" in self.open:
                self.tables[-1][-1][-1] += data

    @property
    def charts(self) -> dict[str, Any]:
        """Figures by title."""
        data = [json.loads(self.scripts[i]) for i, (_, given) in enumerate(self._of("script")) if given.get("type")]
        return {figure["layout"]["title"]["text"]: figure for figure in data}

    def _of(self, tag: str) -> list[tuple[str, dict[str, str | None]]]:
        return [element for element in self.elements if element[0] == tag]

    def check(self) -> None:
        """Hold against what every page must keep: well formed, no address but its own, plotly once, charts complete."""
        assert self.open == []
        for _, given in self.elements:
            assert not {"src", "srcset", "action", "onerror", "onload"} & given.keys()
            assert str(given.get("href", "#")).startswith("#")
        assert not self._of("link") + self._of("img") + self._of("iframe")
        (policy,) = [g["content"] for _, g in self._of("meta") if g.get("http-equiv") == "Content-Security-Policy"]
        assert str(policy).startswith("default-src 'none'")
        places = [given["id"] for tag, given in self.elements if tag == "div" and given.get("class") == "chart"]
        data = [given["id"] for _, given in self._of("script") if given.get("type") == "application/json"]
        assert sorted(data) == sorted(f"{place}-data" for place in places)
        assert len(self.scripts) == (len(places) + 2 if places else 0)
        assert sum("plotly.js v" in script for script in self.scripts) == bool(places)
        for figure in self.charts.values():
            go.Figure(figure)  # which refuses what plotly does not know


def sample_of(task: Task, k: int = 3, n: int = 300, *, seed: int = 0, **about: Any) -> Sample:
    """Make examples whose labels are drawn from the probabilities that a model is made to give."""
    rng = np.random.default_rng(seed)
    k = 2 if task is Task.BINARY else k
    p = rng.random((n, k)) ** 3
    if task is Task.MULTI_LABEL:
        targets: Any = rng.random((n, k)) < p
    else:
        p /= p.sum(axis=1, keepdims=True)
        targets = np.array([rng.choice(k, p=row) for row in p])
    given = {
        "texts": [f"text {i} " + "word " * int(rng.integers(1, 30)) for i in range(n)],
        "row_ids": [f"r{i}" for i in range(n)],
        "labels": tuple(f"label {j}" for j in range(k)),
        **about,
    }
    return Sample(
        targets=targets, raw=p**0.5, probabilities=p, decided=DecisionRule(task).decide(p), task=task, **given
    )


def findings_of(sample: Sample, **about: Any) -> Findings:
    """Return what a report of the sample says, with one candidate."""
    figures = score(sample.targets, sample.probabilities, sample.decided, task=sample.task, labels=sample.labels)
    metrics = {f"test_{name}": value for name, value in figures.items()}
    metrics |= {"val_f1_macro": 0.5, "latency_p50_ms": 0.25, "size_mb": 1.5}
    manifest = new_manifest(
        name="topics", task=sample.task, labels=sample.labels, family="linear", candidate="linear", metrics=metrics
    )
    return Findings(
        manifest=manifest,
        version="7",
        sample=sample,
        side="test",
        intervals={"test_f1_macro": (0.25, 0.75)},
        sizes={"test": len(sample)},
        counts={"test": label_counts(sample.targets, sample.labels)},
        slices=slice_figures(sample),
        mistakes=mistakes(sample),
        leaderboard=[Contender("linear", metrics)],
        metric="val_f1_macro",
        **about,
    )
