from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tamiz.store
from tamiz._index import AliasChange, Index, VersionInfo
from tamiz.blobs import open_blobs
from tamiz.errors import ConflictError, ModelNotFoundError, PackageError, StoreError
from tamiz.package import MANIFEST_NAME, Manifest, read_manifest, verify_package, write_package
from tamiz.store import CHAMPION, ModelStore
from tamiz.types import Task

ROOT = Path(__file__).parent.parent


def make_package(folder: Path, content: bytes = b"weights", **changes: object) -> Path:
    manifest = Manifest(
        name="reviews",
        task=Task.BINARY,
        labels=("neg", "pos"),
        family="linear",
        metrics={"val_f1_macro": 0.9},
        created_at="2026-01-02T03:04:05+00:00",
    ).model_copy(update=changes)

    def fill(target: Path) -> None:
        (target / "deep").mkdir()
        (target / "deep" / "weights.npz").write_bytes(content)

    write_package(folder, manifest, fill)
    return folder


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return make_package(tmp_path / "package")


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "local" else str(request.getfixturevalue("s3_place"))


@pytest.fixture
def store(place: str, tmp_path: Path) -> ModelStore:
    return ModelStore(place, cache=tmp_path / "cache")


def promote(store: ModelStore, version: str, alias: str = CHAMPION) -> None:
    store.set_alias("reviews", alias, version, by="tester", reason="test")


def test_what_was_published_is_fetched(store: ModelStore, package: Path) -> None:
    before = read_manifest(package)
    assert store.publish("reviews", package) == "1"
    assert store.publish("reviews", package) == "2"
    promote(store, "2")
    fetched = store.fetch("reviews")
    manifest = verify_package(fetched)
    assert (manifest.name, manifest.version) == ("reviews", "2")
    assert manifest.files == before.files
    assert (fetched / "deep" / "weights.npz").read_bytes() == b"weights"
    assert read_manifest(store.fetch("reviews@1")).version == "1"
    assert store.fetch("reviews@champion") == fetched == store.fetch("reviews@2")
    assert read_manifest(package) == before, "publishing leaves its argument alone"


def test_the_index_says_what_was_published(store: ModelStore, tmp_path: Path) -> None:
    folder = make_package(tmp_path / "p", candidate="linear-char")
    store.publish("reviews", folder)
    store.publish("reviews", make_package(tmp_path / "q"))
    index = store.index("reviews")
    info = index.versions["1"]
    assert (info.family, info.candidate, info.metrics) == ("linear", "linear-char", {"val_f1_macro": 0.9})
    assert info.created_at == "2026-01-02T03:04:05+00:00"
    fetched = store.fetch("reviews@1")
    assert info.size_bytes == sum(path.stat().st_size for path in fetched.rglob("*") if path.is_file())
    assert index.versions["2"].candidate == "linear"
    assert (index.aliases, index.history, index.last_version) == ({}, [], 2)


def test_the_package_takes_the_name_it_is_published_under(store: ModelStore, package: Path) -> None:
    store.publish("other", package)
    assert read_manifest(store.fetch("other@1")).name == "other"
    assert store.names() == ["other"]


def test_names_are_those_with_an_index(store: ModelStore, package: Path, place: str) -> None:
    assert store.names() == []
    store.publish("b", package)
    store.publish("a", package)
    open_blobs(place).write("half/1/model.json", b"{}")
    assert store.names() == ["a", "b"]


def test_aliases_and_their_history(store: ModelStore, package: Path) -> None:
    for _ in range(2):
        store.publish("reviews", package)
    promote(store, "1")
    promote(store, "1")
    promote(store, "2", "challenger")
    promote(store, "2")
    store.set_alias("reviews", "challenger", None, by="tester", reason="gone")
    index = store.index("reviews")
    assert index.aliases == {"champion": "2"}
    assert [(c.alias, c.version, c.previous) for c in index.history] == [
        ("champion", "1", None),
        ("challenger", "2", None),
        ("champion", "2", "1"),
        ("challenger", None, "2"),
    ]
    assert {(c.by, c.rollback) for c in index.history} == {("tester", False)}
    assert index.history[-1].reason == "gone"
    assert index.history[0].at.endswith("+00:00")
    assert store.resolve("reviews") == store.resolve("reviews@champion") == ("reviews", "2")
    assert store.resolve("reviews@1") == ("reviews", "1")


def test_what_is_not_there_is_said_with_what_there_is(store: ModelStore, package: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no model 'reviews' in .*; nothing was published there yet"):
        store.fetch("reviews")
    assert store.index("reviews", missing_ok=True) == Index()
    store.publish("reviews", package)
    store.publish("complaints", package)
    with pytest.raises(ModelNotFoundError, match=r"no model 'review' in .*complaints, reviews; did you mean 'reviews'"):
        store.index("review")
    with pytest.raises(ModelNotFoundError, match="no model 'absent'"):
        store.fingerprint("absent")
    with pytest.raises(ModelNotFoundError, match=r"has no alias 'champion'; allowed: none. Versions: 1"):
        store.resolve("reviews")
    promote(store, "1")
    with pytest.raises(ModelNotFoundError, match="no alias 'champoin'; allowed: champion; did you mean 'champion'"):
        store.resolve("reviews@champoin")
    for use in (
        lambda: store.resolve("reviews@7"),
        lambda: promote(store, "7"),
        lambda: store.delete("reviews", "7"),
    ):
        with pytest.raises(ModelNotFoundError, match="has no version '7'; allowed: 1"):
            use()
    with pytest.raises(ModelNotFoundError, match="no model 'absent'"):
        store.rollback("absent", by="x", reason="y")
    assert store.names() == ["complaints", "reviews"]


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "/etc", ".hidden", "-x", "a\n", "a b", "x" * 65, "a\0"])
def test_names_are_checked_before_they_touch_a_path(tmp_path: Path, package: Path, name: str) -> None:
    store = ModelStore(str(tmp_path / "deep" / "store"))
    with pytest.raises(StoreError, match="cannot be the name of a model"):
        store.publish(name, package)
    for use in (store.index, store.fingerprint, store.resolve, store.fetch):
        with pytest.raises(ModelNotFoundError, match="cannot be the name of a model"):
            use(name)
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("alias", ["", "3", "../x", "a/b", "a@b", "a\n"])
def test_aliases_are_checked(tmp_path: Path, package: Path, alias: str) -> None:
    store = ModelStore(str(tmp_path / "store"))
    store.publish("reviews", package)
    with pytest.raises(StoreError, match="cannot be the name of an alias"):
        promote(store, "1", alias)
    for which in ("1/../1", "01", "1 ", "../1", "x" * 65):
        with pytest.raises(ModelNotFoundError):
            store.fetch(f"reviews@{which}")


def test_the_fingerprint_changes_with_the_index_only(store: ModelStore, package: Path) -> None:
    store.publish("reviews", package)
    first = store.fingerprint("reviews")
    assert store.fingerprint("reviews") == first
    promote(store, "1")
    second = store.fingerprint("reviews")
    assert second != first
    promote(store, "1")
    assert store.fingerprint("reviews") == second


# --- rollback


def test_rollback_walks_back_and_passes_over_what_was_deleted(store: ModelStore, package: Path) -> None:
    for _ in range(4):
        store.publish("reviews", package)
    with pytest.raises(
        StoreError, match=r"no earlier champion .*champion now: none\); set one of the versions: 1, 2, 3, 4"
    ):
        store.rollback("reviews", by="tester", reason="none")
    for version in "1234":
        promote(store, version)
    store.delete("reviews", "3")
    assert store.rollback("reviews", by="tester", reason="bad") == "2"
    assert store.resolve("reviews") == ("reviews", "2")
    assert store.rollback("reviews", by="tester", reason="worse") == "1"
    with pytest.raises(StoreError, match="no earlier champion"):
        store.rollback("reviews", by="tester", reason="end")
    last = store.index("reviews").history[-1]
    assert (last.version, last.previous, last.rollback, last.reason) == ("1", "2", True, "worse")


def test_rollback_after_a_new_promotion_returns_to_the_one_rolled_back_to(store: ModelStore, package: Path) -> None:
    for version in "123":
        store.publish("reviews", package)
        promote(store, version)
    store.rollback("reviews", by="t", reason="r")
    promote(store, "3")
    assert store.rollback("reviews", by="t", reason="r") == "2"


def test_rollback_after_the_champion_was_taken_away_restores_it(store: ModelStore, package: Path) -> None:
    store.publish("reviews", package)
    promote(store, "1")
    store.set_alias("reviews", CHAMPION, None, by="t", reason="r")
    assert store.rollback("reviews", by="t", reason="r") == "1"


def test_an_alias_is_moved_from_where_it_was_believed_to_be_and_the_same_again_is_no_conflict(
    store: ModelStore, package: Path
) -> None:
    for _ in range(3):
        store.publish("reviews", package)
    promote(store, "1")
    for believed in ("2", None):
        with pytest.raises(ConflictError, match=f"is at version 1 now, not at {believed}"):
            store.set_alias("reviews", CHAMPION, "3", by="t", reason="r", instead_of=believed)
    for _ in range(2):
        store.set_alias("reviews", CHAMPION, "2", by="t", reason="r", instead_of="1")
    assert [change.version for change in store.index("reviews").history] == ["1", "2"]


INFO = VersionInfo(created_at="2026", family="f", candidate="c", size_bytes=1, sha256="0")


@settings(max_examples=60)
@given(st.lists(st.sampled_from(["1", "2", "3", "4", "back"]), max_size=12), st.sets(st.sampled_from("1234")))
def test_rollback_always_finds_another_former_champion_that_exists(steps: list[str], gone: set[str]) -> None:
    index = Index(versions=dict.fromkeys("1234", INFO))
    for step in steps:
        version = index.previous_champion() if step == "back" else step
        if version is not None:
            index = index.with_alias(CHAMPION, version, by="t", reason="r", rollback=step == "back")
    now = index.aliases.get(CHAMPION)
    for version in gone - {now}:
        index = index.without_version(version)
    before = {change.version for change in index.history}
    target = index.previous_champion()
    if target is not None:
        assert target != now
        assert target in before & index.versions.keys()
    # As many rollbacks as there were promotions always come to an end.
    for _ in range(len(index.history) + 1):
        target = index.previous_champion()
        if target is None:
            break
        index = index.with_alias(CHAMPION, target, by="t", reason="r", rollback=True)
    assert index.previous_champion() is None


# --- deleting


def test_a_version_in_use_is_not_deleted_and_a_number_not_used_twice(
    store: ModelStore, package: Path, place: str
) -> None:
    for _ in range(2):
        store.publish("reviews", package)
    promote(store, "2")
    promote(store, "2", "challenger")
    for dry_run in (True, False):
        with pytest.raises(StoreError, match="version 2 of 'reviews' is its challenger and champion and stays"):
            store.delete("reviews", "2", dry_run=dry_run)
    promote(store, "1")
    promote(store, "1", "challenger")
    store.delete("reviews", "2", dry_run=True)
    assert list(store.index("reviews").versions) == ["1", "2"]
    store.delete("reviews", "2")
    assert list(store.index("reviews").versions) == ["1"]
    assert open_blobs(place).list("reviews/2") == []
    with pytest.raises(ModelNotFoundError):
        store.fetch("reviews@2")
    assert store.publish("reviews", package) == "3"


# --- damage


def test_a_verified_package_that_is_gone_is_not_given_out(store: ModelStore, package: Path) -> None:
    store.publish("reviews", package)
    folder = store.fetch("reviews@1")
    shutil.rmtree(folder)
    if folder.is_relative_to(store.place):
        with pytest.raises(PackageError, match=r"model\.json"):
            store.fetch("reviews@1")
    else:
        assert verify_package(store.fetch("reviews@1")).version == "1"


def test_a_damaged_package_is_not_published(store: ModelStore, package: Path) -> None:
    (package / "deep" / "weights.npz").write_bytes(b"weighte")
    with pytest.raises(PackageError, match=r"deep/weights.npz"):
        store.publish("reviews", package)
    assert store.names() == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format_version": 2}', b'{"later": 1}', b'{"versions": {"1": {}}}']
)
def test_a_damaged_index_is_said(store: ModelStore, place: str, content: bytes) -> None:
    open_blobs(place).write("reviews/index.json", content)
    for use in (store.index, store.fetch):
        with pytest.raises(StoreError, match=r"reviews/index.json in .* is damaged or of a later format"):
            use("reviews")
    assert open_blobs(place).read("reviews/index.json").data == content


def test_a_damaged_published_package_is_not_fetched(store: ModelStore, package: Path, place: str) -> None:
    for _ in range(3):
        store.publish("reviews", package)
    blobs = open_blobs(place)
    blobs.write("reviews/1/deep/weights.npz", b"weighte")
    blobs.write("reviews/2/extra", b"x")
    blobs.write("reviews/3/model.json", blobs.read("reviews/1/model.json").data)
    for version, match in (("1", "deep/weights.npz"), ("2", "extra"), ("3", "not the one that was published")):
        with pytest.raises(PackageError, match=match):
            store.fetch(f"reviews@{version}")
    blobs.delete("reviews/3/model.json")
    with pytest.raises(PackageError, match=r"model.json cannot be read"):
        store.fetch("reviews@3")


def test_a_local_package_is_verified_once_in_a_process(tmp_path: Path, package: Path) -> None:
    store = ModelStore(str(tmp_path / "store"))
    store.publish("reviews", package)
    folder = store.fetch("reviews@1")
    assert folder == tmp_path / "store" / "reviews" / "1"
    (folder / "deep" / "weights.npz").write_bytes(b"weighte")
    assert store.fetch("reviews@1") == folder
    code = f"from tamiz.store import ModelStore; ModelStore({str(tmp_path / 'store')!r}).fetch('reviews@1')"
    done = run(code, check=False)
    assert done.returncode == 1
    assert "PackageError" in done.stderr


def test_a_store_that_cannot_be_written_is_read(tmp_path: Path, package: Path) -> None:
    store = ModelStore(str(tmp_path / "store"))
    store.publish("reviews", package)
    promote(store, "1")
    shutil.rmtree(tmp_path / "store" / ".tamiz")
    reader = ModelStore(str(tmp_path / "store"))
    reader.fetch("reviews")
    reader.fingerprint("reviews")
    assert reader.names() == ["reviews"]
    assert not (tmp_path / "store" / ".tamiz").exists()


# --- cache of S3


def test_the_cache_is_by_hash_verified_and_repaired(s3_place: str, tmp_path: Path, package: Path) -> None:
    cache = tmp_path / "cache"
    store = ModelStore(s3_place, cache=cache)
    store.publish("reviews", package)
    folder = store.fetch("reviews@1")
    assert folder == cache / store.index("reviews").versions["1"].sha256
    open_blobs(s3_place).delete("reviews/1/deep/weights.npz")
    assert ModelStore(s3_place, cache=cache).fetch("reviews@1") == folder
    other = shutil.copytree(cache, tmp_path / "cache2")
    assert ModelStore(s3_place, cache=other).fetch("reviews@1") == other / folder.name
    damaged = shutil.copytree(cache, tmp_path / "cache3")
    (damaged / folder.name / "deep" / "weights.npz").write_bytes(b"x")
    with pytest.raises(PackageError, match="is missing"):
        ModelStore(s3_place, cache=damaged).fetch("reviews@1")
    assert list(damaged.iterdir()) == []
    open_blobs(s3_place).write("reviews/1/deep/weights.npz", b"weights")
    verify_package(ModelStore(s3_place, cache=damaged).fetch("reviews@1"))
    assert [path.name for path in damaged.iterdir()] == [folder.name]


def test_a_cache_that_cannot_be_written_is_said(s3_place: str, tmp_path: Path, package: Path) -> None:
    (tmp_path / "file").write_text("x")
    store = ModelStore(s3_place, cache=tmp_path / "file")
    store.publish("reviews", package)
    with pytest.raises(StoreError, match=r"the cache .*file for models cannot be used: .*; or give another folder"):
        store.fetch("reviews@1")


def test_many_fetch_at_once_into_one_cache(s3_place: str, tmp_path: Path, package: Path) -> None:
    ModelStore(s3_place).publish("reviews", package)
    start = threading.Barrier(4)

    def fetch(_: int) -> Path:
        store = ModelStore(s3_place, cache=tmp_path / "cache")
        start.wait(10)
        return store.fetch("reviews@1")

    with ThreadPoolExecutor(4) as pool:
        [folder] = set(pool.map(fetch, range(4)))
    verify_package(folder)
    assert list((tmp_path / "cache").iterdir()) == [folder]


# --- many at once


def test_of_many_publishers_and_promoters_nothing_is_lost(place: str, tmp_path: Path) -> None:
    threads, each = 8, 1 if "://" in place else 3
    packages = [make_package(tmp_path / f"p{i}", content=f"weights of {i}".encode()) for i in range(threads)]
    start = threading.Barrier(threads)

    def work(i: int) -> list[str]:
        store = ModelStore(place, cache=tmp_path / "cache")
        start.wait(10)
        versions = []
        for _ in range(each):
            version = store.publish("reviews", packages[i])
            store.set_alias("reviews", f"alias-{i}", version, by=str(i), reason="test")
            versions.append(version)
        return versions

    with ThreadPoolExecutor(threads) as pool:
        published = list(pool.map(work, range(threads)))
    store = ModelStore(place, cache=tmp_path / "cache")
    index = store.index("reviews")
    every = sorted((version for versions in published for version in versions), key=int)
    assert every == [str(n) for n in range(1, threads * each + 1)]
    assert sorted(index.versions, key=int) == every
    assert index.aliases == {f"alias-{i}": published[i][-1] for i in range(threads)}
    assert len(index.history) == threads * each
    for i in range(threads):
        weights = store.fetch(f"reviews@{published[i][0]}") / "deep" / "weights.npz"
        assert weights.read_bytes() == f"weights of {i}".encode()


WORKER = """
from pathlib import Path
from tamiz.store import ModelStore
store = ModelStore({place!r}, cache=Path({cache!r}))
for _ in range(3):
    version = store.publish("reviews", Path({package!r}))
    store.set_alias("reviews", "alias-{i}", version, by="{i}", reason="test")
    store.fetch("reviews@" + version)
"""


def run(code: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert not check or done.returncode == 0, done.stderr
    return done


def test_two_processes_lose_nothing(place: str, tmp_path: Path, package: Path) -> None:
    codes = [WORKER.format(place=place, cache=str(tmp_path / "cache"), package=str(package), i=i) for i in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, codes))
    index = ModelStore(place).index("reviews")
    assert sorted(index.versions, key=int) == [str(n) for n in range(1, 7)]
    assert len(index.history) == 6
    assert sorted(index.aliases) == ["alias-0", "alias-1"]


KILLED = """
import os, signal, sys
from pathlib import Path
from tamiz.store import ModelStore
opened = []
def die_at_the_second_reading(event, args):
    # The first one compares hashes; the second one uploads, after the number was claimed.
    if event == "open" and str(args[0]).endswith("package/deep/weights.npz"):
        opened.append(args[0])
        if len(opened) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die_at_the_second_reading)
ModelStore({place!r}).publish("reviews", Path({package!r}))
"""


def test_a_killed_publish_leaves_an_orphan_that_nobody_meets(place: str, package: Path, tmp_path: Path) -> None:
    store = ModelStore(place, cache=tmp_path / "cache")
    done = run(KILLED.format(place=place, package=str(package)), check=False)
    assert done.returncode == -signal.SIGKILL
    assert open_blobs(place).list("reviews/1") == [f"reviews/1/{MANIFEST_NAME}"]
    assert store.names() == []
    with pytest.raises(ModelNotFoundError, match="no model 'reviews'"):
        store.fetch("reviews@1")
    assert store.publish("reviews", package) == "2"
    assert list(store.index("reviews").versions) == ["2"]
    verify_package(store.fetch("reviews@2"))


def test_a_publish_that_fails_half_way_takes_back_what_it_wrote(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    package = make_package(tmp_path / "package", content=bytes(100_000))
    store = ModelStore(str(tmp_path / "store"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(StoreError, match=r"weights.npz could not be written"):
            store.publish("reviews", package)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert open_blobs(str(tmp_path / "store")).list() == []
    assert store.publish("reviews", package) == "1"


def test_serving_imports_stay_light() -> None:
    code = (
        "import sys, json, tamiz.store, tamiz.package, tamiz.blobs; tamiz.store.ModelStore('x');"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    loaded = set(json.loads(run(code).stdout))
    heavy = {"sklearn", "scipy", "polars", "pyarrow", "deltalake", "mlflow", "boto3", "botocore", "fastapi", "pandas"}
    assert not loaded & heavy


def test_the_index_refuses_what_it_does_not_know() -> None:
    change = AliasChange(alias="a", version="1", previous=None, at="2026", by="b", reason="r")
    index = Index(versions={"1": INFO}, aliases={"a": "1"}, history=[change], last_version=1)
    assert Index.model_validate_json(index.model_dump_json()) == index
    assert Index(versions={str(n): INFO for n in range(1, 31)}).listed(3) == "27 older and 28, 29, 30"


def test_the_public_names_are_there() -> None:
    assert all(hasattr(tamiz.store, name) for name in tamiz.store.__all__)
