"""The section `tune` of the project file: what is searched, how long, and where the search is kept."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

__all__ = ["SpaceSpec", "TuneConfig"]

Number = int | Annotated[float, Field(allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class SpaceSpec(_Section):
    """Where to look for one parameter: a range, choices, or (any other value) a fixed value."""

    low: Number | None = None
    """Least value of a range; whole numbers at both ends search whole numbers where the parameter takes them."""
    high: Number | None = None
    """Largest value."""
    log: bool = False
    """Search by orders of magnitude."""
    step: Annotated[Number, Field(gt=0)] | None = None
    """Distance between the values of a range."""
    choices: Annotated[list[Any], Field(min_length=1)] | None = None
    """The values to choose from."""
    value: Any = None
    """The value to keep; `{value: 3}` is short as `3`."""
    start: Any = None
    """What `auto` amounts to, where the candidate has that: the search begins there. One value, or a mapping of tasks
    to values."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = self.model_fields_set
        kinds = [bool(given & {"low", "high", "log", "step"}), "choices" in given, "value" in given]
        if sum(kinds) != 1:
            raise ValueError("give a range {low, high}, {choices: [...]} or one value, and one of these only")
        if kinds[0]:
            _check_range(self)
        if self.choices is not None and len({repr(choice) for choice in self.choices}) < len(self.choices):
            raise ValueError("choices: a value stands there twice")
        return self


def _check_range(spec: SpaceSpec) -> None:
    if spec.low is None or spec.high is None:
        raise ValueError("a range has both `low` and `high`")
    if spec.low >= spec.high:
        raise ValueError(f"low ({spec.low:g}) must be below high ({spec.high:g})")
    if spec.log and spec.low <= 0:
        raise ValueError(f"with `log`, low must be above 0, not {spec.low:g}")
    if spec.log and spec.step is not None:
        raise ValueError("`log` and `step` exclude each other")


def _as_spec(value: object) -> object:
    """Read a plain value as one that is kept."""
    return value if isinstance(value, dict | SpaceSpec) else {"value": value}


class TuneConfig(_Section):
    """How `tamiz tune` searches for better parameters."""

    candidate: str | None = None
    """Name of a candidate, or a family at its defaults; by default the first candidate that has something to tune."""
    metric: str | None = None
    """Metric to search by; by default `select.metric`."""
    mode: Literal["max", "min"] | None = None
    """Whether higher or lower is better; by default known from the metric."""
    trials: Annotated[int, Field(ge=1)] = 30
    """Trials of a study, the first of which is the candidate as it stands; interrupted and parallel searches share
    them."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Begin no trial after so many minutes."""
    space: dict[str, Annotated[SpaceSpec, BeforeValidator(_as_spec)]] = {}
    """Where to look, by parameter of the family, or `prepare`, `calibrate`, `thresholds`; what is named here replaces
    or joins the family's default space."""
    defaults: bool = True
    """Whether the family's default space is searched beside what `space` names."""
    folds: Annotated[int, Field(ge=2, le=20)] | None = None
    """Score by cross-validation on the training side in so many folds; by default on the validation side."""
    pruning: Literal["median", "halving", "none"] = "median"
    """Give a trial up early where it is worse than the median of the earlier ones, or not among the best third
    (`halving`), after a fold or on a part of the training side."""
    rungs: list[Annotated[float, Field(gt=0, lt=1)]] = [0.1, 0.3]
    """Without folds, the shares of the training side on which a trial is tried first, where they have 200 texts."""
    seed: int = 0
    """Seed of the search."""
    storage: str = "tuning"
    """Folder of the studies: an SQLite database and what belongs to it."""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError("rungs: shares go from small to large, each once")
        if "://" in self.storage:
            raise ValueError("storage: a folder on this machine or a shared disk is needed, not an address")
        return self
