"""The recipe of the zero-shot encoder, on a tiny BERT and small sets."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from recipes.zero_shot import card, exporting
from recipes.zero_shot import words as label_words
from recipes.zero_shot.mixture import Mixture
from recipes.zero_shot.scoring import evaluate
from recipes.zero_shot.sources import SETS, LabelledSet, NliPairs, data_root, read_nli, read_set, read_sets
from recipes.zero_shot.training import Encoder, Options, loss_of, train
from recipes.zero_shot.words import Words, plain, words_of
from safetensors.numpy import load_file

from tamiz.classifiers.zero_shot import ZeroShotClassifier
from tamiz.encoders import int8, own
from tamiz.encoders.find import find
from tamiz.errors import ConfigError
from tests.tiny_bert import tiny_bert

TOPICS = {
    "food": "bread soup cheese apple salt butter kitchen dinner taste oven",
    "money": "bank loan credit interest account debt payment market share price",
    "sport": "goal match team ball coach league score stadium referee player",
}
LABELS = tuple(TOPICS)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TAMIZ_CACHE", str(tmp_path / "cache"))


def small_set(n: int = 120) -> LabelledSet:
    rng = np.random.default_rng(0)
    targets = rng.integers(3, size=n)
    texts = tuple(" ".join(rng.choice(TOPICS[LABELS[t]].split(), rng.integers(3, 9))) for t in targets)
    words = Words((tuple((label,) for label in LABELS),), (("this text is about {}", "{}"),))
    return LabelledSet("small", texts, tuple((int(t),) for t in targets), LABELS, words, 1.0)


def small_nli() -> NliPairs:
    words = " ".join(TOPICS.values()).split()
    return NliPairs(
        tuple(f"the {word} and a {word}" for word in words),
        tuple((f"a {word}",) for word in words),
        tuple((f"not a {word}",) if place % 2 else () for place, word in enumerate(words)),
    )


def options(folder, **more) -> Options:
    usual = {"steps": 30, "batch": 16, "nli_batch": 8, "learning_rate": 1e-3, "precision": "fp32", "num_threads": 1}
    return Options(start=str(folder), **{**usual, **more})


def quiet(line: str) -> None:
    pass


def test_the_loss_falls(tmp_path):
    start = tiny_bert(tmp_path / "start")
    config = json.loads((start / "config.json").read_text())
    (start / "config.json").write_text(json.dumps({**config, "hidden_dropout_prob": 0.0}))  # it is noise at this width
    train([small_set()], small_nli(), options(start, steps=40, nli_weight=1.0), tmp_path / "run", say=quiet)
    about = json.loads((tmp_path / "run" / "training.json").read_text())
    for source in ("small", "nli"):
        losses = [loss for name, loss in about["losses"] if name == source]
        assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_training_that_was_cut_off_ends_with_the_same_weights(tmp_path):
    start = tiny_bert(tmp_path / "start")
    asked = [small_set()], small_nli(), options(start, steps=8)
    train(*asked, tmp_path / "whole", say=quiet)
    train(*asked, tmp_path / "parts", say=quiet, stop_after=5)
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    said: list[str] = []
    train(*asked, tmp_path / "parts", say=said.append)
    assert said[0] == "goes on from step 5"
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)
    before = load_file(start / "model.safetensors")
    assert not np.array_equal(
        whole["encoder.layer.0.output.dense.weight"], before["encoder.layer.0.output.dense.weight"]
    )


def test_a_training_goes_on_in_the_precision_it_began_with_and_records_it(tmp_path, monkeypatch):
    start = tiny_bert(tmp_path / "start")
    whole = train([small_set()], None, options(start, steps=6), tmp_path / "whole", say=quiet)
    asked = [small_set()], None, options(start, steps=6, precision="auto")
    for precision, stop_after in (("fp32", 3), ("bf16", None)):
        monkeypatch.setattr("recipes.zero_shot.training.chosen_precision", lambda *_, chosen=precision: chosen)
        train(*asked, tmp_path / "parts", say=quiet, stop_after=stop_after)
    assert exporting.read_training(tmp_path / "parts")["precision"] == "fp32"
    found, expected = (load_file(folder / "model.safetensors") for folder in (tmp_path / "parts", whole))
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_a_checkpoint_of_other_data_is_not_used(tmp_path):
    start = tiny_bert(tmp_path / "start")
    train([small_set()], None, options(start, steps=4), tmp_path / "run", say=quiet, stop_after=2)
    said: list[str] = []
    train([small_set(60)], None, options(start, steps=4), tmp_path / "run", say=said.append)
    assert not any(line.startswith("goes on") for line in said)


def test_right_sentences_do_not_count_against_each_other():
    import torch

    cosines = torch.tensor([[0.5, 0.5, -0.5]])
    both = loss_of(cosines, torch.tensor([[True, True, False]]), 0.1, both_ways=False)
    assert float(both) == pytest.approx(np.log1p(np.exp(-10)), abs=1e-6)
    one = loss_of(cosines, torch.tensor([[True, False, False]]), 0.1, both_ways=False)
    assert float(one) == pytest.approx(np.log(2 + np.exp(-10)), rel=1e-5)


def test_batches_hold_the_right_labels_and_their_neighbours():
    labels = tuple(f"label_{number}" for number in range(100))
    words = words_of("of nothing", labels)
    targets = tuple((number % 100,) for number in range(400))
    made = LabelledSet("many", tuple(f"text {t[0]}" for t in targets), targets, labels, words, 1.0)
    near = (np.arange(100)[:, None] + np.arange(100)[None, :]) % 100  # the next one is the nearest
    batch = Mixture([made], None, [near], seed=0, batch=8).draw(3)
    assert len(batch.sentences) == 64
    assert (batch.right.sum(axis=1) == 1).all()
    said = [one.rstrip(".").rsplit(" ", 1)[1] for one in batch.sentences]
    for row, text in enumerate(batch.texts):
        number = int(text.split()[1])
        assert said[int(batch.right[row].argmax())] == str(number)
        assert str((number + 1) % 100) in said


def test_a_draw_depends_on_its_step_alone():
    about = [small_set()], small_nli(), [np.array([[0, 1, 2], [1, 0, 2], [2, 0, 1]])]
    first, second = Mixture(*about, seed=1), Mixture(*about, seed=1)
    first.draw(0)
    assert first.draw(7).texts == second.draw(7).texts
    assert {Mixture(*about, seed=1).draw(step).source for step in range(20)} == {"small", "nli"}


# --- what is trained on


@pytest.fixture
def data(tmp_path):
    """A data folder with a row or two for each label."""
    root = tmp_path / "data"
    for name, source in SETS.items():
        path = root / source.file.format("train")
        path.parent.mkdir(parents=True, exist_ok=True)
        answers = ["one", "two", *source.leave]
        rows = pl.DataFrame(
            {
                source.text: [f"{name} {answer}" for answer in answers],
                source.label: [[one] for one in answers] if name == "movies" else answers,
            }
        )
        (rows.write_csv if path.suffix == ".csv" else rows.write_parquet)(path)
    (root / "nli").mkdir()
    sources = ["mnli", "sick", "mnli", "mnli", "of_nobody"]
    labels = ["entailment", "entailment", "contradiction", "neutral", "entailment"]
    rows = {"premise": ["p", "s", "p", "q", "r"], "hypothesis": list("abcde"), "label": labels, "source": sources}
    pl.DataFrame(rows).write_parquet(root / "nli" / "train.parquet")
    return root


def test_sets_that_are_left_out_stay_out(data):
    found = read_sets(data, ["imdb", "clinc150"], film_snippets=data / "film_snippets.csv")
    names = [one.name for one in found]
    assert names == ["newsgroups", "banking77", "noticias_es", "movies", "complaints", "film_snippets"]
    texts = " ".join(text for one in found for text in one.texts)
    assert "imdb" not in texts
    assert "clinc150" not in texts
    assert "agnews" not in texts  # its terms forbid commercial use
    assert "film_snippets" not in [one.name for one in read_sets(data)]
    with pytest.raises(ConfigError, match="did you mean 'imdb'"):
        read_sets(data, ["imbd"])


def test_out_of_scope_is_no_label(data):
    assert read_set(data, "clinc150").labels == ("one", "two")


def test_pairs_of_sources_that_are_not_named_never_enter(data):
    found = read_nli(data / "nli" / "train.parquet")
    assert found == NliPairs(("p",), (("a",),), (("c",),))


def test_without_data_it_says_what_to_set(monkeypatch):
    monkeypatch.delenv("TAMIZ_DATA", raising=False)
    with pytest.raises(ConfigError, match="set TAMIZ_DATA"):
        data_root()


def test_identifiers_become_words():
    assert plain("card_payment_fee") == "card payment fee"
    words = words_of("banking77", ("activate_my_card", "age_limit"))
    assert words.first()[0] == "activate my card"
    assert len(words.phrases[0][1]) > 1
    several = words_of("noticias_es", ("sport",), ("en", "es", "fr"))  # there are none in French
    assert [one[0][0] for one in several.phrases] == ["sports", "deportes"]
    with pytest.raises(ConfigError, match="'it'"):
        words_of("noticias_es", ("sport",), ("en", "it"))
    with pytest.raises(ConfigError, match="English comes first"):
        words_of("noticias_es", ("sport",), ("es",))


@pytest.mark.parametrize("language", ["es", "fr"])
def test_words_in_another_language_are_for_the_labels_of_the_english_ones(language):
    folder = Path(label_words.__file__).parent
    english = yaml.safe_load((folder / "labels.yaml").read_text(encoding="utf-8"))["sets"]
    other = yaml.safe_load((folder / f"labels_{language}.yaml").read_text(encoding="utf-8"))
    for name, said in other["sets"].items():
        assert set(said) >= set(english[name]["labels"])
    for templates in other["templates"].values():
        assert all(template.count("{}") == 1 for template in templates)


def test_frozen_layers_keep_their_weights(tmp_path):
    start = tiny_bert(tmp_path / "start")
    folder = train([small_set()], None, options(start, steps=3, frozen_layers=1), tmp_path / "made", say=quiet)
    before, after = load_file(start / "model.safetensors"), load_file(folder / "model.safetensors")
    moved = {name for name, one in after.items() if not np.array_equal(one, before[name])}
    assert moved
    assert all(name.startswith("encoder.layer.1.") for name in moved)
    with pytest.raises(ConfigError, match="2 layers"):
        train([small_set()], None, options(start, frozen_layers=3), tmp_path / "other", say=quiet)


# --- what is shipped


def test_what_is_exported_answers_like_the_average(tmp_path):
    start = tiny_bert(tmp_path / "start")
    trained = train([small_set()], None, options(start, steps=6), tmp_path / "run", say=quiet)
    shipped = exporting.export(trained, tmp_path / "shipped", 0.5)
    before, after = load_file(start / "model.safetensors"), load_file(trained / "model.safetensors")
    name = "encoder.layer.0.output.dense.weight"
    half = exporting.average(start, trained, 0.5)
    assert np.allclose(half[name], (before[name] + after[name]) / 2)
    full = exporting.write_full(trained, half, tmp_path / "full")
    texts = list(small_set().texts)
    one, two = (Encoder(find(str(folder)).folder, "fp32").embed(texts, 32) for folder in (full, shipped))
    assert (one * two).sum(axis=1).min() > 0.999
    about = exporting.read_training(shipped)
    assert about["alpha"] == 0.5
    assert set(about["trained_on"]) == {"small"}
    found = evaluate(str(shipped), [small_set(40)], form="fp32", unlabelled=lambda _: texts, say=quiet)
    assert found["sets"]["small"]["trained_on"] is True
    assert 0 <= found["sets"]["small"]["accuracy"] <= 1
    shown = card.render(about, [found])
    assert "| small *seen* |" in shown.replace("shipped | ", "")


def test_labels_are_adapted_by_texts_that_are_not_measured(tmp_path, monkeypatch):
    """A set without a training part has one file, of which some rows are measured."""
    given, settle = [], ZeroShotClassifier.settle
    monkeypatch.setattr(ZeroShotClassifier, "settle", lambda self, texts: given.extend(texts) or settle(self, texts))
    model, one = str(tiny_bert(tmp_path / "tiny")), small_set(90)
    about = {"form": "fp32", "unlabelled": lambda _: one.texts, "say": quiet}
    found = evaluate(model, [one], rows=40, **about)
    measured = {one.texts[row] for row in np.random.default_rng(0).permutation(90)[:40]}
    assert sorted(given) == sorted(text for text in one.texts if text not in measured)
    assert "adapted" in found["sets"]["small"]
    assert "adapted" not in evaluate(model, [one], **about)["sets"]["small"]


def test_the_best_share_is_chosen_and_the_smaller_on_ties():
    figures = {0.0: 0.1, 0.5: 0.7, 1.0: 0.7}
    assert exporting.choose(lambda alpha: {"x": figures[alpha]}, (0.0, 0.5, 1.0))["alpha"] == 0.5


@pytest.mark.parametrize(
    ("alpha", "said"),
    [
        (0.75, "0.75 of the trained weights and 0.25 of the starting ones are kept."),
        (1.0, "seed 0; the trained weights are kept as they are."),
    ],
)
def test_a_card_says_what_the_weights_are_a_mean_of(alpha, said):
    about = {"options": {"steps": 3, "start": "minilm", "seed": 0}, "alpha": alpha, "nli": {}, "trained_on": {}}
    assert said in card.render(about, [])


def test_a_card_is_written_between_its_marks(tmp_path):
    about = {"options": {"steps": 3, "start": "minilm", "seed": 0}, "alpha": 0.5, "nli": {}, "trained_on": {}}
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{card.BEGIN}\nold\n{card.END}\nafter\n")
    card.rewrite(readme, about, [])
    text = readme.read_text()
    assert "old" not in text
    assert text.startswith("before")
    assert text.endswith("after\n")


def test_a_wheel_is_recorded_as_the_catalogue_reads_it(tmp_path):
    wheel = tmp_path / "tamiz_zero_shot-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in int8.FILES:
            archive.writestr(f"tamiz_zero_shot/{name}", name)
    found = own.read_release(own.own_of(wheel.name), exporting.release(wheel, tmp_path / "record.json"))
    assert found is not None
    assert (found.version, found.wheel.filename) == ("0.1.0", wheel.name)
    assert [name for name, *_ in found.files] == list(int8.FILES)
    with zipfile.ZipFile(wheel, "w"):
        pass
    with pytest.raises(ConfigError, match="does not hold"):
        exporting.release(wheel, tmp_path / "record.json")
    with pytest.raises(ConfigError, match="no wheel of an encoder of ours"):
        exporting.release(tmp_path / "minilm-0.1.0-py3-none-any.whl", tmp_path / "record.json")
