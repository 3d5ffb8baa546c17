"""Any labels for any text: a model of a pretrained one alone, and what a question with labels may cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tamiz.classifiers import check_params
from tamiz.classifiers.zero_shot import ZeroShotClassifier, method_for
from tamiz.cleaning import Cleaner
from tamiz.decision import Calibrator, DecisionRule
from tamiz.errors import TooLargeError
from tamiz.model import Model, new_manifest
from tamiz.types import Progress, Task

__all__ = ["PromptLimits", "prompted_model", "split_labels"]

_FAMILY = "zero_shot"
_START = ("yes", "no")  # a model is made before it is told its labels


@dataclass(frozen=True, slots=True)
class PromptLimits:
    """What one question with labels may cost.

    Attributes:
        labels: most labels.
        pairs: most texts times labels.
        characters: most of a text.
        sentence: most characters of a label in its template.
    """

    labels: int = 1000
    pairs: int = 100_000
    characters: int = 1_000_000
    sentence: int = 2000

    def check(
        self, texts: Sequence[str], labels: Sequence[str], *, template: str | Sequence[str] | None = None
    ) -> None:
        """Refuse what costs more.

        Args:
            texts: the texts.
            labels: the labels.
            template: sentence in which `{}` stands for the label, or several.

        Raises:
            TooLargeError: a limit is passed; the message names it.
        """
        if len(labels) > self.labels:
            raise TooLargeError(f"{len(labels)} labels; at most {self.labels} are allowed")
        if len(texts) * len(labels) > self.pairs:
            raise TooLargeError(
                f"{len(texts)} texts and {len(labels)} labels are {len(texts) * len(labels)} pairs; "
                f"at most {self.pairs} are allowed at once; ask in parts"
            )
        self._check_sentences(labels, ("{}",) if template is None else _several(template))
        for place, text in enumerate(texts):
            if len(text) > self.characters:
                raise TooLargeError(f"texts[{place}] has {len(text)} characters; at most {self.characters} are allowed")

    def _check_sentences(self, labels: Sequence[str], templates: Sequence[str]) -> None:
        """Refuse labels that make long sentences, before the sentences are made: a template may name a label often."""
        shapes = [(len(one), one.count("{}")) for one in templates]
        for place, label in enumerate(labels):
            size = max((length + places * (len(label) - 2) for length, places in shapes), default=0)
            if size > self.sentence:
                raise TooLargeError(
                    f"labels[{place}] has {size} characters in its template; at most {self.sentence} are allowed"
                )


def _several(template: str | Sequence[str]) -> Sequence[str]:
    return (template,) if isinstance(template, str) else template


def split_labels(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return labels from a list, or from one string with commas between them.

    Example:
        >>> split_labels("sport, food , ")
        ('sport', 'food')
    """
    if isinstance(given, str):
        return tuple(label.strip() for label in given.split(",") if label.strip())
    return tuple(given)


def prompted_model(
    labels: Sequence[str],
    *,
    model: str = "minilm",
    multi_label: bool = False,
    texts: Sequence[str] = (),
    progress: Progress | None = None,
    **params: Any,
) -> Model:
    """Return a model for labels that nothing was trained for.

    Args:
        labels: one or more, all different.
        model: pretrained model: a name that `tamiz models` lists, a folder in Hugging Face layout, or a hub id.
        multi_label: whether each label is answered by itself.
        texts: texts without labels, for what the parameters `adapt` and `prior` make of them.
        progress: told what takes long.
        params: further parameters of the family `zero_shot`; the method is the one that suits the model.

    Raises:
        ConfigError: there is no such model, or a parameter is wrong.
        RequestError: the labels or templates cannot be used.
        DataError: there are too few texts for `adapt` or `prior`.
        SourceError: the model's files are damaged.
        MissingExtraError: the model or a library is not on this machine; the message says how to get it.
    """
    chosen = {"method": method_for(model, progress), **params, "model": model}
    of_labels = {"descriptions": chosen.pop("descriptions", None), "shares": chosen.pop("shares", None)}
    checked = check_params(_FAMILY, chosen)
    # The family refuses one label alone and labels that stand twice in its own way; `with_labels` says what is asked.
    start = ZeroShotClassifier(_START, Task.MULTI_CLASS, **checked).prepare(progress)
    classifier = start.with_labels(labels, multi_label=multi_label, **of_labels).settle(texts, progress)
    task = classifier.task
    manifest = new_manifest(
        name="zero-shot",
        task=task,
        labels=classifier.labels,
        family=_FAMILY,
        params=classifier.params.model_dump(mode="json"),
        facts=dict(classifier.facts()),
    )
    plain = Cleaner(())
    return Model("zero-shot", classifier, plain, plain, Calibrator("none", task), DecisionRule(task), manifest)
