import random
import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiz.data.near_duplicates import clusters
from tamiz.data.quotas import TEST, TRAIN, VALIDATION, Groups, Held, fill
from tamiz.data.silver import clean
from tamiz.data.split import split
from tamiz.errors import DataError, LabelError

from .lakes import NOW, WORDS, cleaned, divided, project, put, rows_of, sides_of

SHARES = {"validation": 0.1, "test": 0.1}


def texts(n: int, seed: int = 0, length: int = 30) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choice(WORDS) for _ in range(length)) for _ in range(n)]


def labelled(n: int, seed: int = 0, labels: str = "ab") -> list[dict]:
    return [{"text": text, "label": labels[i % len(labels)]} for i, text in enumerate(texts(n, seed))]


def edited(text: str, word: str = "edited") -> str:
    return f"{text} {word}"


# ---- shares, by the pure function ----


def filled(group_labels: list[list[int]], k: int, seed: int = 0, held: Held | None = None, **shares) -> np.ndarray:
    pairs = [(g, label, n) for g, labels in enumerate(group_labels) for label, n in sorted(Counter(labels).items())]
    columns = [np.array([pair[i] for pair in pairs], np.int64) for i in range(3)]
    held = held or Held(np.zeros((3, k), np.int64), np.zeros(k, np.int64))
    groups = Groups([f"g{i}" for i in range(len(group_labels))], *columns)
    return fill(groups, held, **(SHARES | shares), seed=seed)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_single_rows_fill_the_shares_of_each_label_exactly(labels, seed):
    sides = filled([[label] for label in labels], 5, seed)
    for label, n in Counter(labels).items():
        got = Counter(sides[np.array(labels) == label].tolist())
        least = 1 if n >= 3 else 0
        assert got[TEST] == got[VALIDATION] == max(int(0.1 * n + 0.5), least)
        assert got[TRAIN] >= 1


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=60))
@settings(max_examples=100, deadline=None)
def test_a_label_with_three_groups_is_on_every_side_unless_training_would_lose_another(groups):
    sides = filled(groups, 4)
    on = [{label for g, s in zip(groups, sides, strict=True) if s == side for label in g} for side in range(3)]
    assert on[TRAIN] == {label for g in groups for label in g}
    for label in range(4):
        with_it = [(g, s) for g, s in zip(groups, sides, strict=True) if label in g]
        for side in (VALIDATION, TEST):
            if len(with_it) >= 3 and label not in on[side]:
                in_training = Counter(x for g, s in zip(groups, sides, strict=True) if s == TRAIN for x in set(g))
                assert all(any(in_training[x] == 1 for x in g) for g, s in with_it if s == TRAIN)


def test_one_label_alone_with_three_groups_is_on_every_side():
    assert sorted(filled([[0] * 50, [0], [0] * 3], 1).tolist()) == [TRAIN, VALIDATION, TEST]


def test_a_giant_group_does_not_swamp_a_share():
    for seed in range(10):
        sides = filled([[0] * 900, *([0] for _ in range(100))], 1, seed)
        assert sides[0] == TRAIN
        assert Counter(sides.tolist())[TEST] > 0


def test_what_is_held_counts():
    held = Held(np.array([[80], [10], [20]]), np.array([110]))
    sides = filled([[0]] * 90, 1, held=held)
    assert Counter(sides.tolist()) == {TRAIN: 80, VALIDATION: 10}


def test_the_seed_and_the_key_decide_who_goes_where():
    groups = [[0]] * 200
    assert filled(groups, 1).tolist() == filled(groups, 1).tolist()
    assert filled(groups, 1).tolist() != filled(groups, 1, seed=1).tolist()


def test_no_test_share():
    assert set(filled([[0]] * 50, 1, test=0.0).tolist()) == {TRAIN, VALIDATION}


# ---- the whole step ----


def test_sides_are_disjoint_stratified_and_complete(lake):
    rows = labelled(100, labels="aaab")
    of = project()
    done = divided(lake, [*rows, {"text": "unlabelled", "label": None}], of)
    assert done.counts == {"train": {"a": 59, "b": 19}, "validation": {"a": 8, "b": 3}, "test": {"a": 8, "b": 3}}
    assert set(sides_of(lake, of, done.labels)) == {row["text"] for row in rows}
    assert done.notices == ()


def test_near_duplicates_stand_on_one_side(local_lake):
    rows = labelled(60)
    rows += [{"text": edited(row["text"]), "label": row["label"]} for row in rows]
    of = project()
    sides = sides_of(local_lake, of, divided(local_lake, rows, of).labels)
    assert all(sides[edited(text)] == sides[text] for text in texts(60))
    assert set(sides.values()) == {"train", "validation", "test"}


def test_near_duplicates_may_be_told_apart(local_lake):
    rows = labelled(60)
    rows += [{"text": edited(row["text"]), "label": row["label"]} for row in rows]
    of = project(split={"near_duplicates": False})
    sides = sides_of(local_lake, of, divided(local_lake, rows, of).labels)
    assert any(sides[edited(text)] != sides[text] for text in texts(60))


def test_a_group_column_stands_for_the_clusters(local_lake):
    rows = [{**row, "who": None if i >= 90 else f"g{i % 30}"} for i, row in enumerate(labelled(100))]
    rows.append({"text": edited(rows[95]["text"]), "label": "a", "who": None})
    of = project(data={"group": "who"})
    sides = sides_of(local_lake, of, divided(local_lake, rows, of).labels)
    by_group: dict = {}
    for row in rows[:90]:
        by_group.setdefault(row["who"], set()).add(sides[row["text"]])
    assert all(len(found) == 1 for found in by_group.values())
    assert sides[rows[95]["text"]] == sides[rows[100]["text"]]


@pytest.mark.slow
@given(st.lists(st.integers(5, 40), min_size=2, max_size=4), st.integers(0, 100))
@settings(max_examples=6, deadline=None)
def test_assignments_never_change_as_data_grows(tmp_path_factory, sizes, seed):
    from tamiz.data.lake import Lake

    lake, of = Lake(str(tmp_path_factory.mktemp("lake"))), project()
    rng, seen, known = random.Random(seed), {}, []
    for step, size in enumerate(sizes):
        fresh = labelled(size, seed=seed * 100 + step)
        near = [
            {"text": edited(row["text"], f"w{step}"), "label": row["label"]}
            for row in rng.sample(known, len(known) // 4)
        ]
        known += fresh
        version = put(lake, [*near, *fresh], name=f"{9 - step}.csv", now=NOW + timedelta(days=step)).version
        done = split(lake, silver_version=clean(lake, bronze_version=version, project=of).version, project=of)
        sides = sides_of(lake, of, done.labels)
        assert {text: sides[text] for text in seen} == seen
        for row in near:
            origin = row["text"].rsplit(" ", 1)[0]
            if np.ptp(clusters([origin, row["text"]])) == 0:  # the sketch of so short texts misses a pair now and then
                assert sides[row["text"]] == sides[origin]
        seen = sides
    total = len(seen)
    assert abs(Counter(seen.values())["test"] - 0.1 * total) <= 0.05 * total + 4


def test_a_second_run_changes_nothing(lake):
    of = project()
    version = cleaned(lake, labelled(60), of).version
    first, before = split(lake, silver_version=version, project=of), rows_of(lake, "gold/assignments")
    sides = sides_of(lake, of, first.labels)
    again = split(lake, silver_version=version, project=of)
    assert (again.counts, again.labels, again.notices) == (first.counts, first.labels, first.notices)
    assert sides_of(lake, of, first.labels) == sides
    assert rows_of(lake, "gold/assignments") == before


def test_new_settings_divide_anew_and_old_ones_find_their_sides_again(local_lake):
    old, new = project(), project(split={"seed": 7})
    version = cleaned(local_lake, labelled(100), old).version
    labels = split(local_lake, silver_version=version, project=old).labels
    first = sides_of(local_lake, old, labels)
    done = split(local_lake, silver_version=version, project=new)
    assert any("divided anew" in notice for notice in done.notices)
    assert sides_of(local_lake, new, labels) != first
    assert split(local_lake, silver_version=version, project=old).notices == ()
    assert sides_of(local_lake, old, labels) == first


def test_texts_that_are_cleaned_in_another_way_keep_their_sides(local_lake):
    old = project()
    rows = [{"text": f"{text}, {i} of them!", "label": "ab"[i % 2]} for i, text in enumerate(texts(120))]
    version = put(local_lake, rows).version

    def sides(of):
        silver = clean(local_lake, bronze_version=version, project=of).version
        done = split(local_lake, silver_version=silver, project=of)
        found = rows_of(local_lake, "gold/examples", columns=["row_id", "side", "text"])
        return {row["row_id"]: row["side"] for row in found}, {row["text"] for row in found}, done.notices

    first, cleaned_so, _ = sides(old)
    new = project(clean=["numbers", "special", "whitespace"])
    again, cleaned_otherwise, notices = sides(new)
    assert not cleaned_so & cleaned_otherwise
    assert (again, notices) == (first, ())
    assert sides(new)[0] == sides(old)[0] == first


def test_a_row_that_joins_two_groups_moves_neither(local_lake):
    base = texts(1, length=200)[0].split()
    of = project(split={"validation": 0.3, "test": 0.3})
    left, right = " ".join(base), " ".join([*base[:168], *texts(1, seed=5, length=32)[0].split()])
    bridge = " ".join([*base[:184], *right.split()[184:]])
    assert (clusters([left, right]).tolist(), clusters([left, right, bridge]).tolist()) == ([0, 1], [0, 0, 0])
    rows = [{"text": left, "label": "a"}, {"text": right, "label": "a"}, *labelled(30)]
    version = put(local_lake, rows).version
    labels = split(
        local_lake, silver_version=clean(local_lake, bronze_version=version, project=of).version, project=of
    ).labels
    before = sides_of(local_lake, of, labels)
    version = put(local_lake, [{"text": bridge, "label": "a"}], name="b.csv", now=NOW + timedelta(1)).version
    split(local_lake, silver_version=clean(local_lake, bronze_version=version, project=of).version, project=of)
    after = sides_of(local_lake, of, labels)
    assert {text: after[text] for text in before} == before
    assert after[bridge] == before[left]


def test_the_users_own_test_set_is_left_whole(lake):
    rows = labelled(60)
    test = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(texts(10, seed=8))]
    test += [{"text": test[0]["text"], "label": "a"}, {"text": edited(rows[0]["text"]), "label": "a"}]
    of = project(data={"max_refused": 0})
    done = divided(lake, [*rows, {"text": test[1]["text"].upper(), "label": "b"}], of, test=test)
    assert sum(done.counts["test"].values()) == len(test)
    assert sum(done.counts["train"].values()) + sum(done.counts["validation"].values()) == len(rows) - 1
    assert sum(done.counts["validation"].values()) == 6
    aside = rows_of(lake, "gold/quarantine")
    assert [(row["source"], row["row_number"], row["reason"]) for row in aside] == [
        ("a.csv", 0, "near-duplicate of a test text")
    ]
    assert rows[0]["text"] in aside[0]["row"]
    assert done.notices[0].startswith("1 training rows were put aside")


def test_a_group_of_the_test_set_is_not_trained_on(local_lake):
    rows = [{**row, "who": f"g{i % 20}"} for i, row in enumerate(labelled(60))]
    test = [{"text": "apart", "label": "a", "who": "g3"}, {"text": "alone", "label": "b", "who": None}]
    done = divided(local_lake, rows, project(data={"group": "who"}), test=test)
    assert {row["reason"] for row in rows_of(local_lake, "gold/quarantine")} == {"group also stands in the test set"}
    assert sum(done.counts["train"].values()) + sum(done.counts["validation"].values()) == 57


def test_rows_without_a_group_belong_to_none(local_lake):
    rows = [{**row, "who": None if i < 40 else "theirs"} for i, row in enumerate(labelled(60))]
    test = [{"text": text, "label": label, "who": "ours"} for text, label in (("apart", "a"), ("alone", "b"))]
    done = divided(local_lake, rows, project(data={"group": "who"}), test=test)
    assert rows_of(local_lake, "gold/quarantine") == []
    assert sum(done.counts["train"].values()) + sum(done.counts["validation"].values()) == 60


def test_several_labels_are_stratified(local_lake):
    rng = random.Random(1)
    weights = {"a": 0.8, "b": 0.3, "c": 0.1}
    rows = [{"text": t, "label": [x for x, w in weights.items() if rng.random() < w]} for t in texts(300)]
    done = divided(local_lake, rows, project("multi-label"))
    for label in "abc":
        total = sum(done.counts[side][label] for side in done.counts)
        for side in ("validation", "test"):
            assert abs(done.counts[side][label] - 0.1 * total) <= 0.03 * total + 1


# ---- by time ----

BY_TIME = {"by": "time", "validation": 0.2, "test": 0.2}


def dated(days: list[int | None], seed: int = 0) -> list[dict]:
    return [
        {"text": text, "label": "ab"[i % 2], "day": None if day is None else f"2020-01-{day:02}"}
        for i, (text, day) in enumerate(zip(texts(len(days), seed), days, strict=True))
    ]


def by_time(lake, rows, **options):
    of = project(split=BY_TIME | options, data={"time": "day"})
    return of, divided(lake, rows, of)


def test_the_newest_part_is_the_test(lake):
    rows = dated([*range(1, 21)])
    of, done = by_time(lake, rows)
    sides = sides_of(lake, of, done.labels)
    assert [sides[row["text"]] for row in rows] == ["train"] * 12 + ["validation"] * 4 + ["test"] * 4


def test_rows_of_one_time_stay_together_and_rows_without_one_are_for_training(local_lake):
    rows = dated([1] * 6 + [2] * 5 + [3] * 5 + [None] * 4)
    of, done = by_time(local_lake, rows)
    sides = sides_of(local_lake, of, done.labels)
    assert [sides[row["text"]] for row in rows] == ["train"] * 6 + ["validation"] * 5 + ["test"] * 5 + ["train"] * 4


def test_cut_points_stay_until_the_seed_changes(local_lake):
    old = dated([*range(1, 21)])
    of, done = by_time(local_lake, old)
    before = sides_of(local_lake, of, done.labels)
    new = dated([*range(5, 25)] + [31] * 20, seed=3)
    of, done = by_time(local_lake, new)
    sides = sides_of(local_lake, of, done.labels)
    assert {text: sides[text] for text in before} == before
    assert [sides[row["text"]] for row in new[:20]] == ["train"] * 8 + ["validation"] * 4 + ["test"] * 8
    assert any("change split.seed to cut anew" in notice for notice in done.notices)
    version = local_lake.version("silver/texts")
    anew = project(split=BY_TIME | {"seed": 1}, data={"time": "day"})
    done = split(local_lake, silver_version=version, project=anew)
    assert sum(done.counts["test"].values()) == 20


def test_a_test_side_that_is_older_after_all_is_told(local_lake):
    def written(days, seed):
        return [{**row, "day": f"{day:02}/03/2020"} for row, day in zip(dated(days, seed), days, strict=True)]

    _, done = by_time(local_lake, written([*range(1, 13)] * 2, 5))  # read as the third of each month
    assert not any("not newer" in notice for notice in done.notices)
    _, done = by_time(local_lake, written([*range(13, 28)] * 2, 6))
    assert any("the test side is not newer than the training side" in notice for notice in done.notices)


def test_a_group_falls_where_its_earliest_row_does(local_lake):
    rows = dated([*range(1, 21)])
    rows.append({"text": edited(rows[0]["text"]), "label": "a", "day": "2020-01-31"})
    of, done = by_time(local_lake, rows)
    assert sides_of(local_lake, of, done.labels)[rows[20]["text"]] == "train"


def test_too_few_times(local_lake):
    with pytest.raises(DataError, match=r"at least 3 different times, and data\.time gives 2"):
        by_time(local_lake, dated([1, 2] * 10))


def test_a_side_without_a_label_is_told(local_lake):
    rows = [{**row, "label": "a" if i < 16 else "b"} for i, row in enumerate(dated([*range(1, 21)]))]
    with pytest.raises(LabelError, match=r"training examples of at least two labels.*\['a'\]"):
        by_time(local_lake, rows)
    rows = [{**row, "label": "c" if i == 0 else row["label"]} for i, row in enumerate(dated([*range(1, 21)], seed=2))]
    _, done = by_time(local_lake, rows)
    assert "no validation example of: 'c'" in done.notices


def test_silver_of_another_task_or_with_other_labels(local_lake):
    version = cleaned(local_lake, labelled(20), project()).version
    with pytest.raises(DataError, match="another task than 'multi-label'; clean again"):
        split(local_lake, silver_version=version, project=project("multi-label"))
    with pytest.raises(LabelError, match=r"has the label 'b'; allowed: a, c.*clean again"):
        split(local_lake, silver_version=version, project=project(labels=["a", "c"]))


# ---- killed at any moment ----

KILLED_RUN = """
import sys, time
from tests.data.lakes import *
from tests.data.test_split import labelled
from tamiz.data.lake import Lake
lake, of = Lake(sys.argv[1]), project()
rows = labelled(1200)
print("ready", flush=True)
files = {f"{i}.csv": rows[i * 200 : (i + 1) * 200] for i in range(6)}
for name in files:
    version = ingest(lake, TableSource({name: files[name]}), now=NOW).version
version = clean(lake, bronze_version=version, project=of).version
split(lake, silver_version=version, project=of)
print("done", flush=True)
"""


def everything(root: str) -> dict:
    from tamiz.data.lake import Lake

    lake = Lake(root)
    names = (
        "bronze/texts",
        "silver/texts",
        "silver/quarantine",
        "gold/examples",
        "gold/assignments",
        "gold/label_counts",
        "gold/quarantine",
    )
    return {name: sorted(map(str, rows_of(lake, name))) for name in names}


def start(root: Path) -> subprocess.Popen:
    here = Path(__file__).parents[2]
    env = {
        "PYTHONPATH": f"{here / 'src'}:{here}",
        "PATH": "/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(root.parent),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_RUN, str(root)], env=env, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def finish(process: subprocess.Popen) -> None:
    assert process.communicate()[0] == "done\n"


@pytest.mark.slow
def test_a_run_killed_anywhere_and_run_again_ends_as_an_unbroken_one(tmp_path):
    began = time.monotonic()
    finish(start(tmp_path / "unbroken"))
    took_s = time.monotonic() - began
    for i, part in enumerate((0.25, 0.6, 0.9)):
        root = tmp_path / f"killed{i}"
        for again in (part, part * 0.8):
            process = start(root)
            try:
                process.communicate(timeout=again * took_s * 0.6)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        finish(start(root))
        assert everything(str(root)) == everything(str(tmp_path / "unbroken"))


def test_why_the_test_side_is_large_is_told(local_lake):
    few = [{"text": text, "label": f"label {i % 50}"} for i, text in enumerate(texts(150))]
    (notice,) = divided(local_lake, few, project()).notices
    assert notice == "the test side has 33% of the examples, since each label has one there at least; give more of each"
