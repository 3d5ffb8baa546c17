"""Whole runs of small projects: how data are divided, where they come from, and labels that allow nothing."""

from __future__ import annotations

import csv
import shutil
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tamiz.config import parse_project
from tamiz.data.lake import Lake
from tamiz.errors import LabelError, PackageError
from tamiz.model import Model
from tamiz.pipeline import STEPS, RunResult
from tamiz.pipeline.inputs import train_inputs
from tamiz.pipeline.promotion import replay
from tamiz.pipeline.reproduce import reproduce
from tamiz.registry import MemoryRegistry
from tamiz.store import ModelStore
from tamiz.types import Task
from tests.projects import (
    PRIOR,
    Told,
    figures,
    lake_of,
    make_project,
    raw_project,
    rows,
    run,
    side,
    sides,
    store_of,
    write_csv,
    write_jsonl,
)

# --- files that change


def test_a_file_that_has_changed_is_told_to_add_its_rows(tmp_path):
    project = make_project(tmp_path, n=40)
    first, second = Told(), Told()
    run(project, until="clean", listener=first)
    assert first.notices == []
    with (tmp_path / "texts.csv").open("a", encoding="utf-8") as stream:
        stream.write(next(line for line in (tmp_path / "texts.csv").read_text().splitlines()[1:]) + "\n")
    run(project, until="clean", listener=second)
    assert second.notices == [
        "texts.csv: changed since the last ingest; the earlier rows stay, but for those whose id comes again. "
        "Another `lake` starts without them"
    ]


def test_files_are_known_in_a_project_that_was_moved(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    run(make_project(first, n=40), until="clean")
    first.rename(second)
    table = rows(40)
    table[0]["label"] = next(label for label in ("food", "money") if label != table[0]["label"])
    write_csv(second / "texts.csv", table)
    told = Told()
    project = make_project(second)
    run(project, until="clean", listener=told)
    assert [notice.partition(":")[0] for notice in told.notices] == ["texts.csv"]
    kept = {row["row_id"]: row for row in lake_of(project).read("silver/texts").to_pylist()}
    assert len(kept) == 40
    assert (kept["r0"]["label"], kept["r0"]["_source"]) == (table[0]["label"], "texts.csv")


def test_rows_of_a_file_that_is_not_named_any_more_are_told_of(tmp_path):
    write_csv(tmp_path / "other.csv", rows(40, start=100))
    run(make_project(tmp_path, n=40), until="clean")
    told = Told()
    run(make_project(tmp_path, data={"source": "other.csv"}), until="clean", listener=told)
    assert told.notices == [
        "40 rows of texts.csv, which data.source does not name, are in the lake and used. "
        "Another `lake` is without them"
    ]


def test_a_stated_encoding_reads_a_file_anew(tmp_path):
    table = [{**row, "label": {"food": "año"}.get(row["label"], row["label"])} for row in rows(60)]
    write_csv(tmp_path / "texts.csv", table)
    (tmp_path / "texts.csv").write_bytes((tmp_path / "texts.csv").read_text(encoding="utf-8").encode("cp850"))
    run(make_project(tmp_path, data={"encoding": "latin-1"}), until="split")
    told = Told()
    project = make_project(tmp_path, data={"encoding": "cp850"})
    run(project, until="split", listener=told)
    assert "texts.csv: read anew in the stated encoding, in place of the rows before" in told.notices
    found = lake_of(project).read("gold/examples").to_pylist()
    assert len(found) == 60
    assert {row["label"] for row in found} == {"año", "money", "sport"}


# --- tables that were made anew


def turned(n: int = 120) -> list[dict[str, str]]:
    """Return the usual rows with the labels handed on."""
    other = {"food": "money", "money": "sport", "sport": "food"}
    return [{**row, "label": other[row["label"]]} for row in rows(n)]


@pytest.mark.parametrize("gone", ["lake", "lake/bronze"])
def test_a_lake_that_was_deleted_is_made_from_what_is_there_now(tmp_path, gone):
    registry = MemoryRegistry()
    project = make_project(tmp_path)
    first = run(project, registry)
    assert first.version == "1"
    shutil.rmtree(tmp_path / gone)
    write_csv(tmp_path / "texts.csv", turned())
    second = run(project, registry)
    assert (second.steps["clean"], second.steps["split"], second.steps["train"]) == ("done", "done", "done")
    assert second.version == "2"
    text = "bread soup cheese apple salt butter"
    assert [Model.load(store_of(project).fetch(f"topics@{v}")).predict([text])[0].label for v in "12"] == [
        "food",
        "money",
    ]
    if gone == "lake":  # its version numbers begin again
        with pytest.raises(PackageError, match=r"the lake .* was made anew"):
            reproduce(project, store_of(project), lake_of(project), "1")
        record = store_of(project).decisions("topics", "2")[1]
        assert record["inputs"]["test"]["seen"]["champion"] == {"rows": None, "unknown": "the lake was made anew since"}


def test_another_lake_with_other_data_gives_another_version(tmp_path):
    registry = MemoryRegistry()
    run(make_project(tmp_path), registry)
    write_csv(tmp_path / "texts.csv", turned())
    assert run(make_project(tmp_path, lake="lake2"), registry).version == "2"
    assert len(registry.runs()) == 2


def test_the_same_rows_in_a_lake_made_anew_are_the_same_version(tmp_path):
    registry = MemoryRegistry()
    project = make_project(tmp_path)
    run(project, registry)
    shutil.rmtree(tmp_path / "lake")
    assert run(project, registry).version == "1"


# --- other ways to divide


def test_an_own_test_set_is_left_whole(tmp_path):
    train, test = rows(90), rows(40, start=200)
    write_csv(tmp_path / "texts.csv", [*train, {**test[0], "id": "copied"}])
    write_csv(tmp_path / "held-out.csv", test)
    project = make_project(tmp_path, data={"test": "held-out.csv"}, split={"validation": 0.2})
    result = run(project)
    assert set(side(project, "test").row_ids) == {row["id"] for row in test}
    assert "copied" not in sides(project)
    assert "test_f1_macro" in result.metrics
    assert lake_of(project).count("bronze/test") == 40


def test_no_test_side_at_all(tmp_path):
    project = make_project(tmp_path, split={"validation": 0.2, "test": 0})
    result = run(project)
    assert not any(name.startswith("test_") for name in result.metrics)
    assert (result.version, result.champion) == ("1", "1")
    again = run(make_project(tmp_path, split={"validation": 0.2, "test": 0}, candidates=PRIOR))
    assert again.verdict == (
        "there is no test_f1_macro to compare it by: the test is empty; a person may promote it: tamiz promote 2"
    )
    assert again.champion == "1"


def test_a_split_by_time_tests_on_the_newest(tmp_path):
    dated = [{**row, "day": str(date(2025, 1, 1) + timedelta(days=i))} for i, row in enumerate(rows(120))]
    np.random.default_rng(0).shuffle(dated)
    write_csv(tmp_path / "texts.csv", dated)
    project = make_project(tmp_path, data={"time": "day"}, split={"by": "time", "validation": 0.2, "test": 0.2})
    run(project)
    day = {row["id"]: row["day"] for row in dated}
    spans = {}
    for row, name in sides(project).items():
        spans.setdefault(name, []).append(day[row])
    assert max(spans["train"]) < min(spans["validation"])
    assert max(spans["validation"]) < min(spans["test"])
    assert len(spans["test"]) == pytest.approx(24, abs=2)


def test_a_group_stays_on_one_side(tmp_path):
    grouped = [{**row, "author": f"a{i % 30}"} for i, row in enumerate(rows(120))]
    write_csv(tmp_path / "texts.csv", grouped)
    project = make_project(tmp_path, data={"group": "author"})
    run(project, until="split")
    author = {row["id"]: row["author"] for row in grouped}
    found: dict[str, set[str]] = {}
    for row, name in sides(project).items():
        found.setdefault(author[row], set()).add(name)
    assert len(found) == 30
    assert all(len(names) == 1 for names in found.values())


def test_unlabelled_texts_are_kept_and_not_learnt_from(tmp_path):
    write_csv(tmp_path / "more.csv", [{"id": f"u{i}", "text": row["text"]} for i, row in enumerate(rows(30, seed=9))])
    project = make_project(tmp_path, n=90, data={"unlabeled": "more.csv"})
    run(project)
    silver = lake_of(project).read("silver/texts", columns=["part"]).column("part").to_pylist()
    assert silver.count("unlabeled") == 30
    assert len(sides(project)) == 90


# --- sources


def as_tsv(folder: Path, table: list[dict]) -> str:
    return write_csv(folder / "texts.tsv", table, delimiter="\t").name


def as_semicolons(folder: Path, table: list[dict]) -> str:
    return write_csv(folder / "texts.csv", table, delimiter=";").name


def as_jsonl(folder: Path, table: list[dict]) -> str:
    return write_jsonl(folder / "texts.jsonl", table).name


def as_parquet(folder: Path, table: list[dict]) -> str:
    pl.DataFrame(table).write_parquet(folder / "texts.parquet")
    return "texts.parquet"


def as_excel(folder: Path, table: list[dict]) -> str:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    for row in (list(table[0]), *(list(row.values()) for row in table)):
        sheet.append(row)
    book.save(folder / "texts.xlsx")
    return "texts.xlsx"


def as_folder(folder: Path, table: list[dict]) -> str:
    for row in table:
        path = folder / "texts" / row["label"] / f"{row['id']}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(row["text"], encoding="utf-8")
    return "texts"


@pytest.fixture(scope="module")
def from_csv(tmp_path_factory) -> RunResult:
    return run(make_project(tmp_path_factory.mktemp("csv")))


@pytest.mark.parametrize("write", [as_tsv, as_semicolons, as_jsonl, as_parquet, as_excel, as_folder])
def test_every_format_comes_to_the_same_figures(tmp_path, from_csv, write):
    raw = raw_project(data={"source": write(tmp_path, rows(120))})
    if write is as_folder:  # the file's path is its id
        raw["data"]["id"] = None
    project = parse_project(raw).at(tmp_path)
    result = run(project)
    if write is not as_folder:
        assert figures(result.metrics) == figures(from_csv.metrics)
    assert len(sides(project)) == 120
    assert result.metrics["test_f1_macro"] > 0.6


def test_labels_in_real_lists_and_in_text_are_the_same(tmp_path):
    table = rows(120, task=Task.MULTI_LABEL)
    results = []
    for name, write in (("lists", as_jsonl), ("text", lambda folder, t: write_csv(folder / "t.csv", t).name)):
        (tmp_path / name).mkdir()
        raw = raw_project(Task.MULTI_LABEL, data={"source": write(tmp_path / name, table)})
        results.append(run(parse_project(raw).at(tmp_path / name)))
    assert figures(results[0].metrics) == figures(results[1].metrics)


def test_columns_may_have_any_name(tmp_path):
    table = [{"clé": r["id"], "Reseña (texto)": r["text"], "y": r["label"]} for r in rows(90)]
    write_csv(tmp_path / "texts.csv", table)
    project = make_project(tmp_path, data={"id": "clé", "text": "Reseña (texto)", "label": "y"})
    result = run(project)
    model = Model.load(store_of(project).fetch("topics"))
    assert model.text_column == "Reseña (texto)"
    assert result.version == "1"


# --- S3


@pytest.mark.slow
def test_lake_and_store_may_lie_on_s3(s3_place, tmp_path, from_csv, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    places = {"lake": f"{s3_place}/lake", "registry": {"store": f"{s3_place}/models"}}
    project = make_project(tmp_path, select={"refit": True}, **places)
    registry = MemoryRegistry()
    first = run(project, registry)
    assert first.steps == dict.fromkeys(STEPS, "done")
    validation = {name: value for name, value in first.metrics.items() if name.startswith("val_")}
    assert validation == {name: value for name, value in from_csv.metrics.items() if name.startswith("val_")}
    assert set(run(project, registry).steps.values()) == {"skipped"}
    worse = run(make_project(tmp_path, candidates=PRIOR, **places), registry)
    assert (worse.version, worse.champion) == ("2", "1")
    store = ModelStore(f"{s3_place}/models", cache=tmp_path / "cache")
    assert Model.load(store.fetch("topics")).predict(["bread soup cheese"])[0].label == "food"
    # The decisions about both lie in the bucket, and can be computed again from what lies there.
    (first_decision,), (decision,) = (store.decisions("topics", version).values() for version in ("1", "2"))
    assert (first_decision["outcome"], decision["outcome"]) == ("promote", "refuse")
    assert decision["inputs"]["champion"] == "1"
    assert replay(store, Lake(f"{s3_place}/lake"), decision) == []
    assert replay(store, Lake(f"{s3_place}/lake"), {**decision, "outcome": "promote"}) != []
    assert {path.name for path in tmp_path.iterdir()} <= {"texts.csv", "home", "cache"}


# --- labels that allow nothing


def test_one_label_alone_is_refused(tmp_path):
    write_csv(tmp_path / "texts.csv", [{**row, "label": "only"} for row in rows(30)])
    with pytest.raises(LabelError, match=r"at least two labels.*'only' \(30\)"):
        run(make_project(tmp_path))


def test_three_labels_are_too_many_for_a_binary_task(tmp_path):
    write_csv(tmp_path / "texts.csv", rows(60))
    with pytest.raises(LabelError, match="task is binary and column 'label' has 3 labels"):
        run(make_project(tmp_path, Task.BINARY))


def test_a_csv_written_by_hand_needs_no_ids(tmp_path):
    with (tmp_path / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text", "label"], *([r["text"], r["label"]] for r in rows(60))])
    project = make_project(tmp_path, data={"id": None})
    run(project, until="split")
    assert len(sides(project)) == 60


# --- encoders in a folder


def test_a_candidate_is_made_anew_where_its_encoder_was_trained_anew_in_its_place(tmp_path, monkeypatch):
    pytest.importorskip("tokenizers")
    from tests.tiny_bert import tiny_bert

    monkeypatch.setenv("TAMIZ_CACHE", str(tmp_path / "cache"))
    encoder = tiny_bert(tmp_path / "encoder")
    few_shot = {"family": "few_shot", "params": {"encoder": str(encoder), "num_threads": 1, "C": 1.0}}
    members = [{"family": "linear"}, few_shot]
    project = make_project(tmp_path, candidates=[few_shot, {"family": "ensemble", "params": {"members": members}}])
    gold = {"version": 1, "digest": "d", "labels": ["a", "b"]}

    def keys():
        return [train_inputs(project, gold, config) for config in project.candidates]

    before = keys()
    assert keys() == before
    tiny_bert(tmp_path / "encoder", seed=1)
    assert not set(keys()) & set(before)
