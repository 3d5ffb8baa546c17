"""Missing values, columns that give the label away, label counts and how labels change over time."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

import numpy as np
import polars as pl

from tamiz.audit.findings import Finding, Plot, Severity, Table
from tamiz.audit.rows import Rows, missing_by_column, sample_columns
from tamiz.config import Project
from tamiz.data.lake import Lake
from tamiz.data.leaks import label_warnings, leak_warnings
from tamiz.data.profiles import Profile, profile
from tamiz.errors import counted

__all__ = ["giveaway_finding", "labels_finding", "missing_finding", "trend_finding"]

_MUCH_MISSING = 0.05
_FEW_EXAMPLES = 10
_UNEVEN = 10
_SAMPLE_ROWS = 10_000
_SHOWN_LABELS = 40
_PLOTTED_LABELS = 8
_LEAST_DATED = 50
_CLEAR_P = 0.001
_WEAK, _STRONG = 0.1, 0.3  # small and medium effect, Cohen (1988)


def missing_finding(lake: Lake, project: Project) -> Finding:
    """Count missing values by column; those of the columns in use matter."""
    missing, rows = missing_by_column(lake)
    data = project.data
    used = {name for name in (data.text, data.label, data.group, data.time) if name is not None}
    shares = {name: n / rows if rows else 0.0 for name, n in missing.items()}
    severity = Severity.OK
    if any(shares[name] for name in used & set(shares)):
        severity = Severity.NOTE
    if any(shares[name] > _MUCH_MISSING for name in used & set(shares)):
        severity = Severity.WARNING
    lacking = [f"{name} {shares[name]:.1%}" for name in missing if name in used and missing[name]]
    said = f"missing: {', '.join(lacking)}" if lacking else "no used column lacks a value"
    cells = [(name, "yes" if name in used else "", n, round(shares[name], 4)) for name, n in missing.items()]
    plot = Plot("Missing values", "bar", tuple(missing), {"share": tuple(shares.values())}, y_title="share of rows")
    return Finding(
        "missing values",
        severity,
        f"{counted(rows, 'row')}; {said}",
        figures={"rows": rows, "missing": missing},
        tables=(Table("Missing values by column", ("column", "used", "missing", "share"), tuple(cells)),),
        plots=(plot,) if any(missing.values()) else (),
    )


def giveaway_finding(lake: Lake, project: Project) -> Finding:
    """Look for columns from which the label can be read off, in the first rows."""
    columns = {name: profile(name, raw) for name, raw in sample_columns(lake, _SAMPLE_ROWS)}
    label = columns[project.data.label]
    others = [column for name, column in columns.items() if name not in (project.data.label, project.data.text)]
    warnings = leak_warnings(others, label)
    given = counted(len(warnings), "column", ("gives", "give")) if warnings else "no column gives"
    summary = f"{given} the label away"
    return Finding(
        "giveaways",
        Severity.NOTE if warnings else Severity.OK,  # Tamiz learns from the text alone
        f"{summary} (first {counted(len(label.values), 'row')})",
        details=tuple(warnings),
        figures={"columns": len(warnings), "rows": len(label.values)},
    )


def labels_finding(rows: Rows, project: Project) -> Finding:
    """Count labels; rare ones, uneven counts and spellings that differ in case alone matter."""
    counts = Counter(label for labels in rows.labels for label in labels or ())
    values = tuple(rows.labels)
    unlabeled = sum(labels is None for labels in values)
    details = label_warnings(Profile(project.data.label, "list", values), counts, complete=True)
    rare = sorted(label for label, n in counts.items() if n < _FEW_EXAMPLES)
    ratio = max(counts.values(), default=0) / min(counts.values(), default=1)
    spelled = any("differ only" in detail for detail in details)
    if rare:
        details.append(
            f"{counted(len(rare), 'label', ('has', 'have'))} fewer than {_FEW_EXAMPLES} examples: too few to learn or "
            "to measure"
        )
    if ratio > _UNEVEN:
        details.append(
            f"the most frequent label has {ratio:.0f} times the examples of the rarest; look at macro figures"
        )
    severity = Severity.NOTE if ratio > _UNEVEN or unlabeled else Severity.OK
    severity = Severity.WARNING if rare or spelled or len(counts) < 2 else severity
    common = counts.most_common(_SHOWN_LABELS)
    labelled = len(rows) - unlabeled
    cells = tuple((label, n, round(n / labelled, 4)) for label, n in common)
    bars = {"examples": tuple(n for _, n in common)}
    plot = Plot("Examples by label", "bar", tuple(dict(common)), bars, y_title="examples")
    return Finding(
        "labels",
        severity,
        f"{counted(len(counts), 'label')}, most to fewest examples {ratio:{',.0f' if ratio >= 10 else '.1f'}} to 1"
        + (f"; {counted(unlabeled, 'row')} without" * bool(unlabeled)),
        details=tuple(details),
        figures={"counts": dict(counts), "unlabeled": unlabeled, "ratio": ratio, "rare": rare},
        tables=(Table(f"Labels (of {counted(labelled, 'labelled row')})", ("label", "examples", "share"), cells),),
        plots=(plot,) if common else (),
    )


def trend_finding(rows: Rows, project: Project) -> Finding | None:
    """Show rows and shares of labels over time, and whether the shares of early and late rows differ.

    Early and late are the halves by time. Their difference is measured by Cramer's V, whatever the number of rows; the
    chi-squared test says whether it could be chance.

    Source: Cramer (1946), Mathematical Methods of Statistics, section 21.9; Cohen (1988), Statistical Power Analysis.
    """
    if project.data.time is None:
        return None
    dated = pl.DataFrame(
        {"at": range(len(rows)), "time": rows.times}, schema={"at": pl.Int64, "time": pl.Datetime("us", "UTC")}
    )
    dated = dated.drop_nulls("time")
    undated = len(rows) - len(dated)
    pairs = rows.label_pairs().join(dated, on="at").sort("time", "at")
    details = []
    if undated:
        details.append(
            f"{counted(undated, 'row', ('has', 'have'))} no time, "
            f"{rows.unread_times:,} of them one that cannot be understood"
        )
    if len(dated) < _LEAST_DATED or dated["time"].n_unique() < 2:
        summary = f"{counted(len(dated), 'row')} with a time: too few for a trend"
        if len(dated) >= _LEAST_DATED:
            summary = f"{counted(len(dated), 'row')} of one and the same time: no trend"
        return Finding("time", Severity.NOTE, summary, details=tuple(details))
    v, p = _drift(pairs)
    severity = Severity.OK
    if p < _CLEAR_P and v >= _WEAK:
        severity = Severity.WARNING if v >= _STRONG else Severity.NOTE
    first, last = (_day(dated["time"].min()), _day(dated["time"].max()))
    if severity is not Severity.OK:
        details.insert(0, "labels come in other shares early and late; split.by: time measures how a model ages")
    return Finding(
        "time",
        severity,
        f"{first} to {last}; shares of labels early and late: Cramer's V {v:.2f}" + (f", p {p:.1g}" * (p < _CLEAR_P)),
        details=tuple(details),
        figures={"cramers_v": v, "p": p, "first": first, "last": last, "undated": undated},
        plots=_trend_plots(dated, pairs),
    )


def _day(time: object) -> str:
    return time.date().isoformat() if isinstance(time, datetime) else str(time)


def _drift(pairs: pl.DataFrame) -> tuple[float, float]:
    """Return Cramer's V and p of label by half, halves cut between different times."""
    from scipy.stats import chi2_contingency

    if pairs.is_empty():  # no dated row has a label
        return 0.0, 1.0
    middle = pairs["time"][len(pairs) // 2]
    late = pairs["time"] >= middle
    if late.all():
        late = pairs["time"] > middle
    table = pairs.with_columns(late=late).group_by("label").agg(pl.col("late").sum(), n=pl.len()).sort("label")
    counts = np.stack([table["late"].to_numpy(), (table["n"] - table["late"]).to_numpy()])
    if counts.shape[1] < 2 or not counts.sum(axis=1).all():
        return 0.0, 1.0
    test = chi2_contingency(counts, correction=False)
    return float(np.sqrt(test.statistic / counts.sum())), float(test.pvalue)


def _trend_plots(dated: pl.DataFrame, pairs: pl.DataFrame) -> tuple[Plot, ...]:
    span = (dated["time"].max() - dated["time"].min()).days  # type: ignore[operator, union-attr]
    every = next((e for e, days in (("1d", 60), ("1w", 400), ("1mo", 2000), ("1q", 6000)) if span <= days), "1y")
    names = {"1d": "day", "1w": "week", "1mo": "month", "1q": "quarter", "1y": "year"}
    period = pl.col("time").dt.truncate(every).dt.strftime("%Y-%m-%d").alias("period")
    rows = dated.group_by(period).len().sort("period")
    x = tuple(rows["period"].to_list())
    common = pairs["label"].value_counts().sort("count", "label", descending=[True, False])["label"][:_PLOTTED_LABELS]
    by_label = pairs.group_by(period, "label").len()
    total = dict(pairs.group_by(period).len().iter_rows())
    found = {(when, label): n for when, label, n in by_label.iter_rows()}
    shares = {label: tuple(found.get((when, label), 0) / total.get(when, 1) for when in x) for label in common}
    about = f"by {names[every]}"
    return (
        Plot(f"Rows {about}", "bar", x, {"rows": tuple(rows["len"].to_list())}, y_title="rows"),
        Plot(f"Shares of labels {about}", "line", x, shares, y_title="share"),
    )
