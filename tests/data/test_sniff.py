from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xlsxwriter
from hypothesis import given
from hypothesis import strategies as st

from tamiz.data.profiles import find_separator, plain_name, profile
from tamiz.data.sniff import Sniffed, sniff
from tamiz.errors import ColumnError, DataError
from tamiz.types import Task

N = 60
TEXTS = [f"this is sentence number {n} about something of interest" for n in range(N)]
CITIES = [["Bogotá", "Lima", "Quito"][n % 3] for n in range(N)]
GENRES = [[["drama"], ["drama", "crime"], ["comedy"], ["crime", "comedy"], []][n % 5] for n in range(N)]


def sniffed(folder: Path, columns: Mapping[str, Sequence[object]], **options) -> Sniffed:
    """Write the columns as CSV, where everything is text, and look at them."""
    path = folder / "data.csv"
    with path.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return sniff(str(path), **options)


def sniffed_parquet(folder: Path, columns: Mapping[str, Sequence[object]], **options) -> Sniffed:
    pq.write_table(pa.table(dict(columns)), folder / "data.parquet")
    return sniff(str(folder / "data.parquet"), **options)


def alternating(*labels: str, n: int = N) -> list[str]:
    return [labels[i % len(labels)] for i in range(n)]


def test_all_roles_of_a_plain_table(tmp_path):
    days = [date(2024, 1, 1) + timedelta(days=n) for n in range(N)]
    got = sniffed(
        tmp_path,
        {
            "complaint_id": range(1000, 1000 + N),
            "received": days,
            "city": CITIES,
            "narrative": TEXTS,
            "category": alternating("loan", "card", "card", "account"),
        },
    )
    assert (got.text, got.label, got.id, got.time) == ("narrative", "category", "complaint_id", "received")
    assert (got.task, got.separator) == (Task.MULTI_CLASS, None)
    assert list(got.labels.items()) == [("card", 30), ("account", 15), ("loan", 15)]
    assert (got.rows, got.complete, got.warnings) == (N, True, ())
    assert set(got.reasons) == {"text", "label", "id", "time"}
    assert [(c.name, c.type, c.role) for c in got.columns] == [
        ("complaint_id", "integer", "id"),
        ("received", "date", "time"),
        ("city", "text", None),
        ("narrative", "text", "text"),
        ("category", "text", "label"),
    ]
    assert json.loads(json.dumps(got.to_dict()))["task"] == "multi-class"


def test_column_figures(tmp_path):
    got = sniffed(tmp_path, {"text": TEXTS, "label": alternating("a", "bbb"), "note": alternating("x", "", " ", "y")})
    (note,) = [column for column in got.columns if column.name == "note"]
    assert (note.missing, note.distinct, note.mean_length) == (0.5, 2, 1.0)
    (label,) = [column for column in got.columns if column.name == "label"]
    assert (label.missing, label.distinct, label.mean_length) == (0.0, 2, 2.0)


@pytest.mark.parametrize(
    "name",
    ["label", "Class", "TARGET", "sentiment", "topic", "y", "etiqueta", "Categoría", "clase", "Étiquette", "classe",
     "género", "productLabel", "final_category"],
)  # fmt: skip
def test_label_is_known_by_its_name_among_columns_with_fewer_values(tmp_path, name):
    columns = {"flag": alternating("x", "y"), name: alternating("a", "b", "c", "d", "e"), "text": TEXTS, "city": CITIES}
    assert sniffed(tmp_path, columns).label == name


@pytest.mark.parametrize(
    ("label", "others"),
    [
        ("rating", {"verified_purchase": ("true", "false")}),
        ("stars", {"split": ("train", "test")}),
        ("score", {"lang": ("en", "de")}),
        ("queue", {"language": ("en", "de")}),
        ("city", {"fold": ("0", "1")}),
    ],
)
def test_what_describes_a_row_is_not_its_label(tmp_path, label, others):
    columns = {name: alternating(*values) for name, values in others.items()}
    assert sniffed(tmp_path, {**columns, "text": TEXTS, label: alternating("1", "2", "3", "4", "5")}).label == label


def test_label_without_a_telling_name_has_the_fewest_values(tmp_path):
    got = sniffed(tmp_path, {"city": CITIES, "what": TEXTS, "verdict": alternating("yes", "no")})
    assert (got.text, got.label, got.task) == ("what", "verdict", Task.BINARY)


@pytest.mark.parametrize("values", [("0", "1"), ("true", "false"), ("-1", "1")])
def test_binary_labels_that_are_no_words(tmp_path, values):
    got = sniffed(tmp_path, {"text": TEXTS, "target": alternating(*values)})
    assert (got.label, got.task, set(got.labels)) == ("target", Task.BINARY, set(values))


def test_text_is_the_longest_free_text_and_no_long_code(tmp_path):
    columns = {
        "url": [f"https://example.org/{'a' * 300}/{n}" for n in range(N)],
        "title": [f"the title {n}" for n in range(N)],
        "story": TEXTS,
        "label": alternating("a", "b"),
    }
    assert sniffed(tmp_path, columns).text == "story"


def test_text_name_outweighs_somewhat_longer_text(tmp_path):
    columns = {
        "text": TEXTS,
        "agency_answer": [f"{text} and more words" for text in TEXTS],
        "label": alternating("a", "b"),
    }
    assert sniffed(tmp_path, columns).text == "text"


def test_text_in_a_script_without_blanks(tmp_path):
    columns = {"本文": [f"この映画はとても良かったです{n}" for n in range(N)], "label": alternating("良い", "悪い")}
    assert sniffed(tmp_path, columns).text == "本文"


def test_labels_of_several_words_are_not_the_text(tmp_path):
    long = alternating("Credit reporting, repair, or other personal consumer reports " * 3, "Vehicle loan or lease")
    got = sniffed(tmp_path, {"Product": long, "narrative": TEXTS})
    assert (got.text, got.label, got.separator) == ("narrative", "Product", None)


@pytest.mark.parametrize("rows", [4, 6, 10])
def test_very_small_data(tmp_path, rows):
    got = sniffed(tmp_path, {"text": TEXTS[:rows], "label": alternating("a", "b", n=rows)})
    assert (got.text, got.label, got.task) == ("text", "label", Task.BINARY)


def test_many_labels_are_accepted_under_a_telling_name(tmp_path):
    labels = [f"intent {n % 20}" for n in range(N)]
    assert len(sniffed(tmp_path, {"text": TEXTS, "intent": labels}).labels) == 20


# --- several labels


@pytest.mark.parametrize("separator", ["|", ";", ",", ", "])
def test_separator_is_found_where_parts_recur(tmp_path, separator):
    got = sniffed(tmp_path, {"plot": TEXTS, "genres": [separator.join(labels) for labels in GENRES]})
    assert (got.label, got.task, got.separator) == ("genres", Task.MULTI_LABEL, separator.strip())
    assert got.labels == {"comedy": 24, "crime": 24, "drama": 24}


def test_real_lists_need_no_separator(tmp_path):
    got = sniffed_parquet(tmp_path, {"plot": TEXTS, "genres": GENRES})
    assert (got.label, got.task, got.separator) == ("genres", Task.MULTI_LABEL, None)
    assert got.labels == {"comedy": 24, "crime": 24, "drama": 24}
    assert got.warnings == ()


@pytest.mark.parametrize("write", [json.dumps, repr])
def test_lists_written_as_text_are_understood_and_warned_of(tmp_path, write):
    got = sniffed(tmp_path, {"plot": TEXTS, "genres": [write(labels) for labels in GENRES]})
    assert (got.task, set(got.labels)) == (Task.MULTI_LABEL, {"comedy", "crime", "drama"})
    assert "lists written as text" in got.warnings[0]


@pytest.mark.parametrize(
    "labels",
    [
        ["Credit reporting, repair, or other", "Vehicle loan or lease", "Money transfer, virtual currency"],
        ["Credit reporting", "Credit reporting, repair, or other", "Debt collection"],
        ["a|b", "c"],
    ],
)
def test_separator_inside_a_single_label_is_none(labels):
    assert find_separator(profile("label", labels * 20)) is None


# --- identifiers and times


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("id", [f"row-{n}" for n in range(N)], True),
        ("uuid", range(N), True),
        ("reference", [f"R{n:05d}" for n in range(N)], True),
        ("id", [n % 59 for n in range(N)], False),
        ("name", [f"first last{n}" for n in range(N)], False),
        ("score", [n / 7 for n in range(N)], False),
        ("id", ["", *range(N - 1)], False),
    ],
)
def test_id_is_short_and_unique(tmp_path, name, values, expected):
    got = sniffed(tmp_path, {"text": TEXTS, "label": alternating("a", "b"), name: values})
    assert got.id == (name if expected else None)


def test_name_decides_between_two_unique_columns(tmp_path):
    columns = {"serial": range(N), "review_id": range(5, 5 + N), "text": TEXTS, "label": alternating("a", "b")}
    assert sniffed(tmp_path, columns).id == "review_id"


def test_repeated_ids_are_warned_of(tmp_path):
    got = sniffed(tmp_path, {"id": [n % 50 for n in range(N)], "text": TEXTS, "label": alternating("a", "b")})
    assert any("'id'" in warning and "10 of its values are repeated" in warning for warning in got.warnings)


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d",
        "%Y-%m-%dT%H:%M:%SZ",
        "%d/%m/%Y",
        "%m/%d/%y",
        "%d.%m.%Y",
        "%Y-%m-%d %H:%M:%S",
        "%b %d, %Y",
        "%d %B %Y",
    ],
)
def test_times_as_text(tmp_path, form):
    days = [(date(2024, 1, 1) + timedelta(days=n)).strftime(form) for n in range(N)]
    got = sniffed(tmp_path, {"when": days, "text": TEXTS, "label": alternating("a", "b")})
    assert got.time == "when"


def test_times_as_dates_with_gaps(tmp_path):
    days = [None if n % 3 else date(2024, 1, 1) + timedelta(days=n) for n in range(N)]
    got = sniffed_parquet(tmp_path, {"day": days, "text": TEXTS, "label": alternating("a", "b")})
    assert got.time == "day"
    assert "67%" in got.reasons["time"]


@pytest.mark.parametrize("values", [[f"{20240101 + n}" for n in range(N)], [f"3-{n}x" for n in range(N)], range(N)])
def test_numbers_and_codes_are_no_times(tmp_path, values):
    assert sniffed(tmp_path, {"code": values, "text": TEXTS, "label": alternating("a", "b")}).time is None


# --- warnings


def test_labels_that_differ_in_writing_only(tmp_path):
    got = sniffed(tmp_path, {"text": TEXTS, "label": alternating("Loan", "loan", "credit_card", "credit card", "x")})
    assert [warning.partition(": ")[2] for warning in got.warnings] == [
        "'Loan', 'loan'",
        "'credit card', 'credit_card'",
    ]


def test_label_with_one_example_and_rows_without(tmp_path):
    got = sniffed(tmp_path, {"text": TEXTS, "label": ["rare", "", "", *alternating("a", "b", n=N - 3)]})
    assert "3.3%" in got.warnings[0]
    assert "one example only: 'rare'" in got.warnings[1]
    assert got.labels["rare"] == 1


def test_columns_that_give_the_label_away(tmp_path):
    stars = [n % 5 + 1 for n in range(N)]
    label = ["good" if star > 2 else "bad" for star in stars]
    columns = {
        "text": TEXTS,
        "label": label,
        "stars": stars,
        "mean": [star + n / 1000 for n, star in enumerate(stars)],
        "city": CITIES,
        "noise": [(n * 37) % 60 / 7 for n in range(N)],
    }
    got = sniffed(tmp_path, columns)
    assert got.label == "label"
    assert [warning.split("'")[1] for warning in got.warnings] == ["stars", "mean"]


def test_constant_column_gives_nothing_away_where_one_label_prevails(tmp_path):
    label = ["common"] * (N - 2) + ["rare"] * 2
    got = sniffed(tmp_path, {"text": TEXTS, "label": label, "source": ["web"] * N, "city": CITIES})
    assert not any("gives the label away" in warning for warning in got.warnings)


def test_warnings_hold_no_text(tmp_path):
    got = sniffed(tmp_path, {"text": TEXTS, "label": alternating("a", "A"), "copy": TEXTS})
    assert not any(TEXTS[0] in line for line in (*got.warnings, *got.reasons.values()))


def test_notices_of_the_reader_are_passed_on(tmp_path):
    path = tmp_path / "a.csv"
    rows = "".join(f"El niño comió jamón en la montaña {n},{'sí' if n % 2 else 'no'}\n" for n in range(N))
    path.write_bytes(f"texto,clase\n{rows}".encode("cp1252"))
    got = sniff(str(path))
    assert (got.text, got.label) == ("texto", "clase")
    assert "cp1252" in got.warnings[0]


# --- what the user named, and what cannot be found


def test_named_columns_win(tmp_path):
    columns = {
        "text": TEXTS,
        "title": [f"a title {n}" for n in range(N)],
        "label": alternating("a", "b"),
        "city": CITIES,
    }
    got = sniffed(tmp_path, columns, text="title", label="city")
    assert (got.text, got.label, len(got.labels)) == ("title", "city", 3)


def test_named_column_that_is_not_there(tmp_path):
    with pytest.raises(ColumnError, match="did you mean 'label'"):
        sniffed(tmp_path, {"text": TEXTS, "label": alternating("a", "b")}, label="lable")


def test_no_text_column(tmp_path):
    with pytest.raises(DataError, match=r"the text .*Columns: n, label\. Name it: tamiz init .* --text"):
        sniffed(tmp_path, {"n": range(N), "label": alternating("a", "b")})


@pytest.mark.parametrize("values", [TEXTS, ["same"] * N, [f"k{n}" for n in range(N)], [n / 3 for n in range(N)]])
def test_no_label_column(tmp_path, values):
    with pytest.raises(DataError, match=r"the label .*Columns: text, other\. Name it: tamiz init .* --label"):
        sniffed(tmp_path, {"text": TEXTS, "other": values})


def test_no_rows(tmp_path):
    with pytest.raises(DataError, match="no rows"):
        sniffed(tmp_path, {"text": [], "label": []})


# --- the sample


def test_sample_is_spread_over_sorted_data(tmp_path):
    count = 4000
    columns = {
        "text": [f"some words here {n}" for n in range(count)],
        "label": ["a"] * (count // 2) + ["b"] * (count // 2),
    }
    got = sniffed(tmp_path, columns, rows=300)
    assert (got.rows, got.complete) == (250, False)
    assert got.labels == {"a": 125, "b": 125}


def test_scan_ends_on_long_data(tmp_path):
    count = 120_000
    columns = {"text": [f"some words here {n}" for n in range(count)], "label": alternating("a", "b", "c", n=count)}
    got = sniffed_parquet(tmp_path, columns, rows=100)
    assert got.rows <= 100
    assert not got.complete


def test_columns_that_only_later_files_have(tmp_path):
    for name, extra in (("a", {}), ("b", {"city": "Lima"})):
        lines = [
            json.dumps({"text": f"{text} {name}", "label": "x" if n % 2 else "y", **extra})
            for n, text in enumerate(TEXTS)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    got = sniff(str(tmp_path))
    assert got.rows == 2 * N
    assert {column.name: column.missing for column in got.columns} == {"text": 0.0, "label": 0.0, "city": 0.5}


def test_folder_per_label(tmp_path):
    for n, text in enumerate(TEXTS):
        folder = tmp_path / ("pos" if n % 2 else "neg")
        folder.mkdir(exist_ok=True)
        (folder / f"{n}.txt").write_text(text)
    got = sniff(str(tmp_path))
    assert (got.text, got.label, got.id, got.task) == ("text", "label", "file", Task.BINARY)


# --- parts


def test_plain_name():
    assert plain_name("  Catégorie n° 1 ") == "categorie_n_1"


@given(st.lists(st.one_of(st.none(), st.text(max_size=8), st.booleans(), st.integers(), st.floats()), max_size=20))
def test_profile_accepts_any_values(values):
    got = profile("x", values)
    assert len(got.values) == len(values)
    assert got.present + round(got.missing * len(values)) == len(values)
    assert got.distinct <= got.present


# --- the public data sets


@pytest.mark.data
@pytest.mark.parametrize(
    ("place", "text", "label", "id_", "time", "task", "labels"),
    [
        ("movies/train.parquet", "plot", "genres", "id", None, Task.MULTI_LABEL, 24),
        ("imdb/train.parquet", "text", "label", "id", None, Task.BINARY, 2),
        ("complaints/train.parquet", "narrative", "category", "id", "date_received", Task.MULTI_CLASS, 5),
        ("resolutions/sample.parquet", "text", "category", "id", None, Task.MULTI_CLASS, 10),
        ("topics/agnews/train.parquet", "text", "label", "id", None, Task.MULTI_CLASS, 4),
        ("topics/banking77/train.parquet", "text", "label", "id", None, Task.MULTI_CLASS, 77),
        ("topics/clinc150/train.parquet", "text", "label", "id", None, Task.MULTI_CLASS, 151),
        ("topics/newsgroups/train.parquet", "text", "label", "id", None, Task.MULTI_CLASS, 20),
        ("topics/noticias_es/train.parquet", "text", "label", "id", None, Task.MULTI_CLASS, 12),
    ],
)
def test_public_data_sets(place, text, label, id_, time, task, labels):
    root = os.environ.get("TAMIZ_DATA")
    if not root:
        pytest.skip("TAMIZ_DATA does not name the data sets")
    got = sniff(str(Path(root) / place))
    assert (got.text, got.label, got.id, got.time, got.task) == (text, label, id_, time, task)
    assert len(got.labels) == labels
    leaks = {warning.split("'")[1] for warning in got.warnings if "gives the label away" in warning}
    assert leaks == {"imdb": {"rating"}, "complaints": {"product"}}.get(place.split("/")[0], set())


@pytest.mark.parametrize("year", [[2024] * N, [2020] * (N // 2) + [2021, 2022, 2023] * (N // 6)])
def test_numbers_that_several_labels_have_are_no_ranges_of_theirs(tmp_path, year):
    label = [f"label {n % 3}" for n in range(N // 2)] + ["label 2"] * (N // 2)
    got = sniffed(tmp_path, {"text": TEXTS, "label": label, "year": year})
    assert not any("gives the label away" in warning for warning in got.warnings)


def test_a_file_without_a_line_of_names_is_noticed(tmp_path):
    labels = alternating("spam", "ham")
    found = sniffed(tmp_path, {"win a prize today": TEXTS, "spam": labels})
    assert [warning for warning in found.warnings if "'spam' is a label too" in warning]
    assert sniffed(tmp_path, {"message": TEXTS, "spam": labels}).warnings == ()


def test_an_empty_first_sheet_is_told_with_the_sheets_passed_over(tmp_path):
    with xlsxwriter.Workbook(tmp_path / "book.xlsx") as book:
        book.add_worksheet("about").write_row(0, 0, ["what this is"])
        book.add_worksheet("texts").write_column(0, 0, ["text", *TEXTS])
    with pytest.raises(DataError, match=r"no rows.*the first sheet alone is read, not texts"):
        sniff(str(tmp_path / "book.xlsx"))
