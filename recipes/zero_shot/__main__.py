"""`python -m recipes.zero_shot`: train, evaluate, export, card, release."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from recipes.zero_shot import exporting, vocabulary
from recipes.zero_shot.card import rewrite
from recipes.zero_shot.scoring import evaluate as score
from recipes.zero_shot.scoring import measure_of
from recipes.zero_shot.sources import data_root, fetched_snippets, read_nli, read_set, read_sets
from recipes.zero_shot.training import Options
from recipes.zero_shot.training import train as fit
from tamiz.encoders.cache import root as cache
from tamiz.encoders.find import find
from tamiz.errors import ConfigError, TamizError

PACKAGE = Path(__file__).parents[2] / "packages" / "tamiz-zero-shot"
_USUAL = Options()
_TABLE = "resolutions,agnews,imdb,newsgroups,banking77,clinc150,noticias_es"

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Make the zero-shot encoder.")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _names(given: str) -> list[str]:
    return [name.strip() for name in given.split(",") if name.strip()]


@app.command()
def train(
    folder: Annotated[Path, typer.Argument(help="For the trained weights; a training that was cut off goes on.")],
    without: Annotated[str, typer.Option(help="Sets to leave out, with commas between.")] = "",
    start: Annotated[str, typer.Option(help="Encoder to start from.")] = _USUAL.start,
    languages: Annotated[str, typer.Option(help="Of the sentences about labels: en, es, fr.")] = "en",
    steps: Annotated[int, typer.Option(min=1)] = _USUAL.steps,
    batch: Annotated[int, typer.Option(min=2, help="Texts a step.")] = _USUAL.batch,
    nli_batch: Annotated[int, typer.Option(min=2, help="Premises a step.")] = _USUAL.nli_batch,
    nli_weight: Annotated[float, typer.Option(help="How often NLI pairs are drawn; 0 leaves them out.")] = 4.0,
    max_length: Annotated[int, typer.Option(min=8, help="Tokens of a text.")] = _USUAL.max_length,
    frozen_layers: Annotated[int, typer.Option(min=0, help="Layers, from below, that learn nothing.")] = 0,
    learning_rate: Annotated[float, typer.Option()] = _USUAL.learning_rate,
    warmup: Annotated[float, typer.Option(min=0, max=0.9)] = _USUAL.warmup,
    temperature: Annotated[float, typer.Option()] = _USUAL.temperature,
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = _USUAL.precision,
    seed: Annotated[int, typer.Option()] = _USUAL.seed,
    threads: Annotated[int, typer.Option(help="0 takes all cores.")] = _USUAL.num_threads,
) -> None:
    """Train from the sets that TAMIZ_DATA names and may be used commercially."""
    root, left = data_root(), _names(without)
    snippets = None if "film_snippets" in left else fetched_snippets(cache() / "recipes", _say)
    spoken = tuple(_names(languages))
    sets = read_sets(root, left, film_snippets=snippets, languages=spoken)
    nli = read_nli(root / "nli" / "train.parquet") if nli_weight > 0 else None
    _say(f"trains on {', '.join(one.name for one in sets)}{' and NLI pairs' if nli else ''}")
    options = Options(
        start=start,
        languages=spoken,
        steps=steps,
        batch=batch,
        nli_batch=nli_batch,
        nli_weight=nli_weight,
        max_length=max_length,
        frozen_layers=frozen_layers,
        learning_rate=learning_rate,
        warmup=warmup,
        temperature=temperature,
        precision=precision,
        seed=seed,
        num_threads=threads,
    )
    fit(sets, nli, options, folder, say=_say)


@app.command()
def cut(
    folder: Annotated[Path, typer.Argument(help="For the smaller encoder.")],
    start: Annotated[str, typer.Option(help="Multilingual encoder to cut.")] = "e5-small",
    languages: Annotated[str, typer.Option(help="Whose words it shall read, with commas between.")] = "en,es,fr",
    pieces: Annotated[int, typer.Option(min=1, help="Size of its vocabulary.")] = 32_768,
) -> None:
    """Cut the vocabulary of a multilingual encoder to some languages."""
    spoken = _names(languages)
    vocabulary.cut(start, folder, vocabulary.frequencies(map(vocabulary.listed, spoken)), pieces, spoken)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A folder that was trained or exported, or a name of `tamiz models`.")],
    sets: Annotated[str, typer.Option(help="Test parts to score, with commas between.")] = _TABLE,
    rows: Annotated[int, typer.Option(min=0, help="Most texts a set; 0 takes all.")] = 0,
    form: Annotated[str, typer.Option(help="Of the weights: int8 or fp32.")] = "int8",
    name: Annotated[str, typer.Option(help="What the card calls the model.")] = "",
    output: Annotated[Path, typer.Option(help="JSON file of scores.")] = Path("scores.json"),
) -> None:
    """Score a model on test parts: raw, and adapted and corrected by 500 other texts without their labels."""
    root = data_root()
    chosen = [read_set(root, one, "test") for one in _names(sets)]

    def unlabelled(of: str) -> tuple[str, ...]:
        return read_set(root, of, "train").texts

    found = score(model, chosen, rows=rows, form=form, unlabelled=unlabelled, say=_say)
    output.write_text(json.dumps({"name": name or Path(model).name, **found}, indent=1), encoding="utf-8")


@app.command()
def export(
    trained: Annotated[Path, typer.Argument(help="Folder that `train` wrote.")],
    target: Annotated[Path, typer.Argument(help="For what is shipped.")] = PACKAGE / "model",
    alpha: Annotated[float | None, typer.Option(help="Share of the trained weights; else it is chosen.")] = None,
    choose_on: Annotated[str, typer.Option(help="Sets to choose it on, none of them trained on.")] = "",
) -> None:
    """Average trained and starting weights, and write them in 8 bits."""
    choice = {} if alpha is not None else _chosen(trained, _names(choose_on))
    share = float(choice["alpha"] if alpha is None else alpha)
    exporting.export(trained, target, share, choice=choice)
    size = sum(path.stat().st_size for path in target.iterdir()) / 1e6
    _say(f"{target}: {share:g} of the trained weights, {size:.1f} MB")


def _chosen(trained: Path, names: list[str]) -> dict[str, Any]:
    """Choose the share on NLI pairs and sets that were not trained on and that stand in no table.

    Raises:
        ConfigError: a set was trained on, or is one of the table.
    """
    about = exporting.read_training(trained)
    for name in names:
        if name in about["trained_on"] or name in _names(_TABLE):
            raise ConfigError(f"--choose-on {name}: it was trained on, or is one of the table; leave it out of both")
    root, start = data_root(), find(about["options"]["start"]).folder
    snippets = fetched_snippets(cache() / "recipes", _say) if "film_snippets" in names else None
    sets = [read_set(root, name, film_snippets=snippets) for name in names]
    nli = read_nli(root / "nli" / "dev.parquet")

    def measure(share: float) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as place:
            folder = exporting.write_full(trained, exporting.average(start, trained, share), Path(place) / "one")
            figures = measure_of(folder, sets, nli)
        _say(f"{share:g}: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
        return figures

    return exporting.choose(measure)


@app.command()
def card(
    scores: Annotated[list[Path], typer.Argument(help="JSON files of `evaluate`.")],
    model: Annotated[Path, typer.Option(help="Folder of what is shipped.")] = PACKAGE / "model",
    readme: Annotated[Path, typer.Option(help="Model card to fill in.")] = PACKAGE / "README.md",
) -> None:
    """Fill in the model card."""
    rewrite(readme, exporting.read_training(model), scores)


@app.command()
def release(
    wheel: Annotated[Path, typer.Argument(help="A built wheel of one of our encoders.")],
    target: Annotated[Path | None, typer.Option(help="The record; by default the catalogue's.")] = None,
) -> None:
    """Record a built wheel, so that `tamiz models` lists the encoder."""
    exporting.release(wheel, target)


if __name__ == "__main__":
    try:
        app(standalone_mode=True)
    except TamizError as error:
        _say(str(error))
        sys.exit(2)
