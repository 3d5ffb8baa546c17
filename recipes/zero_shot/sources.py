"""The training data: labelled sets and NLI pairs, which of them may be used, and reading them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recipes.zero_shot.words import Words, words_of
from tamiz.errors import ConfigError, TamizError, one_of

__all__ = [
    "NLI_SOURCES",
    "SETS",
    "LabelledSet",
    "NliPairs",
    "Source",
    "data_root",
    "fetched_snippets",
    "read_nli",
    "read_set",
    "read_sets",
]


@dataclass(frozen=True, slots=True)
class Source:
    """A labelled set.

    Attributes:
        file: below the data folder, with `{}` for the part.
        text: column.
        label: column; lists in multi-label sets.
        weight: how often it is drawn, relative to the others.
        terms: what its makers allow.
        commercial: `False` keeps it out of the training.
        leave: labels that are left out.
    """

    file: str
    text: str
    label: str
    weight: float
    terms: str
    commercial: bool = True
    leave: tuple[str, ...] = ()


def _topic(name: str, weight: float, terms: str, **more: Any) -> Source:
    return Source(f"topics/{name}/{{}}.parquet", "text", "label", weight, terms, **more)


SETS: Mapping[str, Source] = {
    "agnews": _topic("agnews", 1.0, "research and other non-commercial use", commercial=False),
    "imdb": Source("imdb/{}.parquet", "text", "label", 1.0, "free for research with citation; no formal licence"),
    "newsgroups": _topic("newsgroups", 1.5, "none stated"),
    "banking77": _topic("banking77", 1.0, "CC BY 4.0"),
    "clinc150": _topic("clinc150", 1.5, "CC BY 3.0", leave=("oos",)),
    "noticias_es": _topic("noticias_es", 0.5, "CC BY 4.0"),
    "movies": Source("movies/{}.parquet", "plot", "genres", 1.0, "no licence stated; teaching and research data"),
    "complaints": Source("complaints/{}.parquet", "narrative", "category", 1.0, "public data of the US government"),
    "film_snippets": Source("film_snippets.csv", "text", "label", 0.5, "MIT; the sentences are their authors'"),
}
"""Sets to train on; `resolutions` is none of them, so that there is always one that no training has seen."""

_TESTS: Mapping[str, Source] = {
    "resolutions": Source("resolutions/sample.parquet", "text", "category", 0.0, "never trained on", commercial=False)
}

NLI_SOURCES: Mapping[str, str] = {
    "mnli": "OANC terms, some fiction CC BY and CC BY-SA",
    "lingnli": "none stated; premises as MultiNLI",
    "snli": "CC BY-SA 4.0",
    "snli_cad": "Apache-2.0; SNLI part CC BY-SA 4.0",
    "wiki_base": "none stated; Wikipedia text CC BY-SA 3.0",
    "wiki_sim": "none stated; Wikipedia text CC BY-SA 3.0",
    "wiki_translate": "none stated; Wikipedia text CC BY-SA 3.0",
    "breaking_nli": "CC BY-SA 4.0",
    "med": "CC BY-SA 4.0",
    "conjnli": "MIT",
    "commitment_bank": "none stated",
}
"""Sources of NLI pairs that are used, with their terms; what is not listed, such as `sick` (CC BY-NC-SA), never is."""


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Texts and the places of their labels.

    Attributes:
        name: of the set.
        texts: the texts.
        targets: of each text, places in `labels`.
        labels: in order.
        words: what is said of them.
        weight: how often the set is drawn.
    """

    name: str
    texts: tuple[str, ...]
    targets: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...]
    words: Words
    weight: float


@dataclass(frozen=True, slots=True)
class NliPairs:
    """Premises with what follows from each, and what contradicts it (perhaps nothing)."""

    premises: tuple[str, ...]
    entailed: tuple[tuple[str, ...], ...]
    contradicted: tuple[tuple[str, ...], ...]


def data_root() -> Path:
    """Return the folder that `TAMIZ_DATA` names.

    Raises:
        ConfigError: it is not set, or names no folder.
    """
    named = os.environ.get("TAMIZ_DATA")
    if not named or not Path(named).is_dir():
        raise ConfigError("the recipe needs its data: set TAMIZ_DATA to the folder that holds nli/, topics/, imdb/ ...")
    return Path(named)


def read_sets(
    root: Path,
    without: Iterable[str] = (),
    *,
    film_snippets: Path | None = None,
    languages: Sequence[str] = ("en",),
) -> list[LabelledSet]:
    """Read the training part of every set that may be used commercially and is not left out.

    Args:
        root: the data folder.
        without: names of sets to leave out.
        film_snippets: `film_snippets.csv`; without it the set is left out.
        languages: of the words for labels.

    Raises:
        ConfigError: a name to leave out is unknown, or a file is missing.
    """
    without = set(without)
    for name in without:
        if name not in SETS:
            raise ConfigError(f"--without: there is no set {name!r}; {one_of(name, SETS)}")
    found = []
    for name, source in SETS.items():
        if name in without or not source.commercial or (name == "film_snippets" and film_snippets is None):
            continue
        found.append(read_set(root, name, film_snippets=film_snippets, languages=languages))
    return found


def read_set(
    root: Path,
    name: str,
    part: str = "train",
    *,
    film_snippets: Path | None = None,
    languages: Sequence[str] = ("en",),
) -> LabelledSet:
    """Read one set.

    Args:
        root: the data folder.
        name: of the set.
        part: `train` or `test`.
        film_snippets: path of that set.
        languages: of the words for labels.

    Raises:
        ConfigError: there is no such set, or its file is missing.
    """
    known = {**SETS, **_TESTS}
    if name not in known:
        raise ConfigError(f"there is no set {name!r}; {one_of(name, known)}")
    source = known[name]
    path = root / source.file.format(part)
    if name == "film_snippets":
        path = film_snippets or path
    if not path.is_file():
        raise ConfigError(f"the set {name} has no part {part!r}: there is no {path.name} in {path.parent.name}/")
    rows = (pl.read_csv if path.suffix == ".csv" else pl.read_parquet)(path, columns=[source.text, source.label])
    texts, given = rows[source.text].to_list(), rows[source.label].to_list()
    answers = [tuple(one) if isinstance(one, list) else (one,) for one in given]
    labels = tuple(sorted({label for one in answers for label in one} - set(source.leave)))
    places = {label: place for place, label in enumerate(labels)}
    kept = [
        (text, tuple(places[label] for label in one if label in places))
        for text, one in zip(texts, answers, strict=True)
        if text and text.strip() and any(label in places for label in one)
    ]
    words = words_of(name, labels, languages)
    return LabelledSet(name, tuple(t for t, _ in kept), tuple(a for _, a in kept), labels, words, source.weight)


def read_nli(path: Path) -> NliPairs:
    """Read NLI pairs of the sources in `NLI_SOURCES` by premise, leaving out premises from which nothing follows.

    Raises:
        ConfigError: the file is missing.
    """
    if not path.is_file():
        raise ConfigError(f"there are no NLI pairs: {path.name} is missing in {path.parent.name}/")
    rows = pl.read_parquet(path).filter(pl.col("source").is_in(list(NLI_SOURCES)))
    grouped: dict[str, tuple[list[str], list[str]]] = {}
    for premise, hypothesis, label in rows.select("premise", "hypothesis", "label").iter_rows():
        sides = grouped.setdefault(premise, ([], []))
        if label != "neutral":
            sides[label == "contradiction"].append(hypothesis)
    kept = {premise: sides for premise, sides in grouped.items() if sides[0]}
    return NliPairs(
        tuple(kept), tuple(tuple(yes) for yes, _ in kept.values()), tuple(tuple(no) for _, no in kept.values())
    )


def fetched_snippets(folder: Path, say: Any = print) -> Path | None:
    """Return the film snippets, fetched into `folder` if need be; say so and return None where they cannot be had."""
    from tamiz.data.film_snippets import fetch_film_snippets

    path = folder / "film_snippets.csv"
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return fetch_film_snippets(folder)
    except TamizError as error:
        say(f"film_snippets are left out: {error}")
        return None
