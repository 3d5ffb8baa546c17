"""The training loop of the `transformer` family: steps, evaluations, early stopping, checkpoints, progress.

Whatever is drawn depends on the seed and the number of the step alone, so that a training that goes on from a
checkpoint ends with the weights of an unbroken one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamiz.classifiers.transformer_batches import budget_batches, padded, shuffled_batches
from tamiz.classifiers.transformer_checkpoints import Checkpoint, Checkpoints
from tamiz.classifiers.transformer_network import (
    attend_in_fp32,
    chosen_device,
    chosen_precision,
    label_weights,
    losses,
    optimizer_for,
)
from tamiz.classifiers.transformer_params import TransformerParams
from tamiz.classifiers.transformer_reading import Ids, Predict
from tamiz.encoders.checkpoint import first_place
from tamiz.errors import ConfigError
from tamiz.extras import require
from tamiz.metrics import higher_is_better
from tamiz.types import GOES_ON, BoolArray, FloatArray, IntArray, Point, Progress, Task

__all__ = ["Evaluate", "FineTuning", "Outcome"]

Evaluate = Callable[[Predict], dict[str, float]]
"""Measures a network on validation: values by metric."""

_TOKENS = 8192  # in a batch of an evaluation
_CLIP = 1.0  # largest norm of a step's gradient
_MOST_POINTS = 2000  # of the loss, in the history


@dataclass
class Outcome:
    """What a training came to; the part of a checkpoint that is no tensor.

    Attributes:
        step: changes of the weights so far.
        best_step: after how many the kept weights were best; `None` without an evaluation.
        waited: evaluations since then.
        seconds: time spent.
        losses: step and mean training loss since the one before.
        evaluations: step and figures on validation.
    """

    step: int = 0
    best_step: int | None = None
    waited: int = 0
    seconds: float = 0.0
    losses: list[tuple[int, float]] = field(default_factory=list)
    evaluations: list[tuple[int, dict[str, float]]] = field(default_factory=list)

    def best(self) -> dict[str, float]:
        """Return the figures of the best evaluation; none without one."""
        return next((values for step, values in self.evaluations if step == self.best_step), {})

    def history(self) -> list[Point]:
        """Return the training loss by step and the figures on validation by step."""
        points = [Point(step, "train_loss", loss) for step, loss in self.losses]
        for step, values in self.evaluations:
            points += [Point(step, f"val_{name}", value) for name, value in values.items()]
        return points


class FineTuning:
    """Train a network.

    Args:
        network: what is trained.
        params: how.
        task: which loss.
        pad: id that fills up short rows.
        seed: of order and dropout.
        checkpoints: where the state is kept.
        progress: told loss, metric, speed and time left.

    Attributes:
        device: on which it trains.
        precision: of its computations.
        outcome: what it has come to so far.
        earlier_s: seconds of it that an earlier process spent, up to the checkpoint from which this one goes on.
    """

    def __init__(
        self,
        network: Any,
        params: TransformerParams,
        task: Task,
        *,
        pad: int,
        seed: int,
        checkpoints: Checkpoints,
        progress: Progress | None = None,
    ) -> None:
        self._torch = require("torch", extra="transformers")
        self.device = chosen_device(params)
        self.precision = chosen_precision(params, self.device)
        self._network = network.to(self.device)
        self._params, self._task, self._pad, self._seed = params, task, pad, seed
        self._checkpoints, self._progress = checkpoints, progress
        self._optimizer = optimizer_for(network, params)
        self._trained = {name: weights for name, weights in network.named_parameters() if weights.requires_grad}
        self._best: dict[str, Any] | None = None
        self._first_place = first_place(network.config.to_dict())
        self.outcome = Outcome()
        self.earlier_s = 0.0

    def run(
        self,
        rows: Sequence[Ids],
        has: BoolArray,
        evaluate: Evaluate | None,
        *,
        stop_after: float | None = None,
    ) -> Outcome:
        """Train, and leave the best weights in the network.

        Args:
            rows: token ids of each row, special ones included.
            has: which labels each row has, `(n, k)`.
            evaluate: measures on validation; `None` keeps the last weights.
            stop_after: stop after so many epochs, with the learning rates of the whole training.

        Raises:
            ConfigError: the loss is no number any more.
        """
        plan = _Plan(np.array([len(row) for row in rows]), self._params, self._seed, stop_after)
        data = _Data(rows, self._tensor_targets(has), self._label_weights(has))
        self._resume(plan)
        if (self.device, self.precision) == ("cpu", "bf16"):
            attend_in_fp32(self._network)
        began, at_start = time.monotonic() - self.outcome.seconds, (time.monotonic(), self.outcome.step)
        parts: list[float] = []
        while self.outcome.step < plan.last and not self._enough():
            step = self.outcome.step
            self._set_rate(plan.rate(step))
            parts.append(self._step(data, plan.batches(step), step))
            self.outcome.step = step = step + 1
            if step % plan.log_every == 0 or step == plan.last:
                self.outcome.losses.append((step, float(np.mean(parts))))
                parts = []
            if evaluate and plan.evaluates(step):
                self._judge(evaluate)
            self.outcome.seconds = time.monotonic() - began
            self._tell(plan, at_start)
            if not parts and self._checkpoints.due():
                self._keep()
        self._keep()
        if self._best is not None:
            self._set_weights(self._best)
        return self.outcome

    def logits(self, rows: Sequence[Ids], *, exact: bool = False) -> FloatArray:
        """Return logits `(n, k)` for rows of token ids.

        Args:
            rows: token ids, special ones included.
            exact: compute in fp32 in any case.
        """
        torch, parts = self._torch, []
        self._network.eval()
        order = []
        with torch.inference_mode(), self._autocast(not exact):
            for batch in budget_batches(np.array([len(row) for row in rows], np.int64), _TOKENS):
                parts.append(self._forward([rows[row] for row in batch.tolist()]).cpu().numpy())
                order.append(batch)
        found = np.concatenate(parts).astype(np.float64)
        back = np.empty_like(found)
        back[np.concatenate(order)] = found
        return back

    def _forward(self, rows: Sequence[Ids]) -> Any:
        device = self._network.device  # which its owner may move once it is trained
        ids, mask = (self._torch.from_numpy(array).to(device) for array in padded(rows, self._pad))
        more = {}
        if self._first_place:
            # Its own count leaves out the padding token, which may stand in a text; the exported one counts all places.
            places = self._torch.arange(ids.shape[1], device=device) + self._first_place
            more["position_ids"] = places.expand(len(rows), -1)
        return self._network(input_ids=ids, attention_mask=mask, **more).logits.float()

    def _autocast(self, wanted: bool = True) -> Any:
        enabled = wanted and self.precision == "bf16"
        return self._torch.autocast(self._network.device.type, dtype=self._torch.bfloat16, enabled=enabled)

    def _step(self, data: _Data, batches: list[IntArray], step: int) -> float:
        """Change the weights once and return the mean loss of the rows."""
        self._torch.manual_seed((self._seed * 1_000_003 + step) % 2**63)
        self._network.train()
        n, total = sum(len(batch) for batch in batches), 0.0
        for batch in batches:
            targets = data.targets[self._torch.from_numpy(batch)].to(self.device)
            with self._autocast():
                logits = self._forward([data.rows[row] for row in batch.tolist()])
            loss = losses(logits, targets, self._task, data.weights, self._params.label_smoothing).sum() / n
            loss.backward()
            total += float(loss.detach())
        if not math.isfinite(total):
            raise ConfigError(
                f"learning_rate: {self._params.learning_rate} made the loss {total} at step {step + 1}; "
                "lower it, or set precision: fp32"
            )
        self._torch.nn.utils.clip_grad_norm_(list(self._trained.values()), _CLIP)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return total

    def _set_rate(self, share: float) -> None:
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * share

    def _tensor_targets(self, has: BoolArray) -> Any:
        multi = self._task is Task.MULTI_LABEL
        return self._torch.from_numpy(has.astype(np.float32) if multi else has.argmax(axis=1))

    def _label_weights(self, has: BoolArray) -> Any:
        if self._params.class_weight is None:
            return None
        return self._torch.from_numpy(label_weights(has, self._task).astype(np.float32)).to(self.device)

    def _judge(self, evaluate: Evaluate) -> None:
        """Evaluate, and keep the weights if they are the best so far."""
        outcome, metric = self.outcome, self._params.metric
        values = evaluate(self.logits)
        sign = 1 if higher_is_better(metric) else -1
        before = outcome.best().get(metric, -sign * math.inf)
        outcome.evaluations.append((outcome.step, values))
        outcome.waited += 1
        if outcome.best_step is None or sign * values[metric] > sign * before:
            outcome.best_step, outcome.waited = outcome.step, 0
            self._best = self._weights()

    def _enough(self) -> bool:
        patience = self._params.early_stopping
        return patience is not None and self.outcome.waited >= patience

    def _weights(self) -> dict[str, Any]:
        return {name: weights.detach().cpu().clone().contiguous() for name, weights in self._trained.items()}

    def _set_weights(self, found: dict[str, Any]) -> None:
        with self._torch.no_grad():
            for name, weights in self._trained.items():
                weights.copy_(found[name])

    def _keep(self) -> None:
        tensors = self._weights()
        for name, weights in self._trained.items():
            for part, value in self._optimizer.state.get(weights, {}).items():
                tensors[f"{part}:{name}"] = value.detach().cpu().clone().contiguous()
        state = {**vars(self.outcome), "arithmetic": [self.device, self.precision]}
        found = Checkpoint(state, tensors, self._best)
        self._checkpoints.save(found, step=self.outcome.step, best_step=self.outcome.best_step)

    def _resume(self, plan: _Plan) -> None:
        found = self._checkpoints.load()
        if found is None:
            return
        device, precision = found.state.pop("arithmetic", (self.device, self.precision))
        if device == self.device:
            self.precision = precision  # measured once: anew, another load of the machine might choose the other one
        self.outcome, self._best = Outcome(**found.state), found.best
        self._set_weights(found.tensors)
        for name, weights in self._trained.items():
            self._optimizer.state[weights] = {
                part: value.to(self.device)  # the step too: the optimizer is a fused one
                for part in ("step", "exp_avg", "exp_avg_sq")
                for value in [found.tensors[f"{part}:{name}"]]
            }
        self.earlier_s, step = self.outcome.seconds, self.outcome.step
        if self._progress:
            self._progress(f"{GOES_ON} step {step} of {plan.last} (checkpoint of an earlier run)", step, plan.last)

    def _tell(self, plan: _Plan, at_start: tuple[float, int]) -> None:
        if self._progress is None:
            return
        outcome, (began, first) = self.outcome, at_start
        per_step = (time.monotonic() - began) / max(1, outcome.step - first)
        parts = [f"epoch {outcome.step / plan.per_epoch:.2f} of {self._params.epochs:g}"]
        if outcome.losses:
            parts.append(f"loss {outcome.losses[-1][1]:.3f}")
        if outcome.evaluations and self._params.metric in outcome.evaluations[-1][1]:
            parts.append(f"val_{self._params.metric} {outcome.evaluations[-1][1][self._params.metric]:.4f}")
        parts.append(f"{plan.texts_per_step / per_step:.1f} texts/s")
        parts.append(f"{(plan.last - outcome.step) * per_step / 60:.1f} min left")
        if first:
            parts.append(f"resumed at step {first}")
        self._progress(f"fine-tuning: {', '.join(parts)}", outcome.step, plan.last)


@dataclass(frozen=True)
class _Data:
    rows: Sequence[Ids]
    targets: Any
    weights: Any


class _Plan:
    """Which batches make each step, and at what rate: a pure function of the step's number."""

    def __init__(self, lengths: IntArray, params: TransformerParams, seed: int, stop_after: float | None) -> None:
        self._lengths, self._params, self._seed = lengths, params, seed
        self.texts_per_step = min(len(lengths), params.batch_size * params.accumulate)
        self.per_epoch = -(-len(lengths) // (params.batch_size * params.accumulate))
        self.total = max(1, round(params.epochs * self.per_epoch))
        self.last = self.total if stop_after is None else max(1, round(stop_after * self.per_epoch))
        self.log_every = -(-self.last // _MOST_POINTS)
        self._epoch: tuple[int, list[NDArray[Any]]] = (-1, [])

    def batches(self, step: int) -> list[IntArray]:
        epoch, place = divmod(step, self.per_epoch)
        if self._epoch[0] != epoch:
            size = self._params.batch_size
            self._epoch = (epoch, shuffled_batches(self._lengths, size, seed=self._seed, epoch=epoch))
        first = place * self._params.accumulate
        return self._epoch[1][first : first + self._params.accumulate]

    def rate(self, step: int) -> float:
        rising = round(self._params.warmup * self.total)
        if step < rising:
            return (step + 1) / (rising + 1)
        done = (step - rising) / max(1, self.total - rising)
        falls = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}
        return max(0.0, falls[self._params.schedule])

    def evaluates(self, step: int) -> bool:
        between = self._params.eval_steps
        return step % self.per_epoch == 0 or step == self.last or (between is not None and step % between == 0)
