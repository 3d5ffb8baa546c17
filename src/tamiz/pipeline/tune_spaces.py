"""Where to look for better parameters: a default space for each family, and what a project makes of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from tamiz._config_errors import types_in
from tamiz._rule_config import check_rule_settings
from tamiz._tune_config import SpaceSpec, TuneConfig
from tamiz.classifiers import check_params, classifier_class
from tamiz.config import CandidateConfig
from tamiz.errors import ConfigError, one_of, reason_of
from tamiz.types import Task

__all__ = ["CANDIDATE_KEYS", "DEFAULT_SPACES", "Dimension", "Space", "default_space", "space_of"]

CANDIDATE_KEYS = ("prepare", "calibrate", "thresholds")
"""Keys of a candidate that can be searched beside its family's parameters."""

DEFAULT_SPACES: dict[str, dict[str, dict[str, Any]]] = {
    "linear": {
        "C": {"low": 0.1, "high": 100, "log": True, "start": {"binary": 30, "multi-class": 10, "multi-label": 4}},
        "nb_weighting": {
            "choices": [True, False],
            "start": {"binary": True, "multi-class": True, "multi-label": False},
        },
        "words": {"choices": [[1, 1], [1, 2], [1, 3]]},
        "characters": {"choices": [None, [2, 4], [3, 5]]},
        "min_df": {"low": 1, "high": 5},
        "tf": {"choices": ["log", "binary"]},
        "class_weight": {"choices": [None, "balanced"]},
    },
    "nb_stack": {
        "alpha": {"low": 0.01, "high": 1, "log": True},
        "C": {"low": 0.01, "high": 10, "log": True},
        "words": {"choices": [[1, 1], [1, 2]]},
        "count_features": {"choices": [0, 10_000, 50_000]},
        "tfidf_features": {"choices": [10_000, 50_000, None]},
        "stack": {"choices": ["log_odds", "probabilities"]},
        "class_weight": {"choices": [None, "balanced"]},
    },
    "boosting": {
        "learning_rate": {"low": 0.03, "high": 0.3, "log": True},
        "rounds": {"low": 100, "high": 500, "step": 50},
        "leaves": {"low": 7, "high": 63, "log": True},
        "min_data_in_leaf": {"low": 1, "high": 50, "log": True, "start": 20},
        "feature_share": {"low": 0.02, "high": 1, "log": True, "start": 0.1},
        "l2": {"low": 0.01, "high": 30, "log": True},
        "max_features": {"choices": [5_000, 10_000, 20_000]},
        "class_weight": {"choices": [None, "balanced"]},
    },
    "transformer": {
        "learning_rate": {"low": 1e-5, "high": 1e-4, "log": True},
        "epochs": {"low": 1, "high": 6, "step": 1},
        "batch_size": {"choices": [16, 32, 64]},
        "weight_decay": {"low": 0.001, "high": 0.1, "log": True},
        "warmup": {"low": 0.0, "high": 0.2},
        "layer_decay": {"low": 0.7, "high": 1.0},
        "dropout": {"choices": [None, 0.0, 0.1, 0.2]},
    },
    "few_shot": {"C": {"low": 0.3, "high": 1000, "log": True, "start": 30}},
    "zero_shot": {"prior": {"choices": ["none", "unlabelled"]}},
}
"""By family; a family is asked for its parameters only when it is tuned. `start` says what `auto` amounts to."""

_NOTHING = {
    "prior": "it has no parameters; tune another candidate",
    "ensemble": "its weights are fitted to validation data already; tune its members as candidates of their own, "
    "or name a `tune.space`",
}


@dataclass(frozen=True)
class Dimension:
    """One parameter that is searched.

    Attributes:
        name: of the parameter.
        spec: where to look.
        whole: whether a range is of whole numbers.
    """

    name: str
    spec: SpaceSpec
    whole: bool

    @property
    def choices(self) -> list[Any] | None:
        """The choices as a study keeps them: plain values, or all of them as JSON."""
        if self.spec.choices is None:
            return None
        plain = all(isinstance(choice, bool | int | float | str | None) for choice in self.spec.choices)
        return list(self.spec.choices) if plain else [json.dumps(choice) for choice in self.spec.choices]

    def suggest(self, trial: Any) -> Any:
        """Let an Optuna trial draw a value."""
        spec, choices = self.spec, self.choices
        if choices is not None:
            return trial.suggest_categorical(self.name, choices)
        assert spec.low is not None  # noqa: S101  # a range, says SpaceSpec
        assert spec.high is not None  # noqa: S101
        if self.whole:
            return trial.suggest_int(self.name, int(spec.low), int(spec.high), step=int(spec.step or 1), log=spec.log)
        return trial.suggest_float(self.name, float(spec.low), float(spec.high), step=spec.step, log=spec.log)

    def place(self, value: Any) -> tuple[Any] | None:
        """Return a parameter's value as a study keeps it, alone in a tuple; `None` where it lies outside."""
        if self.spec.choices is not None:
            wanted = json.dumps(value)
            kept = zip(self.spec.choices, self.choices or [], strict=True)
            return next(((stored,) for choice, stored in kept if json.dumps(choice) == wanted), None)
        low, high, step = self.spec.low, self.spec.high, self.spec.step or (1 if self.whole else None)
        if isinstance(value, bool) or not isinstance(value, int | float) or low is None or high is None:
            return None
        on_grid = step is None or abs((value - low) / step - round((value - low) / step)) < 1e-9
        return ((int(value) if self.whole else float(value)),) if low <= value <= high and on_grid else None

    def value(self, stored: Any) -> Any:
        """Return what `place` was given."""
        if self.spec.choices is None:
            return stored
        return self.spec.choices[(self.choices or []).index(stored)]

    def __str__(self) -> str:
        """Return the dimension as a person reads it."""
        spec = self.spec
        if spec.choices is not None:
            return "one of " + ", ".join(json.dumps(choice) for choice in spec.choices)
        return f"{spec.low:g} to {spec.high:g}" + (
            ", log" if spec.log else f", step {spec.step:g}" if spec.step else ""
        )


@dataclass(frozen=True)
class Space:
    """What is searched for one candidate.

    Attributes:
        candidate: the candidate as it stands.
        task: what kind of answer it gives.
        dimensions: what is searched.
        fixed: values that all trials but the first have.
    """

    candidate: CandidateConfig
    task: Task
    dimensions: tuple[Dimension, ...]
    fixed: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """Searched and fixed parameters."""
        return [*(dimension.name for dimension in self.dimensions), *self.fixed]

    def start(self) -> dict[str, Any]:
        """Return where the candidate as it stands lies, without parameters for which that is not known."""
        found: dict[str, Any] = {}
        for dimension in self.dimensions:
            value = self.present(dimension.name)
            place = dimension.place(value)
            if place is None and value == "auto":
                start = dimension.spec.start
                place = dimension.place(start.get(str(self.task)) if isinstance(start, Mapping) else start)
            if place is not None:
                found[dimension.name] = place[0]
        return found

    def present(self, name: str) -> Any:
        """Return the candidate's own value of a parameter."""
        if name in CANDIDATE_KEYS:
            value = self.candidate.model_dump(mode="json", exclude_defaults=name == "thresholds").get(name, "default")
            return value["metric"] if isinstance(value, dict) and set(value) == {"metric"} else value
        return check_params(self.candidate.family, self.candidate.params)[name]

    def values(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of a trial from what its study keeps, fixed ones included."""
        return self.fixed | {d.name: d.value(stored[d.name]) for d in self.dimensions if d.name in stored}

    def applied(self, values: Mapping[str, Any], *, name: str | None = None) -> CandidateConfig:
        """Return the candidate with other parameters.

        Raises:
            ConfigError: they do not go together.
        """
        raw = self.candidate.model_dump(exclude_unset=True)
        raw["params"] = {**self.candidate.params, **{k: v for k, v in values.items() if k not in CANDIDATE_KEYS}}
        raw |= {key: values[key] for key in CANDIDATE_KEYS if key in values}
        if name is not None:
            raw["name"] = name
        check_params(self.candidate.family, raw["params"])
        try:
            made = CandidateConfig.model_validate(raw)
            check_rule_settings(self.task, made)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ConfigError(f"{'.'.join(map(str, first['loc']))}: {reason_of(first)}") from error
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return made

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able record."""
        searched = {d.name: d.spec.model_dump(exclude_unset=True) for d in self.dimensions}
        return {"search": searched, "fixed": self.fixed}


def default_space(family: str) -> dict[str, SpaceSpec]:
    """Return the default space of a family; empty where it has none."""
    return {name: SpaceSpec(**raw) for name, raw in DEFAULT_SPACES.get(family, {}).items()}


def space_of(candidate: CandidateConfig, settings: TuneConfig, task: Task) -> Space:
    """Return what is searched for a candidate.

    Raises:
        ConfigError: there is nothing to tune, a parameter is unknown, or a value that it may get is not allowed.
    """
    family: Any = classifier_class(candidate.family)
    usual = default_space(candidate.family)
    specs = {**(usual if settings.defaults else {}), **settings.space}
    for name, spec in specs.items():
        if name in usual and usual[name].start is not None and not spec.model_fields_set & {"start", "value"}:
            specs[name] = spec.model_copy(update={"start": usual[name].start})
    allowed = (*family.Params.model_fields, *CANDIDATE_KEYS)
    for name in specs:
        if name not in allowed:
            raise ConfigError(f"tune.space.{name}: {candidate.family} has no such parameter; {one_of(name, allowed)}")
    dimensions = tuple(
        Dimension(name, spec, _is_whole(spec, name, family))
        for name, spec in specs.items()
        if "value" not in spec.model_fields_set
    )
    if not dimensions:
        why = _NOTHING.get(candidate.family, "there is no default space for this family; name a `tune.space`")
        raise ConfigError(f"there is nothing to tune in {candidate.title!r} ({candidate.family}): {why}")
    fixed = {name: spec.value for name, spec in specs.items() if "value" in spec.model_fields_set}
    space = Space(candidate, task, dimensions, fixed)
    _check_values(space)
    return space


def _is_whole(spec: SpaceSpec, name: str, family: Any) -> bool:
    """Say whether a range is of whole numbers: all its numbers are, and the parameter takes no others."""
    field = family.Params.model_fields.get(name)
    fractions = field is not None and float in types_in(field.annotation)
    return not fractions and all(isinstance(v, int) for v in (spec.low, spec.high, spec.step) if v is not None)


def _check_values(space: Space) -> None:
    """Refuse values that a parameter cannot have; values that do not go together are found out by their trial."""
    probes: list[tuple[str, Any]] = list(space.fixed.items())
    for dimension in space.dimensions:
        spec = dimension.spec
        values = spec.choices if spec.choices is not None else [spec.low, spec.high]
        probes += [(dimension.name, value) for value in values]
    for name, value in probes:
        if name in CANDIDATE_KEYS:
            try:
                space.applied({name: value})
            except ConfigError as error:
                raise ConfigError(f"tune.space.{name}: {error}") from error
        else:
            _check_param(space, name, value)


def _check_param(space: Space, name: str, value: Any) -> None:
    family: Any = classifier_class(space.candidate.family)
    try:
        family.Params.model_validate({**space.candidate.params, name: value})
    except ValidationError as error:
        for found in error.errors(include_url=False):
            if found["loc"][:1] == (name,):
                raise ConfigError(f"tune.space.{name}: got {value!r}; {reason_of(found)}") from error
