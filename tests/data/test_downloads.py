"""Downloads from a real web server: resumed, conditional, pinned."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
from collections.abc import Iterator

import pytest

from tamiz.data.downloads import download
from tamiz.errors import ConfigError, SourceError
from tests.data.web import CHANGED, Web, serving

DATA = hashlib.shake_256(b"a file").digest(900_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as found:
        found.files["/data.zip"] = DATA
        yield found


def test_what_arrived_is_noted(web, tmp_path):
    steps = []
    found = download(f"{web.url}/data.zip", tmp_path / "new" / "data.zip", progress=lambda *step: steps.append(step))
    assert found.path.read_bytes() == DATA
    assert (found.sha256, found.size_bytes, found.last_modified) == (SHA256, len(DATA), CHANGED)
    assert json.loads((tmp_path / "new" / "data.zip.json").read_text()) == found.to_dict()
    assert sorted(path.name for path in found.path.parent.iterdir()) == ["data.zip", "data.zip.json"]
    assert steps[-1] == ("download data.zip", len(DATA), len(DATA))


def test_a_break_is_mended_in_the_same_call(web, tmp_path):
    web.breaks = [300_000, 200_000]
    assert download(f"{web.url}/data.zip", tmp_path / "data.zip").path.read_bytes() == DATA
    assert web.answered == [200, 206, 206]
    assert [asked for _, asked, _ in web.asked] == [None, "bytes=300000-", "bytes=500000-"]
    assert {tag for _, _, tag in web.asked[1:]} == {web.tag("/data.zip")}


def test_a_break_without_a_byte_is_reported_and_mended_by_the_next_call(web, tmp_path):
    web.breaks = [300_000, 0]
    with pytest.raises(SourceError, match=r"broke off after 300000 of 900000 bytes\. Run again"):
        download(f"{web.url}/data.zip", tmp_path / "data.zip")
    assert not (tmp_path / "data.zip").exists()
    web.asked.clear()
    assert download(f"{web.url}/data.zip", tmp_path / "data.zip").sha256 == SHA256
    assert [asked for _, asked, _ in web.asked] == ["bytes=300000-"]


@pytest.mark.parametrize(("etags", "dated", "kept"), [(True, True, True), (False, True, True), (False, False, False)])
def test_a_part_of_another_state_is_never_continued(web, tmp_path, etags, dated, kept):
    web.etags, web.dated, web.breaks = etags, dated, [300_000, 0]
    with pytest.raises(SourceError):
        download(f"{web.url}/data.zip", tmp_path / "data.zip")
    assert (web.asked[-1][1] is not None) == kept
    web.files["/data.zip"], web.breaks = DATA[::-1], []
    if etags:
        assert download(f"{web.url}/data.zip", tmp_path / "data.zip").path.read_bytes() == DATA[::-1]


def test_a_server_without_ranges_sends_the_whole_again(web, tmp_path):
    web.ranges, web.breaks = False, [300_000]
    assert download(f"{web.url}/data.zip", tmp_path / "data.zip").sha256 == SHA256
    assert web.answered == [200, 200]


@pytest.mark.parametrize("etags", [True, False])
def test_a_file_is_asked_for_again_only_if_it_changed(web, tmp_path, etags):
    web.etags = etags
    first = download(f"{web.url}/data.zip", tmp_path / "data.zip")
    assert download(f"{web.url}/data.zip", tmp_path / "data.zip") == first
    assert web.answered == [200, 304]
    (tmp_path / "data.zip").write_bytes(b"damaged")
    assert download(f"{web.url}/data.zip", tmp_path / "data.zip") == first
    if etags:
        web.files["/data.zip"] = b"newer"
        assert download(f"{web.url}/data.zip", tmp_path / "data.zip").path.read_bytes() == b"newer"


def test_a_pinned_file_is_not_asked_for_again(web, tmp_path):
    for _ in range(2):
        assert download(f"{web.url}/data.zip", tmp_path / "data.zip", sha256=SHA256).size_bytes == len(DATA)
    assert web.answered == [200]


def test_other_bytes_than_the_pinned_ones_are_refused(web, tmp_path):
    with pytest.raises(SourceError, match=f"its SHA-256 is {SHA256}, expected 000"):
        download(f"{web.url}/data.zip", tmp_path / "data.zip", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_was_cut_off_after_its_last_byte_is_whole(web, tmp_path):
    web.breaks = [300_000, 0]
    with pytest.raises(SourceError):
        download(f"{web.url}/data.zip", tmp_path / "data.zip")
    (tmp_path / "data.zip.part").write_bytes(DATA)
    web.answered.clear()
    found = download(f"{web.url}/data.zip", tmp_path / "data.zip")
    assert (found.sha256, found.etag, web.answered) == (SHA256, web.tag("/data.zip"), [416])


def test_a_name_and_password_in_the_address_are_sent_and_not_noted(web, tmp_path):
    found = download(web.url.replace("://", "://me:s%20cret@") + "/data.zip", tmp_path / "data.zip")
    assert web.credentials == ["Basic " + base64.b64encode(b"me:s cret").decode()]
    assert "cret" not in found.url + (tmp_path / "data.zip.json").read_text()


def test_a_part_that_is_longer_than_the_file_is_dropped(web, tmp_path):
    web.breaks = [300_000, 0]
    with pytest.raises(SourceError):
        download(f"{web.url}/data.zip", tmp_path / "data.zip")
    with (tmp_path / "data.zip.part").open("ab") as part:
        part.write(DATA)
    assert download(f"{web.url}/data.zip", tmp_path / "data.zip").sha256 == SHA256
    assert web.answered[-2:] == [416, 200]


def test_addresses_are_checked(web, tmp_path):
    with pytest.raises(ConfigError, match="not a web address"):
        download("file:///etc/hosts", tmp_path / "hosts")
    with pytest.raises(SourceError, match=r"/none\.zip answered 404"):
        download(f"{web.url}/none.zip", tmp_path / "none.zip")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(SourceError, match="cannot be reached") as caught:
            download(f"http://me:secret@127.0.0.1:{free.getsockname()[1]}/x", tmp_path / "x")
    assert "secret" not in str(caught.value)
