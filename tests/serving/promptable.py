"""A small classifier that answers for any labels: by the letters that a text shares with them."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np

from tamiz.model import Model
from tamiz.serving.app import create_app
from tamiz.serving.fixed import FixedModel
from tamiz.serving.served import Served
from tamiz.types import Task
from tests.serving.helpers import make_model

__all__ = ["promptable_app", "promptable_model"]


class Letters:
    """Scores are shares of a label's letters that the text has, after the template is filled in."""

    def __init__(self, labels, task):
        self.labels, self.task, self.template = tuple(labels), task, "{}"

    @property
    def passes(self):
        return len(self.labels)

    def with_labels(self, labels, *, template=None, multi_label=False):
        other = copy.copy(self)
        other.labels, other.task = tuple(labels), Task.MULTI_LABEL if multi_label else Task.MULTI_CLASS
        other.template = template or self.template
        return other

    def predict_proba(self, texts):
        prompts = [self.template.replace("{}", label) for label in self.labels]
        shares = np.array([[0.1 + np.mean([letter in text for letter in p]) for p in prompts] for text in texts])
        shares = shares.reshape(len(texts), len(prompts)) / 1.2
        return shares if self.task is Task.MULTI_LABEL else shares / shares.sum(axis=1, keepdims=True)


def promptable_model() -> Model:
    """Put a model together that takes candidate labels."""
    model = make_model()
    return replace(model, classifier=Letters(model.labels, model.task))


def promptable_app():
    """Give an application that serves this model, which is no package, under the name `demo`."""
    models = FixedModel(Path("unused"))
    models._one = Served("demo", None, promptable_model(), 10**6)
    return create_app(models)
