"""From labels alone to a fast student: news topics, whose training labels nobody looks at."""

from __future__ import annotations

import os
from typing import Any

from sklearn.metrics import accuracy_score

from benchmarks.datasets import Labelled, drawn, read, topic
from benchmarks.record import Board, Figure, Goal, Outcome, say
from benchmarks.zero_shot import words_of
from tamiz.classifiers import classifier_class
from tamiz.cleaning import Cleaner
from tamiz.config import Project
from tamiz.encoders.catalogue import CATALOGUE
from tamiz.encoders.known import whereabouts
from tamiz.encoders.scores import SEEN
from tamiz.pipeline.distill import Report, Sample, distill
from tamiz.prompting import prompted_model
from tamiz.types import Task

__all__ = ["measure", "teacher_for"]

_SET = "agnews"
_OWN, _USUAL = "tamiz-zero-shot", "minilm"
_STUDENTS = ("linear", "few_shot")
_MOST_TEXTS = 500
_HEADINGS = ["what", "accuracy (95 %)", "macro F1 (95 %)", "agreement", "texts/s", "MB"]


def measure(options: dict[str, Any]) -> Outcome:
    """Teach students the zero-shot answers to the training texts, and measure both on the test rows.

    The teacher is the zero-shot model of the catalogue unless it has seen the set; `models` names another one.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    project, most = topic(_SET), min(options["sizes"])
    train, test = (drawn(read(project, places), most) for places in (project.data.source, project.data.test))
    name = options["models"][0] if options["models"] else teacher_for(_SET)
    teacher = prompted_model(
        train.labels,
        model=name,
        descriptions=words_of(_SET, train.labels),
        texts=train.texts[:_MOST_TEXTS],
        adapt="unlabelled",
        prior="unlabelled",
        num_threads=1,
    )
    sample = Sample(test.texts, test.targets)
    reports: dict[str, Report] = {}
    for family in _STUDENTS:
        params = {"num_threads": 1} if family == "few_shot" else {}
        reports[family] = distill(teacher, train.texts, family=family, params=params, sample=sample).report
        say(f"{family}: {reports[family].quality['student']['accuracy']['value']:.3f}")
    return _outcome(name, reports, _supervised(project, train, test), len(test.texts))


def teacher_for(name: str) -> str:
    """Return the zero-shot model for a data set: our own unless it is not here or has seen the set."""
    entry = CATALOGUE.get(_OWN)
    return _OWN if entry is not None and whereabouts(entry) and name not in SEEN.get(_OWN, ()) else _USUAL


def _supervised(project: Project, train: Labelled, test: Labelled) -> float:
    """Return the accuracy of `linear` at its defaults, told the labels of the same texts."""
    clean, cls = Cleaner(project.clean), classifier_class("linear")
    fitted = cls(train.labels, Task.MULTI_CLASS, seed=0).fit(clean.many(train.texts), train.targets)
    return float(accuracy_score(test.targets, fitted.predict_proba(clean.many(test.texts)).argmax(axis=1)))


def _outcome(name: str, reports: dict[str, Report], supervised: float, rows: int) -> Outcome:
    first = reports[_STUDENTS[0]]
    teacher = first.quality["teacher"]["accuracy"]["value"]
    figures = []
    for family, report in reports.items():
        accuracy = report.quality["student"]["accuracy"]["value"]
        figures.append(Figure(f"student {family}: accuracy", "", accuracy, teacher, f"teacher ({name})"))
        goal = Goal(">=", 100, ratio=True) if family == _STUDENTS[0] else None
        speeds = [report.speed[who]["texts_per_s"] for who in ("student", "teacher")]
        figures.append(Figure(f"student {family}", "texts/s", *speeds, f"teacher ({name})", goal))
    title = "`linear` with the labels of the same texts: accuracy"
    figures.append(Figure(title, "", supervised, teacher, f"teacher ({name})"))
    cells = [_cells(f"teacher: {name}", first, "teacher", "")]
    for family, report in reports.items():
        cells.append(_cells(f"student: {family}", report, "student", f"{report.agreement:.3f}"))
    cells.append(["linear, told the labels", f"{supervised:.3f}", "", "", "", ""])
    board = Board(f"{_SET}: {first.texts:,} texts without labels, {rows:,} test rows", _HEADINGS, cells)
    details = {"supervised": supervised, **{family: report.to_dict() for family, report in reports.items()}}
    return Outcome(figures, details, [board])


def _cells(what: str, report: Report, who: str, agreement: str) -> list[str]:
    quality, speed = report.quality[who], report.speed[who]
    shown = []
    for name in ("accuracy", "f1_macro"):
        low, high = quality[name]["interval"]
        shown.append(f"{quality[name]['value']:.3f} ({low:.3f}-{high:.3f})")
    return [what, *shown, agreement, f"{speed['texts_per_s']:,.0f}", f"{speed['size_mb']:.1f}"]
