"""Packages whose checksums are right and whose contents are not: refused as packages, whatever is wrong in them."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tamiz.classifiers import base
from tamiz.errors import PackageError, TamizError
from tamiz.model import Model
from tamiz.serving.served import load_package, warm_up
from tests.models import model_of

FAMILIES = {
    "linear": {},
    "nb_stack": {},
    "prior": {},
    "boosting": {"rounds": 3, "num_threads": 1},
    "ensemble": {"members": [{"family": "linear"}, {"family": "prior"}]},
}


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def npy(value) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


def npz(**arrays: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in arrays.items():
            made.writestr(f"{name}.npy", content)
    return file.getvalue()


def header_of(shape: str) -> bytes:
    """An array that claims a shape and holds nothing of it."""
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def contents(path: Path):
    """Give what to put in a file's place."""
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    yield "empty", b""
    yield "cut off", data[: len(data) // 2]
    yield "zeros", bytes(len(data))
    yield "random", rng.bytes(500)
    yield "object", b"{}"
    yield "array", b"[]"
    yield "null", b"null"
    yield "deep", b"[" * 100_000
    yield "not UTF-8", b"\xff\xfe\x00"
    yield "pickle", pickle.dumps(Evil())
    for number in range(3):
        changed = bytearray(data)
        for place in rng.integers(0, max(len(data), 1), 5).tolist():
            changed[place] ^= 0x41
        yield f"changed {number}", bytes(changed)
    if path.suffix == ".npz":
        names = list(np.load(path).files)
        yield "object array", npz(**{name: npy(np.array([Evil()], object)) for name in names})
        yield "wrong shapes", npz(**{name: npy(np.zeros((2, 2, 2))) for name in names})
        yield "words for numbers", npz(**{name: npy(np.array(["a", "b"])) for name in names})
        yield "nothing in it", npz(**{name: npy(np.zeros(0)) for name in names})
        yield "no arrays", npz()
        yield "endless shape", npz(**{name: header_of("(1000000000000000,)") for name in names})
        yield "negative shape", npz(**{name: header_of("(-5,)") for name in names})


def replace(folder: Path, name: str, data: bytes) -> None:
    """Put `data` in a file's place and make the checksum right."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "model.json").read_text())
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    (folder / "model.json").write_text(json.dumps(manifest))


@pytest.mark.filterwarnings("ignore")  # numbers out of range may warn before they are refused
@pytest.mark.parametrize("family", FAMILIES)
def test_a_package_with_wrong_contents_is_refused_or_answers(tmp_path, family):
    """As the server takes it over: it loads and answers a text with probabilities, or it is refused as a package."""
    whole = tmp_path / "whole"
    model_of(family, **FAMILIES[family]).save(whole)
    names = [path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()]
    refused = 0
    for name in sorted(set(names) - {"model.json", "model.md"}):
        for about, data in contents(whole / name):
            folder = tmp_path / "changed"
            shutil.copytree(whole, folder)
            replace(folder, name, data)
            try:
                warm_up(load_package(folder))
            except TamizError:
                refused += 1
            except Exception as error:
                raise AssertionError(f"{name}, {about}: {type(error).__name__}: {error}") from error
            finally:
                shutil.rmtree(folder)
    assert refused >= 10


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[]", b"[" * 100_000, b"\xff", b'{"format": 1}', b"9" * 5000])
def test_a_description_that_is_none_is_refused(tmp_path, content):
    model_of("prior").save(tmp_path / "package")
    (tmp_path / "package" / "model.json").write_bytes(content)
    with pytest.raises(PackageError):
        Model.load(tmp_path / "package")


@pytest.mark.parametrize(
    "name", ["../../outside", "/etc/passwd", "a/../../b", "..", "C:\\x", "a\x00b", "", "a//b", "./a"]
)
def test_a_description_that_names_files_elsewhere_is_refused(tmp_path, name):
    folder = tmp_path / "package"
    model_of("prior").save(folder)
    manifest = json.loads((folder / "model.json").read_text())
    manifest["files"][name] = {"sha256": "0" * 64, "size_bytes": 0}
    (folder / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(PackageError):
        Model.load(folder)


def test_weights_that_unpack_to_far_more_than_they_are_are_refused_unread(tmp_path):
    path = tmp_path / "weights.npz"
    path.write_bytes(npz(coef=npy(np.zeros(9_000_000))))
    assert path.stat().st_size < 1_000_000
    with pytest.raises(PackageError, match="unpack"):
        base.read_arrays(path)


def test_weights_of_zeros_of_an_ordinary_size_are_read(tmp_path):
    np.savez_compressed(tmp_path / "weights.npz", coef=np.zeros(1_000_000))
    assert base.read_arrays(tmp_path / "weights.npz")["coef"].shape == (1_000_000,)
