from __future__ import annotations

import http.client
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import tamiz.blobs
from tamiz.blobs import Blobs, open_blobs
from tamiz.errors import BusyError, ConfigError, ConflictError, StoreError

ROOT = Path(__file__).parent.parent


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "local" else str(request.getfixturevalue("s3_place"))


@pytest.fixture
def blobs(place: str) -> Blobs:
    return open_blobs(place)


@pytest.fixture
def s3(s3_place: str) -> Blobs:
    return open_blobs(s3_place)


def put(s3_place: str, key: str, data: bytes) -> None:
    """Write past every check."""
    bucket, _, prefix = s3_place.removeprefix("s3://").partition("/")
    connection = http.client.HTTPConnection(os.environ["AWS_ENDPOINT_URL"].removeprefix("http://"))
    connection.request("PUT", f"/{bucket}/{prefix}/{key}", data, {"Authorization": "AWS testing:unchecked"})
    assert connection.getresponse().status == 200
    connection.close()


def test_what_was_written_is_read(blobs: Blobs) -> None:
    etag = blobs.write("a/b.json", b"one")
    assert blobs.read("a/b.json") == (b"one", etag)
    assert blobs.etag("a/b.json") == etag
    assert blobs.write("a/b.json", b"two") != etag
    assert blobs.read("a/b.json").data == b"two"
    assert blobs.etag("a/b.json") != etag
    assert blobs.exists("a/b.json")
    assert not blobs.exists("a")


def test_an_absent_object_is_a_key_error(blobs: Blobs) -> None:
    blobs.write("a/b", b"")
    for key in ("x", "a", "a/b/c"):
        with pytest.raises(KeyError, match=key):
            blobs.read(key)
        with pytest.raises(KeyError, match=key):
            blobs.etag(key)
        assert not blobs.exists(key)


def test_nothing_is_made_before_the_first_write(blobs: Blobs, place: str) -> None:
    assert blobs.list() == []
    assert blobs.folders() == []
    assert not blobs.exists("a")
    blobs.delete("a")
    assert "://" in place or not Path(place).exists()


def test_list_goes_by_folders_and_hides_what_is_reserved(blobs: Blobs) -> None:
    for key in ("a/x", "a/b/y", "ab/z", "top"):
        blobs.write(key, b"1")
    with blobs.lock("run", wait_s=0, owner="me"):
        assert blobs.list() == ["a/b/y", "a/x", "ab/z", "top"]
        assert blobs.folders() == ["a", "ab"]
    assert blobs.list("a") == blobs.list("a/") == ["a/b/y", "a/x"]
    assert blobs.folders("a") == ["b"]
    assert blobs.list("absent") == []
    assert blobs.folders("absent") == []


def test_objects_are_listed_over_several_pages(blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    for i in range(5):
        blobs.write(f"many/{i}/x", b"")
    assert blobs.list("many") == [f"many/{i}/x" for i in range(5)]
    assert blobs.folders("many") == [f"{i}" for i in range(5)]


def test_delete_is_idempotent_and_exact(blobs: Blobs) -> None:
    blobs.write("a/b/c", b"1")
    blobs.write("a/b2", b"1")
    blobs.delete("a/b/c")
    blobs.delete("a/b/c")
    assert blobs.list() == ["a/b2"]
    assert blobs.folders("a") == []


def test_if_absent_writes_once(blobs: Blobs) -> None:
    blobs.write("a", b"1", if_absent=True)
    with pytest.raises(ConflictError, match="a"):
        blobs.write("a", b"2", if_absent=True)
    assert blobs.read("a").data == b"1"


def test_if_match_refuses_a_changed_or_deleted_object(blobs: Blobs) -> None:
    first = blobs.write("a", b"1")
    second = blobs.write("a", b"2", if_match=first)
    with pytest.raises(ConflictError, match="meanwhile"):
        blobs.write("a", b"3", if_match=first)
    assert blobs.read("a") == (b"2", second)
    blobs.delete("a")
    with pytest.raises(ConflictError, match="meanwhile"):
        blobs.write("a", b"3", if_match=second)
    assert not blobs.exists("a")


def test_of_many_at_once_one_creates_and_none_is_lost(blobs: Blobs) -> None:
    blobs.write("count", b"0")

    def add(_: int) -> bool:
        try:
            blobs.write("mine", b"x", if_absent=True)
            created = True
        except ConflictError:
            created = False
        while True:
            data, etag = blobs.read("count")
            try:
                blobs.write("count", str(int(data) + 1).encode(), if_match=etag)
            except ConflictError:
                continue
            return created

    with ThreadPoolExecutor(4) as pool:
        created = list(pool.map(add, range(12)))
    assert sum(created) == 1
    assert blobs.read("count").data == b"12"


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "../a", "a/../../b", "a//b", ".", "a\\b", "a\0b", "a\nb", "C:/x", ".tamiz/tmp/x", "x" * 901]
)
def test_keys_that_lead_elsewhere_are_refused(blobs: Blobs, key: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("outside")
    uses: list[Callable[[], Any]] = [
        lambda: blobs.read(key),
        lambda: blobs.etag(key),
        lambda: blobs.write(key, b"x"),
        lambda: blobs.exists(key),
        lambda: blobs.delete(key),
        lambda: blobs.upload(source, key),
        lambda: blobs.lock(key, wait_s=0, owner="me").__enter__(),
    ]
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_text("x")
    if key not in ("a/",):
        for use in uses:
            with pytest.raises(StoreError, match="is not a valid key"):
                use()
    assert (tmp_path / "a").read_text() == "outside"


def test_a_folder_round_trip(blobs: Blobs, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "a").write_bytes(b"1")
    (source / "deep" / "b").write_bytes(bytes(9 * 2**20))
    (source / "skipped").write_bytes(b"3")
    blobs.upload(source, "m/1", skip={"skipped"})
    blobs.write("m/10/other", b"")
    assert blobs.list("m/1") == ["m/1/a", "m/1/deep/b"]
    blobs.download("m/1", tmp_path / "copy")
    assert (tmp_path / "copy" / "a").read_bytes() == b"1"
    assert (tmp_path / "copy" / "deep" / "b").read_bytes() == bytes(9 * 2**20)
    assert len(list((tmp_path / "copy").rglob("*"))) == 3


def test_links_are_not_uploaded(blobs: Blobs, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "x").symlink_to("/etc/hostname")
    with pytest.raises(StoreError, match="is a link"):
        blobs.upload(source, "m")


def test_a_download_that_the_disk_refuses_is_a_store_error(blobs: Blobs, tmp_path: Path) -> None:
    blobs.write("m/a", b"1")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="could not be written"):
        blobs.download("m", tmp_path / "file" / "inside")


def test_a_place_is_a_folder_or_on_s3() -> None:
    for place in ("gs://bucket/x", "s3:///x", "s3://UPPER/x", "s3://b_d/x", "https://example.org", ""):
        with pytest.raises(ConfigError, match="give a folder or s3://BUCKET/PREFIX"):
            open_blobs(place)
    with pytest.raises(StoreError, match="not a valid key"):
        open_blobs("s3://bucket/a/../b")
    assert open_blobs("s3://bucket/a/b/").place == "s3://bucket/a/b"
    assert open_blobs("s3://bucket").place == "s3://bucket"


def test_the_whole_bucket_is_a_place(s3_place: str) -> None:
    whole = open_blobs(s3_place.removesuffix("/base"))
    whole.write("base/x", b"1")
    assert whole.list() == ["base/x"]
    assert whole.folders() == ["base"]
    assert open_blobs(s3_place).list() == ["x"]


# --- local only


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x").write_text("secret")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "link").symlink_to(tmp_path / "outside")
    blobs = open_blobs(str(tmp_path / "store"))
    with pytest.raises(StoreError, match="leads out of"):
        blobs.read("link/x")
    with pytest.raises(StoreError, match="leads out of"):
        blobs.write("link/x", b"changed")
    assert (tmp_path / "outside" / "x").read_text() == "secret"


def test_a_write_that_the_disk_refuses_leaves_the_old_object(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    blobs = open_blobs(str(tmp_path))
    blobs.write("a", b"old")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a").write_bytes(bytes(5000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StoreError, match="could not be written: file too large"):
            blobs.write("a", bytes(5000))
        with pytest.raises(StoreError, match="could not be written: file too large"):
            blobs.upload(tmp_path / "src", "up")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert blobs.read("a").data == b"old"
    assert blobs.list("up") == []
    assert list((tmp_path / ".tamiz" / "tmp").iterdir()) == []


def test_what_a_killed_writer_left_is_removed_after_a_day(tmp_path: Path) -> None:
    blobs = open_blobs(str(tmp_path))
    blobs.write("a", b"1")
    old, new = tmp_path / ".tamiz" / "tmp" / "old", tmp_path / ".tamiz" / "tmp" / "new"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (0, 0))
    blobs.write("a", b"2")
    assert not old.exists()
    assert new.exists()


# --- S3 only


def test_a_bucket_that_is_not_there_is_named(s3_place: str) -> None:
    blobs = open_blobs("s3://no-such-bucket-here/base")
    with pytest.raises(
        StoreError, match=r"bucket 'no-such-bucket-here', key 'base/a': .*NoSuchBucket.*Create the bucket"
    ):
        blobs.read("a")
    with pytest.raises(StoreError, match="no-such-bucket-here"):
        blobs.list()


def test_a_server_that_is_not_there_is_a_store_error(s3_place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreError, match="Check the AWS credentials, the region and the network"):
        open_blobs(s3_place).read("a")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "no address")
    with pytest.raises(StoreError, match="no address"):
        open_blobs(s3_place).read("a")


def test_missing_credentials_are_a_store_error(s3_place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match="credentials"):
        open_blobs(s3_place).write("a", b"1")


def test_an_upload_that_s3_refuses_is_translated(tmp_path: Path, s3_place: str) -> None:
    (tmp_path / "a").write_text("x")
    with pytest.raises(StoreError, match="NoSuchBucket"):
        open_blobs("s3://no-such-bucket-here").upload(tmp_path, "m")


def test_hostile_keys_of_a_bucket_are_not_followed(s3: Blobs, s3_place: str, tmp_path: Path) -> None:
    put(s3_place, "m/../../../outside", b"x")
    with pytest.raises(StoreError, match="is not a valid key"):
        s3.download("m", tmp_path / "inner" / "copy")
    assert list(tmp_path.rglob("outside")) == []


def test_folder_marks_of_other_tools_are_passed_over(s3: Blobs, s3_place: str, tmp_path: Path) -> None:
    put(s3_place, "m/", b"")
    put(s3_place, "m/a", b"1")
    assert s3.list("m") == ["m/a"]
    s3.download("m", tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["a"]


@pytest.fixture
def losing_answers(s3_place: str, s3_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A proxy that passes the first PUT of an object on but answers 503, so that boto3 writes again."""
    host = s3_address.removeprefix("http://")
    lost = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def pass_on(self) -> None:
            if self.headers.get("Expect") == "100-continue":
                self.send_response_only(100)
                self.end_headers()
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            inner = http.client.HTTPConnection(host)
            inner.request(self.command, self.path, body, dict(self.headers))
            answer = inner.getresponse()
            data = answer.read()
            inner.close()
            lose = self.command == "PUT" and not lost
            if lose:
                lost.append(self.path)
            self.send_response(503 if lose else answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(0 if lose else len(data)))
            self.end_headers()
            self.wfile.write(b"" if lose else data)

        do_GET = do_PUT = do_HEAD = pass_on

        def log_message(self, *args: object) -> None:
            pass

        def handle_expect_100(self) -> bool:
            return True

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    yield
    server.shutdown()
    server.server_close()
    assert lost


@pytest.mark.usefixtures("losing_answers")
def test_a_conditional_write_whose_answer_was_lost_counts_as_done(s3_place: str) -> None:
    blobs = open_blobs(s3_place)
    etag = blobs.write("a", b"1", if_absent=True)
    assert blobs.read("a") == (b"1", etag)
    with pytest.raises(ConflictError):
        blobs.write("a", b"1", if_absent=True)


# --- locks


def test_a_lock_is_exclusive_and_free_again(blobs: Blobs, place: str) -> None:
    with blobs.lock("run", wait_s=0, owner="alice") as lease:
        lease.check()
        with (
            pytest.raises(
                BusyError, match=rf"lock 'run' of .* is held by 'alice' \(process {os.getpid()} on .* since 20"
            ),
            open_blobs(place).lock("run", wait_s=0.1, owner="bob"),
        ):
            pass
        with blobs.lock("other", wait_s=0, owner="alice"):
            pass
    with open_blobs(place).lock("run", wait_s=0, owner="bob"):
        pass


def test_a_lock_is_released_after_an_error(blobs: Blobs) -> None:
    with pytest.raises(RuntimeError, match="stop"), blobs.lock("run", wait_s=0, owner="alice"):
        raise RuntimeError("stop")
    with blobs.lock("run", wait_s=0, owner="alice"):
        pass


def test_a_waiter_gets_the_lock_when_it_is_released(blobs: Blobs) -> None:
    held, release, order = threading.Event(), threading.Event(), []

    def first() -> None:
        with blobs.lock("run", wait_s=0, owner="first"):
            held.set()
            release.wait(5)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert held.wait(5)
    threading.Timer(0.05, release.set).start()
    with blobs.lock("run", wait_s=30, owner="second"):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_of_many_waiters_one_works_at_a_time(blobs: Blobs) -> None:
    inside, most = [0], [0]

    def work(i: int) -> None:
        with blobs.lock("run", wait_s=30, owner=str(i)):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            threading.Event().wait(0.005)
            inside[0] -= 1

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    assert most == [1]


HOLDER = """
import sys, time
sys.path.insert(0, {source!r})
from tamiz.blobs import open_blobs
with open_blobs({place!r}).lock("run", wait_s=0, owner="killed"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_local_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    code = HOLDER.format(source=str(ROOT / "src"), place=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(BusyError, match=rf"'killed' \(process {process.pid} "),
            open_blobs(str(tmp_path)).lock("run", wait_s=0, owner="me"),
        ):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
        with open_blobs(str(tmp_path)).lock("run", wait_s=0, owner="me"):
            pass


def lock_object(expires_in_s: float) -> bytes:
    record = {"owner": "gone", "host": "far", "pid": 7, "since": "2026-01-01T00:00:00+00:00", "token": "t"}
    return json.dumps({**record, "expires_at": time.time() + expires_in_s}).encode()


def test_an_s3_lock_is_taken_over_only_when_it_expired(s3: Blobs, s3_place: str) -> None:
    put(s3_place, ".tamiz/locks/run", lock_object(30))
    with (
        pytest.raises(
            BusyError, match=r"'gone' \(process 7 on far\).* If that process is gone, the lock is free after 20"
        ),
        s3.lock("run", wait_s=0, owner="me"),
    ):
        pass
    put(s3_place, ".tamiz/locks/run", lock_object(-1))
    with s3.lock("run", wait_s=0, owner="me") as lease:
        lease.check()


def test_a_damaged_s3_lock_is_said(s3: Blobs, s3_place: str) -> None:
    put(s3_place, ".tamiz/locks/run", b"{}")
    with pytest.raises(StoreError, match="is damaged; delete the object"), s3.lock("run", wait_s=0, owner="me"):
        pass


def test_an_s3_lock_outlives_its_first_expiry_by_renewal(s3_place: str) -> None:
    from tamiz.blobs.s3 import S3Blobs

    bucket, _, prefix = s3_place.removeprefix("s3://").partition("/")
    short = S3Blobs(bucket, prefix, lease_s=0.3)
    with short.lock("run", wait_s=0, owner="alice") as lease:
        taken = json.loads(short._get(".tamiz/locks/run").data)["expires_at"]
        deadline = time.monotonic() + 5
        while json.loads(short._get(".tamiz/locks/run").data)["expires_at"] <= taken + 0.3:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        lease.check()
        with pytest.raises(BusyError), short.lock("run", wait_s=0, owner="bob"):
            pass


def test_a_lost_s3_lock_is_said_and_not_taken_from_the_new_holder(s3_place: str) -> None:
    from tamiz.blobs.s3 import S3Blobs

    bucket, _, prefix = s3_place.removeprefix("s3://").partition("/")
    short = S3Blobs(bucket, prefix, lease_s=0.3)
    theirs = lock_object(30)
    with (
        pytest.raises(ConflictError, match="could not be renewed in time"),
        short.lock("run", wait_s=0, owner="alice"),
    ):
        put(s3_place, ".tamiz/locks/run", theirs)
    assert short._get(".tamiz/locks/run").data == theirs


def test_a_check_notices_at_once_that_somebody_took_an_s3_lock(s3: Blobs, s3_place: str) -> None:
    def sleep_too_long() -> None:
        with s3.lock("run", wait_s=0, owner="alice") as lease:
            lease.check()
            put(s3_place, ".tamiz/locks/run", lock_object(30))
            lease.check()
            pytest.fail("went on without the lock")

    with pytest.raises(ConflictError, match="could not be renewed in time"):
        sleep_too_long()


def test_the_public_names_are_there() -> None:
    assert all(hasattr(tamiz.blobs, name) for name in tamiz.blobs.__all__)
