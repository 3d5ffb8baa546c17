"""Planted faults are found, and clean data gives no warning."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import polars as pl
import pytest

from tamiz.audit import Finding, Report, Severity, check_data, write_page, write_suspects
from tamiz.audit.confidence import doubt_labels, doubt_sets
from tamiz.audit.leakage import leaks
from tamiz.audit.page import _figure
from tamiz.audit.suspects import ranked
from tamiz.config import Project
from tamiz.data.lake import Lake
from tamiz.errors import TamizError
from tamiz.types import Task
from tests.projects import make_project, run, write_csv

_WORDS = {
    "food": "bread soup cheese apple salt butter kitchen dinner taste oven",
    "money": "bank loan credit interest account debt payment market share price",
}
_SENTENCE = (
    "the people of this town have often said that they would like to know more about what happens every day in "
    "other places and whether it could be done in a better way by those who live there"
)
_COMMON = _SENTENCE.split()


def clean_rows(n: int, *, seed: int = 0) -> list[dict[str, object]]:
    """Make rows whose labels can be told by their words."""
    rng = np.random.default_rng(seed)
    made: list[dict[str, object]] = []
    for i in range(n):
        label = list(_WORDS)[i % 2]
        words = [*rng.choice(_WORDS[label].split(), 5), *rng.choice(_COMMON, 12)]
        rng.shuffle(words)
        made.append({"id": f"r{i}", "text": " ".join(words), "label": label})
    return made


def checked(folder: Path, table: list[dict[str, object]], task: Task = Task.MULTI_CLASS, **sections: object) -> Report:
    write_csv(folder / "texts.csv", table)
    return report_of(make_project(folder, task, **sections))


def report_of(project: Project, **options: object) -> Report:
    refusal = None
    try:
        run(project, until="split")
    except TamizError as error:
        refusal = str(error)
    return check_data(Lake(project.resolve(project.lake)), project, refusal=refusal, **options)


def found(report: Report, name: str) -> Finding:
    (finding,) = [one for one in report.findings if one.name == name]
    return finding


def test_clean_data_gives_no_warning(tmp_path):
    report = checked(tmp_path, clean_rows(200))
    assert [(one.name, one.severity) for one in report.findings if one.severity is not Severity.OK] == []
    assert report.suspects == ()
    assert report.severity is Severity.OK


def test_missing_values_are_counted_by_column(tmp_path):
    table = clean_rows(100)
    for row in table[:10]:
        row["text"] = " "
    for row in table[50:53]:
        row["label"] = ""
    report = checked(tmp_path, table)
    missing = found(report, "missing values")
    assert missing.severity is Severity.WARNING
    assert missing.figures == {"rows": 100, "missing": {"id": 0, "text": 10, "label": 3}}
    assert found(report, "lengths").figures["empty"] == 10
    assert found(report, "labels").figures["unlabeled"] == 3


def test_data_that_cannot_be_cleaned_are_checked_all_the_same(tmp_path):
    table = clean_rows(60)
    for row in table[:30]:
        row["text"] = ""
    report = checked(tmp_path, table)
    assert found(report, "cleaning and split").severity is Severity.WARNING
    assert "max_refused" in found(report, "cleaning and split").summary
    assert found(report, "lengths").figures["empty"] == 30


def test_repeats_and_conflicts_are_counted(tmp_path):
    table = clean_rows(100)
    table[10]["text"] = str(table[0]["text"]).upper()  # r0 and r10 have one label
    table[21]["text"] = table[2]["text"]  # these have not
    long = " ".join(f"word{i}" for i in range(100))
    table[4]["text"], table[6]["text"] = long, long + " more"
    table[8]["text"], table[9]["text"] = "new " + long[::-1], long[::-1]
    report = checked(tmp_path, table)
    assert found(report, "duplicates").figures | {"share": 0} == {"exact": 2, "near": 2, "share": 0}
    conflicts = found(report, "conflicts")
    assert (conflicts.figures, conflicts.severity) == ({"exact": 2, "near": 2}, Severity.WARNING)
    assert [row[0] for row in conflicts.tables[0].rows] == ["r2", "r21", "r8", "r9"]


def test_equal_texts_are_near_ones_too(tmp_path):
    table = clean_rows(60)
    for at, text in enumerate(
        ["Die Straße ist groß", "DIE STRASSE IST GROSS", "die strasse ist gross", "?! ?", "?!  ?"]
    ):
        table[at]["text"] = text
    figures = found(checked(tmp_path, table), "duplicates").figures
    assert (figures["exact"], figures["near"]) == (3, 0)


def test_rare_and_differently_spelled_labels_are_warned_of(tmp_path):
    table = clean_rows(100)
    for row in table[:3]:
        row["label"] = "Food"
    labels = found(checked(tmp_path, table), "labels")
    assert labels.severity is Severity.WARNING
    assert labels.figures["rare"] == ["Food"]
    assert labels.figures["counts"] == {"food": 48, "money": 49, "Food": 3}
    assert any("capitals" in detail for detail in labels.details)
    assert any("times the examples" in detail for detail in labels.details)


def test_a_column_that_gives_the_label_away_is_named(tmp_path):
    table = [{**row, "stars": 1 if row["label"] == "food" else 5} for row in clean_rows(100)]
    giveaways = found(checked(tmp_path, table), "giveaways")
    assert giveaways.severity is Severity.NOTE
    assert "'stars'" in giveaways.details[0]


@pytest.mark.parametrize(("trend", "severity"), [(True, Severity.WARNING), (False, Severity.OK)])
def test_a_trend_of_labels_is_found(tmp_path, trend, severity):
    table = clean_rows(200)
    if trend:
        table = [row for row in table if row["label"] == "food"] + [row for row in table if row["label"] == "money"]
    first = date(2020, 1, 1)
    table = [{**row, "day": (first + timedelta(days=i)).isoformat()} for i, row in enumerate(table)]
    time = found(checked(tmp_path, table, data={"time": "day"}), "time")
    assert (time.severity, time.figures["first"], time.figures["last"]) == (severity, "2020-01-01", "2020-07-18")
    assert time.figures["cramers_v"] == pytest.approx(float(trend), abs=0.05)
    rows, shares = time.plots
    assert sum(rows.series["rows"]) == 200
    assert {round(sum(values), 9) for values in zip(*shares.series.values(), strict=True)} == {1.0}


@pytest.mark.parametrize(
    ("day", "summary", "details"),
    [
        ("soon", "0 rows with a time: too few", ("60 rows have no time, 60 of them one that cannot be understood",)),
        ("2020-01-01", "60 rows of one and the same time", ()),
    ],
)
def test_times_without_a_trend_say_why(tmp_path, day, summary, details):
    table = [{**row, "day": day} for row in clean_rows(60)]
    time = found(checked(tmp_path, table, data={"time": "day"}), "time")
    assert time.summary.startswith(summary)
    assert (time.severity, time.details) == (Severity.NOTE, details)


def test_languages_of_a_sample_are_told(tmp_path):
    table = clean_rows(100)
    for i, row in enumerate(table[:40]):
        row["text"] = f"Dies ist ein ganz gewöhnlicher deutscher Satz über das Wetter von gestern und Nummer {i}."
    languages = found(checked(tmp_path, table), "languages")
    assert languages.severity is Severity.NOTE
    assert languages.figures["sample"] == 100
    assert languages.figures["languages"]["de"] == 40
    assert languages.figures["languages"]["en"] > 50
    assert "sample of 100" in languages.summary


def sides(**columns: list[object]) -> pl.DataFrame:
    n = len(columns["side"])
    usual = {"text_key": [f"k{i}" for i in range(n)], "near": list(range(n)), "group": [None] * n, "time": [None] * n}
    return pl.DataFrame({**usual, **columns}, schema_overrides={"time": pl.Datetime("us", "UTC"), "group": pl.String})


def test_what_sides_share_is_counted():
    side = ["train", "train", "validation", "test", "test"]
    clean = leaks(sides(side=side), by_time=False)
    assert clean.severity is Severity.OK
    assert clean.figures["sizes"] == {"train": 2, "validation": 1, "test": 2}
    planted = leaks(
        sides(
            side=side,
            text_key=["a", "b", "c", "a", "d"],
            near=[0, 1, 2, 0, 1],
            group=["x", "y", "x", "z", "z"],
        ),
        by_time=False,
    )
    assert planted.severity is Severity.WARNING
    assert planted.figures["shared"] == {
        "equal texts": {"validation": 0, "test": 1},
        "near-duplicates": {"validation": 0, "test": 2},
        "groups": {"validation": 1, "test": 0},
    }


def test_training_later_than_test_is_told():
    days = pl.Series([1, 5, 3, 4, 6]).cast(pl.Int64) * 86_400_000_000
    time = days.cast(pl.Datetime("us", "UTC")).to_list()
    frame = sides(side=["train", "train", "validation", "test", "test"], time=time)
    assert leaks(frame, by_time=True).severity is Severity.NOTE
    assert leaks(frame, by_time=False).figures["later_than_test"] == 1
    assert leaks(frame, by_time=False).severity is Severity.OK


def test_near_duplicates_on_two_sides_are_found_in_a_project(tmp_path):
    table = clean_rows(100)
    for i in range(0, 60, 2):
        table[i + 1]["text"] = f"{table[i]['text']} indeed"
        table[i + 1]["label"] = table[i]["label"]
    split = {"validation": 0.3, "test": 0.3, "near_duplicates": False}
    leakage = found(checked(tmp_path, table, split=split), "leakage")
    assert leakage.severity is Severity.WARNING
    assert leakage.figures["shared"]["near-duplicates"]["test"] > 0
    assert leakage.figures["shared"]["equal texts"] == {"validation": 0, "test": 0}


# --- label errors


def test_changed_labels_are_suspected(tmp_path):
    table = clean_rows(300)
    rng = np.random.default_rng(1)
    changed = {str(table[at]["id"]) for at in rng.choice(300, 15, replace=False)}
    for row in table:
        if row["id"] in changed:
            row["label"] = "money" if row["label"] == "food" else "food"
    report = checked(tmp_path, table, split={"validation": 0.1, "test": 0.1})
    suspects = {one.row_id: one for one in report.suspects}
    assert found(report, "label errors").figures["looked_at"] == 270
    seen = {row["id"] for row in table} - _test_side(tmp_path)
    assert set(suspects) <= changed & seen
    assert len(suspects) >= 0.75 * len(changed & seen)  # their number is an estimate
    assert all(one.labels != one.suggested and one.probability > 0.5 for one in suspects.values())
    assert [one.score for one in report.suspects] == sorted(one.score for one in report.suspects)


def _test_side(folder: Path) -> set[str]:
    table = Lake(str(folder / "lake")).read("gold/examples", columns=["row_id", "side"])
    return {row["row_id"] for row in table.to_pylist() if row["side"] == "test"}


def test_a_sample_is_stated(tmp_path):
    write_csv(tmp_path / "texts.csv", clean_rows(200))
    report = report_of(make_project(tmp_path), sample=100)
    figures = found(report, "label errors").figures
    assert (figures["looked_at"], figures["rows"]) == (100, 150)
    assert "a random 100 of 150" in found(report, "label errors").summary


def test_labels_that_cannot_be_judged_are_passed_over(tmp_path):
    table = [{**row, "label": "money" if i < 3 else "food"} for i, row in enumerate(clean_rows(60))]
    few = checked(tmp_path, table)
    assert few.suspects == ()
    assert found(few, "labels").figures["rare"] == ["money"]
    (tmp_path / "words").mkdir()
    strange = [{"id": i, "text": f"{chr(0x4E00 + 3 * i)}", "label": "ab"[i % 2]} for i in range(40)]
    nothing = checked(tmp_path / "words", strange)
    assert "could not be looked for" in found(nothing, "label errors").summary


@pytest.mark.parametrize("task", [Task.MULTI_CLASS, Task.MULTI_LABEL])
def test_labels_that_the_texts_do_not_tell_are_not_suspected(tmp_path, task):
    rng = np.random.default_rng(4)
    table = [{**row, "label": str(rng.choice(["food", "money", "sport"]))} for row in clean_rows(240)]
    report = checked(tmp_path, table, task)
    assert report.suspects == ()
    assert "rank the rows of no label beyond chance" in found(report, "label errors").summary


def test_sets_of_labels_are_judged_label_by_label(tmp_path):
    rng = np.random.default_rng(0)
    table: list[dict[str, object]] = []
    for i in range(300):
        own = [label for label, odds in (("food", i % 2), ("money", i % 3 == 0)) if odds]
        words = [word for label in own for word in rng.choice(_WORDS[label].split(), 4)] + list(rng.choice(_COMMON, 10))
        table.append({"id": f"r{i}", "text": " ".join(words), "label": own or ["none"]})
    changed = {f"r{i}" for i in rng.choice(300, 12, replace=False)}
    for row in table:
        if row["id"] in changed:
            row["label"] = ["food"] if "food" not in row["label"] else ["money"]  # at least food is wrong now
    report = checked(tmp_path, table, Task.MULTI_LABEL, split={"validation": 0.1, "test": 0})
    suspects = {one.row_id: one for one in report.suspects}
    assert len(changed & set(suspects)) >= 10
    assert len(suspects) <= 15
    assert all(set(one.suggested) != set(one.labels) for one in suspects.values())


def test_thresholds_differ_by_label():
    """A label that the model is never sure of does not make its rows suspect (Northcutt et al. 2021, section 3)."""
    probabilities = np.array([[0.99, 0.01], [0.97, 0.03], [0.60, 0.40], [0.65, 0.35], [0.55, 0.45], [0.02, 0.98]])
    doubts = doubt_labels(probabilities, np.array([0, 0, 1, 1, 1, 0]))
    assert doubts.suspected.tolist() == [False, False, False, False, False, True]
    np.testing.assert_allclose(doubts.margin, [0.98, 0.94, -0.2, -0.3, -0.1, -0.96])
    assert doubts.suggested.tolist() == [1, 1, 0, 0, 0, 1]


def test_doubts_of_sets_change_what_is_doubtful_alone():
    probabilities = np.array([[0.9, 0.1, 0.9], [0.95, 0.05, 0.1], [0.1, 0.9, 0.2], [0.05, 0.9, 0.8], [0.02, 0.1, 0.1]])
    given = np.array([[1, 0, 1], [1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 0]], np.bool_)
    doubts = doubt_sets(probabilities, given)
    assert doubts.suspected.tolist() == [False, False, False, False, True]
    assert doubts.suggested[4].tolist() == [False, False, False]
    assert doubts.probability[4] == pytest.approx(0.98)


def test_a_label_of_a_set_with_too_few_examples_is_not_judged():
    """A model that has not seen a label's few examples says no to each of them."""
    rng = np.random.default_rng(0)
    given = np.zeros((60, 3), np.bool_)
    given[::2, 0] = True
    given[:4, 1] = True  # too few have it
    given[4:, 2] = True  # too few have it not
    probabilities = np.where(given, 0.9, 0.1) + rng.uniform(-0.05, 0.05, given.shape)
    probabilities[:4, 1:] = [0.001, 0.999]
    probabilities[10, 0], probabilities[11, 0] = 0.02, 0.97
    order, doubts = ranked(probabilities, given, Task.MULTI_LABEL)
    assert np.flatnonzero(doubts.suspected).tolist() == [10, 11]
    assert set(order[:2].tolist()) == {10, 11}
    assert (doubts.suggested[:, 1:] == given[:, 1:]).all()
    np.testing.assert_allclose(doubts.margin[:4], np.where(given[:4, 0], 1, -1) * (2 * probabilities[:4, 0] - 1))


# --- pages and files


class Tags(HTMLParser):
    """Collect the tags of a page, with the addresses they load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.labels: list[str | None] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.labels += [value for name, value in attrs if name == "aria-label"]
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_stands_alone_and_escapes_texts(tmp_path):
    table = clean_rows(100)
    attack = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    for row in table:
        if row["label"] == "money":
            row["label"] = attack
    table[3]["text"] = f"{attack} the same text of two"
    table[4]["text"] = table[3]["text"]
    report = checked(tmp_path, table)
    write_page(report, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "alert(1)" in page  # it is shown
    assert page.count("<script>alert(1)") == 0
    tags = Tags()
    tags.feed(page)
    assert "img" not in tags.tags
    assert all(address.startswith("#") for address in tags.addresses)
    plots = sum(len(one.plots) for one in report.findings)
    assert plots > 3
    assert all(plot.y_title for one in report.findings for plot in one.plots)
    assert tags.labels == [plot.title for one in report.findings for plot in one.plots]
    assert tags.tags.count("script") == plots + 2  # a plot's data each, plotly and what draws them
    assert len(page) < 8_000_000
    for plot in (plot for one in report.findings for plot in one.plots):
        go.Figure(_figure(plot))  # which refuses what plotly does not know


def test_the_page_is_the_same_every_time(tmp_path):
    report = checked(tmp_path, clean_rows(60))
    write_page(report, tmp_path / "one.html")
    write_page(report, tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_records_for_machines_hold_no_text(tmp_path):
    table = clean_rows(100)
    table[1]["text"] = table[0]["text"]
    report = checked(tmp_path, table)
    assert str(table[0]["text"]) not in str(report.to_dict())
    assert found(report, "conflicts").tables[0].texts


def test_suspects_are_written_to_be_filled_in(tmp_path):
    table = clean_rows(100)
    table[0]["label"] = "money"
    project = make_project(tmp_path)
    report = checked(tmp_path, table, split={"validation": 0.1, "test": 0})
    write_suspects(report.suspects, tmp_path / "s.csv", project)
    frame = pl.read_csv(tmp_path / "s.csv")
    assert frame.columns == ["row_id", "side", "label", "suggested_label", "probability", "corrected_label", "text"]
    first = frame.row(0, named=True)
    assert (first["row_id"], first["label"], first["suggested_label"]) == ("r0", "money", "food")
    assert first["text"] == table[0]["text"]
    assert first["corrected_label"] is None
    formula = [replace(one, text=f"=1+{one.text}") for one in report.suspects]
    write_suspects(formula, tmp_path / "s.csv", project)
    assert pl.read_csv(tmp_path / "s.csv")["text"][0] == f"'=1+{table[0]['text']}"
