"""The vectoriser counts what scikit-learn counts, for any text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

from tamiz.classifiers import ngrams
from tamiz.classifiers.ngrams import TOKEN_PATTERNS, CharSequences, KeyTable, NgramIndex, WordSequences

WORDS = st.sampled_from(
    [
        "the",
        "a",
        "of",
        "film",
        "film2",
        "don't",
        "naïve",
        "straße",
        "日本",
        "кино",
        "I",
        "x",
        "!",
        "?!",
        "—",
        "emoji😀",
        "a_b",
        "1984",
        "İx",
    ]
)
TEXTS = st.lists(st.lists(WORDS, max_size=12).map(" ".join), min_size=1, max_size=8)


def index_of(kind, lengths):
    if kind == "characters":
        return NgramIndex(CharSequences(), lengths)
    return NgramIndex(WordSequences(kind, lengths[1] - 1), lengths)


def peer_of(kind, lengths, min_df, max_features=None):
    about = {"ngram_range": lengths, "lowercase": False, "min_df": min_df, "max_features": max_features}
    if kind == "characters":
        return CountVectorizer(analyzer="char_wb", **about)
    return CountVectorizer(token_pattern=TOKEN_PATTERNS[kind], **about)


def matrix(parts, columns):
    rows = [np.diff(part.indptr) for part in parts]
    return csr_matrix(
        (
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.indices for part in parts]),
            np.concatenate([[0], np.cumsum(np.concatenate(rows))]),
        ),
        shape=(sum(map(len, rows)), columns),
    ).toarray()


def names_of(index):
    def spell(ngram):
        numbers = [int(n) for n in ngram if n >= 0]
        if isinstance(index.sequences, CharSequences):
            return "".join(map(chr, numbers))
        return " ".join(index.sequences.words[n] for n in numbers)

    return [spell(ngram) for ngram in index.ngrams]


@pytest.mark.parametrize("min_df", [1, 2])
@pytest.mark.parametrize("lengths", [(1, 1), (1, 3), (2, 3)])
@pytest.mark.parametrize("kind", ["words", "long_words", "words_and_marks", "characters"])
@given(texts=TEXTS)
@settings(max_examples=25, deadline=None)
def test_counts_equal_scikit_learn(kind, lengths, min_df, texts):
    if kind == "characters":
        lengths = (max(lengths[0], 2), max(lengths[1], 3))
    index = index_of(kind, lengths)
    ours = matrix(list(index.fit_count(texts, min_df=min_df, max_features=None)), len(index))
    peer = peer_of(kind, lengths, min_df)
    try:
        theirs = peer.fit_transform(texts).toarray()
    except ValueError:  # an empty vocabulary
        assert len(index) == 0
        return
    columns = {name: place for place, name in enumerate(names_of(index))}
    # scikit-learn keeps a padded word shorter than every n-gram whole; a window of n characters cannot.
    wanted = [n for n in peer.get_feature_names_out() if kind != "characters" or len(n) >= lengths[0]]
    assert set(wanted) == set(columns)
    where = [list(peer.get_feature_names_out()).index(name) for name in wanted]
    assert np.array_equal(ours[:, [columns[name] for name in wanted]], theirs[:, where])
    again = index.count(texts)
    assert np.array_equal(matrix([again], len(index)), ours)


def test_counting_across_chunks_changes_nothing(monkeypatch):
    texts = [f"film {i % 7} is {'good' if i % 2 else 'bad'} {i}" for i in range(300)]
    whole = index_of("words", (1, 2))
    counts = matrix(list(whole.fit_count(texts, min_df=2, max_features=None)), len(whole))
    columns = {name: place for place, name in enumerate(names_of(whole))}
    monkeypatch.setattr(ngrams, "_CHUNK_CHARACTERS", 200)
    monkeypatch.setattr(ngrams, "_MERGE_AT", 50)
    cut = index_of("words", (1, 2))
    again = matrix(list(cut.fit_count(texts, min_df=2, max_features=None)), len(cut))
    assert set(names_of(cut)) == set(columns)
    assert np.array_equal(again, counts[:, [columns[name] for name in names_of(cut)]])


def test_max_features_keeps_the_most_widespread():
    texts = ["a b c", "a b d", "a e f", "a b"]
    index = index_of("words", (1, 1))
    list(index.fit_count(texts, min_df=1, max_features=2))
    assert sorted(names_of(index)) == ["a", "b"]


def test_texts_of_a_batch_do_not_touch():
    index = index_of("words", (2, 2))
    list(index.fit_count(["a b", "a b"], min_df=1, max_features=None))
    assert index.count(["a", "b", "a b"]).indptr.tolist() == [0, 0, 0, 1]


def test_counts_of_no_text_and_of_empty_texts():
    index = index_of("words", (1, 2))
    list(index.fit_count(["a b"], min_df=1, max_features=None))
    assert index.count([]).indptr.tolist() == [0]
    assert index.count(["", "zzz"]).indptr.tolist() == [0, 0, 0]
    assert len(index.count([""]).indices) == 0


@given(st.sets(st.integers(1, 2**48 - 1), max_size=200), st.lists(st.integers(1, 2**48 - 1), max_size=50))
@settings(max_examples=50, deadline=None)
def test_key_table_is_a_dictionary(keys, others):
    known = np.array(sorted(keys), np.uint64)
    table = KeyTable(known)
    asked = np.concatenate([known, np.array([o for o in others if o not in keys], np.uint64)])
    expected = np.concatenate([np.arange(len(known)), np.full(len(asked) - len(known), -1)])
    assert np.array_equal(table.look_up(asked), expected)


def test_key_table_with_many_keys_and_a_double():
    keys = np.random.default_rng(0).integers(1, 2**48, 200_000, dtype=np.uint64)
    keys[-1] = keys[0]
    table = KeyTable(keys)
    found = table.look_up(keys)
    assert np.array_equal(found[:-1], np.arange(len(keys) - 1))
    assert found[-1] == 0


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_quick_tokenizers_equal_their_patterns(text):
    import re

    for kind, pattern in TOKEN_PATTERNS.items():
        assert ngrams.tokenizer(kind)(text) == re.findall(pattern, text)


@given(st.text(alphabet="ab \t\u2003é", max_size=30))
@settings(max_examples=100, deadline=None)
def test_character_spans_point_at_their_characters(text):
    sequences = CharSequences()
    batch = sequences.read([text])
    spans = sequences.spans(text)
    assert len(spans) <= len(batch.sequence)
    for code, (start, end) in zip(batch.sequence.tolist(), spans, strict=False):
        assert text[start:end] == chr(code).strip(" \0")


@pytest.mark.parametrize("kind", ["words", "characters"])
@settings(max_examples=60, deadline=None)
@given(texts=TEXTS)
def test_a_text_counted_alone_has_the_counts_it_has_among_others(kind, texts):
    index = index_of(kind, (2, 3))
    list(index.fit_count(texts[: len(texts) // 2 + 1], min_df=1, max_features=None))
    together = index.count([*texts, ""])
    for row, text in enumerate([*texts, ""]):
        alone, cut = index.count([text]), slice(*together.indptr[row : row + 2])
        assert alone.indptr.tolist() == [0, cut.stop - cut.start]
        for name in ("indices", "values"):
            np.testing.assert_array_equal(getattr(alone, name), getattr(together, name)[cut])
            assert getattr(alone, name).dtype == getattr(together, name).dtype
