"""Weights in 8 bits: writing, reading back, and every way by which such a model is found."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tamiz.encoders import catalogue, int8, known, own
from tamiz.encoders.embedding import Embedder
from tamiz.encoders.find import find
from tamiz.encoders.memory import ready
from tamiz.errors import SourceError
from tamiz.package_index import PackageFile
from tests.encoders.files import package
from tests.tiny_bert import WORDS, tiny_bert


@pytest.fixture
def folder(tmp_path, cached):
    """A tiny encoder in 8 bits."""
    full, made = tiny_bert(tmp_path / "full"), tmp_path / "small"
    made.mkdir()
    for name in int8.FILES[:2]:
        (made / name).write_bytes((full / name).read_bytes())
    int8.write(load_file(full / "model.safetensors"), made / int8.FILE)
    return made


def release_of(folder) -> own.Release:
    files = [(name, (folder / name).read_bytes()) for name in int8.FILES]
    about = tuple((name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in files)
    return own.Release("1.0", PackageFile("tinyenc", "tinyenc-1.0-py3-none-any.whl", "", 0), about)


def embed(weights) -> np.ndarray:
    return Embedder(ready(weights, "fp32"), prefix="", max_length=32)([f"{a} {b}" for a, b in pairs()])


def pairs():
    words = WORDS.split()
    return zip(words, reversed(words), strict=True)


def test_a_row_is_off_by_half_a_step_at_most(tmp_path):
    values = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    values[1] = 0
    values[2] *= 1e6
    bias = np.array([1e-9, 3.3], np.float32)
    int8.write({"w": values, "b": bias}, tmp_path / int8.FILE)
    for name in int8.FILES[:2]:
        (tmp_path / name).write_text("{}")
    target = tmp_path / "out"
    target.mkdir()
    int8.convert([tmp_path / name for name in int8.FILES], target)
    found = load_file(target / "model.safetensors")
    assert np.array_equal(found["b"], bias)
    assert np.all(np.abs(found["w"] - values) <= np.abs(values).max(axis=1, keepdims=True) / 254 * 1.001)
    assert not found["w"][1].any()


def test_numbers_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="tensor w"):
        int8.write({"w": np.array([[1, np.nan]], np.float32)}, tmp_path / int8.FILE)


def test_a_folder_answers_like_its_full_weights_at_a_quarter_of_the_size(folder, cached):
    full, small = find(str(folder.with_name("full"))), find(str(folder))
    cosines = (embed(full) * embed(small)).sum(axis=1)
    assert cosines.min() > 0.999
    assert (folder / int8.FILE).stat().st_size < 0.4 * (full.folder / "model.safetensors").stat().st_size
    assert small.folder.parent == cached
    assert find(str(folder)) == small


def test_a_damaged_conversion_of_a_folder_is_made_anew(folder):
    first = find(str(folder))
    (first.folder / "model.safetensors").write_bytes(b"")
    assert find(str(folder)) == first


def test_an_installed_distribution_is_converted_once(folder, site, cached, monkeypatch):
    entry = replace(catalogue.own_entry(own.OWN["tamiz-zero-shot"], release_of(folder)), name="tiny")
    monkeypatch.setitem(catalogue.CATALOGUE, "tiny", entry)
    package(site, {f"tamiz_zero_shot/{name}": (folder / name).read_bytes() for name in int8.FILES})
    found = find("tiny", offline=True)
    assert found.folder.parent == cached
    place = known.whereabouts(entry)
    assert place is not None
    assert place.holder == "cache"
    assert np.allclose(embed(found), embed(find(str(folder))))
    (site / "tamiz_zero_shot" / int8.FILE).unlink()
    assert find("tiny", offline=True) == found


@pytest.mark.parametrize("kind", ["cut", "foreign", "other types", "one scale", "no json"])
def test_what_is_damaged_is_refused(folder, kind):
    path = folder / int8.FILE
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif kind == "foreign":
        save_file({"w": np.ones((2, 2), np.float32)}, path)
    elif kind in ("other types", "one scale"):
        about, scales = {"format": "tamiz-int8", "version": "1"}, 3 if kind == "other types" else 1
        save_file({"w": np.ones((2, 2), np.int8), "w.scale": np.ones(scales, np.float32)}, path, metadata=about)
    else:
        (folder / "config.json").write_text("{")
    with pytest.raises(SourceError, match="damaged"):
        find(str(folder))


@pytest.mark.parametrize("one", own.OWN.values(), ids=list(own.OWN))
def test_the_list_names_an_encoder_only_where_a_release_is_recorded(one, tmp_path):
    assert own.read_release(one, tmp_path / "none.json") is None
    assert (one.name in catalogue.CATALOGUE) == one.record.exists()
    about = {
        "version": "0.1.0",
        "wheel": {"filename": "tamiz_zero_shot-0.1.0-py3-none-any.whl", "sha256": "ab", "size_bytes": 3},
        "files": [{"name": int8.FILE, "sha256": "cd", "size_bytes": 2}],
    }
    (tmp_path / "some.json").write_text(json.dumps(about))
    release = own.read_release(one, tmp_path / "some.json")
    assert release is not None
    entry = catalogue.own_entry(one, release)
    assert entry.requirement == f"{one.name}==0.1.0"
    assert entry.parts[0].path == f"{one.folder}/model-int8.safetensors"
