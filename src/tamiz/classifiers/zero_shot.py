"""Any labels, none trained: texts beside sentences about the labels.

A package holds the model; serving needs ONNX Runtime and tokenizers, and no network.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from tamiz.classifiers import base
from tamiz.classifiers.zero_shot_params import ZeroShotParams
from tamiz.classifiers.zero_shot_prior import USUAL_STRENGTH, expected_shares, shifts
from tamiz.classifiers.zero_shot_scores import (
    EmbeddingScorer,
    EntailmentScorer,
    NliLabels,
    NoEntailmentError,
    Scorer,
    nli_labels,
)
from tamiz.classifiers.zero_shot_templates import Prompts, check_templates, prompts, templates_of
from tamiz.encoders.embedding import MODEL
from tamiz.encoders.runtime import copy_model
from tamiz.errors import ConfigError, DataError, PackageError, RequestError, SourceError, one_of
from tamiz.types import FloatArray, Progress, Task, Validation

__all__ = ["ZeroShotClassifier", "method_for"]

_ABOUT, _VECTORS = "zero_shot.json", "label_vectors.npz"
_DEFAULT_MODEL = "minilm"
_LENGTH = {"embedding": 256, "entailment": 1 << 20}  # the model's own limit is lower
_POLICY = {"embedding": "windows", "entailment": "head"}
# Contrastive training divides cosines by it: 0.05 in sentence-transformers, 0.01 in E5.
_TEMPERATURES = {"e5-small": 0.01, "tamiz-zero-shot-multilingual": 0.02}
_USUAL_TEMPERATURE = 0.05
_FEWEST = 20  # texts from which a prior can be told


def method_for(model: str, progress: Progress | None = None) -> Literal["embedding", "entailment"]:
    """Return the method that suits a model: `entailment` where one of its labels says so.

    Args:
        model: a name that `tamiz models` lists, a folder in Hugging Face layout, or a hub id.
        progress: told what takes long.

    Raises:
        ConfigError: there is no such model.
        SourceError: the model's files are damaged.
        MissingExtraError: the model is not on this machine; the message says how to get it.
    """
    from tamiz.encoders.checkpoint import config_of
    from tamiz.encoders.find import find

    try:
        nli_labels(config_of(find(model, progress=progress).folder), model)
    except NoEntailmentError:
        return "embedding"
    return "entailment"


class ZeroShotClassifier(base.Family[ZeroShotParams]):
    """A pretrained model that is told the labels and learns nothing.

    Args:
        labels: labels in order.
        task: what kind of answer is given.
        seed: of the draw of texts without labels.
        params: see `ZeroShotParams`.

    Raises:
        ConfigError: labels, descriptions or shares do not fit.
    """

    Params = ZeroShotParams
    tolerance = 1e-5

    def __init__(self, labels: Sequence[str], task: Task, *, seed: int = 0, **params: Any) -> None:
        super().__init__(labels, task, seed=seed, **params)
        self._tell(self.params)
        self._scorer: Scorer | None = None
        self._folder: Path | None = None  # of the model's files
        self._shift: FloatArray | None = None
        self._about: dict[str, Any] = {}

    @property
    def _multi_label(self) -> bool:
        return self.task is Task.MULTI_LABEL

    def _tell(self, params: ZeroShotParams) -> None:
        """Take what parameters say of the labels."""
        for name in params.descriptions:
            if name not in self.labels:
                raise ConfigError(f"descriptions: {name!r} is no label; {one_of(name, self.labels)}")
        self.params = params
        self._shares = expected_shares(self.labels, params.shares, multi_label=self._multi_label)
        self._templates = params.templates or templates_of(params.method, params.languages)
        about: Any = {"descriptions": params.descriptions, "languages": params.languages}
        self.prompts: Prompts = prompts(self.labels, self._templates, **about)

    def fit(
        self,
        texts: Sequence[str],
        targets: NDArray[Any],
        *,
        validation: Validation | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Make the model ready and, if the parameters ask for it, adapt labels and correct the prior by the texts.

        Targets are checked and not used; neither is `validation`.

        Raises:
            LabelError: targets do not fit.
            ConfigError: there is no such model, or it does not suit the method.
            DataError: there are too few texts for what the parameters ask of them.
            SourceError: the model's files are damaged.
            MissingExtraError: the model or a library is not on this machine; the message says how to get it.
        """
        base.indicators(targets, len(self.labels), self.task, len(texts))
        return self.prepare(progress).settle(texts, progress)

    def prepare(self, progress: Progress | None = None) -> Self:
        """Find the model and make it ready; what `fit` does without any text.

        Raises:
            ConfigError: there is no such model, or it does not suit the method.
            SourceError: the model's files are damaged.
            MissingExtraError: the model or a library is not on this machine; the message says how to get it.
        """
        from tamiz.encoders.checkpoint import config_of
        from tamiz.encoders.find import find
        from tamiz.encoders.memory import ready

        chosen, entailment = self.params, self.params.method == "entailment"
        if chosen.model is None and entailment:
            raise ConfigError(
                "zero_shot: method entailment needs a model of natural language inference; "
                "give model: a folder, a name that `tamiz models` lists, or a hub id"
            )
        weights = find(chosen.model or _DEFAULT_MODEL, progress=progress)
        self._about = {
            "method": chosen.method,
            "model": weights.sha256,
            "prefix": weights.prefix if chosen.prefix is None else chosen.prefix,
            "max_length": chosen.max_length or _LENGTH[chosen.method],
            "long_texts": chosen.long_texts or _POLICY[chosen.method],
            "temperature": chosen.temperature
            or (1.0 if entailment else _TEMPERATURES.get(weights.name, _USUAL_TEMPERATURE)),
            "templates": list(self._templates),
        }
        if entailment:
            found = nli_labels(config_of(weights.folder), weights.name)
            self._about |= {"entailment": found.entailment, "contradiction": found.contradiction}
        head = "classification" if entailment else "embedding"
        self._folder = ready(weights, chosen.form, progress, head=head)
        self._open(self._folder)
        return self

    def _open(self, folder: Path, **vectors: Mapping[Any, FloatArray] | None) -> None:
        about, params = self._about, self.params
        reading: dict[str, Any] = {
            "form": params.form,
            "threads": params.num_threads,
            "prefix": about["prefix"],
            "max_length": about["max_length"],
            "policy": about["long_texts"],
            "overlap": params.window_overlap,
            "most": params.max_windows,
            "pooling": params.window_pooling,
        }
        if about["method"] == "entailment":
            nli = NliLabels(about["entailment"], about["contradiction"])
            self._scorer = EntailmentScorer(folder, nli=nli, **reading)
        else:
            self._scorer = EmbeddingScorer(folder, **vectors, **reading)
        self._scorer.check(self.prompts)

    def settle(self, texts: Sequence[str], progress: Progress | None = None) -> Self:
        """Move labels and settle the prior correction on texts without labels, as far as the parameters ask for it.

        Raises:
            DataError: there are fewer than 20 texts.
        """
        asked = self.params.of_texts
        if not asked:
            return self
        if len(texts) < _FEWEST:
            raise DataError(
                f"{' and '.join(asked)}: {_FEWEST} texts are needed to tell what they are like, and there are "
                f"{len(texts)}; give more, or leave it out"
            )
        drawn = np.random.default_rng(self._seed).permutation(len(texts))[: self.params.unlabelled_texts]
        some = [texts[place] for place in np.sort(drawn)]
        scorer, temperature = self.scorer, self._about["temperature"]
        if isinstance(scorer, EmbeddingScorer):
            reading = scorer.remembering() if self.params.remember else scorer
            read = list(reading.read(some, progress))
            if "adapt" in asked:
                self._scorer = scorer = scorer.adapt(read, self.prompts, temperature=temperature)
            if "prior" in asked:
                self._settle_prior(scorer.scores_of(read, self.prompts, multi_label=self._multi_label))
        else:
            about: dict[str, Any] = {"multi_label": self._multi_label, "progress": progress}
            self._settle_prior(scorer.scores(some, self.prompts, **about))
        return self

    def _settle_prior(self, scores: FloatArray) -> None:
        strength = self.params.prior_strength or (1.0 if self.params.shares else USUAL_STRENGTH)
        about: Any = {"temperature": self._about["temperature"], "multi_label": self._multi_label, "strength": strength}
        self._shift = shifts(scores, self._shares, **about)

    @property
    def scorer(self) -> Scorer:
        """What scores texts."""
        if self._scorer is None:
            raise RuntimeError("the classifier is not ready; call fit or prepare first")
        return self._scorer

    def remembering(self) -> Self:
        """Return a classifier that reads each text once, as far as a model of sentences reads it and `remember` holds.

        It shares the model with this one, and keeps what that says of texts in the user's cache.
        """
        if not (self.params.remember and isinstance(self.scorer, EmbeddingScorer)):
            return self
        other = copy.copy(self)
        other._scorer = self.scorer.remembering()
        return other

    def with_labels(
        self,
        labels: Sequence[str],
        *,
        template: str | Sequence[str] | None = None,
        multi_label: bool = False,
        descriptions: Mapping[str, str] | None = None,
        shares: Mapping[str, float] | None = None,
    ) -> Self:
        """Return a classifier for other labels, which shares the model with this one.

        What texts without labels settled is kept where all labels are among those it was settled for, with the same
        sentences, and the prior correction in the same kind of task; other labels have none until `settle` is called.

        Args:
            labels: one or more, all different.
            template: sentence in which `{}` stands for the label, or several; by default those of this classifier.
            multi_label: whether each label is answered by itself; so is one label alone.
            descriptions: what to say instead of some labels; by default what this classifier says of them.
            shares: how frequent some labels are expected to be; by default what this classifier expects, where all
                labels are among its own.

        Raises:
            RequestError: there is no label, one stands twice or is blank, a template has no `{}`, or a description is
                of no label.
        """
        labels = tuple(labels) if not isinstance(labels, str) else (labels,)
        _check_asked(labels)
        other = copy.copy(self)
        other.labels = labels
        # One label alone is told from its contrary, as by Transformers' pipeline.
        several = Task.BINARY if self.task is Task.BINARY and labels == self.labels else Task.MULTI_CLASS
        other.task = Task.MULTI_LABEL if multi_label or len(labels) == 1 else several
        said = self.params.descriptions if descriptions is None else descriptions
        update: dict[str, Any] = {
            "descriptions": {name: one for name, one in said.items() if descriptions or name in labels},
            "shares": dict(self._shares_for(labels) if shares is None else shares),
        }
        try:
            if template is not None:
                update["templates"] = (template,) if isinstance(template, str) else tuple(template)
                check_templates(update["templates"])
            other._tell(self.params.model_copy(update=update))
            self.scorer.check(other.prompts)
        except ConfigError as error:
            raise RequestError(str(error)) from error
        other._shift = self._shift_for(other)
        other._about = {**self._about, "templates": list(other._templates)}
        return other

    def _shares_for(self, labels: Sequence[str]) -> Mapping[str, float]:
        if not set(labels) <= set(self.labels):
            return {}
        return {name: share for name, share in self.params.shares.items() if name in labels}

    def _shift_for(self, other: Self) -> FloatArray | None:
        if self._shift is None or other._multi_label != self._multi_label or not set(other.labels) <= set(self.labels):
            return None
        places = [self.labels.index(label) for label in other.labels]
        same = other.prompts.sentences == tuple(self.prompts.sentences[place] for place in places)
        return self._shift[places] if same else None

    @property
    def passes(self) -> int:
        """How often the network reads a text: once, or beside each sentence about each label."""
        return sum(map(len, self.prompts.sentences)) if self.params.method == "entailment" else 1

    def facts(self) -> Mapping[str, Any]:
        """Return the model's checksum, what is said of labels, how texts are read, and what came of texts alone."""
        shift = {} if self._shift is None else dict(zip(self.labels, self._shift.tolist(), strict=True))
        adapted = isinstance(self._scorer, EmbeddingScorer) and self._scorer.has_moved(self.prompts)
        return {**self._about, "adapted": adapted, "prior": shift}

    def predict_proba(self, texts: Sequence[str]) -> FloatArray:
        """Return probabilities `(n, k)`; rows sum to one unless labels are answered each by itself."""
        scores = self.scorer.scores(texts, self.prompts, multi_label=self._multi_label)
        if self._shift is not None:
            scores = scores - self._shift
        scores = np.asarray(scores / self._about["temperature"])
        if not len(texts):
            return scores
        return base.sigmoid(scores) if self._multi_label else base.softmax(scores)

    def save(self, folder: Path) -> None:
        """Write the model, its tokenizer, the vectors of the labels, parameters and what was settled.

        Raises:
            ConfigError: there is one label alone.
        """
        scorer = self.scorer
        base.check_labels(self.labels, self.task)
        self.write_settings(folder)
        assert self._folder is not None  # noqa: S101  # set with the scorer
        copy_model(self._folder, folder, MODEL)
        about = {**self._about}
        about["shift"] = None if self._shift is None else self._shift.tolist()
        if isinstance(scorer, EmbeddingScorer):
            said = [*self.prompts.flat(), *self.prompts.neutral]
            about["sentences"] = said
            kept: dict[str, Any] = {"vectors": scorer.vectors(said)}
            if scorer.has_moved(self.prompts):
                kept["moved"] = scorer.label_vectors(self.prompts)
            np.savez(folder / _VECTORS, **kept)
        (folder / _ABOUT).write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            PackageError: a file is missing or damaged.
            MissingExtraError: ONNX Runtime or tokenizers is not installed.
        """
        model = cls.from_settings(folder)
        try:
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            shift, sentences = about.pop("shift"), about.pop("sentences", None)
            model._about, model._folder = about, folder
            model._shift = None if shift is None else np.asarray(shift, np.float64)
            vectors: dict[str, Mapping[Any, FloatArray]] = {}
            if sentences is not None:
                kept = base.read_arrays(folder / _VECTORS)
                vectors["known"] = dict(zip(sentences, kept["vectors"], strict=True))
                if "moved" in kept:
                    vectors["moved"] = dict(zip(model.prompts.sentences, kept["moved"], strict=True))
            model._open(folder, **vectors)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SourceError) as error:
            raise PackageError(f"the zero-shot model's files are missing or damaged: {error}") from error
        return model


def _check_asked(labels: tuple[str, ...]) -> None:
    """Refuse labels that no answer can be given for.

    Raises:
        RequestError: there is none, one is no text or blank, or one stands twice.
    """
    if not labels:
        raise RequestError("labels: none is given; give one or more, such as candidate_labels: [sport, politics]")
    for place, label in enumerate(labels):
        if not isinstance(label, str) or not label.strip():
            raise RequestError(f"labels[{place}]: a label is a text that is not blank")
    if len(set(labels)) != len(labels):
        raise RequestError("labels: one stands twice; give each once")
