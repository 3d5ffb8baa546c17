from __future__ import annotations

from pathlib import Path

import pytest

from tamiz.encoders.catalogue import CATALOGUE
from tests.encoders.files import e5_file, entry, hf_files, package


@pytest.fixture
def cached(tmp_path, monkeypatch) -> Path:
    """An empty cache; its folder of encoders."""
    monkeypatch.setenv("TAMIZ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "encoders"


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A folder where packages are found."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def tiny_e5(site, cached, monkeypatch) -> Path:
    """The catalogue's model `tiny`, a 4-bit file in an installed package; path of the file."""
    files = {"tinyenc/e5.bin": e5_file()}
    monkeypatch.setitem(CATALOGUE, "tiny", entry("e5-small", files))
    package(site, files)
    return site / "tinyenc" / "e5.bin"


@pytest.fixture
def tiny_hf(site, cached, monkeypatch) -> Path:
    """The catalogue's model `tiny`, a folder in an installed package; the folder."""
    files = {f"tinyenc/model/{name}": data for name, data in hf_files().items()}
    monkeypatch.setitem(CATALOGUE, "tiny", entry("minilm", files))
    package(site, files)
    return site / "tinyenc" / "model"
