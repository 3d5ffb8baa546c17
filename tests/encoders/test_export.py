"""Encoders as ONNX: the same answers as their PyTorch models, in any batch, in every form."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from tamiz.encoders.checkpoint import config_of
from tamiz.encoders.export import export, write
from tamiz.encoders.forms import EXACT, FORMS, make_form
from tamiz.encoders.openvino import arithmetic
from tamiz.encoders.runtime import OnnxModel, Tokenizer, batches, open_model
from tamiz.encoders.trace import _load, trace
from tamiz.errors import ConfigError, DataError, SourceError
from tests.tiny_bert import tiny_bert

LABELS = ("food", "money", "sport")
_LENGTHS = (3, 17, 9, 40, 2, 60, 17, 5)
_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_OTHERS = {
    "roberta": {**_SMALL, "type_vocab_size": 1},
    "xlm-roberta": {**_SMALL, "type_vocab_size": 1},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "mpnet": _SMALL,  # its relative places are not read directly
}


def _rows(pieces: int = 100) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(5, pieces, length).tolist() for length in _LENGTHS]


def _wanted(folder: Path, rows: Sequence[Sequence[int]], head: str, pooling: str = "mean") -> NDArray[np.float32]:
    """Return what Transformers answers to every row alone."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    kind = transformers.AutoModelForSequenceClassification if head == "classification" else transformers.AutoModel
    model = kind.from_pretrained(folder).eval()
    answers = []
    with torch.inference_mode():
        for row in rows:
            found = model(torch.tensor([list(row)]))
            if head == "classification":
                answers.append(found.logits[0])
            else:
                states = found.last_hidden_state[0]
                pooled = {"mean": states.mean(0), "cls": states[0], "max": states.max(0).values}[pooling]
                answers.append(torch.nn.functional.normalize(pooled, dim=0))
    return np.array([one.numpy() for one in answers])


def _probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("tiny"), labels=LABELS)


@pytest.fixture(scope="module")
def fp32(folder: Path) -> Path:
    export(folder, folder / "fp32.onnx", head="classification")
    return folder / "fp32.onnx"


@pytest.mark.parametrize("head", ["classification", "embedding"])
def test_bert_answers_as_transformers_does(folder: Path, tmp_path: Path, head: str) -> None:
    target = tmp_path / "model.onnx"
    export(folder, target, head=head)
    found = OnnxModel(target, threads=1).run(_rows())
    np.testing.assert_allclose(found, _wanted(folder, _rows(), head), atol=1e-5)
    if head == "embedding":
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("pooling", ["cls", "max"])
@pytest.mark.parametrize("traced", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_vectors_are_made_as_the_model_says(folder: Path, tmp_path: Path, pooling: str, traced: bool) -> None:
    target = tmp_path / "model.onnx"
    if traced:
        pytest.importorskip("onnxscript")
        write(trace(folder, head="embedding", config=config_of(folder), pooling=pooling), target)
    else:
        export(folder, target, head="embedding", pooling=pooling)
    found = OnnxModel(target, threads=1).run(_rows())
    np.testing.assert_allclose(found, _wanted(folder, _rows(), "embedding", pooling), atol=1e-5)
    assert np.abs(found - _wanted(folder, _rows(), "embedding")).max() > 0.01


def test_vectors_that_are_made_in_an_unknown_way_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"makes its vectors by mean and 2_Dense, which is not known; .*cls, max, mean"
    ):
        export(folder, tmp_path / "model.onnx", head="embedding", pooling="mean and 2_Dense")
    export(folder, tmp_path / "model.onnx", head="classification", pooling="mean and 2_Dense")


_KINDS = [pytest.param(kind, marks=pytest.mark.slow) if kind == "mpnet" else kind for kind in _OTHERS]


@pytest.mark.slow
@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("head", ["classification", "embedding"])
def test_other_architectures_answer_as_transformers_does(tmp_path: Path, kind: str, head: str) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        kind, **_OTHERS[kind], vocab_size=100, num_labels=3, max_position_embeddings=80
    )
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    for parameter in model.parameters():  # fresh biases are 0 and scales 1: a mix-up would not show
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path)
    export(tmp_path, tmp_path / "model.onnx", head=head)
    answering = OnnxModel(tmp_path / "model.onnx", threads=1)
    np.testing.assert_allclose(answering.run(_rows()), _wanted(tmp_path, _rows(), head), atol=1e-5)
    # What it says of its length is what it can read: some begin to count places after the padding's.
    longest = [[7] * (answering.max_length or 0)]
    np.testing.assert_allclose(answering.run(longest), _wanted(tmp_path, longest, head), atol=1e-5)
    assert len(longest[0]) == (80 if kind == "distilbert" else 78)


@pytest.mark.parametrize("form", EXACT)
def test_a_row_s_answer_does_not_depend_on_its_batch(fp32: Path, tmp_path: Path, form: str) -> None:
    make_form(fp32, tmp_path / "form.onnx", form)
    model = open_model(tmp_path / "form.onnx", form=form, threads=1)
    alone = np.concatenate([model.run([row]) for row in _rows()])
    np.testing.assert_allclose(_probabilities(model.run(_rows())), _probabilities(alone), atol=1e-6, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_stays_near_fp32(fp32: Path, tmp_path: Path, form: str) -> None:
    make_form(fp32, tmp_path / "form.onnx", form)
    found = _probabilities(open_model(tmp_path / "form.onnx", form=form, threads=1).run(_rows()))
    wanted = _probabilities(OnnxModel(fp32, threads=1).run(_rows()))
    # Random weights are the hardest to round; what fine-tuned ones lose is measured on their own texts.
    assert np.abs(found - wanted).max() < 0.1
    if form != "fp32":
        assert np.abs(found - wanted).max() > 0


@pytest.mark.parametrize("form", [form for form in FORMS if form != "fp32"])
def test_smaller_forms_hold_their_dense_weights_in_fewer_bits(fp32: Path, tmp_path: Path, form: str) -> None:
    make_form(fp32, tmp_path / "form.onnx", form)
    dense = [one for one in onnx.load(tmp_path / "form.onnx").graph.initializer if min(one.dims, default=0) >= 32]
    held = {onnx.TensorProto.DataType.Name(one.data_type) for one in dense if list(one.dims) in ([32, 128], [128, 32])}
    assert held == {"BFLOAT16" if form == "bf16" else "INT8"}


def test_bf16_rounds_to_the_nearest_and_is_read_by_both_runtimes(fp32: Path, tmp_path: Path) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    make_form(fp32, tmp_path / "bf16.onnx", "bf16")
    whole, half = (
        {tuple(one.dims): one for one in onnx.load(path).graph.initializer if list(one.dims) == [32, 128]}
        for path in (fp32, tmp_path / "bf16.onnx")
    )
    found = np.frombuffer(half[32, 128].raw_data, ml_dtypes.bfloat16)
    wanted = onnx.numpy_helper.to_array(whole[32, 128]).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(found, wanted.ravel())
    as_float32 = OnnxModel(tmp_path / "bf16.onnx", threads=1).run(_rows())
    by_openvino = open_model(tmp_path / "bf16.onnx", form="bf16", threads=1).run(_rows())
    apart = np.abs(_probabilities(by_openvino) - _probabilities(as_float32)).max()
    assert apart < (2e-2 if arithmetic() == "bf16" else 1e-5)


def test_openvino_knows_the_limit_serves_threads_and_names_what_it_cannot_read(fp32: Path, tmp_path: Path) -> None:
    make_form(fp32, tmp_path / "bf16.onnx", "bf16")
    model = open_model(tmp_path / "bf16.onnx", form="bf16", threads=1)
    assert model.max_length == OnnxModel(fp32, threads=1).max_length
    assert model.run([]).shape == (0, 3)
    with pytest.raises(DataError, match="at most"):
        model.run([[5] * (model.max_length + 1)])
    wanted = model.run(_rows())
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(model.run, [_rows()] * 16):
            np.testing.assert_array_equal(found, wanted)
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(SourceError, match="OpenVINO"):
        open_model(tmp_path / "x.onnx", form="bf16")


@pytest.mark.slow
def test_a_form_of_a_traced_model_is_exact_too(tmp_path: Path) -> None:
    """The graph of another architecture comes from PyTorch's exporter, with a newer operator set."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.MPNetConfig(**_SMALL, vocab_size=600, num_labels=3, max_position_embeddings=80)
    transformers.MPNetForSequenceClassification(config).save_pretrained(tmp_path)
    export(tmp_path, tmp_path / "fp32.onnx", head="classification")
    make_form(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", "int8")
    model = OnnxModel(tmp_path / "int8.onnx", threads=1)
    assert (tmp_path / "int8.onnx").stat().st_size < (tmp_path / "fp32.onnx").stat().st_size
    alone = np.concatenate([model.run([row]) for row in _rows()])
    np.testing.assert_allclose(_probabilities(model.run(_rows())), _probabilities(alone), atol=1e-6, rtol=0)


def test_token_types_change_the_answer(fp32: Path) -> None:
    model = OnnxModel(fp32, threads=1)
    rows = _rows()
    zeros = [[0] * len(row) for row in rows]
    np.testing.assert_array_equal(model.run(rows), model.run(rows, types=zeros))
    ones = [[0, *[1] * (len(row) - 1)] for row in rows]
    assert np.abs(model.run(rows) - model.run(rows, types=ones)).max() > 1e-3


def test_rows_keep_their_order_and_none_is_allowed(fp32: Path) -> None:
    model = OnnxModel(fp32, threads=1)
    forward, backward = model.run(_rows()), model.run(_rows()[::-1])
    np.testing.assert_allclose(forward, backward[::-1], atol=1e-6)
    assert model.run([]).shape == (0, len(LABELS))


def test_rows_of_no_or_too_many_tokens_are_refused(fp32: Path) -> None:
    model = OnnxModel(fp32, threads=1)
    assert model.max_length == 64
    with pytest.raises(DataError, match="at least 1"):
        model.run([[5], []])
    with pytest.raises(DataError, match="at most 64"):
        model.run([[5] * 65])


def test_batches_hold_every_row_once_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(1, 200, 300)
    found = list(batches(lengths, tokens=1000))
    assert sorted(np.concatenate(found).tolist()) == list(range(300))
    for places in found:
        own = lengths[places]
        assert len(own) == 1 or own.max() * len(own) <= 1000
        padding = (own.max() - own).sum()
        assert padding <= max(32, 0.1 * own.max() * len(own))
    assert len(found) < 60


def test_the_tokenizer_gives_all_tokens_without_special_ones(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = Tokenizer(folder)
    texts = ["Bread and soup, 12 times", "goal", "", "zq " * 200]
    found = tokenizer.encode(texts)
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    assert [tokenizer.wrap(one) for one in found] == [reference(text)["input_ids"] for text in texts]
    assert len(found[3]) == 400
    assert (tokenizer.specials, tokenizer.pad_id) == (2, 0)


def test_rows_are_filled_up_with_what_the_encoder_calls_padding(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "own")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | {"pad_token_id": 7}
    (tmp_path / "own" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    export(tmp_path / "own", tmp_path / "own.onnx", head="classification")
    for form in ("int8", "bf16"):
        make_form(tmp_path / "own.onnx", tmp_path / f"{form}.onnx", form)
        assert open_model(tmp_path / f"{form}.onnx", form=form).pad_id == 7
    made = onnx.load(tmp_path / "own.onnx")  # as packages of earlier versions have it
    del made.metadata_props[:]
    onnx.save(made, tmp_path / "old.onnx")
    assert OnnxModel(tmp_path / "old.onnx").pad_id == 0


def test_half_a_surrogate_pair_is_read_as_a_character_that_is_unknown(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    assert tokenizer.encode(["bread \ud800 soup", "goal"]) == tokenizer.encode(["bread \ufffd soup", "goal"])


def test_long_texts_are_not_all_given_to_the_tokenizer_at_once(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    texts = ["goal", *(f"bread {'a' * 1_200_000} {word}" for word in ("soup", "bread", "goal", "soup"))]
    waiting = iter(texts)
    first = next(tokenizer.read(waiting))
    assert len(list(waiting)) >= 2
    assert first == tokenizer.encode(["goal"])[0]
    assert tokenizer.encode(texts) == [tokenizer.encode([text])[0] for text in texts]


def test_the_tokenizer_s_own_truncation_and_padding_are_left_out(folder: Path, tmp_path: Path) -> None:
    raw = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    raw["truncation"] = {"max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    raw["padding"] = {
        "strategy": {"Fixed": 8},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    texts = ["bread", "bread soup " * 9]
    assert Tokenizer(tmp_path / "tokenizer.json").encode(texts) == Tokenizer(folder).encode(texts)


def test_a_network_is_traced_in_fp32_whatever_its_weights_are_stored_in(tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model("mpnet", **_SMALL, vocab_size=100, max_position_embeddings=80)
    transformers.AutoModel.from_config(config).to(torch.bfloat16).save_pretrained(tmp_path)
    loaded = _load(tmp_path, head="embedding", config=config_of(tmp_path))
    assert {one.dtype for one in loaded.parameters()} == {torch.float32}


def test_weights_in_one_file_stand_before_an_index_that_was_left_behind(folder: Path, tmp_path: Path) -> None:
    """It is the one file whose checksum names the encoder."""
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors.index.json").write_text('{"weight_map": {"a": "gone.safetensors"}}')
    export(tmp_path / "model", tmp_path / "model.onnx", head="embedding")
    found = OnnxModel(tmp_path / "model.onnx", threads=1).run(_rows())
    np.testing.assert_allclose(found, _wanted(folder, _rows(), "embedding"), atol=1e-5)


def test_bfloat16_weights_are_read(folder: Path, tmp_path: Path) -> None:
    import ml_dtypes

    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    tensors: dict[str, Any] = load_file(folder / "model.safetensors")
    halves = {name: one.astype(ml_dtypes.bfloat16) for name, one in tensors.items()}
    save_file(halves, tmp_path / "model.safetensors", metadata={"format": "pt"})
    export(tmp_path, tmp_path / "half.onnx", head="embedding")
    export(folder, tmp_path / "whole.onnx", head="embedding")
    found = (OnnxModel(tmp_path / f"{name}.onnx", threads=1).run(_rows()) for name in ("half", "whole"))
    assert 0 < np.abs(next(found) - next(found)).max() < 0.02


def test_a_tokenizer_of_another_encoder_is_refused(folder: Path, tmp_path: Path) -> None:
    tiny_bert(tmp_path / "small", words="bread")
    shutil.copyfile(folder / "tokenizer.json", tmp_path / "small" / "tokenizer.json")
    with pytest.raises(SourceError, match=r"tokenizer\.json has \d+ pieces, and the weights know \d+"):
        export(tmp_path / "small", tmp_path / "x.onnx", head="embedding")


def test_weights_that_are_cut_off_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "cut")
    path = tmp_path / "cut" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SourceError, match=r"model\.safetensors is damaged, cut off"):
        export(tmp_path / "cut", tmp_path / "x.onnx", head="embedding")


def test_mistakes_are_named(folder: Path, fp32: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"head.*embedding"):
        export(folder, tmp_path / "x.onnx", head="embeddings")
    with pytest.raises(ConfigError, match=r"form.*int8"):
        make_form(fp32, tmp_path / "x.onnx", "int9")
    bare = tiny_bert(tmp_path / "bare")
    with pytest.raises(ConfigError, match="no classification head"):
        export(bare, tmp_path / "x.onnx", head="classification")
    (bare / "model.safetensors").unlink()
    with pytest.raises(SourceError, match=r"model\.safetensors"):
        export(bare, tmp_path / "x.onnx", head="embedding")
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(SourceError, match="export the encoder again"):
        OnnxModel(tmp_path / "x.onnx")
    with pytest.raises(SourceError, match="tokenizer"):
        Tokenizer(tmp_path / "x.onnx")


def test_neither_export_nor_answering_loads_pytorch(folder: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from tamiz.encoders.export import export
from tamiz.encoders.forms import make_form
from tamiz.encoders.runtime import OnnxModel, Tokenizer
folder, target = Path({str(folder)!r}), Path({str(tmp_path)!r})
export(folder, target / "fp32.onnx", head="classification")
make_form(target / "fp32.onnx", target / "int8.onnx", "int8")
tokenizer, model = Tokenizer(folder), OnnxModel(target / "int8.onnx", threads=1)
print(model.run([tokenizer.wrap(ids) for ids in tokenizer.encode(["bread soup"])]).shape)
print(sorted({{"torch", "transformers", "sklearn", "scipy"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["(1, 3)", "[]"]
