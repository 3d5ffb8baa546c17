"""The model card."""

from __future__ import annotations

import json

import pytest
import yaml

from tamiz.card import CardFacts, SliceFigures, model_card
from tamiz.errors import PackageError
from tamiz.model import Model, new_manifest
from tamiz.package import verify_package
from tamiz.types import Task
from tests.models import linear_model


def manifest(**about):
    usual = {"name": "topics", "task": Task.MULTI_CLASS, "labels": ("a", "b", "c"), "family": "linear"}
    return new_manifest(**{**usual, **about})


def front_matter(card):
    head, _, rest = card.removeprefix("---\n").partition("---\n")
    assert rest
    return yaml.safe_load(head)


def section(card, title):
    return card.split(f"## {title}\n\n", 1)[1].split("\n## ", 1)[0]


def test_front_matter_is_that_of_model_hubs():
    found = front_matter(model_card(manifest(metrics={"test_accuracy": 0.875, "test_f1_macro": 0.75, "val_ece": 0.01})))
    assert found["pipeline_tag"] == "text-classification"
    assert found["library_name"] == "tamiz"
    assert found["tags"] == ["text-classification", "tamiz", "multi-class", "linear"]
    assert found["metrics"] == ["accuracy", "f1"]
    assert "language" not in found
    (result,) = found["model-index"][0]["results"]
    assert result["task"] == {"type": "text-classification"}
    assert [(m["type"], m["value"]) for m in result["metrics"]] == [("accuracy", 0.875), ("f1", 0.75)]


def test_a_card_without_figures_claims_none():
    card = model_card(manifest())
    assert "metrics" not in front_matter(card)
    assert "No figures on a test side are known." in section(card, "Limits")
    assert "## Figures\n" not in card


def test_data_figures_and_slices_are_told():
    part = SliceFigures("region", "north", 40, {"accuracy": 0.5}, (0.25, 0.75))
    facts = CardFacts(
        intervals={"test_accuracy": (0.8, 0.9)},
        sizes={"train": 1200, "test": 300},
        counts={"train": {"a": 1000, "b": 190, "c": 10}, "test": {"a": 200, "b": 98, "c": 2}},
        slices=(part,),
        seed=3,
    )
    data = {"sources": ["texts.csv"], "gold": 4, "silver": 2, "refit": True}
    card = model_card(manifest(metrics={"test_accuracy": 0.875, "test_ece": 0.04}, data=data), facts)
    assert "Versions of the tables: silver 2, gold 4" in section(card, "Data")
    assert "| c | 10 | 2 |" in section(card, "Data")
    assert "Examples: 1,200 train, 300 test" in section(card, "Data")
    assert "| test_accuracy | 0.8750 | 0.8000 to 0.9000 |" in section(card, "Figures")
    assert "| region | north | 40 | 0.5000 | 0.2500 to 0.7500 |" in section(card, "Figures by slice")
    limits = section(card, "Limits")
    assert "1 labels have fewer than 50 training examples: c." in limits
    assert "region = north" in limits
    assert "off by 0.040" in limits
    assert "Seed: 3" in section(card, "How it was made")
    assert "training and validation examples after the choice" in section(card, "How it was made")


@pytest.mark.parametrize(
    ("chance", "said"),
    [(0.12, "shows nothing: on so few examples"), (0.03, "off by 0.100 on average"), (None, "off by")],
)
def test_a_calibration_error_that_chance_explains_is_told_as_such(chance, said):
    card = model_card(manifest(metrics={"test_ece": 0.1}), CardFacts(ece_by_chance=chance))
    assert said in section(card, "Limits")
    assert section(card, "Limits").count("calibration error") == 1


def test_good_figures_bring_no_warning():
    facts = CardFacts(counts={"train": {"a": 50, "b": 50, "c": 50}})
    limits = section(model_card(manifest(metrics={"test_ece": 0.03}), facts), "Limits")
    assert limits.count("\n- ") == 0


def test_labels_cannot_break_the_card():
    labels = ("<script>alert(1)</script>", "a|b", "# c\n## d", "*e*", "f_g")
    card = model_card(manifest(labels=labels), CardFacts(counts={"train": dict.fromkeys(labels, 3)}))
    assert "<script" not in card
    assert "\n## d" not in card
    table = [line for line in section(card, "Data").splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") == 3 for line in table)
    assert "| \\*e\\* | 3 |" in table
    assert "| f_g | 3 |" in table


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({}, "- Rule: the label with the highest probability"),
        ({"costs": [[0, 9], [1, 0]]}, "- Rule: the label with the least expected cost"),
        ({"abstain_below": 0.123456}, "- No answer where the highest probability is below 0.1235"),
        ({"abstain_cost": 0.25}, "- No answer where every answer is expected to cost more than 0.25"),
        ({"conformal": {"coverage": 0.9}}, "- No answer where the set does not hold exactly the decided label"),
        ({"conformal": {"coverage": 0.9, "abstain": False}}, "hold the true label with probability 0.9 (conformal)"),
    ],
)
def test_it_says_how_answers_are_decided(rule, said):
    decision = section(model_card(manifest(rule=rule)), "Decision")
    assert said in decision
    assert ("exactly the decided label" in decision) == said.endswith("exactly the decided label")


@pytest.mark.parametrize("refit", [False, True])
def test_what_sets_state_is_approximate_after_a_refit(refit):
    card = model_card(manifest(rule={"conformal": {"coverage": 0.9}}, data={"refit": refit}))
    assert ("(conformal), approximately: the classifier was fitted again since" in section(card, "Decision")) is refit


def test_steps_parameters_and_speed_are_readable():
    steps = [{"stop_words": "english"}, "case"]
    params = {"members": [{"family": "linear"}], "weights": None}
    card = model_card(manifest(clean=steps, params=params, metrics={"texts_per_s": 2992.61, "size_mb": 5.5813}))
    making = section(card, "How it was made")
    assert "- Cleaning: stop_words (english), case" in making
    assert '- Parameters: members = `[{"family": "linear"}]`, weights = `null`' in making
    assert "2,993 texts a second, 5.58 MB of files" in section(card, "Figures")
    assert "Its cleaning steps are for texts in: english." in section(card, "Limits")


def test_a_card_says_what_became_of_the_encoder_and_how_it_was_checked():
    parity = {
        "form": "int8",
        "texts": 500,
        "agreement": 0.998,
        "shift_mean": 0.002,
        "shift_99": 0.01,
        "shift_max": 0.03,
    }
    facts = {"encoder": "small", "precision": "bf16", "form": "int8", "long_texts": "head", "export_shift": 3e-8}
    facts["long_texts_validation"] = {"head": 0.81, "windows": 0.8}
    told = section(model_card(manifest(facts={**facts, "parity": {**parity, "kept": True}})), "The encoder")
    assert "- Encoder: small\n" in told
    assert "- Of long texts is read: head\n" in told
    assert "on validation: head 0.8100, windows 0.8000" in told
    assert "differ by 3e-08 at most" in told
    assert "int8 beside fp32, on 500 texts: 99.80% equal labels" in told
    assert "0.0100 for 99 in 100 texts and 0.0300 at most; kept" in told
    refused = section(model_card(manifest(facts={"parity": {**parity, "kept": False}})), "The encoder")
    assert refused.strip().endswith("refused, fp32 is kept")
    assert "## The encoder" not in model_card(manifest())


def test_hundreds_of_labels_make_no_endless_card():
    labels = tuple(f"label {i}" for i in range(500))
    card = model_card(manifest(labels=labels), CardFacts(counts={"train": dict.fromkeys(labels, 3)}))
    assert "440 more labels are not shown." in card
    assert len(card) < 10_000


def test_every_package_has_its_card_among_its_verified_files(tmp_path):
    written = linear_model(Task.BINARY).save(tmp_path / "m")
    assert "model.md" in written.files
    card = (tmp_path / "m" / "model.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    assert "Positive label:" in card
    (tmp_path / "m" / "model.md").write_text(card.replace("topics", "tropics"), encoding="utf-8")
    with pytest.raises(PackageError, match=r"model.md"):
        Model.load(tmp_path / "m")


def test_packages_without_a_card_still_load(tmp_path):
    linear_model(Task.BINARY).save(tmp_path / "m")
    (tmp_path / "m" / "model.md").unlink()
    about = json.loads((tmp_path / "m" / "model.json").read_text(encoding="utf-8"))
    del about["files"]["model.md"]
    (tmp_path / "m" / "model.json").write_text(json.dumps(about), encoding="utf-8")
    verify_package(tmp_path / "m")
    assert Model.load(tmp_path / "m").predict(["cheese"])
