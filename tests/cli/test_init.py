"""`tamiz init` and `tamiz schema`."""

from __future__ import annotations

import json

import polars as pl
import pytest
import yaml

from tamiz.config import json_schema, load_project
from tamiz.types import Task
from tests.projects import rows, write_csv, write_jsonl

TABLE = rows(60)


def written(place, name: str = "tamiz.yaml") -> dict:
    load_project(place / name, variables={})
    return yaml.safe_load((place / name).read_text(encoding="utf-8"))


def write_folder(place) -> str:
    for row in TABLE:
        path = place / "texts" / row["label"] / f"{row['id']}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(row["text"], encoding="utf-8")
    return "texts"


def write_excel(place) -> str:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (list(TABLE[0]), *(list(row.values()) for row in TABLE)):
        book.active.append(row)
    book.save(place / "texts.xlsx")
    return "texts.xlsx"


def write_parquet(place) -> str:
    pl.DataFrame(TABLE).write_parquet(place / "texts.parquet")
    return "texts.parquet"


@pytest.mark.parametrize(
    "write",
    [
        lambda place: write_csv(place / "texts.csv", TABLE).name,
        lambda place: write_csv(place / "texts.tsv", TABLE, delimiter="\t").name,
        lambda place: write_jsonl(place / "texts.jsonl", TABLE).name,
        write_parquet,
        write_excel,
        write_folder,
    ],
    ids=["csv", "tsv", "jsonl", "parquet", "excel", "folder"],
)
def test_every_format_becomes_a_project_that_runs(place, tamiz, write):
    source = write(place)
    answer = tamiz("init", source)
    assert answer.code == 0, answer.err
    project = written(place)
    assert project["name"] == "texts"
    assert project["task"] == "multi-class"
    assert project["data"]["source"] == source
    assert (project["data"]["text"], project["data"]["label"]) == ("text", "label")
    assert project["data"].get("id") == ("file" if source == "texts" else "id")
    assert "wrote tamiz.yaml. Look it over, then: tamiz run" in answer.out
    assert tamiz("run", "--quiet").code == 0


def test_what_was_seen_is_shown(place, tamiz):
    write_csv(place / "texts.csv", TABLE)
    out = tamiz("init", "texts.csv").out
    assert "60 rows" in out
    assert "task: multi-class; 3 labels: " in out
    assert "text: longest free text" in out
    assert "label: 3 different labels and its name" in out


def test_two_labels_and_lists_are_recognised(place, tamiz):
    write_csv(place / "two.csv", rows(60, task=Task.BINARY))
    write_csv(place / "many.csv", rows(60, task=Task.MULTI_LABEL))
    assert tamiz("init", "two.csv", "--to", "two.yaml").code == 0
    assert tamiz("init", "many.csv", "--to", "many.yaml").code == 0
    assert written(place, "two.yaml")["task"] == "binary"
    assert written(place, "many.yaml")["task"] == "multi-label"
    assert written(place, "many.yaml")["data"]["separator"] == "|"
    assert written(place, "many.yaml")["candidates"][1] == {"family": "linear", "thresholds": "f1"}
    assert "thresholds" not in written(place, "two.yaml")["candidates"][1]


def test_project_files_of_one_folder_do_not_share_a_lake(place, tamiz):
    write_csv(place / "texts.csv", TABLE)
    write_csv(place / "notes.csv", [{"note": f"{row['text']}, written down", "kind": row["label"]} for row in TABLE])
    assert tamiz("init", "texts.csv").code == 0
    assert tamiz("init", "notes.csv", "--to", "notes.yaml").code == 0
    assert "lake" not in written(place)
    assert written(place, "notes.yaml")["lake"] == "lake-notes"
    assert tamiz("ingest").code == 0
    second = tamiz("clean", "-p", "notes.yaml")
    assert second.code == 0, second.err
    assert "texts.csv" not in second.err
    assert tamiz("clean").code == 0


def test_a_table_with_an_index_and_lists_as_pandas_writes_them(place, tamiz):
    lines = [f"{n},a plot of {word} number {n},\"['{word}', 'Drama']\"" for n in range(40) for word in ("War", "News")]
    (place / "films.csv").write_text("\n".join([",plot,genres", *lines]) + "\n")
    found = tamiz("init", "films.csv", "--json").json
    assert {c["name"]: c["role"] for c in found["saw"]["columns"]} == {"index": None, "plot": "text", "genres": "label"}
    assert found["saw"]["labels"] == {"Drama": 80, "News": 40, "War": 40}


def test_columns_may_be_named(place, tamiz):
    write_csv(place / "texts.csv", [{**row, "mood": "good" if i % 2 else "bad"} for i, row in enumerate(TABLE)])
    assert tamiz("init", "texts.csv", "--label", "mood", "--name", "moods").code == 0
    project = written(place)
    assert (project["name"], project["task"], project["data"]["label"]) == ("moods", "binary", "mood")


def test_a_project_is_never_overwritten(place, tamiz):
    write_csv(place / "texts.csv", TABLE)
    (place / "tamiz.yaml").write_text("mine")
    answer = tamiz("init", "texts.csv")
    assert answer.code == 2
    assert "tamiz.yaml exists and is never overwritten; write another with --to FILE" in answer.err
    assert (place / "tamiz.yaml").read_text() == "mine"
    assert tamiz("init", "texts.csv", "--to", "other.yaml").code == 0


def test_a_dry_run_shows_and_writes_nothing(place, tamiz):
    write_csv(place / "texts.csv", TABLE)
    answer = tamiz("init", "texts.csv", "--dry-run")
    assert answer.code == 0
    assert "source: texts.csv" in answer.out
    assert not (place / "tamiz.yaml").exists()


def test_json_says_what_was_seen_and_what_was_made_of_it(place, tamiz):
    write_csv(place / "texts.csv", TABLE)
    found = tamiz("init", "texts.csv", "--json").json
    assert found["project"] == written(place)
    assert found["saw"]["rows"] == 60
    assert sum(found["saw"]["labels"].values()) == 60
    assert {c["name"]: c["role"] for c in found["saw"]["columns"]} == {"id": "id", "text": "text", "label": "label"}
    again = tamiz("init", "texts.csv", "--json", "--dry-run", "--to", "other.yaml")
    assert again.json["project"]["data"] == found["project"]["data"]
    assert not (place / "other.yaml").exists()


def test_the_source_is_named_as_seen_from_the_project_file(place, tamiz):
    (place / "data").mkdir()
    (place / "projects").mkdir()
    write_csv(place / "data" / "texts.csv", TABLE)
    assert tamiz("init", "data/texts.csv", "--to", "projects/tamiz.yaml").code == 0
    assert written(place / "projects")["data"]["source"] == str(place / "data" / "texts.csv")
    assert tamiz("init", "data/texts.csv").code == 0
    assert written(place)["data"]["source"] == "data/texts.csv"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my texts (1).csv", "my-texts-1"),
        ("reseñas.2024.csv", "rese-as-2024"),
        ("___.csv", "texts"),
        ("ñ.csv", "texts"),
    ],
)
def test_any_file_name_becomes_a_name(place, tamiz, file, name):
    write_csv(place / file, TABLE)
    assert tamiz("init", file).code == 0
    assert written(place)["name"] == name


@pytest.mark.parametrize(
    ("content", "arguments", "code", "said"),
    [
        (None, (), 1, "texts.csv"),
        ("", (), 1, "is empty"),
        ("text,label\n", (), 1, "has a header and no rows"),
        ("a,b\n1,2\n3,4\n", (), 1, "no column seems to hold the text"),
        (
            "text,label\nthe first of all texts,spam\nand yet another one,spam\nthe third and last,spam\n",
            (),
            1,
            "column 'label' holds the same label in every row; a classifier needs at least two labels",
        ),
        ("text,label\nsome words,a\nother words,b\n", ("--label", "lable"), 1, "did you mean 'label'"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(place, refused, content, arguments, code, said):
    if content is not None:
        (place / "texts.csv").write_text(content)
    assert said in refused(code, "init", "texts.csv", *arguments)
    assert not (place / "tamiz.yaml").exists()


def test_the_schema_is_written(place, tamiz):
    assert tamiz("schema").json == json_schema()
    assert tamiz("schema", "--to", "schema.json").code == 0
    assert json.loads((place / "schema.json").read_text(encoding="utf-8")) == json_schema()


def test_the_next_command_names_a_project_file_elsewhere(place, tamiz):
    write_csv(place / "texts.csv", TABLE)
    (place / "my texts").mkdir()
    answer = tamiz("init", "texts.csv", "--to", "my texts/tamiz.yaml")
    assert answer.out.splitlines()[-1].endswith("tamiz run -p 'my texts/tamiz.yaml'")
