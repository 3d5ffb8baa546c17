"""The parameters of the `zero_shot` family."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from tamiz.classifiers import base
from tamiz.classifiers.zero_shot_templates import Language, check_templates
from tamiz.encoders.lengths import Policy, Pooling
from tamiz.errors import ConfigError

__all__ = ["ZeroShotParams"]

Share = Annotated[float, Field(gt=0, lt=1)]


class ZeroShotParams(base.Params):
    """Parameters of the `zero_shot` family."""

    method: Literal["embedding", "entailment"] = "embedding"
    """`embedding`: a sentence encoder, the text beside a sentence about each label, at a cost that does not grow with
    the labels; `entailment`: a model of natural language inference judges whether the sentence follows from the text,
    once for each label."""
    model: Annotated[str, Field(min_length=1)] | None = None
    """A name that `tamiz models` lists, a folder in Hugging Face layout, or a hub id such as
    `organisation/name@revision`; by default `minilm` with `embedding`. `entailment` has none by default: it takes any
    model fine-tuned for natural language inference."""
    language: Language | Annotated[tuple[Language, ...], Field(min_length=1)] = "en"
    """Whose templates are used: `en`, `es`, `fr`, or a list of them; that of the labels, whatever the texts are in."""
    templates: tuple[str, ...] = ()
    """Sentences in which `{}` stands for the label, averaged; by default those of the language."""
    descriptions: Annotated[dict[str, Annotated[str, Field(min_length=1)]], Field(default_factory=dict)]
    """What to say in the template instead of the label, for labels whose names say little."""
    prior: Literal["none", "unlabelled"] = "none"
    """`unlabelled` shifts the scores of each label towards where the training texts, whose labels are not looked at,
    give each label the mean probability that `shares` expects: a label that fits every text gets less for it."""
    prior_strength: Annotated[float, Field(gt=0, le=1)] | None = None
    """How far differences between labels are shifted: 1 meets the expected shares; by default 1 where `shares` are
    given and 0.25 where they are not, since labels are hardly ever equally frequent."""
    adapt: Literal["none", "unlabelled"] = "none"
    """`unlabelled` moves the vector of each label half-way to the training texts that it is nearest to, whose labels
    are not looked at; with `embedding` alone."""
    unlabelled_texts: Annotated[int, Field(ge=20)] = 500
    """So many training texts at most are used for `prior` and `adapt`, drawn at random."""
    shares: Annotated[dict[str, Share], Field(default_factory=dict)]
    """Expected shares of labels among the texts, where something is known of them; other labels share the rest alike
    (multi-label: one in as many as there are labels)."""
    temperature: Annotated[float, Field(gt=0)] | None = None
    """Scores are divided by it before they become probabilities; by default 1 with `entailment`, and with `embedding`
    what suits the encoder."""
    prefix: str | None = None
    """Text put before every text and sentence; by default what the encoder expects."""
    max_length: Annotated[int, Field(ge=8)] | None = None
    """Most tokens of a piece of text, sentence and special ones included; by default 256 with `embedding`, and with
    `entailment` as many as the model can."""
    long_texts: Policy | None = None
    """What is read of a longer text; by default `windows` with `embedding`, and with `entailment` `head`, as the
    zero-shot pipeline of Transformers does."""
    window_overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.125
    """Share of a window that the next one repeats."""
    max_windows: Annotated[int, Field(ge=1)] | None = 16
    """Most windows of a text, spread evenly over it; `null` for no limit."""
    window_pooling: Pooling = "mean"
    """How the scores of windows become one."""
    form: Literal["fp32", "int8", "bf16", "weight8"] = "fp32"
    """Form of the model: `fp32`; `int8`, a quarter of the size and about twice as fast; `bf16`, two fifths of the size,
    the fastest on processors with bfloat16 arithmetic (AMX, AVX512-BF16), run by OpenVINO (extra `openvino`);
    `weight8`, a quarter of the size and as fast as `fp32`."""
    remember: bool = True
    """With `embedding`: keep the embeddings of texts for `prior` and `adapt`, and of those that `tamiz ladder` and
    `tamiz distill` ask about, in the user's cache, by the SHA-256 of their tokens."""
    num_threads: Annotated[int, Field(ge=0)] = 0
    """Threads of the model; 0 for all cores."""

    @field_validator("templates")
    @classmethod
    def _has_places(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        try:
            check_templates(templates or ("{}",))
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return templates

    @model_validator(mode="after")
    def _can_adapt(self) -> Self:
        if self.adapt != "none" and self.method == "entailment":
            raise ValueError("adapt: the method entailment has no vectors of labels; take embedding, or adapt: none")
        return self

    @property
    def of_texts(self) -> tuple[str, ...]:
        """What is asked of texts without labels, in the order in which it is done."""
        return tuple(name for name in ("adapt", "prior") if getattr(self, name) != "none")

    @property
    def languages(self) -> tuple[Language, ...]:
        """Languages whose templates are used."""
        return (self.language,) if isinstance(self.language, str) else self.language
