"""Corrections of labels: from a file into silver, and which steps they make run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tamiz.config import Project
from tamiz.data.corrections import load_corrections
from tamiz.data.lake import Lake
from tamiz.errors import ConfigError, DataError
from tamiz.pipeline import STEPS
from tamiz.registry import MemoryRegistry
from tamiz.types import Task
from tests.projects import make_project, rows, run, write_csv

FILE = "fixed.csv"


def corrected(folder: Path, *lines: str, head: str = "row_id,corrected_label", **sections: Any) -> Project:
    (folder / FILE).write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return make_project(folder, labels={"corrections": FILE}, **sections)


def examples(project: Project) -> dict[str, dict[str, Any]]:
    table = Lake(project.resolve(project.lake)).read("gold/examples").to_pylist()
    return {row["row_id"]: row for row in table}


def reasons(project: Project) -> list[str]:
    table = Lake(project.resolve(project.lake)).read("silver/quarantine", columns=["reason"])
    return sorted(table.column("reason").to_pylist())


def other(label: str) -> str:
    return "food" if label != "food" else "sport"


def test_corrected_rows_change_and_no_other_row_moves(tmp_path):
    registry = MemoryRegistry()
    before_project = make_project(tmp_path)
    run(before_project, registry)
    before = examples(before_project)
    one, two = "r3", "r7"
    project = corrected(tmp_path, f"{one},{other(before[one]['label'])}", "r5,", f"{two},-")
    result = run(project, registry)
    assert result.steps == {step: "skipped" if step == "ingest" else "done" for step in STEPS}
    after = examples(project)
    assert after[one]["label"] == other(before[one]["label"])
    assert set(before) - set(after) == {two}
    assert {row: found["side"] for row, found in after.items()} == {row: before[row]["side"] for row in after}
    assert {r: f["label"] for r, f in after.items() if r != one} == {
        r: f["label"] for r, f in before.items() if r not in (one, two)
    }
    assert reasons(project) == ["dropped by a correction"]
    assert set(run(project, registry).steps.values()) == {"skipped"}


def test_only_what_the_file_does_counts(tmp_path):
    registry = MemoryRegistry()
    run(corrected(tmp_path, "r1,food", "r2,sport"), registry)
    project = corrected(tmp_path, "x,r2,sport", "y,r1,food", "z,r3,", head="note,row_id,corrected_label")
    assert set(run(project, registry).steps.values()) == {"skipped"}
    emptied = run(corrected(tmp_path, "r1,"), registry)
    assert (emptied.steps["ingest"], emptied.steps["clean"]) == ("skipped", "done")


def test_repeats_follow_the_corrected_row(tmp_path):
    table = rows(60)
    table[1]["text"], table[1]["label"] = table[0]["text"], table[0]["label"]
    table[3]["text"], table[3]["label"] = table[2]["text"], table[2]["label"]
    table[5]["text"], table[5]["label"] = table[4]["text"], other(table[4]["label"])
    write_csv(tmp_path / "texts.csv", table)
    project = corrected(tmp_path, f"r0,{other(table[0]['label'])}", "r2,-", f"r5,{table[5]['label']}")
    run(project, until="split")
    found = examples(project)
    assert found["r0"]["label"] == other(table[0]["label"])
    assert found["r5"]["label"] == table[5]["label"]  # a conflict is settled
    assert not {"r1", "r2", "r3", "r4"} & set(found)
    assert reasons(project) == ["dropped by a correction"] * 2 + ["duplicate of another row"] * 2


def test_rows_without_an_id_column_are_known_by_file_and_place(tmp_path):
    write_csv(tmp_path / "texts.csv", rows(60))
    first = make_project(tmp_path, data={"id": None})
    run(first, until="split")
    row_id, before = next(iter(examples(first).items()))
    project = corrected(tmp_path, f"{row_id},{other(before['label'])}", data={"id": None})
    run(project, until="split")
    assert examples(project)[row_id]["label"] == other(before["label"])


def test_several_labels_are_parted_as_in_the_data(tmp_path):
    project = corrected(tmp_path, "r0;food | sport", head="row_id;corrected_label", task=Task.MULTI_LABEL)
    run(project, until="split")
    assert examples(project)["r0"]["labels"] == ["food", "sport"]


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        (["r1,food", "r999,food", "nobody,-"], DataError, "lines 3, 4"),
        (["r1,food", "r2,fod"], DataError, "line 3.*did you mean 'food'"),
        (["r1,food", "r1,sport"], DataError, "lines 2 and 3 correct the same row"),
        (["r1,food", ",sport"], DataError, "line 3 has a corrected_label and no row_id"),
        (['r1,"a\nb"', "r999,food"], DataError, "line 4"),
    ],
)
def test_what_does_not_fit_is_named_by_line(tmp_path, lines, error, message):
    project = corrected(tmp_path, *lines)
    with pytest.raises(error, match=f"(?s){FILE}: .*{message}"):
        run(project, until="clean")
    assert Lake(project.resolve(project.lake)).version("silver/texts") is None


def test_a_label_of_the_project_may_be_new_to_the_data(tmp_path):
    names = ["food", "money", "sport", "other"]
    (tmp_path / FILE).write_text("row_id,corrected_label\nr0,other\n", encoding="utf-8")
    project = make_project(tmp_path, labels={"names": names, "corrections": FILE})
    run(project, until="split")
    assert examples(project)["r0"]["label"] == "other"


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(DataError, match="no column 'corrected_label'"):
        load_corrections(corrected(tmp_path, "r1,food", head="row_id,label"))
    (tmp_path / FILE).unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        load_corrections(make_project(tmp_path, labels={"corrections": FILE}))
    (tmp_path / FILE).write_bytes(b"row_id,corrected_label\nr1,f\xff\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_corrections(make_project(tmp_path, labels={"corrections": FILE}))
