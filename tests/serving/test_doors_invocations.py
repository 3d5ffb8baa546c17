"""`/invocations`: every shape of question, every form of answer."""

import csv
import io
import json

import numpy as np
import pytest

from tamiz.config import RecordsConfig, ServeConfig
from tamiz.errors import OverloadedError
from tamiz.serving.batching import WorkLine
from tamiz.serving.doors.frames import SplitBody, split_texts
from tamiz.serving.feedback import text_sha256
from tamiz.types import Task
from tests.serving.helpers import LABELS, TEXTS, ask, make_model, predict, serve_model
from tests.serving.promptable import promptable_app

URL = "/invocations"
LINES = {"content-type": "application/jsonlines"}
CSV = {"content-type": "text/csv"}
SECRET = "Zitronenfalter"


def invoke(app, body, **headers):
    if isinstance(body, str):
        return ask(app, "POST", URL, content=body.encode(), headers=headers)
    return ask(app, "POST", URL, json=body, headers=headers)


def lines_of(got):
    assert got.status_code == 200, got.text
    return [json.loads(line) for line in got.text.splitlines()]


@pytest.fixture(scope="module")
def rows():
    """Give what every answer in predict's columns must be."""
    model = make_model()
    return [model.record(prediction) for prediction in model.predict(TEXTS)]


@pytest.fixture(scope="module")
def zero_shot():
    return promptable_app()


# --- JSON


def test_inputs_give_labels_by_falling_score(shared_app):
    (want,) = make_model().predict_proba(TEXTS[:1])
    got = invoke(shared_app, {"inputs": TEXTS[0]}).json()
    assert [one["label"] for one in got] == [LABELS[place] for place in np.argsort(-want)]
    np.testing.assert_allclose([one["score"] for one in got], sorted(want, reverse=True), atol=1e-12)
    assert invoke(shared_app, {"inputs": TEXTS[:1]}).json() == [got]
    short = invoke(shared_app, {"inputs": TEXTS[0], "parameters": {"top_k": 1, "function_to_apply": "softmax"}})
    assert short.json() == got[:1]


def test_equal_scores_stand_in_label_order(tmp_path):
    got = invoke(serve_model(tmp_path, make_model("prior")), {"inputs": "x"}).json()
    assert [one["label"] for one in got] == list(LABELS)


def test_text_gives_the_native_answer(tmp_path):
    app = serve_model(tmp_path, make_model(abstain_below=0.6))
    texts = [*TEXTS, "nothing known"]
    got = invoke(app, {"text": texts}).json()
    assert got == predict(app, texts).json()
    assert got["predictions"][-1]["label"] is None


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["id", "text"], "data": [[n, text] for n, text in enumerate(TEXTS)]}},
        {"dataframe_split": {"columns": [0], "index": [7, 8, 9], "data": [[text] for text in TEXTS]}},
        {"dataframe_records": [{"id": 1, "text": text} for text in TEXTS]},
        {"dataframe_records": [{"0": text} for text in TEXTS], "params": {}},
        {"instances": TEXTS},
        {"instances": [[text] for text in TEXTS]},
        {"instances": [{"text": text} for text in TEXTS]},
    ],
)
def test_tables_give_a_row_a_text_in_predicts_columns(shared_app, rows, body):
    got = invoke(shared_app, body)
    assert got.status_code == 200, got.text
    assert got.headers["content-type"] == "application/json"
    assert got.json() == {"predictions": rows}
    assert list(rows[0]) == ["predicted_label", "predicted_probability", *(f"p_{label}" for label in LABELS)]


def test_a_missing_cell_is_an_empty_text_and_a_number_its_digits(shared_app):
    got = invoke(shared_app, {"dataframe_records": [{"text": None}, {"text": 12}]}).json()["predictions"]
    assert got == invoke(shared_app, {"instances": ["", "12"]}).json()["predictions"]


def test_several_labels_are_lists(tmp_path):
    model = make_model(task=Task.MULTI_LABEL)
    app = serve_model(tmp_path, model)
    (row,) = invoke(app, {"instances": ["my card and the loan"]}).json()["predictions"]
    assert row["predicted_label"] == list(model.predict(["my card and the loan"])[0].label)
    got = invoke(app, {"instances": ["my card and the loan"]}, accept="text/csv")
    (cells,) = csv.DictReader(io.StringIO(got.text))
    assert json.loads(cells["predicted_label"]) == row["predicted_label"]
    assert json.loads(cells["predicted_probability"]) == row["predicted_probability"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "there are 0"),
        ({"text": ["a"], "inputs": "b"}, "there are 2"),
        (["a"], "there are 0"),
        ("a", "The body is not valid JSON"),
        ("", "The body is not valid JSON"),
        ('{"inputs": "\\ud800"}', "not valid JSON"),
        ('{"inputs": NaN}', "body.inputs"),
        ({"text": "a"}, "body.text"),
        ({"inputs": 5}, "body.inputs"),
        ({"inputs": ["a", None]}, "body.inputs"),
        ({"inputs": "a", SECRET: 1}, "allowed: inputs, parameters, options"),
        ({"inputs": "a", "parameters": {"top_k": 0}}, "top_k"),
        ({"inputs": "a", "parameters": {SECRET: 1}}, "body.parameters: Unknown field; allowed: candidate_labels, hypo"),
        (
            {"dataframe_split": {"columns": ["text"], "data": [["a"]], SECRET: 1}},
            "body.dataframe_split: Unknown field; allowed: columns",
        ),
        ({"inputs": "a", "parameters": {"function_to_apply": "none"}}, "allowed: softmax"),
        ({"inputs": "a", "parameters": {"multi_label": True}}, "candidate_labels"),
        ({"inputs": SECRET, "parameters": {"candidate_labels": ["a", SECRET]}}, "labels are fixed"),
        ({"instances": [["a", "b"]]}, "body.instances[0]"),
        ({"instances": [{"txt": "a"}]}, "'text'"),
        ({"instances": [5]}, "body.instances[0]"),
        ({"dataframe_records": [{"text": ["a"]}]}, "body.dataframe_records[0].text"),
        ({"dataframe_split": {"columns": ["txt"], "data": [["a"]]}}, "'text'"),
        ({"dataframe_split": {"columns": ["text", "id"], "data": [["a"]]}}, "1 cells"),
        ({"dataframe_split": {"columns": [], "data": []}}, "columns"),
    ],
)
def test_any_fault_of_the_body_is_400_in_mlflows_shape(shared_app, body, words):
    got = invoke(shared_app, body)
    assert got.status_code == 400, got.text
    assert got.headers["content-type"] == "application/json"
    assert got.json()["error_code"] == "BAD_REQUEST"
    assert words in got.json()["message"]
    assert SECRET not in got.text


def test_other_failures_keep_their_status(tmp_path):
    app = serve_model(tmp_path, limits=ServeConfig(max_texts=2, max_characters=30))
    assert invoke(app, {"instances": ["a", "b", "c"]}).status_code == 413
    assert invoke(app, '"a"\n"b"\n"c"', **LINES).status_code == 413
    assert invoke(app, "a\nb\nc", **CSV).status_code == 413
    assert invoke(app, {"inputs": "a" * 31}).status_code == 413
    assert ask(app, "GET", URL).status_code == 405
    refused = ask(app, "POST", URL, json={"inputs": "a"}, base_url="http://evil.example")
    assert (refused.status_code, refused.json()["error_code"]) == (403, "PERMISSION_DENIED")


# --- media types


@pytest.mark.parametrize("kind", ["application/json; charset=UTF-8", "application/x-www-form-urlencoded", "", None])
def test_json_is_read_where_nothing_else_is_said(shared_app, kind):
    headers = {} if kind is None else {"content-type": kind}
    assert invoke(shared_app, '{"inputs": "a"}', **headers).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/json; charset=latin-1", SECRET])
def test_other_bodies_are_refused(shared_app, kind):
    got = invoke(shared_app, '{"inputs": "a"}', **{"content-type": kind})
    assert got.status_code == 415
    assert SECRET not in got.text


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("", "application/json"),
        ("application/json", "application/json"),
        ("application/jsonlines", "application/jsonlines"),
        ("application/x-ndjson", "application/x-ndjson"),
        ("text/csv", "text/csv; charset=utf-8"),
        ("text/*", "text/csv; charset=utf-8"),
        ("text/html, text/csv;q=0.9, */*;q=0.1", "text/csv; charset=utf-8"),
        ("text/csv;q=0.5, application/json", "application/json"),
        ("text/csv;q=0, */*;q=0.1", "application/json"),
        ("TEXT/CSV", "text/csv; charset=utf-8"),
    ],
)
def test_the_answer_comes_in_the_form_that_is_accepted(shared_app, accept, kind):
    got = invoke(shared_app, {"inputs": "a"}, accept=accept)
    assert (got.status_code, got.headers["content-type"]) == (200, kind)


@pytest.mark.parametrize("accept", ["text/html", "image/*", "text/csv;q=0", "application/json;q=x", SECRET])
def test_forms_that_are_not_given_are_refused(shared_app, accept):
    got = invoke(shared_app, {"inputs": "a"}, accept=accept)
    assert got.status_code == 406
    assert "application/json" in got.json()["message"]
    assert SECRET not in got.text


def test_an_answer_in_lines_has_one_a_text(shared_app, rows):
    assert lines_of(invoke(shared_app, {"instances": TEXTS}, accept="application/jsonlines")) == rows
    native = predict(shared_app, TEXTS).json()["predictions"]
    assert lines_of(invoke(shared_app, {"text": TEXTS}, accept="application/jsonlines")) == native


def test_an_answer_in_csv_has_predicts_columns(shared_app, rows):
    for body in ({"inputs": TEXTS}, {"text": TEXTS}, {"instances": TEXTS}):
        got = invoke(shared_app, body, accept="text/csv")
        assert list(csv.DictReader(io.StringIO(got.text))) == [{k: str(v) for k, v in row.items()} for row in rows]


# --- JSON lines


def test_a_line_out_for_each_line_in(shared_app, rows):
    body = "\n".join(
        [
            json.dumps(TEXTS[0]),
            json.dumps({"id": 5, "text": TEXTS[1]}),
            json.dumps({"inputs": TEXTS[2]}),
            json.dumps({"inputs": TEXTS}),
            json.dumps({"text": TEXTS}),
            json.dumps({"instances": TEXTS}),
        ]
    )
    for ending in ("", "\n"):
        got = invoke(shared_app, body + ending, **LINES)
        assert got.headers["content-type"] == "application/jsonlines"
        found = lines_of(got)
        assert found[:2] == rows[:2]
        assert found[2] == invoke(shared_app, {"inputs": TEXTS[2]}).json()
        assert found[3] == invoke(shared_app, {"inputs": TEXTS}).json()
        assert found[4] == predict(shared_app, TEXTS).json()
        assert found[5] == {"predictions": rows}
    assert invoke(shared_app, body, accept="application/json", **LINES).json() == found


def test_windows_line_ends_are_read(shared_app, rows):
    assert lines_of(invoke(shared_app, f'"{TEXTS[0]}"\r\n"{TEXTS[1]}"\r\n', **LINES)) == rows[:2]


def test_the_text_column_names_the_text_of_a_line(tmp_path):
    app = serve_model(tmp_path, make_model(text_column="plot"))
    want = lines_of(invoke(app, '"my card"', **LINES))
    assert lines_of(invoke(app, '{"plot": "my card", "year": 1999}', **LINES)) == want
    assert lines_of(invoke(app, '{"text": "my card"}', **LINES)) == want


WRONG_LINES = [
    ("{", "Line 2 is not valid JSON"),
    ("", "Line 2 is empty"),
    ('{"a": 1,}', "Line 2 is not valid JSON"),
    ("5", "line 2: A text, an object with 'text', or one with one of inputs"),
    ('{"inputs": "a", "text": "b"}', "there are 2"),
    ('{"inputs": 5}', "line 2.inputs"),
    ('{"inputs": "a", "parameters": {"candidate_labels": ["b"]}}', "labels are fixed"),
    ('{"inputs": "a", "candidate_labels": ["b"]}', "candidate_labels: such keys go under parameters"),
    (json.dumps({"text": ["a" * 1_000_001]}), "1000001 characters"),
]


@pytest.mark.parametrize(("line", "words"), WRONG_LINES)
def test_a_wrong_line_is_marked_in_its_place_and_the_others_are_answered(shared_app, rows, line, words):
    body = f"{json.dumps(TEXTS[0])}\n{line}\n{json.dumps(TEXTS[1])}"
    before = metric(shared_app, "tamiz_errors_total")
    got = invoke(shared_app, body, **LINES)
    assert got.status_code == 200
    first, wrong, last = lines_of(got)
    assert [first, last] == rows[:2]
    assert wrong["line"] == 2
    assert words in wrong["error"]
    assert metric(shared_app, "tamiz_errors_total") == before + 1
    assert invoke(shared_app, body, accept="application/json", **LINES).json() == [first, wrong, last]
    table = invoke(shared_app, body, accept="text/csv", **LINES)
    assert table.status_code in (400, 413)
    assert words in table.json()["message"]


@pytest.mark.parametrize("body", ["{", "", '{"inputs": 5}\n5'])
def test_a_body_of_wrong_lines_alone_is_refused_or_marked_as_the_limits_say(shared_app, tmp_path, body):
    got = invoke(shared_app, body, **LINES)
    assert got.status_code == 400
    assert "line 1" in got.json()["message"].lower()
    app = serve_model(tmp_path, limits=ServeConfig(unanswerable="mark"))
    found = lines_of(invoke(app, body, **LINES))
    assert [one["line"] for one in found] == list(range(1, body.count("\n") + 2))


@pytest.mark.parametrize(
    ("body", "answers"),
    [
        ('{"inputs": "a"}\n', [None]),
        ("{", ["The body is not valid JSON"]),
        ('{"inputs": 5}', ["body.inputs"]),
        ('{\n"inputs": 5\n}', ["body.inputs"]),
        ('{"inputs": "a"}\n{"inputs": 5}\n{', [None, "line 2.inputs", "Line 3 is not valid JSON"]),
    ],
)
def test_lines_of_a_batch_transform_are_marked_also_as_plain_json(tmp_path, body, answers):
    """As JumpStart's batch transform sends them: split by line, with the content type of each line."""
    app = serve_model(tmp_path, limits=ServeConfig(unanswerable="mark"))
    got = invoke(app, body, content_type="application/json")
    assert got.status_code == 200
    found = lines_of(got)
    assert len(found) == len(answers)
    for one, words in zip(found, answers, strict=True):
        if words is None:
            assert one[0].keys() == {"label", "score"}
        else:
            assert words in one["error"]
            assert ("line" in one) == (len(answers) > 1)


def metric(app, name):
    """Return the sum of a metric of a model's door over its labels."""
    lines = ask(app, "GET", "/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f'{name}{{door="invocations"'))


# --- CSV


def test_csv_with_a_header_names_its_column(shared_app, rows):
    body = "id,text\n" + "".join(f'{n},"{text}"\n' for n, text in enumerate(TEXTS))
    got = invoke(shared_app, body, accept="text/csv", **CSV)
    assert list(csv.DictReader(io.StringIO(got.text))) == [{k: str(v) for k, v in row.items()} for row in rows]
    assert invoke(shared_app, body, **CSV).json() == {"predictions": rows}
    assert lines_of(invoke(shared_app, "\ufeff" + body, accept="application/jsonlines", **CSV)) == rows


def test_csv_without_a_header_has_its_text_first(shared_app, rows):
    body = "".join(f'"{text}",7\r\n' for text in TEXTS)
    got = invoke(shared_app, body, accept="text/csv", **CSV)
    assert [row[0] for row in csv.reader(io.StringIO(got.text))] == [row["predicted_label"] for row in rows]
    assert invoke(shared_app, body, **CSV).json() == {"predictions": rows}


def test_csv_holds_quotes_line_ends_and_long_texts(shared_app):
    texts = ['a "card", charged\nand a loan', "card " * 40_000]
    out = io.StringIO()
    csv.writer(out).writerows([["text"], *([text] for text in texts)])
    got = invoke(shared_app, out.getvalue(), **CSV).json()["predictions"]
    want = make_model().predict_proba(texts)
    np.testing.assert_allclose([[row[f"p_{label}"] for label in LABELS] for row in got], want, atol=1e-12)


@pytest.mark.parametrize("body", ["text\n", "", "\n"])
def test_csv_with_a_header_alone_or_nothing_has_no_answers(shared_app, body):
    assert invoke(shared_app, body, **CSV).json() == {"predictions": []}


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"id,text\n1\n", "Row 1"), (b'"a', "not valid CSV"), (b"\xff", "UTF-8")],
)
def test_wrong_csv_is_refused(shared_app, body, words):
    got = ask(shared_app, "POST", URL, content=body, headers=CSV)
    assert got.status_code == 400
    assert words in got.json()["message"]


# --- candidate labels


def test_candidate_labels_give_sequence_labels_and_scores(zero_shot):
    parameters = {"candidate_labels": ["xyz", "card", "cart"]}
    got = invoke(zero_shot, {"inputs": "my card", "parameters": parameters}).json()
    assert (got["sequence"], got["labels"]) == ("my card", ["card", "cart", "xyz"])
    assert got["scores"] == sorted(got["scores"], reverse=True)
    assert sum(got["scores"]) == pytest.approx(1)
    assert invoke(zero_shot, {"inputs": ["my card", "b"], "parameters": parameters}).json()[0] == got
    parameters = {"candidate_labels": "xyz, card,cart"}
    assert invoke(zero_shot, {"inputs": "my card", "parameters": parameters}).json() == got
    several = {"inputs": "my card", "parameters": {**parameters, "multi_label": True, "hypothesis_template": "my {}"}}
    assert sum(invoke(zero_shot, several).json()["scores"]) > 1


def test_lines_may_have_labels_of_their_own(zero_shot):
    questions = [
        {"inputs": "a card", "parameters": {"candidate_labels": ["card", "loan"]}},
        {"inputs": "a loan"},
        {"inputs": "a tree", "parameters": {"candidate_labels": ["tree", "bush"]}},
        {"inputs": "a loan", "parameters": {"candidate_labels": ["card", "loan"]}},
    ]
    found = lines_of(invoke(zero_shot, "\n".join(map(json.dumps, questions)), **LINES))
    assert found == [invoke(zero_shot, question).json() for question in questions]
    assert [one["labels"][0] for one in (found[0], found[2], found[3])] == ["card", "tree", "loan"]


def test_lines_may_be_those_of_a_file_of_requests(zero_shot):
    lines = [
        {"id": 7, "text": "a card", "labels": "card, loan"},
        {
            "id": "b",
            "inputs": ["a tree", "a bush"],
            "labels": ["tree", "bush"],
            "template": "my {}",
            "multi_label": True,
        },
        {"id": 8, "text": "a card", "labels": []},
        {"id": 9, "text": "a card", "labels": ["card"], "colour": SECRET},
        {"id": 10, "inputs": "a card"},
        {"id": 11, "text": "a card", "labels": ["card", "loan"], "parameters": {"top_k": 1}},
        {"id": 12, "sentence": "a card"},
    ]
    got = invoke(zero_shot, "\ufeff" + "\n".join(map(json.dumps, lines)), **LINES)
    one, two, none, unknown, plain, best, keyless = lines_of(got)
    parameters = {"candidate_labels": ["card", "loan"]}
    assert one == {"id": 7, **invoke(zero_shot, {"inputs": "a card", "parameters": parameters}).json()}
    assert [found["id"] for found in two] == ["b", "b"]
    assert [found["labels"][0] for found in two] == ["tree", "bush"]
    assert (none["id"], none["line"]) == (8, 3)
    assert (unknown["id"], unknown["line"]) == (9, 4)
    assert "Unknown field" in unknown["error"]
    assert SECRET not in got.text
    assert (plain["id"], plain["sequence"]) == (10, "a card")
    assert (best["id"], best["labels"]) == (11, ["card"])
    assert (keyless["id"], keyless["line"]) == (12, 7)
    for parameters, said in (
        ({"top_k": 0}, "top_k"),
        ({"top_k": True}, "top_k"),
        ({SECRET: 1}, "Unknown"),
        (5, "object"),
    ):
        got = invoke(zero_shot, json.dumps({"id": 1, "inputs": "a", "parameters": parameters}), **LINES)
        assert said in got.json()["message"]
        assert SECRET not in got.text


def test_an_id_that_is_no_finite_number_comes_back_as_null(zero_shot):
    lines = [
        f'{{"id": {number}, "text": "a card", "labels": ["card"]}}' for number in ("NaN", "-Infinity", "1e999", "7")
    ]

    def strict(text):
        return json.loads(text, parse_constant=pytest.fail)

    got = invoke(zero_shot, "\n".join(lines), **LINES)
    assert [strict(line)["id"] for line in got.text.splitlines()] == [None, None, None, 7]
    one = invoke(zero_shot, "\n".join(lines), accept="application/json", **LINES)
    assert [found["id"] for found in strict(one.text)] == [None, None, None, 7]


def test_candidate_labels_in_csv(zero_shot):
    body = {"inputs": ["a card"], "parameters": {"candidate_labels": ["card", "loan"]}}
    (row,) = csv.DictReader(io.StringIO(invoke(zero_shot, body, accept="text/csv").text))
    assert row["sequence"] == "a card"
    assert json.loads(row["labels"]) == ["card", "loan"]
    mixed = json.dumps(body) + '\n"a card"\n'
    assert len(lines_of(invoke(zero_shot, mixed, **LINES))) == 2
    assert invoke(zero_shot, mixed, accept="text/csv", **LINES).status_code == 406


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({"candidate_labels": []}, 400),
        ({"candidate_labels": ["a", " "]}, 400),
        ({"candidate_labels": ["a", "a"]}, 400),
        ({"candidate_labels": ["a"], "hypothesis_template": "none"}, 400),
        ({"candidate_labels": ["a", "b"], "function_to_apply": "softmax"}, 400),
        ({"candidate_labels": [str(number) for number in range(1001)]}, 413),
    ],
)
def test_labels_that_cannot_be_used_are_refused(zero_shot, parameters, status):
    assert invoke(zero_shot, {"inputs": "a", "parameters": parameters}).status_code == status


def long_template(places):
    return "{} " * places


@pytest.mark.parametrize(
    ("inputs", "parameters", "said"),
    [
        ("a", {"candidate_labels": [str(number) for number in range(1001)]}, "1001 labels; at most 1000"),
        ("a", {"candidate_labels": ",".join(map(str, range(200_000)))}, "200000 labels; at most 1000"),
        (["a"] * 101, {"candidate_labels": [str(number) for number in range(1000)]}, "101000 pairs"),
        ("a", {"candidate_labels": ["b", SECRET * 200_000]}, r"labels[1] has"),
        ("a", {"candidate_labels": ["b"], "hypothesis_template": "{}" + SECRET * 200_000}, r"labels[0] has"),
        # Filled in, this would take gigabytes.
        ("a", {"candidate_labels": ["b" * 1000] * 2, "hypothesis_template": long_template(1000)}, None),
        ("a", {"candidate_labels": ["b" * 999, "c" * 999], "hypothesis_template": long_template(1000)}, "1000000 char"),
    ],
)
def test_labels_that_cost_too_much_are_refused(zero_shot, inputs, parameters, said):
    body = {"inputs": inputs, "parameters": parameters}
    got = invoke(zero_shot, body)
    if said is None:
        assert got.status_code == 400  # a label stands twice
        return
    assert (got.status_code, got.json()["error_code"]) == (413, "BAD_REQUEST")
    assert said in got.json()["message"]
    assert SECRET not in got.text
    for path, shape in (("/models/demo", {"error", "error_type"}), ("/endpoints/demo/invocations", {"Message"})):
        other = ask(zero_shot, "POST", path, json=body)
        assert shape <= set(other.json())
        assert other.status_code in (413, 424)


def test_lines_together_may_not_cost_too_much(zero_shot):
    labels = [str(number) for number in range(1000)]
    line = json.dumps({"inputs": "a", "parameters": {"candidate_labels": labels}})
    assert len(lines_of(invoke(zero_shot, f"{line}\n" * 3, **LINES))) == 3
    textless = line.replace('"a"', "[]")
    assert len(lines_of(invoke(zero_shot, f"{textless}\n" * 100, **LINES))) == 100
    for text in (line, textless):  # labels without a text are read, too
        got = invoke(zero_shot, f"{text}\n" * 101, **LINES)
        assert got.status_code == 413
        assert "101000 pairs" in got.json()["message"]


def test_many_long_labels_are_answered(zero_shot):
    labels = [f"{number} {'card' * 20}" for number in range(400)]
    got = invoke(zero_shot, {"inputs": "my card", "parameters": {"candidate_labels": labels}}).json()
    assert sorted(got["labels"]) == sorted(labels)


def test_labels_of_callers_are_not_counted_one_by_one(zero_shot):
    invoke(zero_shot, {"inputs": "a", "parameters": {"candidate_labels": [SECRET, "b"]}})
    assert SECRET not in ask(zero_shot, "GET", "/metrics").text


def test_many_labels_are_reckoned_with_in_the_line(zero_shot, monkeypatch):
    """Where each label costs a pass of the network, a request for many is worked off in more pieces."""
    seen = []
    monkeypatch.setattr(WorkLine, "takes", lambda self, served, cost: seen.append(served.pace_s))
    for labels in (["a", "b"], [str(n) for n in range(200)]):
        body = {"inputs": "x", "parameters": {"candidate_labels": labels}}
        assert invoke(zero_shot, body).status_code == 200
    assert seen[1] / seen[0] == pytest.approx(100)


def test_lines_are_refused_and_not_marked_where_there_is_too_much_work(zero_shot, monkeypatch):
    async def refuse(*args):
        raise OverloadedError("too much work")

    monkeypatch.setattr(WorkLine, "call", refuse)
    labels = [f"{number} {'card' * 80}" for number in range(100)]  # so long that they are read in their turn
    line = json.dumps({"inputs": "a", "parameters": {"candidate_labels": labels}})
    got = invoke(zero_shot, f'"a"\n{line}', **LINES)
    assert (got.status_code, got.json()["error_code"]) == (429, "RESOURCE_LIMIT_EXCEEDED")


def test_labels_in_one_text_may_end_with_a_comma(zero_shot):
    found = [
        invoke(zero_shot, {"inputs": "x", "parameters": {"candidate_labels": labels}}) for labels in ("a, b,", "a,b")
    ]
    assert found[0].json() == found[1].json()
    assert set(found[0].json()["labels"]) == {"a", "b"}


def answers_of(app, body):
    got = invoke(app, body)
    assert got.status_code == 200, got.text
    return [one["predicted_label"] for one in got.json()["predictions"]]


def test_missing_cells_of_a_table_are_empty_texts(shared_app):
    """As pandas and MLflow's client write them, in the column of the texts and in others."""
    (empty,) = answers_of(shared_app, {"dataframe_records": [{"text": ""}]})
    table = '{"dataframe_split": {"columns": ["text", "votes"], "data": [["my card", NaN], [NaN, 1], [null, 2]]}}'
    card, *rest = answers_of(shared_app, table)
    assert rest == [empty, empty]
    records = '{"dataframe_records": [{"text": NaN}, {"text": "my card", "n": Infinity}]}'
    assert answers_of(shared_app, records) == [empty, card]
    body = SplitBody.model_validate({"dataframe_split": {"columns": ["text"], "data": [["a"], [float("nan")], [None]]}})
    assert split_texts(body, "text") == ["a", "", ""]


@pytest.mark.parametrize("shape", ["instances", "inputs", "dataframe_records"])
def test_many_wrong_items_cost_no_more_than_one(shared_app, shape):
    got = invoke(shared_app, f'{{"{shape}": [{",".join(["0"] * 50_000)}]}}')
    assert got.status_code == 400
    assert len(got.content) < 2_000


def test_more_lines_than_texts_are_allowed_are_refused_unread(tmp_path):
    app = serve_model(tmp_path, make_model(), limits=ServeConfig(max_texts=10))
    assert invoke(app, '"a"\n' * 10, **LINES).status_code == 200
    assert invoke(app, "1\n" * 11, **LINES).status_code == 413


def test_answers_to_lines_are_kept_at_their_place(tmp_path):
    records = RecordsConfig(folder=str(tmp_path / "records"), share=1)
    app = serve_model(tmp_path, make_model(), limits=ServeConfig(records=records))
    lines = [json.dumps(TEXTS[0]), "{broken", json.dumps({"inputs": [TEXTS[1], TEXTS[2]]}), json.dumps(TEXTS[0])]
    assert invoke(app, "\n".join(lines), **LINES).status_code == 200
    (file,) = (tmp_path / "records").glob("answers-*")
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    texts = [TEXTS[0], "", TEXTS[1], TEXTS[2], TEXTS[0]]
    assert [one["place"] for one in kept] == [0, 2, 3, 4]
    assert all(one["sha256"] == text_sha256(texts[one["place"]]) for one in kept)
