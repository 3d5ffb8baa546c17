"""Options that ask for labels of the moment, and the model that answers them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from tamiz.api import load
from tamiz.cli.console import Terminal, errors, note, print_json
from tamiz.errors import ConfigError, ModelNotFoundError, PackageError, counted, one_of
from tamiz.model import Model
from tamiz.package import MANIFEST_NAME
from tamiz.prompting import PromptLimits, prompted_model, split_labels

__all__ = [
    "DEFAULT_MODEL",
    "Adapt",
    "Asked",
    "Describe",
    "InputPlace",
    "Labels",
    "Language",
    "MultiLabel",
    "Prior",
    "Requests",
    "Share",
    "Template",
    "answer_requests",
    "is_pretrained",
    "labelled",
    "texts_of",
]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)
DEFAULT_MODEL = "minilm"
_UNTOLD = ("yes", "no")  # of a pretrained model that is told its labels line by line
_MOST_TEXTS = 5000  # held of a file, from which those that adapt labels and correct the prior are drawn

InputPlace = tuple[str, str | None, str | None]
"""A file, its text column if it is named, its encoding if it is stated."""

Labels = Annotated[
    str | None,
    typer.Option("--labels", help="Labels with commas between them, which nothing need have been trained for."),
]
MultiLabel = Annotated[bool, typer.Option("--multi-label", help="With --labels: answer each label by itself.")]
Template = Annotated[
    list[str] | None,
    typer.Option("--template", help="With --labels: sentence in which {} stands for the label; several are averaged."),
]
Language = Annotated[
    list[str] | None,
    typer.Option("--language", help="With --labels: language of the labels and of Tamiz' own sentences: en, es, fr."),
]
Describe = Annotated[
    list[str] | None,
    typer.Option("--describe", help="With --labels: LABEL=WORDS, what to say in the sentence instead of a label."),
]
Adapt = Annotated[
    bool,
    typer.Option("--adapt", help="With --labels and a file: move labels towards the texts that they fit best."),
]
Prior = Annotated[
    bool,
    typer.Option("--prior", help="With --labels and a file: correct scores of labels that fit every text."),
]
Share = Annotated[
    list[str] | None,
    typer.Option("--share", help="With --prior: LABEL=0.3, how frequent a label is expected to be."),
]
Requests = Annotated[
    str | None,
    typer.Option(
        "--requests",
        help='JSON lines to answer one by one, as {"inputs": TEXT, "parameters": {"candidate_labels": [...]}}; '
        "lines without labels get those of --labels. - reads standard input.",
    ),
]


@dataclass(frozen=True)
class Asked:
    """What a person asked for with labels.

    Attributes:
        labels: with commas between them; `None` for the model's own.
        multi_label: whether each label is answered by itself.
        templates: sentences; none for the model's own.
        languages: whose sentences are used; none for English.
        describe: descriptions of labels as `LABEL=WORDS`.
        adapt: whether labels move towards the texts of a file.
        prior: whether the texts of a file correct the scores.
        share: expected shares of labels as `LABEL=0.3`.
        by_line: whether texts may come with labels of their own.

    Raises:
        ConfigError: an option goes with `labels`, and there are none.
    """

    labels: str | None
    multi_label: bool
    templates: list[str] | None
    languages: list[str] | None
    describe: list[str] | None
    adapt: bool = False
    prior: bool = False
    share: list[str] | None = None
    by_line: bool = False

    def __post_init__(self) -> None:
        given = {
            "--multi-label": self.multi_label,
            "--template": self.templates,
            "--language": self.languages,
            "--describe": self.describe,
            "--adapt": self.adapt,
            "--prior": self.prior,
        }
        stray = [name for name, value in given.items() if value]
        if self.labels is None and stray and not self.by_line:
            raise ConfigError(f"{stray[0]} goes with --labels")
        if self.share and not self.prior:
            raise ConfigError("--share goes with --prior")

    def descriptions(self) -> dict[str, str]:
        """Return what to say of labels.

        Raises:
            ConfigError: one is not `LABEL=WORDS`.
        """
        pairs = [one.partition("=") for one in self.describe or ()]
        for label, sign, words in pairs:
            if not (label.strip() and sign and words.strip()):
                raise ConfigError("--describe: LABEL=WORDS is expected, such as --describe 'finance=money and saving'")
        return {label.strip(): words.strip() for label, _, words in pairs}

    def shares(self) -> dict[str, float]:
        """Return how frequent labels are expected to be.

        Raises:
            ConfigError: one is not `LABEL=NUMBER`.
        """
        found = {}
        for one in self.share or ():
            label, _, number = one.rpartition("=")
            try:
                found[label.strip()] = float(number)
            except ValueError:
                label = ""
            if not label.strip():
                raise ConfigError("--share: LABEL=NUMBER is expected, such as --share finance=0.3")
        return found

    def params(self) -> dict[str, Any]:
        """Return the parameters of the family `zero_shot` that were asked for; the others keep their defaults.

        Raises:
            ConfigError: a description is not `LABEL=WORDS`, or a share not `LABEL=NUMBER`.
        """
        asked: dict[str, Any] = {"templates": self.templates, "language": self.languages}
        asked |= {"descriptions": self.descriptions(), "shares": self.shares()}
        asked |= {name: "unlabelled" for name in ("adapt", "prior") if getattr(self, name)}
        return {name: value for name, value in asked.items() if value}

    def of_texts(self) -> str | None:
        """Return the option that learns from the texts of a file, if any."""
        return "--adapt" if self.adapt else "--prior" if self.prior else None


def labelled(ref: str | None, asked: Asked, place: InputPlace | None) -> Model:
    """Return the model that answers what was asked.

    Args:
        ref: a pretrained model (by default minilm), or a package or a model of a store whose family takes any labels.
        asked: what was asked.
        place: the file whose texts adapt labels and correct the prior.

    Raises:
        TamizError: there is no such model, or the labels or options cannot be used.
    """
    labels = split_labels(asked.labels or "")
    if not labels:
        raise ConfigError("--labels: none is given; give one or more, such as --labels sport,politics")
    PromptLimits().check((), labels)
    if place is None and (name := asked.of_texts()):
        raise ConfigError(f"{name} goes with --input: it learns from the texts of a file")
    if asked.adapt and len(labels) == 1:
        raise ConfigError("--adapt needs two labels or more: it looks at how they differ")
    ref = ref or DEFAULT_MODEL
    package = _package(ref)
    return _pretrained(ref, labels, asked, place) if package is None else _of_package(package, labels, asked)


def answer_requests(ref: str | None, asked: Asked, source: str, target: Path | None, *, as_json: bool) -> None:
    """Answer JSON lines that may have labels of their own, and say what became of them.

    Args:
        ref: as for `labelled`.
        asked: what was asked for lines that do not say.
        source: the file.
        target: file to write; `None` for standard output.
        as_json: whether to say it as JSON.

    Raises:
        TamizError: there is no such model, the file cannot be read, or the labels or options cannot be used.
        typer.Exit: no line could be answered.
    """
    from tamiz.batch import answer_request_file

    model, labels = _for_requests(ref or DEFAULT_MODEL, asked)
    about: dict[str, Any] = {"labels": labels, "multi_label": asked.multi_label or None}
    with Terminal(quiet=as_json or target is None) as terminal:
        terminal.started("requests")
        counts = answer_request_file(model, source, target or sys.stdout, **about, progress=terminal.progress)
    if target is not None and as_json:
        print_json({"lines": counts.lines, "failed": counts.failed, "output": str(target)})
    elif target is not None or counts.failed:
        place = "" if target is None else f" in {target}"
        said = f"{counted(counts.lines, 'line')} answered{place}"
        errors.print(f"{said}, {counts.failed:,} of them with an error")
    if 0 < counts.lines == counts.failed:
        raise typer.Exit(1)


def _for_requests(ref: str, asked: Asked) -> tuple[Model, tuple[str, ...] | None]:
    """Return the model, and the labels of lines that have none of their own; `None` for those of the model."""
    if asked.labels is not None:
        return labelled(ref, asked, None), None
    if name := asked.of_texts():
        raise ConfigError(f"{name} goes with --labels and --input")
    package = _package(ref)
    if package is None:
        if asked.describe:
            raise ConfigError("--describe goes with --labels: lines have labels of their own")
        return _pretrained(ref, _UNTOLD, asked, None), ()
    changed = asked.templates or asked.languages or asked.describe
    return (_of_package(package, package.labels, asked) if changed else package), None


def is_pretrained(ref: str) -> bool:
    """Tell whether a reference is a folder of weights or a name of `tamiz models`, and no package."""
    from tamiz.encoders.catalogue import CATALOGUE

    folder = Path(ref)
    if (folder / MANIFEST_NAME).is_file():
        return False
    # A folder one above the weights, too: what is said of it names the right one.
    return ref in CATALOGUE or any((*folder.glob("config.json"), *folder.glob("*/config.json")))


def _package(ref: str) -> Model | None:
    """Load a package, or say by `None` that the reference is one of a pretrained model."""
    from tamiz.encoders.catalogue import CATALOGUE

    folder = Path(ref)
    if is_pretrained(ref):
        return None
    try:
        return load(ref)
    except ModelNotFoundError as error:
        if _HUB_ID.fullmatch(ref) and not folder.exists():
            return None
        raise ModelNotFoundError(f"{error}. Pretrained models: {one_of(ref, CATALOGUE)}") from error
    except PackageError:
        if not _HUB_ID.fullmatch(ref) or folder.exists():
            raise
        return None


def _pretrained(ref: str, labels: tuple[str, ...], asked: Asked, place: InputPlace | None) -> Model:
    params = asked.params()
    _say_if_strange(ref, asked.languages or ())
    with Terminal() as terminal:
        terminal.started("labels")
        params["texts"] = _drawn(place) if place is not None and asked.of_texts() else ()
        params["progress"] = terminal.progress
        return prompted_model(labels, model=ref, multi_label=asked.multi_label, **params)


def _say_if_strange(ref: str, languages: Sequence[str]) -> None:
    """Say so where a model was not trained on the language of the labels, and which ones were."""
    from tamiz.classifiers.zero_shot_templates import LANGUAGES
    from tamiz.encoders.catalogue import CATALOGUE

    def reads(name: str) -> bool:
        of = CATALOGUE[name].languages
        return "multilingual" in of or set(languages) <= set(of)

    if set(languages) <= set(LANGUAGES) and ref in CATALOGUE and not reads(ref):
        others = " or ".join(f"--model {name}" for name in sorted(CATALOGUE, reverse=True) if reads(name))
        note(f"{ref} was not trained on {', '.join(languages)}; take {others}")


def _of_package(model: Model, labels: tuple[str, ...], asked: Asked) -> Model:
    for name, given in (("--language", asked.languages), ("--describe", asked.describe), (asked.of_texts(), True)):
        if name and given:
            raise ConfigError(f"{name} goes with a pretrained model, not with a package, which has its own settings")
    return model.with_labels(labels, template=asked.templates or None, multi_label=asked.multi_label)


def texts_of(place: InputPlace) -> list[str]:
    """Return the texts of a file.

    Raises:
        SourceError: the file cannot be read.
        ColumnError: the text column is not there.
    """
    return list(_texts(place))


def _texts(place: InputPlace) -> Iterator[str]:
    from tamiz.batch import read_texts

    source, column, encoding = place
    return read_texts(source, column=column or "text", encoding=encoding)


def _drawn(place: InputPlace) -> list[str]:
    """Return texts of a file that are not blank, drawn from all of it: its order may go by label or by time.

    Source: Vitter (1985), "Random sampling with a reservoir", algorithm R.
    """
    import numpy as np

    draw, kept = np.random.default_rng(0), list[str]()
    for number, text in enumerate(filter(str.strip, _texts(place))):
        if number < _MOST_TEXTS:
            kept.append(text)
        elif (at := int(draw.integers(number + 1))) < _MOST_TEXTS:
            kept[at] = text
    return kept
