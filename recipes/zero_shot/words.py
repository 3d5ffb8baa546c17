"""What is said of labels: hand-written words by set, and the sentences they go into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tamiz.errors import ConfigError

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


def words_of(name: str, labels: tuple[str, ...], languages: Sequence[str] = ("en",)) -> Words:
    """Return what is said of the labels of a set.

    Labels without hand-written words get those of their names; a language without words for the set is left out.

    Args:
        name: of the set.
        labels: in order.
        languages: codes, English first.

    Raises:
        ConfigError: English is not the first, or there are no words in a language.
    """
    if list(languages[:1]) != ["en"]:
        raise ConfigError(f"--languages: {', '.join(languages) or 'none'}; English comes first, such as en,es")
    kind = _read("en")["sets"].get(name, {}).get("kind", "topic")
    phrases, templates = [], []
    for language in languages:
        found = _read(language)
        said = found["sets"].get(name, {})
        if language == "en":
            said = said.get("labels", {})
        elif not said:
            continue
        phrases.append(tuple(tuple(said.get(label) or (plain(label),)) for label in labels))
        templates.append(tuple(found["templates"].get(kind) or found["templates"]["topic"]))
    return Words(tuple(phrases), tuple(templates))


@cache
def _read(language: str) -> dict[str, Any]:
    path = _FILE if language == "en" else _FILE.with_stem(f"{_FILE.stem}_{language}")
    if not path.is_file():
        raise ConfigError(f"--languages: there are no words for labels in {language!r}; take en, es or fr")
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found
