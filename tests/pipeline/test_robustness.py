"""Runs that meet: two at once, killed ones, and data that are not as they should be."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import tamiz
from tamiz.blobs import open_blobs
from tamiz.blobs.locks import LockRecord
from tamiz.cli.main import run_command
from tamiz.data.lake import Lake
from tamiz.errors import BusyError, ConflictError
from tamiz.model import Model
from tamiz.package import verify_package
from tamiz.pipeline.run import Context
from tamiz.registry import MemoryRegistry
from tamiz.store import ModelStore
from tests.projects import PRIOR, Told, figures, make_project, rows, run, store_of, write_csv, write_project

# --- two at once


def test_a_second_run_is_told_who_holds_the_project(tmp_path):
    project = make_project(tmp_path, n=80)
    context = Context(project, MemoryRegistry())
    with (
        context.blobs.lock("run", wait_s=0, owner="ana on host-7, process 12"),
        pytest.raises(BusyError, match="ana on host-7, process 12"),
    ):
        run(project)
    assert run(project).version == "1"


def test_a_second_run_may_wait(tmp_path):
    project = make_project(tmp_path, n=80)
    holding, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with open_blobs(str(tmp_path / "lake")).lock("run", wait_s=0, owner="somebody"):
            holding.set()
            let_go.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert holding.wait(30)
        with pytest.raises(BusyError):
            run(project, wait_s=0.1)
        threading.Timer(0.1, let_go.set).start()
        assert run(project, wait_s=60).version == "1"
    finally:
        let_go.set()
        holder.join()


def test_runs_at_once_come_to_one_version(tmp_path):
    project = make_project(tmp_path, n=80)
    registry = MemoryRegistry()
    found: list[object] = []

    def work() -> None:
        try:
            found.append(run(project, registry, wait_s=60).version)
        except Exception as error:
            found.append(error)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == ["1", "1", "1"]
    assert len(registry.runs()) == 1
    assert Lake(str(tmp_path / "lake")).count("bronze/texts") == 80


# --- killed runs


PROGRAM = """
import sys
from tamiz import pipeline
from tamiz.settings import new_registry, read_project
project = read_project(sys.argv[1])
registry = new_registry(project)
print("ready", flush=True)
print(pipeline.run(project, registry).version)
"""
KILLS = 6


def start(folder: Path) -> subprocess.Popen[str]:
    """Start a run in a process of its own and return when its libraries are loaded."""
    environment = {**os.environ, "PYTHONPATH": str(Path(tamiz.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def check_whole(folder: Path) -> None:
    """Whatever the store names is there, whole; whatever table there is can be read."""
    store = ModelStore(str(folder / "models"))
    for name in store.names():
        index = store.index(name)
        for version in index.versions:
            verify_package(folder / "models" / name / version)
            Model.load(store.fetch(f"{name}@{version}")).predict(["bread"])
        assert set(index.aliases.values()) <= set(index.versions)
    lake = Lake(str(folder / "lake"))
    for table in ("bronze/texts", "silver/texts", "gold/examples"):
        if lake.version(table) is not None:
            assert lake.count(table) in (0, 2000)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_comes_to_the_same_end(tmp_path, mlflow_template):
    candidates = [{"family": "prior"}, {"family": "linear", "params": {"characters": [2, 4]}}]
    sections = {"candidates": candidates, "select": {"refit": True}, "n": 2000}
    folders = {name: tmp_path / name for name in ("whole", "killed")}
    for folder in folders.values():
        folder.mkdir()
        write_project(folder, **sections)
        (folder / "mlflow.db").write_bytes(mlflow_template.read_bytes())

    with start(folders["whole"]) as process:
        ready = time.monotonic()
        assert process.wait(120) == 0
    length_s = time.monotonic() - ready

    unfinished = 0
    for kill in range(KILLS):
        with start(folders["killed"]) as process:
            # Later kills wait longer, for they find the first steps done.
            try:
                process.wait(length_s * (0.05 + 0.8 * kill / KILLS))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                unfinished += 1
            process.wait(30)
        check_whole(folders["killed"])
    assert unfinished >= 2
    with start(folders["killed"]) as process:
        assert process.wait(120) == 0
    check_whole(folders["killed"])

    ends = {}
    for name, folder in folders.items():
        index = ModelStore(str(folder / "models")).index("topics")
        assert list(index.versions) == ["1"] or name == "killed"
        champion = index.versions[index.aliases["champion"]]
        lake = Lake(str(folder / "lake"))
        table = lake.read("gold/examples", columns=["row_id", "side"]).to_pylist()
        report = lake.read("gold/metrics").to_pylist()
        ends[name] = (
            champion.candidate,
            figures(champion.metrics),
            sorted((row["row_id"], row["side"]) for row in table),
            sorted((row["metric"], row["value"]) for row in report if row["version"] == index.aliases["champion"]),
        )
    assert ends["killed"] == ends["whole"]


def test_a_run_that_lost_the_project_to_another_publishes_nothing(tmp_path, s3_place):
    boto3 = pytest.importorskip("boto3")
    bucket, _, prefix = s3_place.removeprefix("s3://").partition("/")
    theirs = LockRecord("ana", "host-7", 12, "2026-01-01T00:00:00+00:00", "t", time.time() + 300).to_bytes()

    class Slept(Told):
        def started(self, step: str) -> None:
            super().started(step)
            if step == "train":
                boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/.tamiz/locks/run", Body=theirs)

    project, told = make_project(tmp_path, n=80, lake=s3_place, candidates=PRIOR), Slept()
    with pytest.raises(ConflictError, match="may be held by another process now"):
        run(project, listener=told)
    assert told.begun == ["ingest", "clean", "split", "train"]
    assert store_of(project).names() == []


# --- data that are not as they should be, by the command line


@pytest.fixture
def place(tmp_path, mlflow_template) -> Path:
    (tmp_path / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    return tmp_path


def answer(capsys, *arguments: object) -> tuple[int, str]:
    """Run a command; return its exit code and what it wrote to standard error."""
    code = run_command([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return code, said


def refusal(capsys, folder: Path, *, code: int = 1) -> str:
    """Run the project of a folder, which must fail; return the one sentence it says."""
    found, said = answer(capsys, "run", "-p", folder, "--quiet")
    assert found == code, said
    (line,) = said.strip().splitlines()
    assert line.startswith("error ")
    return line


def bronze_rows(folder: Path) -> int:
    return Lake(str(folder / "lake")).count("bronze/texts")


def quarantine(folder: Path) -> list[str]:
    return sorted(Lake(str(folder / "lake")).read("silver/quarantine").column("reason").to_pylist())


def write_rows(folder: Path, table: list[list[object]], **sections) -> None:
    with (folder / "texts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "text", "label"], *table])
    write_project(folder, **sections)


def plain(n: int = 60) -> list[list[object]]:
    return [[row["id"], row["text"], row["label"]] for row in rows(n)]


def test_a_missing_column_is_named_with_the_nearest(place, capsys):
    write_project(place, n=60, data={"text": "txet"})
    line = refusal(capsys, place)
    assert "data.text: data.source has no column 'txet'; allowed: id, label, text; did you mean 'text'?" in line
    assert bronze_rows(place) == 60


@pytest.mark.parametrize("key", ["label", "id", "group", "time"])
def test_every_named_column_must_be_there(place, capsys, key):
    write_project(place, n=60, data={key: "nosuch"})
    assert f"data.{key}: data.source has no column 'nosuch'" in refusal(capsys, place)


def test_a_wrong_encoding_is_named_with_the_byte(place, capsys):
    write_project(place, n=60, data={"encoding": "utf-8"})
    data = (place / "texts.csv").read_bytes()
    at = data.index(b"\n") + 1
    (place / "texts.csv").write_bytes(data[:at] + b"r,caf\xe9 con leche,food\n" + data[at:])
    line = refusal(capsys, place)
    assert f"the byte at offset {at + 5} is 0xe9, which is not utf-8 text. It seems to be cp1252" in line


def test_a_ragged_row_is_named_with_its_line(place, capsys):
    write_project(place, n=60)
    lines = (place / "texts.csv").read_text(encoding="utf-8").splitlines()
    lines[40] += ",more"
    (place / "texts.csv").write_text("\n".join(lines), encoding="utf-8")
    assert "texts.csv: line 41: 4 fields found, 3 expected as in the header" in refusal(capsys, place)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"id,text,label\n"])
def test_a_file_without_rows_is_refused(place, capsys, content):
    write_project(place, n=60)
    (place / "texts.csv").write_bytes(content)
    assert "texts.csv" in refusal(capsys, place)


def test_a_source_that_is_not_there_is_named(place, capsys):
    write_project(place, n=60, data={"source": "nosuch.csv"})
    assert str(place / "nosuch.csv") in refusal(capsys, place)


def test_a_binary_file_is_no_text(place, capsys):
    write_project(place, n=60)
    (place / "texts.csv").write_bytes(bytes(range(256)) * 40)
    assert "texts.csv" in refusal(capsys, place)


def test_one_label_alone_is_refused(place, capsys):
    write_rows(place, [[row_id, text, "only"] for row_id, text, _ in plain()])
    assert "a classifier needs at least two labels with examples" in refusal(capsys, place)
    assert bronze_rows(place) == 60


def test_a_label_with_one_example_stays_in_training(place, capsys):
    write_rows(place, [*plain(), ["x", "something else altogether", "rare"]])
    code, said = answer(capsys, "run", "-p", place)
    assert code == 0, said
    assert "1 label has a single example, which stays in training and measures nothing: 'rare'" in said
    found = Lake(str(place / "lake")).read("gold/examples", columns=["row_id", "side"]).to_pylist()
    assert {row["side"] for row in found if row["row_id"] == "x"} == {"train"}


def test_missing_and_empty_texts_go_to_quarantine(place, capsys):
    bad = [["b1", "", "food"], ["b2", "   ", "food"], ["b3", "nan", "food"], ["b4", "<br/>&nbsp;", "food"]]
    write_rows(place, [*plain(), *bad])
    code, said = answer(capsys, "run", "-p", place)
    assert code == 0, said
    assert "4 in quarantine" in said
    assert len(quarantine(place)) == 4
    assert set(quarantine(place)) == {"text is missing", "text is empty after cleaning"}
    assert bronze_rows(place) == 64


def test_labels_that_differ_by_case_are_told(place, capsys):
    write_rows(place, [[i, text, label.upper() if n % 4 == 0 else label] for n, (i, text, label) in enumerate(plain())])
    code, said = answer(capsys, "run", "-p", place)
    assert code == 0, said
    assert "'FOOD'" in said
    assert "differ only by case or space" in said


def test_too_many_refused_rows_stop_the_run_and_lose_nothing(place, capsys):
    bad = [[f"b{i}", "", "food"] for i in range(40)]
    write_rows(place, [*plain(), *bad])
    line = refusal(capsys, place)
    assert "40 of 100 rows (40.0%) were refused, more than data.max_refused allows (20.0%)" in line
    assert bronze_rows(place) == 100
    assert len(quarantine(place)) == 40
    code, said = answer(capsys, "run", "-p", place, "--set", "data.max_refused=0.5")
    assert code == 0, said


def test_texts_of_any_size_and_script_are_taken(place, capsys):
    odd = [
        ["o1", "word " * 1_000_000, "food"],
        ["o2", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 \u202eabc", "money"],
        ["o3", "\U0001f600\U0001f469\u200d\U0001f469\u200d\U0001f467 \u05e9\u05dc\u05d5\u05dd", "sport"],
        ["o4", 'commas, "quotes"\nand\r\nline breaks\x00', "food"],
        ["o5", "e\u0301" * 1000, "money"],
    ]
    write_rows(place, [*plain(), *odd])
    code, said = answer(capsys, "run", "-p", place)
    assert code == 0, said
    stored = Lake(str(place / "lake")).read("bronze/texts", columns=["id", "text"]).to_pylist()
    raw = {row["id"]: row["text"] for row in stored}
    assert all(raw[row_id] == text for row_id, text, _ in odd)
    model = Model.load(ModelStore(str(place / "models")).fetch("topics"))
    answers = model.predict([str(text) for _, text, _ in odd])
    assert all(abs(a.probabilities.sum() - 1) < 1e-9 for a in answers)


def test_ten_rows_are_enough(place, capsys):
    write_rows(place, [[i, f"{word} number {i}", word] for i, word in enumerate(["yes", "no"] * 5)])
    code, said = answer(capsys, "run", "-p", place)
    assert code == 0, said


def test_a_corrupted_table_is_one_clear_error(place, capsys):
    write_project(place, n=60)
    assert answer(capsys, "run", "-p", place)[0] == 0
    for path in (place / "lake" / "bronze" / "texts" / "_delta_log").iterdir():
        path.write_bytes(b"{broken")
    assert "bronze/texts" in refusal(capsys, place)


def test_a_damaged_index_of_the_store_is_one_clear_error(place, capsys):
    write_project(place, n=60)
    assert answer(capsys, "run", "-p", place)[0] == 0
    (place / "models" / "topics" / "index.json").write_text("{")
    assert "index.json" in refusal(capsys, place)


def test_a_place_that_is_a_file_is_one_clear_error(place, capsys):
    write_project(place, n=60)
    (place / "lake").write_text("not a folder")
    assert "lake" in refusal(capsys, place)


def test_json_lines_with_a_broken_line_are_named(place, capsys):
    lines = [json.dumps(row) for row in rows(60)]
    lines[30] = lines[30][:-5]
    write_project(place, n=60, data={"source": "texts.jsonl"})
    (place / "texts.jsonl").write_text("\n".join(lines))
    assert "line 31" in refusal(capsys, place)


def test_a_file_that_changed_its_columns_is_united(place, capsys):
    write_project(place, n=60, data={"source": ["texts.csv", "more.csv"]})
    write_csv(place / "more.csv", [{**row, "stars": 5} for row in rows(30, start=100)])
    code, said = answer(capsys, "run", "-p", place)
    assert code == 0, said
    assert bronze_rows(place) == 90
