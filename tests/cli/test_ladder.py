"""`tamiz ladder`: from labels alone to a trained model, with a labeller who knows the answers."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import yaml

from tamiz.classifiers.checks import examples
from tamiz.config import load_project
from tamiz.data.lake import Lake
from tamiz.encoders.runtime import OnnxModel
from tamiz.model import Model
from tamiz.types import Task
from tests.projects import write_csv

for module in ("onnx", "onnxruntime", "tokenizers", "safetensors"):
    pytest.importorskip(module)

LABELS = ("food", "money", "sport")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("TAMIZ_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def truth(place):
    """Write texts of three topics, each different; return the label of each."""
    texts, targets, labels = examples(Task.MULTI_CLASS, n=240, seed=4)
    known = {f"{text} w{n}": labels[target] for n, (text, target) in enumerate(zip(texts, targets, strict=True))}
    write_csv(place / "texts.csv", [{"body": text} for text in known])
    return known


@pytest.fixture
def begun(tamiz, place, truth):
    """Begin a ladder with a random encoder, whose zero-shot is worth nothing."""
    from tests.tiny_bert import tiny_bert

    encoder = tiny_bert(place / "encoder")
    words = ["--labels", ",".join(LABELS), "--model", encoder, "--text-column", "body", "--batch", 40]
    answer = tamiz("ladder", "texts.csv", *words, "--output", "ladder", "--json")
    assert answer.code == 0, answer.err
    return answer.json


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fill_in(folder, answer, most=None):
    """Label the rows of the table as `answer` says of a row; those after `most` stay blank."""
    rows = rows_of(folder / "to_label.csv")
    for row in rows[:most]:
        row["label"] = answer(row)
    write_csv(folder / "to_label.csv", rows)
    return rows


def state_of(folder):
    return json.loads((folder / "ladder.json").read_text(encoding="utf-8"))


def test_labels_alone_give_a_project_a_model_and_a_first_batch(begun, place, truth, tamiz):
    folder = place / "ladder"
    assert begun["rung"] == "zero_shot"
    assert sum(begun["zero_shot"]["shares"].values()) == pytest.approx(1)
    assert begun["zero_shot"]["examples"][0]["text"] in truth
    project = load_project(folder, variables={})
    assert project.labels.names == list(LABELS)
    assert [one.family for one in project.candidates] == ["zero_shot", "few_shot", "linear", "ensemble"]
    rows = rows_of(folder / "to_label.csv")
    assert len(rows) == len({row["id"] for row in rows}) == 40
    assert sum(row["why"] == "drawn at random" for row in rows) == begun["batch"]["at_random"] == 20
    assert {row["label"] for row in rows} == {""}
    assert all(row["text"] in truth and row["hint"] in LABELS and 0 < float(row["score"]) <= 1 for row in rows)
    assert Model.load(folder / "model").manifest.family == "zero_shot"
    assert tamiz("predict", "--model", "ladder/model", "bread and soup").code == 0


def test_a_text_comes_once_however_it_is_spelt(tamiz, place, truth):
    from tests.tiny_bert import tiny_bert

    spelt = [text for one in truth for text in (one, f"{one} ", one.upper())]
    write_csv(place / "texts.csv", [{"text": text} for text in spelt])
    words = ["--labels", ",".join(LABELS), "--model", tiny_bert(place / "encoder")]
    assert tamiz("ladder", "texts.csv", *words, "--output", "ladder").code == 0
    kept = (place / "ladder" / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    assert list(map(json.loads, kept)) == list(truth)


def test_the_prior_is_that_of_all_texts(tamiz, place):
    """They go by topic, and the first thousands have one alone."""
    from tests.tiny_bert import tiny_bert

    texts = [f"{'bread' if n < 5000 else 'bank loan credit ' * 4} {n}" for n in range(10_000)]
    write_csv(place / "texts.csv", [{"text": text} for text in texts])
    words = ["--labels", "sport,food", "--prior", "--share", "sport=0.5", "--share", "food=0.5"]
    words += ["--model", tiny_bert(place / "encoder"), "--output", "ladder"]
    assert tamiz("ladder", "texts.csv", *words).code == 0
    food = Model.load(place / "ladder" / "model").predict_proba(texts)[:, 1]
    assert abs(food[:5000].mean() - 0.5) > 0.03
    assert abs(food.mean() - 0.5) < 0.015


def test_the_ladder_is_climbed_as_labels_come(begun, tamiz, place, truth):
    folder = place / "ladder"
    fill_in(folder, lambda row: truth[row["text"]])
    found = tamiz("ladder", "ladder", "--json").json
    assert (found["labelled"], found["drawn_at_random"], found["taken_in"]) == (40, 20, 40)
    decision = found["decision"]
    assert decision["verdict"] == "up"
    first = {one["rung"]: one for one in decision["comparisons"][0]}
    assert first[found["rung"]]["verdict"] == "better"
    assert first[found["rung"]]["p_adjusted"] <= decision["alpha"]
    assert decision["right"][found["rung"]]["value"] > decision["right"]["zero_shot"]["value"]
    model = Model.load(folder / "model")
    assert model.manifest.candidate == found["rung"] != "zero_shot"
    again = [answer.label for answer in model.predict(list(truth))]
    assert sum(a == b for a, b in zip(again, truth.values(), strict=True)) > 0.8 * len(truth)
    first_batch = {row["id"] for row in state_of(folder)["batches"][0]["rows"]}
    assert not first_batch & {row["id"] for row in rows_of(folder / "to_label.csv")}
    shown = tamiz("ladder", "ladder")
    assert "step up" in shown.out
    assert "0 labels taken in; 40 in all" in shown.out


def test_no_encoder_reads_a_text_twice(tamiz, place, truth, monkeypatch):
    """Prior, preview, batches and comparisons ask about the same texts, and so does another ladder over them."""
    from tests.tiny_bert import tiny_bert

    read, answer = [0], OnnxModel._answer

    def counting(self, feed):
        read[0] += len(feed["input_ids"])
        return answer(self, feed)

    monkeypatch.setattr(OnnxModel, "_answer", counting)
    words = ["--labels", ",".join(LABELS), "--model", tiny_bert(place / "encoder"), "--text-column", "body"]
    begin = ["ladder", "texts.csv", *words, "--prior", "--batch", 40, "--json", "--output"]
    told = [tamiz(*begin, "ladder").json]
    fill_in(place / "ladder", lambda row: truth[row["text"]])
    told.append(tamiz("ladder", "ladder", "--json").json)
    others = 100  # sentences about labels, and the three texts whose answers a package records
    assert read[0] <= 2 * len(truth) + others  # by the encoder of zero-shot, and by that of few-shot in 8 bits
    read[0] = 0
    again = [tamiz(*begin, "again").json]
    shutil.copy(place / "ladder" / "labels.csv", place / "answers.csv")
    again.append(tamiz("ladder", "again", "--answers", "answers.csv", "--json").json)
    assert read[0] <= others
    for one, other in zip(told, again, strict=True):
        assert {**one, "folder": ""} == {**other, "folder": ""}


def test_reworded_copies_do_not_flatter_rungs_that_learn_them_by_heart(tamiz, place):
    """Labels are drawn by lot: a third is right by chance, and nearly all where a copy in another fold tells."""
    from tests.tiny_bert import tiny_bert

    words = sorted({word for text in examples(Task.MULTI_CLASS, n=240)[0] for word in text.split()})
    draw, truth = np.random.default_rng(0), {}
    for _ in range(30):
        text, label = draw.choice(words, 40), draw.choice(LABELS)
        truth |= {" ".join([*text, number]): label for number in ("one", "two", "three", "four")}
    write_csv(place / "texts.csv", [{"text": text} for text in truth])
    about = ["--labels", ",".join(LABELS), "--model", tiny_bert(place / "encoder"), "--batch", 120]
    assert tamiz("ladder", "texts.csv", *about, "--output", "ladder").code == 0
    fill_in(place / "ladder", lambda row: truth[row["text"]])
    shutil.copytree(place / "ladder", place / "apart")
    with (place / "apart" / "tamiz.yaml").open("a", encoding="utf-8") as file:
        file.write("split: {near_duplicates: false}\n")
    found, torn = (tamiz("ladder", name, "--json").json["decision"]["right"] for name in ("ladder", "apart"))
    for rung in ("few_shot", "linear", "ensemble"):
        assert torn[rung]["value"] > 0.75
        assert found[rung]["value"] < 0.5


def test_a_label_that_nobody_needs_holds_nothing_up(begun, tamiz, place, truth):
    folder = place / "ladder"
    fill_in(folder, lambda row: "" if truth[row["text"]] == "money" else truth[row["text"]])
    found = tamiz("ladder", "ladder", "--json").json
    assert found["labels"]["money"] == 0
    assert found["decision"]["verdict"] == "up"
    assert Model.load(folder / "model").labels == LABELS


def test_one_label_alone_is_not_learnt_from(begun, tamiz, place, truth):
    folder = place / "ladder"
    fill_in(folder, lambda row: "sport")
    found = tamiz("ladder", "ladder", "--json").json
    assert found["decision"]["verdict"] == "too_few"
    assert "2 are needed to learn and to measure" in found["decision"]["reason"]


def test_the_same_labels_again_change_nothing(begun, tamiz, place, truth):
    folder = place / "ladder"
    filled = fill_in(folder, lambda row: truth[row["text"]])
    write_csv(place / "kept.csv", filled)
    tamiz("ladder", "ladder")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    answer = tamiz("ladder", "ladder", "--answers", "kept.csv", "--json").json
    assert (answer["taken_in"], answer["decided_now"], answer["labelled"]) == (0, False, 40)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_blank_random_rows_come_again_and_the_labelled_ones_are_kept(begun, tamiz, place, truth):
    folder = place / "ladder"
    rows = fill_in(folder, lambda row: truth[row["text"]], most=6)
    random = [row["id"] for row in rows if row["why"] == "drawn at random"]
    found = tamiz("ladder", "ladder", "--json").json
    assert found["labelled"] == 6
    assert found["decision"]["verdict"] == "too_few"
    assert "10 are needed" in found["decision"]["reason"]
    assert set(random[6:]) <= {row["id"] for row in rows_of(folder / "to_label.csv")}
    assert [row["text"] for row in rows_of(folder / "labels.csv")] == [row["text"] for row in rows[:6]]


def test_wrong_labels_are_refused_with_row_and_spelling(begun, refused, place, truth):
    folder = place / "ladder"
    third = rows_of(folder / "to_label.csv")[2]["id"]
    fill_in(folder, lambda row: "sprot" if row["id"] == third else truth[row["text"]])
    said = refused(1, "ladder", "ladder")
    assert "row 4: unknown label 'sprot'" in said
    assert "did you mean 'sport'?" in said
    assert state_of(folder)["labelled"] == []
    write_csv(folder / "to_label.csv", [{"id": "t9999", "label": "sport"}])
    assert "row 2: unknown id 't9999'" in refused(1, "ladder", "ladder")
    write_csv(folder / "to_label.csv", [{"id": "t1", "label": "sport"}, {"id": "t1", "label": "food"}])
    assert "row 3: t1 has another label than in row 2" in refused(1, "ladder", "ladder")


def test_other_labels_for_a_labelled_text_are_said_and_taken_only_on_request(begun, tamiz, place, truth):
    folder = place / "ladder"
    rows = fill_in(folder, lambda row: "food", most=1)
    tamiz("ladder", "ladder")
    write_csv(place / "other.csv", [{"id": rows[0]["id"], "label": "sport"}])
    found = tamiz("ladder", "ladder", "--answers", "other.csv", "--json").json
    assert found["taken_in"] == 0
    assert "keeps it" in found["conflicts"][0]
    corrected = tamiz("ladder", "ladder", "--answers", "other.csv", "--correct", "--json").json
    assert (corrected["taken_in"], corrected["labelled"], corrected["labels"]["sport"]) == (1, 1, 1)
    assert [one["labels"] for one in state_of(folder)["labelled"]] == [["food"], ["sport"]]


def test_a_dry_run_says_what_would_be_taken_in_and_leaves_every_byte(begun, tamiz, place, truth):
    folder = place / "ladder"
    rows = fill_in(folder, lambda row: "food", most=1)
    tamiz("ladder", "ladder")
    write_csv(place / "other.csv", [{"id": row["id"], "label": "sport"} for row in rows[:3]])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    asked = ("ladder", "ladder", "--answers", "other.csv")
    found = tamiz(*asked, "--dry-run", "--json").json
    assert (found["changed"], found["taken_in"], found["labelled"], found["decided_now"]) == (False, 2, 3, False)
    assert "keeps it" in found["conflicts"][0]
    shown = tamiz(*asked, "--dry-run", "--correct")
    assert shown.out.startswith("3 labels would be taken in; 3 in all, ")
    write_csv(place / "wrong.csv", [{"id": "t1", "label": "sprt"}])
    wrong = ("ladder", "ladder", "--answers", "wrong.csv")
    assert tamiz(*wrong, "--dry-run") == tamiz(*wrong)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    done = tamiz(*asked, "--json").json
    assert list(done) == list(found)
    assert (done["changed"], done["taken_in"], done["labelled"]) == (True, 2, 3)


def test_a_dry_run_begins_nothing(tamiz, place, truth):
    from tests.tiny_bert import tiny_bert

    words = ["--labels", "a,b", "--model", tiny_bert(place / "encoder"), "--text-column", "body", "--dry-run"]
    found = tamiz("ladder", "texts.csv", *words, "--json").json
    assert found == {"folder": "texts-ladder", "texts": 240, "changed": False}
    assert "a ladder of 240 texts would be begun in texts-ladder" in tamiz("ladder", "texts.csv", *words).out
    assert not (place / "texts-ladder").exists()
    (place / "taken").mkdir()
    assert "taken exists already" in tamiz("ladder", "texts.csv", *words, "--output", "taken").err


def test_several_labels_a_text(tamiz, place):
    from tests.tiny_bert import tiny_bert

    texts, has, labels = examples(Task.MULTI_LABEL, n=120, seed=4)
    truth = {f"{text} w{n}": row for n, (text, row) in enumerate(zip(texts, has, strict=True))}
    write_csv(place / "texts.csv", [{"text": text} for text in truth])
    words = ["--labels", ",".join(labels), "--multi-label", "--model", tiny_bert(place / "encoder"), "--batch", 60]
    assert tamiz("ladder", "texts.csv", *words, "--language", "es").code == 0
    folder = place / "texts-ladder"

    def answer(row):
        return ", ".join(label for label, one in zip(labels, truth[row["text"]], strict=True) if one) or "-"

    fill_in(folder, answer)
    found = tamiz("ladder", folder, "--json").json
    assert found["taken_in"] == 60
    assert found["decision"]["verdict"] in ("up", "stay")
    assert Model.load(folder / "model").task is Task.MULTI_LABEL
    none = [row["id"] for row in rows_of(folder / "labels.csv") if row["label"] == "[]"]
    assert none  # texts with none of the labels are examples, too
    assert tamiz("split", "-p", folder, "--quiet").code == 0
    held = Lake(str(folder / "lake")).read("gold/examples").to_pylist()
    assert {row["row_id"] for row in held if not row["labels"]} == set(none)


def test_other_cleaning_makes_another_model(begun, tamiz, place, truth):
    folder = place / "ladder"
    project = yaml.safe_load((folder / "tamiz.yaml").read_text(encoding="utf-8"))
    (folder / "tamiz.yaml").write_text(yaml.safe_dump({**project, "clean": ["numbers"]}), encoding="utf-8")
    assert tamiz("ladder", folder, "--json").code == 0
    assert list(Model.load(folder / "model").clean.steps) == ["numbers"]


def test_brackets_in_labels_are_shown_as_they_are(tamiz, place, truth):
    from tests.tiny_bert import tiny_bert

    words = ["--labels", "[money],[/food],:heart:", "--model", tiny_bert(place / "encoder"), "--text-column", "body"]
    answer = tamiz("ladder", "texts.csv", *words, "--output", "ladder")
    assert (answer.code, "Traceback" in answer.err) == (0, False)
    for label in ("[money]", "[/food]", ":heart:"):
        assert label in answer.out


class Killed(BaseException):
    """What nothing catches."""


def test_a_run_that_is_cut_off_is_made_good_by_the_next(begun, place, truth, tamiz, monkeypatch):
    """Wherever it ends, no label is lost, the model can be loaded, and the next runs come to the same in the end."""
    folder = place / "ladder"
    fill_in(folder, lambda row: truth[row["text"]])
    shutil.copytree(folder, place / "whole")
    assert tamiz("ladder", "whole").code == 0

    def cut_off(*_):
        raise Killed

    for moment in ("replace_model", "write_batch"):
        with monkeypatch.context() as patch:
            patch.setattr(f"tamiz.pipeline.ladder.{moment}", cut_off)
            with pytest.raises(Killed):
                tamiz("ladder", "ladder")
        assert len(state_of(folder)["labelled"]) == 40
        Model.load(folder / "model")
    assert tamiz("ladder", "ladder", "--json").json["taken_in"] == 0
    for name in ("ladder.json", "labels.csv", "to_label.csv"):
        assert (folder / name).read_bytes() == (place / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["texts.csv"], "--labels is needed"),
        (["texts.csv", "--labels", "a,b", "--correct"], "folder of a ladder"),
        (["ladder", "--seed", "3"], "was begun already"),
        (
            ["texts.csv", "--labels", "a,b", "--output", "ladder", "--model", "encoder", "--text-column", "body"],
            "exists",
        ),
    ],
)
def test_wrong_use(begun, refused, words, said):
    assert said in refused(2, "ladder", *words)
