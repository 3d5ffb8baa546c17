"""Make a small model of a large one: texts without labels, the large one's answers, a student that learns them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tamiz.classifiers import check_libraries, check_params
from tamiz.cleaning import DEFAULT_STEPS, Cleaner
from tamiz.config import CandidateConfig
from tamiz.data.gold import Examples
from tamiz.data.refusals import different
from tamiz.decision import Calibrator, DecisionRule
from tamiz.errors import LabelError
from tamiz.model import Model
from tamiz.pipeline.evaluate import evaluate, speed
from tamiz.pipeline.train import fit_classifier, put_together
from tamiz.types import BoolArray, FloatArray, IntArray, Progress, Task

__all__ = ["Distilled", "Report", "Sample", "distill"]

_FEWEST = 50
_HELD_OUT = 0.2
_MOST_HELD_OUT = 2000
_CHUNK = 1000
_MOST_COPIES = 4
_SPEEDS = ("latency_p50_ms", "texts_per_s", "size_mb")
_QUALITY = ("accuracy", "f1_macro", "f1_micro")


class Sample(NamedTuple):
    """Texts whose labels people gave, to measure by.

    Attributes:
        texts: raw texts, `n` of them.
        targets: int64 `(n,)`; multi-label: bool `(n, k)`.
    """

    texts: Sequence[str]
    targets: NDArray[Any]


@dataclass(frozen=True)
class Report:
    """What the student is worth.

    Attributes:
        texts: from which it learnt.
        held_out: texts on which agreement was measured.
        agreement: share of them that it gives the teacher's label; multi-label: exactly the teacher's labels.
        label_counts: how many texts it learnt each label from.
        speed: of `teacher` and `student`: milliseconds a text, texts a second, megabytes.
        quality: of `teacher` and `student` on the labelled sample: figures, each with its 95 % interval.
        sample: texts of the labelled sample; 0 without one.
    """

    texts: int
    held_out: int
    agreement: float
    label_counts: dict[str, int]
    speed: dict[str, dict[str, float]]
    quality: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    sample: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able values."""
        return asdict(self)


class Distilled(NamedTuple):
    """A student and what it is worth.

    Attributes:
        student: an ordinary model.
        report: how it was measured.
    """

    student: Model
    report: Report


def distill(
    teacher: Model,
    texts: Sequence[str],
    *,
    family: str = "linear",
    params: dict[str, Any] | None = None,
    name: str = "student",
    sample: Sample | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Distilled:
    """Train a student on a teacher's answers to texts without labels, the surer ones with more weight.

    Texts that occur twice, are blank or stand in the sample are left out; case and space make no difference. A fifth is
    held out to measure agreement.

    Args:
        teacher: the model that answers, such as `tamiz.prompting.prompted_model` makes it.
        texts: raw texts without labels.
        family: of the student.
        params: its parameters.
        name: of the student.
        sample: labelled texts to measure teacher and student by; neither learns from them.
        seed: of the split and of the fit.
        progress: told how far it has come.

    Raises:
        ConfigError: the family or a parameter is unknown.
        MissingExtraError: a library that the family is fitted with is not installed.
        LabelError: there are too few texts, or the teacher gave a label to none of them.
    """
    config = CandidateConfig(family=family, params=check_params(family, params or {}))
    check_libraries(config.family, config.params)  # said before the teacher has answered, which may take hours
    kept = different(texts, known=() if sample is None else sample.texts)
    if len(kept) < _FEWEST:
        raise LabelError(
            f"{len(kept)} different texts are too few to distill from (blank ones and those of the sample aside); "
            f"give {_FEWEST} or more"
        )
    answered = _answers(teacher.remembering(), kept, progress)
    order = np.random.default_rng(seed).permutation(len(kept))
    held_out = order[: min(_MOST_HELD_OUT, int(_HELD_OUT * len(kept)))]
    learnt = np.sort(order[len(held_out) :])
    decided = _decided(teacher, answered)
    _check_labels(teacher, decided[learnt])
    student = _student(
        teacher, config, name, [kept[i] for i in learnt], decided[learnt], answered[learnt], seed, progress
    )
    apart = [kept[i] for i in held_out]
    report = Report(
        texts=len(learnt),
        held_out=len(apart),
        agreement=_agreement(_decided(student, student.predict_proba(apart)), decided[held_out]),
        label_counts=_counts(teacher, decided[learnt]),
        speed={who: _speed(model, apart) for who, model in (("teacher", teacher), ("student", student))},
        quality={} if sample is None else {"teacher": _quality(teacher, sample), "student": _quality(student, sample)},
        sample=0 if sample is None else len(sample.texts),
    )
    return Distilled(student.with_records(facts={**student.manifest.facts, "distilled": report.to_dict()}), report)


def _answers(teacher: Model, texts: Sequence[str], progress: Progress | None) -> FloatArray:
    parts = []
    for start in range(0, len(texts), _CHUNK):
        parts.append(teacher.predict_proba(texts[start : start + _CHUNK]))
        if progress:
            progress("asking the teacher", min(start + _CHUNK, len(texts)), len(texts))
    return np.vstack(parts)


def _decided(model: Model, probabilities: FloatArray) -> NDArray[Any]:
    """Return int64 `(n,)` or, for multi-label tasks, bool `(n, k)`; nobody abstains."""
    if model.task is Task.MULTI_LABEL:
        return model.rule.decide(probabilities)
    return np.asarray(probabilities.argmax(axis=1), np.int64)


def _check_labels(teacher: Model, decided: NDArray[Any]) -> None:
    missing = [label for label, count in _counts(teacher, decided).items() if not count]
    if missing:
        raise LabelError(
            f"the teacher gave none of the texts the label {missing[0]!r}"
            + (f" ({len(missing)} labels in all)" if len(missing) > 1 else "")
            + "; leave it out, describe it, or correct the teacher's prior"
        )


def _counts(model: Model, decided: NDArray[Any]) -> dict[str, int]:
    has: BoolArray = decided if model.task is Task.MULTI_LABEL else decided[:, None] == np.arange(len(model.labels))
    return dict(zip(model.labels, has.sum(axis=0).tolist(), strict=True))


def _copies(probabilities: FloatArray, decided: NDArray[Any], task: Task) -> IntArray:
    """Return how often each text is learnt from, 1 to 4 times, by its quarter of confidence.

    Confidence is ranked among texts of the same label, so that a label the teacher is never sure of keeps its weight.
    Whole copies weigh texts for every family alike.
    """
    if task is Task.MULTI_LABEL:
        confidence, groups = np.abs(2 * probabilities - 1).mean(axis=1), np.zeros(len(probabilities), np.int64)
    else:
        confidence, groups = probabilities.max(axis=1), decided
    copies = np.empty(len(confidence), np.int64)
    for group in np.unique(groups):
        places = np.flatnonzero(groups == group)
        rank = confidence[places].argsort(kind="stable").argsort(kind="stable")
        copies[places] = 1 + rank * _MOST_COPIES // len(places)
    return copies


def _student(
    teacher: Model,
    config: CandidateConfig,
    name: str,
    texts: Sequence[str],
    decided: NDArray[Any],
    probabilities: FloatArray,
    seed: int,
    progress: Progress | None,
) -> Model:
    clean = teacher.clean if teacher.clean.steps else Cleaner(DEFAULT_STEPS)
    repeated = np.repeat(np.arange(len(texts)), _copies(probabilities, decided, teacher.task))
    cleaned = clean.many(texts)
    examples = Examples([], [cleaned[i] for i in repeated], decided[repeated], [], {})
    classifier, seconds = fit_classifier(
        config, teacher.labels, teacher.task, examples, None, seed=seed, progress=progress
    )
    none = Calibrator("none", teacher.task, reason="there are no examples with labels")
    about: dict[str, Any] = {"positive": teacher.positive, "text_column": teacher.text_column}
    about |= {"metrics": {"fit_seconds": seconds}}
    about |= {"data": {"texts": len(texts), "teacher": teacher.manifest.family}}
    return put_together(name, config, classifier, clean, none, _rule(teacher), **about)


def _rule(teacher: Model) -> DecisionRule:
    if teacher.positive is None:
        return DecisionRule(teacher.task)
    return DecisionRule(teacher.task, positive=teacher.labels.index(teacher.positive))


def _agreement(found: NDArray[Any], expected: NDArray[Any]) -> float:
    same = found == expected
    return float((same.all(axis=1) if same.ndim == 2 else same).mean())


def _speed(model: Model, texts: Sequence[str]) -> dict[str, float]:
    found = speed(model, texts)
    return {name: found[name] for name in _SPEEDS}


def _quality(model: Model, sample: Sample) -> dict[str, dict[str, Any]]:
    found = evaluate(model, sample.texts, sample.targets, prefix="")
    return {
        name: {"value": found.metrics[name], "interval": found.intervals.get(name)}
        for name in _QUALITY
        if name in found.metrics
    }
