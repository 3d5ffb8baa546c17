"""The parts of a ladder that need no encoder: comparing, suggesting, keeping."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tamiz.errors import ColumnError, LabelError, SourceError
from tamiz.metrics import mcnemar
from tamiz.model import Model
from tamiz.pipeline.ladder_answers import take_labels
from tamiz.pipeline.ladder_compare import climb, folds, right_counts, sign_flip, texts_to_tell
from tamiz.pipeline.ladder_state import (
    Batch,
    Labelled,
    State,
    Suggestion,
    read_state,
    replace_model,
    restore_model,
    write_state,
)
from tamiz.pipeline.ladder_suggest import _diverse, suggest, uncertainty
from tamiz.types import Task
from tests.models import linear_model
from tests.projects import write_csv


def state(**more) -> State:
    about = {"seed": 3, "size": 20, "random_share": 0.5, "alpha": 0.05, "texts": 200, "rung": "zero_shot"}
    return State(**{"labels": ("food", "money", "sport"), "task": Task.MULTI_CLASS, **about, **more})


# --- comparing


@pytest.mark.parametrize(("wins", "losses"), [(8, 2), (5, 0), (3, 3), (0, 0), (40, 21)])
def test_without_repetition_it_is_mcnemars_exact_test(wins, losses):
    first = np.array([True] * wins + [False] * losses + [True] * 7)
    second = np.array([False] * wins + [True] * losses + [True] * 7)
    difference = first.astype(np.int64) - second
    assert sign_flip(difference) == pytest.approx(mcnemar(first, second).p_exact)


def test_repeated_answers_are_weighed_by_their_number():
    """All signs of four differences, counted by hand: 3 + 2 + 1 + 1 = 7, and 2 of 16 sums are as far from 0."""
    assert sign_flip(np.array([3, 2, 1, 1])) == pytest.approx(2 / 16)
    assert sign_flip(np.array([3, -2, 1, 1])) == pytest.approx(10 / 16)


def test_a_rung_that_is_better_by_luck_is_refused():
    rights = {"zero_shot": np.array([1] * 10 + [0] * 10), "few_shot": np.array([1] * 13 + [0] * 7)}
    found = climb("zero_shot", rights, 1, 0.05)
    assert found.rung == "zero_shot"
    ((one,),) = found.rounds
    assert (one.verdict, one.wins, one.losses) == ("undecided", 3, 0)
    assert one.more_texts is not None
    assert 10 < one.more_texts < 60


def test_chance_seldom_makes_a_step():
    rng = np.random.default_rng(0)
    names = ("a", "b", "c", "d")
    steps = [climb("a", {name: rng.integers(0, 2, 60) for name in names}, 1, 0.05).rung != "a" for _ in range(300)]
    assert sum(steps) <= 0.05 * 300 + 8


def test_the_lightest_better_rung_is_taken_and_a_heavier_one_only_if_it_is_better_still():
    zero, good, best = np.zeros(40, int), np.array([1] * 20 + [0] * 20), np.ones(40, int)
    assert climb("a", {"a": zero, "b": good, "c": good}, 1, 0.05).rung == "b"
    found = climb("a", {"a": zero, "b": good, "c": best}, 1, 0.05)
    assert found.rung == "c"
    assert [one[0].current for one in found.rounds] == ["a", "b", "c"]


def test_a_lighter_rung_that_is_surely_better_is_gone_back_to():
    rights = {"a": np.ones(40, int), "b": np.array([1] * 20 + [0] * 20)}
    assert climb("b", rights, 1, 0.05).rung == "a"


def test_of_several_lighter_rungs_that_are_better_the_best_is_gone_back_to():
    half, every, none = np.array([1] * 20 + [0] * 20), np.ones(40, int), np.zeros(40, int)
    for best, rights in (("b", {"a": half, "b": every, "c": none}), ("a", {"a": every, "b": half, "c": none})):
        assert [one[0].current for one in climb("c", rights, 1, 0.05).rounds] == ["c", best]


def test_the_more_rungs_there_are_the_more_texts_would_tell():
    """Connor's formula with the normal quantiles of .05 / 2 / 3 and of .2, for 6 won and 2 lost of 40."""
    rights = {"a": np.array([0] * 6 + [1] * 2 + [0] * 32), "b": np.array([1] * 6 + [0] * 34)}
    rights |= {name: np.zeros(40, int) for name in ("c", "d")}
    needed = ((2.3940 * np.sqrt(0.2) + 0.8416 * np.sqrt(0.2 - 0.1**2)) / 0.1) ** 2
    one = next(one for one in climb("a", rights, 1, 0.05).rounds[0] if one.rung == "b")
    assert one.more_texts == pytest.approx(needed - 40, abs=2)


def test_of_several_labels_all_must_be_right_and_each_must_be_absent_somewhere():
    targets = np.array([[True, place % 2 == 0] for place in range(20)])
    targets[0, 0] = False
    assert folds(targets, np.arange(20), seed=0) is None  # only the first text lacks the first label
    targets[1:9, 0] = False
    parts = folds(targets, np.arange(20), seed=0)

    def answering(_, held):
        return {"right": targets[held] * 0.8 + 0.1, "one label": targets[held] * [0.8, 0.0] + 0.1}

    counts = right_counts(answering, targets, np.arange(20), [parts], Task.MULTI_LABEL)
    assert counts["right"].tolist() == [1] * 20
    assert counts["one label"].tolist() == [0, 1] * 10


def test_texts_that_would_tell():
    """Connor's formula by hand for 20 % won, 10 % lost: about 234 texts."""
    difference = np.array([1.0] * 20 + [-1.0] * 10 + [0.0] * 70)
    assert texts_to_tell(difference, 0.05) == pytest.approx(234, abs=3)
    assert texts_to_tell(-difference, 0.05) is None


def test_rungs_that_are_even_have_no_number_of_texts_that_would_tell():
    """Thirds of wins and losses do not add up to zero."""
    rights = np.array([0, 1, 2, 3] * 10)
    for seed in range(20):
        other = np.random.default_rng(seed).permutation(rights)
        assert climb("a", {"a": rights, "b": other}, 3, 0.05).rounds[0][0].more_texts is None


def test_no_text_is_answered_by_what_learnt_from_it():
    targets = np.array([0, 1, 2] * 20)
    measured = np.arange(0, 60, 2)
    divisions = [folds(targets, measured, seed=turn) for turn in range(2)]
    seen = np.zeros(60, int)

    def answering(learnt, held):
        assert not set(learnt) & set(held)
        assert len(learnt) + len(held) == 60
        assert set(held) <= set(measured)
        seen[held] += 1
        return {"right": np.eye(3)[targets[held]], "wrong": np.eye(3)[(targets[held] + 1) % 3]}

    counts = right_counts(answering, targets, measured, divisions, Task.MULTI_CLASS)
    assert set(seen[measured]) == {2}
    assert set(counts["right"]) == {2}
    assert set(counts["wrong"]) == {0}


def test_no_text_is_answered_by_what_learnt_from_a_near_duplicate():
    """Wherever that stands: among those measured, or among those that are only learnt from."""
    targets = np.array([0, 1, 2] * 20)
    near = np.arange(60) // 6 * 3 + targets  # 30 pairs
    measured = np.arange(0, 60, 2)
    divisions = [folds(targets, measured, seed=turn, near=near) for turn in range(2)]
    seen = np.zeros(60, int)

    def answering(learnt, held):
        assert not set(near[learnt]) & set(near[held])
        assert set(near[learnt]) | set(near[held]) == set(near)
        seen[held] += 1
        return {"right": np.eye(3)[targets[held]]}

    assert set(right_counts(answering, targets, measured, divisions, Task.MULTI_CLASS, near=near)["right"]) == {2}
    assert set(seen[measured]) == {2}
    assert folds(targets, measured, seed=0, near=np.zeros(60, int)) is None


def test_clusters_of_one_text_each_change_no_fold():
    targets = np.array([0, 1, 2] * 20)
    measured = np.arange(0, 60, 2)
    for one, other in zip(
        folds(targets, measured, seed=1), folds(targets, measured, seed=1, near=np.arange(60)[::-1]), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_rare_label_stays_to_be_learnt_from_in_every_fold():
    targets = np.array([0] * 20 + [1] * 20 + [2, 2])
    for part in folds(targets, np.arange(42), seed=0):
        assert 2 in np.delete(targets, part)
    assert folds(np.array([0] * 20 + [1]), np.arange(21), seed=0) is None
    assert folds(np.array([0] * 20 + [1] * 20 + [2]), np.arange(41), seed=0) is not None  # one text teaches nothing


# --- suggesting


def texts_of(n=200):
    words = ("bread soup", "bank loan", "goal match")
    return [f"{words[place % 3]} w{place}" for place in range(n)]


def embed(texts):
    return np.random.default_rng(len(texts)).normal(size=(len(texts), 4)).astype(np.float32)


def test_rows_drawn_at_random_do_not_depend_on_the_model_and_are_never_picked():
    known, texts, model = state(), texts_of(), linear_model(Task.MULTI_CLASS)
    drawn, rest = known.sides()
    assert sorted(drawn + rest, key=lambda one: int(one[1:])) == [f"t{n + 1}" for n in range(200)]
    for turn in range(12):
        batch = suggest(known, texts, model, embed)
        random = [row.id for row in batch.rows if row.random]
        assert random == drawn[10 * turn : 10 * turn + 10]
        assert {row.id for row in batch.rows if not row.random} <= set(rest)
        labelled = [Labelled(row.id, ("food",), row.random, batch.number) for row in batch.rows]
        known = known.with_(labelled=(*known.labelled, *labelled), batches=(*known.batches, batch))
    assert len({one.id for one in known.labelled}) == len(known.labelled) == 200


def test_random_rows_are_spread_over_all_texts():
    """Over many seeds every text is drawn about equally often."""
    counts = np.zeros(200)
    for seed in range(400):
        for id_ in state(seed=seed).sides()[0][:10]:
            counts[int(id_[1:]) - 1] += 1
    assert counts.sum() == 4000
    assert counts.max() < 45  # 20 are expected


def test_picked_rows_are_the_unsure_ones():
    known, model = state(size=12, random_share=0.1), linear_model(Task.MULTI_CLASS)
    texts = [f"bread soup cheese w{n}" if n % 2 else f"bread bank w{n}" for n in range(200)]
    enough = tuple(Labelled(f"t{n}", (label,), False, 1) for n, label in enumerate(("food", "money", "sport") * 2, 1))
    batch = suggest(known.with_(labelled=enough), texts, model, embed)
    picked = [row for row in batch.rows if not row.random]
    assert all("bank" in texts[int(row.id[1:]) - 1] for row in picked)
    assert all(row.why.startswith("unsure between") for row in picked)


def test_most_texts_that_are_looked_at_were_looked_at_before_and_in_time_all_are():
    known, texts = state(texts=5000, random_share=0.1), texts_of(5000)
    looked_at: list[set[str]] = []

    class Listening:
        def __init__(self):
            inner = linear_model(Task.MULTI_CLASS)
            self.labels, self.manifest, self.predict_proba_of = inner.labels, inner.manifest, inner.predict_proba

        def predict_proba(self, some):
            looked_at[-1].update(some)
            return self.predict_proba_of(some)

    for _ in range(16):
        looked_at.append(set())
        batch = suggest(known, texts, Listening(), embed)
        labelled = [Labelled(row.id, ("food",), row.random, batch.number) for row in batch.rows]
        known = known.with_(labelled=(*known.labelled, *labelled), batches=(*known.batches, batch))
    for before, after in pairwise(looked_at):
        assert len(after & before) >= 700
        assert 200 < len(after - before) < 300
    rest = {texts[int(id_[1:]) - 1] for id_ in known.sides()[1]}
    assert rest <= set().union(*looked_at)


def test_labels_with_few_texts_are_looked_for():
    batch = suggest(state(), texts_of(), linear_model(Task.MULTI_CLASS), embed)
    assert {row.hint for row in batch.rows if row.why.startswith("perhaps")} == {"food", "money", "sport"}


class Constant:
    """Says the same of every text."""

    def __init__(self, *probabilities):
        self.probabilities, self.labels = probabilities, ("food", "money", "sport")
        self.manifest = linear_model(Task.MULTI_CLASS).manifest

    def predict_proba(self, texts):
        return np.array([self.probabilities] * len(texts))


def test_each_label_is_looked_for_until_it_has_two_texts():
    known = state(size=12, random_share=0.2)
    labelled = [Labelled(f"t{n}", (one,), False, 1) for n, one in enumerate(("food", "sport", "sport"), 1)]
    batch = suggest(known.with_(labelled=tuple(labelled)), texts_of(), linear_model(Task.MULTI_CLASS), embed)
    found = [row.why.split(",")[0].split()[-1] for row in batch.rows if row.why.startswith("perhaps")]
    assert found == ["money", "food", "money"]


def test_a_hint_says_what_is_likely_how_surely_and_what_is_in_doubt():
    rows = suggest(state(random_share=0.1), texts_of(), Constant(0.1, 0.5, 0.4), embed).rows
    assert {(row.hint, row.score) for row in rows} == {("money", 0.5)}
    assert {row.why for row in rows if row.why.startswith("unsure")} == {"unsure between money and sport"}
    several = suggest(state(random_share=0.1, task=Task.MULTI_LABEL), texts_of(), Constant(0.9, 0.4, 0.1), embed).rows
    assert {row.hint for row in several} == {"food"}
    assert [row.score for row in several] == pytest.approx([0.6] * 20)
    assert {row.why for row in several if row.why.startswith("unsure")} == {"unsure about money"}


def test_texts_that_differ_are_unsure_ones_and_equal_ones_make_up_the_number():
    vectors = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    unsure = np.zeros(40)
    unsure[[3, 11, 12, 30, 39]] = 1.0
    assert sorted(_diverse(vectors, unsure, 5, (0, 1))) == [3, 11, 12, 30, 39]
    assert len(set(_diverse(np.ones((6, 4), np.float32), np.ones(6), 4, (0, 1)))) == 4


def test_labels_of_which_nothing_was_learnt_are_looked_for_by_their_names():
    """The rung has never met sport, and gives it the texts about food; who is told the labels knows better."""

    class Turned:
        def __init__(self, order):
            self.inner, self.order = linear_model(Task.MULTI_CLASS), order
            self.labels, self.manifest = self.inner.labels, self.inner.manifest

        def predict_proba(self, texts):
            return self.inner.predict_proba(texts)[:, self.order]

    labels = linear_model(Task.MULTI_CLASS).labels
    sport, food = labels.index("sport"), labels.index("food")
    order = list(range(3))
    order[sport], order[food] = food, sport
    known = state(labels=labels)
    enough = [Labelled(f"t{n}", (one,), False, 1) for n, one in enumerate(("food", "money") * 2, 1)]
    known = known.with_(labelled=tuple(enough))
    for told, about in ((None, "bread"), (lambda: Turned([0, 1, 2]), "goal")):
        batch = suggest(known, texts_of(), Turned(order), embed, told=told)
        found = [texts_of()[int(row.id[1:]) - 1] for row in batch.rows if row.why.startswith("perhaps sport")]
        assert len(found) == 2
        assert all(about in text for text in found)


def test_what_somebody_picked_is_no_random_sample_until_its_turn_comes(tmp_path):
    known, model = state(), linear_model(Task.MULTI_CLASS)
    drawn = known.sides()[0]
    picked = [drawn[3], drawn[15], drawn[90]]
    write_csv(tmp_path / "mine.csv", [{"id": id_, "label": "food"} for id_ in picked])
    known = known.with_(labelled=take_labels(known, tmp_path / "mine.csv", texts_of()).labelled)
    assert [one.random for one in known.labelled] == [False, False, False]
    batch = suggest(known, texts_of(), model, embed)
    assert [row.id for row in batch.rows if row.random] == [*drawn[:3], *drawn[4:11]]
    known = known.with_batch(batch)
    assert [one.random for one in known.labelled] == [True, False, False]
    assert [one.random for one in known.with_batch(suggest(known, texts_of(), model, embed)).labelled] == [
        True,
        False,
        False,
    ]


def test_labels_from_elsewhere_are_known_by_their_texts(tmp_path):
    texts = texts_of()
    (tmp_path / "mine.csv").write_text(f'text,label\n"{texts[3].replace(" ", chr(13) + chr(10), 1)} ",food\n')
    taken = take_labels(state(), tmp_path / "mine.csv", texts)
    assert [(one.id, one.labels) for one in taken.labelled] == [("t4", ("food",))]
    write_csv(tmp_path / "mine.csv", [{"text": "never seen", "label": "food"}])
    with pytest.raises(LabelError, match="row 2: unknown text"):
        take_labels(state(), tmp_path / "mine.csv", texts)
    write_csv(tmp_path / "mine.csv", [{"id": "t4", "text": texts[4], "label": "food"}])
    with pytest.raises(LabelError, match="row 2: t4 is another text"):
        take_labels(state(), tmp_path / "mine.csv", texts)
    write_csv(tmp_path / "mine.csv", [{"what": "t4", "label": "food"}])
    with pytest.raises(ColumnError, match="no column 'id'"):
        take_labels(state(), tmp_path / "mine.csv", texts)


def test_the_same_seed_suggests_the_same():
    known, model = state(), linear_model(Task.MULTI_CLASS)
    assert suggest(known, texts_of(), model, embed) == suggest(known, texts_of(), model, embed)
    assert suggest(state(seed=4), texts_of(), model, embed) != suggest(known, texts_of(), model, embed)


def test_uncertainty():
    p = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.6, 0.3, 0.1]])
    np.testing.assert_allclose(uncertainty(p, Task.MULTI_CLASS), [1.0, 0.0, 0.7])
    np.testing.assert_allclose(uncertainty(p, Task.MULTI_LABEL), [1.0, 0.0, 0.8])


# --- keeping


def test_the_state_comes_back_as_it_was(tmp_path):
    rows = (Suggestion("t5", True, "food", 0.5, "drawn at random"),)
    full = state(
        labelled=(Labelled("t5", ("food",), True, 1),), batches=(Batch(1, 0, rows),), decisions=({"rung": "linear"},)
    )
    write_state(tmp_path, full)
    assert read_state(tmp_path) == full
    (tmp_path / "ladder.json").write_text("{", encoding="utf-8")
    with pytest.raises(SourceError, match="damaged"):
        read_state(tmp_path)
    (tmp_path / "ladder.json").write_text('{"format": 99}', encoding="utf-8")
    with pytest.raises(SourceError, match="update it"):
        read_state(tmp_path)


def task_of_model(folder):
    return Model.load(folder / "model").task


def test_a_model_is_replaced_whole(tmp_path):
    for task in (Task.BINARY, Task.MULTI_CLASS, Task.BINARY):
        replace_model(tmp_path, linear_model(task))
        assert task_of_model(tmp_path) is task
        assert len(list(tmp_path.iterdir())) == 2  # the link and what it names


def cut_off(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("moment", ["symlink_to", "replace"])
def test_a_replacement_that_is_cut_off_leaves_the_former_model_in_its_place(tmp_path, monkeypatch, moment):
    replace_model(tmp_path, linear_model())
    before = sorted(path.name for path in tmp_path.iterdir())
    new = linear_model(Task.MULTI_CLASS)
    with monkeypatch.context() as patch:
        patch.setattr(Path, moment, cut_off)
        with pytest.raises(KeyboardInterrupt):
            replace_model(tmp_path, new)
    assert task_of_model(tmp_path) is Task.BINARY
    restore_model(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    replace_model(tmp_path, new)
    assert task_of_model(tmp_path) is Task.MULTI_CLASS


def test_a_model_that_is_no_link_is_replaced_too_and_a_move_cut_off_is_made_good(tmp_path, monkeypatch):
    linear_model().save(tmp_path / "model")  # a copied ladder has the files themselves
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut_off)
        with pytest.raises(KeyboardInterrupt):
            replace_model(tmp_path, linear_model(Task.MULTI_CLASS))
    restore_model(tmp_path)
    assert task_of_model(tmp_path) is Task.BINARY
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    replace_model(tmp_path, linear_model(Task.MULTI_CLASS))
    assert task_of_model(tmp_path) is Task.MULTI_CLASS


def test_without_links_the_package_itself_is_moved(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("a required privilege is not held")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    for task in (Task.BINARY, Task.MULTI_CLASS):
        replace_model(tmp_path, linear_model(task))
        assert task_of_model(tmp_path) is task
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
