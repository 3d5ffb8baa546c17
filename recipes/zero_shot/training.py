"""The training: one encoder for texts and sentences, softmax over cosines, checkpoints, progress.

All that is drawn depends on the seed and the number of the step, so that a training that was killed goes on to the same
weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.zero_shot.mixture import Batch, Mixture
from recipes.zero_shot.sources import NLI_SOURCES, SETS, LabelledSet, NliPairs
from tamiz.classifiers.transformer_batches import padded
from tamiz.classifiers.transformer_checkpoints import Checkpoint, Checkpoints
from tamiz.classifiers.transformer_network import attend_in_fp32, chosen_precision, threads
from tamiz.classifiers.transformer_params import TransformerParams
from tamiz.encoders.find import find
from tamiz.errors import ConfigError
from tamiz.extras import require

__all__ = ["Encoder", "Options", "loss_of", "train"]

_CLIP = 1.0
_CHARACTERS = 8000  # of a text that are read at all
_WINDOW_CHANCE = 0.3  # that a long text is read from a random place, and not from its beginning
_SENTENCE_TOKENS = 64
_PREMISE_TOKENS = 64  # hardly any is longer


@dataclass(frozen=True, slots=True)
class Options:
    """How to train.

    Attributes:
        start: encoder to start from: a name of `tamiz models`, or a folder.
        languages: of the sentences about labels, English first.
        steps: changes of the weights.
        batch: texts of a labelled set a step.
        nli_batch: premises a step.
        nli_weight: how often NLI pairs are drawn; the sets have weights of their own.
        max_length: tokens that are read of a text.
        frozen_layers: embeddings and so many layers from below keep their weights; 0 trains all.
        learning_rate: the highest.
        warmup: share of the steps in which the rate rises.
        weight_decay: of matrices, a step.
        temperature: cosines are divided by it.
        precision: `auto`, `fp32` or `bf16`.
        seed: of all draws.
        checkpoint_seconds: between two checkpoints.
        num_threads: 0 takes all cores.
    """

    start: str = "minilm"
    languages: tuple[str, ...] = ("en",)
    steps: int = 1200
    batch: int = 32
    nli_batch: int = 64
    nli_weight: float = 4.0
    max_length: int = 128
    frozen_layers: int = 0
    learning_rate: float = 3e-5
    warmup: float = 0.1
    weight_decay: float = 0.01
    temperature: float = 0.05
    precision: str = "auto"
    seed: int = 0
    checkpoint_seconds: float = 120.0
    num_threads: int = 0


class Encoder:
    """A BERT-like network that turns texts into vectors of length one.

    Args:
        folder: weights in Hugging Face layout.
        precision: `fp32` or `bf16`.
    """

    def __init__(self, folder: Path, precision: str) -> None:
        torch, transformers = (require(name, extra="transformers") for name in ("torch", "transformers"))
        tokenizers = require("tokenizers", extra="onnx")
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        config.attention_probs_dropout_prob = 0.0  # with it a processor takes much longer
        self.network: Any = transformers.AutoModel.from_pretrained(
            folder, config=config, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
        self._torch = torch
        self.compute_in(precision)
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._pad = int(config.pad_token_id or 0)
        self._longest = int(config.max_position_embeddings)

    def compute_in(self, precision: str) -> None:
        """Compute in `fp32` or `bf16` from now on."""
        if precision == "bf16":
            attend_in_fp32(self.network)
        self.precision = precision

    def rows(self, texts: Sequence[str], most: int, rng: np.random.Generator | None = None) -> list[list[int]]:
        """Return token ids, at most `most` a text with its first and last special one.

        Args:
            texts: the texts.
            most: tokens.
            rng: now and then reads a long text from a random place; None reads all from the beginning.
        """
        most, found = min(most, self._longest), []
        for encoded in self._tokenizer.encode_batch([text[:_CHARACTERS] for text in texts]):
            ids, first = encoded.ids, 0
            if rng is not None and len(ids) > most and rng.random() < _WINDOW_CHANCE:
                first = int(rng.integers(len(ids) - most + 1))
            if len(ids) > most:
                ids = [ids[0], *ids[1:-1][first : first + most - 2], ids[-1]]
            found.append(ids)
        return found

    def vectors(self, rows: Sequence[Sequence[int]], size: int = 32) -> Any:
        """Return the vectors of rows of token ids, `(n, d)`, with gradients where they are on.

        Args:
            rows: token ids.
            size: rows of like length that are padded together.
        """
        order = np.argsort([len(row) for row in rows], kind="stable")
        parts = [
            self._padded([rows[row] for row in order[start : start + size].tolist()])
            for start in range(0, len(order), size)
        ]
        return self._torch.cat(parts)[self._torch.from_numpy(np.argsort(order, kind="stable"))]

    def _padded(self, rows: Sequence[Sequence[int]]) -> Any:
        ids, mask = (self._torch.from_numpy(array) for array in padded(rows, self._pad))
        with self._torch.autocast("cpu", dtype=self._torch.bfloat16, enabled=self.precision == "bf16"):
            hidden = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask[:, :, None].float()
        mean = (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1)
        return self._torch.nn.functional.normalize(mean, dim=1)

    def embed(self, texts: Sequence[str], most: int) -> NDArray[np.float32]:
        """Return the vectors of texts without gradients, `(n, d)`."""
        self.network.eval()
        with self._torch.inference_mode():
            return np.asarray(self.vectors(self.rows(texts, most)).numpy())

    def freeze(self, layers: int) -> None:
        """Let the embeddings and so many layers from below learn nothing; 0 lets all learn.

        Raises:
            ConfigError: the network has fewer layers, or others than a BERT-like one.
        """
        if not layers:
            return
        stack = getattr(getattr(self.network, "encoder", None), "layer", ())
        if layers > len(stack):
            raise ConfigError(f"--frozen-layers: the encoder has {len(stack)} layers that can be frozen, not {layers}")
        for module in (self.network.embeddings, *stack[:layers]):
            module.requires_grad_(False)

    def trained(self) -> dict[str, Any]:
        """Return the weights that learn, by name; the pooler has no part in the vectors."""
        return {
            name: one
            for name, one in self.network.named_parameters()
            if one.requires_grad and not name.startswith("pooler.")
        }


def loss_of(cosines: Any, right: Any, temperature: float, *, both_ways: bool) -> Any:
    """Return the mean loss of a batch.

    Each right sentence of a text is set against all wrong ones; other right ones do not count against it.

    Args:
        cosines: `(texts, sentences)`.
        right: bool of the same shape; each text has a right sentence.
        temperature: cosines are divided by it.
        both_ways: whether sentences with a text are set against all wrong texts, too.

    Source: Khosla et al. (2020), "Supervised contrastive learning", equation 2 with positives left out below the line.
    """
    import torch

    logits = cosines / temperature
    if both_ways:
        has = right.any(dim=0)
        other = loss_of(cosines.T[has], right.T[has], temperature, both_ways=False)
        return (loss_of(cosines, right, temperature, both_ways=False) + other) / 2
    wrong = logits.masked_fill(right, -1e4).logsumexp(dim=1, keepdim=True)
    each = torch.logaddexp(logits, wrong) - logits
    return ((each * right).sum(dim=1) / right.sum(dim=1)).mean()


def train(
    sets: Sequence[LabelledSet],
    nli: NliPairs | None,
    options: Options,
    folder: Path,
    *,
    say: Callable[[str], None] = print,
    stop_after: int | None = None,
) -> Path:
    """Train, and write the weights in Hugging Face layout, with `training.json`, to `folder`.

    A training of the same data and options that was cut off goes on.

    Args:
        sets: labelled sets.
        nli: pairs, if any.
        options: how.
        folder: for the result; `checkpoints` below it while the training lasts.
        say: told loss, speed and time left.
        stop_after: stop with a checkpoint after so many steps, as a kill would.

    Raises:
        ConfigError: there is nothing to train on, or the loss is no number any more.
    """
    if not sets and nli is None:
        raise ConfigError("there is nothing to train on: every set is left out")
    with threads(options.num_threads):
        run = _Run(sets, nli, options, folder, say)
        return run.go(stop_after)


class _Run:
    def __init__(
        self,
        sets: Sequence[LabelledSet],
        nli: NliPairs | None,
        options: Options,
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        import torch

        self._torch, self._options, self._folder, self._say = torch, options, folder, say
        self._start = find(options.start)
        params = TransformerParams.model_validate({"precision": options.precision})
        self._encoder = Encoder(self._start.folder, chosen_precision(params, "cpu"))
        near = [_near(self._encoder, one) for one in sets]
        self._mixture = Mixture(
            sets,
            nli,
            near,
            seed=options.seed,
            batch=options.batch,
            nli_batch=options.nli_batch,
            nli_weight=options.nli_weight,
        )
        self._sets, self._nli = sets, nli
        self._encoder.freeze(options.frozen_layers)
        self._weights = self._encoder.trained()
        decays = [one for one in self._weights.values() if one.ndim > 1]
        others = [one for one in self._weights.values() if one.ndim <= 1]
        groups = [
            {"params": decays, "weight_decay": options.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=options.learning_rate, fused=True)
        self._checkpoints = Checkpoints(folder / "checkpoints", self._identity(), options.checkpoint_seconds)
        self._losses: list[list[Any]] = []  # source and loss of each step

    def go(self, stop_after: int | None) -> Path:
        first = self._resume()
        last = self._options.steps if stop_after is None else min(stop_after, self._options.steps)
        began = told = time.monotonic()
        for step in range(first, last):
            self._losses.append(self._step(step))
            if time.monotonic() - told > 10 or step + 1 == last:
                self._tell(step + 1, (time.monotonic() - began) / (step + 1 - first))
                told = time.monotonic()
            if self._checkpoints.due():
                self._keep(step + 1)
        if last < self._options.steps:
            self._keep(last)
            return self._folder
        self._write()
        self._checkpoints.clear()
        return self._folder

    def _step(self, step: int) -> list[Any]:
        options, torch = self._options, self._torch
        torch.manual_seed((options.seed * 1_000_003 + step) % 2**63)
        for group in self._optimizer.param_groups:
            group["lr"] = options.learning_rate * _rate(step, options)
        batch = self._mixture.draw(step)
        self._encoder.network.train()
        loss = self._loss(batch, np.random.default_rng((options.seed, step, 1)))
        loss.backward()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ConfigError(f"the loss is {value} at step {step + 1}; lower --learning-rate or take --precision fp32")
        torch.nn.utils.clip_grad_norm_(list(self._weights.values()), _CLIP)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return [batch.source, value]

    def _loss(self, batch: Batch, rng: np.random.Generator) -> Any:
        most = min(self._options.max_length, _PREMISE_TOKENS if batch.both_ways else self._options.max_length)
        texts = self._encoder.vectors(self._encoder.rows(batch.texts, most, rng))
        said = self._encoder.vectors(self._encoder.rows(batch.sentences, _SENTENCE_TOKENS))
        right = self._torch.from_numpy(batch.right)
        return loss_of(texts @ said.T, right, self._options.temperature, both_ways=batch.both_ways)

    def _identity(self) -> str:
        """Return a fingerprint of all that the weights depend on."""
        options = {name: value for name, value in asdict(self._options).items() if name != "checkpoint_seconds"}
        digest = hashlib.sha256(json.dumps([options, self._start.sha256, self._mixture.shares()]).encode())
        for one in self._sets:
            digest.update(repr((one.name, one.texts, one.targets, one.words)).encode())
        digest.update(repr(self._nli).encode())
        return digest.hexdigest()

    def _keep(self, step: int) -> None:
        tensors = {name: one.detach().clone().contiguous() for name, one in self._weights.items()}
        for name, one in self._weights.items():
            for part, value in self._optimizer.state.get(one, {}).items():
                tensors[f"{part}:{name}"] = value.detach().clone().contiguous()
        state = {"step": step, "losses": self._losses, "precision": self._encoder.precision}
        found = Checkpoint(state, tensors, None)
        self._checkpoints.save(found, step=step, best_step=None)

    def _resume(self) -> int:
        found = self._checkpoints.load()
        if found is None:
            return 0
        with self._torch.no_grad():
            for name, one in self._weights.items():
                one.copy_(found.tensors[name])
                parts = {part: found.tensors.get(f"{part}:{name}") for part in ("step", "exp_avg", "exp_avg_sq")}
                if parts["step"] is not None:
                    self._optimizer.state[one] = parts
        self._losses = found.state["losses"]
        self._encoder.compute_in(found.state.get("precision", self._encoder.precision))  # what `auto` chose then
        self._say(f"goes on from step {found.state['step']}")
        return int(found.state["step"])

    def _tell(self, step: int, per_step: float) -> None:
        recent = self._losses[-50:]
        each: dict[str, list[float]] = {}
        for source, loss in recent:
            each.setdefault(source, []).append(loss)
        parts = ", ".join(f"{source} {np.mean(values):.3f}" for source, values in sorted(each.items()))
        left = (self._options.steps - step) * per_step / 60
        mean = np.mean([loss for _, loss in recent])
        self._say(
            f"step {step} of {self._options.steps}: loss {mean:.3f} ({parts}), "
            f"{1 / per_step:.2f} steps/s, {left:.1f} min left"
        )

    def _write(self) -> None:
        from safetensors import safe_open
        from safetensors.torch import save_file

        self._folder.mkdir(parents=True, exist_ok=True)
        with safe_open(self._start.folder / "model.safetensors", "np") as file:
            held = set(file.keys())  # a pooler that the start lacks was made up by the library
        weights = {
            name: one.detach().clone().contiguous()
            for name, one in self._encoder.network.named_parameters()
            if name in held
        }
        for name in ("config.json", "tokenizer.json"):
            (self._folder / name).write_bytes((self._start.folder / name).read_bytes())
        save_file(weights, self._folder / "model.safetensors", metadata={"format": "pt"})
        about = {
            "options": asdict(self._options),
            "precision": self._encoder.precision,
            "start_sha256": self._start.sha256,
            "trained_on": {
                one.name: {"rows": len(one.texts), "terms": SETS[one.name].terms if one.name in SETS else ""}
                for one in self._sets
            },
            "nli": dict(NLI_SOURCES) if self._nli else {},
            "nli_premises": len(self._nli.premises) if self._nli else 0,
            "shares": self._mixture.shares(),
            "losses": self._losses,
        }
        (self._folder / "training.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


def _rate(step: int, options: Options) -> float:
    rising = round(options.warmup * options.steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return max(0.0, 1 - (step - rising) / max(1, options.steps - rising))


def _near(encoder: Encoder, one: LabelledSet) -> NDArray[np.int64]:
    """Return the labels of a set by nearness to each, by the starting weights."""
    vectors = encoder.embed(one.words.first(), _SENTENCE_TOKENS)
    near = np.argsort(-(vectors @ vectors.T), axis=1, kind="stable")
    own = np.arange(len(near))[:, None]
    return np.asarray(np.concatenate([own, near[near != own].reshape(len(near), -1)], axis=1), np.int64)
