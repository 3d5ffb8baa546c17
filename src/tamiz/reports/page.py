"""Reports as self-contained HTML pages: figures, charts and tables in one file that asks the network for nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tamiz.metrics import confusion
from tamiz.reports import charts
from tamiz.reports.findings import Contender, Findings, figure_rows
from tamiz.reports.measures import (
    Reliability,
    label_figures,
    precision_recall_curves,
    reliability,
    roc_curves,
    threshold_curves,
    top_confusions,
)
from tamiz.reports.sample import Sample
from tamiz.reports.shell import Places, render
from tamiz.reports.slices import left_out
from tamiz.types import Task

__all__ = ["Listing", "compare_page", "figures_page", "report_page"]

_MOST_MATRIX_LABELS = 40  # above, a table of the top confusions stands alone
_MOST_TABLE_LABELS = 200
_MOST_MISTAKES = 50
_USUAL = ("accuracy", "subset_accuracy", "f1_macro", "f1_micro", "roc_auc_macro", "log_loss", "ece")
_COSTS = ("fit_seconds", "latency_p50_ms", "latency_p99_ms", "texts_per_s", "size_mb")


class Listing(NamedTuple):
    """A table as shown: title, headings, rows of cells."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[object]]


def report_page(findings: Findings) -> str:
    """Return the report of one version as HTML."""
    sample = findings.sample
    places = Places()
    manifest = findings.manifest
    about: dict[str, Any] = {
        "findings": findings,
        "manifest": manifest,
        "sections": [
            (side, figure_rows(manifest.metrics, findings.intervals, prefix))
            for side, prefix in (("test", "test_"), ("validation", "val_"))
        ],
        "costs": [(name, manifest.metrics[name]) for name in _COSTS if name in manifest.metrics],
        "labels": manifest.labels[:_MOST_TABLE_LABELS],
        "more_labels": max(0, len(manifest.labels) - _MOST_TABLE_LABELS),
        "slice_metrics": list(dict.fromkeys(name for part in findings.slices for name in part.figures)),
        "mistakes": findings.mistakes[:_MOST_MISTAKES],
        "leaderboard": _leaderboard(findings.leaderboard, findings.metric),
        "speed": places.draw(_speed(findings.leaderboard, findings.metric)),
        "learning": places.draw(charts.learning_chart(findings.learning, findings.metric))
        if len(findings.learning) > 1
        else None,
        **(_sample_parts(sample, findings, places) if sample is not None else {}),
    }
    return render("report.html", title=f"{manifest.name}, version {findings.version}", places=places, **about)


def _sample_parts(sample: Sample, findings: Findings, places: Places) -> dict[str, Any]:
    """Return what can be said with examples at hand."""
    single = sample.task is not Task.MULTI_LABEL
    k = len(sample.labels)
    matrix = confusion(sample.targets, sample.decided, k)
    calibrated = findings.manifest.calibration.get("method", "none") != "none"
    found = {"after calibration" if calibrated else "not calibrated": reliability(sample)}
    if calibrated:
        found = {"before calibration": reliability(sample, calibrated=False), **found}
    roc, precision_recall = roc_curves(sample), precision_recall_curves(sample)
    return {
        "confusion": places.draw(
            charts.confusion_chart(matrix, sample.labels, np.bincount(sample.targets, minlength=k))
        )
        if single and k <= _MOST_MATRIX_LABELS
        else None,
        "confusions": top_confusions(sample) if single and k > 2 else [],
        "abstained": int((sample.decided < 0).sum()) if single else 0,
        "label_rows": _label_rows(sample, findings),
        "slices_left_out": left_out(sample),
        "roc": places.draw(charts.roc_chart(roc)) if roc else None,
        "precision_recall": places.draw(charts.precision_recall_chart(precision_recall)) if precision_recall else None,
        "reliability": places.draw(charts.reliability_chart(found)),
        "thresholds": [
            places.draw(charts.threshold_chart(curve, _chosen(findings, i)))
            for i, curve in enumerate(threshold_curves(sample))
        ],
    }


def _label_rows(sample: Sample, findings: Findings) -> list[dict[str, Any]]:
    rows = label_figures(sample)
    if sample.task is Task.MULTI_LABEL:
        thresholds = findings.manifest.rule.get("thresholds") or [0.5] * len(rows)
        rows = [{**row, "threshold": threshold} for row, threshold in zip(rows, thresholds, strict=True)]
    if sample.task is Task.MULTI_LABEL:
        cells = confusion(sample.targets, sample.decided, len(sample.labels))
        rows = [{**row, "cells": cell.ravel().tolist()} for row, cell in zip(rows, cells, strict=True)]
    return sorted(rows, key=lambda row: -row["support"])[:_MOST_TABLE_LABELS]


def _chosen(findings: Findings, curve: int) -> float | None:
    """Return the threshold in use for a curve; the first curve of a multi-label task is of all labels together."""
    rule = findings.manifest.rule
    thresholds = rule.get("thresholds")
    if thresholds is None:
        return 0.5
    if findings.manifest.task is Task.BINARY:
        return float(thresholds[0])
    return float(thresholds[curve - 1]) if curve else None


def compare_page(
    name: str, contenders: Sequence[Contender], metric: str, curves: Mapping[str, Reliability] | None = None
) -> str:
    """Return a page that compares candidates and versions.

    Args:
        name: name of the project.
        contenders: what is compared, best first.
        metric: what they are sorted by.
        curves: reliability of those that have one, by name.
    """
    places = Places()
    about = {
        "leaderboard": _leaderboard(contenders, metric),
        "speed": places.draw(_speed(contenders, metric)),
        "reliability": places.draw(charts.reliability_chart(curves)) if curves else None,
    }
    return render("compare.html", title=f"{name}: candidates and versions", places=places, **about)


def figures_page(title: str, note: str, tables: Sequence[Listing], figures: Sequence[charts.Figure]) -> str:
    """Return a page of tables and figures.

    Args:
        title: heading of the page.
        note: a sentence below it.
        tables: what stands before the figures.
        figures: figures as the JSON that plotly draws, in order.
    """
    places = Places()
    drawn = [places.draw(figure) for figure in figures]
    return render("figures.html", title=title, places=places, note=note, tables=tables, drawn=drawn)


def _leaderboard(contenders: Sequence[Contender], metric: str) -> dict[str, Any]:
    """Return headings and rows of cells, each a value with its interval."""
    wanted = [metric, *(f"{p}{n}" for p in ("val_", "test_") for n in _USUAL), *_COSTS]
    names = [n for n in dict.fromkeys(wanted) if any(n in c.metrics for c in contenders)]
    rows = [(c, [(c.metrics.get(name), c.intervals.get(name)) for name in names]) for c in contenders]
    return {"names": names, "rows": rows, "versions": any(c.version for c in contenders)}


def _speed(contenders: Sequence[Contender], metric: str) -> charts.Figure | None:
    quality = metric if any(metric in c.metrics for c in contenders) and metric not in _COSTS else "val_f1_macro"
    points = [
        (_title(c), c.metrics["latency_p50_ms"], c.metrics[quality], c.metrics.get("size_mb"))
        for c in contenders
        if quality in c.metrics and "latency_p50_ms" in c.metrics
    ]
    return charts.speed_chart(points, quality) if points else None


def _title(contender: Contender) -> str:
    return contender.name + (f" (version {contender.version})" if contender.version else "")
