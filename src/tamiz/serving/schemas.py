"""The native door's messages, as its documentation shows them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field, StringConstraints, model_validator

__all__ = [
    "DeployBody",
    "DeployAnswer",
    "ExplainAnswer",
    "ExplainBody",
    "FeedbackAnswer",
    "FeedbackBody",
    "ModelAnswer",
    "ModelsAnswer",
    "PredictAnswer",
    "PredictBody",
]

EXAMPLE_TEXT = "The bank charged me twice and nobody answers."


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FirstError(FailFast):
    """Ends the reading of a list at its first wrong item; unlike its parent it can stand in a union."""

    __hash__ = object.__hash__


class PredictBody(_Body):
    """Texts to classify."""

    # Fast: a body of nothing but wrong texts would else become millions of errors, at a kilobyte each.
    text: Annotated[list[str], FailFast()] = Field(examples=[[EXAMPLE_TEXT]])


class ExplainBody(_Body):
    """A text whose answer to explain."""

    text: str = Field(examples=[EXAMPLE_TEXT])
    label: str | None = Field(None, description="Label to explain; by default the predicted one")


class FeedbackBody(_Body):
    """The right label of a text: of an earlier answer, or of a text with this hash; exactly one of the two."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["request_id"]}, {"required": ["sha256"]}],
            "dependentRequired": {"place": ["request_id"]},
            "examples": [{"request_id": "6f1c0a2b-1", "label": "card"}],
        }
    )

    request_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")] | None = Field(
        None, description="Header `X-Request-ID` of the answer"
    )
    place: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(None, description="Of the text in that request")
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        None, description="SHA-256 of the text in UTF-8, hexadecimal"
    )
    label: str | list[str] = Field(description="Multi-label: a list, maybe empty")

    @model_validator(mode="after")
    def _one_text(self) -> Self:
        if (self.request_id is None) == (self.sha256 is None):
            raise ValueError("exactly one of request_id and sha256 is needed")
        if self.place is not None and self.request_id is None:
            raise ValueError("place goes with request_id")
        return self


class DeployBody(_Body):
    """The version to serve, by number, by alias or by a metric of which it is the best: exactly one of the three."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["version"]}, {"required": ["alias"]}, {"required": ["by"]}],
            "dependentRequired": {"mode": ["by"]},
            "examples": [{"version": "3"}, {"by": "val_f1_macro", "mode": "max"}],
        }
    )

    version: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}$")] | None = None
    alias: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")] | None = None

    by: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_./-]{0,127}$")] | None = None
    mode: Literal["max", "min"] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(given is not None for given in (self.version, self.alias, self.by)) != 1:
            raise ValueError("exactly one of version, alias and by is needed")
        if self.mode is not None and self.by is None:
            raise ValueError("mode goes with by")
        return self


class PredictionAnswer(BaseModel):
    """The answer to one text."""

    label: str | list[str] | None = Field(description="Null: the model abstains. Multi-label: a list, maybe empty")
    probability: float | list[float] | None = Field(description="Of the label; multi-label: parallel to it")
    probabilities: dict[str, float] = Field(description="Of every label, in the order of `labels`")
    prediction_set: list[str] | None = Field(
        None, description="Labels that may be true, where the model makes such sets (`conformal`); else left out"
    )


class PredictAnswer(BaseModel):
    """One prediction per text, in order."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "complaints",
                    "version": "3",
                    "labels": ["account", "card"],
                    "predictions": [
                        {"label": "card", "probability": 0.91, "probabilities": {"account": 0.09, "card": 0.91}}
                    ],
                }
            ]
        }
    )

    model: str
    version: str | None
    labels: list[str]
    predictions: list[PredictionAnswer]


class ContributionAnswer(BaseModel):
    """What one stretch of the text adds to the score."""

    start: int
    end: int
    text: str
    value: float


class ExplainAnswer(BaseModel):
    """Why a label got its score: `score` is `base` plus the sum of the contributions."""

    model: str
    version: str | None
    label: str
    base: float
    score: float
    contributions: list[ContributionAnswer]


class FeedbackAnswer(BaseModel):
    """That the feedback is kept."""

    model: str
    kept: int = Field(description="Pieces of feedback kept: 1")


class ModelAnswer(BaseModel):
    """A served model."""

    name: str
    version: str | None = Field(description="The version served now; null while none is")
    task: str | None
    labels: list[str]
    aliases: dict[str, str]
    versions: list[str] = Field(description="All versions in the store, oldest first")


class ModelsAnswer(BaseModel):
    """The served models, the default one first."""

    models: list[ModelAnswer]


class WorkersAnswer(BaseModel):
    """How far a change has come."""

    serving: int = Field(description="Worker processes that serve the version")
    all: int = Field(description="Worker processes that serve any version of the model")


class BestAnswer(BaseModel):
    """Why a metric chose a version."""

    metric: str
    mode: Literal["max", "min"]
    value: float
    reason: str


class DeployAnswer(BaseModel):
    """What is served after the change."""

    model: str
    version: str
    previous: str | None = Field(description="The version served before")
    workers: WorkersAnswer
    by: BestAnswer | None = Field(default=None, description="With `by`: what chose the version")
