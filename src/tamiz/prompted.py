"""What one question asks that may bring labels of its own: a line of a file, or of a body sent over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tamiz.errors import RequestError, one_of
from tamiz.model import Model
from tamiz.prompting import split_labels
from tamiz.types import Task

__all__ = ["NAMES", "SILENT", "Kind", "Prompted", "read_prompted"]

NAMES = {
    "inputs": "text",
    "text": "text",
    "candidate_labels": "labels",
    "labels": "labels",
    "hypothesis_template": "template",
    "template": "template",
    "multi_label": "multi_label",
    "id": "id",
}
"""What a key of a line, or of its `parameters`, says."""


class Kind(NamedTuple):
    """What lines must share to be answered together; `None` is what the model says by itself."""

    def labels_of(self, model: Model) -> tuple[str, ...]:
        """Return the labels that are asked for."""
        return model.labels if self.labels is None else self.labels

    def each(self, model: Model) -> bool:
        """Tell whether each label is answered by itself."""
        return model.task is Task.MULTI_LABEL if self.multi_label is None else self.multi_label

    def told(self, model: Model) -> Model:
        """Return the model that answers: told labels, template and task where something is said of them.

        Raises:
            RequestError: its labels are fixed, or labels or template cannot be used.
        """
        if self == SILENT:
            return model
        return model.with_labels(self.labels_of(model), template=self.template, multi_label=self.each(model))

    labels: tuple[str, ...] | None
    template: str | None
    multi_label: bool | None


SILENT = Kind(None, None, None)
"""What a line asks that says nothing of labels."""


@dataclass(frozen=True, slots=True)
class Prompted:
    """A question that was read.

    Attributes:
        texts: one or more.
        one: whether they were given as one text rather than a list.
        kind: for which labels.
        id: the asker's own name for it.
    """

    texts: list[str]
    one: bool
    kind: Kind
    id: Any

    @property
    def known(self) -> dict[str, Any]:
        """What comes back with the answer."""
        return {} if self.id is None else {"id": self.id}


def read_prompted(said: Mapping[str, Any], usual: Kind) -> Prompted:
    """Read a question from a JSON object.

    Args:
        said: the object.
        usual: what holds where it says nothing.

    Raises:
        RequestError: a key is unknown, missing or given twice, or a value is none that it may have.
    """
    rest = {key: value for key, value in said.items() if key not in ("parameters", "options")}
    parameters = said.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise RequestError("parameters: an object is expected")
    values: dict[str, Any] = {}
    for key, value in [*rest.items(), *parameters.items()]:
        name = NAMES.get(key)
        if name is None:
            raise RequestError(f"unknown key {key[:80]!r}; {one_of(key[:80], [*NAMES, 'parameters'])}")
        if name in values:
            raise RequestError(f"{name} is given twice, once as {key!r}; give it once")
        values[name] = value
    texts, one = _texts(values)
    return Prompted(texts, one, _kind(values, usual), values.get("id"))


def _texts(values: Mapping[str, Any]) -> tuple[list[str], bool]:
    """Return the texts of a line, and whether it is one text rather than a list."""
    given = values.get("text")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise RequestError("inputs: a text, or a list of one or more texts, is expected")
    return texts, isinstance(given, str)


def _kind(values: Mapping[str, Any], usual: Kind) -> Kind:
    labels, template, multi_label = (values.get(name) for name in ("labels", "template", "multi_label"))
    if labels is not None and not isinstance(labels, str | list):
        raise RequestError("candidate_labels: a list of labels, or one text with commas between them, is expected")
    if isinstance(labels, list) and not all(isinstance(label, str) for label in labels):
        raise RequestError("candidate_labels: every label must be a text")
    if template is not None and not isinstance(template, str):
        raise RequestError("hypothesis_template: a text is expected")
    if multi_label is not None and not isinstance(multi_label, bool):
        raise RequestError("multi_label: true or false is expected")
    return Kind(
        usual.labels if labels is None else split_labels(labels),
        template,
        usual.multi_label if multi_label is None else multi_label,
    )
