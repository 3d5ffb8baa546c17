"""What each step is made from, as a fingerprint: a step with the same one as last time is skipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tamiz.config import CandidateConfig, Project
from tamiz.data.corrections import load_corrections
from tamiz.data.readers import FileSource, open_source
from tamiz.encoders.find import content_of
from tamiz.pipeline.state import code_version, fingerprint

__all__ = [
    "clean_inputs",
    "encoders_of",
    "evaluate_inputs",
    "open_sources",
    "published_key",
    "split_inputs",
    "train_inputs",
]


def open_sources(project: Project) -> dict[str, FileSource | None]:
    """Return what the bronze tables `texts`, `test` and `unlabeled` are made from, `None` where the project names none.

    Args:
        project: the project, variables expanded.

    Raises:
        SourceError: a place holds no file that can be read.
    """
    data = project.data
    about: dict[str, Any] = {"encoding": data.encoding, "text": data.text, "label": data.label, "base": project.folder}
    named = {"texts": data.source, "test": data.test, "unlabeled": data.unlabeled}
    return {
        table: None if places is None else open_source([project.resolve(place) for place in places], **about)
        for table, places in named.items()
    }


def clean_inputs(project: Project, bronze: Mapping[str, Any]) -> str:
    """Return the fingerprint of what the silver tables are made from.

    Args:
        project: the project, variables expanded.
        bronze: versions of the tables `texts`, `test` and `unlabeled`.

    Raises:
        TamizError: the file of corrections cannot be read.
    """
    return fingerprint(
        bronze={name: bronze.get(name) for name in ("texts", "test", "unlabeled", "ids")},
        data=project.data.model_dump(exclude={"source", "test", "unlabeled", "encoding"}),
        labels=project.labels.model_dump(exclude={"corrections"}),
        corrections=load_corrections(project).digest,
        task=project.task,
        steps=project.clean,
        code=code_version(),
    )


def split_inputs(project: Project, silver: Mapping[str, Any]) -> str:
    """Return the fingerprint of what the gold tables are made from.

    Args:
        project: the project, variables expanded.
        silver: what `clean` came to.
    """
    return fingerprint(
        silver=[silver["table"], silver["version"]],
        split=project.split.model_dump(),
        labels=project.labels.model_dump(exclude={"corrections"}),
        own_test=project.data.test is not None,
        code=code_version(),
    )


def train_inputs(project: Project, gold: Mapping[str, Any], config: CandidateConfig) -> str:
    """Return the fingerprint of what a candidate is made from.

    Args:
        project: the project, variables expanded.
        gold: what `split` came to.
        config: the candidate, references to others resolved.
    """
    return fingerprint(
        gold=[gold["digest"], gold["version"]],
        labels=gold["labels"],
        positive=project.labels.positive,
        task=project.task,
        clean=project.clean,
        text=project.data.text,
        name=project.name,
        config=config.model_dump(),
        encoders=encoders_of(config.params),
        seed=project.split.seed,
        code=code_version(),
    )


def encoders_of(params: Any) -> dict[str, str]:
    """Return the content of each encoder that parameters name by a folder: it may be trained anew in its place.

    Args:
        params: parameters of a candidate, those of an ensemble's members among them.

    Raises:
        SourceError: a file cannot be read.
    """
    if isinstance(params, list):
        return {name: content for one in params for name, content in encoders_of(one).items()}
    if not isinstance(params, Mapping):
        return {}
    names = {value for key, value in params.items() if key in ("encoder", "model") and isinstance(value, str)}
    own = {name: content for name in sorted(names) if (content := content_of(name)) is not None}
    return own | {name: content for value in params.values() for name, content in encoders_of(value).items()}


def published_key(project: Project, candidate: str) -> str:
    """Return the fingerprint by which a version is known to be made from a candidate, given by its own."""
    return fingerprint(candidate=candidate, refit=project.select.refit)


def evaluate_inputs(project: Project, gold: Mapping[str, Any], candidate: str) -> str:
    """Return the fingerprint of what a version is chosen and published from.

    Args:
        project: the project, variables expanded.
        gold: what `split` came to.
        candidate: fingerprint of the winner.
    """
    return fingerprint(
        key=published_key(project, candidate),
        store=project.registry.store,
        mlflow=project.registry.mlflow,
        gold=gold["version"],
        select=project.select.model_dump(),
        report=project.report.model_dump(),
    )
