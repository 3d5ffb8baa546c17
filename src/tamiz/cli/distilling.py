"""`tamiz distill`: a small model of a large one, from texts without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tamiz.cli.console import Terminal, errors, figure, note, output, print_json, table
from tamiz.cli.labelling import (
    Adapt,
    Asked,
    Describe,
    Labels,
    Language,
    MultiLabel,
    Prior,
    Share,
    Template,
    labelled,
    texts_of,
)
from tamiz.cli.options import AsJson, check_new
from tamiz.errors import ConfigError, LabelError, one_of
from tamiz.model import Model
from tamiz.prompting import split_labels
from tamiz.types import Task

if TYPE_CHECKING:
    from tamiz.pipeline.distill import Distilled, Report, Sample

__all__ = ["distill"]

_GOOD_AGREEMENT = 0.8  # of student and teacher; on news topics both families reach more
_SIMILAR = "few_shot"  # reads texts by an encoder, as most teachers do


def distill(
    input_: Annotated[str, typer.Option("--input", "-i", help="File of texts without labels.")],
    output_: Annotated[Path, typer.Option("--output", "-o", help="Folder of the student's package; must not exist.")],
    labels: Labels = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Teacher: as for `tamiz predict --labels`; by default minilm."),
    ] = None,
    multi_label: MultiLabel = False,
    template: Template = None,
    language: Language = None,
    describe: Describe = None,
    adapt: Adapt = False,
    prior: Prior = False,
    share: Share = None,
    family: Annotated[
        str, typer.Option("--family", help="Family of the student, such as linear or few_shot.")
    ] = "linear",
    sample: Annotated[str | None, typer.Option("--sample", help="File of labelled texts to measure by.")] = None,
    text_column: Annotated[
        str | None, typer.Option("--text-column", help="Column with the text, in both files.")
    ] = None,
    label_column: Annotated[
        str, typer.Option("--label-column", help="Column of the sample with the label; multi-label: commas between.")
    ] = "label",
    encoding: Annotated[str | None, typer.Option("--encoding", help="Encoding of the files.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the split and of the fit.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Label texts with a zero-shot model and train a small, fast student on its surer answers.

    Example: tamiz distill --input texts.csv --labels "sport,politics,health" --output student
    """
    from tamiz.pipeline.distill import distill as run

    if labels is None:
        raise ConfigError("--labels is needed, such as --labels sport,politics,health")
    if len(split_labels(labels)) == 1:
        raise ConfigError("--labels: two or more are needed, between which a student can tell")
    check_new(output_)
    asked = Asked(labels, multi_label, template, language, describe, adapt, prior, share)
    place = (input_, text_column, encoding)
    teacher = labelled(model, asked, place)
    measured = None if sample is None else _sample(teacher, (sample, text_column, encoding), label_column)
    with Terminal(quiet=as_json) as terminal:
        terminal.started("distill")
        done = run(
            teacher,
            texts_of(place),
            family=family,
            name=output_.name,
            sample=measured,
            seed=seed,
            progress=terminal.progress,
        )
    done.student.save(output_)
    if as_json:
        print_json({"output": str(output_), **done.report.to_dict()})
    else:
        _show(done, output_)


def _sample(teacher: Model, place: tuple[str, str | None, str | None], column: str) -> Sample:
    """Read labelled texts; rows without a label are left out.

    Raises:
        LabelError: a label is none of the teacher's, or no row has one.
    """
    import numpy as np

    from tamiz.batch import read_columns
    from tamiz.pipeline.distill import Sample

    source, text, encoding = place
    several = teacher.task is Task.MULTI_LABEL
    texts: list[str] = []
    rows: list[list[int]] = []
    for said, given in read_columns(source, (text or "text", column), encoding=encoding):
        if given is None or given == "":
            continue
        names = given if isinstance(given, list) else [part.strip() for part in str(given).split(",")]
        names = [] if names in (["[]"], ["-"]) and several else names  # as a ladder writes none, and as people do
        rows.append([_number(teacher, str(name)) for name in (names if several else [given])])
        texts.append("" if said is None else str(said))
    if not rows:
        raise LabelError(f"{source}: no row has a label in the column {column!r}")
    if not several:
        return Sample(texts, np.array([row[0] for row in rows], np.int64))
    has = np.zeros((len(rows), len(teacher.labels)), np.bool_)
    for line, row in enumerate(rows):
        has[line, row] = True
    return Sample(texts, has)


def _number(teacher: Model, label: str) -> int:
    if label not in teacher.labels:
        raise LabelError(f"--sample: unknown label {label[:80]!r}; {one_of(label[:80], teacher.labels)}")
    return teacher.labels.index(label)


def _show(done: Distilled, folder: Path) -> None:
    report = done.report
    columns = ("", "teacher", "student")
    output.print(table(f"{report.texts:,} texts learnt from", columns, _rows(report)))
    output.print(
        f"on {report.held_out:,} texts held out, the student gives the teacher's answer to {report.agreement:.1%}"
    )
    if report.agreement < _GOOD_AGREEMENT:
        note(f"the student often differs from its teacher; {_remedy(done)}")
    errors.print(f"student in {folder}; ask it with: tamiz predict --model {folder} TEXT")


def _remedy(done: Distilled) -> str:
    family = done.student.manifest.family
    return "more texts help" + ("" if family == _SIMILAR else f", and so may --family {_SIMILAR}")


def _rows(report: Report) -> list[tuple[str, str, str]]:
    words = {"latency_p50_ms": "ms a text", "texts_per_s": "texts/s", "size_mb": "MB"}
    rows = []
    for name in report.quality.get("student", {}):
        shown: list[Any] = [report.quality[who][name] for who in ("teacher", "student")]
        cells = [figure(one["value"], one["interval"]) for one in shown]
        rows.append((f"{name} on {report.sample:,} labelled", cells[0], cells[1]))
    for name, word in words.items():
        rows.append((word, figure(report.speed["teacher"][name]), figure(report.speed["student"][name])))
    return rows
