"""What is said of labels: hand-written words by set, and the sentences they go into."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

__all__ = ["Words", "plain", "words_of"]

_FILE = Path(__file__).with_name("labels.yaml")


@dataclass(frozen=True, slots=True)
class Words:
    """What is said of the labels of one set.

    Attributes:
        phrases: of each label in order, the plainest first; one such list a language.
        templates: of each language; each has `{}`.
    """

    phrases: tuple[tuple[tuple[str, ...], ...], ...]
    templates: tuple[tuple[str, ...], ...]

    def first(self) -> list[str]:
        """Return the plainest words of each label."""
        return [of_label[0] for of_label in self.phrases[0]]

    def sentences(self, labels: np.ndarray, rng: np.random.Generator) -> list[str]:
        """Return a sentence about each label of `labels` (places): one template for all, words drawn for each."""
        language = int(rng.integers(len(self.phrases)))
        template = self.templates[language][rng.integers(len(self.templates[language]))]
        drawn = [self.phrases[language][label] for label in labels.tolist()]
        return [template.replace("{}", one[rng.integers(len(one))]) for one in drawn]


def plain(label: str) -> str:
    """Turn an identifier into words.

    Example:
        >>> plain("reverted_card_payment?")
        'reverted card payment'
    """
    return " ".join(label.replace("_", " ").replace("?", " ").split()).lower()


def words_of(name: str, labels: tuple[str, ...]) -> Words:
    """Return what is said of the labels of a set; labels without hand-written words get those of their names."""
    about = _read()["sets"].get(name, {})
    templates, kind = _read()["templates"], about.get("kind", "topic")
    languages = {"en": about.get("labels", {})}
    if "spanish" in about:
        languages["es"] = about["spanish"]
    return Words(
        tuple(tuple(tuple(said.get(label) or (plain(label),)) for label in labels) for said in languages.values()),
        tuple(tuple(templates[language].get(kind) or templates[language]["topic"]) for language in languages),
    )


@cache
def _read() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return found
