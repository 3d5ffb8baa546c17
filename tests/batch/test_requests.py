"""JSON lines in, JSON lines out: labels of each line's own, bad lines marked, nothing lost."""

from __future__ import annotations

import gzip
import io
import json

import pytest

from tamiz.batch import answer_lines, answer_request_file
from tamiz.errors import ConfigError, SourceError
from tamiz.model import Model
from tamiz.prompting import PromptLimits, prompted_model
from tests.models import answers_for_labels, linear_model

for module in ("onnx", "onnxruntime", "tokenizers", "safetensors"):
    pytest.importorskip(module)

GOOD = [
    {"inputs": "the goal of the team", "parameters": {"candidate_labels": ["sport", "food"]}},
    {"inputs": "bread and butter", "parameters": {"candidate_labels": "oven, ball,soup", "multi_label": True}},
    {"text": "a loan of the bank", "labels": ["money"], "id": 7},
    {"inputs": ["bread", "goal"], "parameters": {"candidate_labels": ["sport", "food"], "hypothesis_template": "a {}"}},
    {"inputs": "the price of the cheese", "options": {"wait_for_model": True}},
]
BAD = [
    (b"", "the line is empty"),
    (b"{broken", "not JSON"),
    (b"[1]", "a JSON object"),
    (b'{"inputs": "\xff"}', "byte 13 of the line"),
    (b'{"inputs": 3}', "inputs: a text"),
    (b'{"inputs": []}', "inputs: a text"),
    (b'{"parameters": {"candidate_labels": ["a"]}}', "inputs: a text"),
    (b'{"inputs": "a \\ud800"}', "surrogate"),
    (b'{"inputs": "a", "labels": ["b \\ud800"]}', "surrogate"),
    (b'{"inputs": "a", "labels": ["b"], "template": "{} \\ud800"}', "surrogate"),
    (b'{"inputs": "a", "labels": ["b"], "id": ["\\udc00"]}', "surrogate"),
    (b'{"inputs": "a", "parameters": {"candidate_label": ["a"]}}', "did you mean 'candidate_labels'"),
    (b'{"inputs": "a", "parameters": {"candidate_labels": []}}', "labels: none is given"),
    (b'{"inputs": "a", "parameters": {"candidate_labels": [1]}}', "every label must be a text"),
    (b'{"inputs": "a", "parameters": {"candidate_labels": ["b", "b"]}}', "stands twice"),
    (b'{"inputs": "a", "parameters": {"candidate_labels": ["b", "c"], "hypothesis_template": "x"}}', "template"),
    (b'{"inputs": "a", "parameters": {"candidate_labels": ["b", "c"], "multi_label": 1}}', "multi_label"),
    (b'{"inputs": "a", "text": "b"}', "given twice"),
    (b"[" * 100_000, "not JSON"),
    (b'{"inputs": "a", "id": NaN}', "holds NaN"),
    (b'{"inputs": "a", "id": -Infinity}', "an infinity"),
    (b'{"inputs": "a", "labels": ["b", "c"], "id": {"of": [1e999]}}', "beyond all"),
    (b'{"inputs": 3, "id": Infinity}', "an infinity"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    from tests.tiny_bert import tiny_bert

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAMIZ_CACHE", str(tmp_path_factory.mktemp("cache")))
        encoder = tiny_bert(tmp_path_factory.mktemp("encoder") / "tiny")
        return prompted_model(("food", "money", "sport"), model=str(encoder), num_threads=1)


def lines(*requests) -> list[bytes]:
    return [one if isinstance(one, bytes) else json.dumps(one).encode() for one in requests]


def test_every_line_has_its_own_labels(model):
    sport, multi, one, several, own = answer_lines(model, lines(*GOOD))
    assert sport == answers_for_labels(model, ["the goal of the team"], ["sport", "food"])[0]
    assert multi == answers_for_labels(model, ["bread and butter"], ["oven", "ball", "soup"], multi_label=True)[0]
    assert one == {"id": 7, **answers_for_labels(model, ["a loan of the bank"], ["money"])[0]}
    assert several == answers_for_labels(model, ["bread", "goal"], ["sport", "food"], template="a {}")
    assert own == answers_for_labels(model, ["the price of the cheese"], model.labels)[0]


@pytest.mark.parametrize(("line", "said"), BAD)
def test_a_bad_line_says_what_is_wrong(model, line, said):
    before, bad, after = answer_lines(model, lines(GOOD[0], line, GOOD[0]))
    assert before == after
    assert list(bad) == ["error", "line"]
    assert said in bad["error"]
    assert bad["line"] == 2


def test_every_answer_is_json(model, tmp_path):
    """Which has no NaN; a number that it has comes back as it was."""
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines(*(line for line, _ in BAD), {**GOOD[0], "id": -1.5e300})))
    counts = answer_request_file(model, str(tmp_path / "in.jsonl"), tmp_path / "out.jsonl")
    assert (counts.lines, counts.failed) == (len(BAD) + 1, len(BAD))

    def refuse(written):
        raise AssertionError(written)

    written = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line, parse_constant=refuse) for line in written]
    assert [one["line"] for one in answers[:-1]] == list(range(1, len(BAD) + 1))
    assert answers[-1]["id"] == -1.5e300


def test_a_bad_line_keeps_its_id(model):
    asked = lines(
        {"inputs": 3, "id": "a"},
        {"inputs": "x", "labels": ["b", "b"], "id": 0},
        {"inputs": "x", "template": "y", "id": 2},
    )
    found = list(answer_lines(model, asked))
    assert [(list(one), one["id"], one["line"]) for one in found] == [
        (["id", "error", "line"], name, number) for number, name in enumerate(["a", 0, 2], 1)
    ]


def test_answers_never_replace_the_requests(model, tmp_path):
    place = tmp_path / "in.jsonl"
    place.write_bytes(lines(GOOD[0])[0])
    with pytest.raises(ConfigError, match="name another file"):
        answer_request_file(model, str(place), place)
    assert place.read_bytes() == lines(GOOD[0])[0]


def test_nothing_is_lost_and_the_order_stays(model):
    asked = [{"inputs": f"bread {number}", "labels": ["food", f"label {number % 3}"]} for number in range(600)]
    asked[::50] = [b"{"] * 12
    answers = list(answer_lines(model, lines(*asked)))
    assert len(answers) == 600
    for number, answer in enumerate(answers):
        if number % 50 == 0:
            assert answer == {"error": "the line is not JSON", "line": number + 1}
        else:
            assert answer["sequence"] == f"bread {number}"
            assert set(answer["labels"]) == {"food", f"label {number % 3}"}


def test_lines_without_labels_take_the_usual_ones(model):
    asked = lines(
        {"inputs": "bread"}, {"inputs": "bread", "labels": ["a", "b"]}, {"inputs": "bread", "multi_label": False}
    )
    first, second, third = answer_lines(model, asked, labels=("oven", "ball"), multi_label=True)
    assert first == answers_for_labels(model, ["bread"], ["oven", "ball"], multi_label=True)[0]
    assert second == answers_for_labels(model, ["bread"], ["a", "b"], multi_label=True)[0]
    assert third == answers_for_labels(model, ["bread"], ["oven", "ball"])[0]
    (none,) = answer_lines(model, asked[:1], labels=())
    assert "none is given" in none["error"]


def test_what_a_line_does_not_say_is_as_the_model_has_it(model):
    several = model.with_labels(model.labels, multi_label=True)
    asked = lines(
        {"inputs": "bread"},
        {"inputs": "bread", "template": "about {}"},
        {"inputs": "bread", "multi_label": False},
        {"inputs": "bread", "labels": ["oven", "ball"]},
    )
    silent, template, one, own = answer_lines(several, asked)
    assert silent == answers_for_labels(model, ["bread"], model.labels, multi_label=True)[0]
    assert template == answers_for_labels(model, ["bread"], model.labels, template="about {}", multi_label=True)[0]
    assert one == answers_for_labels(model, ["bread"], model.labels)[0]
    assert own == answers_for_labels(model, ["bread"], ["oven", "ball"], multi_label=True)[0]


def test_the_model_s_own_labels_count_for_the_limits(model):
    (large,) = answer_lines(model, lines({"inputs": ["bread"] * 3}), limits=PromptLimits(pairs=8))
    assert "3 texts and 3 labels are 9 pairs; at most 8" in large["error"]


def test_limits_hold_for_each_line(model):
    asked = lines({"inputs": ["bread"] * 3, "labels": ["a", "b"]}, {"inputs": "bread", "labels": ["a", "b"]})
    large, small = answer_lines(model, asked, limits=PromptLimits(pairs=5))
    assert "6 pairs; at most 5" in large["error"]
    assert small["sequence"] == "bread"


@pytest.mark.parametrize(
    ("labels", "template", "said"),
    [
        ([str(number) for number in range(1001)], "{}", "1001 labels"),
        (["a", "b" * 3000], "{}", "labels[1] has 3000 characters in its template; at most 2000"),
        (["a" * 999], "{} " * 999, "labels[0] has"),
    ],
)
def test_a_line_that_costs_too_much_is_marked(model, labels, template, said):
    line = {"inputs": "bread", "parameters": {"candidate_labels": labels, "hypothesis_template": template}}
    before, large, after = answer_lines(model, lines(GOOD[0], line, GOOD[0]))
    assert said in large["error"]
    assert large["line"] == 2
    assert before == after
    assert before["labels"] == answers_for_labels(model, ["the goal of the team"], ["sport", "food"])[0]["labels"]


def test_a_model_with_fixed_labels_answers_for_those(model):
    fixed = linear_model()
    own, other = answer_lines(fixed, lines({"inputs": "bread soup"}, {"inputs": "bread soup", "labels": ["a", "b"]}))
    assert set(own["labels"]) == set(fixed.labels)
    assert "labels are fixed" in other["error"]


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz"])
def test_a_file_is_answered_into_a_file(model, tmp_path, name):
    data = b"\xef\xbb\xbf" + b"\r\n".join(lines(GOOD[0], b"{", GOOD[1]))
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    counts = answer_request_file(model, str(tmp_path / name), tmp_path / "out.jsonl")
    assert (counts.lines, counts.failed) == (3, 1)
    stream = io.StringIO()
    assert answer_request_file(model, str(tmp_path / name), stream) == counts
    written = (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    assert written == stream.getvalue()
    assert [json.loads(line).get("line") for line in written.splitlines()] == [None, 2, None]


def test_a_file_that_cannot_be_read_leaves_nothing(model, tmp_path):
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines(*GOOD * 1000)))[:-20])
    for name in ("none.jsonl", "cut.jsonl.gz"):
        with pytest.raises(SourceError, match="cannot be read"):
            answer_request_file(model, str(tmp_path / name), tmp_path / "out.jsonl")
    assert {path.name for path in tmp_path.iterdir()} == {"cut.jsonl.gz"}
