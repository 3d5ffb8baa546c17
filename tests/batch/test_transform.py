"""Batch prediction as a pure function over record batches."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tamiz.batch.transform import answer_columns, predict_batch
from tamiz.errors import ColumnError
from tamiz.model import Model
from tamiz.types import Task
from tests.models import linear_model

TEXTS = ["bread soup cheese", "bank loan credit", "zzz", "<b>BREAD</b> &amp; butter"]


@pytest.fixture(scope="module", params=list(Task), ids=str)
def model(request) -> Model:
    return linear_model(request.param)


def batch_of(texts: list[str | None], **columns: list) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {"id": pa.array(range(len(texts)), pa.int64()), "text": pa.array(texts, pa.string()), **columns}
    )


def test_answers_stand_behind_the_columns_of_the_input(model):
    batch = batch_of(TEXTS)
    before = batch.to_pydict()
    found = predict_batch(model, batch)
    expected = ["id", "text", "predicted_label", "predicted_probability", *(f"p_{label}" for label in model.labels)]
    assert found.schema.names == expected
    assert answer_columns(model) == expected[2:]
    assert found.num_rows == 4
    assert batch.to_pydict() == before
    assert found.select(["id", "text"]).equals(batch)


def test_answers_are_those_of_the_model(model):
    found = predict_batch(model, batch_of(TEXTS)).to_pylist()
    for row, answer in zip(found, model.predict(TEXTS), strict=True):
        many = model.task is Task.MULTI_LABEL
        assert row["predicted_label"] == (list(answer.label) if many else answer.label)
        assert row["predicted_probability"] == (list(answer.probability) if many else answer.probability)
        assert [row[f"p_{label}"] for label in model.labels] == answer.probabilities.tolist()


def test_types_do_not_depend_on_the_rows(model):
    some, none = predict_batch(model, batch_of(TEXTS)), predict_batch(model, batch_of([]))
    assert some.schema == none.schema
    assert none.num_rows == 0


def test_a_missing_text_is_answered_like_an_empty_one(model):
    missing, empty = (predict_batch(model, batch_of([text])).to_pylist()[0] for text in (None, ""))
    assert missing["text"] is None
    assert {**missing, "text": ""} == empty


def test_an_abstention_is_null():
    model = linear_model(Task.MULTI_CLASS, abstain_below=0.7)
    sure = "bread soup cheese apple salt butter kitchen dinner taste oven"
    found = predict_batch(model, batch_of(["zzz", sure]))
    assert found.column("predicted_label").to_pylist() == [None, "food"]
    assert found.column("predicted_probability").to_pylist()[0] is None
    assert found.column("p_food").null_count == 0


def test_old_answers_are_replaced(model):
    once = predict_batch(model, batch_of(TEXTS))
    assert predict_batch(model, once).equals(once)


def test_the_text_may_stand_in_any_column(model):
    other = batch_of(["zzz"] * 4, body=TEXTS)
    by_argument = predict_batch(model, other, column="body")
    own = predict_batch(linear_model(model.task, text_column="body"), other)
    assert by_argument.equals(own)
    assert by_argument.column("p_food").equals(predict_batch(model, batch_of(TEXTS)).column("p_food"))


def test_texts_of_other_types_are_read_as_text(model):
    numbers = pa.RecordBatch.from_pydict({"text": [1, 2]})
    found = predict_batch(model, numbers)
    assert found.column("p_food").equals(predict_batch(model, batch_of(["1", "2"])).column("p_food"))


def test_a_missing_column_is_named_with_the_nearest(model):
    with pytest.raises(ColumnError, match=r"no column 'txet'.*did you mean 'text'\?.*--text-column"):
        predict_batch(model, batch_of(TEXTS), column="txet")
