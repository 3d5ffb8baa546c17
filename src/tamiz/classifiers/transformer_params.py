"""The parameters of the `transformer` family."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from tamiz.classifiers import base
from tamiz.encoders.lengths import Policy, Pooling
from tamiz.errors import one_of
from tamiz.metrics import METRICS

__all__ = ["TransformerParams"]


class TransformerParams(base.Params):
    """Parameters of the `transformer` family."""

    encoder: str = "minilm"
    """What is fine-tuned: a short name of Tamiz, a model hub's id, or a local folder in Hugging Face's layout."""
    epochs: Annotated[float, Field(gt=0, le=1000)] = 3
    """How often each text is learnt from; parts of an epoch are allowed."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Texts a step."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Steps whose gradients are added up before the weights change."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-5
    """Highest learning rate, of the uppermost layer."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the training over which the learning rate rises from zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decay of weights a step; biases and layer norms have none."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each layer has this share of the learning rate of the layer above it."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread over all labels (multi-label: towards one half)."""
    class_weight: Literal["balanced"] | None = None
    """`balanced` weights labels by the inverse of their frequency."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Dropout in all layers but for attention; `null` keeps the model's own."""
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] | None = 0.0
    """Dropout of attention; any makes a processor take much longer over long texts. `null` keeps the model's own."""
    freeze_embeddings: bool = False
    """Leave the embeddings as they are; saves memory where the vocabulary is large."""
    freeze_layers: Annotated[int, Field(ge=0)] = 0
    """Leave so many of the lowest layers as they are, and the embeddings with them."""
    max_length: Annotated[int, Field(ge=8)] = 256
    """Most tokens of a piece of text, the special ones included; a model with fewer positions has its own."""
    long_texts: Literal[Policy, "auto"] = "auto"
    """What is read of a longer text when predicting; `auto` takes the best on validation, the cheaper one on ties."""
    train_long_texts: Policy = "head_tail"
    """What is read of a longer text when training, where `long_texts` is `auto`."""
    window_overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.125
    """Share of a window that the next one repeats."""
    max_windows: Annotated[int, Field(ge=1)] | None = 16
    """Most windows of a text, spread evenly over it; `null` for no limit."""
    window_pooling: Pooling = "mean"
    """How the probabilities of windows become one."""
    train_size: Annotated[int, Field(ge=1)] | None = None
    """Learn from so many texts only, drawn at random; `null` for all."""
    training_seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Of the new head, the order of the texts and dropout; by default that of the split."""
    early_stopping: Annotated[int, Field(ge=1)] | None = 2
    """Stop when the metric on validation has not improved for so many evaluations; `null` never stops. The weights of
    the best evaluation are kept in either case."""
    metric: str = "f1_macro"
    """Metric on validation by which the best weights and the length policy are chosen; none of the positive label."""
    eval_steps: Annotated[int, Field(ge=1)] | None = None
    """Evaluate after so many changes of the weights too, not only after each epoch."""
    validation_size: Annotated[int, Field(ge=1)] | None = 2000
    """Use so many validation texts at most for the choices made while fitting; `null` for all."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the training; `auto`: bf16 where the GPU has it or the processor is faster with it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the training runs; `auto`: on a GPU if there is one."""
    num_threads: Annotated[int, Field(ge=0)] = 0
    """Threads, when fitting and when serving; 0: as many as there are cores."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 300
    """How often the state of the training is kept, so that a killed run goes on; 0: after every change of weights."""
    form: Literal["auto", "fp32", "int8", "bf16", "weight8", "dynamic"] = "auto"
    """Form of the model for serving: `fp32`, or a smaller one if it answers the same: `int8`; `bf16`, the fastest on
    processors with bfloat16 arithmetic (AMX, AVX512-BF16), run by OpenVINO (extra `openvino`); `weight8`; `dynamic`.
    `auto` tries `int8`."""
    parity_agreement: Annotated[float, Field(ge=0, le=1)] = 0.99
    """The smaller form must give at least this share of validation texts the label of fp32, else fp32 is kept."""
    parity_shift: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The smaller form may move the probabilities of 99 in 100 validation texts by no more than this."""

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"no metric of answers; {one_of(metric, METRICS, limit=len(METRICS))}")
        return metric
