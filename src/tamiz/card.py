"""The model card, `model.md` in every package: what a model is for, how good it is, and where it is not to be trusted.

Plain Markdown with front matter in the form that model hubs read; made without any template library, so that a model
can be saved wherever it can be served.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from tamiz.package import Manifest
from tamiz.types import Task

__all__ = ["CARD_NAME", "CardFacts", "SliceFigures", "model_card"]

CARD_NAME = "model.md"

_FEW_EXAMPLES = 50  # of a label in training; below, its figures say little
_SMALL_SLICE = 100
_LARGE_ECE = 0.03
_MOST_ROWS = 60
_LONGEST_PARAMETER = 300
_METRICS = {"accuracy": "accuracy", "f1_macro": "f1", "precision_macro": "precision", "recall_macro": "recall"}


@dataclass(frozen=True)
class SliceFigures:
    """How good a model is on a part of the examples.

    Attributes:
        column: what the examples were divided by.
        value: value of the column in this part.
        examples: how many.
        figures: value of each metric.
        interval: 95 % interval of the share of right answers.
    """

    column: str
    value: str
    examples: int
    figures: Mapping[str, float]
    interval: tuple[float, float]


@dataclass(frozen=True)
class CardFacts:
    """What a card says beyond the manifest.

    Attributes:
        intervals: 95 % intervals by metric.
        sizes: examples by side of the split.
        counts: examples by side and label.
        slices: figures of parts of the test examples.
        seed: seed of split and fit.
        ece_by_chance: calibration error that right probabilities would rarely exceed on so many examples.
    """

    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    slices: Sequence[SliceFigures] = ()
    seed: int | None = None
    ece_by_chance: float | None = None


def model_card(manifest: Manifest, facts: CardFacts | None = None) -> str:
    """Return the card of a model.

    Args:
        manifest: what is recorded of the model.
        facts: what was measured and counted beyond it; without, the card says what the manifest knows.
    """
    facts = facts or CardFacts()
    sections = {
        "What it is for": _purpose(manifest),
        "Data": _data(manifest, facts),
        "Figures": _figures(manifest, facts),
        "Figures by slice": _slices(facts),
        "Decision": _decision(manifest),
        "Limits": _limits(manifest, facts),
        "How it was made": _making(manifest, facts),
        "The encoder": _encoder(manifest.facts),
        "How to use it": _use(manifest),
    }
    parts = [f"---\n{_front_matter(manifest)}---\n", f"# {_text(manifest.name)}\n"]
    for title, lines in sections.items():
        if lines:
            parts.append(f"## {title}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _front_matter(manifest: Manifest) -> str:
    about: dict[str, Any] = {
        "library_name": "tamiz",
        "pipeline_tag": "text-classification",
        "tags": ["text-classification", "tamiz", str(manifest.task), manifest.family],
    }
    found = {name: type_ for name, type_ in _METRICS.items() if f"test_{name}" in manifest.metrics}
    if found:
        measured = [
            {"type": type_, "name": f"test {name}", "value": round(manifest.metrics[f"test_{name}"], 6)}
            for name, type_ in found.items()
        ]
        dataset = {"name": f"{manifest.name}, test side", "type": manifest.name}
        result = {"task": {"type": "text-classification"}, "dataset": dataset, "metrics": measured}
        about["metrics"] = list(found.values())
        about["model-index"] = [{"name": manifest.name, "results": [result]}]
    return yaml.safe_dump(about, sort_keys=False, allow_unicode=True)


def _purpose(manifest: Manifest) -> list[str]:
    answers = {
        Task.BINARY: "one of two labels",
        Task.MULTI_CLASS: f"one of {len(manifest.labels):,} labels",
        Task.MULTI_LABEL: f"any number of {len(manifest.labels):,} labels",
    }
    lines = [f"Gives a text {answers[manifest.task]}, each with a probability ({manifest.task} classification)."]
    if manifest.positive is not None:
        lines += ["", f"Positive label: {_text(manifest.positive)}."]
    shown = manifest.labels[:_MOST_ROWS]
    more = len(manifest.labels) - len(shown)
    lines += ["", "Labels: " + ", ".join(map(_text, shown)) + (f" and {more:,} more" if more else "") + "."]
    return lines


def _data(manifest: Manifest, facts: CardFacts) -> list[str]:
    lines = []
    sources = manifest.data.get("sources") or []
    if sources:
        named = ", ".join(_text(str(source)) for source in sources[:10])
        lines.append(f"- Sources: {named}" + (f" and {len(sources) - 10:,} more" if len(sources) > 10 else ""))
    versions = {name: manifest.data.get(name) for name in ("bronze", "bronze_test", "silver", "gold")}
    tables = ", ".join(f"{name} {version}" for name, version in versions.items() if version is not None)
    if tables:
        lines.append(f"- Versions of the tables: {tables}")
    if facts.sizes:
        lines.append("- Examples: " + ", ".join(f"{n:,} {side}" for side, n in facts.sizes.items()))
    if facts.counts:
        sides = list(facts.counts)
        labels = manifest.labels[:_MOST_ROWS]
        lines += ["", *_table(["label", *sides], [[label, *_counts_of(facts, label)] for label in labels])]
        if len(manifest.labels) > len(labels):
            lines += ["", f"{len(manifest.labels) - len(labels):,} more labels are not shown."]
    return lines


def _counts_of(facts: CardFacts, label: str) -> list[str]:
    return [f"{by_label.get(label, 0):,}" for by_label in facts.counts.values()]


def _figures(manifest: Manifest, facts: CardFacts) -> list[str]:
    names = [name for name in manifest.metrics if name.startswith(("test_", "val_"))]
    names.sort(key=lambda name: name.startswith("val_"))
    rows = [[name, f"{manifest.metrics[name]:.4f}", _interval(facts.intervals.get(name))] for name in names]
    lines = _table(["metric", "value", "95 % interval"], rows) if rows else []
    if rows and not any(name.startswith("test_") for name in names):
        lines += ["", "Measured on validation examples, which also served to choose; test figures are more honest."]
    costs = {
        "latency_p50_ms": "ms for a text (median)",
        "texts_per_s": "texts a second",
        "size_mb": "MB of files",
    }
    found = [f"{_rounded(manifest.metrics[name])} {text}" for name, text in costs.items() if name in manifest.metrics]
    return lines + (["", "Cost, on the machine that trained it: " + ", ".join(found) + "."] if found else [])


def _slices(facts: CardFacts) -> list[str]:
    if not facts.slices:
        return []
    names = list(dict.fromkeys(name for part in facts.slices for name in part.figures))
    rows = [
        [
            *(part.column, part.value, f"{part.examples:,}"),
            *(_number(part.figures.get(name)) for name in names),
            _interval(part.interval),
        ]
        for part in facts.slices[:_MOST_ROWS]
    ]
    return _table(["column", "value", "examples", *names, "95 % interval of all right"], rows)


def _decision(manifest: Manifest) -> list[str]:
    lines = [f"- Calibration: {manifest.calibration.get('method', 'none')}"]
    thresholds, costs = manifest.rule.get("thresholds"), manifest.rule.get("costs")
    if manifest.task is Task.MULTI_CLASS:
        by = "least expected cost (costs in `model.json`)" if costs is not None else "highest probability"
        lines.append(f"- Rule: the label with the {by}")
    elif thresholds is None:
        lines.append("- Rule: a label is given from a probability of .5")
    elif manifest.task is Task.BINARY:
        lines.append(f"- Rule: the positive label is given from a probability of {thresholds[0]:.4f}")
    else:
        lines.append("- Rule: a label is given from its own threshold (in `model.json`)")
    return lines + [f"- {line}" for line in _abstention(manifest.rule, refit=bool(manifest.data.get("refit")))]


def _abstention(rule: Mapping[str, Any], *, refit: bool) -> Iterator[str]:
    """Say when nothing is answered, and what the sets hold."""
    if (below := rule.get("abstain_below")) is not None:
        yield f"No answer where the highest probability is below {below:.4f}"
    if (cost := rule.get("abstain_cost")) is not None:
        yield f"No answer where every answer is expected to cost more than {cost:g}"
    if (conformal := rule.get("conformal")) is not None:
        stated = f"Prediction sets hold the true label with probability {conformal['coverage']:g} (conformal)"
        # The quantile was found on scores of the classifier before it.
        yield f"{stated}, approximately: the classifier was fitted again since" if refit else stated
        if conformal.get("abstain", True):
            yield "No answer where the set does not hold exactly the decided label"


def _limits(manifest: Manifest, facts: CardFacts) -> list[str]:
    return [f"- {line}" for line in _caveats(manifest, facts)]


def _caveats(manifest: Manifest, facts: CardFacts) -> Iterator[str]:
    train = facts.counts.get("train", {})
    few = [label for label in manifest.labels if train and train.get(label, 0) < _FEW_EXAMPLES]
    if few:
        named = ", ".join(_text(label) for label in few[:10]) + (" and others" if len(few) > 10 else "")
        yield f"{len(few):,} labels have fewer than {_FEW_EXAMPLES} training examples: {named}."
    small = [part for part in facts.slices if part.examples < _SMALL_SLICE]
    if small:
        named = ", ".join(f"{_text(part.column)} = {_text(part.value)}" for part in small[:10])
        yield f"Slices of fewer than {_SMALL_SLICE} examples, whose figures are rough: {named}."
    error = manifest.metrics.get("test_ece", manifest.metrics.get("val_ece"))
    chance = facts.ece_by_chance or 0.0
    if error is not None and error > max(_LARGE_ECE, chance):
        yield f"Probabilities are off by {error:.3f} on average (expected calibration error): take them as a ranking."
    elif error is not None and error > _LARGE_ECE:
        yield (
            f"The expected calibration error of {error:.3f} shows nothing: on so few examples, right probabilities "
            f"would show up to {chance:.3f} by chance."
        )
    if "test_ece" not in manifest.metrics:
        yield "No figures on a test side are known."
    if "distilled" in manifest.facts:
        yield "Its labels were given by another model, whose mistakes it learnt with them."
    languages = _languages(manifest)
    if languages:
        yield f"Its cleaning steps are for texts in: {', '.join(languages)}."
    yield "Texts of other kinds, times or languages than the training data were not measured."


def _languages(manifest: Manifest) -> list[str]:
    """Return the languages that cleaning steps name."""
    steps = [step for step in (*manifest.clean, *manifest.prepare) if isinstance(step, dict)]
    return sorted({_text(value) for step in steps for name, value in step.items() if name in ("stop_words", "stem")})


def _distilling(about: Mapping[str, Any]) -> list[str]:
    """Say what a student learnt from, and what it is worth beside its teacher."""
    lines = [
        f"- Taught by a model of any labels: its answers to {about['texts']:,} texts; "
        f"the same answer as its teacher's to {about['agreement']:.1%} of {about['held_out']:,} others"
    ]
    for name, student in about.get("quality", {}).get("student", {}).items():
        teacher = about["quality"]["teacher"][name]
        lines.append(
            f"- On {about['sample']:,} labelled texts that it did not learn from: "
            f"{_text(name)} {student['value']:.3f}, its teacher {teacher['value']:.3f}"
        )
    return lines


def _making(manifest: Manifest, facts: CardFacts) -> list[str]:
    lines = [f"- Family: {manifest.family}" + (f", candidate {manifest.candidate}" if manifest.candidate else "")]
    if manifest.params:
        named = ", ".join(f"{name} = {_parameter(value)}" for name, value in manifest.params.items())
        lines.append(f"- Parameters: {named}")
    if found := manifest.facts.get("distilled"):
        lines += _distilling(found)
    steps = [_step(step) for step in (*manifest.clean, *manifest.prepare)]
    lines.append("- Cleaning: " + (", ".join(steps) or "none"))
    if manifest.data.get("refit"):
        lines.append("- Fitted on training and validation examples after the choice")
    if facts.seed is not None:
        lines.append(f"- Seed: {facts.seed}")
    libraries = ", ".join(f"{name} {version}" for name, version in manifest.libraries.items())
    lines.append(f"- Made by Tamiz {manifest.code_version} at {manifest.created_at} with {libraries or 'no library'}")
    return lines


def _encoder(facts: Mapping[str, Any]) -> list[str]:
    """Say what of an encoder the package holds and how it was checked, where the family says so."""
    names = {
        "encoder": "Encoder",
        "precision": "Trained in",
        "form": "Form",
        "max_length": "Tokens read",
        "long_texts": "Of long texts is read",
    }
    lines = [f"- {title}: {_text(str(facts[name]))}" for name, title in names.items() if name in facts]
    if facts.get("long_texts_validation"):
        found = ", ".join(f"{name} {value:.4f}" for name, value in facts["long_texts_validation"].items())
        lines.append(f"- Ways to read long texts, on validation: {found}")
    if "export_shift" in facts:
        lines.append(f"- Exported beside trained: probabilities differ by {facts['export_shift']:.1g} at most")
    parity = facts.get("parity")
    if parity:
        lines.append(
            f"- {parity['form']} beside fp32, on {parity['texts']:,} texts: {parity['agreement']:.2%} equal labels, "
            f"probabilities moved by {parity['shift_mean']:.4f} on average, {parity['shift_99']:.4f} for 99 in 100 "
            f"texts and {parity['shift_max']:.4f} at most; " + ("kept" if parity["kept"] else "refused, fp32 is kept")
        )
    return lines


def _step(step: str | Mapping[str, Any]) -> str:
    return _text(step if isinstance(step, str) else " ".join(f"{name} ({value})" for name, value in step.items()))


def _parameter(value: Any) -> str:
    """Return a value as JSON in a code span, which shows brackets as they are."""
    text = json.dumps(value, ensure_ascii=False, default=str).replace("`", "'")
    return f"`{text if len(text) <= _LONGEST_PARAMETER else text[: _LONGEST_PARAMETER - 1] + '…'}`"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _use(manifest: Manifest) -> list[str]:
    return [
        "```python",
        "import tamiz",
        "",
        'model = tamiz.load("path/to/this/folder")',
        'model.predict(["A text."])',
        "```",
    ]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [[_text(cell) for cell in row] for row in (headings, *rows)]
    lines.insert(1, ["---"] * len(headings))
    return [f"| {' | '.join(line)} |" for line in lines]


def _interval(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:.4f} to {bounds[1]:.4f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


_SPECIAL = re.compile(r"([\\`*\[\]|#~])|(?<!\w)(_)|(_)(?!\w)")


def _text(text: str, limit: int = 80) -> str:
    """Return text that Markdown and HTML show as it is, on one line, shortened."""
    text = " ".join(text.split())
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    text = _SPECIAL.sub(r"\\\g<0>", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
