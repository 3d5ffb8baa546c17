"""The native door's messages, as its documentation shows them."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

__all__ = [
    "DeployBody",
    "DeployAnswer",
    "ExplainAnswer",
    "ExplainBody",
    "ModelAnswer",
    "ModelsAnswer",
    "PredictAnswer",
    "PredictBody",
]

EXAMPLE_TEXT = "The bank charged me twice and nobody answers."


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PredictBody(_Body):
    """Texts to classify."""

    text: list[str] = Field(examples=[[EXAMPLE_TEXT]])


class ExplainBody(_Body):
    """A text whose answer to explain."""

    text: str = Field(examples=[EXAMPLE_TEXT])
    label: str | None = Field(None, description="Label to explain; by default the predicted one")


class DeployBody(_Body):
    """The version to serve, by number or by alias: exactly one of the two."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["version"]}, {"required": ["alias"]}],
            "examples": [{"version": "3"}],
        }
    )

    version: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,8}$")] | None = None
    alias: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.version is None) == (self.alias is None):
            raise ValueError("exactly one of version and alias is needed")
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


class DeployAnswer(BaseModel):
    """What this process serves after the change."""

    model: str
    version: str
    previous: str | None = Field(description="The version served before")
