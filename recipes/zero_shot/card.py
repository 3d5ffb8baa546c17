"""The model card: what stands between two marks of the package's README, from a record of the training and scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tamiz.errors import ConfigError

__all__ = ["render", "rewrite"]

BEGIN, END = "<!-- card: begin -->", "<!-- card: end -->"


def render(training: Mapping[str, Any], scores: Sequence[Mapping[str, Any]]) -> str:
    """Return the generated part of the card.

    Args:
        training: record of the shipped weights.
        scores: what `evaluate` gave, one a model; sets that a model was trained on are marked.
    """
    options = training["options"]
    sets = [f"| {name} | {one['rows']} | {one['terms']} |" for name, one in training["trained_on"].items()]
    pairs = [f"| NLI: {name} | | {terms} |" for name, terms in training["nli"].items()]
    head = [
        "## Training",
        "",
        f"{options['steps']} steps from {_start(training)}, seed {options['seed']}; {_kept(training['alpha'])}.",
        "",
        "| data | rows | terms |",
        "| --- | --- | --- |",
        *sets,
        *pairs,
        "",
        "## Scores",
        "",
        "Test parts, with `This text is about {}.`; *adapted*: `adapt` and `prior` by 500 other texts without labels. "
        "A set that was used in training is no zero-shot figure and is marked *seen*.",
        "",
        "| model | set | rows | accuracy | macro F1 | accuracy, adapted | texts/s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *(_row(one, name) for one in scores for name in one["sets"])])


def _start(training: Mapping[str, Any]) -> str:
    cut = training.get("cut")
    if cut is None:
        return f"`{training['options']['start']}`"
    return f"`{cut['start']}`, cut to the {cut['pieces']:,} pieces that {', '.join(cut['languages'])} need most"


def _kept(trained: float) -> str:
    """Say what the weights are a mean of."""
    if trained == 1:
        return "the trained weights are kept as they are"
    return f"{trained:g} of the trained weights and {1 - trained:g} of the starting ones are kept"


def _row(one: Mapping[str, Any], name: str) -> str:
    found = one["sets"][name]
    seen = " *seen*" if found["trained_on"] else ""
    adapted = f"{found['adapted']['accuracy']:.3f}" if "adapted" in found else "-"
    return (
        f"| {one.get('name', Path(one['model']).name)} | {name}{seen} | {found['rows']} | {found['accuracy']:.3f} | "
        f"{found['macro_f1']:.3f} | {adapted} | {found['texts_per_second']:.0f} |"
    )


def rewrite(readme: Path, training: Mapping[str, Any], scores: Sequence[Path]) -> None:
    """Put the generated part between the marks of a README.

    Raises:
        ConfigError: the README lacks a mark.
    """
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ConfigError(f"{readme} lacks the marks {BEGIN} and {END}, between which the card is written")
    made = render(training, [json.loads(path.read_text(encoding="utf-8")) for path in scores])
    start, rest = text.split(BEGIN, 1)
    readme.write_text(f"{start}{BEGIN}\n\n{made}\n\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")
