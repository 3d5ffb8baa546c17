from datetime import UTC, date, datetime, timedelta, timezone

import pyarrow as pa
import pytest

from tamiz.data import bronze
from tamiz.data.bronze import ingest
from tamiz.data.readers import open_source
from tamiz.errors import ColumnError, DataError, SourceError

from .lakes import NOW, TableSource, put, rows_of


def bronze_rows(lake) -> list[dict]:
    return sorted(rows_of(lake, "bronze/texts"), key=lambda row: (row["_ingested_at"], row["_source"], row["_row"]))


def test_rows_keep_their_columns_and_gain_their_origin(lake):
    source = TableSource({"b.csv": [{"text": "x", "n": 1}, {"text": None, "n": 2}], "a.csv": [{"text": "y", "n": 3}]})
    done = ingest(lake, source, now=NOW)
    assert (done.version, done.added_rows, done.added_files, done.skipped_files) == (0, 3, ("a.csv", "b.csv"), ())
    sha256 = {file.path: file.sha256 for file in source.files()}
    assert bronze_rows(lake) == [
        {"_source": p, "_source_sha256": sha256[p], "_row": r, "_ingested_at": NOW, "_reading": "", "text": t, "n": n}
        for p, r, t, n in [("a.csv", 0, "y", 3), ("b.csv", 0, "x", 1), ("b.csv", 1, None, 2)]
    ]


def test_a_second_ingest_adds_only_new_content(lake):
    first = {"a.csv": [{"text": "x"}]}
    ingest(lake, TableSource(first), now=NOW)
    again = ingest(lake, TableSource(first), now=NOW)
    assert (again.version, again.added_rows, again.skipped_files) == (0, 0, ("a.csv",))
    renamed = TableSource({"renamed.csv": first["a.csv"], "copy.csv": first["a.csv"], "new.csv": [{"text": "y"}]})
    done = ingest(lake, renamed, now=NOW + timedelta(days=1))
    assert (done.added_rows, done.added_files, done.skipped_files) == (1, ("new.csv",), ("copy.csv", "renamed.csv"))
    assert [row["text"] for row in bronze_rows(lake)] == ["x", "y"]


def test_a_file_that_has_changed_is_named_and_its_earlier_rows_stay(lake):
    assert ingest(lake, TableSource({"a.csv": [{"text": "x"}]}), now=NOW).changed_files == ()
    files = {"a.csv": [{"text": "y"}], "b.csv": [{"text": "z"}]}
    assert ingest(lake, TableSource(files), now=NOW + timedelta(days=1)).changed_files == ("a.csv",)
    again = ingest(lake, TableSource(files), now=NOW + timedelta(days=2))
    assert (again.changed_files, again.returned_files) == ((), ())
    back = ingest(lake, TableSource({"a.csv": [{"text": "x"}], "b.csv": files["b.csv"]}), now=NOW + timedelta(days=3))
    assert (back.changed_files, back.returned_files) == ((), ("a.csv",))
    assert "content again that came before" in back.notices("source")[0]
    assert [row["text"] for row in bronze_rows(lake)] == ["x", "y", "z"]


def test_rows_of_files_that_are_not_named_any_more_are_counted(lake):
    assert ingest(lake, TableSource({"a.csv": [{"text": "x"}] * 3, "b.csv": [{"text": "y"}]}), now=NOW).strays == {}
    done = ingest(lake, TableSource({"moved.csv": [{"text": "y"}], "c.csv": [{"text": "z"}]}), now=NOW)
    assert done.strays == {"a.csv": 3}
    changed = ingest(lake, TableSource({"moved.csv": [{"text": "y"}], "c.csv": [{"text": "w"}]}), now=NOW)
    assert (changed.strays, changed.changed_files) == ({"a.csv": 3}, ("c.csv",))


def test_a_file_that_is_read_in_another_encoding_takes_its_own_place(lake, tmp_path):
    (tmp_path / "a.csv").write_bytes("text,label\nmañana,sí\n".encode("cp850"))
    (tmp_path / "b.csv").write_text("text,label\nother,no\n", encoding="utf-8")

    def read(encoding):
        return ingest(lake, open_source([str(tmp_path)], encoding=encoding), now=NOW)

    assert read("latin-1").reread_files == ()
    again = read("cp850")
    assert [path.rsplit("/", 1)[1] for path in again.reread_files] == ["a.csv", "b.csv"]
    assert (again.changed_files, again.strays) == ((), {})
    assert [(row["text"], row["label"]) for row in bronze_rows(lake)] == [("mañana", "sí"), ("other", "no")]
    assert read("cp850").added_files == ()
    assert [path.rsplit("/", 1)[1] for path in read("latin-1").reread_files] == ["a.csv", "b.csv"]
    assert bronze_rows(lake)[0]["text"] == "mañana".encode("cp850").decode("latin-1")


def test_a_reading_that_fails_changes_nothing(lake, tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nmañana,sí\n", encoding="utf-8")
    ingest(lake, open_source([str(tmp_path)], encoding="utf-8"), now=NOW)
    before = bronze_rows(lake)
    with pytest.raises(SourceError):
        ingest(lake, open_source([str(tmp_path)], encoding="ascii"), now=NOW)
    assert bronze_rows(lake) == before
    assert ingest(lake, open_source([str(tmp_path)], encoding="utf-8"), now=NOW).added_files == ()


def test_what_came_later_is_newer_whatever_the_clock_says(local_lake):
    for day, text in ((3, "x"), (1, "y"), (2, "z")):
        ingest(local_lake, TableSource({"a.csv": [{"text": text}]}), now=NOW + timedelta(days=day))
    came = sorted(local_lake.read("bronze/texts").to_pylist(), key=lambda row: row["_ingested_at"])
    assert [row["text"] for row in came] == ["x", "y", "z"]


def test_a_file_without_an_expected_column_is_told_of(lake):
    rows = {"a.csv": [{"text": "x", "label": "a"}], "b.csv": [{"text": "y", "sentiment": "a"}]}
    done = ingest(lake, TableSource(rows), expected=["text", "label"], now=NOW)
    assert done.lacking == {"label": ("b.csv",)}
    assert done.notices("source") == ["b.csv: no column 'label'; its rows are taken without it"]
    assert ingest(lake, TableSource(rows), expected=["text", "label"], now=NOW).lacking == {}


def test_rows_go_on_a_few_megabytes_at_a_time(local_lake):
    size = 1_000_000
    source = TableSource({"a.csv": [{"text": f"{i:02}" * (size // 2)} for i in range(40)]}, batch_rows=1)
    batches = list(bronze._joined(source.batches(source.files()[0]), source.tables["a.csv"].schema))
    assert sum(batch.num_rows for batch in batches) == 40
    assert max(batch.nbytes for batch in batches) < 20 * size


def test_small_files_share_a_commit_and_large_ones_do_not(local_lake, monkeypatch):
    files = {f"{i:03}.txt": [{"text": f"t{i}"}] for i in range(12)}
    assert ingest(local_lake, TableSource(files), table="bronze/one", now=NOW).version == 0
    monkeypatch.setattr(bronze, "_COMMIT_FILES", 5)
    assert ingest(local_lake, TableSource(files), table="bronze/three", now=NOW).version == 2
    monkeypatch.setattr(bronze, "_COMMIT_BYTES", 1)
    assert ingest(local_lake, TableSource(files), table="bronze/each", now=NOW).version == 11
    assert local_lake.count("bronze/each") == local_lake.count("bronze/one") == 12


def test_types_that_differ_between_files_become_text_without_loss(lake):
    big = 2**60 + 1
    put(lake, pa.table({"label": [1, big, None], "tags": [["a"], None, []], "ok": [True, False, None]}), name="a")
    put(
        lake,
        pa.table({"label": [2.0, 2.5, float("nan")], "tags": [[1], [2], None], "extra": ["e", None, "e"]}),
        name="b",
    )
    put(lake, pa.table({"label": ["x", None, "y"], "ok": [date(2020, 1, 2)] * 3}), name="c")
    rows = bronze_rows(lake)
    assert [row["label"] for row in rows] == ["1", str(big), None, "2", "2.5", None, "x", None, "y"]
    assert [row["tags"] for row in rows] == [["a"], None, [], ["1"], ["2"], None, None, None, None]
    assert [row["ok"] for row in rows] == ["true", "false", None, None, None, None, *["2020-01-02"] * 3]
    assert [row["extra"] for row in rows] == [None, None, None, "e", None, "e", None, None, None]
    again = ingest(
        lake, TableSource({"a": pa.table({"label": ["x", None, "y"], "ok": [date(2020, 1, 2)] * 3})}), now=NOW
    )
    assert again.added_rows == 0  # the rewrite for wider types forgets no file


def test_columns_that_turn_up_late_in_a_file_join(local_lake):
    class Growing(TableSource):
        def batches(self, file):
            yield pa.record_batch({"text": ["a", "b"]})
            yield pa.record_batch({"text": pa.array([], pa.string())})
            yield pa.record_batch({"text": [1], "more": [None]})
            yield pa.record_batch({"text": ["d"], "more": [1.5]})

    done = ingest(local_lake, Growing({"a.jsonl": [{"text": "whatever"}]}), now=NOW)
    assert (done.version, done.added_rows) == (0, 4)
    rows = bronze_rows(local_lake)
    assert [(row["_row"], row["text"], row["more"]) for row in rows] == [
        (0, "a", None),
        (1, "b", None),
        (2, "1", None),
        (3, "d", "1.5"),
    ]


@pytest.mark.parametrize(
    ("array", "cells"),
    [
        (pa.array(["a", None, "b"]).dictionary_encode(), ["a", None, "b"]),
        (pa.array(["a"], pa.large_string()), ["a"]),
        (pa.array([1, 2], pa.uint8()), [1, 2]),
        (pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)]),
        (pa.array([1.5], pa.float32()), [1.5]),
        (pa.nulls(2), [None, None]),
        (pa.array([datetime(2020, 1, 2)], pa.timestamp("ns", "Europe/Madrid")), [datetime(2020, 1, 2, tzinfo=UTC)]),
        (pa.array([[1, 2], None, []], pa.large_list(pa.int32())), [[1, 2], None, []]),
        (pa.array([[["a"]]], pa.list_(pa.list_(pa.string()))), [[["a"]]]),
        (pa.array([{"a": 1, "b": "x"}]), [{"a": 1, "b": "x"}]),
        (pa.array([b"\xff"]), [b"\xff"]),
        (pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())), ['[["a", 1]]', None]),
        (pa.array([[[("a", 1)]]], pa.list_(pa.map_(pa.string(), pa.int64()))), [['[["a", 1]]']]),
    ],
)
def test_arrow_types_that_delta_lacks_are_kept_under_one_it_has(local_lake, array, cells):
    put(local_lake, pa.table({"c": array}))
    assert [row["c"] for row in bronze_rows(local_lake)] == cells


def test_partition_columns(lake):
    rows = [{"text": "a", "state": "N/A"}, {"text": "b", "state": None}, {"text": "c", "state": "Ñ x"}]
    put(lake, rows, partition_by=["state"])
    assert lake.partition_columns("bronze/texts") == ("state",)
    assert [(r["text"], r["state"]) for r in bronze_rows(lake)] == [("a", "N/A"), ("b", None), ("c", "Ñ x")]
    with pytest.raises(DataError, match=r"partitioned by \['state'\], and data.partition_by says \[\]"):
        put(lake, rows, name="again")
    with pytest.raises(ColumnError, match="has no column 'state'; allowed: stat, text; did you mean 'stat'"):
        put(lake, [{"text": "d", "stat": "x"}], name="b.csv", partition_by=["state"])


def test_a_naive_time_is_utc_and_another_zone_is_converted(local_lake):
    put(local_lake, [{"t": "a"}], now=datetime(2026, 1, 1))
    put(local_lake, [{"t": "b"}], now=datetime(2026, 1, 2, 1, tzinfo=timezone(timedelta(hours=2))))
    times = [row["_ingested_at"] for row in bronze_rows(local_lake)]
    assert times == [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 23, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ({"_row": [1]}, None, "'_row' is Tamiz's own"),
        ({"Text": ["a"], "text": ["b"]}, None, "differ by case only"),
        ({"a": [{"x": 1}]}, {"a": ["x"]}, "column 'a' is struct"),
        ({"a": [b"x"]}, {"a": ["x"]}, "column 'a' is binary"),
    ],
)
def test_columns_that_cannot_be_kept(local_lake, first, second, words):
    if second is not None:
        put(local_lake, pa.table(first), name="a")
    with pytest.raises(SourceError, match=words):
        put(local_lake, pa.table(second or first), name="b")


def test_a_source_without_rows(local_lake):
    with pytest.raises(SourceError, match=r"no row to ingest into 'bronze/texts' from: a\.csv"):
        put(local_lake, pa.table({"text": pa.array([], pa.string())}))
    with pytest.raises(SourceError, match="a source without files"):
        ingest(local_lake, TableSource({}), now=NOW)


def test_a_file_that_breaks_off_adds_nothing(lake, monkeypatch):
    monkeypatch.setattr(bronze, "_COMMIT_BYTES", 1)

    class Damaged(TableSource):
        def batches(self, file):
            yield pa.record_batch({"text": ["a"] * 10_000})
            if file.path == "b.csv":
                raise SourceError("b.csv ends in the middle of a quoted cell")

    files = {"a.csv": [{"text": "a"}], "b.csv": [{"text": "b"}]}
    with pytest.raises(SourceError, match="middle of a quoted cell"):
        ingest(lake, Damaged(files), now=NOW)
    assert lake.count("bronze/texts") == 10_000
