"""Questions as the doors that take several shapes read them, and their answers.

A question is texts and a style, which says how the answer to each is put. All questions of a request are answered
together, so that a body of a thousand lines costs one prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from tamiz.config import ServeConfig
from tamiz.errors import OverloadedError, RequestError, TooLargeError
from tamiz.prompting import PromptLimits
from tamiz.serving.limits import check_count, check_texts
from tamiz.serving.served import Served
from tamiz.types import Promptable

if TYPE_CHECKING:
    from tamiz.model import Model, Prediction
    from tamiz.serving.context import Context

__all__ = [
    "FRAME",
    "NATIVE",
    "RECORD",
    "Answer",
    "Prompt",
    "Question",
    "Style",
    "answer",
    "answer_each",
    "native_document",
]

LIMITS = PromptLimits()
"""What labels of the caller may cost, the same as a line of a file of requests."""

_LONG = 20_000  # characters of sentences about labels that are read within about the event loop's budget


@dataclass(frozen=True)
class Style:
    """How answers are put.

    Attributes:
        item: the answer to one text.
        whole: the document of all answers to a question.
    """

    item: Callable[[Model, str, Prediction], Any]
    whole: Callable[[Served, list[Any]], Any]


@dataclass(frozen=True)
class Prompt:
    """Labels that the caller chose, for models that take such.

    Attributes:
        labels: the labels.
        template: sentence in which `{}` stands for the label; `None`: the model's own.
        multi_label: whether each label is answered by itself.
    """

    labels: tuple[str, ...]
    template: str | None = None
    multi_label: bool = False


@dataclass(frozen=True)
class Question:
    """Texts to answer in one style, perhaps for labels that the caller chose."""

    texts: Sequence[str]
    style: Style
    prompt: Prompt | None = None
    place: int = 0
    """Of its first text among those of the request."""


@dataclass(frozen=True)
class Answer:
    """A question with what the model says to each of its texts."""

    question: Question
    served: Served
    predictions: Sequence[Prediction]

    def items(self) -> list[Any]:
        """Return the answer to each text."""
        model, style = self.served.model, self.question.style
        pairs = zip(self.question.texts, self.predictions, strict=True)
        return [style.item(model, text, prediction) for text, prediction in pairs]

    def whole(self) -> Any:
        """Return the document that answers the question."""
        return self.question.style.whole(self.served, self.items())

    def rows(self) -> list[dict[str, Any]]:
        """Return a row a text, in predict's columns."""
        return [self.served.model.record(prediction) for prediction in self.predictions]


def native_document(served: Served, items: list[Any]) -> dict[str, Any]:
    """Return the native document of such answers."""
    about = {"model": served.name, "version": served.version, "labels": served.model.labels}
    return {**about, "predictions": items}


def _record(model: Model, text: str, prediction: Prediction) -> dict[str, Any]:
    return model.record(prediction)


NATIVE = Style(lambda model, text, prediction: model.answer(prediction), native_document)
"""As the native door answers."""

FRAME = Style(_record, lambda served, items: {"predictions": items})
"""As MLflow's scoring server answers: a row of predict's columns a text."""

RECORD = Style(_record, lambda served, items: items[0])
"""A row of predict's columns for the one text."""


async def answer(context: Context, served: Served, question: Question) -> Answer:
    """Answer a question.

    Raises:
        TooLargeError: too many texts or labels, or a text too long.
        RequestError: candidate labels for a model whose labels are fixed, or labels that cannot be used.
    """
    (found,) = await answer_each(context, served, [question])
    if isinstance(found, RequestError):
        raise found
    return found


async def answer_each(context: Context, served: Served, questions: Sequence[Question]) -> list[Answer | RequestError]:
    """Answer questions with one model, those for the same labels in one go; in place of an answer, why there is none.

    Raises:
        TooLargeError: all of them together are too many.
    """
    _check_together(questions, context.limits)
    answers: dict[int, Answer | RequestError] = {}
    together: dict[Prompt | None, list[int]] = {}
    for place, question in enumerate(questions):
        try:
            _check(question, context.limits)
            together.setdefault(question.prompt, []).append(place)
        except RequestError as error:
            answers[place] = error
    for prompt, places in together.items():
        try:
            one = served if prompt is None else await _prompted(context, served, prompt)
        except OverloadedError:
            raise
        except RequestError as error:
            answers |= dict.fromkeys(places, error)
            continue
        texts = [text for place in places for text in questions[place].texts]
        asked_at = [questions[place].place + row for place in places for row in range(len(questions[place].texts))]
        predictions = await context.predict(one, texts, count=prompt is None, places=asked_at)
        begin = 0
        for place in places:
            end = begin + len(questions[place].texts)
            answers[place] = Answer(questions[place], one, predictions[begin:end])
            begin = end
    return [answers[place] for place in range(len(questions))]


def _check(question: Question, limits: ServeConfig) -> None:
    """Refuse texts that are too long, and labels that cost too much.

    Raises:
        TooLargeError: a limit is passed.
    """
    check_texts(question.texts, limits)
    if question.prompt is not None:
        LIMITS.check(question.texts, question.prompt.labels, template=question.prompt.template)


def _check_together(questions: Sequence[Question], limits: ServeConfig) -> None:
    """Refuse questions that cost too much together.

    Raises:
        TooLargeError: a limit is passed.
    """
    check_count(sum(len(question.texts) for question in questions), limits)
    if len(questions) < 2:  # which is checked by itself
        return
    asked = [(question, question.prompt) for question in questions]
    # Labels are read even where there is no text.
    pairs = sum(max(1, len(question.texts)) * len(prompt.labels) for question, prompt in asked if prompt is not None)
    if pairs > LIMITS.pairs:
        raise TooLargeError(
            f"{pairs} pairs of text and label in one request; at most {LIMITS.pairs} are allowed; ask in parts."
        )


async def _prompted(context: Context, served: Served, prompt: Prompt) -> Served:
    """Tell the model its labels: here when that is quick, else in its turn."""
    asked = partial(served.model.with_labels, prompt.labels, template=prompt.template, multi_label=prompt.multi_label)
    size = sum(map(len, prompt.labels)) + len(prompt.labels) * len(prompt.template or "")
    model = asked() if size <= _LONG else await context.line.call(served, asked, size)
    own, other = (one.classifier for one in (served.model, model))
    more = other.passes / own.passes if isinstance(own, Promptable) and isinstance(other, Promptable) else 1.0
    # Others' requests have other labels.
    return replace(served, model=model, inline_cost=0, batched=False, pace_s=served.pace_s * more)
