"""Steps on the words of a text: stop words and stems.

A word is a run of letters, marks, digits and `_`, with apostrophes inside. What lies between words stays as it is, and
so do masks. Words with a digit or `_` in them have no stem but themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from threading import Lock

from tamiz.cleaning.alignment import Edit, Trace
from tamiz.cleaning.steps import marks

__all__ = ["LANGUAGES", "STEMMERS", "Stem", "StopWords"]

LANGUAGES = {
    "afrikaans": "af", "arabic": "ar", "armenian": "hy", "basque": "eu", "bengali": "bn", "breton": "br",
    "bulgarian": "bg", "catalan": "ca", "chinese": "zh", "croatian": "hr", "czech": "cs", "danish": "da",
    "dutch": "nl", "english": "en", "esperanto": "eo", "estonian": "et", "finnish": "fi", "french": "fr",
    "galician": "gl", "german": "de", "greek": "el", "gujarati": "gu", "hausa": "ha", "hebrew": "he", "hindi": "hi",
    "hungarian": "hu", "indonesian": "id", "irish": "ga", "italian": "it", "japanese": "ja", "korean": "ko",
    "kurdish": "ku", "latin": "la", "latvian": "lv", "lithuanian": "lt", "malay": "ms", "marathi": "mr",
    "norwegian": "no", "persian": "fa", "polish": "pl", "portuguese": "pt", "romanian": "ro", "russian": "ru",
    "sesotho": "st", "slovak": "sk", "slovenian": "sl", "somali": "so", "spanish": "es", "swahili": "sw",
    "swedish": "sv", "tagalog": "tl", "thai": "th", "turkish": "tr", "ukrainian": "uk", "urdu": "ur",
    "vietnamese": "vi", "yoruba": "yo", "zulu": "zu",
}  # fmt: skip
"""Languages with stop words: English name and ISO 639-1 code."""

STEMMERS = {
    "arabic": "ar", "armenian": "hy", "basque": "eu", "catalan": "ca", "danish": "da", "dutch": "nl", "english": "en",
    "finnish": "fi", "french": "fr", "german": "de", "greek": "el", "hindi": "hi", "hungarian": "hu",
    "indonesian": "id", "irish": "ga", "italian": "it", "lithuanian": "lt", "nepali": "ne", "norwegian": "no",
    "porter": "porter", "portuguese": "pt", "romanian": "ro", "russian": "ru", "serbian": "sr", "spanish": "es",
    "swedish": "sv", "tamil": "ta", "turkish": "tr", "yiddish": "yi",
}  # fmt: skip
"""Snowball's stemmers and the ISO 639-1 code of their language; `porter` is the classic of 1980 for English."""

_LONGEST_WORD = 64  # longer runs of letters are no words, and stemming them again and again takes quadratic time


@cache
def _pattern(mark: str, rest: str = "") -> re.Pattern[str]:
    return re.compile(rf"([\w{mark}]++(?:['’][\w{mark}]++)*+){rest}")


def _words(text: str, rest: str = "") -> re.Pattern[str]:
    return _pattern(marks(text), rest)


class StopWords:
    """Remove the stop words of a language, each with one space after it.

    Args:
        language: a key of `LANGUAGES`.
    """

    def __init__(self, language: str) -> None:
        self._language = language

    def __call__(self, text: str) -> str:
        """Return the text without stop words."""
        stop_words = _stop_words(self._language)
        parts = _words(text, "( ?)").split(text)
        for i in range(1, len(parts), 3):
            if _plain(parts[i]) in stop_words:
                parts[i] = parts[i + 1] = ""
        return "".join(parts)

    def trace(self, trace: Trace) -> None:
        """Do the same to `trace`, character by character."""
        stop_words = _stop_words(self._language)
        trace.edit(
            (match.start(), match.end(), "")
            for match in _words(trace.text, "( ?)").finditer(trace.text)
            if _plain(match[1]) in stop_words
        )


def _plain(word: str) -> str:
    return word.lower().replace("’", "'")


@cache
def _stop_words(language: str) -> frozenset[str]:
    from stopwordsiso import stopwords

    return frozenset(word.lower() for word in stopwords(LANGUAGES[language]))


class Stem:
    """Replace every word by its stem, stemmed again until it stays the same.

    Args:
        algorithm: a key of `STEMMERS`.
    """

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm

    def __call__(self, text: str) -> str:
        """Return the text with stems for words."""
        parts = _words(text).split(text)
        parts[1::2] = map(_stems(self._algorithm), parts[1::2])
        return "".join(parts)

    def trace(self, trace: Trace) -> None:
        """Do the same to `trace`, character by character."""
        trace.edit(_stem_edits(trace.text, _stems(self._algorithm)))


def _stem_edits(text: str, stem: Callable[[str], str]) -> Iterator[Edit]:
    """Map the letters that a stem shares with the beginning of its word to themselves, the rest to the rest."""
    for match in _words(text).finditer(text):
        word, start = match[0], match.start()
        after = stem(word)
        if after != word:
            same = 0
            while same < min(len(word), len(after)) and word[same] == after[same]:
                same += 1
            yield start + same, match.end(), after[same:]


@cache
def _stems(algorithm: str) -> Callable[[str], str]:
    import snowballstemmer

    stem_once: Callable[[str], str] = snowballstemmer.stemmer(algorithm).stemWord
    lock = Lock()  # the stemmer keeps the word it works on in itself

    @lru_cache(maxsize=1 << 16)
    def stem(word: str) -> str:
        if len(word) > _LONGEST_WORD or "_" in word or not word.isprintable() or any(c.isdigit() for c in word):
            return word
        with lock:
            return _settle(word, stem_once)

    return stem


def _settle(word: str, stem_once: Callable[[str], str]) -> str:
    seen = [word]
    while True:
        shorter = stem_once(word)
        if shorter in seen:  # itself, or a circle of words, of which any one will do if it is always the same
            return min(seen[seen.index(shorter) :])
        if len(shorter) > _LONGEST_WORD or not _words(shorter).fullmatch(shorter):
            return word
        seen.append(shorter)
        word = shorter
