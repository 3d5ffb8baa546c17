"""Write the pages that follow from the code: the project file's schema and its reference."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tamiz.classifiers import CLASSIFIERS, params_schema
from tamiz.config import json_schema
from tamiz.metrics import METRICS

HERE = Path(__file__).parent
HEAD = """# The project file

`tamiz.yaml` says all there is to say about a project. `tamiz init FILE` writes one; `tamiz schema --to schema.json`
gives editors its JSON Schema (also at [docs/tamiz.schema.json](tamiz.schema.json)). Unknown keys are errors. `${NAME}`
stands for an environment variable; `x-variables` may say how to set one. Inside `{...}` and `[...]` it must be quoted:
`data: {source: "${DATA}/texts.csv"}`. Relative paths are taken from the file's folder. A key may be changed for one
run: `tamiz run --set split.seed=1`.

This page is generated from the code by `make docs`.
"""
FIGURES = """With the prefix `val_` or `test_`.

Figures with `val_` are cross-fitted: validation is divided into five folds, and each is answered by a calibration and
a rule that were fitted on the other four. The version keeps those fitted on all of it, which may keep a bound that the
figures just miss. With fewer than 20 validation examples, or where a fold cannot keep `abstain.error` or has too few
examples for `conformal`, the figures are those of the version's own calibration and rule, which flatter.
"""
DECISION = """
## Decision rules

A candidate's classifier gives scores; `calibrate` makes them probabilities; the keys below make answers of these. All
are fitted on validation data, stored in the model package and applied with numpy alone. `tamiz thresholds` shows what a
version does and makes a version with the same weights that decides in another way.

```yaml
candidates:
  - family: linear
    thresholds: f2                            # or: {metric: recall, at_least: {precision: 0.9}}
    abstain: {coverage: 0.9}                  # answer the surest 90 %
  - family: linear
    name: by-costs
    costs: {false_negative: 5, abstain: 0.3}  # multi-class: {matrix: {urgent: {later: 10}}}
  - family: linear
    name: sets
    conformal: {coverage: 0.95}
```

Costs give a threshold of false positive / (false positive + false negative) (Elkan 2001), not one tuned on validation
data: it has no chance in it, and is right as far as the probabilities are. With more labels the one with the least
expected cost is answered; with `abstain` nothing is answered where that costs more (Chow 1970). Beside costs or sets,
the section `abstain` counts the answers that these leave.

`conformal` gives sets that hold the true label with the stated probability for texts like those of the validation data,
however good the classifier is (split conformal prediction: Vovk 2005; Angelopoulos and Bates 2021). One half of the
validation data then serves the calibration and what the family itself decides by validation, the other the size of the
sets, so that no example serves twice. What is left: the candidate is chosen on all of them, a refit (`select.refit`)
gives other scores than those the size was found on, and where `tamiz thresholds` adds sets the family may have decided
by all examples; compare `test_set_coverage`.
What is stated is the mean over all texts, not each kind of text's own. A multi-label set holds each true label with
that probability; a label with too few examples for a quantile is in every set.
"""


def main() -> None:
    """Write both pages, or with `--check` say whether they are up to date."""
    schema = json.dumps(json_schema(), ensure_ascii=False, indent=2) + "\n"
    pages = {"tamiz.schema.json": schema, "project-file.md": reference(json_schema())}
    stale = [name for name, text in pages.items() if not _equals(HERE / name, text)]
    if "--check" in sys.argv:
        sys.exit(f"out of date, run `make docs`: {', '.join(stale)}" if stale else 0)
    for name in stale:
        (HERE / name).write_text(pages[name], encoding="utf-8")
        print(f"wrote docs/{name}")


def _equals(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


def reference(schema: dict[str, Any]) -> str:
    """Return the reference page."""
    parts = [HEAD, "\n## Top keys\n\n", table(schema, schema)]
    for name, title in {
        "DataConfig": "data",
        "LabelsConfig": "labels",
        "SplitConfig": "split",
        "CandidateConfig": "candidates",
        "ThresholdsConfig": "thresholds",
        "CostsConfig": "costs",
        "LabelCosts": "costs.labels",
        "AbstainConfig": "abstain",
        "ConformalConfig": "conformal",
        "SelectConfig": "select",
        "ReportConfig": "report",
        "TuneConfig": "tune",
        "SpaceSpec": "tune.space",
        "RegistryConfig": "registry",
        "ServeConfig": "serve",
        "RecordsConfig": "serve.records",
    }.items():
        about = schema["$defs"][name]
        if name == "ThresholdsConfig":
            parts.append(DECISION)
        parts += [f"\n## `{title}`\n\n{about.get('description', '')}\n\n", table(about, schema)]
    parts.append("\n## Parameters of the families\n\nThey go into a candidate's `params`.\n")
    for family in CLASSIFIERS:
        about = params_schema(family)
        rows = table(about, about) if about.get("properties") else "None.\n"
        parts += [f"\n### `{family}`\n\n", rows]
        for name, inner in about.get("$defs", {}).items():
            parts += [f"\n{inner['description']} (`{name.lower()}`)\n\n", table(inner, about)]
    parts.append("\n## Cleaning steps\n\n" + cleaning())
    parts.append(f"\n## Metrics\n\n{FIGURES}\n| metric | meaning |\n| --- | --- |\n")
    parts += [f"| `{name}` | {text} |\n" for name, text in METRICS.items()]
    return "".join(parts)


def table(about: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return a table of the properties of one object."""
    lines = ["| key | values | default | meaning |", "| --- | --- | --- | --- |"]
    required = about.get("required", [])
    for key, value in about["properties"].items():
        default = "required" if key in required else _code(value.get("default"))
        text = " ".join(str(value.get("description", "")).split())
        lines.append(f"| `{key}` | {' or '.join(dict.fromkeys(kinds(value, schema)))} | {default} | {text} |")
    return "\n".join(lines) + "\n"


_WORDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "yes or no", "null": "`null`"}


def kinds(value: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    """Yield what a property may be, in words."""
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[1]
        found = schema.get("$defs", {}).get(name, {})
        if "enum" in found:
            yield ", ".join(f"`{v}`" for v in found["enum"])
        else:
            yield "see below" if found.get("properties") else "value"
    elif "anyOf" in value:
        for option in value["anyOf"]:
            yield from kinds(option, schema)
    elif "enum" in value:
        yield ", ".join(f"`{v}`" for v in value["enum"])
    elif "const" in value:
        yield f"`{json.dumps(value['const'])}`"
    elif value.get("type") == "array":
        inner = value.get("prefixItems") or [value.get("items", {})]
        yield "list of " + ", ".join(dict.fromkeys(kind for item in inner for kind in kinds(item, schema)))
    else:
        yield _WORDS.get(value.get("type", ""), "mapping") + _bounds(value)


def _bounds(value: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {value[name]}" for name, sign in signs.items() if name in value]
    return f" ({', '.join(bounds)})" if bounds else ""


def _code(default: Any) -> str:
    if default is None:
        return ""
    text = json.dumps(default, ensure_ascii=False)
    return "see below" if len(text) > 90 else f"`{text}`"


def cleaning() -> str:
    """Return what the module says of its steps."""
    import tamiz.cleaning
    from tamiz.cleaning.words import LANGUAGES, STEMMERS

    said = str(tamiz.cleaning.__doc__).split("\n\n", 1)[1].strip()
    return (
        f"{said}\n\n```yaml\nprepare: [case, {{stop_words: english}}, {{stem: english}}]\n```\n\n"
        f"Languages of `stop_words`: {', '.join(LANGUAGES)}.\n\n"
        f"Languages of `stem`: {', '.join(STEMMERS)}. `porter` is the stemmer of 1980 for English.\n\n"
        "ISO 639-1 codes, such as `en`, are taken too.\n"
    )


if __name__ == "__main__":
    main()
