"""Rows whose label is probably wrong, found by models that have not seen them, and the file for a person to fill in."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamiz._files import replacing
from tamiz.audit.confidence import Doubts, doubt_labels, doubt_sets
from tamiz.audit.findings import Finding, Plot, Severity, Suspect, Table
from tamiz.classifiers import classifier_class
from tamiz.cleaning import Cleaner
from tamiz.config import CandidateConfig, Project
from tamiz.data.delimited import harmless
from tamiz.data.gold import Examples, load_examples
from tamiz.data.lake import Lake
from tamiz.data.near_duplicates import clusters
from tamiz.errors import LabelError, counted
from tamiz.types import FloatArray, IntArray, Progress, Task

__all__ = ["find_suspects", "held_out", "ranked", "suspects_finding", "write_suspects"]

_FOLDS = 5
_MANY = 0.05
_CHANCE = 0.05
_SHOWN = 50
_EXCERPT = 300
_SIDES = ("train", "validation")
_COLUMNS = ("row_id", "side", "label", "suggested_label", "probability", "corrected_label", "text")


def find_suspects(
    lake: Lake, project: Project, *, sample: int, progress: Progress | None = None
) -> tuple[list[Suspect], int, int]:
    """Return the suspected rows, worst first, the number of rows looked at (0: too few to judge) and of rows there are.

    Training and validation rows are looked at. Test rows are not: correcting those that a model disagrees with would
    raise the test figures of its like.

    Args:
        lake: where `gold/examples` stands.
        project: the project; its first `linear` candidate gives the model's settings.
        sample: most rows to look at, drawn at random.
        progress: told how far the fits have come.

    Raises:
        LabelError: no n-gram is frequent enough to learn from, or no label can be told from the texts.
    """
    labels = _labels(lake, project)
    sides = [load_examples(lake, side=side, labels=labels, task=project.task) for side in _SIDES]
    n = sum(len(side.texts) for side in sides)
    rng = np.random.default_rng(project.split.seed)
    chosen = np.sort(rng.permutation(n)[:sample])
    texts = _chosen([side.texts for side in sides], chosen)
    targets = np.concatenate([side.targets for side in sides])[chosen]
    usable = _usable(targets, len(labels))
    texts, targets, chosen = [texts[at] for at in usable], targets[usable], chosen[usable]
    if len(texts) < 2 * _FOLDS or (targets.ndim == 1 and len(np.unique(targets)) < 2):
        return [], 0, n
    probabilities = held_out(texts, targets, labels, project, progress=progress)
    if not _tells(probabilities, targets):
        raise LabelError("models of the texts rank the rows of no label beyond chance, so their doubts say nothing")
    order, doubts = ranked(probabilities, targets, project.task)
    order = order[: int(doubts.suspected.sum())]
    return [_suspect(sides, labels, targets, doubts, int(at), int(chosen[at])) for at in order], len(texts), n


def held_out(
    texts: Sequence[str],
    targets: NDArray[Any],
    labels: Sequence[str],
    project: Project,
    *,
    progress: Progress | None = None,
) -> FloatArray:
    """Return probabilities `(n, k)` of each text by a model that was fitted without it and its near-duplicates.

    Args:
        texts: cleaned texts, `n` of them.
        targets: int64 `(n,)`; multi-label: bool `(n, k)`.
        labels: labels in order.
        project: task, seed and settings of the `linear` family.
        progress: told how far the fits have come.
    """
    config = next((c for c in project.candidates if c.family == "linear"), CandidateConfig(family="linear"))
    prepared = Cleaner(config.prepare).many(list(texts))
    seed = project.split.seed
    folds = _folds(clusters(texts), targets, seed)
    probabilities = np.zeros((len(texts), len(labels)))
    family: Any = classifier_class("linear")
    for fold in range(_FOLDS):
        if progress:
            progress("looking for label errors", fold, _FOLDS)
        inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if len(outside):
            model = family(tuple(labels), project.task, seed=seed, **config.params)
            model.fit([prepared[at] for at in inside], targets[inside])
            probabilities[outside] = model.predict_proba([prepared[at] for at in outside])
    return probabilities


def _tells(probabilities: FloatArray, targets: NDArray[Any]) -> bool:
    """Tell whether the rows of some label rank higher for it than others do, beyond chance.

    Source: Mann & Whitney (1947), "On a test of whether one of two random variables is stochastically larger than the
    other"; one-sided at .05, shared among the labels (Bonferroni).
    """
    from scipy.stats import mannwhitneyu

    k = probabilities.shape[1]
    for label in range(k):
        own = targets[:, label] if targets.ndim > 1 else targets == label
        scores = probabilities[:, label]
        if 0 < np.count_nonzero(own) < len(own):
            found = mannwhitneyu(scores[own], scores[~own], alternative="greater", method="asymptotic")
            if found.pvalue < _CHANCE / k:
                return True
    return False


def ranked(probabilities: FloatArray, targets: NDArray[Any], task: Task) -> tuple[IntArray, Doubts]:
    """Return all rows from the most to the least doubtful, suspected ones first, and what speaks against each.

    Args:
        probabilities: held-out probabilities `(n, k)`.
        targets: int64 `(n,)`; multi-label: bool `(n, k)`.
        task: what kind of labels.
    """
    multi = task is Task.MULTI_LABEL
    doubts = doubt_sets(probabilities, targets, least=_FOLDS) if multi else doubt_labels(probabilities, targets)
    order = np.lexsort((np.arange(len(targets)), doubts.margin, ~doubts.suspected))
    return order.astype(np.int64), doubts


def _labels(lake: Lake, project: Project) -> list[str]:
    """Return the labels of the split, those without an example included."""
    if project.labels.names is not None:
        return project.labels.names
    table = lake.read("gold/label_counts", columns=["label"])
    return sorted(set(table.column("label").to_pylist()))


def _folds(near: IntArray, targets: NDArray[Any], seed: int) -> IntArray:
    """Deal clusters of near-duplicates to folds, label by label, so that each fold has its share of each."""
    rng = np.random.default_rng(seed)
    units, first = np.unique(near, return_index=True)
    label = _main_label(targets)[first]
    order = np.lexsort((rng.random(len(units)), label))
    fold = np.empty(len(units), np.int64)
    fold[order] = np.arange(len(units)) % _FOLDS
    return np.asarray(fold[near], np.int64)


def _main_label(targets: NDArray[Any]) -> IntArray:
    """Return the label, for several a row the rarest of its own (or `k` where it has none)."""
    if targets.ndim == 1:
        return np.asarray(targets, np.int64)
    counts = np.where(targets, targets.sum(axis=0), np.iinfo(np.int64).max)
    return np.asarray(np.where(targets.any(axis=1), counts.argmin(axis=1), targets.shape[1]), np.int64)


def _usable(targets: NDArray[Any], k: int) -> IntArray:
    """Return the rows whose label is frequent enough for every fold to have examples of it."""
    if targets.ndim > 1:
        return np.arange(len(targets))
    return np.flatnonzero(np.bincount(targets, minlength=k)[targets] >= _FOLDS)


def _chosen(columns: Sequence[list[str]], chosen: IntArray) -> list[str]:
    joined = [value for column in columns for value in column]
    return [joined[at] for at in chosen.tolist()]


def _suspect(
    sides: Sequence[Examples], labels: Sequence[str], targets: NDArray[Any], doubts: Doubts, at: int, row: int
) -> Suspect:
    place = 0 if row < len(sides[0].texts) else 1
    inside = row - place * len(sides[0].texts)
    return Suspect(
        row_id=sides[place].row_ids[inside],
        side=_SIDES[place],
        labels=_names(targets[at], labels),
        suggested=_names(doubts.suggested[at], labels),
        probability=float(doubts.probability[at]),
        score=float(doubts.margin[at]),
        text=sides[place].texts_raw[inside],
    )


def _names(target: Any, labels: Sequence[str]) -> tuple[str, ...]:
    if np.ndim(target):
        return tuple(labels[j] for j in np.flatnonzero(target).tolist())
    return (labels[int(target)],)


def suspects_finding(suspects: Sequence[Suspect], looked_at: int, rows: int) -> Finding:
    """Say how many labels are suspected, and show the worst."""
    if rows and not looked_at:
        return Finding(
            "label errors",
            Severity.NOTE,
            f"no label could be judged: that takes {2 * _FOLDS} rows, and two labels with {_FOLDS} of them each",
            figures={"suspected": 0, "share": 0.0, "looked_at": 0, "rows": rows, "folds": _FOLDS},
        )
    share = len(suspects) / max(looked_at, 1)
    severity = Severity.OK if not suspects else Severity.WARNING if share >= _MANY else Severity.NOTE
    seen = f"all {rows:,}" if looked_at == rows else f"a random {looked_at:,} of {rows:,}"
    pairs: dict[tuple[str, str], int] = {}
    for one in suspects:
        pair = " | ".join(one.labels), " | ".join(one.suggested)
        pairs[pair] = pairs.get(pair, 0) + 1
    common = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]
    cells = tuple(
        (one.row_id, " | ".join(one.labels), " | ".join(one.suggested), round(one.probability, 3), one.text[:_EXCERPT])
        for one in suspects[:_SHOWN]
    )
    tables = (
        Table("Most suspicious rows", ("row", "label", "suggested", "probability", "text"), cells, texts=True),
        Table("Labels and suggestions", ("label", "suggested", "rows"), tuple((*pair, n) for pair, n in common)),
    )
    details = [
        "hard texts are among them: a person decides. Write them with --suspects FILE.csv, fill in the column "
        "corrected_label, and name the file under labels.corrections"
    ]
    return Finding(
        "label errors",
        severity,
        f"{counted(len(suspects), 'row', ('has', 'have'))} a label that looks wrong "
        f"({share:.1%} of {seen} training and validation rows)",
        details=tuple(details) if suspects else (),
        figures={"suspected": len(suspects), "share": share, "looked_at": looked_at, "rows": rows, "folds": _FOLDS},
        tables=tables if suspects else (),
        plots=_pair_plot(common),
    )


def _pair_plot(common: Sequence[tuple[tuple[str, str], int]]) -> tuple[Plot, ...]:
    if not common:
        return ()
    x = tuple(f"{given or 'none'} → {suggested or 'none'}" for (given, suggested), _ in common[:15])
    rows = {"rows": tuple(n for _, n in common[:15])}
    return (Plot("Suspected labels and suggestions", "bar", x, rows, y_title="rows"),)


def write_suspects(
    suspects: Sequence[Suspect], path: Path, project: Project, *, filled: Sequence[Mapping[str, str]] = ()
) -> None:
    """Write the suspected rows, worst first, with a column `corrected_label` to fill in.

    A text that a spreadsheet would take for a formula gets an apostrophe before it; the other cells are read back.

    Args:
        suspects: the rows.
        path: the CSV file.
        project: how several labels are parted.
        filled: lines of such a file that were filled in before; they are kept, those of other rows at the end.
    """
    separator = project.data.separator or "|"
    before = {line["row_id"]: line for line in filled}
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8-sig", errors="replace") as file:
        writer = csv.DictWriter(file, _COLUMNS, restval="", extrasaction="ignore")  # the mark is for spreadsheets
        writer.writeheader()
        for one in suspects:
            cells = {
                "row_id": one.row_id,
                "side": one.side,
                "label": separator.join(one.labels),
                "suggested_label": separator.join(one.suggested),
                "probability": f"{one.probability:.4f}",
                "corrected_label": before.pop(one.row_id, {}).get("corrected_label", ""),
                "text": harmless(one.text),
            }
            writer.writerow(cells)
        writer.writerows(before.values())
