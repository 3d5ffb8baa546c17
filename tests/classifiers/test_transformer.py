"""Fine-tuned encoders: the contract, checkpoints, choices, and serving without PyTorch."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tamiz.classifiers import check_params
from tamiz.classifiers.checks import CHECKS, _Case, examples
from tamiz.classifiers.ensemble import EnsembleClassifier
from tamiz.classifiers.transformer import TransformerClassifier
from tamiz.classifiers.transformer_batches import budget_batches, shuffled_batches
from tamiz.classifiers.transformer_choices import Judge, choose_policy, parity
from tamiz.classifiers.transformer_params import TransformerParams
from tamiz.classifiers.transformer_reading import Reader
from tamiz.encoders.runtime import Tokenizer
from tamiz.errors import ConfigError, PackageError, SourceError
from tamiz.types import Resumes, Task, Tells, Traces, Validation
from tests.classifiers.long_training import long_training
from tests.tiny_bert import tiny_bert

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
FAST = {"epochs": 2, "batch_size": 16, "learning_rate": 3e-3, "max_length": 32, "num_threads": 1, "precision": "fp32"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> str:
    return str(tiny_bert(tmp_path_factory.mktemp("encoder") / "tiny"))


def made(encoder: str, task: Task = Task.BINARY, *, seed: int = 0, **params) -> TransformerClassifier:
    labels = examples(task)[2]
    return TransformerClassifier(labels, task, seed=seed, **{**FAST, "encoder": encoder, **params})


@pytest.mark.parametrize("task", list(Task))
def test_contract(encoder, task):
    def make(labels, task, seed):
        return TransformerClassifier(labels, task, seed=seed, **{**FAST, "encoder": encoder, "long_texts": "windows"})

    case = _Case(make, task)
    for check in CHECKS:
        check(case)


@pytest.fixture(scope="module")
def fitted(encoder) -> TransformerClassifier:
    texts, targets, _ = examples(Task.BINARY, 160)
    held = Validation(texts[120:], targets[120:])
    params = {"epochs": 6, "early_stopping": 2, "accumulate": 2, "layer_decay": 0.9, "schedule": "cosine"}
    return made(encoder, **params).fit(texts[:120], targets[:120], validation=held)


def test_a_seed_of_its_own_stands_before_that_of_the_split(encoder):
    texts, targets, _ = examples(Task.BINARY, 40)

    def answers(split, own=None):
        return made(encoder, seed=split, epochs=1, training_seed=own).fit(texts, targets).predict_proba(texts)

    np.testing.assert_array_equal(answers(7), answers(0, own=7))
    assert np.abs(answers(7) - answers(7, own=0)).max() > 1e-6


def test_it_learns_and_says_how(fitted):
    texts, targets, _ = examples(Task.BINARY, 60, seed=9)
    assert (fitted.predict_proba(texts).argmax(axis=1) == targets).mean() > 0.9
    assert isinstance(fitted, Traces)
    assert isinstance(fitted, Resumes)
    assert isinstance(fitted, Tells)
    names = {point.name for point in fitted.history()}
    assert {"train_loss", "val_f1_macro", "val_log_loss"} <= names
    losses = [point for point in fitted.history() if point.name == "train_loss"]
    assert [point.step for point in losses] == list(range(1, len(losses) + 1))
    figures, values = fitted.figures(), [p.value for p in fitted.history() if p.name == "val_f1_macro"]
    assert figures["best_val_f1"] == max(values)
    assert figures["best_epoch"] == 1 + values.index(max(values))
    assert len(values) <= figures["best_epoch"] + 2  # stopped early


def by_name(points) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for step, name, value in points:
        found.setdefault(name, []).append((step, value))
    return found


def test_figures_are_there_while_it_learns(encoder):
    texts, targets, _ = examples(Task.BINARY)
    classifier, seen = made(encoder, form="fp32"), []

    def progress(message, done=0, total=0):
        seen.append(classifier.history())

    classifier.fit(texts[:64], targets[:64], validation=Validation(texts[64:], targets[64:]), progress=progress)
    whole = by_name(classifier.history())
    assert len(whole["train_loss"]) == 8
    for points in seen:
        assert all(values == whole[name][: len(values)] for name, values in by_name(points).items())
    sizes = [len(by_name(points).get("train_loss", [])) for points in seen]
    assert set(range(9)) <= set(sizes)
    assert 1 in [len(by_name(points).get("val_f1_macro", [])) for points in seen]
    assert len(whole["val_f1_macro"]) == 2


def test_an_ensemble_passes_on_what_its_members_record(encoder):
    texts, targets, labels = examples(Task.BINARY)
    members = [{"family": "linear"}, {"family": "transformer", "params": {**FAST, "encoder": encoder, "form": "fp32"}}]
    both, seen = EnsembleClassifier(labels, Task.BINARY, members=members), []
    assert isinstance(both, Traces)

    def progress(message, done=0, total=0):
        seen.append(len(both.history()))

    both.fit(texts[:64], targets[:64], progress=progress)
    assert [point[:2] for point in both.history()] == [(step, "member_2/train_loss") for step in range(1, 9)]
    assert seen == sorted(seen)
    assert {0, 3, 8} <= set(seen)
    both.borrow(dict(both.members_))
    assert both.fit(texts[:64], targets[:64]).history() == []


def test_the_record_holds_the_comparison_with_fp32(fitted):
    facts = json.loads(json.dumps(fitted.facts()))
    gate = facts["parity"]
    assert gate["form"] == "int8"
    assert gate["texts"] == 40
    assert gate["kept"] == (facts["form"] == "int8")
    assert gate["kept"] == (gate["agreement"] >= 0.99 and gate["shift_99"] <= 0.1 and gate["alone"] <= 1e-5)
    assert facts["export_shift"] < 1e-4


def test_bf16_goes_through_the_same_gate_and_serves_without_pytorch(encoder, tmp_path):
    texts, targets, _ = examples(Task.BINARY)
    classifier = made(encoder, form="bf16", parity_agreement=0.9, parity_shift=0.5).fit(texts, targets)
    assert classifier.facts()["parity"]["kept"] is True
    assert classifier.facts()["form"] == "bf16"
    assert_serves_alone(classifier, tmp_path)


def test_a_form_outside_the_tolerance_is_not_kept(encoder):
    texts, targets, _ = examples(Task.BINARY)
    strict = made(encoder, parity_shift=0.0).fit(texts, targets)
    assert strict.facts()["form"] == "fp32"
    assert strict.facts()["parity"]["kept"] is False
    assert made(encoder, form="fp32").fit(texts, targets).facts()["parity"] == {}


def test_a_refit_takes_the_best_epochs(fitted):
    texts, targets, _ = examples(Task.BINARY, 160)
    again = fitted.refit(texts, targets, seed=0)
    per_epoch = -(-160 // 32)
    assert again.history()[-1].step == round(fitted.figures()["best_epoch"] * per_epoch)
    assert again.facts()["long_texts"] == fitted.facts()["long_texts"]


def test_frozen_weights_stay(encoder, tmp_path):
    from tamiz.classifiers.transformer_network import load_network

    params = made(encoder, freeze_layers=1, dropout=0.2).params
    network = load_network(Path(encoder), ("a", "b"), params)
    free = {name for name, weights in network.named_parameters() if weights.requires_grad}
    assert not any(".embeddings." in name or ".layer.0." in name for name in free)
    assert any(".layer.1." in name for name in free)
    assert network.config.hidden_dropout_prob == 0.2
    with pytest.raises(ConfigError, match="2 layers"):
        load_network(Path(encoder), ("a", "b"), made(encoder, freeze_layers=3).params)


def damaged(folder: Path, tensors=dict, **config) -> TransformerParams:
    """Write an encoder whose weights or `config.json` were changed."""
    tiny_bert(folder)
    path = folder / "model.safetensors"
    save_file(dict(tensors(load_file(path))), path, metadata={"format": "pt"})
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**about, **config}))
    return TransformerParams(encoder=str(folder))


@pytest.mark.parametrize(
    ("changed", "config", "said"),
    [
        (lambda name: f"0.auto_model.{name}", {}, "lacks 37 of the weights"),
        (lambda name: name.replace(".layer.1.", ".layer.7."), {}, r"lacks 16 of .*such as bert\.encoder\.layer\.1\."),
        (str, {"vocab_size": 500}, r"another shape .*word_embeddings\.weight is \[\d+, 32\] and not \[500, 32\]"),
    ],
)
def test_an_encoder_of_which_a_part_would_be_new_is_refused(tmp_path, changed, config, said):
    from tamiz.classifiers.transformer_network import load_network

    params = damaged(tmp_path, lambda found: {changed(name): one for name, one in found.items()}, **config)
    with pytest.raises(ConfigError, match=said):
        load_network(tmp_path, ("a", "b"), params)


def test_a_new_head_and_a_pooler_are_no_damage(tmp_path):
    from tamiz.classifiers.transformer_network import load_network

    tiny_bert(tmp_path / "three", labels=("a", "b", "c"))
    load_network(tmp_path / "three", ("a", "b"), TransformerParams())
    params = damaged(tmp_path / "bare", lambda all_: {name: one for name, one in all_.items() if "pooler" not in name})
    load_network(tmp_path / "bare", ("a", "b"), params)


def test_a_tokenizer_of_another_encoder_is_refused_before_the_training(encoder, tmp_path):
    tiny_bert(tmp_path / "small", words="bread")
    shutil.copyfile(Path(encoder) / "tokenizer.json", tmp_path / "small" / "tokenizer.json")
    texts, targets, _ = examples(Task.BINARY)
    with pytest.raises(SourceError, match="they are of different encoders"):
        made(str(tmp_path / "small")).fit(texts, targets)


@pytest.mark.parametrize("task", [Task.MULTI_CLASS, Task.MULTI_LABEL])
def test_a_label_without_an_example_has_weight_1(task):
    from tamiz.classifiers.transformer_network import label_weights

    has = np.array([[True, False, False]] * 30 + [[False, True, False]] * 10)
    expected = [40 / 60, 2.0, 1.0] if task is Task.MULTI_CLASS else [1 / 3, 3.0, 1.0]
    np.testing.assert_allclose(label_weights(has, task), expected)


def test_a_label_without_an_example_is_no_answer_with_weights_and_smoothing(encoder):
    texts, targets, _ = examples(Task.MULTI_CLASS, 240)
    known = targets != 2
    texts = [text for text, kept in zip(texts, known, strict=True) if kept]
    about = {"form": "fp32", "epochs": 4, "class_weight": "balanced", "label_smoothing": 0.1}
    p = made(encoder, Task.MULTI_CLASS, **about).fit(texts, targets[known]).predict_proba(texts)
    assert p.argmax(axis=1).max() < 2


# --- checkpoints


@pytest.mark.slow
def test_a_killed_training_ends_with_the_weights_of_an_unbroken_one(encoder, tmp_path):
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    command = [sys.executable, "-m", "tests.classifiers.long_training", encoder, str(tmp_path / "keep")]
    broken = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)
    for line in broken.stdout:
        if int(line) == 13:  # in the middle of an epoch, after an evaluation
            os.kill(broken.pid, signal.SIGKILL)
            break
    broken.communicate()
    state = json.loads((tmp_path / "keep" / "state.json").read_text())["state"]
    seconds = state["seconds"]
    assert 12 <= state["step"] < 30
    steps: list[int] = []
    resumed = long_training(encoder, tmp_path / "keep", steps.append)
    assert steps[0] == state["step"] + 1  # went on, did not begin anew
    whole = long_training(encoder, None, steps.append)
    for made, name in ((whole, "whole"), (resumed, "resumed")):
        (tmp_path / name).mkdir()
        made.save(tmp_path / name)
    weights = [(tmp_path / name / "model.onnx").read_bytes() for name in ("whole", "resumed")]
    assert weights[0] == weights[1]
    assert whole.history() == resumed.history()
    assert 0 < resumed.figures()["earlier_seconds"] == pytest.approx(seconds)
    assert {**whole.figures(), "earlier_seconds": seconds} == pytest.approx(dict(resumed.figures()))


def test_a_fit_that_goes_on_says_so(encoder, tmp_path):
    texts, targets, _ = examples(Task.BINARY)
    told: list[tuple[str, int, int]] = []

    def progress(message, done=0, total=0):
        told.append((message, done, total))
        if done == 6 and not resumed:
            raise KeyboardInterrupt

    for resumed in (False, True):
        told.clear()
        classifier = made(encoder, form="fp32", checkpoint_seconds=0)
        classifier.keep_in(tmp_path)
        with nullcontext() if resumed else pytest.raises(KeyboardInterrupt):
            classifier.fit(texts, targets, progress=progress)
        assert any(message.startswith("goes on") for message, *_ in told) == resumed
    assert ("goes on from step 5 of 12 (checkpoint of an earlier run)", 5, 12) in told
    steps = [(message, done) for message, done, _ in told if message.startswith("fine-tuning")]
    assert [done for _, done in steps] == list(range(6, 13))
    assert all(message.endswith("left, resumed at step 5") for message, _ in steps)


def test_a_training_goes_on_in_the_precision_it_began_with(encoder, tmp_path, monkeypatch):
    """Measured again, on a machine with other work, `auto` might choose the other one."""
    from tamiz.classifiers import transformer_loop

    texts, targets, _ = examples(Task.BINARY)

    def progress(message, done=0, total=0):
        if done == 6 and broken:
            raise KeyboardInterrupt

    def fit(folder, precision):
        monkeypatch.setattr(transformer_loop, "chosen_precision", lambda *_: precision)
        classifier = made(encoder, precision="auto", device="cpu", form="fp32", checkpoint_seconds=0)
        classifier.keep_in(folder)
        return classifier.fit(texts, targets, progress=progress)

    for began, then in (("fp32", "bf16"), ("bf16", "fp32")):
        broken = True
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / began, began)
        broken = False
        resumed, whole = fit(tmp_path / began, then), fit(tmp_path / f"whole-{began}", began)
        assert resumed.facts()["precision"] == began
        np.testing.assert_array_equal(resumed.predict_proba(texts), whole.predict_proba(texts))


@pytest.mark.parametrize("refit", [False, True])
def test_a_fit_inside_an_ensemble_goes_on_too(encoder, tmp_path, refit):
    texts, targets, labels = examples(Task.BINARY)
    fine_tuned = {**FAST, "encoder": encoder, "form": "fp32", "checkpoint_seconds": 0}
    members = [{"family": "linear"}, {"family": "transformer", "params": fine_tuned}]
    told: list[str] = []

    def progress(message, done=0, total=0):
        told.append(message)
        if done == 6 and not resumed:
            raise KeyboardInterrupt

    def fit(ensemble):
        if refit:
            return ensemble.refit(texts, targets, seed=0, progress=progress)
        return ensemble.fit(texts, targets, progress=progress)

    resumed = True
    first = EnsembleClassifier(labels, Task.BINARY, members=members).fit(texts, targets)
    whole = fit(first if refit else EnsembleClassifier(labels, Task.BINARY, members=members))
    for resumed in (False, True):
        told.clear()
        ensemble = first if refit else EnsembleClassifier(labels, Task.BINARY, members=members)
        ensemble.keep_in(tmp_path)
        with nullcontext() if resumed else pytest.raises(KeyboardInterrupt):
            again = fit(ensemble)
        said = "member 2 of 2, transformer: goes on from step 5 of 12 (checkpoint of an earlier run)"
        assert (said in told) == resumed
    assert [path.name for path in tmp_path.iterdir()] == ["member_1"]
    np.testing.assert_array_equal(again.predict_proba(texts), whole.predict_proba(texts))
    if not refit:
        assert again.figures()["earlier_seconds"] > 0


def test_a_damaged_or_foreign_checkpoint_is_not_used(encoder, tmp_path):
    texts, targets, _ = examples(Task.BINARY)
    first = made(encoder, form="fp32")
    first.keep_in(tmp_path)
    first.fit(texts, targets)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["state.json", "step-12.safetensors"]
    (tmp_path / "step-12.safetensors").write_bytes(b"damaged")
    second = made(encoder, form="fp32")
    second.keep_in(tmp_path)
    p = second.fit(texts, targets).predict_proba(texts)
    assert np.array_equal(p, first.predict_proba(texts))
    other = made(encoder, seed=1, form="fp32")
    other.keep_in(tmp_path)
    assert not np.array_equal(other.fit(texts, targets).predict_proba(texts), p)


# --- precision, batches, choices


@pytest.mark.parametrize(
    ("able", "bf16_s", "expected"),
    [(True, 0.3, "bf16"), (True, 1.9, "fp32"), (True, 0.9, "fp32"), (False, 0.3, "fp32")],
)
def test_bf16_is_taken_where_the_processor_is_faster_with_it(monkeypatch, able, bf16_s, expected):
    from tamiz.classifiers import transformer_network as network

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": able})
    monkeypatch.setattr(network, "_product_seconds", {"bfloat16": bf16_s, "float32": 1.0}.__getitem__)
    network._bf16_pays.cache_clear()
    try:
        assert network.chosen_precision(TransformerParams(), "cpu") == expected
        assert network.chosen_precision(TransformerParams(precision="bf16"), "cpu") == "bf16"
    finally:
        network._bf16_pays.cache_clear()


def test_attention_alone_is_computed_in_fp32_where_a_processor_trains_in_bf16(encoder, monkeypatch):
    from tamiz.classifiers.transformer_network import attend_in_fp32, load_network

    network = load_network(Path(encoder), ("a", "b"), TransformerParams(encoder=encoder, dropout=0.0)).eval()
    ids, mask = torch.randint(5, 40, (4, 12)), torch.ones((4, 12), dtype=torch.long)
    mask[1:, 7:] = 0  # rows are filled up to one length
    expected = network(input_ids=ids, attention_mask=mask).logits
    seen, products = [], []
    attend, linear = torch.nn.functional.scaled_dot_product_attention, torch.nn.Linear.forward

    def spied(query, *given, **more):
        seen.append(query.dtype)
        return attend(query, *given, **more)

    def also_spied(layer, values):
        found = linear(layer, values)
        products.append(found.dtype)
        return found

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spied)
    monkeypatch.setattr(torch.nn.Linear, "forward", also_spied)
    attend_in_fp32(network)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(input_ids=ids, attention_mask=mask).logits
    assert set(seen) == {torch.float32}
    assert set(products) == {torch.bfloat16}
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)
    network.set_attn_implementation("eager")
    attend_in_fp32(network)
    assert network.config._attn_implementation == "eager"


def test_a_training_in_bf16_learns_what_one_in_fp32_does(encoder):
    texts, targets, _ = examples(Task.BINARY)
    classifier = made(encoder, precision="bf16", epochs=6, form="fp32").fit(texts, targets)
    assert (classifier.predict_proba(texts).argmax(axis=1) == targets).mean() > 0.9


def test_logits_are_computed_where_the_network_is_after_a_training_elsewhere(encoder):
    from tamiz.classifiers.transformer_checkpoints import Checkpoints
    from tamiz.classifiers.transformer_loop import FineTuning
    from tamiz.classifiers.transformer_network import load_network

    params = TransformerParams(encoder=encoder, device="cpu", precision="fp32")
    network = load_network(Path(encoder), ("a", "b"), params)
    loop = FineTuning(network, params, Task.BINARY, pad=0, seed=0, checkpoints=Checkpoints(None, "", 0))
    rows = [np.array([2, 7, 3], np.int32)]
    expected = loop.logits(rows)
    loop.device = "meta"  # stands for a GPU
    np.testing.assert_array_equal(loop.logits(rows, exact=True), expected)


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_a_training_on_a_device_ends_and_goes_on_from_a_checkpoint(encoder, tmp_path, device):
    texts, targets, _ = examples(Task.BINARY)

    def progress(message, done=0, total=0):
        if done == 6 and not resumed:
            raise KeyboardInterrupt

    for resumed in (False, True):
        classifier = made(encoder, device=device, epochs=6, form="fp32", checkpoint_seconds=0)
        classifier.keep_in(tmp_path)
        with nullcontext() if resumed else pytest.raises(KeyboardInterrupt):
            classifier.fit(texts, targets, progress=progress)
    assert classifier.facts()["device"] == device
    assert (classifier.predict_proba(texts).argmax(axis=1) == targets).mean() > 0.9


def test_the_time_of_a_product_is_measured_in_either_precision():
    from tamiz.classifiers.transformer_network import _product_seconds

    assert _product_seconds("float32") > 0
    assert _product_seconds("bfloat16") > 0


def test_batches_are_of_like_length_and_repeat():
    lengths = np.random.default_rng(0).integers(2, 200, 1000)
    batches = shuffled_batches(lengths, 16, seed=1, epoch=2)
    assert sorted(np.concatenate(batches).tolist()) == list(range(1000))
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    assert padded < 1.1 * lengths.sum()
    again = shuffled_batches(lengths, 16, seed=1, epoch=2)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    other = shuffled_batches(lengths, 16, seed=1, epoch=3)
    assert not all(np.array_equal(a, b) for a, b in zip(batches, other, strict=True))
    for batch in budget_batches(lengths, 512):
        assert len(batch) * lengths[batch].max() <= 512


def other_encoder(folder: Path, kind: str, change=None, **config) -> str:
    """Write an encoder of another architecture with random weights, and the tokenizer of `tiny_bert` as `change`d."""
    import transformers

    folder.mkdir()
    tokenizer = json.loads((tiny_bert(folder / "bert") / "tokenizer.json").read_text())
    vocabulary = len(tokenizer["model"]["vocab"])
    if change:
        change(tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        about = transformers.AutoConfig.for_model(kind, vocab_size=vocabulary, initializer_range=0.3, **config)
        transformers.AutoModel.from_config(about).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return str(folder)


def without_special_tokens(tokenizer) -> None:
    tokenizer["post_processor"] = None


def without_padding(tokenizer) -> None:
    """Name the padding token otherwise, so that no token is one for padding."""
    without_special_tokens(tokenizer)
    tokenizer["model"]["vocab"] = {piece.replace("[PAD]", "[X]"): n for piece, n in tokenizer["model"]["vocab"].items()}
    tokenizer["added_tokens"][0]["content"] = "[X]"


@pytest.mark.slow
@pytest.mark.parametrize(("pad", "change", "used"), [(4, without_special_tokens, 4), (None, without_padding, 3)])
def test_a_decoder_s_answer_does_not_depend_on_the_batch(tmp_path, pad, change, used):
    """It answers at the last token, which is the last one that is no padding."""
    pytest.importorskip("onnxscript")
    sizes = {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2}
    ids = {"pad_token_id": pad, "bos_token_id": 2, "eos_token_id": 3}
    encoder = other_encoder(tmp_path / "gpt2", "gpt2", change, **sizes, **ids)
    texts, targets, _ = examples(Task.BINARY)
    classifier = made(encoder, epochs=1, form="fp32").fit(texts, targets)
    assert classifier.facts()["export_shift"] < 1e-4
    assert classifier._model.pad_id == used
    some = ["bread", "bread soup cheese apple salt", "the goal of the team", ""]
    alone = np.vstack([classifier.predict_proba([text]) for text in some])
    np.testing.assert_allclose(classifier.predict_proba(some), alone, atol=1e-5)


def test_a_text_without_a_token_is_answered_where_there_are_no_special_ones(encoder, tmp_path):
    shutil.copytree(encoder, tmp_path / "plain")
    tokenizer = json.loads((tmp_path / "plain" / "tokenizer.json").read_text())
    without_special_tokens(tokenizer)
    (tmp_path / "plain" / "tokenizer.json").write_text(json.dumps(tokenizer))
    texts, targets, _ = examples(Task.BINARY)
    classifier = made(str(tmp_path / "plain"), epochs=1, form="fp32").fit(["\u200b", *texts[1:]], targets)
    assert classifier.predict_proba(["bread", "", "\u200b"]).shape == (3, 2)


def test_a_padding_token_in_a_text_counts_as_a_place_in_training_too(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    about = {"max_position_embeddings": 66, "pad_token_id": 0, "type_vocab_size": 1}
    encoder = other_encoder(tmp_path / "roberta", "roberta", **sizes, **about)
    texts, targets, _ = examples(Task.BINARY)
    texts = [f"the [PAD] {text}" for text in texts]
    classifier = made(encoder, epochs=1, form="fp32").fit(texts, targets)
    assert classifier.facts()["export_shift"] < 1e-4


def _reader(encoder: str, policy: str = "head") -> Reader:
    return Reader(Tokenizer(Path(encoder)), "", 10, policy, 0.25, None, "mean")


def test_the_policy_that_sees_what_matters_is_chosen(encoder):
    reader = _reader(encoder)
    filler = "the of a " * 5
    texts = [f"{filler} {word} {word}" for word in ("bread", "goal") * 10]
    tokens = reader.tokens(texts)
    goal = reader.tokenizer.encode(["goal"])[0][0]

    def run(rows):
        return np.array([[0.0, 4.0 if goal in ids else -4.0] for ids in rows])

    judge = Judge(np.arange(20) % 2, Task.BINARY, ("food", "sport"))
    chosen, values = choose_policy(run, reader, tokens, judge, "accuracy")
    assert chosen == "tail"  # head_tail sees as much, and comes later
    assert values["head"] == 0.5
    assert values["tail"] == values["head_tail"] == 1.0
    assert choose_policy(run, reader, tokens[:0], judge, "accuracy") == ("head", {})


def test_validation_in_the_order_of_its_labels_is_sampled_for_the_policy(encoder):
    texts, targets, _ = examples(Task.BINARY)
    texts = [f"{'the of a ' * 8}{text}" for text in texts]  # the beginning tells nothing
    held = [0] * 1010 + [1] * 500
    validation = Validation([texts[label] for label in held], np.array(held))
    facts = made(encoder, epochs=8, max_length=16, form="fp32").fit(texts, targets, validation=validation).facts()
    assert facts["long_texts"] != "head"
    assert facts["long_texts_validation"]["head"] < 0.6


def test_parity_sees_shifts_and_dependence_on_the_batch(encoder):
    reader = _reader(encoder)
    rows = reader.rows(["bread soup", "goal match", "bank loan"])
    logits = np.array([[0.0, 1.0], [0.0, -1.0], [0.0, 0.01]])
    exact = reader.probabilities(logits, rows, Task.BINARY)

    def shifted(ids):
        return logits[: len(ids)] - [0, 0.02] if len(ids) > 1 else np.array([[0.0, 0.98]])

    found = parity(exact, shifted, reader, rows, Task.BINARY)
    assert found.agreement == pytest.approx(2 / 3)
    assert 0.003 < found.shift_mean < found.shift_max < 0.006
    assert found.alone > 0.1
    assert not found.within(0.9, 0.05, 1e-5)


@pytest.mark.parametrize(("name", "value"), [("metric", "f1_marco"), ("epochs", 0), ("form", "int3")])
def test_wrong_parameters_are_refused(encoder, name, value):
    texts, targets, _ = examples(Task.BINARY)
    with pytest.raises((ConfigError, ValueError), match=name):
        made(encoder, **{name: value}).fit(texts, targets)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("long_texts", "middle", "'windows' or 'auto'"),
        ("metric", "val_accuracy", "did you mean 'accuracy'"),
        ("metric", "size_mb", "no metric of answers; allowed: accuracy, "),
    ],
)
def test_refusals_name_all_that_is_allowed(name, value, why):
    with pytest.raises(ConfigError, match=why):
        check_params("transformer", {name: value})


@pytest.mark.parametrize(
    ("task", "metric", "why"),
    [
        (Task.MULTI_LABEL, "accuracy", "no figure of a training in a multi-label task; .*'subset_accuracy'"),
        (Task.MULTI_CLASS, "subset_accuracy", "no figure of a training in a multi-class task"),
        (Task.MULTI_CLASS, "set_coverage", "no figure of a training"),
        (Task.MULTI_CLASS, "coverage", "no figure of a training"),
        (Task.MULTI_CLASS, "f1_positive", "of the positive label"),
        (Task.BINARY, "recall_positive", "of the positive label, which the training is not told"),
        (Task.BINARY, "average_precision_macro", "of the positive label"),
    ],
)
def test_a_metric_that_can_choose_nothing_is_refused_before_the_training(encoder, task, metric, why):
    texts, targets, _ = examples(task)
    with pytest.raises(ConfigError, match=f"metric: '{metric}' is .*{why}"):
        made(encoder, task, metric=metric).fit(texts, targets)


def test_a_metric_that_validation_does_not_define_is_refused_before_the_training(encoder):
    texts, targets, _ = examples(Task.BINARY)
    one = Validation(texts[:10:2], targets[:10:2])
    classifier = made(encoder, metric="roc_auc_macro")
    with pytest.raises(ConfigError, match="metric: 'roc_auc_macro' is undefined on the 5 validation texts"):
        classifier.fit(texts, targets, validation=one)
    assert made(encoder, epochs=1, form="fp32").fit(texts, targets, validation=one).figures()["best_epoch"] == 1


def test_figures_of_a_training_do_not_guess_the_positive_label():
    judge = Judge(np.array([0, 1, 0]), Task.BINARY, ("food", "sport"))
    names = judge(np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]))
    assert {"f1_macro", "roc_auc_macro", "log_loss"} <= set(names)
    assert not [name for name in names if name.endswith("_positive") or name.startswith("average_precision")]


# --- serving


def assert_serves_alone(classifier: TransformerClassifier, tmp_path: Path) -> None:
    """Answer in a process of its own, which loads no PyTorch."""
    classifier.save(tmp_path)
    texts = examples(Task.BINARY)[0][:5]
    np.save(tmp_path / "expected.npy", classifier.predict_proba(texts))
    script = f"""
    import sys
    import numpy as np
    from pathlib import Path
    from tamiz.classifiers.checks import examples
    from tamiz.classifiers.transformer import TransformerClassifier
    from tamiz.types import Task
    folder = Path({str(tmp_path)!r})
    p = TransformerClassifier.load(folder).predict_proba(examples(Task.BINARY)[0][:5])
    assert np.array_equal(p, np.load(folder / "expected.npy"))
    print(sorted({{"torch", "transformers", "sklearn", "scipy"}} & set(sys.modules)))
    """
    path = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    assert subprocess.run(command, env=path, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_saved_model_answers_without_pytorch(fitted, tmp_path):
    assert_serves_alone(fitted, tmp_path)


def test_a_damaged_package_is_refused(fitted, tmp_path):
    fitted.save(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(PackageError):
        TransformerClassifier.load(tmp_path)
