"""What a wrong project file is told: the key, what was given, what is allowed and the nearest spelling."""

from __future__ import annotations

from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from tamiz.errors import one_of, reason_of

__all__ = ["NAME", "ORIGIN", "explain", "explain_yaml", "fields_at", "types_in"]

# Names become folders, S3 keys, URL parts and metric labels: keep to what all of them take unescaped.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
ORIGIN = r"^(\*|https?://[A-Za-z0-9.:\[\]-]{1,255})$"
_ALLOWED = {
    NAME: "letters, digits, - and _ (at most 64, the first a letter or digit)",
    ORIGIN: "* for all, or a scheme and a host, such as https://app.example.org",
}


def explain(error: ValidationError, where: str, root: type[BaseModel]) -> str:
    """Render pydantic's findings about a file, at most ten, one a line.

    Args:
        error: what was found.
        where: what the file is called.
        root: the model of the whole file, which knows the keys that are valid.
    """
    lines = [_explain_one(dict(item), root) for item in error.errors(include_url=False)[:10]]
    more = error.error_count() - len(lines)
    if more > 0:
        lines.append(f"and {more} more")
    return f"{where}: " + ("\n  ".join(["", *lines]) if len(lines) > 1 else lines[0])


def explain_yaml(error: yaml.YAMLError, text: str) -> str:
    """Return what YAML found, with what to do where a `${NAME}` inside `{...}` or `[...]` is the reason."""
    mark = getattr(error, "problem_mark", None)
    if mark is None or text[mark.index - 1 : mark.index + 1] != "${":
        return str(error)
    return f'{error}\nInside {{...}} and [...] what holds ${{NAME}} stands in quotes: {{source: "${{DATA}}/texts.csv"}}'


def _explain_one(item: dict[str, Any], root: type[BaseModel]) -> str:
    place = _dotted(item["loc"])
    given = f"got {_short(item.get('input'))}"
    match item["type"]:
        case "extra_forbidden":
            return f"{place}: unknown key; {one_of(str(item['loc'][-1]), fields_at(root, item['loc'][:-1]))}"
        case "missing":
            return f"{place}: this key is missing"
        case "enum" | "literal_error":
            expected = str(item["ctx"]["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
            return f"{place}: {given}; {one_of(str(item.get('input')), expected)}"
        case "value_error":
            text = str(item["ctx"]["error"])
            return f"{place}: {text}" if place else text
        case "model_type":
            return f"{place}: {given}; a mapping of keys to values is expected"
        case "string_pattern_mismatch":
            return f"{place}: {given}; allowed: {_ALLOWED[item['ctx']['pattern']]}"
        case _:
            reason = reason_of(item)
            return f"{place}: {given}; {reason[0].lower()}{reason[1:]}"


def _dotted(loc: tuple[str | int, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")


def _short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def fields_at(root: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """Return the fields of the section at `loc`, or of the nearest one around it, below a model."""
    model = root
    for part in loc:
        field = model.model_fields.get(part) if isinstance(part, str) else None
        if field is not None:  # else the place in a list, or the key of a mapping such as `tune.space`
            model = next(
                (t for t in types_in(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)), model
            )
    return list(model.model_fields)


def types_in(annotation: Any) -> list[Any]:
    """Return an annotation and all that it is made of."""
    return [annotation, *(found for arg in get_args(annotation) for found in types_in(arg))]
