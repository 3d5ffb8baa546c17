"""Files in, files out: every format, whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tamiz.batch import predict_file, read_texts
from tamiz.errors import ColumnError, ConfigError, EncodingError, SourceError
from tamiz.model import Model
from tamiz.types import Task
from tests.models import linear_model
from tests.projects import write_csv, write_jsonl

ROWS = [
    {"id": "a", "text": "bread soup cheese", "note": 'with, comma and "quotes"'},
    {"id": "b", "text": "bank\nloan\ncredit", "note": "ñ 漢字 \U0001f600"},
    {"id": "c", "text": "", "note": ""},
]


@pytest.fixture(scope="module")
def model() -> Model:
    return linear_model()


@pytest.fixture(scope="module")
def many() -> Model:
    return linear_model(Task.MULTI_LABEL)


def read(path: Path) -> list[dict[str, Any]]:
    """Read a result with other libraries than wrote it; numbers of text formats become numbers again."""
    match path.suffix:
        case ".csv" | ".tsv":
            with path.open(newline="", encoding="utf-8") as file:
                table = list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
        case ".jsonl" | ".ndjson":
            table = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        case _:
            table = pl.read_parquet(path).to_dicts()
    return [
        {k: float(v) if k.startswith("p_") or k.endswith("_probability") else v for k, v in r.items()} for r in table
    ]


def write_source(folder: Path, suffix: str, rows: list[dict[str, Any]] = ROWS) -> Path:
    path = folder / f"in{suffix}"
    match suffix:
        case ".csv":
            write_csv(path, rows)
        case ".tsv":
            write_csv(path, rows, delimiter="\t")
        case ".jsonl":
            write_jsonl(path, rows)
        case ".parquet":
            pl.DataFrame(rows).write_parquet(path)
        case _:
            openpyxl = pytest.importorskip("openpyxl")
            book = openpyxl.Workbook()
            for row in (list(rows[0]), *(list(row.values()) for row in rows)):
                book.active.append(row)
            book.save(path)
    return path


@pytest.mark.parametrize("source", [".csv", ".tsv", ".jsonl", ".parquet", ".xlsx"])
@pytest.mark.parametrize("target", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"])
def test_every_format_into_every_format(model, tmp_path, source, target):
    path = write_source(tmp_path, source)
    assert predict_file(model, str(path), tmp_path / f"out{target}") == 3
    found = read(tmp_path / f"out{target}")
    answers = model.predict([row["text"] for row in ROWS])
    for row, given, answer in zip(found, ROWS, answers, strict=True):
        own = {name: row[name] or "" for name in given}
        assert own == given
        assert row["predicted_label"] == answer.label
        assert row["predicted_probability"] == answer.probability
        assert [row[f"p_{label}"] for label in model.labels] == answer.probabilities.tolist()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, f"out{target}"])


def test_several_labels_are_json_in_csv_and_lists_elsewhere(many, tmp_path):
    texts = ["bread soup bank loan cheese credit", "zzz"]
    source = write_csv(tmp_path / "in.csv", [{"text": text} for text in texts])
    expected = [list(answer.label) for answer in many.predict(texts)]
    assert len(expected[0]) > 1
    found = {}
    for suffix in (".csv", ".jsonl", ".parquet"):
        target = tmp_path / f"out{suffix}"
        predict_file(many, str(source), target)
        if suffix == ".csv":
            with target.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            found[suffix] = [json.loads(row["predicted_label"]) for row in rows]
            assert all(isinstance(json.loads(row["predicted_probability"]), list) for row in rows)
        elif suffix == ".jsonl":
            found[suffix] = [json.loads(line)["predicted_label"] for line in target.read_text().splitlines()]
        else:
            found[suffix] = pl.read_parquet(target)["predicted_label"].to_list()
    assert found == dict.fromkeys(found, expected)


def test_no_target_writes_json_lines_to_a_stream(model, tmp_path):
    out = io.StringIO()
    assert predict_file(model, str(write_source(tmp_path, ".csv")), out) == 3
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [row["id"] for row in rows] == ["a", "b", "c"]
    assert rows[1]["note"] == ROWS[1]["note"]


def test_rows_keep_their_order_over_many_batches(model, tmp_path):
    rows = [{"id": str(i), "text": "bread" if i % 2 else "bank"} for i in range(2500)]
    told: list[int] = []
    target = tmp_path / "out.parquet"
    source = str(write_source(tmp_path, ".jsonl", rows))
    found = predict_file(model, source, target, progress=lambda message, done=0, total=0: told.append(done))
    assert found == 2500
    assert pl.read_parquet(target)["id"].to_list() == [str(i) for i in range(2500)]
    assert told == sorted(told)
    assert told[-1] == 2500
    assert len(told) > 2


def test_no_row_gives_an_empty_table(model, tmp_path):
    (tmp_path / "in.csv").write_text("id,text\n")
    for suffix in (".csv", ".jsonl", ".parquet"):
        target = tmp_path / f"out{suffix}"
        assert predict_file(model, str(tmp_path / "in.csv"), target) == 0
        assert target.exists()
    assert (tmp_path / "out.csv").read_text().startswith("id,text,predicted_label")
    assert pl.read_parquet(tmp_path / "out.parquet").columns[:3] == ["id", "text", "predicted_label"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("before", [None, "what was there"])
def test_a_source_that_breaks_in_the_middle_leaves_no_half_answers(model, tmp_path, suffix, before):
    lines = [json.dumps({"text": "bread"})] * 60_000
    lines[-1] = '{"text": "bro'
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    target = tmp_path / f"out{suffix}"
    if before is not None:
        target.write_text(before)
    with pytest.raises(SourceError, match="line 60000"):
        predict_file(model, str(tmp_path / "in.jsonl"), target)
    assert (target.read_text() if target.exists() else None) == before
    assert not [p for p in tmp_path.iterdir() if p.name not in ("in.jsonl", target.name)]


def test_a_wrong_ending_is_refused_before_anything_is_read(model, tmp_path):
    with pytest.raises(ConfigError, match=r"--output: unknown ending '\.xlsx'; allowed: \.csv, \.jsonl"):
        predict_file(model, str(tmp_path / "nosuch.csv"), tmp_path / "out.xlsx")


def test_what_is_wrong_with_the_source_is_said(model, tmp_path):
    target = tmp_path / "out.csv"
    with pytest.raises(SourceError, match=r"nosuch\.csv"):
        predict_file(model, str(tmp_path / "nosuch.csv"), target)
    source = str(write_source(tmp_path, ".csv"))
    with pytest.raises(ColumnError, match=r"'noet'.*did you mean 'note'"):
        predict_file(model, source, target, column="noet")
    (tmp_path / "latin.csv").write_bytes("text\ncafé\n".encode("cp1252"))
    with pytest.raises(EncodingError, match="offset 8 is 0xe9"):
        predict_file(model, str(tmp_path / "latin.csv"), target, encoding="utf-8")
    assert not target.exists()
    assert predict_file(model, str(tmp_path / "latin.csv"), target, encoding="cp1252") == 1
    assert read(target)[0]["text"] == "café"


def test_files_of_one_pattern_are_answered_one_after_the_other(model, tmp_path):
    for name in ("a", "b"):
        write_csv(tmp_path / f"{name}.csv", [{**row, "id": name + row["id"]} for row in ROWS])
    predict_file(model, str(tmp_path / "*.csv"), tmp_path / "out.jsonl")
    assert [row["id"] for row in read(tmp_path / "out.jsonl")] == ["aa", "ab", "ac", "ba", "bb", "bc"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_files_of_other_columns_cannot_share_a_table(model, tmp_path, suffix):
    write_csv(tmp_path / "a.csv", [{"id": "1", "text": "bread"}])
    write_csv(tmp_path / "b.csv", [{"text": "bread", "stars": "5"}])
    with pytest.raises(SourceError, match=r"b\.csv has the columns text, stars, and .* id, text"):
        predict_file(model, str(tmp_path / "?.csv"), tmp_path / f"out{suffix}")
    assert not (tmp_path / f"out{suffix}").exists()


def test_the_source_itself_may_be_replaced(model, tmp_path):
    source = write_source(tmp_path, ".csv")
    predict_file(model, str(source), source)
    assert [row["id"] for row in read(source)] == ["a", "b", "c"]
    assert read(source)[0]["predicted_label"] == "food"


def test_a_source_on_s3_is_read(model, tmp_path, s3_place):
    from tamiz.blobs import open_blobs

    open_blobs(s3_place).write("in.csv", write_source(tmp_path, ".csv").read_bytes())
    assert predict_file(model, f"{s3_place}/in.csv", tmp_path / "out.csv") == 3
    assert [row["id"] for row in read(tmp_path / "out.csv")] == ["a", "b", "c"]


def test_numbers_that_json_lacks_are_null(tmp_path, model):
    source = tmp_path / "in.parquet"
    rows = {"text": ["bread", "bank"], "rate": [float("nan"), 0.5], "rates": [[1.0, float("inf")], [float("-inf")]]}
    pl.DataFrame(rows).write_parquet(source)
    predict_file(model, str(source), tmp_path / "out.jsonl")
    predict_file(model, str(source), tmp_path / "out.csv")
    lines = [
        json.loads(line, parse_constant=pytest.fail)
        for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [(line["rate"], line["rates"]) for line in lines] == [(None, [1.0, None]), (0.5, [None])]
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        assert [row["rates"] for row in csv.DictReader(file)] == ["[1.0, null]", "[null]"]


def test_a_missing_text_is_an_empty_one(tmp_path):
    source = write_source(tmp_path, ".jsonl", [{"text": "bread"}, {"text": None}, {"text": "bank"}])
    assert list(read_texts(str(source), column="text")) == ["bread", "", "bank"]
