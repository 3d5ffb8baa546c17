"""The public data sets, fetched from a web server of the same layout as the real ones."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tamiz.blobs import open_blobs
from tamiz.data import complaints, imdb
from tamiz.data.bronze import ingest
from tamiz.data.complaints import CATEGORIES, LEFT_OUT
from tamiz.data.downloads import Downloaded
from tamiz.data.lake import Lake
from tamiz.data.places import find_files
from tamiz.data.public import DATA_SETS, DataSet, fetch
from tamiz.data.readers import open_source
from tamiz.errors import ConfigError, SourceError
from tests.data.web import Web, serving

COLUMNS = [
    "Date received", "Product", "Sub-product", "Issue", "Sub-issue", "Consumer complaint narrative",
    "Company public response", "Company", "State", "ZIP code", "Tags", "Consumer consent provided?", "Submitted via",
    "Date sent to company", "Company response to consumer", "Timely response?", "Consumer disputed?", "Complaint ID",
]  # fmt: skip
REVIEWS = {
    "train": (["Dull<br />from start to end.", "A warm film, “rare” too."], [0, 1]),
    "test": (["Fine.", "Bad.", "Good."], [1, 0, 1]),
    "unsupervised": (["Who knows?"], [-1]),
}


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as found:
        yield found


# --- IMDb


def parquet(texts: list[str], labels: list[int]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"text": texts, "label": pa.array(labels, pa.int64())}), out)
    return out.getvalue()


def hub(web: Web, reviews: dict[str, tuple[list[str], list[int]]] = REVIEWS) -> dict[str, DataSet]:
    """Serve files as the hub does, by way of its store of large files; return the data set pinned to them."""
    files = []
    for file, (texts, labels) in zip(imdb.RELEASE.files, reviews.values(), strict=True):
        data = parquet(texts, labels)
        sha256 = hashlib.sha256(data).hexdigest()
        web.files[f"/store/{sha256}"] = data
        asked = f"/datasets/{imdb.RELEASE.repository}/resolve/{imdb.RELEASE.revision}/{file.path}"
        web.redirects[asked] = f"/store/{sha256}"
        files.append(replace(file, sha256=sha256))
    release = replace(imdb.RELEASE, files=tuple(files))
    changed = replace(
        DATA_SETS["imdb"],
        download=partial(imdb.download_imdb, release=release),
        write=partial(imdb.write_imdb, release=release),
    )
    return {"imdb": changed}


def test_reviews_come_as_the_example_reads_them(web, tmp_path):
    data_sets, target = hub(web), tmp_path / "data"
    found = fetch("imdb", str(target), cache=tmp_path / "cache", address=web.url, data_sets=data_sets)
    assert found.files == ("imdb/test.parquet", "imdb/train.parquet", "imdb/unsup.parquet")
    assert pl.read_parquet(target / "imdb/train.parquet").rows() == [
        ("train-00000", "Dull<br />from start to end.", "negative"),
        ("train-00001", "A warm film, “rare” too.", "positive"),
    ]
    assert pl.read_parquet(target / "imdb/test.parquet")["label"].to_list() == ["positive", "negative", "positive"]
    assert pl.read_parquet(target / "imdb/unsup.parquet").rows() == [("unsup-00000", "Who knows?")]
    record = json.loads((target / "imdb.fetched.json").read_text())
    assert record["rows"] == {"imdb/train.parquet": 2, "imdb/test.parquet": 3, "imdb/unsup.parquet": 1}
    assert [source["sha256"] for source in record["sources"]] == [
        hashlib.sha256(parquet(*rows)).hexdigest() for rows in REVIEWS.values()
    ]
    assert "Maas" in record["citation"]


def test_a_second_fetch_downloads_and_writes_nothing(web, tmp_path):
    data_sets, target = hub(web), tmp_path / "data"
    get = partial(fetch, "imdb", str(target), cache=tmp_path / "cache", address=web.url, data_sets=data_sets)
    assert get().fresh
    asked, changed = len(web.asked), (target / "imdb/train.parquet").stat().st_mtime_ns
    assert not get().fresh
    assert len(web.asked) == asked
    assert (target / "imdb/train.parquet").stat().st_mtime_ns == changed
    (target / "imdb/train.parquet").unlink()
    assert get().fresh
    assert (target / "imdb/train.parquet").is_file()


def test_a_break_at_the_hub_is_mended(web, tmp_path):
    data_sets = hub(web)
    web.breaks = [100]
    fetch("imdb", str(tmp_path / "data"), cache=tmp_path / "cache", address=web.url, data_sets=data_sets)
    assert ("bytes=100-" in {asked for path, asked, _ in web.asked if path.startswith("/store/")}) is True
    assert len(pl.read_parquet(tmp_path / "data/imdb/train.parquet")) == 2


def test_another_file_than_the_pinned_one_leaves_no_data(web, tmp_path):
    hub(web)
    with pytest.raises(SourceError, match="is not the expected file"):
        fetch("imdb", str(tmp_path / "data"), cache=tmp_path / "cache", address=web.url)
    assert not (tmp_path / "data").exists()


def test_a_label_that_is_none_is_refused(web, tmp_path):
    data_sets = hub(web, {**REVIEWS, "train": (["Well."], [2])})
    with pytest.raises(SourceError, match="a label is neither 0"):
        fetch("imdb", str(tmp_path / "data"), cache=tmp_path / "cache", address=web.url, data_sets=data_sets)
    assert not (tmp_path / "data").exists()


def test_the_hub_is_the_one_of_its_library(monkeypatch, web, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "ENDPOINT", web.url)  # what HF_ENDPOINT sets when the library is loaded
    fetch("imdb", str(tmp_path / "data"), cache=tmp_path / "cache", data_sets=hub(web))
    assert (tmp_path / "data/imdb/test.parquet").is_file()


# --- complaints


def row(number: int, product: str, narrative: str, day: str = "2023-03-01") -> dict[str, str]:
    about = {"Company": "A Bank, N.A.", "State": "TX", "Complaint ID": str(number)}
    return {"Date received": day, "Product": product, "Consumer complaint narrative": narrative, **about}


def archive(rows: list[dict[str, str]], columns: list[str] = COLUMNS, name: str = "complaints.csv") -> bytes:
    text, out = io.StringIO(), io.BytesIO()
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        # without the time of day, which would make two archives of the same rows differ now and then
        made.writestr(zipfile.ZipInfo(name), text.getvalue(), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def get_complaints(web: Web, folder: Path, rows: list[dict[str, str]] | bytes, **options):
    web.files["/ccdb/complaints.csv.zip"] = rows if isinstance(rows, bytes) else archive(rows)
    address = f"{web.url}/ccdb/complaints.csv.zip"
    return fetch("complaints", str(folder / "data"), cache=folder / "cache", address=address, **options)


def test_complaints_come_as_the_example_reads_them(web, tmp_path):
    products = [*CATEGORIES, *LEFT_OUT, "Crop insurance"]
    rows = [row(n, product, f'They said "no",\nagain: {n}') for n, product in enumerate(products)]
    rows += [row(90, "Mortgage", ""), row(91, "Mortgage", "  "), row(92, "Payday loan", "Old.", "07/29/2013")]
    found = get_complaints(web, tmp_path, rows)
    assert found.files == (
        "complaints/train.parquet/year=2013/part-00000.parquet",
        "complaints/train.parquet/year=2023/part-00000.parquet",
    )
    folder = tmp_path / "data/complaints/train.parquet"
    files = [Path(file.path) for file in find_files([str(folder)])]
    assert [str(file.relative_to(tmp_path / "data")) for file in files] == list(found.files)
    old, new = (pl.read_parquet(file, hive_partitioning=False) for file in files)
    assert old.rows() == [("92", date(2013, 7, 29), "Old.", "Payday loan", "loans", "A Bank, N.A.", "TX")]
    assert old.columns == ["id", "date_received", "narrative", "product", "category", "company", "state"]
    assert dict(zip(new["product"], new["category"], strict=True)) == CATEGORIES
    assert new["narrative"][1] == 'They said "no",\nagain: 1'
    record = found.record
    assert (record["rows"], record["without_narrative"]) == (len(CATEGORIES) + 1, 2)
    assert record["left_out"] == dict.fromkeys(sorted(LEFT_OUT), 1)
    assert record["unknown_products"] == {"Crop insurance": 1}
    (source,) = record["sources"]
    assert source["sha256"] == hashlib.sha256(web.files["/ccdb/complaints.csv.zip"]).hexdigest()
    assert source["last_modified"]


def test_fetched_complaints_can_be_ingested(web, tmp_path):
    get_complaints(
        web, tmp_path, [row(1, "Mortgage", "Late.", "2019-05-01"), row(2, "Mortgage", "Lost.", "2023-05-01")]
    )
    lake = Lake(str(tmp_path / "lake"))
    source = open_source([str(tmp_path / "data/complaints/train.parquet")])
    assert ingest(lake, source, partition_by=["state"], now=datetime.now(UTC)).added_rows == 2
    assert sorted(lake.read("bronze/texts", columns=["narrative"])["narrative"].to_pylist()) == ["Late.", "Lost."]


def test_the_categories_are_those_of_the_example():
    example = Path(__file__).parents[2] / "examples/complaints/tamiz.yaml"
    labels = next(line for line in example.read_text().splitlines() if line.startswith("labels:"))
    assert set(labels.removeprefix("labels: [").rstrip("]").split(", ")) == set(CATEGORIES.values())


def test_a_newer_archive_replaces_the_files_of_the_older(web, tmp_path):
    old = get_complaints(web, tmp_path, [row(1, "Mortgage", "Late fees.", "2019-05-01")])
    assert not get_complaints(web, tmp_path, [row(1, "Mortgage", "Late fees.", "2019-05-01")]).fresh
    web.dated = False
    new = get_complaints(web, tmp_path, [row(2, "Mortgage", "Lost papers.", "2024-05-01")])
    assert new.fresh
    assert not (tmp_path / "data" / old.files[0]).exists()
    assert [path for path in new.files if not (tmp_path / "data" / path).is_file()] == []


def test_large_years_go_into_several_files(monkeypatch, web, tmp_path):
    for name, value in {"_GROUP_ROWS": 50, "_FILE_ROWS": 120, "_BLOCK_ROWS": 70}.items():
        monkeypatch.setattr(complaints, name, value)
    found = get_complaints(
        web, tmp_path, [row(n, "Mortgage", "Word " * 20, f"20{15 + n % 2}-01-01") for n in range(700)]
    )
    sizes = [len(pl.read_parquet(tmp_path / "data" / file)) for file in found.files]
    assert len(sizes) == 6
    assert sum(sizes) == 700
    assert max(sizes) < 120 + 2 * 50
    ids = pl.concat(pl.read_parquet(tmp_path / "data" / file).select("id") for file in found.files)["id"]
    assert sorted(ids.cast(int)) == list(range(700))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"no archive", "cannot be unpacked"),
        (archive([], name="readme.txt"), "holds no .csv file"),
        (
            archive([row(1, "Mortgage", "Text.")], [name for name in COLUMNS if name != "State"]),
            "lacks the column 'State'",
        ),
        (archive([row(1, "Mortgage", "")]), "holds no complaint with a narrative"),
    ],
    ids=["no zip", "no table", "no column", "no row"],
)
def test_an_archive_of_another_kind_is_refused(web, tmp_path, data, said):
    with pytest.raises(SourceError, match=said):
        get_complaints(web, tmp_path, data)
    assert not (tmp_path / "data").exists()


# --- all


def test_a_bucket_can_be_the_target(s3_place, web, tmp_path):
    data_sets = hub(web)
    for _ in range(2):
        found = fetch("imdb", s3_place, cache=tmp_path / "cache", address=web.url, data_sets=data_sets)
    assert not found.fresh
    assert open_blobs(s3_place).list() == [*sorted(["imdb.fetched.json", *found.files])]
    (file,) = find_files([f"{s3_place}/imdb/train.parquet"])
    stored = open_blobs(s3_place).read("imdb/train.parquet").data
    assert file.format == "parquet"
    assert pl.read_parquet(io.BytesIO(stored))["label"].to_list() == ["negative", "positive"]
    web.files["/c.zip"] = archive([row(1, "Mortgage", "Late fees.")])
    fetch("complaints", s3_place, cache=tmp_path / "cache", address=f"{web.url}/c.zip")
    assert len(find_files([f"{s3_place}/complaints/train.parquet"])) == 1
    assert list((tmp_path / "cache").glob("writing-*")) == []


def test_a_top_file_goes_where_asked(tmp_path):
    table = replace(
        DATA_SETS["film-snippets"],
        download=lambda cache, **_: [Downloaded(cache, "an address", "ab", 1)],
        write=lambda found, folder, **_: {"rows": {"f.csv": (folder / "f.csv").write_text("id,text\n") - 7}},
    )
    found = fetch("film-snippets", str(tmp_path / "d"), cache=tmp_path / "c", data_sets={"film-snippets": table})
    assert (tmp_path / "d/f.csv").read_text() == "id,text\n"
    assert found.record["rows"] == {"f.csv": 1}


def test_every_data_set_says_what_it_is():
    for name, one in DATA_SETS.items():
        assert all((one.about, one.licence, one.citation, one.download_mb, one.writes)), name
    with pytest.raises(ConfigError, match="did you mean 'imdb'"):
        fetch("imbd", "data", cache=Path("cache"))
