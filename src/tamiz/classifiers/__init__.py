"""Classifier families: an explicit table from names to classes, loaded when first asked for.

A new family is one module, one line in `CLASSIFIERS` and, if it needs new libraries, one extra; the contract checks in
`checks.py` pick it up from the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from tamiz import extras
from tamiz.errors import ConfigError, one_of, reason_of

if TYPE_CHECKING:
    from tamiz.types import Classifier

__all__ = [
    "CLASSIFIERS",
    "check_libraries",
    "check_params",
    "classifier_class",
    "needs_openvino",
    "params_schema",
]

CLASSIFIERS = {
    "boosting": "tamiz.classifiers.boosting:BoostingClassifier",
    "ensemble": "tamiz.classifiers.ensemble:EnsembleClassifier",
    "few_shot": "tamiz.classifiers.few_shot:FewShotClassifier",
    "linear": "tamiz.classifiers.linear:LinearClassifier",
    "nb_stack": "tamiz.classifiers.nb_stack:NbStackClassifier",
    "prior": "tamiz.classifiers.prior:PriorClassifier",
    "transformer": "tamiz.classifiers.transformer:TransformerClassifier",
    "zero_shot": "tamiz.classifiers.zero_shot:ZeroShotClassifier",
}

# Beside NumPy: what a family is fitted with, and the extra that brings it.
_LIBRARIES = {
    "boosting": ("lightgbm", "train"),
    "few_shot": ("onnxruntime", "onnx"),
    "transformer": ("torch", "transformers"),
    "zero_shot": ("onnxruntime", "onnx"),
}


def classifier_class(family: str) -> type[Classifier]:
    """Return the class of a family.

    Raises:
        ConfigError: no family has this name.
    """
    try:
        module, _, name = CLASSIFIERS[family].partition(":")
    except KeyError as error:
        raise ConfigError(f"candidates.family: unknown {family!r}; {one_of(family, CLASSIFIERS)}") from error
    found: type[Classifier] = getattr(import_module(module), name)
    return found


def _params_model(family: str) -> type[BaseModel]:
    model: type[BaseModel] = classifier_class(family).Params  # type: ignore[attr-defined]
    return model


def check_params(family: str, params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a family with all defaults filled in.

    Raises:
        ConfigError: the family or a parameter is unknown, or a value is not allowed.
    """
    model = _params_model(family)
    try:
        return model.model_validate(params).model_dump()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if not first["loc"]:  # parameters that do not go together
            raise ConfigError(f"{family}: {reason_of(first)}") from error
        name = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{family}: unknown parameter {name!r}; {one_of(name, model.model_fields)}") from error
        raise ConfigError(f"{family}: {name}: got {first.get('input')!r}; {reason_of(first)}") from error


def check_libraries(family: str, params: Mapping[str, Any]) -> None:
    """Refuse a family, or an ensemble with a member, that cannot be fitted with what is installed.

    Args:
        family: name of the family.
        params: its parameters, checked.

    Raises:
        MissingExtraError: a library is not installed; the message says which extra brings it.
    """
    for one in (family, *(member["family"] for member in params.get("members") or ())):
        if one in _LIBRARIES:
            module, extra = _LIBRARIES[one]
            extras.check(module, extra=extra)
    if needs_openvino(params):
        extras.check("openvino", extra="openvino")


def needs_openvino(params: Mapping[str, Any]) -> bool:
    """Tell whether OpenVINO runs an encoder of a family with these parameters, or of a member of an ensemble."""
    members = [member.get("params") or {} for member in params.get("members") or ()]
    return any(one.get("form") == "bf16" for one in (params, *members))


def params_schema(family: str) -> dict[str, Any]:
    """Return the JSON Schema of a family's parameters."""
    return _params_model(family).model_json_schema()
