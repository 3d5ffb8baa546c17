"""The SageMaker door, also as boto3 speaks to it."""

import io
import json

import boto3
import numpy as np
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tamiz.config import ServeConfig
from tamiz.serving.auth import KeyAuth
from tamiz.serving.doors.sagemaker import transform_limits
from tamiz.serving.keys import KeyRing, create_key
from tests.serving.helpers import LABELS, TEXTS, ask, listening, make_model, serve_model

URL = "/endpoints/demo/invocations"


def client_of(address):
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=address,
        region_name="eu-west-1",
        aws_access_key_id="unused",
        aws_secret_access_key="unused",
        config=Config(retries={"total_max_attempts": 1}),
    )


@pytest.fixture
def client(address):
    return client_of(address)


def test_boto3_invokes_an_endpoint(client):
    want = make_model().predict_proba(TEXTS)
    got = client.invoke_endpoint(
        EndpointName="demo", ContentType="application/json", Body=json.dumps({"inputs": TEXTS}).encode()
    )
    assert got["ContentType"] == "application/json"
    for scored, row in zip(json.loads(got["Body"].read()), want, strict=True):
        scores = {one["label"]: one["score"] for one in scored}
        np.testing.assert_allclose([scores[label] for label in LABELS], row, atol=1e-6)


def test_boto3_need_not_say_what_it_sends(client):
    got = client.invoke_endpoint(EndpointName="demo", Body=json.dumps({"text": TEXTS}))
    assert json.loads(got["Body"].read())["model"] == "demo"


def test_boto3_sends_csv_and_accepts_lines(client):
    body = io.BytesIO(("text\n" + "\n".join(TEXTS)).encode())
    got = client.invoke_endpoint(EndpointName="demo", ContentType="text/csv", Accept="application/jsonlines", Body=body)
    assert got["ContentType"] == "application/jsonlines"
    labels = [json.loads(line)["predicted_label"] for line in got["Body"].read().splitlines()]
    assert labels == [one.label for one in make_model().predict(TEXTS)]


def test_a_refusal_is_the_error_that_sagemaker_raises(client):
    with pytest.raises(client.exceptions.ModelError, match="there are 0") as caught:
        client.invoke_endpoint(EndpointName="demo", Body=b"{}")
    assert caught.value.response["OriginalStatusCode"] == 400
    assert "there are 0" in caught.value.response["OriginalMessage"]
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 424


def test_an_unknown_endpoint_is_a_validation_error(client):
    with pytest.raises(ClientError, match="allowed: demo") as caught:
        client.invoke_endpoint(EndpointName="nobody", Body=b'{"inputs": "x"}')
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_boto3_sends_a_key_in_a_header_of_its_own(tmp_path):
    """Its signature stands in the header in which keys usually come."""
    key, _ = create_key(tmp_path / "keys.json", "predict")
    app = serve_model(tmp_path, auth=KeyAuth(KeyRing(tmp_path / "keys.json")))
    with listening(app) as address:
        client = client_of(address)
        with pytest.raises(ClientError) as caught:
            client.invoke_endpoint(EndpointName="demo", Body=b'{"inputs": "x"}')
        assert caught.value.response["Error"]["Code"] == "AccessDeniedException"
        client.meta.events.register("before-sign", lambda request, **_: request.headers.add_header("X-API-Key", key))
        assert client.invoke_endpoint(EndpointName="demo", Body=b'{"inputs": "x"}')["Body"].read()


def test_other_failures_have_sagemakers_names(tmp_path):
    app = serve_model(tmp_path, limits=ServeConfig(max_texts=2))
    got = ask(app, "POST", URL, json={"text": TEXTS})
    assert (got.status_code, got.json()["OriginalStatusCode"]) == (424, 413)
    assert got.headers["x-amzn-errortype"] == "ModelError"
    assert ask(app, "GET", URL).headers["x-amzn-errortype"] == "ValidationError"
    refused = ask(app, "POST", URL, json={"text": ["a"]}, base_url="http://evil.example")
    assert (refused.status_code, refused.headers["x-amzn-errortype"]) == (403, "AccessDeniedException")


@pytest.mark.parametrize(
    ("limits", "want"),
    [
        ({}, ("SINGLE_RECORD", 6)),
        ({"max_body_bytes": 100}, ("SINGLE_RECORD", 1)),
        ({"max_texts": 2**18}, ("MULTI_RECORD", 1)),
        ({"max_texts": 2**20}, ("MULTI_RECORD", 4)),
        ({"max_texts": 2**30, "max_body_bytes": 2**30}, ("MULTI_RECORD", 6)),
    ],
)
def test_no_payload_of_batch_transform_passes_a_limit(limits, want):
    found = transform_limits(ServeConfig(**limits), cores=4)
    assert (found.BatchStrategy, found.MaxPayloadInMB) == want
    assert found.MaxConcurrentTransforms == 4
    assert transform_limits(ServeConfig(**limits, max_concurrent=3), cores=4).MaxConcurrentTransforms == 3


def test_batch_transform_is_told_the_limits(shared_app):
    got = ask(shared_app, "GET", "/execution-parameters")
    assert set(got.json()) == {"MaxConcurrentTransforms", "BatchStrategy", "MaxPayloadInMB"}
