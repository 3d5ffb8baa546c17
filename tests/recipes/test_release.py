"""The encoders that are given away: weights, record, wheel and card belong together, and each does what it is for."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from recipes.zero_shot.card import BEGIN, END, render
from recipes.zero_shot.sources import NLI_SOURCES, SETS

from tamiz.encoders import int8
from tamiz.encoders.own import OWN, Own, Release, read_release
from tamiz.encoders.scores import SEEN
from tamiz.prompting import prompted_model

MOST_BYTES = {"tamiz-zero-shot": 25e6, "tamiz-zero-shot-multilingual": 35e6}
TEXTS = {
    "en": [
        "The match was lost in the last minute, and the coach resigned.",
        "Parliament votes on the new tax law tomorrow.",
        "A vaccine against malaria passes its last trial.",
    ],
    "es": [
        "El partido se perdió en el último minuto y el entrenador dimitió.",
        "El parlamento vota mañana la nueva ley de impuestos.",
        "Una vacuna contra la malaria supera su último ensayo.",
    ],
    "fr": [
        "Le match a été perdu à la dernière minute et l'entraîneur a démissionné.",
        "Le parlement vote demain la nouvelle loi sur les impôts.",
        "Un vaccin contre le paludisme réussit son dernier essai.",
    ],
}
LABELS = {"en": ("sport", "politics", "health"), "es": ("deporte", "política", "salud")}


class Given(NamedTuple):
    """An encoder that is given away, with its package and records."""

    own: Own
    release: Release
    package: Path
    training: dict[str, Any]

    @property
    def model(self) -> Path:
        return self.package / "model"


@pytest.fixture(scope="module", params=OWN.values(), ids=list(OWN))
def given(request) -> Given:
    package = Path(__file__).parents[2] / "packages" / request.param.name
    release = read_release(request.param)
    assert release is not None
    training = json.loads((package / "model" / "training.json").read_text(encoding="utf-8"))
    return Given(request.param, release, package, training)


@pytest.fixture(scope="module")
def wheel(given, tmp_path_factory) -> Path:
    """Build the wheel as its README says."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run([*command, str(given.package)], check=True, timeout=300, env=environment)
    (built,) = folder.glob("*.whl")
    return built


def test_the_record_names_the_weights_that_are_here(given):
    for name, digest, size in given.release.files:
        data = (given.model / name).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (digest, size)


def test_the_wheel_holds_the_model_and_nothing_to_run(given, wheel):
    assert wheel.name == given.release.wheel.filename
    assert wheel.stat().st_size < MOST_BYTES[given.own.name]
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert names == {f"{given.own.folder}/{name}" for name in (*int8.FILES, "training.json", "__init__.py")}
        for name in int8.FILES:
            assert archive.read(f"{given.own.folder}/{name}") == (given.model / name).read_bytes()


def test_nothing_was_trained_on_whose_terms_forbid_commercial_use(given):
    assert all(SETS[name].commercial for name in given.training["trained_on"])
    assert set(given.training["nli"]) <= set(NLI_SOURCES)
    assert set(given.training["choice"]["figures"]["0.0"]) & set(given.training["trained_on"]) == set()


def test_what_it_was_trained_on_is_no_zero_shot_score_of_it(given):
    assert set(SEEN[given.own.name]) == set(given.training["trained_on"])


def test_the_card_is_filled_in(given):
    text = (given.package / "README.md").read_text(encoding="utf-8")
    card = text[text.index(BEGIN) : text.index(END)]
    assert all(f"| {name} |" in card for name in given.training["trained_on"])
    assert render(given.training, []).split("## Scores")[0] in card
    assert "| agnews |" in card.split("## Scores")[1]


def test_it_sorts_texts_into_labels_that_nothing_was_trained_for(given, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("TAMIZ_CACHE", str(tmp_path))
    spoken = given.own.languages
    for language in [one for one in LABELS if one in spoken]:
        about: dict[str, Any] = {"model": str(given.model), "form": "int8", "num_threads": 1, "language": language}
        model = prompted_model(LABELS[language], **about)
        for texts in (TEXTS[one] for one in spoken):  # labels and texts may be of different languages
            probabilities = model.predict_proba(texts)
            assert probabilities.argmax(axis=1).tolist() == [0, 1, 2]
            assert np.all(probabilities.max(axis=1) > 0.4)
