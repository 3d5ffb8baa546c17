"""The project file: what it takes, what it refuses and how it says so."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tamiz.config import CONFIG_VERSION, Project, expand, json_schema, load_project, parse_project
from tamiz.errors import ConfigError
from tamiz.types import Task

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*/tamiz.yaml"))


def raw(**changes: Any) -> dict[str, Any]:
    return {"version": 1, "name": "reviews", "task": "binary", "data": {"source": "a.csv"}, **changes}


def refusal(project: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_project(project, where="tamiz.yaml")
    message = str(caught.value)
    assert message.startswith("tamiz.yaml: ")
    assert "pydantic" not in message
    return message


def with_at(path: str, value: Any) -> dict[str, Any]:
    """Return a valid project with one value changed; parts of `path` are parted by `/`."""
    project = raw(candidates=[{"family": "prior"}, {"family": "linear"}])
    place: Any = project
    *parents, last = path.split("/")
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    place[int(last) if isinstance(place, list) else last] = value
    return project


# --- what is taken


def test_the_least_project_gets_the_documented_defaults():
    project = parse_project(raw())
    assert project.data.source == ["a.csv"]
    assert (project.data.text, project.data.label) == ("text", "label")
    assert [c.title for c in project.candidates] == ["prior", "linear"]
    assert (project.split.validation, project.split.test, project.split.seed) == (0.1, 0.1, 0)
    assert project.select.metric == "val_f1_macro"
    assert (project.lake, project.registry.store) == ("lake", "models")


@pytest.mark.parametrize("task", list(Task))
def test_every_task_is_spelt_with_a_hyphen(task):
    assert parse_project(raw(task=str(task))).task is task


def test_labels_may_be_a_plain_list():
    short = parse_project(raw(labels=["no", "yes"]))
    long = parse_project(raw(labels={"names": ["no", "yes"]}))
    assert short.labels == long.labels
    assert short.labels.names == ["no", "yes"]


@pytest.mark.parametrize("key", ["source", "test", "unlabeled", "partition_by"])
def test_one_place_may_stand_without_a_list(key):
    assert getattr(parse_project(with_at(f"data/{key}", "b.csv")).data, key) == ["b.csv"]


def test_a_project_cannot_be_changed():
    project = parse_project(raw())
    with pytest.raises(ValueError, match="frozen"):
        project.name = "other"


def test_relative_places_are_taken_from_the_folder_of_the_file(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "tamiz.yaml").write_text(yaml.safe_dump(raw()))
    project = load_project(tmp_path / "sub", variables={})
    assert project.folder == tmp_path / "sub"
    assert project.resolve("a.csv") == str(tmp_path / "sub" / "a.csv")
    assert project.resolve(str(tmp_path / "b.csv")) == str(tmp_path / "b.csv")
    assert project.resolve("s3://bucket/lake") == "s3://bucket/lake"


# --- what is refused, and how


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("taks", "task"),
        ("data/lable", "label"),
        ("labels/postive", "positive"),
        ("split/tset", "test"),
        ("candidates/1/famly", "family"),
        ("select/metrics", "metric"),
        ("registry/stores", "store"),
        ("serve/prot", "port"),
    ],
)
def test_an_unknown_key_is_named_with_its_siblings_and_the_nearest(path, near):
    message = refusal(with_at(path, "x"))
    dotted = path.replace("/1/", "[1].").replace("/", ".")
    assert f"{dotted}: unknown key; allowed: " in message
    assert f"did you mean {near!r}?" in message


def test_an_unknown_key_like_no_other_gets_no_suggestion():
    message = refusal(raw(zzzzzz=1))
    assert "zzzzzz: unknown key; allowed: candidates, clean, data" in message
    assert "did you mean" not in message


@pytest.mark.parametrize("missing", ["name", "task", "data"])
def test_a_missing_key_is_named(missing):
    project = raw()
    del project[missing]
    assert f"{missing}: this key is missing" in refusal(project)


@pytest.mark.parametrize(("path", "value"), [("data", {}), ("candidates", [{"name": "x"}])])
def test_a_missing_key_inside_a_section_is_named_with_its_place(path, value):
    expected = {"data": "data.source", "candidates": "candidates[0].family"}[path]
    assert f"{expected}: this key is missing" in refusal(raw(**{path: value}))


@pytest.mark.parametrize(
    ("path", "value", "allowed", "near"),
    [
        ("task", "multiclass", ["binary", "multi-class", "multi-label"], "multi-class"),
        ("task", "multi_label", ["binary", "multi-class", "multi-label"], "multi-label"),
        ("split/by", "tme", ["hash", "time"], "time"),
        ("candidates/0/calibrate", "sigmod", ["auto", "isotonic", "none", "sigmoid", "temperature"], "sigmoid"),
        ("select/mode", "mxa", ["max", "min"], "max"),
    ],
)
def test_a_wrong_choice_is_shown_with_the_allowed_ones_and_the_nearest(path, value, allowed, near):
    message = refusal(with_at(path, value))
    dotted = path.replace("/0/", "[0].").replace("/", ".")
    assert f"{dotted}: got {value!r}; allowed: {', '.join(allowed)}" in message
    assert f"did you mean {near!r}?" in message


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"thresholds": "defualt"}, "did you mean 'default'?"),
        (
            {"thresholds": {"metrc": "f1"}},
            "candidates[0].thresholds.metrc: unknown key; allowed: at_least, metric, values; did you mean 'metric'?",
        ),
        ({"thresholds": {"metric": "recall"}}, "add at_least with precision or specificity"),
        ({"thresholds": {"at_least": {"precision": 0.9}}}, "say which metric to tune for"),
        ({"thresholds": "f1", "costs": {"false_negative": 5}}, "costs give the thresholds"),
        ({"costs": {"matrix": {"a": {"b": 2}}}}, "costs.matrix: does not fit a binary task"),
        ({"costs": {"false_positive": 0}}, "candidates[0].costs.false_positive: got 0; "),
        ({"abstain": {}}, "give coverage or error"),
        ({"abstain": {"coverage": 0.9, "error": 0.1}}, "give coverage or error"),
        ({"abstain": {"coverage": 0.9}, "abstain_below": 0.5}, "abstain and abstain_below: give one of the two"),
        ({"conformal": {"coverage": 1}}, "candidates[0].conformal.coverage: got 1; "),
    ],
)
def test_decision_keys_that_make_no_sense_are_refused(section, said):
    assert said in refusal(raw(task="binary", candidates=[{"family": "linear", **section}]))


@pytest.mark.parametrize("section", [{"abstain": {"coverage": 0.9}}, {"conformal": {"coverage": 0.9, "score": "aps"}}])
def test_decision_keys_of_one_label_a_text_are_refused_for_several(section):
    assert "multi-label" in refusal(raw(task="multi-label", candidates=[{"family": "linear", **section}])) or (
        "one label a text" in refusal(raw(task="multi-label", candidates=[{"family": "linear", **section}]))
    )


def test_sets_and_refitting_exclude_each_other():
    candidates = [{"family": "linear", "conformal": {"coverage": 0.9}}]
    assert "select.refit" in refusal(raw(candidates=candidates, select={"refit": True}))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("split/validation", 0, "greater than 0"),
        ("split/validation", 1, "less than 1"),
        ("split/test", -0.1, "greater than or equal to 0"),
        ("split/seed", "x", "integer"),
        ("data/max_refused", 1.5, "less than 1"),
        ("data/source", [], "at least 1 item"),
        ("labels/min_examples", 0, "greater than or equal to 1"),
        ("candidates", [], "at least 1 item"),
        ("candidates/0/abstain_below", 2, "less than or equal to 1"),
        ("select/limits", {"size_mb": "small"}, "number"),
        ("serve/port", 0, "greater than or equal to 1"),
        ("serve/port", 65536, "less than or equal to 65535"),
    ],
)
def test_a_value_outside_its_bounds_is_shown_with_the_bound(path, value, said):
    message = refusal(with_at(path, value))
    place = path.replace("candidates/0/", "candidates[0].").replace("/", ".")
    given = value["size_mb"] if isinstance(value, dict) else value
    assert f"{place}{'.size_mb' if isinstance(value, dict) else ''}: got {given!r}; " in message
    assert said in message


@pytest.mark.parametrize("name", ["", "-a", "a b", "ñandú", "a/b", "a" * 65, "../x"])
def test_a_name_that_cannot_be_a_folder_or_address_is_refused(name):
    assert f"name: got {name!r}; allowed: letters, digits, - and _" in refusal(raw(name=name))


def test_an_origin_that_is_none_is_told_what_one_is():
    said = refusal(raw(serve={"cors_origins": ["app.example.org"]}))
    assert "serve.cors_origins[0]: got 'app.example.org'; allowed: * for all, or a scheme and a host" in said


def test_a_long_value_is_cut_in_the_message():
    message = refusal(raw(name="x y" * 1000))
    assert len(message) < 250
    assert "…" in message


@pytest.mark.parametrize("path", ["data", "split", "labels", "candidates/0"])
def test_a_section_that_is_no_mapping_is_refused(path):
    place = path.replace("/0", "[0]")
    assert f"{place}: got 'x'; a mapping of keys to values is expected" in refusal(with_at(path, "x"))


@pytest.mark.parametrize("path", ["clean", "candidates/0/prepare"])
def test_an_unknown_cleaning_step_is_named_with_the_nearest(path):
    message = refusal(with_at(path, ["html", "whitspace"]))
    assert path.replace("/0/", "[0].") in message
    assert "'whitspace'" in message
    assert "did you mean 'whitespace'?" in message


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["a", "a"], "labels.names: a label stands there twice"),
        (["a"], "labels.names: at least two labels are needed"),
        (["a", "b", "c"], "a binary task has two labels, not 3; use task: multi-class"),
        ({"names": ["no", "yes"], "positive": "yse"}, "'yse' is not a label; allowed: no, yes; did you mean 'yes'?"),
        ({"names": ["no", "yes"], "rename": {"y": "yse"}}, "labels.rename: 'yse' does not stand in labels.names"),
        ({"rename": {True: "yes"}}, "labels.rename"),
        ({"rename": {"y": " "}}, "labels.rename.y"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, said):
    assert said in refusal(raw(labels=labels))


def test_two_candidates_of_one_name_are_refused():
    twice = [{"family": "linear"}, {"family": "linear"}]
    assert "candidates: two have the name 'linear'" in refusal(raw(candidates=twice))
    named = [{"family": "linear", "name": "prior"}, {"family": "prior"}]
    assert "candidates: two have the name 'prior'" in refusal(raw(candidates=named))
    apart = [{"family": "linear"}, {"family": "linear", "name": "again"}]
    assert [c.title for c in parse_project(raw(candidates=apart)).candidates] == ["linear", "again"]


def test_a_split_by_time_needs_a_time_column():
    assert "data.time names no column" in refusal(raw(split={"by": "time"}))


def test_shares_must_leave_something_for_training():
    assert "below 1" in refusal(raw(split={"validation": 0.5, "test": 0.5}))


def test_several_findings_are_listed_one_a_line_and_at_most_ten():
    message = refusal({**{f"key{i}": 1 for i in range(14)}, "name": "x", "task": "binary"})
    lines = message.splitlines()
    assert lines[0] == "tamiz.yaml: "
    assert len(lines) == 1 + 10 + 1
    assert lines[-1].strip() == "and 5 more"


# --- versions


def test_a_draft_is_migrated_with_a_notice():
    told: list[str] = []
    draft = {"version": 0, "name": "x", "task": "binary", "input": "a.csv", "target": "y", "data": {"text": "t"}}
    before = copy.deepcopy(draft)
    project = parse_project(draft, where="old.yaml", notice=told.append)
    assert (project.data.source, project.data.label, project.data.text) == (["a.csv"], "y", "t")
    assert project.version == CONFIG_VERSION
    assert len(told) == 1
    assert told[0].startswith("old.yaml: read as format 0")
    assert "version: 1" in told[0]
    assert draft == before


def test_a_present_project_gives_no_notice():
    told: list[str] = []
    parse_project(raw(), notice=told.append)
    project = raw()
    del project["version"]
    assert parse_project(project, notice=told.append).version == CONFIG_VERSION
    assert told == []


def test_a_future_version_asks_for_a_newer_release():
    message = refusal(raw(version=CONFIG_VERSION + 1))
    assert f"version {CONFIG_VERSION + 1} is newer than this Tamiz understands (up to {CONFIG_VERSION})" in message
    assert "pip install --upgrade tamiz" in message


@pytest.mark.parametrize("version", ["1", -1, True, 1.0, None])
def test_a_version_that_is_no_whole_number_is_refused(version):
    assert f"version: got {version!r}" in refusal(raw(version=version))


# --- variables


def test_variables_are_expanded_everywhere():
    value = {"a": "${X}/b/${Y}", "n": 3, "list": [{"deep": "${X}"}], "none": None, "kept": "$X and ${1}"}
    found = expand(value, {"X": "x", "Y": "${X}"})
    assert found == {"a": "x/b/${X}", "n": 3, "list": [{"deep": "x"}], "none": None, "kept": "$X and ${1}"}


def test_a_missing_variable_is_named_with_its_place():
    with pytest.raises(ConfigError, match=r"data\.source\[1\]: the environment variable DATA is not set\. Set it, for"):
        expand({"data": {"source": ["a", "${DATA}/b"]}}, {})


def test_a_project_says_how_to_set_its_variables(tmp_path):
    path = tmp_path / "tamiz.yaml"
    path.write_text(yaml.safe_dump(raw(data={"source": "${DATA}/a.csv"}, **{"x-variables": {"DATA": "Ask Ana."}})))
    with pytest.raises(ConfigError, match=r"data\.source: the environment variable DATA is not set\. Ask Ana\.$"):
        load_project(path, variables={})
    assert load_project(path, variables={"DATA": "/d"}).data.source == ["/d/a.csv"]


def test_hints_for_variables_must_be_a_mapping(tmp_path):
    (tmp_path / "tamiz.yaml").write_text(yaml.safe_dump(raw(**{"x-variables": ["DATA"]})))
    with pytest.raises(ConfigError, match="x-variables: a mapping"):
        load_project(tmp_path, variables={})


# --- files


def test_no_file_says_how_to_write_one(tmp_path):
    with pytest.raises(ConfigError, match=r"no project file at .*tamiz\.yaml\. Write one with: tamiz init"):
        load_project(tmp_path, variables={})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "a project file is a mapping of keys to values, not NoneType"),
        (b"- a\n- b\n", "not list"),
        (b"a: [1\n", "is not valid YAML"),
        (b"name: \xff\xfe", "cannot be read"),
    ],
)
def test_a_file_that_is_no_project_is_refused(tmp_path, content, said):
    (tmp_path / "tamiz.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_project(tmp_path, variables={})
    assert said in str(caught.value)
    assert "tamiz.yaml" in str(caught.value)


@pytest.mark.parametrize("data", ["{source: ${DATA}/x.csv}", "{source: [a.csv, ${DATA}/x.csv]}", "{source: a/${DATA}}"])
def test_a_variable_inside_braces_is_to_be_quoted(tmp_path, data):
    (tmp_path / "tamiz.yaml").write_text(f"name: café\ntask: binary\ndata: {data}\n", encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"(?s)not valid YAML.*holds \$\{NAME\} stands in quotes: \{source: \"\$\{DATA\}/"
    ):
        load_project(tmp_path, variables={"DATA": "d"})


def test_another_fault_of_the_yaml_says_nothing_of_variables(tmp_path):
    (tmp_path / "tamiz.yaml").write_text("name: ${NAME}\ndata: {source: 1\n")
    with pytest.raises(ConfigError, match="not valid YAML") as caught:
        load_project(tmp_path, variables={})
    assert "quotes" not in str(caught.value)


def test_yaml_cannot_make_python_objects(tmp_path):
    (tmp_path / "tamiz.yaml").write_text("name: !!python/object/apply:os.getcwd []")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_project(tmp_path, variables={})


# --- the JSON Schema


@pytest.fixture(scope="module")
def validator():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_the_schema_takes_the_examples(validator, path):
    assert list(validator.iter_errors(yaml.safe_load(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "wrong",
    [
        raw(taks="x"),
        raw(data={"source": "a.csv", "lable": "x"}),
        raw(task="multiclass"),
        raw(split={"validation": 2}),
        raw(candidates=[{"famly": "linear"}]),
        raw(labels=[1, 2]),
        {"version": 1},
    ],
)
def test_the_schema_refuses_what_the_parser_refuses(validator, wrong):
    assert not validator.is_valid(wrong)
    refusal(wrong)


@pytest.mark.parametrize(
    "right",
    [
        raw(),
        raw(data={"source": ["a", "b"], "test": "c", "unlabeled": ["d"], "partition_by": "state"}),
        raw(labels=["a", "b"]),
        raw(labels={"names": ["a", "b"], "positive": "b"}),
        raw(clean=["html", {"stem": "porter"}]),
    ],
)
def test_the_schema_takes_what_the_parser_takes(validator, right):
    assert list(validator.iter_errors(right)) == []
    parse_project(right)


def test_every_key_of_the_schema_is_described():
    schema = json_schema()
    sections = [schema, *(part for part in schema["$defs"].values() if part.get("type") == "object")]
    named = [(key, value) for section in sections for key, value in section["properties"].items()]
    bare = [key for key, value in named if "description" not in value and "$ref" not in str(value)]
    assert bare == []
    assert Project.model_fields.keys() <= schema["properties"].keys()


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path, head = tmp_path / "tamiz.yaml", "version: 1\nname: x\ntask: binary\ndata: {source: a.csv}\n"
    path.write_text(f"{head}split: {{seed: 1}}\nsplit: {{seed: 2}}\n")
    with pytest.raises(ConfigError, match=r"'split' stands twice(?s:.*)line 6"):
        load_project(path, variables={})
    path.write_text(f"{head}split: {{<<: {{seed: 1}}, seed: 2}}\n")
    assert load_project(path, variables={}).split.seed == 2
