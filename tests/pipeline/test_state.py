"""What a step remembers of itself, and by what it knows its inputs again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tamiz
from tamiz.blobs import open_blobs
from tamiz.pipeline.state import StepState, code_version, fingerprint

SIMPLE = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(params=["local", "s3"])
def state(request, tmp_path) -> StepState:
    place = str(tmp_path / "lake") if request.param == "local" else request.getfixturevalue("s3_place")
    return StepState(open_blobs(place))


def test_a_step_is_known_again_by_its_inputs(state):
    assert state.recall("clean", "a") is None
    assert state.last("clean") is None
    state.remember("clean", "a", {"version": 3, "text": "ñ"})
    assert state.recall("clean", "a") == {"version": 3, "text": "ñ"}
    assert state.recall("clean", "b") is None
    assert state.recall("split", "a") is None
    assert state.last("clean") == {"inputs": "a", "result": {"version": 3, "text": "ñ"}}


def test_only_what_a_step_did_last_counts(state):
    state.remember("clean", "a", {"version": 1})
    state.remember("clean", "b", {"version": 2})
    assert state.recall("clean", "a") is None
    assert state.recall("clean", "b") == {"version": 2}


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"inputs": "a"}', b'{"inputs": "a", "result": 3}', b"\xff"])
def test_a_damaged_record_counts_as_none(damage, tmp_path):
    blobs = open_blobs(str(tmp_path))
    state = StepState(blobs)
    state.remember("clean", "a", {"version": 1})
    (key,) = blobs.list("_state")
    blobs.write(key, damage)
    assert state.recall("clean", "a") is None
    state.remember("clean", "a", {"version": 2})
    assert state.recall("clean", "a") == {"version": 2}


@given(st.dictionaries(st.sampled_from("abcde"), SIMPLE, min_size=1), SIMPLE)
def test_a_fingerprint_tells_inputs_apart_whatever_their_order(inputs, other):
    found = fingerprint(**inputs)
    assert found == fingerprint(**dict(reversed(inputs.items())))
    changed = {**inputs, "z": other}
    assert fingerprint(**changed) != found


def test_a_fingerprint_takes_texts_that_are_no_unicode():
    assert fingerprint(a="\ud800") != fingerprint(a="\udc00")


def test_a_fingerprint_and_the_code_version_are_the_same_in_every_process():
    program = "from tamiz.pipeline.state import *; print(fingerprint(a={'x': 1, 'y': [2]}), code_version())"
    environment = {**os.environ, "PYTHONPATH": str(Path(tamiz.__file__).parents[1]), "PYTHONHASHSEED": "7"}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert found == [fingerprint(a={"y": [2], "x": 1}), code_version()]


def test_the_code_version_names_the_release():
    release, _, digest = code_version().partition("+")
    assert release == tamiz.__version__
    assert len(digest) == 12
