"""One contract over all registries; and what MLflow shows to people."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tamiz.errors import RegistryError
from tamiz.registry import MemoryRegistry, MlflowRegistry
from tamiz.registry import mlflow_registry as mlflow_registry_module
from tamiz.types import Point, Registry
from tests.models import model_of


@pytest.fixture(params=["memory", "mlflow"])
def registry(request, tmp_path) -> Registry:
    if request.param == "memory":
        return MemoryRegistry()
    return open_mlflow(request.getfixturevalue("mlflow_template"), tmp_path)


def open_mlflow(template: Path, folder: Path, name: str = "topics") -> MlflowRegistry:
    """Open a registry on a database of its own, made if there is none yet."""
    if not (folder / "mlflow.db").exists():
        shutil.copy(template, folder / "mlflow.db")
    return MlflowRegistry(name, f"sqlite:///{folder / 'mlflow.db'}", artifacts=str(folder / "artifacts"))


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "package"
    model_of("prior").save(folder)
    return folder


@pytest.fixture
def files(tmp_path, package) -> Path:
    folder = tmp_path / "files"
    shutil.copytree(package, folder / "package")
    (folder / "report.csv").write_text("label,count\nfood,3\n")
    return folder


def record(registry: Registry, key: str, **about) -> str:
    usual = {"candidate": "words", "family": "linear", "params": {"C": 4.0, "words": [1, 2]}}
    usual["tags"] = {"data.gold": "3"}
    return registry.record(key=key, metrics={"val_f1_macro": 0.5, "fit_seconds": 2.0}, **{**usual, **about})


# --- the contract


def test_a_recorded_run_is_read_back(registry, files):
    run_id = record(registry, "k1", artifacts=files)
    (run,) = registry.runs()
    assert (run.run_id, run.key, run.candidate, run.family) == (run_id, "k1", "words", "linear")
    assert run.metrics == {"val_f1_macro": 0.5, "fit_seconds": 2.0}
    assert run.params == {"C": "4.0", "words": "[1, 2]"}
    assert run.version is None


def test_the_final_figures_count_and_the_history_stays(registry):
    history = [Point(1, "train_loss", 0.9), Point(2, "train_loss", 0.4), Point(2, "val_f1_macro", 0.8)]
    run_id = record(registry, "k1", history=history)
    (run,) = registry.runs()
    assert run.metrics["val_f1_macro"] == 0.5  # the calibrated one, not the last epoch's
    if isinstance(registry, MemoryRegistry):
        assert registry.histories[run_id] == history
        return
    losses = registry._client.get_metric_history(run_id, "train_loss")
    assert [(metric.step, metric.value) for metric in losses] == [(1, 0.9), (2, 0.4)]


def follow(registry: Registry, key: str, points: list[Point]) -> str:
    return registry.follow(key=key, candidate="words", family="linear", points=points)


def points_of(registry: Registry, run_id: str) -> list[tuple[int, str, float]]:
    """Return all values of a run that are no final figures, sorted."""
    if isinstance(registry, MemoryRegistry):
        return sorted(registry.histories[run_id])
    client = client_of(registry)
    names = set(client.get_run(run_id).data.metrics) - {"fit_seconds"}
    found = [(m.step, m.key, m.value) for name in names for m in client.get_metric_history(run_id, name)]
    return sorted(point for point in found if point[1:] != ("val_f1_macro", 0.5))


HISTORY = [
    *(Point(step, "train_loss", 1 / step) for step in range(1, 7)),
    *(Point(step, "val_f1_macro", step / 10) for step in (3, 6)),
]


def until(step: int) -> list[Point]:
    return [point for point in HISTORY if point.step <= step]


def test_a_run_grows_while_it_goes_on_and_is_finished_by_its_record(registry, files):
    ids = [follow(registry, "k1", until(step)) for step in (0, 2, 2, 5)]
    assert points_of(registry, ids[0]) == sorted(until(5))
    assert list(registry.runs()) == []
    ids.append(record(registry, "k1", history=HISTORY, artifacts=files))
    assert len(set(ids)) == 1
    assert points_of(registry, ids[0]) == sorted(HISTORY)
    (run,) = registry.runs()
    assert (run.run_id, run.key, run.candidate, run.family) == (ids[0], "k1", "words", "linear")
    assert run.metrics["val_f1_macro"] == 0.5
    assert run.params == {"C": "4.0", "words": "[1, 2]"}


def test_a_finished_run_takes_no_more_figures(registry):
    first = record(registry, "k1", history=until(3))
    assert follow(registry, "k1", HISTORY) == first
    assert record(registry, "k1", history=HISTORY) == first
    assert points_of(registry, first) == sorted(until(3))


def test_runs_that_go_on_are_apart(registry):
    first, second = follow(registry, "k1", until(2)), follow(registry, "k2", until(3))
    third = record(registry, "k3", history=until(4))
    assert len({first, second, third}) == 3
    assert [points_of(registry, run_id) for run_id in (first, second, third)] == [sorted(until(n)) for n in (2, 3, 4)]
    assert record(registry, "k1", history=until(5)) == first
    assert [run.key for run in registry.runs()] in (["k1", "k3"], ["k3", "k1"])


def test_nothing_recorded_is_an_empty_list(registry):
    assert list(registry.runs()) == []


def test_recording_a_key_again_changes_nothing(registry):
    first = record(registry, "k1")
    assert record(registry, "k1", candidate="other", params={"C": 9}) == first
    assert [run.candidate for run in registry.runs()] == ["words"]
    assert record(registry, "k2") != first


def test_runs_come_newest_first(registry):
    ids = [record(registry, f"k{i}") for i in range(4)]
    assert [run.run_id for run in registry.runs()] == ids[::-1]


def test_a_registered_run_has_a_version_and_test_figures(registry, files):
    record(registry, "k0")
    run_id = record(registry, "k1")
    for _ in range(2):
        registry.register(run_id, version="7", metrics={"test_f1_macro": 0.4}, artifacts=files)
    newest, older = registry.runs()
    assert (newest.version, older.version) == ("7", None)
    assert newest.metrics == {"val_f1_macro": 0.5, "fit_seconds": 2.0, "test_f1_macro": 0.4}


def test_an_alias_points_at_a_version(registry, files):
    for version in ("1", "2"):
        registry.register(record(registry, version), version=version, metrics={}, artifacts=files)
    registry.alias("champion", "1")
    registry.alias("champion", "2")
    registry.alias("challenger", "1")
    registry.alias("challenger", None)
    registry.alias("challenger", None)
    assert aliases_of(registry) == {"champion": "2"}


def test_a_store_that_begins_anew_takes_its_numbers_from_the_old_one(registry, files):
    for key in ("old", "new"):
        registry.register(record(registry, key), version="1", metrics={}, artifacts=files)
        registry.alias("champion", "1")
    assert {run.key: run.version for run in registry.runs()} == {"old": None, "new": "1"}
    if isinstance(registry, MlflowRegistry):
        client = client_of(registry)
        champion = client.get_model_version_by_alias("topics", "champion")
        assert client.get_run(champion.run_id).data.tags["tamiz.key"] == "new"


def aliases_of(registry: Registry) -> dict[str, str]:
    if isinstance(registry, MemoryRegistry):
        return registry.aliases
    client = client_of(registry)
    found = client.get_registered_model("topics").aliases
    return {alias: client.get_model_version("topics", number).tags["tamiz.version"] for alias, number in found.items()}


def client_of(registry: MlflowRegistry):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=registry._uri, registry_uri=registry._uri)


def test_an_alias_of_an_unknown_version_is_refused(registry, files):
    with pytest.raises(RegistryError, match="version 3 is not registered"):
        registry.alias("champion", "3")
    registry.register(record(registry, "k"), version="1", metrics={}, artifacts=files)
    with pytest.raises(RegistryError, match="version 3 is not registered"):
        registry.alias("champion", "3")


def test_an_alias_that_is_not_there_may_be_removed(registry):
    registry.alias("champion", None)


def test_an_unknown_run_is_not_registered(registry, files):
    with pytest.raises(RegistryError):
        registry.register("0" * 32, version="1", metrics={"test_accuracy": 1.0}, artifacts=files)


def test_figures_that_are_no_numbers_do_no_harm(registry):
    registry.record(
        key="k", candidate="c", family="f", params={}, tags={}, metrics={"a": float("nan"), "b": float("inf"), "c": 1.0}
    )
    assert registry.runs()[0].metrics["c"] == 1.0


# --- MLflow


@pytest.fixture
def mlflow_registry(mlflow_template, tmp_path) -> MlflowRegistry:
    return open_mlflow(mlflow_template, tmp_path)


def test_mlflow_shows_all_that_was_recorded(mlflow_registry, files, tmp_path):
    run_id = record(mlflow_registry, "k1")
    mlflow_registry.register(run_id, version="7", metrics={"test_f1_macro": 0.4}, artifacts=files)
    mlflow_registry.alias("champion", "7")
    client = client_of(mlflow_registry)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "words"
    assert run.data.params == {"C": "4.0", "words": "[1, 2]"}
    assert run.data.metrics == {"val_f1_macro": 0.5, "fit_seconds": 2.0, "test_f1_macro": 0.4}
    assert run.data.tags["data.gold"] == "3"
    assert run.data.tags["tamiz.version"] == "7"
    assert client.get_experiment(run.info.experiment_id).name == "topics"

    version = client.get_model_version_by_alias("topics", "champion")
    assert version.run_id == run_id
    assert version.source.endswith("/model/7")
    assert len(client.search_model_versions("name = 'topics'")) == 1

    assert {found.path for found in client.list_artifacts(run_id)} == {"report.csv", "model"}
    stored = list((tmp_path / "artifacts").rglob("report.csv"))
    assert [path.read_text() for path in stored] == ["label,count\nfood,3\n"]


def test_a_file_may_join_a_version_later(mlflow_registry, files, tmp_path):
    run_id = record(mlflow_registry, "k1")
    mlflow_registry.register(run_id, version="7", metrics={}, artifacts=files)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "decision-1.json").write_text("{}")
    mlflow_registry.register(run_id, version="7", metrics={}, artifacts=tmp_path / "more")
    client = client_of(mlflow_registry)
    assert {found.path for found in client.list_artifacts(run_id)} == {"report.csv", "model", "decision-1.json"}


def test_a_project_that_was_moved_keeps_and_writes_its_artifacts_where_it_is(mlflow_template, tmp_path, files):
    old, new = tmp_path / "old ñ", tmp_path / "new 100%"
    old.mkdir()
    registry = open_mlflow(mlflow_template, old)
    registry.register(record(registry, "k1", artifacts=files), version="1", metrics={}, artifacts=files)
    old.rename(new)
    moved = open_mlflow(mlflow_template, new)
    run_id = record(moved, "k2", artifacts=files)
    assert not old.exists()
    client = client_of(moved)
    assert {found.path for found in client.list_artifacts(run_id)} == {"report.csv", "package"}
    (version,) = client.search_model_versions("name = 'topics'")
    assert version.source.startswith((new / "artifacts").as_uri())
    assert {found.path for found in client.list_artifacts(version.run_id)} == {"report.csv", "package", "model"}
    other = MlflowRegistry("topics", f"sqlite:///{new / 'mlflow.db'}", artifacts=str(tmp_path / "named anew"))
    record(other, "k3", artifacts=files)
    assert not (tmp_path / "named anew").exists()


def test_versions_of_one_run_keep_their_models_apart(mlflow_registry, files):
    run_id = record(mlflow_registry, "k1")
    for version in ("1", "2"):
        mlflow_registry.register(run_id, version=version, metrics={}, artifacts=files)
    client = client_of(mlflow_registry)
    sources = {found.source for found in client.search_model_versions("name = 'topics'")}
    assert {source[-8:] for source in sources} == {"/model/1", "/model/2"}
    assert {found.path for found in client.list_artifacts(run_id, "model")} == {"model/1", "model/2"}


def test_mlflow_keeps_long_parameters_cut(mlflow_registry):
    record(mlflow_registry, "k", params={"long": "x" * 2000})
    assert set(mlflow_registry.runs()[0].params["long"]) == {"x"}


def test_mlflow_keeps_projects_apart(mlflow_registry, mlflow_template, tmp_path, files):
    other = open_mlflow(mlflow_template, tmp_path, "other")
    record(mlflow_registry, "k")
    assert list(other.runs()) == []
    other.register(record(other, "k"), version="1", metrics={}, artifacts=files)
    with pytest.raises(RegistryError):
        mlflow_registry.alias("champion", "1")


def test_mlflow_is_read_by_the_next_process(mlflow_registry, mlflow_template, tmp_path):
    run_id = record(mlflow_registry, "k")
    again = open_mlflow(mlflow_template, tmp_path)
    assert again.runs() == mlflow_registry.runs()
    assert record(again, "k") == run_id


def test_a_run_that_was_cut_off_is_recorded_anew(mlflow_registry):
    first = record(mlflow_registry, "k")
    client_of(mlflow_registry).set_terminated(first, status="KILLED")
    assert list(mlflow_registry.runs()) == []
    assert record(mlflow_registry, "k") != first


def test_mlflow_shows_a_run_that_goes_on(mlflow_registry):
    run_id = follow(mlflow_registry, "k", [*until(3), Point(3, "val_auc", float("nan"))])
    run = client_of(mlflow_registry).get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("RUNNING", "words")
    assert run.data.metrics == {"train_loss": 1 / 3, "val_f1_macro": 0.3}
    record(mlflow_registry, "k", history=HISTORY)
    run = client_of(mlflow_registry).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["data.gold"] == "3"


def test_the_next_process_goes_on_with_the_run_of_a_killed_one(mlflow_registry, mlflow_template, tmp_path):
    first = follow(mlflow_registry, "k", until(5))
    again = open_mlflow(mlflow_template, tmp_path)  # resumed from a checkpoint of step 2
    assert follow(again, "k", until(3)) == first
    assert points_of(again, first) == sorted(until(5))
    assert follow(again, "k", HISTORY) == first
    assert points_of(again, first) == sorted(HISTORY)
    last = open_mlflow(mlflow_template, tmp_path)
    assert record(last, "k", history=HISTORY) == first
    assert points_of(last, first) == sorted(HISTORY)
    assert last.runs()[0].metrics["val_f1_macro"] == 0.5


def test_a_run_that_was_deleted_meanwhile_is_begun_anew(mlflow_registry):
    first = follow(mlflow_registry, "k", until(2))
    client_of(mlflow_registry).delete_run(first)
    with pytest.raises(RegistryError, match="MLflow: follow failed"):
        follow(mlflow_registry, "k", until(3))
    second = follow(mlflow_registry, "k", until(3))
    assert points_of(mlflow_registry, second) == sorted(until(3))
    client_of(mlflow_registry).delete_run(second)
    assert points_of(mlflow_registry, record(mlflow_registry, "k", history=HISTORY)) == sorted(HISTORY)


def test_a_record_that_was_cut_off_is_completed(mlflow_registry):
    first = record(mlflow_registry, "k", history=until(3))
    client = client_of(mlflow_registry)
    client.update_run(first, status="RUNNING")
    assert record(mlflow_registry, "k", history=HISTORY, params={"C": 5.0, "more": 1}) == first
    (run,) = mlflow_registry.runs()
    assert run.params == {"C": "4.0", "words": "[1, 2]", "more": "1"}
    assert run.metrics["val_f1_macro"] == 0.5


def test_a_deleted_experiment_says_how_to_restore_it(mlflow_registry, mlflow_template, tmp_path):
    record(mlflow_registry, "k")
    client = client_of(mlflow_registry)
    client.delete_experiment(client.get_experiment_by_name("topics").experiment_id)
    with pytest.raises(RegistryError, match="mlflow experiments restore"):
        open_mlflow(mlflow_template, tmp_path).runs()


@pytest.mark.parametrize("wrong", ["a folder", "a text", "below a file"])
def test_a_database_that_cannot_be_opened_is_one_clear_error(wrong, tmp_path):
    path = tmp_path / "mlflow.db"
    if wrong == "a folder":
        path.mkdir()
    else:
        path.write_text("This is not a database, whatever its name says.\n" * 10)
    if wrong == "below a file":
        path = path / "mlflow.db"
    with pytest.raises(RegistryError, match=r"MLflow: the database .*mlflow\.db cannot be opened: ") as caught:
        MlflowRegistry("topics", f"sqlite:///{path}").runs()
    assert "\n" not in str(caught.value)


def test_an_address_of_an_unknown_kind_is_one_clear_error():
    with pytest.raises(RegistryError, match="MLflow: runs failed: ") as caught:
        MlflowRegistry("topics", "nosuch://place").runs()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_server_that_does_not_answer_is_one_clear_error(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError, match=r"^MLflow: runs failed: .*127\.0\.0\.1"):
        MlflowRegistry("topics", "http://127.0.0.1:9").runs()


@pytest.mark.slow
def test_a_database_whose_making_was_killed_is_made_anew(tmp_path):
    """MLflow cannot complete a half-made database, so one must never stand under the final name."""
    import os
    import signal
    import subprocess
    import sys

    database = tmp_path / "mlflow.db"
    code = (
        "import sys; from tamiz.registry import MlflowRegistry\n"
        "print('ready', flush=True)\n"
        f"MlflowRegistry('topics', 'sqlite:///{database}').alias('champion', None)\n"
    )
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        process.stdout.readline()
        end = time.monotonic() + 60
        while not list(tmp_path.glob(".mlflow.db.*.tmp")) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)  # somewhere among the tables
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not database.exists()
    registry = MlflowRegistry("topics", f"sqlite:///{database}")
    registry.alias("champion", None)
    assert database.exists()
    assert list(registry.runs()) == []
    assert [path.name for path in tmp_path.glob(".*.tmp")] == []


def test_runs_of_a_search_stand_apart_and_grow(registry):
    about = {"params": {"C": "1"}, "tags": {"tamiz.study": "s"}}
    own = registry.nested(key="s", name="search", metrics={}, state="RUNNING", **about)
    inside = registry.nested(key="s/0", name="trial 0", metrics={"val_f1_macro": 0.5}, parent=own, **about)
    assert inside != own
    assert registry.nested(key="s", name="search", metrics={"best": 0.5}, **about) == own
    assert registry.nested(key="s/0", name="trial 0", metrics={}, parent=own, state="KILLED", **about) == inside
    assert registry.runs() == []


def test_mlflow_shows_how_trials_went(mlflow_template, tmp_path):
    registry = open_mlflow(mlflow_template, tmp_path)
    about = {"params": {}, "tags": {}}
    own = registry.nested(key="s", name="search", metrics={}, state="RUNNING", **about)
    inside = registry.nested(
        key="s/0", name="trial 0", metrics={"a": 1.0, "b": float("nan")}, parent=own, state="KILLED",
        times=(1000.0, 1002.5), **about,
    )  # fmt: skip
    client = registry._client
    assert client.get_run(own).info.status == "RUNNING"
    run = client.get_run(inside)
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("KILLED", 1_000_000, 1_002_500)
    assert run.data.tags["mlflow.parentRunId"] == own
    assert run.data.metrics == {"a": 1.0}
    assert client.get_experiment(run.info.experiment_id).name == "topics-tuning"


def test_who_only_reads_makes_nothing(mlflow_registry, tmp_path):
    assert list(mlflow_registry.runs()) == []
    assert client_of(mlflow_registry).get_experiment_by_name("topics") is None
    assert list(MlflowRegistry("topics", f"sqlite:///{tmp_path / 'place' / 'mlflow.db'}").runs()) == []
    assert not (tmp_path / "place").exists()


def test_two_processes_make_one_database(mlflow_template, tmp_path, monkeypatch):
    """The second one waits for the first, and neither takes away what the other makes, or has written since."""
    made = []

    def make(path, artifacts):
        (tmp_path / ".mlflow.db.1.tmp").touch()
        made.append(path)
        time.sleep(0.3)
        (tmp_path / ".mlflow.db.1.tmp").unlink()
        shutil.copy(mlflow_template, path)

    monkeypatch.setattr(mlflow_registry_module, "_make_database", make)
    registries = [MlflowRegistry("topics", f"sqlite:///{tmp_path / 'mlflow.db'}") for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        ids = list(pool.map(record, registries, ["k1", "k2"]))
    assert len(made) == 1
    assert {run.run_id for run in registries[0].runs()} == set(ids)
