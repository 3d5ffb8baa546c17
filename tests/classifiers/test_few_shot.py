"""What is particular to the family over frozen encoders, and that it keeps the contract."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tamiz.classifiers.checks import CHECKS, _Case, examples
from tamiz.classifiers.ensemble import EnsembleClassifier
from tamiz.classifiers.few_shot import FewShotClassifier
from tamiz.classifiers.head import USUAL, Fit
from tamiz.classifiers.occlusion import occlude
from tamiz.errors import LabelError, MissingExtraError, PackageError
from tamiz.types import Task

for module in ("onnx", "onnxruntime", "tokenizers", "safetensors"):
    pytest.importorskip(module)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    from tests.tiny_bert import tiny_bert

    return str(tiny_bert(tmp_path_factory.mktemp("encoder") / "tiny"))


@pytest.fixture(scope="module", autouse=True)
def cached(tmp_path_factory):
    """A cache of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("TAMIZ_CACHE", str(folder))
        yield folder


def fitted(encoder, task=Task.MULTI_CLASS, n=90, **params):
    texts, targets, labels = examples(task, n=n)
    return FewShotClassifier(labels, task, encoder=encoder, num_threads=1, **params).fit(texts, targets), texts, targets


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"form": "fp32"},
        {"form": "bf16", "remember": False, "C": 3, "class_weight": "balanced", "prefix": "query: "},
    ],
)
@pytest.mark.parametrize("task", Task)
def test_contract(encoder, task, params):
    about = {"encoder": encoder, "num_threads": 1, "max_length": 64, **params}
    case = _Case(lambda labels, task, seed: FewShotClassifier(labels, task, seed=seed, **about), task)
    for check in CHECKS:
        check(case)


@pytest.mark.parametrize("task", Task)
def test_it_learns_from_few_examples(encoder, task):
    model, *_ = fitted(encoder, task, n=24)
    texts, targets, _ = examples(task, n=90, seed=1)
    p = model.predict_proba(texts)
    right = (p > 0.5) == targets if task is Task.MULTI_LABEL else p.argmax(1) == targets
    assert right.mean() > (0.7 if task is Task.MULTI_LABEL else 0.8)


def test_the_words_of_its_topic_explain_an_answer(encoder):
    model, texts, targets = fitted(encoder)
    label = int(targets[0])
    found = occlude(model, texts[0], label, budget_ms=600_000)
    assert found.contributions
    strongest = max(found.contributions, key=lambda one: one.value)
    assert texts[0][strongest.start : strongest.end] not in ("the", "of")
    assert model.predict_proba([texts[0]])[0].argmax() == label


def test_an_ensemble_may_have_it_as_a_member(encoder, tmp_path):
    texts, targets, labels = examples(Task.BINARY)
    member = {"family": "few_shot", "params": {"encoder": encoder, "num_threads": 1}}
    model = EnsembleClassifier(labels, Task.BINARY, members=[member, {"family": "linear"}]).fit(texts, targets)
    assert model.tolerance == FewShotClassifier.tolerance
    model.save(tmp_path)
    np.testing.assert_allclose(EnsembleClassifier.load(tmp_path).predict_proba(texts), model.predict_proba(texts))


def test_the_package_is_whole_and_serving_loads_neither_training_library_nor_cache(encoder, tmp_path):
    model, texts, _ = fitted(encoder)
    (tmp_path / "kept").mkdir()
    model.save(tmp_path / "kept")
    names = {path.name for path in (tmp_path / "kept").iterdir()}
    assert names == {"classifier.json", "encoder.onnx", "tokenizer.json", "head.npz", "few_shot.json"}
    program = (
        "import json, sys\nfrom pathlib import Path\nfrom tamiz.classifiers import classifier_class\n"
        "model = classifier_class('few_shot').load(Path(sys.argv[1]))\n"
        "p = model.predict_proba(json.loads(sys.argv[2]))\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'onnx', 'safetensors', 'huggingface_hub', 'sqlite3'}\n"
        "print(json.dumps([p.tolist(), sorted(heavy & set(sys.modules))]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TAMIZ_CACHE": str(tmp_path / "none")}
    out = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "kept"), json.dumps(texts[:5])],
        env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    p, heavy = json.loads(out)
    assert heavy == []
    np.testing.assert_allclose(p, model.predict_proba(texts[:5]), atol=1e-6)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["encoder.onnx", "tokenizer.json", "head.npz", "few_shot.json"])
def test_a_damaged_package_is_refused(encoder, tmp_path, name):
    model, *_ = fitted(encoder)
    model.save(tmp_path)
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(PackageError):
        FewShotClassifier.load(tmp_path)


def test_texts_are_remembered_by_a_fit_alone(encoder, cached):
    import sqlite3

    def seen():
        total = 0
        for path in (cached / "encoders" / "embeddings").glob("*.sqlite"):
            with sqlite3.connect(path) as connection:
                total += connection.execute("SELECT COUNT(*) FROM seen").fetchone()[0]
        return total

    before = seen()
    model, *_ = fitted(encoder, prefix="a ")
    after = seen()
    assert after > before
    model.predict_proba(["never seen in training"])
    silent, *_ = fitted(encoder, prefix="the ", remember=False)
    silent.remembering().predict_proba(["never seen in training"])
    assert seen() == after
    model.remembering().predict_proba(["never seen in training"])
    assert seen() == after + 1


def test_an_encoder_that_is_not_there_says_what_to_run(monkeypatch):
    from importlib import metadata

    from tamiz.encoders.catalogue import CATALOGUE
    from tests.encoders.files import entry

    monkeypatch.setitem(CATALOGUE, "tiny", entry("minilm", {"tinyenc/config.json": b"{}"}))
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version("tinyenc")
    with pytest.raises(MissingExtraError, match="tamiz models install tiny"):
        fitted("tiny")


def test_targets_are_checked_before_an_encoder_is_looked_for():
    with pytest.raises(LabelError, match="no example"):
        FewShotClassifier(("a", "b"), Task.BINARY).fit([], np.zeros(0, np.int64))


def test_a_smaller_form_is_trained_and_served_alike(encoder, tmp_path):
    sizes = {}
    for form in ("fp32", "int8", "bf16"):
        model, texts, targets = fitted(encoder, form=form)
        (tmp_path / form).mkdir()
        model.save(tmp_path / form)
        sizes[form] = (tmp_path / form / "encoder.onnx").read_bytes()
        loaded = FewShotClassifier.load(tmp_path / form)
        np.testing.assert_array_equal(loaded.predict_proba(texts), model.predict_proba(texts))
        assert (loaded.predict_proba(texts).argmax(1) == targets).mean() > 0.9
    assert len(set(sizes.values())) == 3


def test_what_was_settled_can_be_read(encoder):
    model, *_ = fitted(encoder, C=3)
    assert model.facts()["C"] == 3
    assert len(model.facts()["encoder"]) == 64


# --- the strength of the head


def vectors(counts, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    centres = np.eye(len(counts), 8)
    y = np.repeat(np.arange(len(counts)), counts)
    return centres[y] + rng.normal(0, noise, (len(y), 8)), y[:, None] == np.arange(len(counts))


def test_copies_do_not_speak_for_another_strength():
    x, has = vectors((40, 40, 40), noise=1.5)
    copied = np.repeat(np.arange(len(x)), 4)
    how = Fit(Task.MULTI_CLASS, None, 0)
    assert how.strength(x[copied], has[copied]) == how.strength(x, has)


@pytest.mark.parametrize("counts", [(1, 1, 1), (1,) * 20, (2, 2), (1, 4, 1)])
def test_too_few_examples_take_the_usual_strength(counts):
    assert Fit(Task.MULTI_CLASS, None, 0).strength(*vectors(counts)) == USUAL


def test_noise_is_penalised_more_than_what_is_clear():
    how = Fit(Task.MULTI_CLASS, None, 0)
    assert how.strength(*vectors((40, 40, 40), noise=1.5)) < how.strength(*vectors((40, 40, 40), noise=0.1))


@pytest.mark.parametrize("counts", [(4, 4, 4), (1, 30, 30), (2, 3, 50), (4, 0, 4)])
def test_folds_hold_out_nothing_that_cannot_be_judged(counts):
    x, has = vectors(counts)
    folds = list(Fit(Task.MULTI_CLASS, None, 0)._folds(has))
    assert folds
    for train, held_out in folds:
        assert not set(train) & set(held_out)
        assert len(train) + len(held_out) == len(x)
        assert has[train].any(0)[has[held_out].any(0)].all()


def test_a_model_whose_folder_is_gone_says_so_when_it_is_saved(encoder, tmp_path):
    """As one that was loaded from an archive: its files were unpacked for the time of loading only."""
    model, *_ = fitted(encoder)
    (tmp_path / "first").mkdir()
    model.save(tmp_path / "first")
    loaded = FewShotClassifier.load(tmp_path / "first")
    shutil.rmtree(tmp_path / "first")
    assert loaded.predict_proba(["a"]).shape == (1, len(loaded.labels))
    (tmp_path / "second").mkdir()
    with pytest.raises(PackageError, match=r"first is gone.*unpack"):
        loaded.save(tmp_path / "second")
