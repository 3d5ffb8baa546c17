"""Labels without training on seven data sets: every model at hand, as it is and with what texts without labels give.

Nothing is chosen here: what is said of labels stands in `zero_shot_labels.yaml`, templates are the defaults. Labels are
adapted and priors corrected by texts of the training part, never their labels; without such a part, by those measured.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import yaml
from numpy.typing import NDArray
from safetensors import safe_open

from benchmarks.datasets import root
from benchmarks.record import Board, Figure, Goal, Outcome, say
from tamiz.classifiers.base import softmax
from tamiz.classifiers.zero_shot import ZeroShotClassifier, method_for
from tamiz.classifiers.zero_shot_prior import USUAL_STRENGTH, shifts
from tamiz.classifiers.zero_shot_scores import EmbeddingScorer
from tamiz.encoders.catalogue import CATALOGUE
from tamiz.encoders.find import find
from tamiz.encoders.known import whereabouts
from tamiz.encoders.scores import SEEN
from tamiz.metrics import bootstrap, score
from tamiz.types import FloatArray, Task

__all__ = ["WORDS", "measure", "words_of"]

# Not the words that recipes/zero_shot trains with: a model must not be measured by the words it has learnt.
WORDS = Path(__file__).with_name("zero_shot_labels.yaml")
_MOST = 2_000
_UNLABELLED = 500
_FORM = "int8"
_SMALL = 35e6  # parameters up to which a model is held to the goals
_CORRECTIONS = {"none": 0.0, "a quarter": USUAL_STRENGTH, "all": 1.0}
_USUAL = next(name for name, strength in _CORRECTIONS.items() if strength == USUAL_STRENGTH)
_MEASURES = ["accuracy (95 %)", "macro F1 (95 %)", "log loss", "texts/s", "MB", "zero-shot"]
_HEADINGS = ["model", "labels", "correction", *_MEASURES]
_SCORES = ("accuracy", "f1_macro")
_CALLED = "as called"
_PEER = "bart-large-mnli, 407M parameters"


@dataclass(frozen=True)
class _Set:
    """A data set.

    Attributes:
        name: of its words in `zero_shot_labels.yaml`.
        folder: under the data folder.
        goal: least accuracy.
        label: column of the label.
        test: file of the rows that are measured.
        train: file whose texts, without labels, adapt labels and correct the prior.
        language: of the template.
        out: a label whose rows are left out.
        published: accuracy of bart-large-mnli that its users report.
        named: whether its labels are words, and are measured as they are called, too.
    """

    name: str
    folder: str
    goal: float
    label: str = "label"
    test: str = "test.parquet"
    train: str = "train.parquet"
    language: str = "en"
    out: str | None = None
    published: float | None = None
    named: bool = False


_SETS = (
    _Set(
        "resolutions", "resolutions", 0.5, label="category", test="sample.parquet", train="sample.parquet", named=True
    ),
    _Set(
        "resolutions_es",
        "resolutions",
        0.5,
        label="category",
        test="sample.parquet",
        train="sample.parquet",
        language="es",
    ),
    _Set("agnews", "topics/agnews", 0.78, published=0.727, named=True),
    _Set("imdb", "imdb", 0.8, published=0.929, named=True),
    _Set("newsgroups", "topics/newsgroups", 0.6),
    _Set("banking77", "topics/banking77", 0.68),
    _Set("clinc150", "topics/clinc150", 0.62, out="oos"),
    _Set("noticias_es", "topics/noticias_es", 0.5, language="es"),
    _Set("noticias_es_en", "topics/noticias_es", 0.5),
)


class _Data(NamedTuple):
    """Rows to measure, texts without labels, and the labels."""

    texts: list[str]
    targets: NDArray[np.int64]
    unlabelled: list[str]
    labels: tuple[str, ...]
    about: str


class _Scores(NamedTuple):
    """Scores of texts for the labels of a data set, worded in one way.

    Attributes:
        labels: how they are worded.
        adapt: `unlabelled` where texts moved them.
        seconds: of processor time that the texts took.
        scores: of the texts that are measured, `(n, k)`.
        unlabelled: of the texts without labels.
    """

    labels: str
    adapt: str
    seconds: float
    scores: FloatArray
    unlabelled: FloatArray


@dataclass(frozen=True)
class _Model:
    """A model, how many parameters it has, and the data sets it was trained on."""

    name: str
    shown: str
    parameters: int
    seen: tuple[str, ...]


def measure(options: dict[str, Any]) -> Outcome:
    """Measure all data sets, or those that `parts` names, on at most 2,000 rows each, or fewer by `sizes`."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    most = min([_MOST, *options["sizes"]])
    models = _models(options["models"])
    figures: list[Figure] = []
    boards, details = [], {}
    for one in _SETS:
        if options["parts"] and one.name not in options["parts"]:
            continue
        data = _read(one, most)
        rows = []
        for model in models:
            found = _rows(one, model, data)
            for row in found:
                say(f"{one.name}: " + ", ".join(_cells(row)))
            rows += found
        boards.append(Board(_title(one, data), _HEADINGS, [_cells(row) for row in rows]))
        details[one.name] = {"about": data.about, "rows": rows}
        figures += [_figure(one, row) for row in rows if row["correction"] == _USUAL]
    return Outcome(figures, details, boards)


def words_of(name: str, labels: tuple[str, ...]) -> dict[str, str]:
    """Return what is said of the labels of a data set in a template."""
    written = yaml.safe_load(WORDS.read_text(encoding="utf-8")).get(name, {})
    return {label: written.get(label) or label.replace("_", " ").strip("?") for label in labels}


def _models(further: list[str]) -> list[_Model]:
    """Return the models of the catalogue on this machine, or those of them that are named, and further ones.

    A further one is given as `NAME=SET,SET`, with the sets that it has seen.
    """
    named = [name for name in further if name in CATALOGUE]
    further = [name for name in further if name not in named]
    wanted = named or list(CATALOGUE)
    found = [name for name in wanted if whereabouts(CATALOGUE[name])]
    for name in set(wanted) - set(found):
        say(f"{name} is left out: it is not on this machine (tamiz models install {name})")
    models = [_model(name, SEEN.get(name, ())) for name in found]
    for given in further:
        name, _, seen = given.partition("=")
        models.append(_model(name, tuple(one for one in seen.split(",") if one)))
    return models


def _model(name: str, seen: tuple[str, ...]) -> _Model:
    with safe_open(find(name).folder / "model.safetensors", "np") as file:
        parameters = sum(prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118  # no mapping
    return _Model(name, Path(name).name, parameters, seen)


def _read(one: _Set, most: int) -> _Data:
    """Read rows to measure, drawn at random with a fixed seed where there are more, and texts without labels."""
    folder = root() / one.folder
    test, train = (pl.read_parquet(folder / name).drop_nulls(["text", one.label]) for name in (one.test, one.train))
    labels = tuple(sorted({*test[one.label], *train[one.label]} - {one.out}))
    left_out = len(test)
    test, train = (frame.filter(pl.col(one.label).is_in(labels)) for frame in (test, train))
    left_out -= len(test)
    rng = np.random.default_rng(0)
    drawn, other = (np.sort(rng.permutation(len(frame))[:size]) for frame, size in ((test, most), (train, _UNLABELLED)))
    targets = np.array([labels.index(label) for label in test[one.label]], np.int64)
    about = f"{len(drawn):,} of {len(test):,} rows" if len(drawn) < len(test) else f"{len(test):,} rows"
    if one.out:
        share = len(test) / (len(test) + left_out)
        about += (
            f" ({left_out} of `{one.out}` left out, which no words describe; with them accuracies are x {share:.2f})"
        )
    return _Data(test["text"][drawn].to_list(), targets[drawn], train["text"][other].to_list(), labels, about)


def _title(one: _Set, data: _Data) -> str:
    published = "" if one.published is None else f"; published for {_PEER}: {one.published:.3f}"
    language = ", Spanish labels" if one.language == "es" else ""
    return f"{one.name}: {data.about}, {len(data.labels)} labels{language}{published}"


def _rows(one: _Set, model: _Model, data: _Data) -> list[dict[str, Any]]:
    """Measure one model on one data set, labels as they are worded or called and, if they have vectors, adapted."""
    method = method_for(model.name)
    params: dict[str, Any] = {"model": model.name, "form": _FORM, "language": one.language, "num_threads": 1}
    classifier = ZeroShotClassifier(data.labels, Task.MULTI_CLASS, method=method, **params).prepare()
    wordings = {"as worded": words_of(one.name, data.labels), **({_CALLED: {}} if one.named else {})}
    told = {name: classifier.with_labels(data.labels, descriptions=said) for name, said in wordings.items()}
    about = {
        "model": model.shown,
        "method": method,
        "parameters": model.parameters,
        "seen": bool({one.name, one.folder.rpartition("/")[2]} & set(model.seen)),
        "megabytes": _megabytes(classifier),
    }
    temperature = classifier.facts()["temperature"]
    rows = []
    for labels, adapt, seconds, scores, unlabelled in _scores(told, data, temperature):
        even = np.full(len(data.labels), 1 / len(data.labels))
        shift = shifts(unlabelled, even, temperature=temperature, multi_label=False)
        how = {"labels": labels, "adapt": adapt, "texts_per_s": len(data.texts) / seconds}
        for correction, strength in _CORRECTIONS.items():
            probabilities = softmax((scores - strength * shift) / temperature)
            rows.append({**about, **how, "correction": correction, **_scored(data, probabilities)})
    return rows


def _scores(told: dict[str, ZeroShotClassifier], data: _Data, temperature: float) -> Iterator[_Scores]:
    """Yield the scores of the texts for each wording of the labels; texts that have vectors are read once."""
    scorer = next(iter(told.values())).scorer
    alone: dict[str, Any] = {"multi_label": False}
    if not isinstance(scorer, EmbeddingScorer):
        for name, one in told.items():
            start = time.process_time()
            scores = scorer.scores(data.texts, one.prompts, **alone)
            seconds = time.process_time() - start
            yield _Scores(name, "none", seconds, scores, scorer.scores(data.unlabelled, one.prompts, **alone))
        return
    start = time.process_time()
    texts = list(scorer.read(data.texts))
    seconds = time.process_time() - start
    others = list(scorer.read(data.unlabelled))
    for name, one in told.items():
        moved = scorer.adapt(others, one.prompts, temperature=temperature)
        for labels, adapt, by in ((name, "none", scorer), (f"{name}, adapted", "unlabelled", moved)):
            scores, unlabelled = (by.scores_of(some, one.prompts, **alone) for some in (texts, others))
            yield _Scores(labels, adapt, seconds, scores, unlabelled)


def _scored(data: _Data, probabilities: FloatArray) -> dict[str, Any]:
    decided = probabilities.argmax(axis=1)
    about: dict[str, Any] = {"task": Task.MULTI_CLASS, "labels": data.labels}
    found = score(data.targets, probabilities, decided, **about)
    intervals = bootstrap(data.targets, probabilities, decided, **about)
    kept = ("accuracy", "f1_macro", "log_loss")
    return {**{name: found[name] for name in kept}, **{f"{name}_interval": intervals[name] for name in kept}}


def _megabytes(classifier: ZeroShotClassifier) -> float:
    with TemporaryDirectory() as folder:
        classifier.save(Path(folder))
        return sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6


def _figure(one: _Set, row: dict[str, Any]) -> Figure:
    title = f"{one.name}, {row['model']}, labels {row['labels']}, {row['correction']} of the correction: accuracy"
    if row["seen"]:
        return Figure(f"{title} (seen in training)", "", row["accuracy"])
    worded = not row["labels"].startswith(_CALLED)
    goal = Goal(">=", one.goal) if row["parameters"] < _SMALL and worded else None
    peer = one.published is not None
    return Figure(title, "", row["accuracy"], one.published, f"{_PEER}, published" if peer else "", goal)


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['model']} ({row['parameters'] / 1e6:.0f}M, {row['method']})",
        row["labels"],
        row["correction"],
        *(f"{row[name]:.3f} ({row[f'{name}_interval'][0]:.3f}-{row[f'{name}_interval'][1]:.3f})" for name in _SCORES),
        f"{row['log_loss']:.3f}",
        f"{row['texts_per_s']:,.0f}",
        f"{row['megabytes']:.1f}",
        "no: seen" if row["seen"] else "yes",
    ]
