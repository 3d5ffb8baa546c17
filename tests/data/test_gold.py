from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamiz.data.gold import load_examples
from tamiz.data.origin import example_columns
from tamiz.errors import ColumnError, DataError, LabelError
from tamiz.types import Task
from tests.projects import LABELS, lake_of, make_project, rows, run, write_csv

from .lakes import divided, project, rows_of

ROWS = [
    {
        "text": f"  {word} {i} seen <br>",
        "label": label,
        "who": f"g{i}{word}",
        "day": f"2020-01-{i + 1:02}",
        "state": "TX",
    }
    for label, word in (("good", "one"), ("bad", "two"), ("bad", "three"))
    for i in range(10)
]
DATA = {"group": "who", "time": "day", "partition_by": ["state"]}


def test_examples_come_as_a_classifier_takes_them(lake):
    of = project("binary", data=DATA)
    done = divided(lake, ROWS, of)
    assert done.labels == ("bad", "good")
    examples = {
        side: load_examples(lake, side=side, labels=done.labels, task=of.task, columns=["group", "time", "state"])
        for side in ("train", "validation", "test")
    }
    assert [len(e.texts) for e in examples.values()] == [24, 3, 3]
    label_of = {row["text"]: row["label"] for row in ROWS}
    for e in examples.values():
        assert e.targets.dtype == np.int64
        assert [done.labels[t] for t in e.targets] == [label_of[text] for text in e.texts_raw]
        assert [text.strip().replace(" <br>", "") for text in e.texts_raw] == e.texts
        assert e.row_ids == sorted(e.row_ids)
        assert all(isinstance(t, datetime) and t.utcoffset() == timedelta(0) for t in e.columns["time"])
        assert e.columns["state"] == ["TX"] * len(e.texts)
        assert e.columns["group"] == [f"g{t.split()[1]}{t.split()[0]}" for t in e.texts]


def test_raw_texts_can_be_left_out(local_lake):
    of = project("binary", data=DATA)
    done = divided(local_lake, ROWS, of)
    about = {"side": "train", "labels": done.labels, "task": of.task}
    full, lean = load_examples(local_lake, **about), load_examples(local_lake, **about, raw=False)
    assert lean.texts_raw == [] != full.texts_raw
    assert (lean.texts, lean.row_ids) == (full.texts, full.row_ids)


def test_several_labels_are_a_table_of_truth_values(lake):
    rows = [{"text": f"text {i} {'x' * (i + 1)}", "label": [["a"], ["b", "a"], [], ["c"]][i % 4]} for i in range(40)]
    of = project("multi-label")
    done = divided(lake, rows, of)
    examples = load_examples(lake, side="train", labels=done.labels, task=of.task)
    assert examples.targets.dtype == np.bool_
    assert examples.targets.shape == (len(examples.texts), 3)
    label_of = {row["text"]: set(row["label"]) for row in rows}
    for text, targets in zip(examples.texts, examples.targets, strict=True):
        assert {label for label, on in zip(done.labels, targets, strict=True) if on} == label_of[text]


def test_the_counts_are_a_table(lake):
    done = divided(lake, ROWS, project("binary", data=DATA))
    counts = {(row["label"], row["side"]): row["count"] for row in rows_of(lake, "gold/label_counts")}
    assert counts == {(label, side): n for side, by in done.counts.items() for label, n in by.items()}
    assert done.counts["test"] == {"bad": 2, "good": 1}


def test_an_old_version_stays_readable(local_lake):
    of = project("binary", data=DATA)
    first = divided(local_lake, ROWS[:20], of)
    divided(local_lake, ROWS, of)
    sizes = [
        sum(
            len(load_examples(local_lake, side=s, labels=("bad", "good"), task=of.task, version=v).texts)
            for s in ("train", "validation", "test")
        )
        for v in (first.version, None)
    ]
    assert sizes == [20, 30]


def test_wrong_arguments(local_lake):
    with pytest.raises(DataError, match="no table 'gold/examples'"):
        load_examples(local_lake, side="train", labels=("a", "b"), task=Task.BINARY)
    divided(local_lake, ROWS, project("binary", data=DATA))
    with pytest.raises(DataError, match="side: got 'tran'; allowed: test, train, validation; did you mean 'train'"):
        load_examples(local_lake, side="tran", labels=("bad", "good"), task=Task.BINARY)
    with pytest.raises(LabelError, match="label of an example: got 'good'; allowed: bad, goood"):
        load_examples(local_lake, side="train", labels=("bad", "goood"), task=Task.BINARY)
    with pytest.raises(ColumnError, match=r"no column 'stat'; .*did you mean 'state'"):
        load_examples(local_lake, side="train", labels=("bad", "good"), task=Task.BINARY, columns=["stat"])


def test_examples_are_taken_in_the_order_asked_for(local_lake):
    of = project("binary", data=DATA)
    done = divided(local_lake, ROWS, of)
    about = {"side": "train", "labels": done.labels, "task": of.task, "columns": ["group"]}
    every = load_examples(local_lake, **about)
    part = every.take(np.array([5, 0]))
    for name in ("texts_raw", "texts", "row_ids"):
        assert getattr(part, name) == [getattr(every, name)[5], getattr(every, name)[0]]
    assert part.targets.tolist() == every.targets[[5, 0]].tolist()
    assert part.columns["group"] == [every.columns["group"][5], every.columns["group"][0]]
    assert load_examples(local_lake, **about, raw=False).take(np.array([1])).texts_raw == []


def test_columns_of_a_file_that_changed_are_those_of_each_content(tmp_path):
    for era, start in (("old", 0), ("new", 100)):
        write_csv(tmp_path / "texts.csv", [{**row, "era": era} for row in rows(100, start=start)])
        project = make_project(tmp_path)
        run(project, until="split")
    lake = lake_of(project)
    versions = {
        "gold": lake.version("gold/examples"),
        "silver": lake.version("silver/texts"),
        "bronze": lake.version("bronze/texts"),
    }
    for side in ("train", "test"):
        ids = load_examples(lake, side=side, labels=LABELS, task=project.task).row_ids
        found = example_columns(lake, side=side, versions=versions, columns=["era"])["era"]
        assert found == ["old" if int(row_id[1:]) < 100 else "new" for row_id in ids]
        assert set(found) == {"old", "new"}


def test_lists_of_a_source_are_columns_too(tmp_path):
    table = pa.Table.from_pylist([{**row, "tags": ["a", str(n % 2)]} for n, row in enumerate(rows(80))])
    pq.write_table(table, tmp_path / "texts.parquet")
    project = make_project(tmp_path, data={"source": "texts.parquet"})
    run(project, until="split")
    lake = lake_of(project)
    tables = {"gold": "gold/examples", "silver": "silver/texts", "bronze": "bronze/texts"}
    versions = {name: lake.version(table) for name, table in tables.items()}
    found = example_columns(lake, side="train", versions=versions, columns=["tags"])["tags"]
    assert set(found) == {'["a", "0"]', '["a", "1"]'}


def test_columns_without_a_value_are_none_to_look_at(local_lake):
    of = project("binary")
    divided(local_lake, [{"text": row["text"], "label": row["label"]} for row in ROWS], of)
    versions = {"gold": local_lake.version("gold/examples")}
    assert example_columns(local_lake, side="train", versions=versions) == {}
    asked = example_columns(local_lake, side="train", versions=versions, columns=["group"])
    assert set(asked["group"]) == {None}
