"""`Model`: from raw texts to answers. Cleaning, a fitted classifier, calibration and a decision rule in one object.

Every door, engine and command uses it; nothing else puts these parts together.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from tamiz.card import CARD_NAME, CardFacts, model_card
from tamiz.classifiers import classifier_class
from tamiz.classifiers.base import remembering
from tamiz.classifiers.occlusion import BUDGET_MS, occlude
from tamiz.cleaning import Cleaner
from tamiz.decision import Calibrator, DecisionRule
from tamiz.errors import ConfigError, PackageError, RequestError, one_of
from tamiz.package import Manifest, read_manifest, unpack, verify_package, write_package
from tamiz.types import Classifier, Contribution, Explains, Explanation, FloatArray, Promptable, Task

__all__ = ["PARITY_TEXTS", "Model", "Prediction", "library_versions", "new_manifest"]

PARITY_TEXTS = (
    "The bank charged my card twice, and nobody answers the phone.",
    "A quiet film about two brothers, a farm and a very long winter; I would not want to have missed it!",
    "¿Por qué no llega el pago? Café, 3.50 €.",
)
"""Texts whose answers every package records, so that whoever loads it can tell whether it still gives them."""

_RECORDED_LIBRARIES = ("numpy", "scipy", "scikit-learn", "snowballstemmer", "stopwordsiso", "ftfy")
_OF_FAMILIES = {
    "boosting": ("lightgbm",),
    "few_shot": ("onnxruntime", "openvino", "tokenizers"),
    "transformer": ("torch", "transformers", "tokenizers", "onnx", "onnxscript", "onnxruntime", "openvino"),
    "zero_shot": ("onnxruntime", "openvino", "tokenizers"),
}


class Prediction(NamedTuple):
    """The answer for one text.

    Attributes:
        label: the label; a tuple of labels, perhaps empty, for multi-label tasks; `None` for an abstention.
        probability: of that label; a parallel tuple for multi-label tasks; `None` for an abstention.
        probabilities: of all labels in order, `(k,)`.
        prediction_set: labels that may be true, in order; `None` where the rule is not conformal.
    """

    label: str | tuple[str, ...] | None
    probability: float | tuple[float, ...] | None
    probabilities: FloatArray
    prediction_set: tuple[str, ...] | None = None


@dataclass(frozen=True, repr=False)
class Model:
    """A text classifier as it is served.

    Attributes:
        name: name of the project's model.
        classifier: fitted learner over cleaned and prepared texts.
        clean: the project's cleaning steps.
        prepare: the candidate's further steps.
        calibrator: turns the classifier's probabilities into calibrated ones.
        rule: turns calibrated probabilities into labels.
        manifest: what is recorded beside the weights.
    """

    name: str
    classifier: Classifier
    clean: Cleaner
    prepare: Cleaner
    calibrator: Calibrator
    rule: DecisionRule
    manifest: Manifest
    _cleaner: Cleaner = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_cleaner", self.clean.then(self.prepare))

    def __repr__(self) -> str:
        about = f"{self.name!r}, version {self.version or 'unpublished'}, {self.manifest.family}, {self.task}"
        return f"<tamiz.Model {about}, {len(self.labels)} labels>"

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in the order of the probabilities."""
        return self.classifier.labels

    @property
    def task(self) -> Task:
        """What kind of answer the model gives."""
        return self.classifier.task

    @property
    def positive(self) -> str | None:
        """Positive label of a binary task."""
        return self.manifest.positive

    @property
    def version(self) -> str | None:
        """Version in the model store, `None` before it is published."""
        return self.manifest.version

    @property
    def text_column(self) -> str:
        """Name of the text's column in tables and requests."""
        return self.manifest.text_column

    def predict_proba(self, texts: Sequence[str]) -> FloatArray:
        """Return calibrated probabilities `(n, k)` of raw texts, in the order of `labels`.

        Raises:
            RequestError: `texts` is one string, or an item is not a string.
        """
        return self.calibrator.apply(self.uncalibrated_proba(texts))

    def uncalibrated_proba(self, texts: Sequence[str]) -> FloatArray:
        """Return the classifier's own probabilities `(n, k)` of raw texts, before calibration.

        Raises:
            RequestError: `texts` is one string, or an item is not a string.
        """
        _check_texts(texts)
        return self.classifier.predict_proba(self._cleaner.many(texts))

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Return the answer for each raw text.

        Raises:
            RequestError: `texts` is one string, or an item is not a string.
        """
        probabilities = self.predict_proba(texts)
        decided = self.rule.decide(probabilities)
        if self.task is Task.MULTI_LABEL:
            answers = [self._labels_of(row, p) for row, p in zip(decided, probabilities, strict=True)]
        else:
            answers = [
                Prediction(None, None, p) if label < 0 else Prediction(self.labels[label], float(p[label]), p)
                for label, p in zip(decided.tolist(), probabilities, strict=True)
            ]
        if self.rule.conformal is None:
            return answers
        sets = self.rule.prediction_set(probabilities)
        return [one._replace(prediction_set=self._named(row)) for one, row in zip(answers, sets, strict=True)]

    def _named(self, chosen: Any) -> tuple[str, ...]:
        return tuple(self.labels[j] for j in np.flatnonzero(chosen).tolist())

    def _labels_of(self, chosen: Any, probabilities: FloatArray) -> Prediction:
        numbers = np.flatnonzero(chosen).tolist()
        return Prediction(self._named(chosen), tuple(float(probabilities[j]) for j in numbers), probabilities)

    def explain(self, text: str, label: str | None = None, *, budget_ms: float = BUDGET_MS) -> Explanation:
        """Say which stretches of a raw text made the score of a label.

        `linear` and `nb_stack` add up their own weights and `boosting` the Shapley values of its trees; for any other
        family words are left out, one at a time.

        Args:
            text: one raw text; the spans of the answer refer to it.
            label: the label to explain; by default the answer, of several labels or none the most probable one.
            budget_ms: time for leaving words out; a long text is then explained by its sentences.

        Raises:
            RequestError: the label is unknown.
        """
        if label is not None and label not in self.labels:
            raise RequestError(f"label: unknown {label[:80]!r}; {one_of(label[:80], self.labels)}")
        aligned = self._cleaner.align(text)
        number = self._answered(text) if label is None else self.labels.index(label)
        if isinstance(self.classifier, Explains):
            found = self.classifier.explain(aligned.text, number)
        else:
            found = occlude(self.classifier, aligned.text, number, budget_ms=budget_ms)
        return replace(
            found,
            contributions=tuple(Contribution(*aligned.span(c.start, c.end), c.value) for c in found.contributions),
        )

    def _answered(self, text: str) -> int:
        """Return the label of the answer to a text, the most probable one where that is none or several."""
        probabilities = self.predict_proba([text])
        if self.task is not Task.MULTI_LABEL and (decided := int(self.rule.decide(probabilities)[0])) >= 0:
            return decided
        return int(probabilities[0].argmax())

    @property
    def answer_columns(self) -> tuple[str, ...]:
        """Names of the columns that prediction adds to a table."""
        return ("predicted_label", "predicted_probability", *(f"p_{label}" for label in self.labels))

    def record(self, prediction: Prediction) -> dict[str, Any]:
        """Return an answer as a row of `answer_columns`."""
        values = (prediction.label, prediction.probability, *prediction.probabilities.tolist())
        return dict(zip(self.answer_columns, values, strict=True))

    def answer(self, prediction: Prediction) -> dict[str, Any]:
        """Return an answer as the native door and `tamiz predict --json` give it."""
        label, probability, probabilities, sets = prediction
        named = dict(zip(self.labels, probabilities.tolist(), strict=True))
        found = {"label": label, "probability": probability, "probabilities": named}
        return found if sets is None else {**found, "prediction_set": sets}

    def with_labels(
        self, labels: Sequence[str], *, template: str | Sequence[str] | None = None, multi_label: bool = False
    ) -> Self:
        """Return the model for other labels, if its family can answer for labels it was not trained on.

        The cleaning stays; calibration and decision rule, which were fitted for its own labels, do not.

        Args:
            labels: the labels, all different.
            template: sentence in which `{}` stands for the label, or several; by default the family's own.
            multi_label: whether each label is answered by itself.

        Raises:
            RequestError: the model's labels are fixed, or these labels or the template cannot be used.
        """
        if not isinstance(self.classifier, Promptable):
            family = self.manifest.family
            raise RequestError(f"This model's labels are fixed (family {family!r}); ask without candidate labels.")
        classifier = self.classifier.with_labels(tuple(labels), template=template, multi_label=multi_label)
        task, named = classifier.task, classifier.labels
        about: dict[str, Any] = {"task": task, "labels": named, "metrics": {}}
        about["positive"] = named[1] if task is Task.BINARY else None
        return replace(
            self,
            classifier=classifier,
            calibrator=Calibrator("none", task),
            rule=DecisionRule(task),
            manifest=self.manifest.model_copy(update=about),
        )

    def remembering(self) -> Self:
        """Return the model for texts that are asked about more than once, or by others too, and are learnt from.

        What its encoder says of them is kept in the user's cache, if its family has an encoder that can.
        """
        return replace(self, classifier=remembering(self.classifier))

    def with_records(self, **records: Any) -> Self:
        """Return the model with changed fields of its manifest, such as `metrics`."""
        return replace(self, manifest=self.manifest.model_copy(update=records))

    def save(self, folder: Path | str, *, facts: CardFacts | None = None) -> Manifest:
        """Write the model as a package, with its card in `model.md`.

        Args:
            folder: where.
            facts: what the card says beyond the manifest.

        Raises:
            PackageError: something stands at `folder`, or the disk refused.
        """
        records = {"calibration": self.calibrator.to_dict(), "rule": self.rule.to_dict(), "files": {}}
        parity = self.predict_proba(PARITY_TEXTS).tolist()
        manifest = self.manifest.model_copy(update={**records, "parity": parity})

        def fill(temporary: Path) -> None:
            self.classifier.save(temporary)
            (temporary / CARD_NAME).write_text(
                model_card(manifest, facts), encoding="utf-8", errors="replace", newline="\n"
            )

        return write_package(Path(folder), manifest, fill)

    @classmethod
    def load(cls, folder: Path | str, *, verify: bool = True) -> Self:
        """Read a model package.

        Args:
            folder: the package, or a packed one (`.tar.gz`).
            verify: compare every file with its recorded hash first; those of a packed one are compared in any case.

        Raises:
            PackageError: the package is damaged, foreign or of a future format.
        """
        folder = Path(folder)
        if folder.is_file():
            with tempfile.TemporaryDirectory() as place:
                unpack(folder, Path(place) / "package")
                return cls.load(Path(place) / "package", verify=False)
        manifest = verify_package(folder) if verify else read_manifest(folder)
        try:
            family = classifier_class(manifest.family)
        except ConfigError as error:
            raise PackageError(f"{folder}: this Tamiz has no classifier family {manifest.family!r}") from error
        classifier = family.load(folder)
        if classifier.labels != manifest.labels or classifier.task is not manifest.task:
            raise PackageError(f"{folder}: the weights are for other labels or another task than model.json says")
        return cls(
            name=manifest.name,
            classifier=classifier,
            clean=Cleaner(manifest.clean),
            prepare=Cleaner(manifest.prepare),
            calibrator=Calibrator.from_dict(manifest.calibration),
            rule=DecisionRule.from_dict(manifest.rule),
            manifest=manifest,
        )


def _check_texts(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise RequestError("texts: a list of texts is expected, not one text; write [text]")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise RequestError(f"texts[{place}]: a text is expected, not {type(text).__name__}")


def library_versions(family: str = "", params: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Return the versions of Python and of the libraries that shape a model.

    Args:
        family: whose own libraries are added.
        params: of the family; those of an ensemble name its members.
    """
    members = (params or {}).get("members") or []
    families = [family, *(str(one.get("family")) for one in members if isinstance(one, Mapping))]
    names = [*_RECORDED_LIBRARIES, *(name for one in families for name in _OF_FAMILIES.get(one, ()))]
    versions = {"python": platform.python_version()}
    for name in dict.fromkeys(names):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def new_manifest(**records: Any) -> Manifest:
    """Return a manifest with the code and library versions of this process filled in."""
    libraries = library_versions(records.get("family", ""), records.get("params"))
    return Manifest(libraries=libraries, code_version=metadata.version("tamiz"), **records)
