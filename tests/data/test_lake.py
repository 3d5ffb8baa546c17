import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from tamiz.data.lake import Lake
from tamiz.errors import ConfigError, ConflictError, DataError, StoreError

SCHEMA = pa.schema([("the text", pa.string()), ("n", pa.int64()), ("tags", pa.list_(pa.string()))])


def batch(*numbers: int) -> pa.RecordBatch:
    rows = [{"the text": f"ñ{n}", "n": n, "tags": ["a"] * n} for n in numbers]
    return pa.RecordBatch.from_pylist(rows, schema=SCHEMA)


def test_a_table_grows_and_keeps_its_versions(lake):
    assert lake.version("bronze/x") is None
    first = lake.append("bronze/x", SCHEMA, [batch(0), batch(1, 2)])
    second = lake.append("bronze/x", SCHEMA, [batch(3)])
    assert (first, second, lake.version("bronze/x")) == (0, 1, 1)
    assert sorted(lake.read("bronze/x", columns=["n"])["n"].to_pylist()) == [0, 1, 2, 3]
    assert sorted(lake.read("bronze/x", version=0)["n"].to_pylist()) == [0, 1, 2]
    assert lake.count("bronze/x") == 4
    assert lake.count("bronze/x", version=0) == 3
    assert lake.schema("bronze/x") == SCHEMA
    assert Lake(lake.root + "/").version("bronze/x") == 1


def test_a_replaced_table_has_the_new_columns_and_the_old_version_the_old(lake):
    lake.append("t", SCHEMA, [batch(1)], partition_by=["the text"])
    other = pa.schema([("only", pa.string())])
    lake.replace("t", other, [pa.RecordBatch.from_pylist([{"only": "x"}], schema=other)])
    assert lake.read("t").to_pylist() == [{"only": "x"}]
    assert lake.partition_columns("t") == ()
    assert lake.read("t", version=0, columns=["the text"]).to_pylist() == [{"the text": "ñ1"}]


def test_partitions_and_filters(lake):
    rows = pa.table({"n": [1, 2, 3, 4, 5, 6], "place": ["N/A", "a b", None, "50%", "ñ?#=:", "a%20b"]})
    lake.append("t", rows.schema, rows.to_batches(), partition_by=["place"])
    assert lake.partition_columns("t") == ("place",)
    found = lake.read("t", columns=["n"], filters=ds.field("place") == "N/A")
    assert found.to_pylist() == [{"n": 1}]
    assert sorted(lake.read("t").to_pylist(), key=lambda row: row["n"]) == rows.to_pylist()


def test_two_scans_meet_the_rows_in_one_order(lake):
    for start in range(0, 12, 3):
        lake.append("t", SCHEMA, [batch(start, start + 1, start + 2)])
    names = [b["the text"].to_pylist() for b in lake.scan("t", columns=["the text"], batch_rows=2)]
    numbers = [b["n"].to_pylist() for b in lake.scan("t", columns=["n"], batch_rows=5)]
    assert [f"ñ{n}" for b in numbers for n in b] == [t for b in names for t in b]
    assert max(map(len, names)) <= 2


def test_new_columns_join_an_appended_table(lake):
    lake.append("t", pa.schema([("a", pa.int64())]), [pa.record_batch({"a": [1]})])
    lake.append("t", pa.schema([("b", pa.string())]), [pa.record_batch({"b": ["x"]})])
    assert sorted(lake.read("t").to_pylist(), key=str) == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


def test_a_transaction_is_committed_once(lake):
    assert lake.holds("t", ["one"]) == set()
    lake.append("t", SCHEMA, [batch(1)], transaction_ids=["one", "two"])
    assert lake.holds("t", ["one", "two", "three"]) == {"one", "two"}
    with pytest.raises(ConflictError, match="holds some of these rows already"):
        lake.append("t", SCHEMA, [batch(1)], transaction_ids=["two"])
    lake.replace("t", SCHEMA, [batch(5)])
    assert lake.holds("t", ["one", "two", "three"]) == {"one", "two"}


def test_two_writers_of_one_transaction_do_not_both_succeed(lake):
    lake.append("t", SCHEMA, [batch(0)])

    def rows():
        lake.append("t", SCHEMA, [batch(1)], transaction_ids=["one"])  # the other writer, while this one is at work
        yield batch(1)

    with pytest.raises(ConflictError):
        lake.append("t", SCHEMA, rows(), transaction_ids=["one"])
    assert sorted(lake.read("t")["n"].to_pylist()) == [0, 1]


def test_a_checkpointed_table_remembers_its_transactions(local_lake):
    from deltalake import DeltaTable

    local_lake.append("t", SCHEMA, [batch(1)], transaction_ids=["one"])
    DeltaTable(local_lake.uri("t")).create_checkpoint()
    local_lake.append("t", SCHEMA, [batch(2)])
    assert Lake(local_lake.root).holds("t", ["one"]) == {"one"}


def test_versions_stay_readable_however_old_they_are(local_lake):
    """Delta makes a checkpoint every hundred versions, and by default forgets what is older than thirty days then."""
    for n in range(99):
        local_lake.replace("t", SCHEMA, [batch(n)])
    long_ago = time.time() - 40 * 86_400
    for path in (Path(local_lake.uri("t")) / "_delta_log").glob("*.json"):
        path.write_text(re.sub(r'("timestamp":)\d{13}', rf"\g<1>{int(long_ago * 1000)}", path.read_text()))
        os.utime(path, (long_ago, long_ago))
    for n in range(99, 103):
        local_lake.replace("t", SCHEMA, [batch(n)])
    for version in (0, 50, 98, 102):
        assert local_lake.read("t", version=version)["n"].to_pylist() == [version]


def test_the_log_is_read_once_for_a_version(local_lake, tmp_path):
    local_lake.append("t", SCHEMA, [batch(1)])
    local_lake.append("t", SCHEMA, [batch(2)])
    found = [local_lake.read("t", version=version) for version in (0, 1)]
    shutil.rmtree(tmp_path / "lake" / "t" / "_delta_log")
    assert [local_lake.read("t", version=version) for version in (0, 1)] == found
    assert local_lake.count("t", version=0) == 1
    assert local_lake.version("t") is None


def test_a_table_that_is_made_anew_is_another_one(local_lake):
    assert local_lake.identity("t") is None
    local_lake.append("t", SCHEMA, [batch(1)])
    first = local_lake.identity("t")
    local_lake.replace("t", SCHEMA, [batch(2)])
    assert Lake(local_lake.root).identity("t") == first
    shutil.rmtree(local_lake.uri("t"))
    local_lake.append("t", SCHEMA, [batch(1)])
    assert local_lake.identity("t") not in (first, None)


def test_an_error_among_the_rows_comes_through_and_nothing_is_written(lake):
    def rows():
        yield batch(1)
        raise KeyError("the reader failed")

    with pytest.raises(KeyError, match="the reader failed"):
        lake.append("t", SCHEMA, rows())
    assert lake.version("t") is None


def test_missing_tables_and_versions_are_named(lake):
    with pytest.raises(DataError, match="no table 'silver/texts' in the lake"):
        lake.read("silver/texts")
    lake.append("t", SCHEMA, [batch(1)])
    for version in (-1, 7):
        with pytest.raises(DataError, match=rf"no version {version}; allowed: 0 to 0"):
            lake.read("t", version=version)


def test_a_damaged_table_is_a_data_error_that_quotes_nothing(local_lake, tmp_path):
    local_lake.append("t", SCHEMA, [batch(1)])
    file = next((tmp_path / "lake" / "t").glob("*.parquet"))
    file.write_bytes(b"secret words " * 20)
    with pytest.raises(DataError) as caught:
        local_lake.read("t")
    assert "secret" not in str(caught.value)
    log = next((tmp_path / "lake" / "t" / "_delta_log").glob("*.json"))
    log.write_text("secret words")
    with pytest.raises(DataError, match="cannot be opened") as caught:
        local_lake.version("t")
    assert "secret" not in str(caught.value)


def test_rows_that_do_not_fit_are_a_data_error_that_quotes_nothing(local_lake):
    local_lake.append("t", pa.schema([("n", pa.int64())]), [pa.record_batch({"n": [1]})])
    with pytest.raises(DataError) as caught:
        local_lake.append("t", pa.schema([("n", pa.string())]), [pa.record_batch({"n": ["secret words"]})])
    assert "secret" not in str(caught.value)


def test_a_place_out_of_reach_is_a_store_error(s3_place, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(StoreError, match=r"cannot be opened: .*/_delta_log/.*[Ee]rror sending request"):
        Lake(s3_place).version("t")


def test_a_write_that_the_disk_refuses_is_a_store_error_that_says_so(local_lake):
    resource = pytest.importorskip("resource")
    local_lake.append("t", SCHEMA, [batch(1)])
    texts = pa.array([os.urandom(500).hex() for _ in range(1000)])
    rows = pa.record_batch([texts, pa.nulls(1000, pa.int64()), pa.nulls(1000, SCHEMA.field("tags").type)], SCHEMA)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StoreError, match=r"cannot be written: .*File too large"):
            local_lake.append("t", SCHEMA, [rows])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert local_lake.count("t") == 1


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("gs://bucket/x", "allowed"),
        ("a%20b", "path with '%'"),
        ("[a]/b", r"path with '\['"),
        ("a\tb", r"path with '\\t'"),
        ("s3://bucket/team#1", "path with '#'"),  # would end the path: all tables would be one
        ("s3://bucket/a%20b", "path with '%'"),
        ("s3://bucket/[a]", r"path with '\['"),
    ],
)
def test_places_that_cannot_hold_a_lake(root, words):
    with pytest.raises(ConfigError, match=words):
        Lake(root)


def test_a_table_may_be_rewritten_from_itself(lake):
    lake.append("t", SCHEMA, [batch(1, 2), batch(3)])
    lake.replace("t", SCHEMA, (b for b in lake.scan("t", batch_rows=1)))
    assert sorted(lake.read("t")["n"].to_pylist()) == [1, 2, 3]


ONE_PROCESSOR = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import pyarrow as pa
from tamiz.data.lake import Lake

lake, schema = Lake(sys.argv[1]), pa.schema([("n", pa.int64())])
lake.append("from", schema, [pa.record_batch([pa.array([1, 2, 3])], schema=schema)])

def rows():
    for _ in range(20):
        assert lake.count("from") == 3
        yield from lake.scan("from")

lake.replace("to", schema, rows())
print(lake.count("to"))
"""


def test_a_table_is_written_from_another_on_a_single_processor(tmp_path):
    surroundings = {key: value for key, value in os.environ.items() if key != "TOKIO_WORKER_THREADS"}
    command = [sys.executable, "-c", ONE_PROCESSOR, str(tmp_path)]
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "60", done.stderr


def test_a_writer_that_gives_up_leaves_no_thread_behind(local_lake):
    names = {thread.name for thread in threading.enumerate()}
    local_lake.append("t", pa.schema([("n", pa.int64())]), [pa.record_batch({"n": [1]})])
    with pytest.raises(DataError):
        local_lake.append("t", pa.schema([("n", pa.string())]), (pa.record_batch({"n": ["x"]}) for _ in range(10_000)))
    assert {thread.name for thread in threading.enumerate()} == names


def test_batches_unlike_the_schema_are_refused_before_the_writer_sees_them(local_lake):
    with pytest.raises(DataError, match=r"columns \['other'\], not \['the text', 'n', 'tags'\]"):
        local_lake.append("t", SCHEMA, [pa.record_batch({"other": [1]})])
