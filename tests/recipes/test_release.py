"""The encoder that is given away: weights, record, wheel and card belong together, and it does what it is for."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from recipes.zero_shot.card import BEGIN, END
from recipes.zero_shot.sources import NLI_SOURCES, SETS

from tamiz.encoders import int8
from tamiz.encoders.own import FOLDER, read_release
from tamiz.encoders.scores import SEEN
from tamiz.prompting import prompted_model

PACKAGE = Path(__file__).parents[2] / "packages" / "tamiz-zero-shot"
MODEL = PACKAGE / "model"
TRAINING = json.loads((MODEL / "training.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build the wheel as its README says."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run([*command, str(PACKAGE)], check=True, timeout=300, env=environment)
    (built,) = folder.glob("*.whl")
    return built


def test_the_record_names_the_weights_that_are_here():
    release = read_release()
    assert release is not None
    for name, digest, size in release.files:
        data = (MODEL / name).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (digest, size)


def test_the_wheel_holds_the_model_and_nothing_to_run(wheel):
    release = read_release()
    assert release is not None
    assert wheel.name == release.wheel.filename
    assert wheel.stat().st_size < 25e6
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert names == {f"{FOLDER}/{name}" for name in (*int8.FILES, "training.json", "__init__.py")}
        for name in int8.FILES:
            assert archive.read(f"{FOLDER}/{name}") == (MODEL / name).read_bytes()


def test_nothing_was_trained_on_whose_terms_forbid_commercial_use():
    assert all(SETS[name].commercial for name in TRAINING["trained_on"])
    assert set(TRAINING["nli"]) <= set(NLI_SOURCES)
    assert set(TRAINING["choice"]["figures"]["0.0"]) & set(TRAINING["trained_on"]) == set()


def test_what_it_was_trained_on_is_no_zero_shot_score_of_it():
    assert set(SEEN["tamiz-zero-shot"]) == set(TRAINING["trained_on"])


def test_the_card_is_filled_in():
    text = (PACKAGE / "README.md").read_text(encoding="utf-8")
    card = text[text.index(BEGIN) : text.index(END)]
    assert all(f"| {name} |" in card for name in TRAINING["trained_on"])
    assert f"{TRAINING['alpha']:g} of the trained weights" in card
    assert "| agnews |" in card.split("## Scores")[1]


def test_it_sorts_texts_into_labels_that_nothing_was_trained_for(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("TAMIZ_CACHE", str(tmp_path))
    texts = [
        "The match was lost in the last minute, and the coach resigned.",
        "Parliament votes on the new tax law tomorrow.",
        "A vaccine against malaria passes its last trial.",
    ]
    model = prompted_model(("sport", "politics", "health"), model=str(MODEL), form="int8", num_threads=1)
    probabilities = model.predict_proba(texts)
    assert probabilities.argmax(axis=1).tolist() == [0, 1, 2]
    assert np.all(probabilities.max(axis=1) > 0.5)
