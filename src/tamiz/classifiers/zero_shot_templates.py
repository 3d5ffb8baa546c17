"""Sentences about labels: templates by language, and filling them in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from tamiz.errors import ConfigError

__all__ = ["LANGUAGES", "TEMPLATES", "Language", "Prompts", "check_templates", "prompts", "templates_of"]

Language = Literal["en", "es", "fr"]
LANGUAGES: tuple[str, ...] = get_args(Language)

_PLACE = "{}"

TEMPLATES: dict[str, dict[Language, tuple[str, ...]]] = {
    # The first one of English is the default of Transformers' zero-shot pipeline.
    "entailment": {
        "en": ("This example is {}.",),
        "es": ("Este ejemplo es {}.",),
        "fr": ("Ce texte parle de {}.",),
    },
    "embedding": {
        "en": ("This text is about {}.",),
        "es": ("Este texto trata de {}.",),
        "fr": ("Ce texte parle de {}.",),
    },
}
"""Templates by method and language; several of one language are averaged."""

_NEUTRAL: dict[Language, str] = {"en": "something", "es": "algo", "fr": "quelque chose"}


@dataclass(frozen=True, slots=True)
class Prompts:
    """What is said of labels.

    Attributes:
        sentences: of each label, one a template.
        neutral: the templates filled in with a word that fits any text.
    """

    sentences: tuple[tuple[str, ...], ...]
    neutral: tuple[str, ...]

    def flat(self) -> list[str]:
        """Return the sentences of all labels, one label after the other."""
        return [sentence for one in self.sentences for sentence in one]


def check_templates(templates: Sequence[str]) -> None:
    """Refuse templates without a place for the label.

    Raises:
        ConfigError: there is none, or one has no `{}`.
    """
    if not templates:
        raise ConfigError("template: none is given; give one or more, such as 'This text is about {}.'")
    if any(_PLACE not in template for template in templates):
        raise ConfigError("template: it has no {}, where the label goes; write for example 'This text is about {}.'")


def templates_of(method: str, languages: Sequence[Language]) -> tuple[str, ...]:
    """Return the templates of a method in some languages, each once."""
    return tuple(dict.fromkeys(one for language in languages for one in TEMPLATES[method][language]))


def prompts(
    labels: Sequence[str],
    templates: Sequence[str],
    *,
    descriptions: Mapping[str, str],
    languages: Sequence[Language],
) -> Prompts:
    """Fill in templates, literally: braces in a label mean nothing.

    Args:
        labels: labels in order.
        templates: each with `{}`.
        descriptions: what stands in the place of some labels.
        languages: of the neutral words.

    Raises:
        ConfigError: there is no template, or one has no `{}`.

    Example:
        >>> prompts(["a {x.y}"], ["It is {}."], descriptions={}, languages=["en"]).sentences
        (('It is a {x.y}.',),)
    """
    check_templates(templates)
    said = [descriptions.get(label, label) for label in labels]
    return Prompts(
        tuple(tuple(template.replace(_PLACE, one) for template in templates) for one in said),
        tuple(template.replace(_PLACE, _NEUTRAL[language]) for template in templates for language in languages),
    )
