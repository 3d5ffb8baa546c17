"""The JSON Schema of the project file, with the short spellings that validators take."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

__all__ = ["of_project"]

_FIXED = ["number", "string", "boolean", "array", "null"]


def of_project(project: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of the project file, short spellings included."""
    schema = project.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Tamiz project file"
    properties = schema["properties"]
    properties["labels"] = {"anyOf": [{"type": "array", "items": {"type": "string"}}, properties["labels"]]}
    for key in ("source", "test", "unlabeled", "partition_by"):
        _allow_single(schema["$defs"]["DataConfig"]["properties"], key)
    thresholds = schema["$defs"]["CandidateConfig"]["properties"]["thresholds"]
    thresholds["anyOf"] = [{"type": "string"}, {"$ref": thresholds.pop("$ref")}]
    _allow_single(schema["$defs"]["ReportConfig"]["properties"], "slices")
    space = schema["$defs"]["TuneConfig"]["properties"]["space"]
    space["additionalProperties"] = {"anyOf": [space["additionalProperties"], {"type": _FIXED}]}
    properties["x-variables"] = {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "What to say when an environment variable that this file uses is not set.",
    }
    return schema


def _allow_single(properties: dict[str, Any], key: str) -> None:
    about = {k: properties[key][k] for k in ("description", "title", "default") if k in properties[key]}
    rest = {k: v for k, v in properties[key].items() if k not in about}
    properties[key] = {**about, "anyOf": [{"type": "string"}, *(rest.get("anyOf") or [rest])]}
