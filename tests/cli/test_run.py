"""`tamiz run`, its single steps and `tamiz compare`."""

from __future__ import annotations

import csv
import sys

import pytest
import yaml

from tamiz.blobs import open_blobs
from tamiz.cli.main import run_command
from tamiz.cli.running import _lead
from tamiz.config import load_project
from tamiz.pipeline import STEPS
from tamiz.pipeline.train import Trained
from tamiz.settings import new_registry
from tests.projects import rows, write_csv, write_project


def test_a_run_shows_steps_leaderboard_and_what_to_type_next(place, tamiz):
    write_project(place, candidates=[{"family": "prior"}, {"family": "linear"}])
    answer = tamiz("run")
    assert answer.code == 0
    jobs, *steps = answer.err.splitlines()
    assert jobs == "jobs  fetch done (1 file), clean to do, train to do, deploy to do, query after deploy"
    assert [line.split()[:2] for line in steps] == [["done", step] for step in STEPS]
    assert "linear *" in answer.out
    assert "version 1 (linear) is the champion" in answer.out
    assert "because: there was no champion" in answer.out
    assert "test_f1_macro" in answer.out
    assert answer.out.endswith(
        'Next:\n  tamiz predict "..."\n  tamiz predict --input new.csv --output answers.csv\n'
        "  tamiz promote --by val_f1_macro\n  tamiz serve\n"
    )
    again = tamiz("run")
    assert again.code == 0
    jobs, *steps = again.err.splitlines()
    assert jobs == "jobs  fetch done (1 file), clean done, train done, deploy done (version 1 now), query ready"
    assert [line.split()[:2] for line in steps] == [["skip", step] for step in STEPS]
    assert again.out == answer.out


def test_two_equals_are_called_equal(place, tamiz):
    write_project(place, n=60, candidates=[{"family": "prior", "name": name} for name in ("second", "other")])
    answer = tamiz("run", "--quiet")
    assert (
        "second and other are equal in val_f1_macro (95 % interval of the difference +0.000 to +0.000): second is "
        "chosen because it stands first in the project file\n"
    ) in answer.out
    assert "leads" not in answer.out


@pytest.mark.parametrize(("values", "said"), [((0.8, 0.7), "by 0.100 in"), ((0.7, 0.69996), "by 4e-05 in")])
def test_a_lead_is_never_shown_as_nothing(values, said):
    board = [Trained(name, "prior", "k", {"val_accuracy": v}, {}, "r") for name, v in zip("ab", values, strict=True)]
    ahead = {"winner": "a", "runner_up": "b", "metric": "val_accuracy", "low": -0.1, "high": 0.1, "p_better": 0.6}
    line = _lead({**ahead, "difference": values[0] - values[1]}, board)
    assert line == f"a leads b {said} val_accuracy (95 % interval -0.100 to +0.100, P(better) 0.60)"


def test_quiet_shows_results_alone(project, tamiz):
    answer = tamiz("run", "--quiet")
    assert (answer.code, answer.err) == (0, "")
    assert "version 2 (linear) is the champion" in answer.out


def test_json_is_one_document(project, tamiz):
    answer = tamiz("run", "--json")
    assert (answer.code, answer.err) == (0, "")
    found = answer.json
    assert found["steps"] == dict.fromkeys(STEPS, "skipped")
    assert (found["version"], found["champion"], found["chosen"]) == ("2", "2", "linear")
    assert found["leaderboard"][0]["metrics"]["val_f1_macro"] == found["metrics"]["val_f1_macro"]


@pytest.mark.parametrize("step", STEPS)
def test_every_step_is_a_command(place, tamiz, step):
    write_project(place, n=60)
    answer = tamiz(step, "--json")
    assert answer.code == 0, answer.err
    assert list(answer.json["steps"]) == list(STEPS[: STEPS.index(step) + 1])
    again = tamiz(step)
    assert {line.split()[0] for line in again.err.splitlines()} == {"skip"}
    assert ("Candidates on validation" in again.out) == (step in ("train", "evaluate"))


def test_a_project_is_named_by_file_or_folder(project, tamiz, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    for path in (project, project / "tamiz.yaml"):
        assert tamiz("run", "-p", path, "--json").json["version"] == "2"
    assert f"tamiz serve -p {project}" in tamiz("run", "--project", project).out


def test_settings_change_keys_for_one_run(project, tamiz):
    before = (project / "tamiz.yaml").read_text()
    found = tamiz("run", "--json", "--set", "split.seed=7", "--set", "candidates.0.params.words=[1, 1]").json
    assert found["steps"] == {"ingest": "skipped", "clean": "skipped", **dict.fromkeys(STEPS[2:], "done")}
    assert found["version"] == "3"
    assert (project / "tamiz.yaml").read_text() == before


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("split.sede=7", "split.sede: unknown key; allowed: by, near_duplicates, seed, test, validation; did you mean"),
        ("split.seed", "write it as key.path=value"),
        ("split.seed=x", "split.seed: got 'x'"),
        ("candidates.5.family=prior", "there is no such key"),
        ("name.first=x", "there is no such key"),
        ("split.seed=[1", "there is no such key"),
        ("task=multiclass", "did you mean 'multi-class'"),
    ],
)
def test_a_wrong_setting_is_refused(project, refused, setting, said):
    assert said in refused(2, "run", "--set", setting)


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize(
    ("family", "library", "extra"),
    [
        ("boosting", "lightgbm", "train"),
        ("few_shot", "onnxruntime", "onnx"),
        ("transformer", "torch", "transformers"),
        ("zero_shot", "onnxruntime", "onnx"),
    ],
)
def test_a_library_that_a_family_lacks_is_said_before_anything_is_done(
    place, tamiz, monkeypatch, dry, family, library, extra
):
    member = {"family": "ensemble", "params": {"members": [{"family": "linear"}, {"family": family}]}}
    monkeypatch.setitem(sys.modules, library, None)
    for candidate in ({"family": family}, member):
        write_project(place, candidates=[{"family": "prior"}, candidate])
        lacking = tamiz("run", *(["--dry-run"] if dry else []))
        assert lacking.code == 1
        assert f"tamiz[{extra}]" in lacking.err
        assert not (place / "lake").exists()


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize("family", ["few_shot", "transformer", "ensemble"])
def test_what_a_candidate_lacks_is_said_before_any_is_trained(place, tamiz, monkeypatch, dry, family):
    few = {"family": "few_shot", "params": {"form": "bf16"}}
    params = {"members": [{"family": "linear"}, few]} if family == "ensemble" else few["params"]
    write_project(place, candidates=[{"family": "prior"}, {"family": family, "params": params}])
    monkeypatch.setitem(sys.modules, "openvino", None)
    lacking = tamiz("run", *(["--dry-run"] if dry else []))
    assert lacking.code == 1
    assert "tamiz[openvino]" in lacking.err
    assert not (place / "lake").exists()
    write_project(place, candidates=[{"family": "prior"}, {"family": "transformer", "params": {"form": "bf61"}}])
    wrong = tamiz("run", *(["--dry-run"] if dry else []))
    assert wrong.code == 2
    assert "transformer: form: got 'bf61'" in wrong.err


def test_a_dry_run_shows_the_plan_and_does_nothing(place, tamiz):
    write_project(place)
    answer = tamiz("run", "--dry-run")
    assert answer.code == 0
    assert str(place / "texts.csv") in answer.out
    assert "ingest, clean, split, train, evaluate" in answer.out
    assert "  tamiz train\n" in answer.out
    (place / "tamiz.yaml").rename(place / "other.yaml")  # what to type works from here, with the file's name
    assert "  tamiz train -p other.yaml\n" in tamiz("run", "--dry-run", "-p", "other.yaml").out
    (place / "other.yaml").rename(place / "tamiz.yaml")
    plan = tamiz("run", "--dry-run", "--json", "--set", "select.metric=val_accuracy").json
    assert plan["select"] == "val_accuracy"
    assert plan["candidates"] == ["linear"]
    assert not (place / "lake").exists()
    assert not (place / "models").exists()


# --- jobs


def test_a_plan_says_which_jobs_are_done(place, tamiz):
    def done() -> dict[str, bool]:
        return {job["name"]: job["done"] for job in tamiz("run", "--dry-run", "--json").json["jobs"]}

    write_project(place, candidates=[{"family": "prior"}, {"family": "linear"}])
    assert done() == {"fetch": True, "clean": False, "train": False, "deploy": False, "query": False}
    assert tamiz("clean").code == 0
    assert not done()["clean"]  # a split belongs to it
    assert tamiz("split").code == 0
    assert done() == {"fetch": True, "clean": True, "train": False, "deploy": False, "query": False}
    assert tamiz("train", "--set", "candidates=[{family: linear}]").code == 0
    assert "train to do (1 of 2 candidates done)" in tamiz("run", "--dry-run").out
    assert tamiz("train").code == 0
    assert done() == {"fetch": True, "clean": True, "train": True, "deploy": False, "query": False}
    assert tamiz("evaluate").code == 0
    assert set(done().values()) == {True}
    write_csv(place / "more.csv", rows(20, start=500))
    found = tamiz("run", "--dry-run", "--json", "--set", "data.source=[texts.csv, more.csv]").json["jobs"]
    assert [job["name"] for job in found if job["done"]] == ["fetch", "query"]


def test_settings_that_change_a_job_make_it_due(project, tamiz):
    def due(*settings: str) -> list[str]:
        found = tamiz("run", "--dry-run", "--json", *settings).json["jobs"]
        return [job["name"] for job in found if not job["done"]]

    assert due() == []
    assert due("--set", "split.seed=7") == ["clean", "train", "deploy"]
    assert due("--set", "candidates.0.params.words=[1, 1]") == ["train", "deploy"]
    assert due("--set", "select.metric=val_accuracy") == ["deploy"]


def test_a_dry_run_sees_that_a_file_has_changed(project, place, tamiz):
    table = rows(120)
    table[0]["label"] = "food" if table[0]["label"] != "food" else "money"
    write_csv(place / "texts.csv", table)
    shown = tamiz("run", "--dry-run")
    assert shown.code == 0
    assert "clean to do (1 new file)" in shown.out
    assert "train to do" in shown.out


def test_an_empty_file_beside_others_leaves_no_job_to_do(place, tamiz):
    (place / "data").mkdir()
    write_csv(place / "data" / "texts.csv", rows(120))
    (place / "data" / "none.csv").touch()
    settings = ("--set", "data.source=data")
    write_project(place)
    assert tamiz("run", *settings).code == 0
    assert all(job["done"] for job in tamiz("run", "--dry-run", "--json", *settings).json["jobs"])


def test_a_job_says_which_one_is_missing_before_it(place, tamiz, refused):
    write_project(place)
    assert "nothing was published there yet; `tamiz run` trains and publishes" in refused(1, "predict", "bread")
    assert tamiz("train").code == 0
    assert "nothing was published there yet" in refused(1, "promote", "--by", "val_f1_macro")
    (place / "texts.csv").unlink()
    for step in STEPS:
        assert "bring public data with tamiz fetch" in refused(1, step)
    shown = tamiz("run", "--dry-run")
    assert shown.code == 0
    assert "fetch to do (nothing at texts.csv)" in shown.out


@pytest.mark.usefixtures("s3_place")
def test_where_s3_refuses_nothing_is_said_to_be_missing(place, refused):
    write_project(place, data={"source": "s3://bucket-of-nobody/in"})
    said = refused(1, "ingest")
    assert "S3 answered NoSuchBucket" in said
    assert "tamiz fetch" not in said


# --- a file without a project


def test_a_file_is_enough(place, tamiz, mlflow_template):
    write_csv(place / "reviews.csv", rows(90))
    (place / "reviews-tamiz").mkdir()
    (place / "reviews-tamiz" / "mlflow.db").write_bytes(mlflow_template.read_bytes())
    answer = tamiz("run", "reviews.csv")
    assert answer.code == 0, answer.err
    assert "task: multi-class; 3 labels" in answer.err
    assert "keep it as a project file with --save tamiz.yaml" in answer.err
    assert "is the champion" in answer.out
    assert not (place / "tamiz.yaml").exists()
    assert (place / "reviews-tamiz" / "models" / "reviews" / "index.json").exists()
    assert tamiz("predict", "bread soup", "--model", "reviews-tamiz/models/reviews").code == 0

    saved = tamiz("run", "reviews.csv", "--save", "tamiz.yaml", "--json")
    assert saved.code == 0
    assert saved.json["steps"] == dict.fromkeys(STEPS, "skipped")
    assert tamiz("run", "--json").json == saved.json
    project = yaml.safe_load((place / "tamiz.yaml").read_text())
    assert project["lake"] == "reviews-tamiz/lake"

    again = tamiz("run", "reviews.csv", "--save", "tamiz.yaml")
    assert again.code == 2
    assert "tamiz.yaml exists and is never overwritten" in again.err


def test_saving_needs_a_file(project, refused):
    assert "--save goes with a file of texts" in refused(2, "run", "--save", "other.yaml")


# --- what goes wrong


def test_no_project_says_how_to_make_one(place, refused):
    assert "no project file at tamiz.yaml. Write one with: tamiz init" in refused(2, "run")


def test_a_busy_project_is_told(project, refused):
    with open_blobs("lake").lock("run", wait_s=0, owner="ana on host-7"):
        assert "ana on host-7" in refused(1, "run", "--quiet")


def test_data_that_do_not_do_are_exit_code_1(place, refused):
    write_project(place)
    with (place / "texts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text", "label"], *([i, f"words {i}", "one"] for i in range(20))])
    assert "at least two labels" in refused(1, "run", "--quiet")


def test_hints_name_a_project_file_of_another_name(place, tamiz):
    write_project(place).rename(place / "other.yaml")
    answer = tamiz("run", "-p", "other.yaml", "--quiet")
    said = answer.out.partition("Next:\n")[2].splitlines()
    assert said[0] == '  tamiz predict "..." -p other.yaml'
    assert all(line.endswith(" -p other.yaml") for line in said)


@pytest.mark.parametrize(
    "arguments", [("nosuch",), ("run", "--nosuch"), ("run", "--wait", "soon"), ("versions", "one", "two")]
)
def test_wrong_use_is_exit_code_2(project, tamiz, arguments):
    answer = tamiz(*arguments)
    assert answer.code == 2
    assert "--help" in answer.err


def test_debug_shows_the_traceback(place, capsys):
    from tamiz.errors import ConfigError

    with pytest.raises(ConfigError):
        run_command(["--debug", "run"])


def test_what_nobody_expected_is_one_line_as_well(place, capsys):
    (place / "tamiz.yaml").write_text("name: " + "[" * 5000)  # deeper than Python's stack
    assert run_command(["run", "--json"]) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert (captured.out, line.startswith("error RecursionError: ")) == ("", True)
    assert line.endswith("(unexpected; tamiz --debug shows where)")
    with pytest.raises(RecursionError):
        run_command(["--debug", "run"])


# --- compare


def test_all_runs_are_compared_best_first(project, tamiz):
    found = tamiz("compare", "--json").json
    assert [(run["candidate"], run["version"]) for run in found] == [("linear", "2"), ("prior", "1")]
    assert found[0]["metrics"]["val_f1_macro"] > found[1]["metrics"]["val_f1_macro"]
    by_size = tamiz("compare", "--json", "--by", "size_mb").json
    assert [run["candidate"] for run in by_size] == ["prior", "linear"]
    shown = tamiz("compare", "--by", "val_log_loss").out
    assert shown.index("linear") < shown.index("prior")
    assert "val_log_loss" in shown


def test_a_figure_that_is_none_is_null_for_machines(project, tamiz):
    registry = new_registry(load_project(project, variables={}))
    first = registry.runs()[0].run_id
    registry._client.log_metric(first, "val_mine", float("nan"))
    found = {run["run_id"]: run["metrics"].get("val_mine", "-") for run in tamiz("compare", "--json").json}
    assert (found.pop(first), set(found.values())) == (None, {"-"})


def test_an_unknown_metric_is_refused(project, refused):
    assert "did you mean 'val_f1_macro'" in refused(2, "compare", "--by", "val_f1_marco")


def test_nothing_to_compare_is_no_error(place, tamiz):
    write_project(place)
    (place / "mlflow.db").unlink()
    before = sorted(place.iterdir())
    assert tamiz("compare", "--json").json == []
    assert tamiz("compare").code == 0
    assert sorted(place.iterdir()) == before


def test_a_comparison_may_be_written_as_a_page(project, tamiz, refused):
    from tests.reports.pages import Page

    answer = tamiz("compare", "--report", "runs.html")
    assert answer.code == 0
    assert answer.out.splitlines()[-1] == "report: runs.html"
    page = Page((project / "runs.html").read_text(encoding="utf-8"))
    page.check()
    (table,) = page.tables
    assert [row[:2] for row in table[1:]] == [["linear", "2"], ["prior", "1"]]
    assert " – " in table[1][2]
    assert page.charts["Reliability"]["data"][1]["name"].startswith("linear, version 2, ECE ")
    assert "cannot be written" in refused(2, "compare", "--report", "nowhere/runs.html")


def test_a_run_says_where_its_report_is(project, tamiz):
    assert "  report: lake/reports/topics/2/report.html" in tamiz("run").out.splitlines()
