"""The gates between a new version and `champion`: better beyond luck, no part of the data worse, inside the limits.

Each gate is a plain function of answers and figures; what they are asked on, and what becomes of their answers, is the
business of `tamiz.pipeline.promotion`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamiz.config import Project, SelectConfig
from tamiz.data.gold import Examples
from tamiz.errors import ConfigError, DataError, one_of
from tamiz.metrics import METRICS, Comparison, compare, compare_values, difference_interval, holm, mcnemar
from tamiz.metrics.names import base_name, figure_of
from tamiz.model import Model
from tamiz.pipeline.evaluate import validation_answers
from tamiz.pipeline.select import beyond, prefers_higher
from tamiz.reports.slices import length_parts, name_of, shortened
from tamiz.types import BoolArray, FloatArray

__all__ = ["BUILT_IN", "SEED", "Answers", "Gate", "answers", "better", "check_slices", "lead", "limits", "slices"]

BUILT_IN = ("label", "length")
SEED = 0
_SLICE_RESAMPLES = 1000
_ALPHA = 0.05
_EXAMPLE_WISE = ("accuracy", "subset_accuracy")


@dataclass(frozen=True)
class Gate:
    """What one gate says.

    Attributes:
        name: `better`, `slices` or `limits`.
        passed: whether the version may pass.
        reason: why, in words.
        figures: what the answer rests on, JSON-able.
    """

    name: str
    passed: bool
    reason: str
    figures: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able record."""
        return asdict(self)


class Answers(NamedTuple):
    """Probabilities `(n, k)` and decisions of a model."""

    probabilities: FloatArray
    decided: NDArray[Any]


def answers(model: Model, texts: Sequence[str]) -> Answers:
    """Ask a model as it is served."""
    probabilities = model.predict_proba(texts)
    return Answers(probabilities, model.rule.decide(probabilities))


def check_slices(project: Project) -> None:
    """Refuse slices by columns that the gold tables will not have.

    Raises:
        ConfigError: a name is neither built in nor a column that is carried.
    """
    known = [*BUILT_IN, *(["group"] if project.data.group else []), *project.data.partition_by]
    for name in project.select.slices:
        if name not in known:
            raise ConfigError(
                f"select.slices: {name!r} is not carried to the test; {one_of(name, known)}. "
                "Columns in data.partition_by are carried"
            )


def better(
    settings: SelectConfig, targets: NDArray[Any], new: Answers, old: Answers, *, model: Model, champion: str
) -> Gate:
    """Ask whether a version is better than the champion beyond luck, as `select.evidence` wants it.

    Args:
        settings: metric, kind of evidence, confidence and margin.
        targets: truth of the `n` examples.
        new: answers of the version.
        old: answers of the champion.
        model: the version, for task, labels and positive label.
        champion: version number of the champion, for words.

    Raises:
        DataError: the metric is undefined on these examples.
    """
    metric, higher = base_name(settings.metric), prefers_higher(settings)
    about: dict[str, Any] = {"task": model.task, "labels": model.labels, "positive": model.rule.positive}
    found = compare(metric, targets, new, old, **about, confidence=settings.confidence, seed=SEED)
    p_better = found.p_higher if higher else found.p_lower
    figures: dict[str, Any] = {"metric": f"test_{metric}", "higher_is_better": higher}
    if metric in _EXAMPLE_WISE:  # exact where the resamples of a small test are rash
        right = _right(targets, new.decided), _right(targets, old.decided)
        low, high = difference_interval(*right)
        found, tested = found._replace(low=low, high=high), mcnemar(*right)
        figures["mcnemar"] = tested._asdict()
        p_better = min(p_better, 1 - tested.p_first_better)
    elif metric.startswith(("f1_", "precision_", "recall_")):
        found = _widened(found, *_rights(metric, targets, new.decided, old.decided, model.rule.positive))
    figures |= found._asdict()
    figures["p_better"] = float(p_better)
    figures["same_answers"] = all(np.array_equal(a, b) for a, b in zip(new, old, strict=True))
    passed, why = _judged(settings, found, figures)
    said = "better than" if _gain(found, higher) > 0 else "worse than" if _gain(found, higher) < 0 else "equal to"
    reason = (
        f"test_{metric} {found.first:.4f} is {said} {found.second:.4f} of version {champion} on the same "
        f"{len(targets):,} test texts "
        f"(difference {found.difference:+.4f}, 95 % interval {found.low:+.4f} to {found.high:+.4f}, "
        f"P(better) {p_better:.3f}){why}"
    )
    return Gate("better", passed, reason, figures)


def _rights(
    metric: str, targets: NDArray[Any], new: NDArray[Any], old: NDArray[Any], positive: int
) -> tuple[BoolArray, BoolArray]:
    """Return where each model is right, of one label's figure among the examples that it is made of alone."""
    right = _right(targets, new), _right(targets, old)
    if not metric.endswith("_positive"):
        return right
    true, decided = targets == positive, (new == positive) | (old == positive)
    among = {"recall_positive": true, "precision_positive": decided}.get(metric, true | decided)
    return right[0][among], right[1][among]


def _widened(found: Comparison, first: BoolArray, second: BoolArray) -> Comparison:
    """Return the comparison with an interval that reaches as far as Newcombe's of the shares of right answers.

    Where few answers differ, resamples alone show no example that speaks against the one that is ahead.
    """
    low, high = difference_interval(first, second)
    middle = float(first.mean() - second.mean())
    reach = found.difference - (middle - low), found.difference + (high - middle)
    return found._replace(low=max(-1.0, min(found.low, reach[0])), high=min(1.0, max(found.high, reach[1])))


def _gain(found: Comparison, higher: bool) -> float:
    return found.difference if higher else -found.difference


def _judged(settings: SelectConfig, found: Comparison, figures: Mapping[str, Any]) -> tuple[bool, str]:
    """Return whether the difference is evidence enough, and what to add to the reason where it is not."""
    gain = _gain(found, figures["higher_is_better"])
    lowest = found.low if figures["higher_is_better"] else -found.high
    if figures["same_answers"]:
        return False, ": both give the same answers, so nothing is to be gained"
    if settings.evidence == "better" or gain <= 0:
        return gain > 0, ""
    if figures["p_better"] >= settings.confidence:
        return True, ""
    if settings.evidence == "significant":
        return False, f": perhaps by luck, select.evidence asks for P(better) of {settings.confidence:g} or more"
    if lowest > -settings.margin:
        return True, ""
    return False, f": it may be worse by more than select.margin, {settings.margin:g}"


def limits(settings: SelectConfig, metrics: Mapping[str, float]) -> Gate:
    """Ask whether the figures of a version keep `select.limits`; a limit on `val_ece` holds for `test_ece` too."""
    judged, broken = [], []
    for name, limit in settings.limits.items():
        twin = "test_" + name.removeprefix("val_") if name.startswith("val_") else name
        for figure in dict.fromkeys((name, twin)):
            value = figure_of(metrics, figure)
            if value is None and figure != name:
                continue  # no test side
            why = beyond(figure, value, limit)
            judged.append({"metric": figure, "value": value, "limit": limit, "kept": why is None})
            broken += [why] if why else []
    reason = "outside select.limits: " + "; ".join(broken) if broken else f"{len(judged)} limits are kept"
    return Gate("limits", not broken, reason, {"limits": judged})


def slices(
    settings: SelectConfig,
    targets: NDArray[Any],
    new: Answers,
    old: Answers,
    *,
    labels: Sequence[str],
    texts: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
) -> Gate:
    """Ask whether the version is worse than the champion on any slice of the test.

    A slice's figure is the share of right answers (multi-label: of right decisions; of a label's slice: the share of
    its examples that are found). A slice is worse when a one-sided paired test says so at 5 % over all slices together
    (Holm), or when it loses more than `select.max_slice_drop`.

    Args:
        settings: names of the slices, their least size and the largest drop.
        targets: truth of the `n` examples.
        new: answers of the version.
        old: answers of the champion.
        labels: labels in order.
        texts: raw texts.
        columns: values of the further columns that slices go by, by name.
    """
    rows, small = [], 0
    for title, members, column in _slices(settings, targets, labels, texts, columns):
        if members is None or np.count_nonzero(members) < settings.min_slice:
            small += 1
            continue
        first, second = (_values(targets, model.decided, column)[members] for model in (new, old))
        found = compare_values(first, second, resamples=_SLICE_RESAMPLES, seed=SEED)
        rows.append({"slice": title, **found._asdict(), "p_worse": _p_worse(first, second)})
    for row, adjusted in zip(rows, holm([row["p_worse"] for row in rows]), strict=True):
        row["p_adjusted"] = adjusted
        drop = settings.max_slice_drop
        row["worse"] = adjusted <= _ALPHA or (drop is not None and -row["difference"] > drop)
    worse = [
        f"{row['slice']} {row['first']:.4f} instead of {row['second']:.4f} (n {row['n']}, p {row['p_adjusted']:.3g})"
        for row in rows
        if row["worse"]
    ]
    reason = "worse on " + "; ".join(worse) if worse else f"not worse on any of {len(rows)} slices"
    if small:
        reason += f"; {small} with fewer than {settings.min_slice} examples were not judged"
    return Gate("slices", not worse, reason, {"slices": rows, "too_small": small})


def _slices(
    settings: SelectConfig,
    targets: NDArray[Any],
    labels: Sequence[str],
    texts: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
) -> Iterator[tuple[str, BoolArray | None, int | None]]:
    """Yield title, members `(n,)` and, for a label of a multi-label task, its column.

    Members are `None` for values of a column that have too few examples: there may be as many as rows.
    """
    for name in settings.slices:
        if name == "label":
            several = targets.ndim == 2
            for j, label in enumerate(labels):
                members = targets[:, j] if several else targets == j
                yield f"label={label}", members, j if several else None
            continue
        if name == "length":
            codes, names_of_parts = length_parts(texts)
            for code, part in enumerate(names_of_parts):
                yield f"length={part}", np.asarray(codes == code, dtype=np.bool_), None
            continue
        cells = [name_of(cell) for cell in columns[name]]
        counts = Counter(cells)
        values = sorted(counts)
        place = {value: at for at, value in enumerate(values)}
        places = np.array([place[cell] for cell in cells])
        for at, value in enumerate(values):
            enough = counts[value] >= settings.min_slice
            yield f"{name}={shortened(value)}", np.asarray(places == at, np.bool_) if enough else None, None


def lead(settings: SelectConfig, winner: Model, runner_up: Model, validation: Examples) -> dict[str, Any] | None:
    """Return how far, and how surely, the chosen candidate is ahead of the next on validation, JSON-able.

    Both are asked as for their validation figures: by calibrations and rules that have not seen the example.

    Args:
        settings: the metric.
        winner: the chosen candidate.
        runner_up: the next one.
        validation: the examples.

    Returns:
        `metric`, `p_better` and what `Comparison` has; `None` where examples do not decide the metric.
    """
    metric = base_name(settings.metric)
    if metric not in METRICS:
        return None
    pair = [
        validation_answers(model, model.uncalibrated_proba(validation.texts_raw), validation.targets)
        for model in (winner, runner_up)
    ]
    about: dict[str, Any] = {"task": winner.task, "labels": winner.labels, "positive": winner.rule.positive}
    try:
        found = compare(metric, validation.targets, pair[0][:2], pair[1][:2], **about, seed=SEED)
    except DataError:
        return None
    p_better = found.p_higher if prefers_higher(settings) else found.p_lower
    return {"metric": settings.metric, "p_better": p_better, **found._asdict()}


def _right(targets: NDArray[Any], decided: NDArray[Any]) -> BoolArray:
    same = targets == decided
    right: BoolArray = same.all(axis=1) if same.ndim == 2 else same
    return right


def _values(targets: NDArray[Any], decided: NDArray[Any], column: int | None) -> FloatArray:
    """Return how right each example is, from 0 to 1, `(n,)`."""
    same = np.asarray(targets == decided, dtype=np.float64)
    if same.ndim == 1:
        return same
    return np.asarray(same.mean(axis=1) if column is None else same[:, column])


def _p_worse(first: FloatArray, second: FloatArray) -> float:
    """Return how likely so large a loss is between two equals: McNemar's test, of shares the paired t-test.

    Both can come to values as small as Holm's correction for many slices asks for, unlike a share of resamples.
    """
    from scipy.stats import ttest_rel

    if np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all():
        return mcnemar(first > 0, second > 0).p_second_better
    loss = second - first
    if np.ptp(loss) == 0:  # the same everywhere
        return 0.5 ** len(loss) if loss[0] > 0 else 1.0
    return float(ttest_rel(first, second, alternative="less").pvalue)
