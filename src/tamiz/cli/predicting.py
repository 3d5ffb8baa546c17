"""`tamiz predict` and `tamiz explain`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import TextIOWrapper
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Annotated, Any, TextIO

import typer
from rich.text import Text

from tamiz.api import load
from tamiz.classifiers.occlusion import BUDGET_MS
from tamiz.cli.console import Terminal, errors, note, output, print_json, short
from tamiz.cli.labelling import (
    Adapt,
    Asked,
    Describe,
    InputPlace,
    Labels,
    Language,
    MultiLabel,
    Prior,
    Requests,
    Share,
    Template,
    answer_requests,
    is_pretrained,
    labelled,
)
from tamiz.cli.options import AsJson
from tamiz.errors import ConfigError, ModelNotFoundError, PackageError, RequestError, counted
from tamiz.model import Model, Prediction
from tamiz.rankings import sequence_answer
from tamiz.settings import read_project
from tamiz.types import Explanation

__all__ = ["explain", "predict"]

_PROJECT = Path("tamiz.yaml")
_LINES = 256  # lines of standard input answered at once
_SHOWN = 70  # characters of a text

Shape = Callable[[Model, Prediction, str], dict[str, Any]]
"""How an answer is written as JSON."""

_MODEL = "Package folder or archive, NAME@champion, NAME@3, STORE/NAME; by default the champion of ./tamiz.yaml."
_PRETRAINED = "With --labels also a pretrained model: a name of `tamiz models`, a folder, a hub id; by default minilm."


def chosen_model(ref: str | None, project: Path = _PROJECT) -> Model:
    """Load the model that was named, else the champion of the project."""
    if ref is not None:
        try:
            return load(ref)
        except (ModelNotFoundError, PackageError) as error:
            if not is_pretrained(ref):
                raise
            raise ConfigError(
                f"{ref} is a pretrained model, which has no labels of its own; give it some, such as --labels a,b,c"
            ) from error
    if not (project.is_file() or (project / "tamiz.yaml").is_file()):
        raise ConfigError("say which model with --model, or stand in the folder of a tamiz.yaml")
    found = read_project(project)
    return load(found.name, store=found.resolve(found.registry.store))


def predict(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; none reads lines from standard input.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help=f"{_MODEL} {_PRETRAINED}")] = None,
    project: Annotated[Path, typer.Option("--project", "-p", help="Project whose champion answers.")] = _PROJECT,
    input_: Annotated[str | None, typer.Option("--input", "-i", help="CSV, TSV, JSONL, Parquet or Excel file.")] = None,
    output_: Annotated[Path | None, typer.Option("--output", "-o", help="File to write, by its ending.")] = None,
    text_column: Annotated[str | None, typer.Option("--text-column", help="Column with the text.")] = None,
    encoding: Annotated[str | None, typer.Option("--encoding", help="Encoding of the input file.")] = None,
    requests: Requests = None,
    labels: Labels = None,
    multi_label: MultiLabel = False,
    template: Template = None,
    language: Language = None,
    describe: Describe = None,
    adapt: Adapt = False,
    prior: Prior = False,
    share: Share = None,
    as_json: AsJson = False,
) -> None:
    """Classify a text, lines of standard input, or a file; with --labels, into labels that nothing was trained for.

    Example: tamiz predict "Dull from start to end."

    Example: tamiz predict --input new.csv --output answers.csv

    Example: tamiz predict --labels "sport,politics,health" "The match was lost in the last minute."

    Example: tamiz predict --requests lines.jsonl --output answers.jsonl
    """
    _check_use(texts, input_, output_, requests, {"--text-column": text_column, "--encoding": encoding})
    if as_json and output_ is None and (input_ or requests):
        raise ConfigError("--json needs --output here; without it, standard output gets the answers as JSON lines")
    asked = Asked(labels, multi_label, template, language, describe, adapt, prior, share, requests is not None)
    if requests is not None:
        answer_requests(model, asked, requests, output_, as_json=as_json)
        return
    place = None if input_ is None else (input_, text_column, encoding)
    found = _asked_model(model, asked, project, place)
    shape: Shape = _sequence if asked.labels is not None else lambda model, answer, _: model.answer(answer)
    if input_ is not None:
        _predict_file(found, input_, output_, text_column, encoding, as_json=as_json)
    elif texts:
        answers = found.predict(texts)
        if as_json:
            print_json([shape(found, answer, text) for text, answer in zip(texts, answers, strict=True)])
        else:
            for text, answer in zip(texts, answers, strict=True):
                _show(text, answer)
    else:
        _predict_lines(found, _strict(sys.stdin), shape, as_json=as_json)


def _check_use(
    texts: list[str] | None,
    input_: str | None,
    output_: Path | None,
    requests: str | None,
    of_input: Mapping[str, str | None],
) -> None:
    """Refuse arguments that do not go together; `of_input` says something of the input."""
    if output_ is not None and input_ is None and requests is None:
        raise ConfigError("--output goes with --input or --requests")
    if input_ is not None and texts:
        raise ConfigError("give texts or --input, not both")
    if requests is not None and (texts or input_ is not None):
        raise ConfigError("give --requests without texts and --input")
    stray = [name for name, given in of_input.items() if given is not None]
    if input_ is None and stray:
        raise ConfigError(f"{stray[0]} goes with --input")


def _asked_model(ref: str | None, asked: Asked, project: Path, place: InputPlace | None) -> Model:
    """Load the model for labels of the moment, where there are some; else the one that was named, or the champion.

    Raises:
        ConfigError: a project is named beside labels, which it would not be asked for.
    """
    if asked.labels is None:
        return chosen_model(ref, project)
    if project != _PROJECT:
        raise ConfigError("--project does not go with --labels; give the model of one with --model")
    return labelled(ref, asked, place)


def _strict(lines: TextIO) -> TextIO:
    """Return standard input so that bytes which are no text are an error: in some locales Python takes them along."""
    if isinstance(lines, TextIOWrapper):
        lines.reconfigure(errors="strict")
    return lines


def _predict_lines(model: Model, lines: Iterable[str], shape: Shape, *, as_json: bool) -> None:
    """Answer one JSON document a line, in order; with `as_json`, all lines in one document in the end."""
    kept: list[dict[str, Any]] = []
    try:
        for batch in _as_they_come(lines):
            answers = (shape(model, answer, text) for text, answer in zip(batch, model.predict(batch), strict=True))
            if as_json:
                kept += answers
                continue
            for answer in answers:
                sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
            sys.stdout.flush()
    except UnicodeDecodeError as error:
        raise RequestError(
            f"standard input: the byte 0x{error.object[error.start]:02x} is not {error.encoding} text. "
            "Give a file instead: --input FILE --encoding NAME"
        ) from error
    if as_json:
        print_json(kept)


def _as_they_come(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield lines in lists of those that are there: whoever writes one and waits for its answer gets it.

    Raises:
        UnicodeDecodeError: from the lines.
    """
    there: Queue[str | BaseException | None] = Queue(_LINES)

    def read() -> None:
        try:
            for line in lines:
                there.put(line.rstrip("\r\n"))
            there.put(None)
        except BaseException as error:
            there.put(error)

    Thread(target=read, name="tamiz-lines", daemon=True).start()
    while True:
        batch: list[str] = []
        found = there.get()
        while isinstance(found, str):
            batch.append(found)
            if len(batch) == _LINES or there.empty():
                break
            found = there.get()
        if batch:
            yield batch
        if isinstance(found, BaseException):
            raise found
        if found is None:
            return


def _predict_file(
    model: Model, source: str, target: Path | None, column: str | None, encoding: str | None, *, as_json: bool
) -> None:
    from tamiz.batch import predict_file

    with Terminal(quiet=as_json or target is None) as terminal:
        terminal.started("predict")
        rows = predict_file(
            model, source, target or sys.stdout, column=column, encoding=encoding, progress=terminal.progress
        )
    if target is not None and as_json:
        print_json({"rows": rows, "output": str(target), "model": model.name, "version": model.version})
    elif target is not None:
        errors.print(f"{counted(rows, 'row')} answered in {target}")


def _sequence(model: Model, answer: Prediction, text: str) -> dict[str, Any]:
    """Return an answer as zero-shot pipelines give it."""
    return sequence_answer(text, model.labels, answer.probabilities)


def _show(text: str, answer: Prediction) -> None:
    if isinstance(answer.label, tuple):
        parts = zip(answer.label, answer.probability or (), strict=True)  # type: ignore[arg-type]
        said = ", ".join(f"{label} {p:.3f}" for label, p in parts) or "no label"
    elif answer.label is None:
        said = "no answer: too unsure"
    else:
        said = f"{answer.label} {answer.probability:.3f}"
    if answer.prediction_set is not None:
        said += f" (one of: {', '.join(answer.prediction_set) or 'none'})"
    output.print(f"{said:<24} {short(text, _SHOWN)}")


def explain(
    text: Annotated[str, typer.Argument(help="One text.")],
    label: Annotated[str | None, typer.Option("--label", help="Label to explain; by default the answer.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help=f"{_MODEL} {_PRETRAINED}")] = None,
    project: Annotated[Path, typer.Option("--project", "-p", help="Project whose champion answers.")] = _PROJECT,
    budget_ms: Annotated[
        float, typer.Option("--budget-ms", min=0, help="Time for leaving words out, where the family needs that.")
    ] = BUDGET_MS,
    labels: Labels = None,
    multi_label: MultiLabel = False,
    template: Template = None,
    language: Language = None,
    describe: Describe = None,
    as_json: AsJson = False,
) -> None:
    """Show which words of a text made the score of a label.

    The score is not the probability: it is on a scale of log-odds and before calibration. The base is what no word or
    sentence that was looked at accounts for.

    Example: tamiz explain "Dull from start to end."

    Example: tamiz explain --labels "sport,politics,health" "The match was lost in the last minute."
    """
    asked = Asked(labels, multi_label, template, language, describe)
    found = _asked_model(model, asked, project, None)
    explanation = found.explain(text, label, budget_ms=budget_ms)
    if not explanation.contributions and text.strip():
        note("no word or sentence was found to count; more --budget-ms may find some")
    parts: list[dict[str, Any]] = [
        {"start": c.start, "end": c.end, "text": text[c.start : c.end], "value": c.value}
        for c in explanation.contributions
    ]
    if as_json:
        print_json(
            {
                "label": explanation.label,
                "base": explanation.base,
                "score": explanation.score,
                "contributions": parts,
            }
        )
        return
    output.print(f"{explanation.label}: score {explanation.score:+.3f} = base {explanation.base:+.3f} + words")
    output.print(_coloured(text, explanation))
    for part in sorted(parts, key=lambda p: -abs(p["value"]))[:15]:
        output.print(f"  {part['value']:+.3f}  {part['text']}")


def _coloured(text: str, explanation: Explanation) -> Text:
    """Return the text with words for the label in green and against it in red."""
    coloured = Text(text)
    strongest = max((abs(c.value) for c in explanation.contributions), default=1.0)
    for c in explanation.contributions:
        strength = "bold " if abs(c.value) > strongest / 3 else ""
        coloured.stylize(strength + ("green" if c.value > 0 else "red"), c.start, c.end)
    return coloured
