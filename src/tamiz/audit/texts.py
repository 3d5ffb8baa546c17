"""Lengths and languages of the texts, repeated texts, and equal texts with different labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tamiz.audit.findings import Finding, Plot, Severity, Table
from tamiz.audit.rows import Rows
from tamiz.errors import counted
from tamiz.extras import require

__all__ = ["conflicts_finding", "duplicates_finding", "languages_finding", "lengths_finding"]

_PERCENTILES = (0, 1, 5, 25, 50, 75, 95, 99, 100)
_FAR = 3.0
_BARS = 40
_LANGUAGE_SAMPLE = 500
_LEAST_LETTERS = 20
_MOST_CHARACTERS = 1_000
_LEAST_SURE = 0.5
_UNSURE = "und"  # undetermined, of ISO 639-2
_ONE_LANGUAGE = 0.95
_MANY_REPEATS = 0.05
_MANY_CONFLICTS = 0.005
_SHOWN = 20
_EXCERPT = 200


def lengths_finding(rows: Rows) -> Finding:
    """Measure texts in characters and words; empty texts and lengths far from the rest matter.

    Far is more than three interquartile ranges beyond the quartiles, on the logarithmic scale.

    Source: Tukey (1977), Exploratory Data Analysis (outer fences).
    """
    frame = pl.DataFrame({"text": rows.texts}, schema={"text": pl.String})
    sizes = frame.select(
        characters=pl.col("text").str.len_chars(),
        words=pl.col("text").str.count_matches(r"\S+"),
    )
    words = sizes["words"].to_numpy().astype(np.float64)
    empty = int((words == 0).sum())
    outliers = _far(words[words > 0])
    severity = (
        Severity.WARNING if empty > _MANY_REPEATS * len(rows) else Severity.NOTE if empty or outliers else Severity.OK
    )
    percentiles: dict[str, list[int]] = {
        name: [round(float(value)) for value in np.percentile(sizes[name].to_numpy(), _PERCENTILES)]
        if len(rows)
        else []
        for name in sizes.columns
    }
    heads = ("min", *(f"{p} %" for p in _PERCENTILES[1:-1]), "max")
    notable = [f"{empty:,} empty"] * bool(empty) + [f"{outliers:,} far from the rest"] * bool(outliers)
    cells: tuple[tuple[str | int, ...], ...] = tuple((name, *values) for name, values in percentiles.items())
    return Finding(
        "lengths",
        severity,
        f"median {np.median(words):.0f} words" * bool(len(rows)) + "".join(f"; {one}" for one in notable),
        figures={"empty": empty, "outliers": outliers, "percentiles": percentiles},
        tables=(Table("Length of the texts", ("unit", *heads), cells),),
        plots=_length_plots(words),
    )


def _far(words: NDArray[np.float64]) -> int:
    if not len(words):
        return 0
    logs = np.log(words)
    low, high = np.percentile(logs, [25, 75])
    fence = _FAR * max(high - low, np.log(2) / 2)  # texts of nearly one length have no spread to speak of
    return int(((logs < low - fence) | (logs > high + fence)).sum())


def _length_plots(words: NDArray[np.float64]) -> tuple[Plot, ...]:
    if not len(words):
        return ()
    counts, edges = np.histogram(words, _BARS, (0.0, max(float(np.percentile(words, 99)), 1.0)))
    middles = tuple(float(x) for x in (edges[1:] + edges[:-1]) / 2)
    series = {"texts": tuple(counts.tolist())}
    return (Plot("Words a text (up to the 99th percentile)", "bar", middles, series, "texts", "words"),)


def languages_finding(rows: Rows, *, seed: int) -> Finding:
    """Guess the languages of a random sample; a mixture is worth a note, for guesses on short texts are weak."""
    rng = np.random.default_rng(seed)
    sample = rng.permutation(len(rows))[:_LANGUAGE_SAMPLE]
    guesses = Counter(_language(rows.texts[at]) for at in sorted(sample.tolist()))
    unknown = guesses.pop("", 0)
    told = guesses.total()
    common = guesses.most_common()
    main = common[0][1] / told if told else 1.0
    shown = ", ".join(f"{name} {n / told:.1%}" for name, n in common[:4])
    looked_at = f"sample of {counted(len(sample), 'text')}, {unknown:,} too short or odd to tell"
    summary = f"{shown or 'none could be told'} ({looked_at})"
    return Finding(
        "languages",
        Severity.OK if main >= _ONE_LANGUAGE else Severity.NOTE,
        summary,
        details=() if main >= _ONE_LANGUAGE else ("several languages; stop words and stemming know one at a time",),
        figures={"sample": len(sample), "unknown": unknown, "languages": dict(common)},
        tables=(Table("Languages (ISO 639-1)", ("language", "texts", "share"), _shares(common, told)),),
        plots=(Plot("Languages", "bar", tuple(dict(common)), {"texts": tuple(n for _, n in common)}, y_title="texts"),)
        if common
        else (),
    )


def _shares(common: Sequence[tuple[str, int]], total: int) -> tuple[tuple[str, int, float], ...]:
    return tuple((name, n, round(n / total, 4)) for name, n in common)


def _language(text: str) -> str:
    """Return the code of the likeliest language, nothing where there are too few letters to tell or none is likely."""
    text = text[:_MOST_CHARACTERS]
    if sum(map(str.isalpha, text)) < _LEAST_LETTERS:
        return ""
    code: str = _identifier().classify(text)[0]
    return "" if code == _UNSURE else code


@cache
def _identifier() -> Any:
    """Return the guesser of languages that have a code of two letters; it takes most of a second to load."""
    langid = require("py3langid.langid", extra="train")
    found = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True, min_confidence=_LEAST_SURE)
    found.set_languages([code for code in found.labels if len(code) == 2])
    return found


def duplicates_finding(rows: Rows, near: NDArray[np.int64]) -> Finding:
    """Count repeats of texts, equal but for case and space, and near-duplicates beyond these.

    Args:
        rows: the rows.
        near: cluster of near-duplicates of each row, `(n,)`.
    """
    frame = _present(rows, near)
    exact = len(frame) - frame["key"].n_unique()
    # A cluster of `m` different texts holds `m - 1` near-repeats.
    close = frame["key"].n_unique() - frame["near"].n_unique()
    share = (exact + close) / max(len(frame), 1)
    severity = Severity.OK if not exact + close else Severity.WARNING if share >= _MANY_REPEATS else Severity.NOTE
    details = ["cleaning keeps the first of equal texts; the split keeps near-duplicates on one side"] if share else []
    groups = frame.group_by("near").agg(pl.len(), pl.col("at").first()).filter(pl.col("len") > 1)
    largest = groups.sort("len", "at", descending=[True, False]).head(_SHOWN)
    cells = tuple((n, rows.ids[at], rows.texts[at][:_EXCERPT]) for _, n, at in largest.iter_rows())
    return Finding(
        "duplicates",
        severity,
        f"{counted(exact, 'text', ('repeats', 'repeat'))} another, {close:,} nearly ({share:.1%} of the texts)",
        details=tuple(details),
        figures={"exact": exact, "near": close, "share": share},
        tables=(Table("Largest groups of repeats", ("texts", "first row", "text"), cells, texts=True),)
        if cells
        else (),
    )


def conflicts_finding(rows: Rows, near: NDArray[np.int64]) -> Finding:
    """Count equal texts, and near-equal ones, that have different labels.

    Args:
        rows: the rows.
        near: cluster of near-duplicates of each row, `(n,)`.
    """
    labels = [None if own is None else "\0".join(sorted(own)) for own in rows.labels]
    frame = _present(rows, near)
    frame = frame.with_columns(label=pl.Series(labels, dtype=pl.String).gather(frame["at"])).drop_nulls("label")
    exact = frame.filter(pl.col("label").n_unique().over("key") > 1)
    close = frame.filter(pl.col("label").n_unique().over("near") > 1).join(exact, on="near", how="anti")
    severity = Severity.NOTE if len(close) else Severity.OK
    if len(exact) or len(close) > _MANY_CONFLICTS * len(frame):
        severity = Severity.WARNING
    shown = pl.concat([exact.sort("key", "at"), close.sort("near", "at")]).head(_SHOWN)
    cells = tuple(
        (rows.ids[at], " | ".join(rows.labels[at] or ()), rows.texts[at][:_EXCERPT]) for at in shown["at"].to_list()
    )
    details = []
    if len(exact):
        details.append("equal texts with different labels are all refused; correct them to keep them")
    return Finding(
        "conflicts",
        severity,
        f"{counted(len(exact), 'row', ('has', 'have'))} the text of another and a different label, "
        f"{len(close):,} nearly the text",
        details=tuple(details),
        figures={"exact": len(exact), "near": len(close)},
        tables=(Table("Rows at odds", ("row", "label", "text"), cells, texts=True),) if cells else (),
    )


def _present(rows: Rows, near: NDArray[np.int64]) -> pl.DataFrame:
    """Return row, text key and cluster of the rows that have a text."""
    frame = pl.DataFrame({"at": np.arange(len(rows)), "key": rows.keys, "near": near})
    return frame.filter(pl.Series([bool(text.strip()) for text in rows.texts], dtype=pl.Boolean))
