"""Steps on the characters of a text: repairs, markup, normal form, masks, white space.

Every step is a pure function `str -> str`, idempotent and linear in the length of the text: patterns that could run
over the same characters again and again use possessive quantifiers or stop at the next place where they could begin.

Masks are the words `_url_`, `_email_`, `_number_`, `_redacted_` and `_amount_`; no step changes them.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from typing import Protocol

from tamiz.cleaning.alignment import Edit, Replacement, Trace, differences

__all__ = ["MASKS", "STEPS", "Rewrites", "Step", "Whole", "marks"]

MASKS = ("url", "email", "number", "redacted", "amount")

_LAYERS = 8  # markup escaped in markup escaped in markup ...: deeper than this it is no text
_MARKS_IN_A_ROW = 32  # no script needs more on one letter; sorting them takes quadratic time


class Step(Protocol):
    """A cleaning step."""

    def __call__(self, text: str) -> str:
        """Return the cleaned text."""

    def trace(self, trace: Trace) -> None:
        """Do the same to `trace`, character by character."""


class Rewrites:
    """Replace what patterns match, in order, until nothing changes.

    Args:
        rules: gives the patterns for a text and what to put in their place.
        unless: says of a text that no rule can match; a cheap test.
        stop: characters that begin every match; where `_LAYERS` rounds do not settle, they become spaces.
    """

    def __init__(
        self,
        rules: Callable[[str], tuple[tuple[re.Pattern[str], Replacement], ...]],
        *,
        unless: Callable[[str], bool],
        stop: str = "",
    ) -> None:
        self._rules = rules
        self._unless = unless
        self._stop = re.compile(f"[{stop}]") if stop else None

    def __call__(self, text: str) -> str:
        """Return the cleaned text."""
        if self._unless(text):
            return text
        rules = self._rules(text)
        for _ in range(_LAYERS):
            before = text
            for pattern, replacement in rules:
                text = pattern.sub(replacement, text)
            if text == before:
                return text
        return self._stop.sub(" ", text) if self._stop else text

    def trace(self, trace: Trace) -> None:
        """Do the same to `trace`, character by character."""
        if self._unless(trace.text):
            return
        rules = self._rules(trace.text)
        for _ in range(_LAYERS):
            before = trace.text
            for pattern, replacement in rules:
                trace.sub(pattern, replacement)
            if trace.text == before:
                return
        if self._stop:
            trace.sub(self._stop, " ")


class Whole:
    """Change a text by a function that sees all of it.

    Args:
        function: the change.
        edits: edits from the text before to the text after.
    """

    def __init__(self, function: Callable[[str], str], edits: Callable[[str, str], Iterator[Edit]]) -> None:
        self._function = function
        self._edits = edits

    def __call__(self, text: str) -> str:
        """Return the cleaned text."""
        return self._function(text)

    def trace(self, trace: Trace) -> None:
        """Do the same to `trace`, character by character."""
        trace.edit(self._edits(trace.text, self._function(trace.text)))


# --- classes of characters ---


_ASTRAL = "\U00010000-\U0010ffff"
_ANY_ASTRAL = re.compile(f"[{_ASTRAL}]")


@cache
def characters(*categories: str, astral: bool = True) -> str:
    """Return the inside of a pattern's `[...]` for general categories such as `"Cf"`, or their first letters.

    Without `astral`, only characters below U+10000: `re` looks those up in a table, but goes through the ranges above
    one by one. Planes 2 to 13 hold ideographs and nothing else, and are skipped.
    """
    ranges: list[list[int]] = []
    for code in chain(range(0x20000), range(0xE0000, 0xE0200)) if astral else range(0x10000):
        if unicodedata.category(chr(code)).startswith(categories):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


def marks(text: str) -> str:
    """Return the inside of a pattern's `[...]` for the combining marks that may stand in `text`."""
    if text.isascii():
        return "\u0300"  # any mark will do, there are none
    return characters("M", astral=bool(_ANY_ASTRAL.search(text)))


# --- mojibake ---


@cache
def _fix_encoding() -> Callable[[str], str]:
    from ftfy import fix_encoding

    return fix_encoding  # type: ignore[no-any-return,unused-ignore]


# Mojibake shows as foreign characters side by side, as a C1 control, or as one of four letters before a space.
_SUSPICIOUS = re.compile(r"[^\x00-\x7f](?:[^\x00-\x7f]|(?<=[\x80-\x9fÃÂŒœ]))")


def _mojibake(text: str) -> str:
    if text.isascii() or not _SUSPICIOUS.search(text):
        return text
    return _fix_encoding()(text)


# --- html ---

_INLINE = frozenset(
    "a abbr acronym b bdi bdo big blink cite code data del dfn em font i ins kbd label mark nobr q "  # noqa: SIM905
    "s samp small span strike strong sub sup time tt u var wbr".split()
)
# What a comment, a script or a style holds ends at the next opening of the same kind, so that many unclosed ones take
# linear time. A tag may hold ">" in quotes; where quotes do not pair up, it ends at the first ">".
_MARKUP = re.compile(
    r"""<(?:
        !--[^<-]*+(?:(?!-->|<!--)[<-][^<-]*+)*+-->
      | script(?=[\s/>])[^<>]*+>[^<]*+(?:(?!</?script)<[^<]*+)*+</script\s*+>
      | style(?=[\s/>])[^<>]*+>[^<]*+(?:(?!</?style)<[^<]*+)*+</style\s*+>
      | /?+(?P<name>[a-z][\w-]*+(?::[a-z][\w-]*+)?+)(?=[\s/>])
        (?:[^<>"']*+(?:"[^"<]*+"[^<>"']*+|'[^'<]*+'[^<>"']*+)*+>|[^<>]*+>)
      | !\[cdata\[
      | [!?][a-z][^<>]*+>
    )""",
    re.IGNORECASE | re.VERBOSE,
)
# A name needs its semicolon ("AT&T", "?a=1&copy=2"), but for the five that are often written without.
_ENTITY = re.compile(
    r"&(?:#[0-9]{1,7}+(?:;|(?![0-9]))|#[xX][0-9a-fA-F]{1,6}+(?:;|(?![0-9a-fA-F]))|[A-Za-z][A-Za-z0-9]{1,31}+;|(?:amp|lt|gt|quot|nbsp)(?![\w=;]))"
)


def _without_markup(match: re.Match[str]) -> str:
    name = match["name"]
    return "" if name and name.lower() in _INLINE else " "


def _unescaped(match: re.Match[str]) -> str:
    return html.unescape(match[0])


# --- nfkc ---


@cache
def _joins(character: str) -> bool:
    """Say whether a character may combine with the one before it under NFKC."""
    first = unicodedata.normalize("NFKD", character)[0]
    return unicodedata.category(first)[0] == "M" or "\u1160" <= first <= "\u11ff"


@cache
def _crowded_marks() -> re.Pattern[str]:
    # The half-width voiced marks of katakana are letters that become marks.
    return re.compile(rf"[{characters('M')}\uff9e\uff9f]{{{_MARKS_IN_A_ROW + 1},}}+")


@cache
def _maybe_crowded() -> re.Pattern[str]:
    return re.compile(rf"[{characters('M', astral=False)}\uff9e\uff9f{_ASTRAL}]{{{_MARKS_IN_A_ROW + 1}}}")


def _first_marks(match: re.Match[str]) -> str:
    return match[0][:_MARKS_IN_A_ROW]


def _thin(text: str) -> str:
    return _crowded_marks().sub(_first_marks, text) if _maybe_crowded().search(text) else text


def _nfkc(text: str) -> str:
    if text.isascii():
        return text
    text = _thin(text)
    if unicodedata.is_normalized("NFKC", text):
        return text
    return _thin(unicodedata.normalize("NFKC", text))


class _Nfkc:
    def __call__(self, text: str) -> str:
        return _nfkc(text)

    def trace(self, trace: Trace) -> None:
        trace.sub(_crowded_marks(), _first_marks)
        trace.edit(_nfkc_edits(trace.text))
        trace.sub(_crowded_marks(), _first_marks)


def _nfkc_edits(text: str) -> Iterator[Edit]:
    """Normalise letter by letter, each with the marks that follow it."""
    start = 0
    for end in range(1, len(text) + 1):
        if end < len(text) and not text[end].isascii() and _joins(text[end]):
            continue
        after = unicodedata.normalize("NFKC", text[start:end])
        if after != text[start:end]:
            yield start, end, after
        start = end


# --- control ---

_ASCII_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@cache
def _control() -> re.Pattern[str]:
    return re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{characters('Cf', 'Cs')}]")


def _uncontrolled(match: re.Match[str]) -> str:
    return " " if match[0].isspace() else ""


# --- masks ---


def _mask(name: str) -> Callable[[re.Match[str]], str]:
    """Return a replacement by a mask that stands as a word of its own."""

    def replace(match: re.Match[str]) -> str:
        text, (start, end) = match.string, match.span()
        left = " " if start and _sticks(text[start - 1]) else ""
        right = " " if end < len(text) and _sticks(text[end]) else ""
        return f"{left}_{name}_{right}"

    return replace


def _sticks(character: str) -> bool:
    return character == "_" or character.isalnum() or not (character.isascii() or character.isspace())


# A class of characters at the start lets the search jump there.
_URL = re.compile(
    r"""[hHfFwW](?:(?<=[hH])[tT]{2}[pP][sS]?+://|(?<=[fF])[tT][pP]://|(?<=w)ww\.(?=\w)|(?<=W)(?:WW|ww)\.(?=\w))"""
    r"""[^\s<>"`{|}“”‘’«»「」、。，（）]*[\w/=#&%~+$*@-]"""
)
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]++@[\w-]++(?:\.[\w-]++)++")
# Thousands, decimals, dates, times and telephone numbers in one; digits inside a word ("covid19", "2nd") stay.
_NUMBER = re.compile(r"\d(?<!\w\d)(?<!\d[.,:/-]\d)\d*+(?:[.,:/-]\d++)*+(?!\w)")
# Of the CFPB's complaints: XXXX, XX/XX/XXXX, XX/XX/2015, XXXX-XXXX, several in a row as one; and {$100.00}.
_REDACTED = re.compile(r"(?<!\w)XX++(?!\w)(?:\s++XX++(?!\w)|[/-](?:XX++|[0-9]{1,4}+)(?!\w))*+")
_AMOUNT = re.compile(r"\{\$?+[0-9][0-9.,]*+\}")


def _no_url(text: str) -> bool:
    return "://" not in text and "ww." not in text and "WW." not in text


# --- special characters ---


@cache
def _special(mark: str) -> tuple[tuple[re.Pattern[str], Replacement], ...]:
    names = "|".join(MASKS)
    after_mask = "".join(f"(?<!_{name}_)" for name in MASKS)
    return (
        (re.compile(rf"’(?<=[\w{mark}]’)(?=\w)"), "'"),
        (re.compile(rf"[^\w\s'{mark}]++"), " "),
        (re.compile(rf"_{after_mask}(?!(?:{names})_)"), " "),
        (re.compile(rf"'(?:(?<![^\W_]')(?<![{mark}]')|(?![^\W_]))"), " "),
        (re.compile(rf"(?<![\w{mark}])[{mark}]++"), " "),
    )


# --- white space ---


def _whitespace(text: str) -> str:
    return " ".join(text.split())


def _whitespace_edits(before: str, after: str) -> Iterator[Edit]:
    del after
    for match in re.finditer(r"\s+", before):
        start, end = match.span()
        wanted = " " if start > 0 and end < len(before) else ""
        if match[0] != wanted:
            yield start, end, wanted


# --- case ---


def _case_edits(before: str, after: str) -> Iterator[Edit]:
    """Go through both texts at once: a capital sigma depends on its place in the word, its length does not."""
    place = 0
    for i, character in enumerate(before):
        width = len(character.lower())
        lower = after[place : place + width]
        if lower != character:
            yield i, i + 1, lower
        place += width


def _fixed(
    *rules: tuple[re.Pattern[str], Replacement],
) -> Callable[[str], tuple[tuple[re.Pattern[str], Replacement], ...]]:
    return lambda text: rules


STEPS: dict[str, Step] = {
    "mojibake": Whole(_mojibake, differences),
    "html": Rewrites(
        _fixed((_MARKUP, _without_markup), (_ENTITY, _unescaped)),
        unless=lambda text: "<" not in text and "&" not in text,
        stop="<&",
    ),
    "nfkc": _Nfkc(),
    "control": Rewrites(
        lambda text: ((_ASCII_CONTROL if text.isascii() else _control(), _uncontrolled),), unless=str.isprintable
    ),
    "urls": Rewrites(_fixed((_URL, _mask("url"))), unless=_no_url),
    "emails": Rewrites(_fixed((_EMAIL, _mask("email"))), unless=lambda text: "@" not in text, stop="@"),
    "numbers": Rewrites(_fixed((_NUMBER, _mask("number"))), unless=lambda text: False),
    "redactions": Rewrites(
        _fixed((_AMOUNT, _mask("amount")), (_REDACTED, _mask("redacted"))),
        unless=lambda text: "XX" not in text and "{" not in text,
    ),
    "special": Rewrites(lambda text: _special(marks(text)), unless=str.isalnum),
    "case": Whole(str.lower, _case_edits),
    "whitespace": Whole(_whitespace, _whitespace_edits),
}
"""Steps that take no argument, by name."""
