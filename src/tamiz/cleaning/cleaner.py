"""Put cleaning steps together by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Self

from tamiz.cleaning.alignment import Aligned, Trace
from tamiz.cleaning.steps import STEPS, Step
from tamiz.cleaning.words import LANGUAGES, STEMMERS, Stem, StopWords
from tamiz.errors import ConfigError, one_of

__all__ = ["DEFAULT_STEPS", "Cleaner", "StepSpec", "check_steps"]

StepSpec = str | dict[str, str]
"""A step's name, or a mapping of its name to its argument: `"html"`, `{"stem": "porter"}`."""

DEFAULT_STEPS: tuple[StepSpec, ...] = ("mojibake", "html", "nfkc", "control", "urls", "emails", "whitespace")
"""Steps that do good to any text."""

_WORD_STEPS = {"stem": STEMMERS, "stop_words": LANGUAGES}
_PASSES = 8  # after so many passes over one text, what still begins markup becomes a space
_MOST_PASSES = 48
_MARKUP_START = re.compile("[<&]")


def check_steps(specs: Iterable[StepSpec]) -> None:
    """Check the names and arguments of steps.

    Raises:
        ConfigError: (a `ValueError`) a step or its argument is not known; the message gives the nearest spelling.

    Example:
        >>> check_steps(["html", {"stem": "porter"}])
    """
    for spec in specs:
        _normal(spec)


class Cleaner:
    """Clean texts with steps, in order.

    Steps can lay bare work for one another: `&lt;b&gt;` is a tag in disguise, and so is `＜b＞` until NFKC. Steps on
    characters that stand together therefore repeat until the text stays the same, which makes them idempotent together.
    Stop words and stems run once, where they stand.

    Args:
        steps: names of steps, or mappings of a name to its argument.

    Attributes:
        steps: the same in normal form (languages by English name), fit for JSON.

    Raises:
        ConfigError: (a `ValueError`) a step or its argument is not known.

    Example:
        >>> Cleaner(["html", "whitespace"])("<p>Fish &amp; chips</p>")
        'Fish & chips'
    """

    def __init__(self, steps: Sequence[StepSpec] = DEFAULT_STEPS) -> None:
        self.steps: list[StepSpec] = [_normal(spec) for spec in steps]
        self._stages: tuple[_Stage | Step, ...] = _stages(self.steps)

    def __call__(self, text: str) -> str:
        """Clean one text."""
        for stage in self._stages:
            text = stage(text)
        return text

    def many(self, texts: Iterable[str]) -> list[str]:
        """Clean several texts, each on its own."""
        return [self(text) for text in texts]

    def align(self, text: str) -> Aligned:
        """Clean one text and say where each character came from; `align(text).text == self(text)`."""
        trace = Trace(text)
        for stage in self._stages:
            _follow(stage, trace)
        return trace.aligned()

    def then(self, other: Cleaner) -> Cleaner:
        """Return a cleaner that does what `other` does to what this one gives, exactly.

        `Cleaner([*a, *b])` may repeat the steps of `a` after those of `b`; this never does.
        """
        both = Cleaner([])
        both.steps = [*self.steps, *other.steps]
        both._stages = self._stages + other._stages
        return both

    def __repr__(self) -> str:
        return f"Cleaner({self.steps!r})"


class _Stage:
    """Steps that repeat together until the text stays the same."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._steps = tuple(STEPS[name] for name in names)
        self._blunt = "html" in names
        self._spaced = names[-1] == "whitespace"

    def __reduce__(self) -> tuple[type[Self], tuple[tuple[str, ...]]]:
        return type(self), (self.names,)  # processes of an engine get the names, not the compiled steps

    def __call__(self, text: str) -> str:
        for passes in range(_MOST_PASSES):
            before = text
            for step in self._steps:
                unspaced = text
                text = step(text)
            if text == before or len(self._steps) == 1:
                break
            if self._spaced and unspaced == before and text.isascii():
                break  # white space alone has changed, and no other step looks at its kind or amount
            if passes >= _PASSES and self._blunt:
                text = _MARKUP_START.sub(" ", text)
        return text

    def trace(self, trace: Trace) -> None:
        for passes in range(_MOST_PASSES):
            before = trace.text
            for step in self._steps:
                _follow(step, trace)
            if trace.text == before or len(self._steps) == 1:
                break
            if passes >= _PASSES and self._blunt:
                trace.sub(_MARKUP_START, " ")


def _follow(step: Step, trace: Trace) -> None:
    """Run a step on a trace, and see to it that the outcome is that of the step."""
    after = step(trace.text)
    if after == trace.text:
        return
    step.trace(trace)
    if trace.text != after:
        trace.become(after)


def _stages(specs: Sequence[StepSpec]) -> tuple[_Stage | Step, ...]:
    stages: list[_Stage | Step] = []
    names: list[str] = []
    for spec in specs:
        if isinstance(spec, str):
            names.append(spec)
            continue
        if names:
            stages.append(_Stage(names))
            names = []
        ((name, argument),) = spec.items()
        stages.append(Stem(argument) if name == "stem" else StopWords(argument))
    if names:
        stages.append(_Stage(names))
    return tuple(stages)


def _normal(spec: StepSpec) -> StepSpec:
    """Return a step in normal form.

    Raises:
        ConfigError: the step or its argument is not known.
    """
    if isinstance(spec, str):
        name, argument = spec, None
    elif isinstance(spec, dict) and len(spec) == 1:
        ((name, argument),) = spec.items()
    else:
        raise ConfigError(f"a cleaning step is a name or one `name: argument`, not {spec!r}")
    if name in STEPS and argument is None:
        return name
    if name in STEPS:
        raise ConfigError(f"the cleaning step {name!r} takes no argument; write it as {name!r} alone")
    if name not in _WORD_STEPS:
        raise ConfigError(f"{name!r} is no cleaning step; {one_of(str(name), [*STEPS, *_WORD_STEPS])}")
    return {name: _language(name, argument)}


def _language(name: str, given: str | None) -> str:
    languages = _WORD_STEPS[name]
    if not isinstance(given, str):
        raise ConfigError(
            f"the cleaning step {name!r} needs a language, such as `{name}: english`; {one_of('', languages)}"
        )
    wanted = given.strip().lower()
    for language, code in languages.items():
        if wanted in (language, code):
            return language
    raise ConfigError(f"{name}: {given!r} is not known; {one_of(wanted, languages, limit=60)}")
