import json
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tamiz.data.refusals import folded, text_key
from tamiz.data.silver import clean
from tamiz.data.times import TimeReader
from tamiz.errors import ColumnError, DataError, LabelError, RefusedShareError

from .lakes import NOW, cleaned, project, put, rows_of

BASE = [{"text": f"text {i} of {label}", "label": label} for label in ("a", "b") for i in range(5)]
LENIENT = {"max_refused": 0.99}


def silver(lake, column: str | None = None) -> list:
    rows = sorted(rows_of(lake, "silver/texts"), key=lambda row: (row["part"], row["_source"], row["_row"]))
    return [row[column] for row in rows] if column else rows


def quarantine(lake) -> list[tuple[str, int, str]]:
    rows = rows_of(lake, "silver/quarantine")
    return sorted((row["source"], row["row_number"], row["reason"]) for row in rows)


def test_a_row_of_silver(lake):
    of = project(data={"label": "kind", "text": "plot", "time": "day", "group": "who", "partition_by": ["state"]})
    rows = [
        {
            "plot": "It was&nbsp;<b>GOOD</b>!",
            "kind": " a ",
            "day": date(2020, 5, 6),
            "who": "x",
            "state": "TX",
            "more": 1,
        },
        {"plot": "bad", "kind": "b", "day": None, "who": "", "state": None, "more": 2},
    ]
    version = put(lake, rows, partition_by=["state"]).version
    done = clean(lake, bronze_version=version, project=of)
    assert (done.version, done.rows, done.unlabeled, done.quarantined, done.reasons) == (0, 2, 0, 0, {})
    sha = rows_of(lake, "bronze/texts")[0]["_source_sha256"][:8]
    first, second = silver(lake)
    assert first == {
        "row_id": f"{sha}:0",
        "text_raw": "It was&nbsp;<b>GOOD</b>!",
        "text": "It was GOOD!",
        "label": "a",
        "group": "x",
        "time": datetime(2020, 5, 6, tzinfo=UTC),
        "part": "train",
        "text_key": text_key("it  was good!"),
        "state": "TX",
        "_source": "a.csv",
        "_row": 0,
        "_ingested_at": NOW,
    }
    assert (second["group"], second["time"], second["state"]) == (None, None, None)


def test_labels_of_the_data_take_the_names_of_the_project(local_lake):
    kinds = ["Mortgage", "Student loan ", "Debt collection", "0", "other"]
    rows = [{"text": f"text {i} of {kind}", "label": kind} for kind in kinds for i in range(3)]
    rename = {"Mortgage": "loans", "Student loan": "loans", 0: "none", "Morgage": "loans", "loans": "never twice"}
    done = cleaned(local_lake, rows, project(labels={"rename": rename}))
    assert silver(local_lake, "label") == [
        label for label in ("loans", "loans", "Debt collection", "none", "other") for _ in range(3)
    ]
    assert done.notices == (
        "labels.rename: no row has the label 'Morgage'",
        "labels.rename: no row has the label 'loans'",
    )


def test_of_several_labels_that_become_one_a_text_has_one(local_lake):
    rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(("a|b|c", "c|a", "b", "d"))]
    labels = {"names": ["x", "c", "d"], "rename": {"a": "x", "b": "x"}}
    of = project(task="multi-label", data={"separator": "|"}, labels=labels)
    cleaned(local_lake, rows, of)
    assert silver(local_lake, "labels") == [["x", "c"], ["c", "x"], ["x"], ["d"]]


def test_each_reason_for_a_refusal(lake):
    rows = [
        *BASE,
        {"text": None, "label": "a"},
        {"text": " <br> ", "label": "a"},
        {"text": "fine", "label": "c"},
        {"text": "TEXT 0  of a", "label": "a"},
        {"text": "both", "label": "a"},
        {"text": "both ", "label": "b"},
        {"text": "in the test", "label": "a"},
    ]
    test = [
        {"text": "in the TEST", "label": "b"},
        {"text": "only here", "label": "zzz"},
        {"text": "only here", "label": "a"},
    ]
    of = project(data=LENIENT, labels=["a", "b"])
    done = cleaned(lake, rows, of, test=test)
    assert quarantine(lake) == [
        ("a.csv", 10, "text is missing"),
        ("a.csv", 11, "text is empty after cleaning"),
        ("a.csv", 12, "label is not in the project's list"),
        ("a.csv", 13, "duplicate of another row"),
        ("a.csv", 14, "same text with different labels"),
        ("a.csv", 15, "same text with different labels"),
        ("a.csv", 16, "text also stands in the test set"),
        ("test_version.csv", 1, "label is not in the project's list"),
    ]
    assert done.quarantined == 8 == sum(done.reasons.values())
    assert done.reasons["same text with different labels"] == 2
    assert silver(lake, "text")[:2] == ["in the TEST", "only here"]
    assert done.rows == len(BASE) + 2
    row = next(r for r in rows_of(lake, "silver/quarantine") if r["row_number"] == 13)
    assert json.loads(row["row"]) == {"text": "TEXT 0  of a", "label": "a"}
    assert any("1 row was put aside" in notice for notice in done.notices)


def test_the_first_in_order_of_ingest_is_kept_wherever_it_stands(lake):
    late = [{"text": "twice", "label": "a"}]
    put(lake, [*BASE, *late], name="z.csv")
    version = put(lake, [{"text": "Twice", "label": "a"}], name="a.csv", now=NOW + timedelta(hours=1)).version
    clean(lake, bronze_version=version, project=project())
    assert quarantine(lake) == [("a.csv", 0, "duplicate of another row")]


def test_with_ids_a_row_gives_way_to_the_one_of_a_newer_content_of_its_file(lake):
    rows = [{"id": f"r{i}", **row} for i, row in enumerate(BASE)]
    put(lake, rows)
    put(lake, [{"id": "r1", "text": "of another file", "label": "a"}], name="other.csv")
    newer = [
        {"id": "r0", "text": rows[0]["text"], "label": "b"},  # labelled anew
        {"id": "r1", "text": "reworded", "label": rows[1]["label"]},
        {"id": "r2", "text": " ", "label": rows[2]["label"]},  # taken out
        {"id": None, "text": "without an id", "label": "a"},
    ]
    version = put(lake, newer, now=NOW + timedelta(hours=1)).version
    done = clean(lake, bronze_version=version, project=project(data={"id": "id", "max_refused": 0.2}))
    assert done.reasons == {"replaced by the row of a newer file": 3, "text is empty after cleaning": 1}
    kept = {row["row_id"]: (row["text"], row["label"]) for row in silver(lake) if row["_source"] == "a.csv"}
    assert (kept["r0"], kept["r1"]) == ((rows[0]["text"], "b"), ("reworded", rows[1]["label"]))
    assert "r2" not in kept
    assert [kept[f"r{i}"] for i in range(3, len(rows))] == [(row["text"], row["label"]) for row in rows[3:]]
    assert done.rows == len(rows) - 3 + 2 + 1 + 1
    # Without ids nothing tells the two from one another.
    without = clean(lake, bronze_version=version, project=project(data=LENIENT))
    assert without.reasons["same text with different labels"] == 2


def test_a_broken_file_that_was_mended_does_not_count_against_its_share(lake):
    put(lake, [{"text": " ", "label": "a"}] * 20, name="b.csv")
    version = put(lake, BASE, now=NOW + timedelta(hours=1)).version
    with pytest.raises(RefusedShareError, match="20 of 30 rows"):
        clean(lake, bronze_version=version, project=project())
    mended = [{"text": f"mended {i}", "label": "a"} for i in range(20)]
    version = put(lake, mended, name="b.csv", now=NOW + timedelta(hours=2)).version
    done = clean(lake, bronze_version=version, project=project())
    assert (done.rows, done.reasons) == (30, {"text is empty after cleaning": 20})


def test_a_lake_without_a_row_is_an_error(lake):
    version = put(lake, BASE).version
    lake.replace("bronze/texts", lake.schema("bronze/texts"), [])
    with pytest.raises(DataError, match="no row of the source"):
        clean(lake, bronze_version=version + 1, project=project())


def test_a_correction_counts_for_the_newest_row_of_its_id(lake, tmp_path):
    rows = [{"id": f"r{i}", **row} for i, row in enumerate(BASE)]
    put(lake, rows)
    newer = [{"id": "r0", "text": rows[1]["text"], "label": rows[1]["label"]}]
    version = put(lake, newer, now=NOW + timedelta(hours=1)).version
    (tmp_path / "fixes.csv").write_text("row_id,corrected_label\nr0,b\n")
    of = project(data={"id": "id", "max_refused": 0.1}, labels={"corrections": "fixes.csv"}).at(tmp_path)
    done = clean(lake, bronze_version=version, project=of)
    kept = {row["text"]: (row["row_id"], row["label"]) for row in silver(lake)}
    assert kept[rows[1]["text"]] == ("r0", "b")
    assert rows[0]["text"] not in kept
    assert done.reasons == {"replaced by the row of a newer file": 1, "duplicate of another row": 1}


def test_rows_without_a_label_are_kept_once(lake):
    rows = [
        *BASE,
        {"text": "no label", "label": None},
        {"text": "No label", "label": " "},
        {"text": "Text 0 of a", "label": None},
    ]
    unlabeled = [
        {"text": "more", "label": "a"},
        {"text": "no label", "label": None},
        {"text": "text 1 of b", "label": None},
    ]
    done = cleaned(lake, rows, project(data=LENIENT), unlabeled=unlabeled)
    assert (done.rows, done.unlabeled) == (12, 2)
    assert done.reasons == {"duplicate of another row": 4}
    assert [(r["text"], r["part"]) for r in silver(lake) if r["label"] is None] == [
        ("no label", "train"),
        ("more", "unlabeled"),
    ]


def test_an_unlabelled_source_needs_a_text_column_only(local_lake):
    with pytest.raises(ColumnError, match=r"data\.text: data\.unlabeled has no column 'text'; allowed: body"):
        cleaned(local_lake, BASE, project(), unlabeled=[{"body": "alone"}])
    done = cleaned(local_lake, BASE, project(data={"group": "label"}), unlabeled=[{"text": "alone"}])
    assert (done.rows, done.unlabeled, done.reasons) == (11, 1, {"text is missing": 1})


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        (pa.array([1, 0] * 5), ["0", "1"]),
        (pa.array([1.0, 2.5] * 4 + [float("nan"), None]), ["1", "2.5"]),
        (pa.array([True, False] * 5), ["false", "true"]),
        (pa.array([" x", "y "] * 4 + ["nan", ""]), ["x", "y"]),
        (pa.array(["x", "y"] * 5).dictionary_encode(), ["x", "y"]),
    ],
)
def test_labels_of_any_scalar_type(local_lake, column, labels):
    rows = pa.table({"text": [f"text {i}" for i in range(10)], "label": column})
    cleaned(local_lake, rows, project("binary"))
    assert sorted({label for label in silver(local_lake, "label") if label is not None}) == labels


def test_texts_of_any_scalar_type(local_lake):
    rows = pa.table({"text": [1.0, 2.5, float("nan"), None], "label": ["a", "b", "a", "b"]})
    cleaned(local_lake, rows, project(data=LENIENT))
    assert silver(local_lake, "text") == ["1", "2.5"]
    assert [reason for *_, reason in quarantine(local_lake)] == ["text is missing"] * 2


@pytest.mark.parametrize(
    ("separator", "cells"),
    [
        ("|", ["a|b", " b | |a|b", "a", None, "|", "b"]),
        (None, ['["a", "b"]', "['b', '', 'a', 'b']", '["a"]', "", "nan", "b"]),
        (None, [["a", "b"], ["b", None, " a", "b"], ["a"], None, None, ["b"]]),
    ],
)
def test_several_labels_a_row(lake, separator, cells):
    rows = [{"text": f"text {i}", "label": cell} for i, cell in enumerate(cells)]
    done = cleaned(lake, rows, project("multi-label", data={"separator": separator}))
    assert silver(lake, "labels") == [["a", "b"], ["b", "a"], ["a"], None, None, ["b"]]
    assert done.unlabeled == 2


def test_an_empty_list_is_an_example_without_labels(local_lake):
    rows = [{"text": "x", "label": ["a"]}, {"text": "y", "label": ["b"]}, {"text": "z", "label": []}]
    assert cleaned(local_lake, rows, project("multi-label")).unlabeled == 0
    assert silver(local_lake, "labels") == [["a"], ["b"], []]


def test_the_order_of_several_labels_is_no_conflict(local_lake):
    rows = [
        {"text": "x", "label": ["a", "b"]},
        {"text": "x", "label": ["b", "a"]},
        {"text": "y", "label": ["a"]},
        {"text": "y", "label": ["a", "b"]},
    ]
    cleaned(local_lake, rows, project("multi-label", data=LENIENT))
    assert [reason for *_, reason in quarantine(local_lake)] == [
        "duplicate of another row",
        "same text with different labels",
        "same text with different labels",
    ]


def test_rare_labels_are_refused_in_the_test_set_too(local_lake):
    rows = [*BASE, {"text": "r1", "label": "rare"}, {"text": "r2", "label": "rare"}]
    test = [{"text": "t1", "label": "rare"}, {"text": "t2", "label": "never"}, {"text": "t3", "label": "a"}]
    done = cleaned(local_lake, rows, project(labels={"min_examples": 3}, data=LENIENT), test=test)
    assert done.reasons == {"label has too few examples": 3, "label has no training example": 1}
    assert any("'rare'" in notice for notice in done.notices)


def test_notices(local_lake):
    rows = [*BASE, {"text": "x", "label": "A"}, {"text": "y", "label": "c d"}, {"text": "z", "label": "c  d"}]
    rows = [
        {**row, "id": "same" if i < 3 else str(i), "when": "soon" if i == 4 else "2/3/2020"}
        for i, row in enumerate(rows)
    ]
    done = cleaned(
        local_lake, rows, project(data={"id": "id", "time": "when"}, labels=["a", "A", "b", "c d", "c  d", "e"])
    )
    said = "\n".join(done.notices)
    assert "labels 'A' (1) and 'a' (5) differ only by case or space" in said
    assert "labels 'c  d' (1) and 'c d' (1) differ only by case or space" in said
    assert "3 labels have a single example, which stays in training and measures nothing: 'A', 'c  d', 'c d'" in said
    assert "label 'e' of the project has no example" in said
    assert "2 rows have an id that an earlier row has" in said
    assert "column 'when': 1 values are not a date or time" in said
    assert "nothing tells the day from the month" in said
    assert silver(local_lake, "row_id")[:4] == ["same", "same", "same", "3"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"text": "txt"}, r"data\.text: data\.source has no column 'txt'; allowed: label, text; did you mean 'text'"),
        ({"label": "labl"}, r"data\.label: data\.source has no column 'labl'; .*did you mean 'label'"),
        ({"id": "x"}, r"data\.id: .*'x'"),
        ({"group": "x"}, r"data\.group: .*'x'"),
        ({"time": "x"}, r"data\.time: .*'x'"),
        ({"partition_by": ["x"]}, r"data\.partition_by\[0\]: .*'x'"),
    ],
)
def test_missing_columns(local_lake, data, words):
    with pytest.raises(ColumnError, match=words):
        cleaned(local_lake, BASE, project(data=data))


def test_a_partition_column_named_as_one_of_silver(local_lake):
    rows = [{**row, "part": "x", "time": 1} for row in BASE]
    with pytest.raises(ColumnError, match=r"data\.partition_by: 'part' is a column of Tamiz's own tables"):
        cleaned(local_lake, rows, project(data={"partition_by": ["part"]}))
    cleaned(local_lake, rows, project(data={"partition_by": ["label", "time"], "time": "time"}))
    assert set(silver(local_lake, "label")) == {"a", "b"}


def test_a_test_set_without_the_label_column(local_lake):
    with pytest.raises(ColumnError, match=r"data\.label: data\.test has no column 'label'; allowed: text, y"):
        cleaned(local_lake, BASE, project(), test=[{"text": "x", "y": "a"}])


@pytest.mark.parametrize(
    ("labels", "task", "words"),
    [
        (["a"] * 4, "multi-class", r"at least two labels.*'a' \(4\)"),
        ([None] * 4, "multi-class", "at least two labels.*none"),
        (["a", "b", "c", "a"], "binary", r"task is binary.*has 3 labels: 'a' \(2\), 'b' \(1\), 'c' \(1\).*multi-class"),
        ([["a"], ["b"], [], None], "multi-class", "holds lists.*multi-label"),
    ],
)
def test_labels_that_allow_no_classifier(local_lake, labels, task, words):
    rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]
    with pytest.raises(LabelError, match=words):
        cleaned(local_lake, rows, project(task))
    assert local_lake.version("silver/texts") is None


def test_too_many_refused_rows_leave_silver_and_fill_the_quarantine(lake):
    version = put(lake, BASE).version
    clean(lake, bronze_version=version, project=project())
    before = silver(lake)
    bad = [{"text": None, "label": "a"}, {"text": "", "label": "b"}, {"text": None, "label": "b"}]
    version = put(lake, bad, name="b.csv").version
    with pytest.raises(RefusedShareError) as caught:
        clean(lake, bronze_version=version, project=project())
    assert "3 of 13 rows (23.1%)" in str(caught.value)
    assert "text is missing: 2, text is empty after cleaning: 1" in str(caught.value)
    assert lake.uri("silver/quarantine") in str(caught.value)
    assert silver(lake) == before
    assert len(quarantine(lake)) == 3


def test_repeats_do_not_count_as_refused(local_lake):
    rows = [*BASE, *BASE, *BASE]
    done = cleaned(local_lake, rows, project(data={"max_refused": 0}))
    assert done.reasons == {"duplicate of another row": 20}


def test_rows_that_a_correction_drops_do_not_count_as_refused(local_lake, tmp_path):
    (tmp_path / "fixes.csv").write_text("row_id,corrected_label\n0,-\n1,-\n", encoding="utf-8")
    of = project(data={"id": "id", "max_refused": 0}, labels={"corrections": "fixes.csv"}).at(tmp_path)
    done = cleaned(local_lake, [{**row, "id": str(i)} for i, row in enumerate(BASE)], of)
    assert done.reasons == {"dropped by a correction": 2}


def test_rows_without_labels_do_not_thin_the_refused_ones(local_lake):
    rows = [*BASE, {"text": "", "label": "a"}, {"text": None, "label": "b"}]
    others = [{"text": f"another text {i}"} for i in range(100)]
    with pytest.raises(RefusedShareError, match=r"2 of 12 rows"):
        cleaned(local_lake, rows, project(data={"max_refused": 0.1}), unlabeled=others)


def test_an_old_version_of_bronze_can_be_cleaned_again(lake):
    first = put(lake, BASE).version
    second = put(lake, [{"text": "new", "label": "a"}], name="b.csv").version
    assert clean(lake, bronze_version=second, project=project()).rows == 11
    assert clean(lake, bronze_version=first, project=project()).rows == 10


@given(st.text())
def test_a_folded_text_stays_folded(text):
    assert folded(folded(text)) == folded(text) or folded(text).casefold() != folded(text)
    assert text_key(text) == text_key(f"  {text.replace(' ', '   ')} ")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2020-02-03"], datetime(2020, 2, 3)),
        (["2020-02-03T04:05:06+01:00"], datetime(2020, 2, 3, 3, 5, 6)),
        (["2020-02-03 04:05:06.000000Z"], datetime(2020, 2, 3, 4, 5, 6)),
        (["2020"], datetime(2020, 1, 1)),
        (["20200203"], datetime(2020, 2, 3)),
        (["1580700000"], datetime(2020, 2, 3, 3, 20)),
        (["1580700000000"], datetime(2020, 2, 3, 3, 20)),
        (["02/03/2020", "02/28/2020"], datetime(2020, 2, 3)),
        (["03/02/2020", "28/02/2020"], datetime(2020, 2, 3)),
        (["03.02.2020"], datetime(2020, 2, 3)),
        (["2020/2/3 4:05 PM"], datetime(2020, 2, 3, 16, 5)),
        (["2/3/20"], datetime(2020, 2, 3)),
        (["3 February 2020"], datetime(2020, 2, 3)),
        (["Feb 3, 2020"], datetime(2020, 2, 3)),
        (["Mon, 03 Feb 2020 04:05:06 +0100"], datetime(2020, 2, 3, 3, 5, 6)),
        ([None], None),
        ([" "], None),
        (["soon"], None),
        (["99/99/2020"], None),
        (["123"], None),
    ],
)
def test_how_times_are_read(values, expected):
    reader = TimeReader()
    reader.observe(values)
    assert reader.read(values[0]) == (expected and expected.replace(tzinfo=UTC))


@given(st.lists(st.none() | st.text(max_size=20)))
def test_no_text_breaks_the_reading_of_times(values):
    reader = TimeReader()
    reader.observe(values)
    for value in values:
        reader.read(value)
