import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamiz.data import near_duplicates
from tamiz.data.near_duplicates import clusters

WORDS = [f"{a}{b}{c}" for a in "bcdfghjk" for b in "aeiou" for c in "lmnrst"]


def partition(ids) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(ids == i).tolist()) for i in set(ids.tolist())}


def random_text(rng: random.Random, n_words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(n_words))


def families(rng: random.Random, n: int) -> list[str]:
    """Return texts of which some are light edits of others."""
    texts = []
    for _ in range(n):
        words = random_text(rng, rng.randint(0, 60)).split()
        for _ in range(rng.randint(1, 4)):
            edited = list(words)
            for _ in range(rng.randint(0, 2) if words else 0):
                edited[rng.randrange(len(edited))] = rng.choice(WORDS)
            texts.append(" ".join(edited))
    return texts


@given(st.randoms(use_true_random=False), st.integers(0, 12))
@settings(max_examples=30, deadline=None)
def test_the_order_of_texts_does_not_change_the_partition(rng, n):
    texts = families(rng, n)
    order = list(range(len(texts)))
    rng.shuffle(order)
    shuffled = clusters([texts[i] for i in order])
    back = np.empty(len(texts), np.int64)
    back[order] = shuffled
    assert partition(back) == partition(clusters(texts))


@given(st.lists(st.text(), max_size=20), st.lists(st.integers(0, 19), max_size=20))
@settings(max_examples=40, deadline=None)
def test_identical_texts_are_together(texts, again):
    texts = texts + [texts[i] for i in again if i < len(texts)]
    ids = clusters(texts)
    assert ids.shape == (len(texts),)
    for i, text in enumerate(texts):
        assert all(ids[i] == ids[j] for j, other in enumerate(texts) if other == text)


@given(st.lists(st.integers(1, 80), min_size=2, max_size=20))
@settings(max_examples=40, deadline=None)
def test_texts_without_a_common_word_are_apart(lengths):
    texts = [" ".join(f"w{i}x{j}" for j in range(n)) for i, n in enumerate(lengths)]
    assert len(set(clusters(texts).tolist())) == len(texts)


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_two_changed_words_of_two_hundred_stay_together(seed):
    rng = random.Random(seed)
    words = random_text(rng, 200).split()
    edited = list(words)
    for at in rng.sample(range(200), 2):
        edited[at] = "unseen"
    ids = clusters([" ".join(words), random_text(rng, 200), " ".join(edited)])
    assert ids.tolist() == [0, 1, 0]


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}


def exact(texts: list[str], threshold: float) -> list[int]:
    """Return the clusters by all pairs of sets, each named by its first text."""
    sets = [shingles(text) for text in texts]
    found = list(range(len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            alike = len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j]) if sets[i] and sets[j] else False
            if found[i] != found[j] and (alike or texts[i] == texts[j]):
                old, new = max(found[i], found[j]), min(found[i], found[j])
                found = [new if one == old else one for one in found]
    return found


@pytest.mark.parametrize("n_words", [3, 4, 5])
def test_many_short_texts_without_a_common_word_are_apart(n_words):
    texts = [" ".join(f"w{i}x{j}" for j in range(n_words)) for i in range(50_000)]
    assert len(set(clusters(texts).tolist())) == len(texts)


def test_short_questions_that_share_a_common_word_are_apart():
    texts = ["who is radiohead", "that is accurate", "who is radiohead then"]
    assert clusters(texts).tolist() == [0, 1, 2]


def test_a_shingle_that_another_hides_still_tells_texts_apart():
    texts = [f"one two three four five six w{i}" for i in range(3000)]  # a new shingle often falls where one lies
    assert len(set(clusters(texts).tolist())) == len(texts)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 1.0])
def test_short_texts_are_joined_as_by_all_pairs(threshold):
    texts = families(random.Random(8), 150)
    assert partition(clusters(texts, threshold=threshold)) == partition(np.array(exact(texts, threshold)))


def test_texts_of_one_template_are_found_among_many():
    rng = random.Random(9)
    templates = [random_text(rng, 20) for _ in range(4)]
    texts = [f"{rng.choice(templates)} slot{i}" for i in range(4000)]  # 18 shingles in common of 20
    assert len(set(clusters(texts).tolist())) == 4


def test_a_repeated_phrase_is_a_small_set():
    texts = [f"w{i} " * 200 for i in range(20_000)]
    assert len(set(clusters(texts).tolist())) == len(texts)


def test_half_of_the_words_in_common_is_not_a_near_duplicate():
    rng = random.Random(3)
    head = random_text(rng, 100)
    texts = [f"{head} {random_text(rng, 100)}" for _ in range(50)]
    assert len(set(clusters(texts).tolist())) == 50


def test_a_low_threshold_joins_what_a_high_one_keeps_apart():
    rng = random.Random(4)
    head = random_text(rng, 150)
    texts = [f"{head} {random_text(rng, 50)}" for _ in range(2)]  # Jaccard similarity about .6
    assert len(set(clusters(texts, threshold=0.4).tolist())) == 1
    assert len(set(clusters(texts, threshold=0.9).tolist())) == 2


def test_case_punctuation_and_space_do_not_matter_but_words_do():
    texts = ["The film, frankly, is BAD!", "the film frankly is bad", "the film frankly is good"]
    assert clusters(texts).tolist() == [0, 0, 1]


def test_short_texts_need_the_same_words_in_the_same_order():
    texts = ["good film", "Good film!", "film good", "good", "", "", "!!", "!?", "\0", "good\0film"]
    assert clusters(texts).tolist() == [0, 0, 1, 2, 3, 3, 4, 5, 6, 0]


def test_case_is_ignored_as_in_equal_texts():
    assert clusters(["Die große Straße", "DIE GROSSE STRASSE", "Straße", "strasse"]).tolist() == [0, 0, 1, 1]
    assert clusters(["!! \n?", " !!  ?"]).tolist() == [0, 0]


def test_chinese_texts_are_compared_by_letter():
    rng = random.Random(5)
    letters = [chr(0x4E00 + rng.randrange(3000)) for _ in range(200)]
    edited = [*letters[:100], "的", *letters[101:]]
    other = [chr(0x8000 + rng.randrange(3000)) for _ in range(200)]
    assert clusters(["".join(letters), "".join(edited), "".join(other)]).tolist() == [0, 0, 1]


def test_no_texts():
    assert clusters([]).tolist() == []


def test_batches_do_not_show(monkeypatch):
    texts = families(random.Random(6), 40)
    whole = clusters(texts)
    monkeypatch.setattr(near_duplicates, "_BATCH_CHARACTERS", 100)
    assert clusters(texts).tolist() == whole.tolist()
    monkeypatch.setattr(near_duplicates, "_PAIRS", 3)
    assert clusters(iter(texts)).tolist() == whole.tolist()


def test_another_process_gives_the_same_signatures():
    code = (
        "from tamiz.data.near_duplicates import _sketch; "
        "s, i, _ = _sketch(['a b c d e', 'x']); print(s.sum(), i.tolist())"
    )
    seeds = ("1", "2")
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": s, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for s in seeds
    ]
    assert runs[0] == runs[1]


def test_estimates_are_near_the_exact_similarity():
    rng = random.Random(7)
    errors = []
    for _ in range(200):
        words = random_text(rng, 300).split()
        edited = list(words)
        for at in rng.sample(range(300), rng.randint(0, 60)):
            edited[at] = rng.choice(WORDS)
        a, b = ({tuple(w[i : i + 3]) for i in range(298)} for w in (words, edited))
        signatures, _, _ = near_duplicates._sketch([" ".join(words), " ".join(edited)])
        errors.append((signatures[0] == signatures[1]).mean() - len(a & b) / len(a | b))
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.05
