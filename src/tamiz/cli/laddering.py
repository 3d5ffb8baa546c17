"""`tamiz ladder`: from labels alone to a trained model, one batch of labels after the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tamiz.cli.console import Terminal, errors, figure, note, output, print_json, short, table
from tamiz.cli.labelling import (
    DEFAULT_MODEL,
    Adapt,
    Asked,
    Describe,
    Labels,
    Language,
    MultiLabel,
    Prior,
    Share,
    Template,
    texts_of,
)
from tamiz.cli.options import AsJson, DryRun
from tamiz.cli.projects import project_name
from tamiz.errors import ConfigError
from tamiz.prompting import split_labels
from tamiz.settings import read_project
from tamiz.types import Task

if TYPE_CHECKING:
    from tamiz.pipeline.ladder import Begin, Step

__all__ = ["ladder"]

_SHOWN = 60  # characters of an example


def ladder(
    place: Annotated[str, typer.Argument(help="File of texts without labels to begin with; then the ladder's folder.")],
    labels: Labels = None,
    output_: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to make; by default named after the file.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Pretrained model of zero-shot; by default minilm.")
    ] = None,
    multi_label: MultiLabel = False,
    template: Template = None,
    language: Language = None,
    describe: Describe = None,
    adapt: Adapt = False,
    prior: Prior = False,
    share: Share = None,
    text_column: Annotated[str | None, typer.Option("--text-column", help="Column with the text.")] = None,
    encoding: Annotated[str | None, typer.Option("--encoding", help="Encoding of the file.")] = None,
    batch: Annotated[
        int | None, typer.Option("--batch", help="To begin: texts to label at a time; default 20.")
    ] = None,
    random_share: Annotated[
        float | None,
        typer.Option("--random-share", help="To begin: share of them drawn at random, to measure by; default 0.5."),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option("--alpha", help="To begin: error probability of a comparison of rungs; default 0.05."),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="To begin: seed of every draw; default 0.")] = None,
    answers: Annotated[
        list[Path] | None,
        typer.Option("--answers", help="With a folder: table of label and id or text to take in."),
    ] = None,
    correct: Annotated[
        bool, typer.Option("--correct", help="With a folder: take other labels for texts that have one already.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Begin with texts and labels alone, see what zero-shot would do, and climb as labels come.

    What is asked for at the beginning holds for good; with the ladder's folder only --answers and --correct are taken.

    Example: tamiz ladder texts.csv --labels "sport,politics,health"
    """
    from tamiz.pipeline.ladder import begin, is_ladder

    asked = Asked(labels, multi_label, template, language, describe, adapt, prior, share)
    began = is_ladder(Path(place))
    if began:
        only: dict[str, Any] = {"--labels": labels, "--output": output_, "--model": model, "--text-column": text_column}
        only |= {"--encoding": encoding, "--batch": batch, "--random-share": random_share}
        only |= {"--alpha": alpha, "--seed": seed}
        _refuse(
            only, f"{place} was begun already, and its settings stay; name another folder with --output to begin anew"
        )
        folder = Path(place)
    else:
        _refuse({"--answers": answers, "--correct": correct or None}, "they go with the folder of a ladder")
        if labels is None:
            raise ConfigError("--labels is needed to begin, such as --labels sport,politics,health")
        folder = output_ or Path(f"{Path(place).name.partition('.')[0]}-ladder")
        numbers = {"size": batch, "random_share": random_share, "alpha": alpha, "seed": seed}
        given = {name: number for name, number in numbers.items() if number is not None}
        about = _begin(folder, asked, model, given)
        texts = begin(folder, texts_of((place, text_column, encoding)), about, dry_run=dry_run)
        if dry_run:
            _show_begin(texts, folder, as_json=as_json)
            return
    done = _step(folder, answers or [], correct=correct, dry_run=dry_run, quiet=as_json)
    if as_json:
        print_json({"folder": str(folder), **done.to_dict(), "changed": not dry_run})
    else:
        _show(done, folder, began=began, dry_run=dry_run)


def _refuse(options: dict[str, Any], why: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise ConfigError(f"{name}: {why}")


def _begin(folder: Path, asked: Asked, model: str | None, numbers: dict[str, Any]) -> Begin:
    from tamiz.classifiers.zero_shot import method_for
    from tamiz.pipeline.ladder import Begin

    chosen = model or DEFAULT_MODEL
    if Path(chosen).is_dir():
        chosen = str(Path(chosen).absolute())
    method = method_for(chosen)
    params: dict[str, Any] = {"method": method, "model": chosen, **asked.params()}
    return Begin(
        labels=split_labels(asked.labels or ""),
        task=Task.MULTI_LABEL if asked.multi_label else Task.MULTI_CLASS,
        zero_shot=params,
        encoder=chosen if method == "embedding" else DEFAULT_MODEL,
        name=project_name(folder.absolute().name, "ladder"),
        **numbers,
    )


def _step(folder: Path, answers: list[Path], *, correct: bool, dry_run: bool, quiet: bool) -> Step:
    from tamiz.pipeline.ladder import step

    with Terminal(quiet=quiet) as terminal:
        terminal.started("ladder")
        project = read_project(folder, notice=terminal.notice)
        about: dict[str, Any] = {"answers": answers, "correct": correct, "dry_run": dry_run}
        return step(folder, project, **about, progress=terminal.progress)


def _show_begin(texts: int, folder: Path, *, as_json: bool) -> None:
    if as_json:
        print_json({"folder": str(folder), "texts": texts, "changed": False})
    else:
        output.print(f"a ladder of {texts:,} texts would be begun in {folder}")


def _show(done: Step, folder: Path, *, began: bool, dry_run: bool) -> None:
    from tamiz.pipeline.ladder_state import BATCH, MODEL

    for conflict in done.conflicts:
        note(conflict)
    held = done.state.current().values()
    in_all = f"{len(held):,} in all, {sum(one.random for one in held):,} of texts drawn at random"
    if dry_run:
        output.print(f"{done.new:,} labels would be taken in; {in_all}")
        return
    if done.decision:
        _show_decision(done)
    else:
        _show_preview(done)
    if began:
        output.print(f"{done.new:,} labels taken in; {in_all}")
    here = f"{folder}/{BATCH}"
    if done.waiting:
        text = f"next: fill in the column `label` of {here} ({len(done.waiting)} texts), then: tamiz ladder {folder}"
    else:
        text = "no text is left to label"
    errors.print(text)
    errors.print(f"model in use, {done.state.rung}: tamiz predict --model {folder}/{MODEL} TEXT")


def _show_preview(done: Step) -> None:
    said = done.state.zero_shot
    shares = [(label, f"{share:.1%}") for label, share in said["shares"].items()]
    output.print(table(f"zero-shot, {said['texts']:,} texts drawn at random", ("label", "share"), shares))
    rows = [(short(text, _SHOWN), label, f"{score:.3f}") for text, label, score in done.examples]
    output.print(table("some of them", ("text", "label", "score"), rows, first_left=2))


def _show_decision(done: Step) -> None:
    found = done.decision
    if "right" in found:
        last = {one["rung"]: one for one in found["comparisons"][-1]}
        rows = [
            (name, figure(share["value"], share["interval"]), _beside(last.get(name)))
            for name, share in found["right"].items()
        ]
        title = f"right answers to {found['drawn_at_random']:,} texts drawn at random, not learnt from"
        output.print(table(title, ("rung", "share", f"beside {found['rung']}"), rows))
    word = {"up": "step up", "down": "step down", "stay": "no step", "too_few": "too few labels"}[found["verdict"]]
    output.print(f"{word}: {found['reason']}")


def _beside(one: dict[str, Any] | None) -> str:
    if one is None:
        return "in use"
    return f"{one['verdict']}, {one['wins']} won, {one['losses']} lost, p {one['p_adjusted']:.3f}"
