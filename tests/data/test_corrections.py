"""Corrections of labels: from a file into silver, and which steps they make run again."""

from __future__ import annotations

import subprocess
import sys
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


def own_test(folder: Path, *lines: str, head: str) -> dict[tuple[str, str], str]:
    """Correct a project whose test set numbers its rows as the source does; return labels by part and row."""
    write_csv(folder / "texts.csv", rows(60))
    write_csv(folder / "mine.csv", [{**row, "text": f"another {row['text']}"} for row in rows(60, seed=3)])
    project = corrected(folder, *lines, head=head, data={"test": "mine.csv"})
    run(project, until="clean")
    table = Lake(project.resolve(project.lake)).read("silver/texts").to_pylist()
    return {(row["part"], row["row_id"]): row["label"] for row in table}


def test_a_test_set_of_ones_own_is_not_corrected_by_the_ids_of_the_source(tmp_path):
    train, test = rows(60), rows(60, seed=3)
    lines = [f"r3,train,{other(train[3]['label'])}", "r4,validation,-", f"r5,test,{other(test[5]['label'])}"]
    found = own_test(tmp_path, *lines, head="row_id,side,corrected_label")
    assert (found["train", "r3"], found["test", "r3"]) == (other(train[3]["label"]), test[3]["label"])
    assert ("train", "r4") not in found
    assert found["test", "r4"] == test[4]["label"]
    assert (found["train", "r5"], found["test", "r5"]) == (train[5]["label"], other(test[5]["label"]))


def test_a_side_that_a_row_is_not_of_is_named(tmp_path):
    with pytest.raises(DataError, match=r"row_id with the `side` of line 2\. .* the side `test`"):
        own_test(tmp_path, "r99,test,food", head="row_id,side,corrected_label")


def test_a_row_id_of_two_rows_is_an_error_where_no_side_is_given(tmp_path):
    with pytest.raises(DataError, match=r"the row_id of line 3 stands in data\.source and in data\.test"):
        own_test(tmp_path, "r99,", "r4,-", head="row_id,corrected_label")


def test_a_list_with_a_long_text_is_read_in_a_process_that_read_no_other_file(tmp_path):
    (tmp_path / FILE).write_text(f"row_id,corrected_label,text\nr1,food,{'word ' * 40_000}\n", encoding="utf-8")
    code = (
        "import sys, pathlib; from tamiz.data.corrections import filled_lines; "
        "print(len(filled_lines(pathlib.Path(sys.argv[1]))))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / FILE)], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "1"


def test_ids_are_known_without_blanks_around_them_and_blank_ones_by_their_place(tmp_path):
    table = rows(60)
    table[3]["id"], table[4]["id"] = " padded ", "  "
    write_csv(tmp_path / "texts.csv", table)
    first = make_project(tmp_path)
    run(first, until="clean")
    held = Lake(first.resolve(first.lake)).read("silver/texts").to_pylist()
    (blank,) = [row["row_id"] for row in held if row["text_raw"] == table[4]["text"]]
    assert blank.endswith(":4")
    project = corrected(tmp_path, f"padded,{other(table[3]['label'])}", f"{blank},-")
    run(project, until="split")
    found = examples(project)
    assert found["padded"]["label"] == other(table[3]["label"])
    assert blank not in found
