"""The example projects: they parse, say what they need, and reach what they promise."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from tamiz.cli.main import run_command
from tamiz.config import load_project
from tamiz.data.public import fetch
from tamiz.model import Model
from tamiz.pipeline import run as run_pipeline
from tamiz.pipeline.members import named
from tamiz.pipeline.run import check_params, check_select
from tamiz.registry import MemoryRegistry
from tamiz.settings import read_project
from tamiz.store import ModelStore
from tamiz.types import Task
from tests.data.test_public import hub
from tests.data.web import serving
from tests.projects import rows, write_csv
from tests.tiny_bert import WORDS, tiny_bert

EXAMPLES = Path(__file__).parents[2] / "examples"
ALL = sorted(EXAMPLES.glob("*/tamiz.yaml"))
FILES = sorted(EXAMPLES.glob("*/*.yaml"))
WITH_DATA = [path for path in ALL if "${TAMIZ_DATA}" in path.read_text(encoding="utf-8")]


def id_of(path: Path) -> str:
    return path.parent.name


def test_there_is_an_example_of_every_task():
    projects = [load_project(path, variables={"TAMIZ_DATA": "/data"}) for path in ALL]
    assert {project.task for project in projects} == set(Task)
    assert len({project.name for project in projects}) == len(projects)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_example_is_a_valid_project(path):
    project = load_project(path, variables={"TAMIZ_DATA": "/data"}, notice=pytest.fail)
    for candidate in named(project.candidates):
        check_params(candidate.family, candidate.params)
    check_select(project.select)
    assert path not in ALL or project.candidates[0].family == "prior"


@pytest.mark.parametrize("path", ALL, ids=id_of)
def test_an_example_is_explained(path):
    about = (path.parent / "README.md").read_text(encoding="utf-8")
    assert f"examples/{path.parent.name}" in about


@pytest.mark.parametrize("path", WITH_DATA, ids=id_of)
def test_an_example_without_its_data_says_how_to_get_them(path, monkeypatch, capsys):
    monkeypatch.delenv("TAMIZ_DATA", raising=False)
    assert run_command(["run", "-p", str(path.parent)]) == 2
    said = capsys.readouterr().err
    assert "data.source: the environment variable TAMIZ_DATA is not set" in " ".join(said.split())
    assert "docs/data.md says how to get them" in said
    assert "Traceback" not in said
    assert (EXAMPLES.parent / "docs" / "data.md").is_file()


def test_film_snippets_says_what_to_fetch_or_runs(tmp_path, capsys):
    shutil.copy(EXAMPLES / "film_snippets" / "tamiz.yaml", tmp_path)
    assert run_command(["run", "-p", str(tmp_path), "--quiet"]) == 1
    assert "film_snippets.csv" in capsys.readouterr().err
    names = {"food": "positive", "money": "negative"}
    table = [{**row, "label": names[row["label"]]} for row in rows(120, task=Task.BINARY)]
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "film_snippets.csv", table)
    result = run_pipeline(load_project(tmp_path, variables={}), MemoryRegistry())
    assert len(result.leaderboard) == 3
    assert result.chosen != "prior"


def test_reviews_each_job_is_one_command(tmp_path, monkeypatch, capsys, mlflow_template):
    """Fetched from a server of the hub's layout, cleaned, trained, deployed by a metric, asked by text and by CSV."""
    words = {0: ("dull", "slow", "bad"), 1: ("warm", "funny", "good")}
    sides = {
        side: (
            [f"A {words[n % 2][n % 3]} film, {side} {n}.<br />" for n in range(count)],
            [n % 2 for n in range(count)],
        )
        for side, count in (("train", 80), ("test", 30))
    }
    with serving() as web:
        data_sets = hub(web, {**sides, "unsupervised": (["Who knows?"], [-1])})
        fetch("imdb", str(tmp_path / "data"), cache=tmp_path / "cache", address=web.url, data_sets=data_sets)
    monkeypatch.setenv("TAMIZ_DATA", str(tmp_path / "data"))
    folder = tmp_path / "reviews"
    folder.mkdir()
    shutil.copy(EXAMPLES / "reviews" / "tamiz.yaml", folder)
    shutil.copy(mlflow_template, folder / "mlflow.db")
    (tmp_path / "new.csv").write_text('n,text\n1,"A warm, funny film."\n2,A dull and slow film.\n')
    answers = tmp_path / "answers.csv"
    for command in (
        ["ingest"], ["clean"], ["split"], ["train"], ["evaluate"], ["promote", "--by", "val_accuracy"],
        ["predict", "A warm and funny film."],
        ["predict", "--input", str(tmp_path / "new.csv"), "--output", str(answers)],
    ):  # fmt: skip
        assert run_command([*command, "-p", str(folder)]) == 0, capsys.readouterr().err
    assert "positive 0." in capsys.readouterr().out
    with answers.open(newline="") as lines:
        found = list(csv.DictReader(lines))
    assert [(row["n"], row["predicted_label"]) for row in found] == [("1", "positive"), ("2", "negative")]


@pytest.mark.parametrize("file", ["tamiz.yaml", "spanish.yaml"])
def test_resolutions_needs_no_labels_to_learn_from(tmp_path, monkeypatch, capsys, file):
    """The example as it is, but for a tiny encoder and texts of our own: run, asked for other labels, as JSON lines."""
    polars, _ = pytest.importorskip("polars"), pytest.importorskip("onnxruntime")
    raw = yaml.safe_load((EXAMPLES / "resolutions" / file).read_text(encoding="utf-8"))
    encoder = str(tiny_bert(tmp_path / "tiny"))
    monkeypatch.setenv("TAMIZ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TAMIZ_DATA", str(tmp_path))
    for candidate in raw["candidates"][1:]:
        candidate["params"]["model"] = encoder
    (tmp_path / "tamiz.yaml").write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    labels = list(raw["candidates"][-1]["params"]["descriptions"])
    texts = [f"{WORDS.split()[n % 40]} {WORDS.split()[n * 7 % 43]} number {n}" for n in range(400)]
    (tmp_path / "resolutions").mkdir()
    table = {"id": range(400), "text": texts, "category": [labels[n % len(labels)] for n in range(400)]}
    polars.DataFrame(table).write_parquet(tmp_path / "resolutions" / "sample.parquet")
    result = run_pipeline(read_project(tmp_path), MemoryRegistry())
    assert {one.candidate for one in result.leaderboard} == {"prior", *(one["name"] for one in raw["candidates"][1:])}
    assert result.chosen != "prior"
    asked = tmp_path / "lines.jsonl"
    asked.write_text(
        '{"inputs": "bread", "parameters": {"candidate_labels": ["food", "money"]}}\n{"inputs": "bread"}\n{'
    )
    package = ModelStore(str(tmp_path / "models")).fetch(raw["name"])
    assert run_command(["predict", "--model", str(package), "--requests", str(asked)]) in (0, 1)
    one, other, bad = map(json.loads, capsys.readouterr().out.splitlines())
    assert (sorted(one["labels"]), sorted(other["labels"]), bad["line"]) == (["food", "money"], sorted(labels), 3)


@pytest.fixture
def third(tmp_path, monkeypatch) -> Path:
    """A third of the rows of the real data sets, in the place of all: `benchmarks accuracy` measures those."""
    polars = pytest.importorskip("polars")
    if "TAMIZ_DATA" not in os.environ:
        pytest.skip("TAMIZ_DATA is not set; docs/data.md says how to get the data sets")
    data, made = Path(os.environ["TAMIZ_DATA"]), tmp_path / "data"
    for path in (found for name in ("movies", "complaints", "imdb") for found in (data / name).glob("*.parquet")):
        (made / path.parent.name).mkdir(parents=True, exist_ok=True)
        polars.read_parquet(path).gather_every(3).write_parquet(made / path.parent.name / path.name)
    monkeypatch.setenv("TAMIZ_DATA", str(made))
    return made


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "metric", "least", "text", "label"),
    [
        ("movies", "test_roc_auc_macro", 0.85, "A detective hunts a serial killer through the city.", "Crime"),
        ("complaints", "test_f1_macro", 0.78, "A debt collector calls me every day.", "debt_collection"),
        ("reviews", "test_accuracy", 0.88, "A waste of time, boring and badly acted.", "negative"),
    ],
)
@pytest.mark.usefixtures("third")
def test_an_example_learns_from_a_third_of_its_data(tmp_path, name, metric, least, text, label):
    shutil.copy(EXAMPLES / name / "tamiz.yaml", tmp_path)
    result = run_pipeline(read_project(tmp_path), MemoryRegistry())
    assert result.chosen == "linear"
    assert result.metrics[metric] > least
    assert result.champion == result.version == "1"
    model = Model.load(ModelStore(str(tmp_path / "models")).fetch(name))
    (answer,) = model.predict([text])
    assert label in (answer.label if model.task is Task.MULTI_LABEL else (answer.label,))


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(("file", "least"), [("tamiz.yaml", 0.35), ("spanish.yaml", 0.35)])
def test_resolutions_reaches_what_labels_alone_are_worth(tmp_path, file, least):
    if "TAMIZ_DATA" not in os.environ:
        pytest.skip("TAMIZ_DATA is not set; docs/data.md says how to get the data sets")
    shutil.copy(EXAMPLES / "resolutions" / file, tmp_path / "tamiz.yaml")
    result = run_pipeline(read_project(tmp_path), MemoryRegistry())
    assert result.chosen != "prior"
    assert result.metrics["test_accuracy"] > least
