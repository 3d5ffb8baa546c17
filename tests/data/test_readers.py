from __future__ import annotations

import csv
import gzip
import hashlib
import http.server
import io
import json
import threading
import tracemalloc
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tamiz.data.places import Found, digest, local_copy
from tamiz.data.readers import FileSource, open_source
from tamiz.errors import ConfigError, EncodingError, SourceError

SECRET = "confidential-words"


def read(source: FileSource) -> pa.Table:
    batches = [batch for file in source.files() for batch in source.batches(file)]
    return pa.Table.from_batches(batches)


def table(path: Path, content: str | bytes, **options: str) -> pa.Table:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read(open_source([str(path)], **options))


def refusal(path: Path, content: str | bytes, **options: str) -> str:
    with pytest.raises(SourceError) as caught:
        table(path, content, **options)
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)
    return str(caught.value)


# --- CSV and TSV


def test_csv_keeps_every_value_as_text(tmp_path):
    got = table(tmp_path / "a.csv", 'id,text,label\n007,"a, b",1.50\n8, x ,\n')
    assert got.schema.types == [pa.string()] * 3
    assert got.to_pydict() == {"id": ["007", "8"], "text": ["a, b", " x "], "label": ["1.50", ""]}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_delimiter_is_sniffed_although_others_stand_in_the_text(tmp_path, delimiter):
    others = "".join({",", ";", "|", "\t"} - {delimiter})
    rows = "".join(f"{n}{delimiter}some {others} text {others}{delimiter}x\n" for n in range(5))
    got = table(tmp_path / "a.csv", delimiter.join(["id", "text", "label"]) + "\n" + rows)
    assert got.column_names == ["id", "text", "label"]
    assert got.column("text")[4].as_py() == f"some {others} text {others}"


def test_tsv_is_cut_at_tabs_only(tmp_path):
    assert table(tmp_path / "a.tsv", "text,x\tlabel\na,b\tc\n").to_pydict() == {"text,x": ["a,b"], "label": ["c"]}


def test_csv_of_one_column(tmp_path):
    assert table(tmp_path / "a.csv", 'text\none\n\n"two, three"\n').to_pydict() == {"text": ["one", "two, three"]}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_line_ends_outside_and_inside_quotes(tmp_path, end):
    got = table(tmp_path / "a.csv", end.join(["text,label", f'"one{end}two",x', "three,y", ""]))
    assert got.to_pydict() == {"text": [f"one{end}two", "three"], "label": ["x", "y"]}


def test_csv_field_of_five_megabytes(tmp_path):
    long = "word, " * 850_000
    got = table(tmp_path / "a.csv", f'text,label\n"{long}",x\nshort,y\n')
    assert got.column("text")[0].as_py() == long
    assert got.num_rows == 2


def test_csv_backslash_escapes_are_understood_where_they_make_the_file_whole(tmp_path):
    got = table(tmp_path / "a.csv", 'text,label\n"say \\"hi\\", you",x\n"b",y\n')
    assert got.column("text").to_pylist() == ['say "hi", you', "b"]


def test_tsv_without_quoting_keeps_its_quotes(tmp_path):
    got = table(tmp_path / "a.tsv", 'text\tlabel\n"great" film\tx\n"never closed\ty\nplain\tx\n')
    assert got.to_pydict() == {"text": ['"great" film', '"never closed', "plain"], "label": ["x", "y", "x"]}


def test_stray_quotes_in_tsv_swallow_no_rows(tmp_path):
    rows = [[f"text {n}", "xy"[n % 2]] for n in range(60)]
    rows[10][0], rows[40][0] = '"begins with one', 'ends with one"'
    lines = "".join(f"{text}\t{label}\n" for text, label in rows)
    assert table(tmp_path / "a.tsv", f"text\tlabel\n{lines}").column("text").to_pylist() == [text for text, _ in rows]
    first = "".join(f"{label}\t{text}\n" for text, label in rows)
    assert table(tmp_path / "b.tsv", f"label\ttext\n{first}").column("text").to_pylist() == [text for text, _ in rows]
    quoted = table(tmp_path / "c.tsv", 'text\tlabel\n"two\nlines"\tx\nplain\ty\n')
    assert quoted.column("text").to_pylist() == ["two\nlines", "plain"]
    far = "text\tlabel\n" + "plain words\tx\n" * 30_000 + '"begins\tx\nmiddle\ty\nends"\tx\n'
    assert "line 30002: a double quote opens a value that ends in line 30004" in refusal(tmp_path / "d.tsv", far)


def test_tsv_with_quoting_loses_them(tmp_path):
    got = table(tmp_path / "a.tsv", 'text\tlabel\n"a\tb"\tx\n"c ""d"""\ty\n')
    assert got.to_pydict() == {"text": ["a\tb", 'c "d"'], "label": ["x", "y"]}


def test_csv_backslash_is_an_ordinary_character_otherwise(tmp_path):
    assert table(tmp_path / "a.csv", 'text,label\n"c:\\dir\\",x\n').column("text").to_pylist() == ["c:\\dir\\"]


def test_csv_unicode_line_separators_do_not_end_a_row(tmp_path):
    got = table(tmp_path / "a.csv", "text,label\na\u2028b\x85c\x0bd,x\n")
    assert got.to_pydict() == {"text": ["a\u2028b\x85c\x0bd"], "label": ["x"]}


@pytest.mark.parametrize(("row", "found"), [(f"{SECRET},x,y", 3), (SECRET, 1)])
def test_csv_ragged_row_names_line_and_counts(tmp_path, row, found):
    message = refusal(tmp_path / "a.csv", f'text,label\n"one\ntwo",x\n\n{row}\nlast,y\n')
    assert f"line 5: {found} fields found, 2 expected" in message


def test_csv_ragged_row_far_into_the_file(tmp_path):
    message = refusal(tmp_path / "a.csv", "text,label\n" + "a,b\n" * 60_000 + "a,b,c\n")
    assert "line 60002: 3 fields found, 2 expected" in message


def test_csv_unclosed_quote_names_the_line_where_its_row_begins(tmp_path):
    message = refusal(tmp_path / "a.csv", f'text,label\nfine,x\n"{SECRET},y\nmore,z\n' + "a,b\n" * 10)
    assert "line 3: a double quote" in message
    assert "never closed" in message


def test_csv_text_after_a_closing_quote(tmp_path):
    assert "line 2: a closing double quote" in refusal(tmp_path / "a.csv", f'text,label\n"a" {SECRET},x\n')


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (",text,index", "columns 1 and 3 are both named 'index'"),
        (",text,", "column 3 of 3 has no name"),
        ("text,label,", "column 3 of 3 has no name"),
        ("text, ,label", "column 2 of 3 has no name"),
        ("text,label,text", "columns 1 and 3 are both named 'text'"),
        ("text, text ,label", "columns 1 and 2 are both named 'text'"),
    ],
)
def test_csv_header_that_cannot_be_used(tmp_path, header, part):
    assert part in refusal(tmp_path / "a.csv", f"{header}\na,b,c\n")


@pytest.mark.parametrize("first", ["", '""', "\ufeff"])
def test_csv_index_as_pandas_writes_it_is_called_index(tmp_path, first):
    got = table(tmp_path / "a.csv", f"{first},text,label\n0,uno,x\n1,dos,y\n")
    assert got.to_pydict() == {"index": ["0", "1"], "text": ["uno", "dos"], "label": ["x", "y"]}


@pytest.mark.parametrize("content", ["", "\n \n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json"])
def test_empty_text_files_are_refused(tmp_path, name, content):
    assert "empty" in refusal(tmp_path / name, content)


def test_csv_with_a_header_alone_gives_its_columns(tmp_path):
    got = table(tmp_path / "a.csv", "text,label\n")
    assert (got.column_names, got.num_rows) == (["text", "label"], 0)


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff"), max_size=12)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=8), delimiter=st.sampled_from(",;\t|"))
@example(rows=[("\t\r", "")], delimiter="\t")
@example(rows=[("\t\n", ""), ("a", "\n\t")], delimiter="\t")
def test_csv_what_was_written_is_read(tmp_path, rows, delimiter):
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("text", "label"), *rows])
    got = table(tmp_path / "a.csv", out.getvalue())
    assert list(zip(*got.to_pydict().values(), strict=True)) == rows


def test_csv_is_streamed(tmp_path):
    path = tmp_path / "big.csv"
    line = "word " * 200 + ",x\n"
    with path.open("w") as out:
        out.write("text,label\n")
        for _ in range(40):
            out.write(line * 1000)
    source = open_source([str(path)])
    tracemalloc.start()
    rows = sum(batch.num_rows for batch in source.batches(str(path)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == 40_000
    assert peak < path.stat().st_size


# --- encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_encodings_are_recognised(tmp_path, encoding):
    content = "text,label\nel niño comió piñas – ¡qué día!,sí\n"
    got = table(tmp_path / "a.csv", content.encode(encoding))
    assert got.to_pydict() == {"text": ["el niño comió piñas – ¡qué día!"], "label": ["sí"]}


@pytest.mark.parametrize("name", ["utf8", "UTF-8", "utf-8-sig"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_stated_utf8_takes_a_mark_or_none(tmp_path, name, mark):
    assert table(tmp_path / "a.csv", mark + b"text,label\na,b\n", encoding=name).column_names == ["text", "label"]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "El niño comió jamón en la montaña “qué día”, señor"),
        ("cp1252", "L'été dernier, j'ai déjeuné à la crêperie près de chez Hélène"),
        ("cp1251", "Это хороший фильм, мне понравилось, советую посмотреть всем"),
    ],
)
def test_other_encodings_are_detected_and_noticed(tmp_path, encoding, text):
    path = tmp_path / "a.csv"
    path.write_bytes(("text,label\n" + "plain words,x\n" * 3000 + f'"{text}",x\n' * 20).encode(encoding))
    source = open_source([str(path)])
    assert read(source).column("text")[-1].as_py() == text
    assert len(source.notices) == 1
    assert encoding in source.notices[0]
    assert text not in source.notices[0]


def test_stated_encoding_that_does_not_fit_names_byte_offset_and_what_seems_right(tmp_path):
    start = b"text,label\n" + b"plain words,x\n" * 100_000
    content = start + "niño y montaña,x\n".encode("cp1252")
    message = refusal(tmp_path / "a.csv", content, encoding="utf-8")
    assert f"offset {len(start) + 2} is 0xf1, which is not utf-8 text" in message
    assert "cp1252" in message


def test_wrong_byte_is_found_before_a_row_is_given(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n' * 200_000 + b'{"text": "\xff"}\n')
    with pytest.raises(EncodingError):
        next(open_source([str(path)], encoding="utf-8").batches(str(path)))


def test_utf8_stated_as_ascii(tmp_path):
    message = refusal(tmp_path / "a.csv", "text,label\nniño,x\n", encoding="ascii")
    assert "offset 13 is 0xc3, which is not ascii text" in message
    assert "utf-8" in message


def test_character_cut_by_a_block_boundary(tmp_path):
    # The two bytes of the last letter lie on either side of the first MiB.
    filler = "text,label\n" + "a" * ((1 << 20) - 12)
    got = table(tmp_path / "a.csv", f"{filler}ñ,x\n", encoding="utf-8")
    assert got.column("text")[0].as_py().endswith("añ")


def test_utf8_cut_off_in_a_character(tmp_path):
    message = refusal(tmp_path / "a.csv", "text,label\nab,niñ".encode()[:-1], encoding="utf-8")
    assert "offset 16 is 0xc3" in message


def test_utf8_stated_as_a_single_byte_encoding_is_noticed(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\nniño,x\n", encoding="utf-8")
    source = open_source([str(path)], encoding="latin-1")
    assert read(source).column("text").to_pylist() == ["niÃ±o"]
    assert "valid UTF-8" in source.notices[0]


@pytest.mark.parametrize("name", ["utf-99", "base64"])
def test_unknown_encoding(tmp_path, name):
    (tmp_path / "a.csv").write_text("text,label\na,b\n")
    with pytest.raises(ConfigError, match=name):
        read(open_source([str(tmp_path / "a.csv")], encoding=name))


def test_random_bytes_are_no_text(tmp_path):
    data = b"".join(hashlib.sha256(bytes([n])).digest() for n in range(200))
    with pytest.raises(SourceError):
        table(tmp_path / "a.csv", data)


# --- JSON


def test_jsonl_unites_keys_in_order_of_first_occurrence(tmp_path):
    lines = [{"text": "a", "label": "x"}, {"n": 1, "text": "b"}, {"label": "y", "text": "c", "extra": [1.5]}]
    got = table(tmp_path / "a.jsonl", "\n\n".join(map(json.dumps, lines)))
    assert got.to_pydict() == {
        "text": ["a", "b", "c"],
        "label": ["x", None, "y"],
        "n": [None, 1, None],
        "extra": [None, None, [1.5]],
    }


@pytest.mark.parametrize(
    ("values", "type_", "read_as"),
    [
        ([True, None, False], pa.bool_(), None),
        ([1, None, 3], pa.int64(), None),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([1, "a", None, True], pa.string(), ["1", "a", None, "true"]),
        ([2**70, 1], pa.string(), [str(2**70), "1"]),
        ([{"a": "é"}, None], pa.string(), ['{"a": "é"}', None]),
        ([["a", "b"], [], None], pa.list_(pa.string()), None),
        (["a", ["b"], None], pa.list_(pa.string()), [["a"], ["b"], None]),
        ([[], ["b"], "a"], pa.list_(pa.string()), [[], ["b"], ["a"]]),
        ([[1, "a"], [None]], pa.list_(pa.string()), [["1", "a"], [None]]),
        ([[[1]], [[2, 3]]], pa.list_(pa.list_(pa.int64())), None),
        ([None, None], pa.string(), None),
        (["\ud83d\ude00", "half \ud83d"], pa.string(), ["\U0001f600", "half \ufffd"]),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_json_kinds_of_values(tmp_path, name, values, type_, read_as):
    records = [{"v": value} for value in values]
    content = json.dumps(records) if name == "a.json" else "\n".join(map(json.dumps, records))
    got = table(tmp_path / name, content)
    assert got.schema.field("v").type == type_
    assert got.column("v").to_pylist() == (values if read_as is None else read_as)


@pytest.mark.parametrize("bad", [f'{{"text": "{SECRET}"', f'["{SECRET}"]', f'"{SECRET}"', "null", "7", "[" * 100_000])
def test_jsonl_bad_line_is_named(tmp_path, bad):
    message = refusal(tmp_path / "a.jsonl", '{"text": "a"}\n\n{"text": "b"}\n' + bad + "\n")
    assert "line 4 is " in message


def test_jsonl_unicode_separators_inside_a_string_do_not_end_the_line(tmp_path):
    assert table(tmp_path / "a.jsonl", '{"text": "a\u2028b\x85c"}\n').column("text").to_pylist() == ["a\u2028b\x85c"]


def test_jsonl_key_that_first_occurs_in_a_later_batch(tmp_path):
    got = table(tmp_path / "a.jsonl", '{"text": "a"}\n' * 60_000 + '{"text": "b", "late": 1}\n')
    assert got.column_names == ["text", "late"]
    assert got.column("late").null_count == 60_000


def test_json_file_with_one_record_per_line_is_read_as_json_lines(tmp_path):
    assert table(tmp_path / "a.json", '{"text": "a"}\n{"text": "b"}\n').to_pydict() == {"text": ["a", "b"]}


def test_json_list_with_a_bad_item(tmp_path):
    assert "item 2 of the list is a string" in refusal(tmp_path / "a.json", f'[{{"text": "a"}}, "{SECRET}"]')
    assert "not valid JSON" in refusal(tmp_path / "a.json", '[{"text": "a"},')
    assert "empty" in refusal(tmp_path / "a.json", "[]")


# --- gzip


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv.gz", "text,label\nniño,x\n"),
        ("a.TSV.GZ", "text\tlabel\nniño\tx\n"),
        ("a.jsonl.gz", '{"text": "niño", "label": "x"}\n'),
        ("a.ndjson.gz", '{"text": "niño", "label": "x"}\n'),
        ("a.json.gz", '[{"text": "niño", "label": "x"}]'),
    ],
)
def test_gzipped_text_formats(tmp_path, name, content):
    assert table(tmp_path / name, gzip.compress(content.encode())).to_pydict() == {"text": ["niño"], "label": ["x"]}


def test_gzip_that_is_cut_off_or_none(tmp_path):
    whole = gzip.compress(("text,label\n" + "".join(f"a{n},x\n" for n in range(9999))).encode())
    assert "cut off" in refusal(tmp_path / "a.csv.gz", whole[:-20])
    assert "damaged" in refusal(tmp_path / "a.csv.gz", whole[:500] + b"junkjunk" + whole[508:])
    assert "gzip" in refusal(tmp_path / "a.csv.gz", "text,label\na,b\n")


# --- Parquet


def write_parquet(path: Path, **columns: pa.Array | list) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_keeps_types_and_lists(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", text=["a", None], n=[1, 2], genres=[["x", "y"], []])
    got = read(open_source([str(path)]))
    assert got.schema.types == [pa.string(), pa.int64(), pa.list_(pa.string())]
    assert got.to_pydict() == {"text": ["a", None], "n": [1, 2], "genres": [["x", "y"], []]}


def test_parquet_storage_variants_of_text_become_one_type(tmp_path):
    large = pa.array(["a", "b"], pa.large_string())
    lists = pa.array([["x"], ["y"]], pa.large_list(pa.large_string()))
    path = write_parquet(tmp_path / "a.parquet", text=large, label=pa.array(["x", "y"]).dictionary_encode(), tags=lists)
    got = read(open_source([str(path)]))
    assert got.schema.types == [pa.string(), pa.string(), pa.list_(pa.string())]
    assert got.to_pydict() == {"text": ["a", "b"], "label": ["x", "y"], "tags": [["x"], ["y"]]}


def test_parquet_batches_are_bounded_by_bytes(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", text=[f"{n:06d}" * 50_000 for n in range(100)])
    batches = list(open_source([str(path)]).batches(str(path)))
    assert sum(batch.num_rows for batch in batches) == 100
    assert max(batch.nbytes for batch in batches) < 20_000_000


def test_parquet_damaged(tmp_path):
    path = tmp_path / "a.parquet"
    table_ = pa.table({"text": [f"{SECRET} {n}" for n in range(1000)]})
    pq.write_table(table_, path, compression="none", use_dictionary=False, write_page_checksum=True)
    whole = path.read_bytes()
    middle = len(whole) // 3
    for damaged in (whole[:-30], whole[: len(whole) // 2], b"junk", b"", whole[:middle] + b"#" + whole[middle + 1 :]):
        assert "damaged" in refusal(path, damaged)


def test_parquet_with_two_columns_of_one_name(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), path)
    with pytest.raises(SourceError, match="columns 1 and 2 are both named 'text'"):
        read(open_source([str(path)]))


# --- Excel


def workbook(path: Path, rows: list[list[object]]) -> Path:
    xlsxwriter = pytest.importorskip("xlsxwriter", reason="xlsxwriter makes the workbook")
    with xlsxwriter.Workbook(path) as book:
        sheet = book.add_worksheet("first")
        for number, row in enumerate(rows):
            sheet.write_row(number, 0, row)
        book.add_worksheet("second").write_row(0, 0, ["other"])
    return path


def test_excel_first_sheet_with_values_as_they_are(tmp_path):
    path = workbook(tmp_path / "a.xlsx", [["text", "label", "n"], ["uno\ndos", "x", 1], ["tres", None, 2.5]])
    (tmp_path / "~$a.xlsx").write_bytes(b"of a workbook that is open")
    source = open_source([str(tmp_path)])
    assert source.paths() == open_source([str(tmp_path / "*.xlsx")]).paths() == [str(path)]
    assert read(source).to_pydict() == {"text": ["uno\ndos", "tres"], "label": ["x", None], "n": [1.0, 2.5]}
    assert source.notices == [f"{path}: the first sheet alone is read, not second; save others as files"]


def test_excel_index_as_pandas_writes_it_is_called_index(tmp_path):
    path = workbook(tmp_path / "a.xlsx", [[None, "text", "label"], [0, "uno", "x"], [1, "dos", "y"]])
    assert read(open_source([str(path)])).column_names == ["index", "text", "label"]


@pytest.mark.parametrize(
    ("header", "part"), [(["text", "text"], "both named"), (["text", ""], "column 2 of 2 has no name")]
)
def test_excel_header_that_cannot_be_used(tmp_path, header, part):
    path = workbook(tmp_path / "a.xlsx", [header, ["a", "b"]])
    with pytest.raises(SourceError, match=part):
        read(open_source([str(path)]))


def test_excel_word_far_down_in_a_column_of_numbers_is_kept(tmp_path):
    path = workbook(tmp_path / "a.xlsx", [["text", "v"], *([["a", n] for n in range(1500)]), ["b", "word"]])
    assert read(open_source([str(path)])).column("v").to_pylist() == [*map(str, range(1500)), "word"]


def test_excel_with_a_header_alone_or_an_empty_column(tmp_path):
    got = read(open_source([str(workbook(tmp_path / "a.xlsx", [["text", "label"]]))]))
    assert (got.column_names, got.num_rows) == (["text", "label"], 0)
    got = read(open_source([str(workbook(tmp_path / "b.xlsx", [["text", "label"], ["a"], ["b"]]))]))
    assert got.to_pydict() == {"text": ["a", "b"], "label": [None, None]}


def test_excel_empty_or_damaged(tmp_path):
    path = workbook(tmp_path / "a.xlsx", [["text", "label"], ["a", "b"]])
    assert "damaged" in refusal(path, path.read_bytes()[:-200])
    assert "damaged" in refusal(tmp_path / "b.xls", "junk")


# --- one folder of .txt files per label


@pytest.fixture
def folder(tmp_path) -> Path:
    for label, name, content in [("pos", "2.txt", "bien"), ("pos", "10.txt", "más"), ("neg", "1.txt", "mal\n")]:
        (tmp_path / "reviews" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "reviews" / label / name).write_text(content, encoding="utf-8")
    (tmp_path / "reviews" / "readme.txt").write_text("about")
    (tmp_path / "reviews" / ".cache").mkdir()
    return tmp_path / "reviews"


def test_folder_per_label(folder):
    source = open_source([str(folder)], text="review", label="sentiment")
    assert len(source.files()) == 1
    assert read(source).to_pydict() == {
        "review": ["mal\n", "más", "bien"],
        "sentiment": ["neg", "pos", "pos"],
        "file": ["neg/1.txt", "pos/10.txt", "pos/2.txt"],
    }


def test_folder_hash_tells_of_any_change(folder):
    def entry():
        return open_source([str(folder)]).files()[0]

    before = entry()
    assert entry() == before
    assert before.size_bytes == len("bien") + len("más".encode()) + len("mal\n")
    (folder / "pos" / "2.txt").rename(folder / "neg" / "2.txt")
    assert entry().sha256 != before.sha256


def test_folder_file_in_another_encoding(folder):
    (folder / "neg" / "3.txt").write_bytes("qué película más fea, señor, el niño lloró".encode("cp1252"))
    source = open_source([str(folder)])
    assert "qué película más fea, señor, el niño lloró" in read(source).column("text").to_pylist()
    assert "1 of 4 files are read as cp1252" in source.notices[0]
    with pytest.raises(EncodingError, match=r"3\.txt: the byte at offset 2 is 0xe9"):
        read(open_source([str(folder)], encoding="utf-8"))


def test_folder_column_names_must_differ(folder):
    with pytest.raises(ConfigError, match="must differ"):
        open_source([str(folder)], text="file")


# --- places


def test_places_are_files_folders_and_patterns_in_order_and_none_twice(tmp_path):
    for name in ("b.csv", "a.jsonl", "c.csv", ".hidden.csv", "notes.md"):
        (tmp_path / name).write_text('{"text": "a"}' if name == "a.jsonl" else "text\na\n")
    source = open_source([str(tmp_path / "c.csv"), str(tmp_path), str(tmp_path / "*.csv")])
    assert [Path(path).name for path in source.paths()] == ["c.csv", "a.jsonl", "b.csv"]


def test_folders_tell_columns_that_the_files_have_not(tmp_path):
    for folder, content in (("pos", "text\ngood\n"), ("neg", "text\ngood\n"), ("a%2Fb", "text,label\nso,own\n")):
        (tmp_path / "in" / f"label={folder}" / "year=2023").mkdir(parents=True)
        (tmp_path / "in" / f"label={folder}" / "year=2023" / "0.csv").write_text(content, encoding="utf-8")
    source = open_source([str(tmp_path / "in")])
    rows = [row for file in source.files() for batch in source.batches(file) for row in batch.to_pylist()]
    assert rows == [
        {"text": "so", "label": "own", "year": "2023"},
        {"text": "good", "label": "neg", "year": "2023"},
        {"text": "good", "label": "pos", "year": "2023"},
    ]
    assert len({file.sha256 for file in source.files()}) == 3
    by_pattern = open_source([str(tmp_path / "in" / "label=p*" / "*" / "*.csv")])
    assert read(by_pattern).to_pylist() == [rows[2]]
    named = open_source([str(tmp_path / "in" / "label=pos" / "year=2023" / "0.csv")])
    assert read(named).to_pylist() == [{"text": "good"}]


def test_a_folder_of_no_value_tells_nothing(tmp_path):
    (tmp_path / "year=__HIVE_DEFAULT_PARTITION__").mkdir()
    write_parquet(tmp_path / "year=__HIVE_DEFAULT_PARTITION__" / "0.parquet", text=["a"])
    assert read(open_source([str(tmp_path)])).to_pylist() == [{"text": "a", "year": None}]


def test_empty_files_beside_others_are_left_out_unless_they_are_named(tmp_path):
    for name, content in (("a.csv", "text\nx\n"), ("b.csv", ""), ("c.jsonl", "")):
        (tmp_path / name).write_text(content, encoding="utf-8")
    source = open_source([str(tmp_path)])
    assert read(source).to_pylist() == [{"text": "x"}]
    assert source.notices == [f"{tmp_path / name} is empty and was left out" for name in ("b.csv", "c.jsonl")]
    with pytest.raises(SourceError, match=r"b\.csv is empty"):
        read(open_source([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]))
    (tmp_path / "a.csv").unlink()
    with pytest.raises(SourceError, match=r"b\.csv is empty"):
        read(open_source([str(tmp_path)]))


def test_files_carry_hash_and_size_of_their_bytes(tmp_path):
    data = b"text,label\na,b\n"
    (tmp_path / "a.csv").write_bytes(data)
    (file,) = open_source([str(tmp_path / "a.csv")]).files()
    assert (file.path, file.sha256, file.size_bytes) == (
        str(tmp_path / "a.csv"),
        hashlib.sha256(data).hexdigest(),
        len(data),
    )


def test_folders_with_pattern_characters_may_hold_what_a_pattern_names(tmp_path):
    folder = tmp_path / "[work] *1" / "data"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("text\nx\n")
    (folder / "b.csv").write_text("text\ny\n")
    for pattern in ("*.csv", "?.csv", "[ab].csv"):
        assert open_source([f"{folder}/{pattern}"]).paths() == [str(folder / "a.csv"), str(folder / "b.csv")]
    assert open_source([f"{tmp_path}/**/a.csv"]).paths() == [str(folder / "a.csv")]


def test_name_with_pattern_characters_that_exists_is_that_file(tmp_path):
    (tmp_path / "data[1].csv").write_text("text\na\n")
    assert len(open_source([str(tmp_path / "data[1].csv")]).paths()) == 1


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ("reveiws.csv", "did you mean 'reviews.csv'"),
        ("nowhere/a.csv", "Neither does its folder"),
        ("notes.md", "files of this kind are not read"),
        ("*.parquet", "matches 0 files"),
        ("sub", "holds no file that can be read"),
        ("a.parquet.gz", "files of this kind are not read"),
    ],
)
def test_place_without_a_readable_file(tmp_path, place, part):
    (tmp_path / "sub").mkdir()
    for name in ("reviews.csv", "notes.md", "a.parquet.gz"):
        (tmp_path / name).write_text("text\na\n")
    with pytest.raises(SourceError) as caught:
        open_source([str(tmp_path / place)])
    assert part in str(caught.value)
    assert place in str(caught.value)


def test_no_place():
    with pytest.raises(SourceError, match="no file"):
        open_source([])


def test_file_that_went_away(tmp_path):
    (tmp_path / "a.csv").write_text("text\na\n")
    source = open_source([str(tmp_path / "a.csv")])
    (tmp_path / "a.csv").unlink()
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        source.files()
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        list(source.batches(str(tmp_path / "a.csv")))


# --- S3, against a real server on loopback


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    server_module = pytest.importorskip("moto.server", reason="moto serves S3 on loopback")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch) -> Iterator[tuple[object, str]]:
    boto3 = pytest.importorskip("boto3", reason="boto3 reads S3")
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    client = boto3.client("s3")
    name = f"texts-{uuid.uuid4().hex[:8]}"
    client.create_bucket(Bucket=name)
    return client, name


def test_s3_object_prefix_and_pattern(bucket, tmp_path):
    client, name = bucket
    parquet = write_parquet(tmp_path / "p.parquet", text=["c"], label=["y"]).read_bytes()
    objects = {
        "in/a.csv": b"text,label\na,x\n",
        "in/deep/b.csv.gz": gzip.compress(b"text,label\nb,x\n"),
        "in/deep/c.parquet": parquet,
        "in/_delta_log/0.json": b"{}",
        "in/readme.md": b"no",
        "inside.csv": b"text,label\nz,x\n",
    }
    for key, body in objects.items():
        client.put_object(Bucket=name, Key=key, Body=body)
    (file,) = open_source([f"s3://{name}/in/a.csv"]).files()
    assert file.sha256 == hashlib.sha256(objects["in/a.csv"]).hexdigest()
    assert file.size_bytes == len(objects["in/a.csv"])
    for place in (f"s3://{name}/in", f"s3://{name}/in/"):
        source = open_source([place])
        assert read(source).column("text").to_pylist() == ["a", "b", "c"]
    assert open_source([f"s3://{name}/in/*.csv"]).paths() == [f"s3://{name}/in/a.csv"]
    assert len(open_source([f"s3://{name}"]).paths()) == 4


def test_s3_missing_object_or_bucket(bucket):
    client, name = bucket
    client.put_object(Bucket=name, Key="in/reviews.csv", Body=b"text\na\n")
    with pytest.raises(SourceError, match=r"did you mean 'reviews\.csv'"):
        open_source([f"s3://{name}/in/reveiws.csv"])
    with pytest.raises(SourceError, match="NoSuchBucket"):
        open_source([f"s3://{name}-other/in/reviews.csv"])


def test_an_s3_object_is_known_by_its_exact_name_before_a_pattern(bucket):
    client, name = bucket
    keys = ["in/reviews [final].csv", "in/reviews f.csv", "old [2020]/a.csv", "old 2/b.csv"]
    for key in keys:
        client.put_object(Bucket=name, Key=key, Body=b"text\na\n")
    assert open_source([f"s3://{name}/{keys[0]}"]).paths() == [f"s3://{name}/{keys[0]}"]
    assert open_source([f"s3://{name}/old [2020]"]).paths() == [f"s3://{name}/{keys[2]}"]
    assert open_source([f"s3://{name}/in/reviews [a-z].csv"]).paths() == [f"s3://{name}/{keys[1]}"]


def test_folder_marks_of_other_tools_are_no_s3_objects(bucket):
    client, name = bucket
    for key in ("in/reviews.parquet/", "in/reviews.parquet/a.csv", "data", "data2.csv"):
        client.put_object(Bucket=name, Key=key, Body=b"")
    for place in ("in", "in/reviews.parquet", "in/reviews.parquet/"):
        assert open_source([f"s3://{name}/{place}"]).paths() == [f"s3://{name}/in/reviews.parquet/a.csv"]
    with pytest.raises(SourceError, match="no object that can be read is there"):
        open_source([f"s3://{name}/data"])


def test_an_s3_key_may_be_longer_than_a_file_name(bucket):
    client, name = bucket
    client.put_object(Bucket=name, Key=f"{'n' * 300}.csv", Body=b"text\na\n")
    assert read(open_source([f"s3://{name}"])).column("text").to_pylist() == ["a"]


class Half(http.server.BaseHTTPRequestHandler):
    """A server that breaks off in the middle of an object, `broken` times."""

    broken = 0

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(bytes(50 if type(self).broken > 0 else 100))
        type(self).broken -= 1

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def half(monkeypatch) -> Iterator[type[Half]]:
    class Own(Half):
        pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        yield Own
        server.shutdown()


def test_an_s3_object_that_breaks_off_again_and_again_is_a_source_error(bucket, half):
    half.broken = 100
    with pytest.raises(SourceError, match="cannot be read"), local_copy(f"s3://{bucket[1]}/a.csv"):
        pass


def test_an_s3_object_that_breaks_off_once_is_hashed_all_the_same(bucket, half):
    half.broken = 1
    assert digest(Found(f"s3://{bucket[1]}/a.csv", "csv")) == (hashlib.sha256(bytes(100)).hexdigest(), 100)


def test_a_copy_that_the_disk_refuses_names_the_temporary_folder(bucket):
    resource = pytest.importorskip("resource")
    client, name = bucket
    client.put_object(Bucket=name, Key="a.csv", Body=bytes(5000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(SourceError, match=r"a\.csv cannot be copied into the temporary folder .*: file too large"):
            local_copy(f"s3://{name}/a.csv").__enter__()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("place", ["s3a://bucket/in", "https://example.org/*.csv"])
def test_addresses_of_other_kinds_are_refused(place):
    with pytest.raises(SourceError, match="address of another kind"):
        open_source([place])
