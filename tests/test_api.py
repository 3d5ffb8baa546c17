"""The Python interface: `tamiz.load` and `tamiz.run`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tamiz
from tamiz.errors import ConfigError, ModelNotFoundError, PackageError
from tamiz.package import MANIFEST_NAME, pack
from tamiz.store import ModelStore
from tests.models import linear_model, model_of
from tests.projects import write_project

TEXTS = ["bread and cheese", "a loan of the bank", ""]


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packages")
    linear_model().save(folder / "linear")
    model_of("prior").save(folder / "prior")
    return folder / "linear"


@pytest.fixture
def store(tmp_path, package) -> str:
    """A store with version 1 (linear, champion) and version 2 (prior)."""
    store = ModelStore(str(tmp_path / "models"))
    for folder in (package, package.with_name("prior")):
        store.publish("topics", folder)
    store.set_alias("topics", "champion", "1", by="test", reason="test")
    return store.place


def same(model: tamiz.Model) -> bool:
    return np.array_equal(model.predict_proba(TEXTS), linear_model().predict_proba(TEXTS))


def test_a_package_folder_is_loaded(package):
    assert same(tamiz.load(package))
    assert same(tamiz.load(str(package)))


def test_a_packed_package_is_loaded(package, tmp_path):
    archive = pack(package, tmp_path / "model.tar.gz")
    assert same(tamiz.load(archive))


@pytest.mark.parametrize(("which", "version"), [("", "1"), ("@champion", "1"), ("@1", "1"), ("@2", "2")])
def test_a_model_of_a_store_is_loaded(store, monkeypatch, which, version):
    monkeypatch.delenv("TAMIZ_STORE", raising=False)
    by_argument = tamiz.load(f"topics{which}", store=store)
    by_path = tamiz.load(f"{store}/topics{which}")
    monkeypatch.setenv("TAMIZ_STORE", store)
    by_variable = tamiz.load(f"topics{which}")
    for model in (by_argument, by_path, by_variable):
        assert (model.name, model.version) == ("topics", version)
        assert same(model) == (version == "1")


def test_the_usual_store_is_models_in_the_present_folder(store, monkeypatch):
    monkeypatch.delenv("TAMIZ_STORE", raising=False)
    monkeypatch.chdir(Path(store).parent)
    assert tamiz.load("topics").version == "1"


def test_a_model_of_a_store_on_s3_is_kept_in_the_cache(s3_place, package, monkeypatch, tmp_path):
    monkeypatch.setenv("TAMIZ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    store = ModelStore(s3_place)
    store.publish("topics", package)
    store.set_alias("topics", "champion", "1", by="test", reason="test")
    assert same(tamiz.load(f"{s3_place}/topics"))
    assert list((tmp_path / "cache").rglob(MANIFEST_NAME))
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        ("topcis", "did you mean 'topics'?"),
        ("topics@champoin", "did you mean 'champion'?"),
        ("topics@3", "no version '3'; allowed: 1, 2"),
        ("../topics", "letters, digits"),
        ("topics@", ""),
    ],
)
def test_an_unknown_model_is_refused_with_what_there_is(store, ref, said):
    if ref == "topics@":  # nothing after the sign means the champion
        assert tamiz.load(ref, store=store).version == "1"
        return
    with pytest.raises(ModelNotFoundError) as caught:
        tamiz.load(ref, store=store)
    assert said in str(caught.value)


def test_an_empty_place_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TAMIZ_STORE", raising=False)
    with pytest.raises(ModelNotFoundError, match=r"no model 'topics' in .*models"):
        tamiz.load("topics")


def test_a_damaged_package_is_refused_wherever_it_stands(package, store, tmp_path):
    weights = next(p.name for p in package.iterdir() if p.suffix == ".npz")

    def damage(folder: Path) -> None:
        data = bytearray((folder / weights).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / weights).write_bytes(data)

    linear_model().save(tmp_path / "package")
    damage(tmp_path / "package")
    with pytest.raises(PackageError, match=weights):
        tamiz.load(tmp_path / "package")
    damage(Path(store) / "topics" / "1")
    with pytest.raises(PackageError):
        tamiz.load("topics@1", store=store)
    assert tamiz.load("topics@2", store=store).version == "2"


def test_a_damaged_archive_is_refused(package, tmp_path):
    archive = pack(package, tmp_path / "model.tar.gz")
    whole = archive.read_bytes()
    for broken in (whole[:-100], b"", b"PK\x03\x04", whole[:50] + b"\0" * 20 + whole[70:]):
        archive.write_bytes(broken)
        with pytest.raises(PackageError):
            tamiz.load(archive)


@pytest.mark.slow
def test_a_project_is_run_by_its_path(tmp_path, monkeypatch):
    path = write_project(tmp_path, n=80)
    result = tamiz.run(path)
    assert (result.version, result.champion) == ("1", "1")
    assert tamiz.load(f"{tmp_path / 'models'}/topics").predict(["bread soup"])[0].label in ("food", "money", "sport")
    monkeypatch.chdir(tmp_path)
    assert set(tamiz.run().steps.values()) == {"skipped"}
    assert (tmp_path / "mlflow.db").exists()


def test_a_project_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="tamiz init"):
        tamiz.run(tmp_path)


def test_without_a_library_of_training_a_run_says_what_to_install(tmp_path):
    project = write_project(tmp_path)
    code = (
        "import sys, tamiz\n"
        "from tamiz.errors import MissingExtraError\n"
        "sys.modules['deltalake'] = None\n"
        "try:\n"
        f"    tamiz.run({str(project)!r})\n"
        "except MissingExtraError as error:\n"
        "    print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "'deltalake' is needed here and not installed. Install it with: pip install 'tamiz[train]'\n"
