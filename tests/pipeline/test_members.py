"""Ensembles of candidates: named once, fitted once, the same answers."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from tamiz.config import CandidateConfig
from tamiz.decision import halves
from tamiz.errors import ConfigError
from tamiz.model import Model
from tamiz.pipeline import SilentListener
from tamiz.pipeline.members import named, shared
from tamiz.pipeline.train import fit_classifier
from tamiz.registry import MemoryRegistry
from tests.projects import LABELS, make_project, run, side, store_of

WORDS = {"family": "linear", "name": "words", "params": {"words": [1, 1]}}
STACK = {"family": "nb_stack"}
TEXTS = ["bread and cheese", "the match and the team", "a loan from the bank"]


def ensemble(*members, **about):
    return {"family": "ensemble", "params": {"members": list(members)}, **about}


class Heard(SilentListener):
    """Remember which members were fitted."""

    def __init__(self):
        self.fitted = set()

    def progress(self, message, done=0, total=0):
        self.fitted.update(re.findall(r"member \d of \d, \w+", message))


def champion(project, version):
    return Model.load(store_of(project).fetch(f"topics@{version}"))


@pytest.mark.parametrize("refit", [False, True])
def test_candidates_named_as_members_are_not_fitted_again_and_answer_alike(tmp_path, refit):
    select = {"metric": "val_log_loss", "refit": refit, "promote": False}
    own = {"family": "boosting", "params": {"rounds": 3, "min_df": 1}}
    together = ensemble({"candidate": "words"}, {"candidate": "nb_stack"}, own, name="all")
    apart = ensemble({key: WORDS[key] for key in ("family", "params")}, STACK, own, name="all")
    answers = []
    for folder, candidates in (("named", [together, WORDS, STACK]), ("alone", [apart])):
        (tmp_path / folder).mkdir()
        project = make_project(tmp_path / folder, candidates=candidates, select=select)
        listener = Heard()
        result = run(project, MemoryRegistry(), listener=listener, until="train")
        names = sorted(c.get("name", c["family"]) for c in candidates)
        assert sorted(one.candidate for one in result.leaderboard) == names
        first = {"member 3 of 3, boosting"}
        assert listener.fitted == first if folder == "named" else listener.fitted >= first and len(listener.fitted) == 3
        answers.append({one.candidate: one for one in result.leaderboard}["all"].metrics["val_log_loss"])
    assert answers[0] == pytest.approx(answers[1], abs=1e-12)


def test_the_version_of_named_members_stands_alone(tmp_path):
    members = ensemble({"candidate": "words"}, {"candidate": "nb_stack"})
    limited = {"select": {"metric": "val_log_loss", "refit": True}}
    project = make_project(tmp_path, candidates=[WORDS, STACK, members], **limited)
    result = run(project, MemoryRegistry())
    model = champion(project, result.version)
    if result.chosen == "ensemble":
        assert [one["family"] for one in model.manifest.params["members"]] == ["linear", "nb_stack"]
    np.testing.assert_allclose(model.predict_proba(TEXTS).sum(axis=1), 1)


def test_with_sets_the_fit_does_not_see_the_examples_of_the_quantile(tmp_path):
    project = make_project(tmp_path, n=240, split={"validation": 0.4, "test": 0.2})
    run(project, MemoryRegistry(), until="split")
    train, validation = side(project, "train"), side(project, "validation")
    quantile = halves(len(validation.texts), 0)[1]
    turned = replace(validation, targets=validation.targets.copy())
    turned.targets[quantile] = (turned.targets[quantile] + 1) % len(LABELS)
    for sets, alike in ({"coverage": 0.9}, True), (None, False):
        members = ({"family": "linear", "params": {"words": [1, 1]}}, STACK)
        config = CandidateConfig.model_validate(ensemble(*members, conformal=sets))
        about = (config, LABELS, project.task, train)
        one, other = (fit_classifier(*about, held, seed=0)[0] for held in (validation, turned))
        assert (one.temperatures_.tolist() == other.temperatures_.tolist()) is alike


def test_a_member_that_has_seen_the_examples_of_a_quantile_is_not_shared():
    sets = {"conformal": {"coverage": 0.9}}
    plain, with_sets = (CandidateConfig.model_validate(STACK | about) for about in ({}, sets))
    whole, careful = (
        CandidateConfig.model_validate(ensemble(STACK, {"family": "prior"}, **about)) for about in ({}, sets)
    )
    assert shared(whole, [plain]) == {0: plain}
    assert shared(careful, [with_sets]) == {0: with_sets}
    assert shared(careful, [plain]) == shared(whole, [with_sets]) == {}


def test_a_member_that_differs_in_anything_is_its_own():
    words, stack = (CandidateConfig.model_validate(one) for one in (WORDS, STACK))
    same = {"family": "linear", "params": {"words": [1, 1], "C": "auto"}}  # a default, written out
    other = {"family": "linear", "params": {"words": [1, 2]}}
    stemmed = {"family": "nb_stack", "prepare": [{"stem": "english"}]}
    config = CandidateConfig.model_validate(ensemble(same, other, stemmed))
    assert shared(config, [words, stack, config]) == {0: words}


def test_texts_that_a_candidate_prepares_further_are_prepared_for_its_member_alone():
    stemmed = {**STACK, "name": "stems", "prepare": ["case", {"stem": "english"}]}
    configs = [CandidateConfig.model_validate(one) for one in (stemmed, WORDS, ensemble({"candidate": "stems"}, STACK))]
    resolved = named(configs)[2]
    assert resolved.params["members"][0]["prepare"] == configs[0].prepare[1:]
    assert shared(resolved, configs) == {0: configs[0]}


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ({"candidate": "word"}, "no other candidate is called 'word'; allowed: bare, words; did you mean 'words'"),
        ({"candidate": "ensemble"}, "no other candidate is called 'ensemble'"),
        ({"candidate": "words", "params": {}}, "a member has 'candidate' alone"),
        ({"candidate": "bare"}, "which bare does not begin with; set `prepare: \\[\\]`"),
    ],
)
def test_wrong_names_are_refused_before_anything_runs(tmp_path, member, message):
    bare = {**STACK, "name": "bare", "prepare": []}
    project = make_project(tmp_path, candidates=[WORDS, bare, ensemble(member, STACK)])
    with pytest.raises(ConfigError, match=message):
        run(project, MemoryRegistry())
