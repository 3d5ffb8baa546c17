from __future__ import annotations

import errno
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tamiz.package
from tamiz._files import is_unfinished, relative_fault
from tamiz.errors import PackageError
from tamiz.package import (
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    pack,
    read_manifest,
    unpack,
    verify_package,
    write_package,
)
from tamiz.types import Task

FILES = {"weights.npz": bytes(range(256)) * 40, "vocabulary/words.txt": "niño\nárbol\n".encode(), "empty": b""}
MANIFEST = Manifest(
    name="reviews",
    task=Task.BINARY,
    labels=("neg", "pos"),
    positive="pos",
    family="linear",
    metrics={"val_f1_macro": 0.5},
    created_at="2026-01-02T03:04:05+00:00",
)


def fill(folder: Path) -> None:
    for name, data in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    write_package(tmp_path / "package", MANIFEST, fill)
    return tmp_path / "package"


def rewrite(folder: Path, **changes: object) -> None:
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written = write_package(tmp_path / "a" / "package", MANIFEST, fill)
    assert sorted(written.files) == sorted(FILES)
    assert written.size_bytes == sum(map(len, FILES.values()))
    assert read_manifest(tmp_path / "a" / "package") == written == verify_package(tmp_path / "a" / "package")
    assert written.model_copy(update={"files": {}}) == MANIFEST
    assert only(tmp_path / "a") == ["package"]


def test_figures_that_json_lacks_survive(tmp_path: Path) -> None:
    manifest = MANIFEST.model_copy(update={"metrics": {"a": float("inf"), "b": 0.1}})
    written = write_package(tmp_path / "p", manifest, fill)
    json.loads((tmp_path / "p" / MANIFEST_NAME).read_text(), parse_constant=pytest.fail)
    assert read_manifest(tmp_path / "p").metrics == written.metrics == manifest.metrics


def test_an_empty_folder_is_taken_and_a_full_one_refused(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    write_package(tmp_path / "p", MANIFEST, fill)
    with pytest.raises(PackageError, match="p is not empty"):
        write_package(tmp_path / "p", MANIFEST, fill)
    verify_package(tmp_path / "p")
    (tmp_path / "file").write_text("x")
    with pytest.raises(PackageError, match="file exists and is not a folder"):
        write_package(tmp_path / "file", MANIFEST, fill)


@pytest.mark.parametrize("name", ["weights.npz", "vocabulary/words.txt", "empty"])
def test_a_missing_file_is_named(package: Path, name: str) -> None:
    (package / name).unlink()
    with pytest.raises(PackageError, match=rf"'{name}' is missing. Copy or fetch"):
        verify_package(package)


def test_a_short_file_is_named_with_both_lengths(package: Path) -> None:
    path = package / "weights.npz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PackageError, match=r"'weights.npz' has 10239 bytes instead of 10240: it was cut off"):
        verify_package(package)


def test_a_changed_byte_is_found(package: Path) -> None:
    path = package / "weights.npz"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    with pytest.raises(PackageError, match=r"bytes of 'weights.npz' are not those"):
        verify_package(package)


def test_an_extra_file_is_named(package: Path) -> None:
    (package / "extra.bin").write_bytes(b"x")
    with pytest.raises(PackageError, match=r"does not list the file 'extra.bin'"):
        verify_package(package)


@pytest.mark.parametrize("name", ["weights.npz", MANIFEST_NAME, "vocabulary"])
def test_links_are_refused(package: Path, tmp_path: Path, name: str) -> None:
    (package / name).rename(tmp_path / "elsewhere")
    (package / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PackageError, match="is a link"):
        verify_package(package)


def test_a_pipe_is_refused_and_not_opened(package: Path) -> None:
    (package / "empty").unlink()
    os.mkfifo(package / "empty")
    with pytest.raises(PackageError, match="'empty' is no regular file"):
        verify_package(package)


def test_a_folder_without_description_is_foreign(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"it has no model.json. Name a folder that Tamiz wrote"):
        read_manifest(tmp_path)
    with pytest.raises(PackageError, match="it has no model"):
        read_manifest(tmp_path / "absent")


@pytest.mark.parametrize("content", ["{}", "[]", '"tamiz-model"', '{"format": "keras", "format_version": 1}'])
def test_the_description_of_something_else_is_foreign(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(content)
    with pytest.raises(PackageError, match="does not describe a Tamiz model"):
        read_manifest(tmp_path)


def test_a_future_format_asks_for_a_newer_release(package: Path) -> None:
    rewrite(package, format_version=2, marvel=True)
    with pytest.raises(PackageError, match=r"is of format 2; this Tamiz reads up to 1. Install a newer release"):
        read_manifest(package)


def test_every_cut_of_the_description_is_refused(package: Path) -> None:
    path = package / MANIFEST_NAME
    data = path.read_bytes()
    for length in range(0, len(data) - 2, 37):
        path.write_bytes(data[:length])
        with pytest.raises(PackageError, match="is damaged or cut off"):
            read_manifest(package)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"format_version": 0}, "format_version"),
        ({"format_version": "1.5"}, "format_version"),
        ({"unknown": 1}, "unknown"),
        ({"task": "regression"}, "task"),
        ({"labels": None}, "labels"),
        ({"files": {"../x": {"sha256": "0" * 64, "size_bytes": 1}}}, "files"),
        ({"files": {"/etc/x": {"sha256": "0" * 64, "size_bytes": 1}}}, "files"),
        ({"files": {MANIFEST_NAME: {"sha256": "0" * 64, "size_bytes": 1}}}, "files"),
        ({"files": {"x": {"sha256": "zz", "size_bytes": 1}}}, "files.x.sha256"),
    ],
)
def test_a_wrong_value_is_named(package: Path, changes: dict[str, object], place: str) -> None:
    rewrite(package, **changes)
    with pytest.raises(PackageError, match=rf"model.json is damaged: {place}"):
        read_manifest(package)


def test_an_error_while_filling_leaves_nothing(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        fill(folder)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_package(tmp_path / "p", MANIFEST, fails)
    assert only(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        fill(folder)
        Path("/dev/full").write_bytes(b"x")

    with pytest.raises(PackageError, match="no space is left on the disk; free some") as caught:
        write_package(tmp_path / "p", MANIFEST, fails)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert only(tmp_path) == []


def test_the_weights_may_not_take_the_name_of_the_description(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"may not be named model.json"):
        write_package(tmp_path / "p", MANIFEST, lambda folder: (folder / MANIFEST_NAME).write_text("x") and None)
    assert only(tmp_path) == []


def test_weights_that_are_a_link_are_refused_at_writing(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="'w' is a link"):
        write_package(tmp_path / "p", MANIFEST, lambda folder: (folder / "w").symlink_to("/etc/hostname"))
    assert only(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {paths!r}
from tests.test_package import MANIFEST, fill
from tamiz.package import write_package
def killed(folder):
    fill(folder)
    os.kill(os.getpid(), signal.SIGKILL)
write_package(Path(sys.argv[1]), MANIFEST, killed)
"""


def test_a_killed_writer_leaves_no_package_and_the_next_cleans_up(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    code = KILLED.format(paths=[str(root), str(root / "src")])
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "p")], check=False)
    assert done.returncode == -signal.SIGKILL
    [left] = tmp_path.iterdir()
    assert is_unfinished(left)
    assert left.name.startswith(".p.")
    with pytest.raises(PackageError):
        read_manifest(left)
    write_package(tmp_path / "p", MANIFEST, fill)
    assert only(tmp_path) == ["p"]


def test_a_whole_package_under_its_temporary_name_is_not_read(package: Path) -> None:
    temporary = package.rename(package.with_name(".package.0123456789abcdef.tmp"))
    with pytest.raises(PackageError, match="writing was cut short"):
        verify_package(temporary)


def test_a_writer_at_work_is_not_swept_away(tmp_path: Path) -> None:
    """Of two writers of one name the first to finish wins; the other is refused and leaves nothing."""
    begun, go_on, errors = threading.Event(), threading.Event(), []

    def slow(folder: Path) -> None:
        begun.set()
        go_on.wait(5)
        fill(folder)

    def first() -> None:
        try:
            write_package(tmp_path / "p", MANIFEST, slow)
        except PackageError as error:
            errors.append(str(error))

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(5)
    write_package(tmp_path / "p", MANIFEST, fill)
    assert len(only(tmp_path)) == 2
    go_on.set()
    thread.join()
    assert len(errors) == 1
    assert "somebody else wrote there" in errors[0]
    assert only(tmp_path) == ["p"]
    verify_package(tmp_path / "p")


def test_names_with_pattern_characters_are_swept_literally(tmp_path: Path) -> None:
    other = tmp_path / ".pa.0123456789abcdef.tmp"
    mine = tmp_path / ".p[ab].0123456789abcdef.tmp"
    other.mkdir()
    mine.mkdir()
    write_package(tmp_path / "p[ab]", MANIFEST, fill)
    assert only(tmp_path) == sorted([other.name, "p[ab]"])


# --- archives


def test_an_archive_round_trip(package: Path, tmp_path: Path) -> None:
    archive = pack(package, tmp_path / "out" / "model.tar.gz")
    manifest = unpack(archive, tmp_path / "again")
    assert manifest == verify_package(package) == verify_package(tmp_path / "again")
    assert only(tmp_path / "out") == ["model.tar.gz"]
    with pytest.raises(PackageError, match="is not empty"):
        unpack(archive, tmp_path / "again")


def test_equal_folders_give_equal_bytes(package: Path, tmp_path: Path) -> None:
    write_package(tmp_path / "other", MANIFEST, lambda folder: (fill(folder), os.utime(folder / "empty", (1, 1)))[0])
    (tmp_path / "other" / "weights.npz").chmod(0o600)
    first = pack(package, tmp_path / "a.tar.gz").read_bytes()
    assert first == pack(tmp_path / "other", tmp_path / "b-with-another-name.tgz").read_bytes()
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        assert tar.getnames() == sorted([*FILES, MANIFEST_NAME])
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in tar} == {(0, 0, 0, "", 0o644)}


def test_a_damaged_package_is_not_packed(package: Path, tmp_path: Path) -> None:
    (package / "empty").write_bytes(b"x")
    with pytest.raises(PackageError, match="'empty'"):
        pack(package, tmp_path / "a.tar.gz")
    assert not (tmp_path / "a.tar.gz").exists()


def test_an_archive_inside_its_package_is_refused(package: Path) -> None:
    with pytest.raises(PackageError, match="lies inside the package"):
        pack(package, package / "a.tar.gz")
    verify_package(package)


def test_an_archive_that_cannot_be_written_leaves_the_old_one(package: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PackageError, match="could not be written"):
        pack(package, tmp_path / "file" / "a.tar.gz")
    resource = pytest.importorskip("resource")
    old = pack(package, tmp_path / "a.tar.gz").read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(PackageError, match=r"a.tar.gz could not be written: file too large"):
            pack(package, tmp_path / "a.tar.gz")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "a.tar.gz").read_bytes() == old
    assert only(tmp_path) == ["a.tar.gz", "file", "package"]


def test_every_cut_of_an_archive_is_refused(package: Path, tmp_path: Path) -> None:
    data = pack(package, tmp_path / "a.tar.gz").read_bytes()
    cut = tmp_path / "cut.tar.gz"
    for length in [*range(0, len(data), 61), len(data) - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(PackageError, match=r"cut.tar.gz(:| is damaged, cut off| is cut off)"):
            unpack(cut, tmp_path / "out")
    assert only(tmp_path) == ["a.tar.gz", "cut.tar.gz", "package"]


def test_every_changed_byte_of_an_archive_is_harmless(package: Path, tmp_path: Path) -> None:
    data = pack(package, tmp_path / "a.tar.gz").read_bytes()
    bad = tmp_path / "bad.tar.gz"
    refused = 0
    for at in range(0, len(data), 23):
        bad.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:
            unpack(bad, tmp_path / f"out{at}")
        except PackageError as error:
            assert "bad.tar.gz" in str(error)  # noqa: PT017
            refused += 1
        else:  # only the header's time and system carry no content
            verify_package(tmp_path / f"out{at}")
    assert refused > len(data) // 23 - 3


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no archive")
    (tmp_path / "gz").write_bytes(gzip.compress(b"no tar"))
    for name in ("text", "gz"):
        with pytest.raises(PackageError, match=rf"{name} is damaged, cut off or not a .tar.gz"):
            unpack(tmp_path / name, tmp_path / "out")
    with pytest.raises(PackageError, match="absent cannot be read"):
        unpack(tmp_path / "absent", tmp_path / "out")


def archive_of(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (member("/etc/passwd"), "not a plain relative path"),
        (member("../outside"), "not a plain relative path"),
        (member("a/../../outside"), "not a plain relative path"),
        (member("././a"), "not a plain relative path"),
        (member(".//a"), "not a plain relative path"),
        (member("./../a"), "not a plain relative path"),
        (member("."), "not a plain relative path"),
        (member("a//b"), "not a plain relative path"),
        (member("C:x"), "not a plain relative path"),
        (member("a\\..\\b"), "not a plain relative path"),
        (member("x\ny"), "not a plain relative path"),
        (member("link", tarfile.SYMTYPE, "/etc/passwd"), "not a regular file"),
        (member("link", tarfile.LNKTYPE, "good"), "not a regular file"),
        (member("device", tarfile.CHRTYPE), "not a regular file"),
        (member("device", tarfile.BLKTYPE), "not a regular file"),
        (member("pipe", tarfile.FIFOTYPE), "not a regular file"),
        (member("../folder", tarfile.DIRTYPE), "not a plain relative path"),
        (member("/folder", tarfile.DIRTYPE), "not a plain relative path"),
        (member("./good"), "occurs twice"),
        (member("good"), "occurs twice"),
        (member("GOOD"), "occurs twice"),
        (member("good/inner"), "occurs twice"),
    ],
    ids=lambda value: f"{value.name!r}-{value.type!r}" if isinstance(value, tarfile.TarInfo) else "",
)
def test_hostile_members_are_refused(tmp_path: Path, bad: tarfile.TarInfo, match: str) -> None:
    archive = archive_of(tmp_path / "bad.tar.gz", [(member("good"), b"good"), (bad, b"")])
    inside = tmp_path / "in"
    with pytest.raises(PackageError, match=match):
        unpack(archive, inside / "p")
    assert only(tmp_path) == ["bad.tar.gz", "in"]
    assert only(inside) == []


@pytest.mark.parametrize("inside", [".", "vocabulary", "./vocabulary"])
def test_what_tar_packs_is_read(package: Path, tmp_path: Path, inside: str) -> None:
    """As `tar czf a.tar.gz -C FOLDER .` and `tar czf a.tar.gz -C PARENT FOLDER` write it; the package has a folder of
    the same name."""
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(package, arcname=inside)
        assert any(found.isdir() for found in tar.getmembers())
    assert unpack(tmp_path / "a.tar.gz", tmp_path / "again") == verify_package(package)


def test_folders_count_among_what_an_archive_may_hold(package: Path, tmp_path: Path) -> None:
    folders = [(member(f"f{i}", tarfile.DIRTYPE), b"") for i in range(5)]
    with pytest.raises(PackageError, match="holds more than 4 files and folders"):
        unpack(archive_of(tmp_path / "a.tar.gz", folders), tmp_path / "p", max_files=4)


def test_two_packages_in_an_archive_are_refused(package: Path, tmp_path: Path) -> None:
    text = (package / MANIFEST_NAME).read_bytes()
    both = [(member(f"{name}/{MANIFEST_NAME}"), text) for name in ("1", "2")]
    with pytest.raises(PackageError, match=r"it has no model\.json"):
        unpack(archive_of(tmp_path / "a.tar.gz", both), tmp_path / "p")


def test_a_file_over_a_folder_is_refused(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "bad.tar.gz", [(member("a/b"), b""), (member("a"), b"")])
    with pytest.raises(PackageError, match="'a' occurs twice"):
        unpack(archive, tmp_path / "p")


def test_an_archive_of_something_else_is_foreign(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.tar.gz", [(member("pytorch_model.bin"), b"x")])
    with pytest.raises(PackageError, match="it has no model"):
        unpack(archive, tmp_path / "p")


def test_limits_on_bytes_files_and_ratio(package: Path, tmp_path: Path) -> None:
    archive = pack(package, tmp_path / "a.tar.gz")
    with pytest.raises(PackageError, match="unpacks to more than 10000 bytes"):
        unpack(archive, tmp_path / "p", max_bytes=10_000)
    with pytest.raises(PackageError, match="holds more than 3 files"):
        unpack(archive, tmp_path / "p", max_files=3)
    unpack(archive, tmp_path / "p", max_files=4, max_bytes=20_000)
    zeros = archive_of(tmp_path / "zeros.tar.gz", [(member("zeros"), bytes(17 * 2**20))])
    with pytest.raises(PackageError, match=f"unpacks to more than {16 * 2**20} bytes"):
        unpack(zeros, tmp_path / "q", max_ratio=10)


def test_a_header_that_claims_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    claim = tarfile.TarInfo("x")
    claim.type, claim.size = tarfile.XHDTYPE, 2**33
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(claim.tobuf(tarfile.GNU_FORMAT) + bytes(4096)))
    with pytest.raises(PackageError, match=r"a.tar.gz: a header claims 8589934592 bytes"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "p")


def test_endless_padding_is_refused(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.tar.gz", [(member("x"), b"x")])
    with gzip.open(archive, "ab") as more:
        more.write(bytes(23 * 2**20))
    with pytest.raises(PackageError, match="unpacks to more than"):
        unpack(archive, tmp_path / "p", max_ratio=1)


@given(st.text(alphabet=st.sampled_from(list("ab./\\:\0\n ~")), max_size=12))
def test_a_path_without_fault_stays_inside(path: str) -> None:
    if relative_fault(path) is None:
        joined = os.path.normpath(os.path.join("/root/folder", path))  # noqa: PTH118
        assert joined == "/root/folder/" + path


def test_the_manifest_is_frozen_and_equal_ones_give_equal_bytes() -> None:
    with pytest.raises(ValueError, match="frozen"):
        MANIFEST.name = "other"
    entry = FileEntry(sha256="0" * 64, size_bytes=1)
    made = MANIFEST.model_copy(update={"files": {"x": entry}})
    assert Manifest.model_validate_json(made.to_bytes()) == made
    assert Manifest.model_validate_json(made.to_bytes()).to_bytes() == made.to_bytes()


def test_the_public_names_are_there() -> None:
    assert all(hasattr(tamiz.package, name) for name in tamiz.package.__all__)
