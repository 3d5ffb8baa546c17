"""`tamiz check`."""

from __future__ import annotations

import csv

import pytest

from tests.projects import rows, write_csv, write_project


def test_a_project_is_checked_before_anything_was_run(place, tamiz):
    write_project(place)
    answer = tamiz("check", "--html", "report.html")
    assert answer.code == 0, answer.err
    assert [line.split()[:2] for line in answer.err.splitlines()] == [["done", s] for s in ("ingest", "clean", "split")]
    for name in ("missing values", "labels", "lengths", "languages", "duplicates", "conflicts", "leakage"):
        assert name in answer.out
    assert "wrote report.html" in answer.out
    assert (place / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert not (place / "models").exists()


def test_a_file_is_checked_without_a_project(place, tamiz):
    write_csv(place / "posts.csv", rows(120))
    answer = tamiz("check", "posts.csv", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["project"] == "posts"
    labels = next(one for one in answer.json["findings"] if one["name"] == "labels")
    assert set(labels["figures"]["counts"]) == {"food", "money", "sport"}


@pytest.mark.parametrize("command", ["check", "run"])
def test_quiet_says_nothing_of_what_a_file_was_taken_for(place, tamiz, command):
    write_csv(place / "posts.csv", rows(120))
    answer = tamiz(command, "posts.csv", "--quiet")
    assert answer.code == 0
    assert not {"posts.csv", "task:", "guessed"} & set(answer.err.split())
    assert answer.out


def test_strict_fails_where_there_is_a_warning(place, tamiz):
    table = rows(120)
    table[1]["text"], table[1]["label"], table[0]["label"] = table[0]["text"], "food", "sport"
    write_csv(place / "texts.csv", table)
    write_project(place)
    assert tamiz("check", "--quiet").code == 0
    answer = tamiz("check", "--strict", "--quiet")
    assert (answer.code, answer.err) == (1, "")
    assert "2 rows have the text of another" in answer.out


def test_few_rows_are_not_said_to_be_well_labelled(place, tamiz):
    table = [{**row, "text": f"{row['text']} {number}"} for number, row in enumerate(rows(8))]
    write_csv(
        place / "posts.csv", [*table, {**table[0], "id": "none", "text": "nobody said what this is", "label": ""}]
    )
    answer = tamiz("check", "posts.csv")
    assert answer.code == 0, answer.err
    assert "1 row without" in answer.out
    assert "1 rows" not in answer.out
    errors = next(
        one for one in tamiz("check", "posts.csv", "--json").json["findings"] if one["name"] == "label errors"
    )
    assert (errors["severity"], errors["figures"]["looked_at"]) == ("note", 0)


def test_markup_in_labels_and_texts_is_shown_as_it_is(place, tamiz):
    table = rows(120)
    for row in table:
        row["label"] = f"[bold]{row['label']}[/nothing]"
    table[1]["text"], table[0]["label"] = table[0]["text"], "[red]\x1b[2J"
    table[1]["label"] = "[bold]food[/nothing]"
    write_csv(place / "texts.csv", table)
    write_project(place)
    answer = tamiz("check", "--quiet")
    assert answer.code == 0, answer.err
    assert "[bold]food[/nothing]" in answer.out
    assert "\x1b[2J" not in answer.out


def test_suspects_go_out_and_corrections_come_back(place, tamiz):
    write_project(place, n=240)
    answer = tamiz("check", "--suspects", "suspects.csv", "--quiet")
    assert answer.code == 0
    with (place / "suspects.csv").open(encoding="utf-8-sig", newline="") as file:
        listed = list(csv.DictReader(file))
    assert listed  # every tenth label is wrong
    assert f"wrote suspects.csv: {len(listed)} rows with doubtful labels" in answer.out
    for row in listed:
        row["corrected_label"] = row["suggested_label"]
    write_csv(place / "suspects.csv", listed)
    write_project(place, labels={"corrections": "suspects.csv"})
    again = tamiz("check", "--json")
    assert again.code == 0, again.err
    figures = next(one for one in again.json["findings"] if one["name"] == "label errors")["figures"]
    assert figures["suspected"] < len(listed) / 2
    assert not {one["row_id"] for one in again.json["suspects"]} & {row["row_id"] for row in listed}


def test_what_was_filled_in_is_kept(place, tamiz, refused):
    write_project(place, n=240)
    assert tamiz("check", "--suspects", "suspects.csv", "--quiet").code == 0
    with (place / "suspects.csv").open(encoding="utf-8-sig", newline="") as file:
        listed = list(csv.DictReader(file))
    done = listed[:2]
    for row in done:
        row["corrected_label"] = row["suggested_label"]
    write_csv(place / "suspects.csv", [*listed, {**listed[0], "row_id": "r0", "corrected_label": "-"}])
    write_project(place, labels={"corrections": "suspects.csv"})
    answer = tamiz("check", "--suspects", "suspects.csv", "--quiet")
    assert answer.code == 0, answer.err
    assert "3 lines filled in before kept" in answer.out
    with (place / "suspects.csv").open(encoding="utf-8-sig", newline="") as file:
        again = {row["row_id"]: row for row in csv.DictReader(file)}
    kept = {row_id: row["corrected_label"] for row_id, row in again.items() if row["corrected_label"]}
    assert kept == {**{row["row_id"]: row["suggested_label"] for row in done}, "r0": "-"}
    assert again[done[0]["row_id"]]["text"] == done[0]["text"]
    assert len(again) > len(kept)
    foreign = "texts.csv is there and is no list of suspects"
    assert foreign in refused(2, "check", "--suspects", "texts.csv")


def test_too_few_times_to_divide_by_are_told_and_the_rest_is_checked(place, tamiz):
    table = [{**row, "day": "2024-01-01"} for row in rows(120)]
    write_csv(place / "texts.csv", table)
    write_project(place, data={"time": "day"}, split={"by": "time", "validation": 0.2, "test": 0.2})
    answer = tamiz("check", "--json")
    assert answer.code == 0, answer.err
    findings = {one["name"]: one for one in answer.json["findings"]}
    assert "needs at least 3 different times" in findings["cleaning and split"]["summary"]
    assert findings["labels"]["figures"]["counts"]


def test_dated_rows_without_labels_have_no_trend(place, tamiz):
    table = [{**row, "label": "", "day": f"2024-01-{1 + i % 28:02}"} for i, row in enumerate(rows(120))]
    write_csv(place / "texts.csv", table)
    write_project(place, data={"time": "day"})
    answer = tamiz("check", "--json")
    assert answer.code == 0, answer.err
    time = next(one for one in answer.json["findings"] if one["name"] == "time")
    assert (time["severity"], time["figures"]["p"]) == ("ok", 1.0)


@pytest.mark.parametrize("option", ["--html", "--suspects"])
def test_a_place_that_is_not_there_is_refused_before_the_work(place, refused, option):
    write_project(place)
    assert "there is no folder nowhere; make it first" in refused(2, "check", option, "nowhere/out.file")
    assert not (place / "lake").exists()


@pytest.mark.parametrize("option", ["--html", "--suspects"])
def test_a_folder_to_write_to_is_refused_before_the_work(place, refused, option):
    write_project(place)
    assert "it is a folder; name a file in it" in refused(2, "check", option, ".")
    assert not (place / "lake").exists()
