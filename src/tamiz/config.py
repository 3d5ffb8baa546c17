"""The project file `tamiz.yaml` as typed models, with errors that name the key and the nearest valid spelling.

Nothing here reads the environment: the entry points pass the variables that `${NAME}` may expand to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from tamiz import _config_schema
from tamiz._config_errors import NAME, ORIGIN, explain, explain_yaml
from tamiz._rule_config import (
    RULE_KEYS,
    AbstainConfig,
    ConformalConfig,
    CostsConfig,
    ThresholdsConfig,
    check_rule_settings,
    named_metric,
)
from tamiz._tune_config import TuneConfig
from tamiz.cleaning import DEFAULT_STEPS, StepSpec, check_steps
from tamiz.errors import ConfigError, one_of
from tamiz.types import Task

__all__ = [
    "CONFIG_VERSION",
    "CandidateConfig",
    "DataConfig",
    "LabelsConfig",
    "Project",
    "RegistryConfig",
    "SelectConfig",
    "ServeConfig",
    "SplitConfig",
    "TuneConfig",
    "expand",
    "json_schema",
    "load_project",
    "parse_project",
]

CONFIG_VERSION = 1

Origin = Annotated[str, StringConstraints(pattern=ORIGIN)]
Name = Annotated[str, StringConstraints(pattern=NAME)]
Share = Annotated[float, Field(ge=0, lt=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _known_steps(steps: list[StepSpec]) -> list[StepSpec]:
    check_steps(steps)
    return steps


def _renames(value: object) -> object:
    """Take labels that YAML reads as whole numbers as the text that they are in a column."""
    if not isinstance(value, dict):
        return value
    return {str(key) if isinstance(key, int) and not isinstance(key, bool) else key: to for key, to in value.items()}


Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
StrList = Annotated[list[str], BeforeValidator(_as_list)]
Renames = Annotated[dict[Label, Label], BeforeValidator(_renames)]
Steps = Annotated[list[StepSpec], AfterValidator(_known_steps)]


class DataConfig(_Section):
    """Where the texts are and what their columns mean."""

    source: Annotated[StrList, Field(min_length=1)]
    """File, folder, glob pattern or `s3://` address, or a list of them (CSV, TSV, JSONL, Parquet, Excel; a folder of
    folders of `.txt` files is read as one label per folder)."""
    text: str = "text"
    """Column with the text."""
    label: str = "label"
    """Column with the label; for multi-label tasks a list column, or text cut at `separator`."""
    id: str | None = None
    """Column that identifies a row, which gives way to the row of its id in a newer content of its file; by default the
    row's place in its file."""
    group: str | None = None
    """Column whose equal values must stay on one side of the split; by default near-duplicate texts stay together."""
    time: str | None = None
    """Column with a date or time, for `split.by: time` and for trends."""
    separator: str | None = None
    """What separates several labels in one text cell, such as `|`."""
    test: StrList | None = None
    """A test set of your own, same columns; it is left whole and training rows that repeat it are put aside."""
    unlabeled: StrList | None = None
    """Texts without labels, kept for later use."""
    partition_by: StrList = []
    """Columns that partition the bronze table's files."""
    encoding: str | None = None
    """Text encoding of CSV, TSV, JSONL and `.txt` files; by default detected."""
    max_refused: Share = 0.2
    """Share of refused rows above which a run fails."""


class LabelsConfig(_Section):
    """The labels in the order that every answer uses."""

    names: list[str] | None = None
    """Labels in order; rows with any other label are refused. By default all labels found, in code-point order."""
    positive: str | None = None
    """Binary tasks: the label that thresholds and curves are about; by default the last in order."""
    min_examples: Annotated[int, Field(ge=1)] = 1
    """Labels with fewer examples than this are refused."""
    rename: Renames = {}
    """Labels of the data by what they are called here, such as `{Mortgage: loans, Student loan: loans}`; several may
    become one, and any other keeps its name. `names`, corrections and answers know the new names alone."""
    corrections: str | None = None
    """CSV file with columns `row_id` and `corrected_label` whose filled lines override the data (`-` drops a row);
    `tamiz check --suspects FILE.csv` writes one to fill in."""


class SplitConfig(_Section):
    """How examples go to training, validation and test."""

    by: Literal["hash", "time"] = "hash"
    """`hash`: at random but stable as data grows; `time`: the newest part is the test, the next newest validation."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the labelled examples for choosing."""
    test: Share = 0.1
    """Share for the final figures; not taken where `data.test` gives a test set."""
    seed: int = 0
    """Seed of the assignment."""
    near_duplicates: bool = True
    """Keep near-duplicate texts on one side."""

    @model_validator(mode="after")
    def _room_for_training(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("validation + test must leave a share for training (their sum must be below 1)")
        return self


class CandidateConfig(_Section):
    """One classifier to train and compare."""

    family: str
    """Classifier family, such as `linear` or `prior`."""
    name: Name | None = None
    """Name on the leaderboard; by default the family's."""
    prepare: Steps = ["case"]
    """Steps inside the model, after `clean`: case folding, stop words, stemming."""
    params: dict[str, Any] = {}
    """Parameters of the family (see its reference)."""
    calibrate: Literal["auto", "none", "temperature", "sigmoid", "isotonic"] = "auto"
    """How scores become probabilities; `auto` takes the best by cross-validated log loss on validation data."""
    thresholds: Annotated[ThresholdsConfig, BeforeValidator(named_metric)] = ThresholdsConfig()
    """Binary and multi-label: `default` (.5), or what they are tuned for on validation data, such as `f1`."""
    costs: CostsConfig | None = None
    """What mistakes cost; the answer is the one with the least expected cost."""
    abstain_below: Annotated[float, Field(ge=0, le=1)] | None = None
    """Answer nothing where the top probability is lower (binary and multi-class)."""
    abstain: AbstainConfig | None = None
    """Answer nothing below a confidence that is found on validation data (binary and multi-class)."""
    conformal: ConformalConfig | None = None
    """Find the sets of labels that hold the true one with a stated probability."""

    @property
    def title(self) -> str:
        """Name on the leaderboard."""
        return self.name or self.family

    def rule_settings(self) -> dict[str, Any]:
        """Return the keys that say how scores become answers, as JSON-able values, without defaults."""
        return self.model_dump(mode="json", include=set(RULE_KEYS), exclude_defaults=True)


class SelectConfig(_Section):
    """Which candidate is chosen, by validation figures only, and what makes it champion, on the test."""

    metric: str = "val_f1_macro"
    """Metric to choose by."""
    mode: Literal["max", "min"] | None = None
    """Whether higher or lower is better; by default known from the metric."""
    limits: dict[str, float] = {}
    """Bounds a candidate must keep, by metric: the most of `latency_p99_ms`, `size_mb`, `val_ece`; the least of
    `texts_per_s`, `val_accuracy` and others of which more is better."""
    refit: bool = False
    """Fit the chosen candidate again on training + validation before it is scored on test; its rule is kept."""
    promote: bool = True
    """Make the chosen version the champion when it passes the gates below (see docs/promotion.md)."""
    evidence: Literal["significant", "not_worse", "better", "none"] = "significant"
    """What makes a version better than the champion on the same test: `significant` (probably, by `confidence`),
    `not_worse` (that, or better and surely not worse by more than `margin`), `better` (by however little), `none`."""
    confidence: Annotated[float, Field(gt=0.5, le=0.9999)] = 0.95
    """How probable it must be that the version is better."""
    margin: Annotated[float, Field(ge=0)] = 0.01
    """With `evidence: not_worse`, the loss in the metric that the 95 % interval must exclude."""
    slices: StrList = []
    """Parts of the test on which the version may not be worse: `label`, `length`, `group`, columns of
    `data.partition_by`."""
    min_slice: Annotated[int, Field(ge=1)] = 30
    """Slices with fewer test examples are not judged."""
    max_slice_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest loss of a slice's share of right answers, even where it may be chance."""


class ReportConfig(_Section):
    """What the report of a version shows."""

    learning_curve: bool | Literal["auto"] = "auto"
    """Whether to fit the candidate again on an eighth, a quarter and half of the training side; `auto`: where its fit
    took less than five seconds."""
    slices: StrList | None = None
    """Columns of the source files, each with at most 20 values, by which figures are given; by default `group`, `time`
    (by year) and the columns of `data.partition_by`. The length of the text always is one."""


class RegistryConfig(_Section):
    """Where experiments are recorded and models are kept."""

    mlflow: str = "sqlite:///mlflow.db"
    """MLflow tracking address; a relative SQLite path is taken from the project's folder."""
    artifacts: str = "mlartifacts"
    """Folder for artifacts of a local MLflow."""
    store: str = "models"
    """Model store that is served from: a folder or an `s3://` address."""


class RecordsConfig(_Section):
    """What a server keeps of answers and of feedback to them; nothing unless a folder is named."""

    folder: str | None = None
    """Folder for JSON lines that are only ever added to: `feedback-*.jsonl` and `answers-*.jsonl`."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of requests whose answers are kept, with the texts' SHA-256; 0 keeps feedback alone."""
    texts: bool = False
    """Keep the texts themselves beside their answers."""
    max_mb: Annotated[int, Field(ge=1)] = 1000
    """Most that the folder may hold, in MB; then answers are no longer kept, and feedback is refused."""


class ServeConfig(_Section):
    """Limits of the HTTP server, and how it works off requests."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen on."""
    max_body_bytes: Annotated[int, Field(ge=1)] = 8_000_000
    """Largest request body, in bytes."""
    max_texts: Annotated[int, Field(ge=1)] = 1000
    """Most texts in one request."""
    max_characters: Annotated[int, Field(ge=1)] = 1_000_000
    """Most characters in one text."""
    max_concurrent: Annotated[int, Field(ge=1)] = 64
    """Most requests at work or waiting at once in one worker; more are answered 429."""
    max_wait_ms: Annotated[float, Field(ge=0)] = 500
    """Longest that a request may be expected to wait for its turn, in ms; else it is answered 429. While that happens,
    only requests that hardly wait are let in."""
    deadline_s: Annotated[float, Field(gt=0)] = 30
    """Seconds after which a request that is not answered yet is given up and answered 503."""
    threads: Annotated[int, Field(ge=0, le=64)] = 0
    """Requests worked off at once in one worker, besides those quick enough for its event loop; 0 for one."""
    batching: Literal["auto", "on", "off"] = "auto"
    """Answer short texts of several requests together: `auto` where the model's warm-up finds that faster."""
    batch_texts: Annotated[int, Field(ge=1)] = 16
    """Most texts of several requests that are answered together."""
    batch_window_ms: Annotated[float, Field(ge=0)] = 2
    """Longest that the first request of a batch waits for company, in ms."""
    unanswerable: Literal["refuse", "mark"] = "refuse"
    """JSON lines of which none can be answered: `refuse` the body, or `mark` each line, as is done where some can; with
    `mark`, lines may also come as `application/json`."""
    drain_s: Annotated[float, Field(ge=0)] = 1
    """Seconds to go on answering after SIGTERM, while `/health/ready` says no; then requests are answered 503."""
    shadow: str | None = None
    """Alias, such as `challenger`, of a version that sees copies of requests; compared, never answered with."""
    shadow_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of requests that the shadow sees."""
    records: RecordsConfig = RecordsConfig()
    explain_budget_ms: Annotated[float, Field(ge=0, le=60_000)] = 2000.0
    """Time for one explanation by leaving words out, where the family needs that; what is begun is finished."""
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    """Most requests a minute of one API key, up to as many at once; more are answered 429. By default there is no such
    limit."""
    cors_origins: list[Origin] = []
    """Web pages of other sites that may call, such as `https://app.example.org`, or `*` for all; by default none."""
    keys_file: str = "keys.json"
    """File of hashed API keys for `--auth keys`."""


class Project(_Section):
    """A text-classification project: what `tamiz.yaml` says."""

    version: Literal[1] = 1
    """Version of this file's format."""
    name: Name
    """Name of the project and of its model."""
    task: Task
    """`binary`, `multi-class` or `multi-label`."""
    data: DataConfig
    labels: LabelsConfig = LabelsConfig()
    clean: Steps = list(DEFAULT_STEPS)
    """Cleaning steps, in order; they run once on the data and in every model."""
    split: SplitConfig = SplitConfig()
    candidates: Annotated[list[CandidateConfig], Field(min_length=1)] = [
        CandidateConfig(family="prior"),
        CandidateConfig(family="linear"),
    ]
    """Classifiers to train and compare."""
    select: SelectConfig = SelectConfig()
    report: ReportConfig = ReportConfig()
    tune: TuneConfig = TuneConfig()
    lake: str = "lake"
    """Folder or `s3://` address of the bronze, silver and gold tables."""
    registry: RegistryConfig = RegistryConfig()
    serve: ServeConfig = ServeConfig()

    _folder: Path = PrivateAttr(default_factory=Path)

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_as_list(cls, value: object) -> object:
        return {"names": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        titles = [candidate.title for candidate in self.candidates]
        twice = sorted({title for title in titles if titles.count(title) > 1})
        if twice:
            raise ValueError(f"candidates: two have the name {twice[0]!r}; give each its own `name`")
        if self.split.by == "time" and self.data.time is None:
            raise ValueError("split.by is 'time' but data.time names no column")
        names = self.labels.names
        if names is not None:
            _check_label_names(names, self.task, self.labels.positive)
            foreign = next((name for name in self.labels.rename.values() if name not in names), None)
            if foreign is not None:
                raise ValueError(f"labels.rename: {foreign!r} does not stand in labels.names; {one_of(foreign, names)}")
        for candidate in self.candidates:
            check_rule_settings(self.task, candidate)
            if self.select.refit and candidate.conformal is not None:
                raise ValueError(
                    "select.refit: a refitted model has seen the data that `conformal` needs; leave one out"
                )
        return self

    @property
    def folder(self) -> Path:
        """Folder of the project file; relative paths are taken from it."""
        return self._folder

    def at(self, folder: Path) -> Self:
        """Return a copy whose relative paths are taken from `folder`."""
        copy = self.model_copy()
        copy._folder = folder
        return copy

    def resolve(self, place: str) -> str:
        """Return `place` as an absolute path, or unchanged where it is a URL."""
        return place if "://" in place else str((self._folder / place).absolute())


def _check_label_names(names: list[str], task: Task, positive: str | None) -> None:
    if len(set(names)) != len(names):
        raise ValueError("labels.names: a label stands there twice")
    if len(names) < 2:
        raise ValueError("labels.names: at least two labels are needed")
    if task is Task.BINARY and len(names) != 2:
        raise ValueError(f"labels.names: a binary task has two labels, not {len(names)}; use task: multi-class")
    if positive is not None and positive not in names:
        raise ValueError(f"labels.positive: {positive!r} is not a label; {one_of(positive, names)}")


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def expand(value: Any, variables: Mapping[str, str], *, hints: Mapping[str, str] | None = None, key: str = "") -> Any:
    """Replace `${NAME}` in every string of a nested value.

    Args:
        value: what YAML gave.
        variables: names and values, usually the environment.
        hints: what to say about a missing name, such as where to get the data.
        key: dotted place of `value`, for messages.

    Raises:
        ConfigError: a name is not among `variables`.

    Example:
        >>> expand({"a": ["${HOME}/x"]}, {"HOME": "/h"})
        {'a': ['/h/x']}
    """
    if isinstance(value, dict):
        return {k: expand(v, variables, hints=hints, key=f"{key}.{k}".lstrip(".")) for k, v in value.items()}
    if isinstance(value, list):
        return [expand(v, variables, hints=hints, key=f"{key}[{i}]") for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replaced(match: re.Match[str]) -> str:
        name = match.group(1)
        if name in variables:
            return variables[name]
        hint = (hints or {}).get(name, f"Set it, for example: export {name}=...")
        raise ConfigError(f"{key}: the environment variable {name} is not set. {hint}")

    return _VARIABLE.sub(replaced, value)


def load_project(
    path: Path | str, *, variables: Mapping[str, str], notice: Callable[[str], None] | None = None
) -> Project:
    """Read a project file, or the `tamiz.yaml` of a folder.

    Raises:
        ConfigError: there is no such file, it is not YAML, or a key or value is wrong.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "tamiz.yaml"
    try:
        text = path.read_text(encoding="utf-8")
        raw = _OnceLoader(text).get_single_data()
    except FileNotFoundError as error:
        raise ConfigError(f"no project file at {path}. Write one with: tamiz init YOUR_FILE.csv") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the project file {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {explain_yaml(error, text)}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a project file is a mapping of keys to values, not {type(raw).__name__}")
    hints = _hints(raw)
    return parse_project(expand(raw, variables, hints=hints), where=str(path), notice=notice).at(path.absolute().parent)


class _OnceLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would take the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
                seen.add(key.value)
        return dict(super().construct_mapping(node, deep=deep))


def _hints(raw: dict[str, Any]) -> dict[str, str]:
    """Take the top key `x-variables`, where a project explains the variables it needs, out of `raw`."""
    hints = raw.pop("x-variables", None) or {}
    if not isinstance(hints, dict):
        raise ConfigError("x-variables: a mapping of variable names to how to set them is expected")
    return {str(name): str(text) for name, text in hints.items()}


def parse_project(
    raw: Mapping[str, Any], *, where: str = "project", notice: Callable[[str], None] | None = None
) -> Project:
    """Build a `Project` from what a file said, migrating an older format with a notice.

    Raises:
        ConfigError: a key is unknown, a value is wrong or the format is newer than this Tamiz.
    """
    raw = _migrate(dict(raw), where, notice)
    try:
        return Project.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain(error, where, Project)) from error


def _migrate(raw: dict[str, Any], where: str, notice: Callable[[str], None] | None) -> dict[str, Any]:
    version = raw.get("version", CONFIG_VERSION)
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise ConfigError(f"{where}: version: got {version!r}; allowed: {CONFIG_VERSION}")
    if version > CONFIG_VERSION:
        raise ConfigError(
            f"{where}: version {version} is newer than this Tamiz understands (up to {CONFIG_VERSION}). "
            "Install a newer release: pip install --upgrade tamiz"
        )
    for old in range(version, CONFIG_VERSION):
        raw = _MIGRATIONS[old](raw)
        if notice:
            notice(f"{where}: read as format {old} and taken as format {old + 1}; set `version: {CONFIG_VERSION}`")
    return {**raw, "version": CONFIG_VERSION}


def _from_draft(raw: dict[str, Any]) -> dict[str, Any]:
    """Format 0, the draft: `input` and `target` stood at the top for `data.source` and `data.label`."""
    raw = dict(raw)
    data = dict(raw.pop("data", None) or {})
    for old, new in (("input", "source"), ("target", "label")):
        if old in raw:
            data.setdefault(new, raw.pop(old))
    return {**raw, "data": data}


_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {0: _from_draft}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the project file, for editors."""
    return _config_schema.of_project(Project)
