"""A plain tritonclient, pointed at the gateway, sees and uses the deployed model as at Triton itself."""

from __future__ import annotations

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from oteo_core.images import InputPolicy, prepare
from oteo_core.sampledata import draw_cell
from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.gateway.v1 import inference_pb2
from oteo_protos.type.v1 import image_pb2

pytestmark = pytest.mark.stack


@pytest.fixture
def gateway(stack):
    with triton.InferenceServerClient(stack.endpoints["gateway"]) as client:
        yield client


@pytest.fixture
def direct(stack):
    with triton.InferenceServerClient(stack.endpoints["triton"]) as client:
        yield client


@pytest.fixture
def headers(stack):
    return {"authorization": f"Bearer {stack.token}"}


@pytest.fixture
def model(served) -> str:
    return served.response.deployment.models[0].triton_model


def batch(client, model, headers=None) -> np.ndarray:
    """Bring drawn cells to the model's input, by what the model itself says of it."""
    (tensor,) = client.get_model_metadata(model, headers=headers).inputs
    _, height, width, channels = tensor.shape
    policy = InputPolicy(width, height, channels, {"UINT8": "uint8", "FP32": "float32"}[tensor.datatype])
    return np.stack([prepare(draw_cell(index, seed=99)[0], policy) for index in range(5)])


def infer(client, model, images, headers=None):
    tensor = triton.InferInput("image", list(images.shape), "UINT8" if images.dtype == np.uint8 else "FP32")
    tensor.set_data_from_numpy(images)
    return client.infer(model, [tensor], headers=headers)


def test_the_gateway_is_a_triton(gateway, direct, headers, model):
    assert gateway.is_server_live(headers=headers)
    assert gateway.is_server_ready(headers=headers)
    assert gateway.is_model_ready(model, headers=headers)
    assert gateway.get_server_metadata(headers=headers) == direct.get_server_metadata()
    assert gateway.get_model_metadata(model, headers=headers) == direct.get_model_metadata(model)
    assert gateway.get_model_config(model, headers=headers) == direct.get_model_config(model)
    listed = {entry.name: entry.state for entry in gateway.get_model_repository_index(headers=headers).models}
    assert listed[model] == "READY"


def test_the_same_bytes_as_from_triton_itself(gateway, direct, headers, model):
    images = batch(gateway, model, headers)
    through, straight = infer(gateway, model, images, headers), infer(direct, model, images)
    for name in ("probabilities", "logits"):
        assert through.as_numpy(name).tobytes() == straight.as_numpy(name).tobytes()
    assert list(through.get_response().raw_output_contents) == list(straight.get_response().raw_output_contents)
    np.testing.assert_allclose(through.as_numpy("probabilities").sum(axis=1), 1, atol=1e-5)


def test_predict_says_what_triton_says(gateway, headers, model, calls, served):
    from oteo_core.images import encode_png

    picture = draw_cell(3, seed=99)[0]
    request = inference_pb2.PredictRequest(
        deployment=served.response.deployment.name, image=image_pb2.ImageSource(content=encode_png(picture))
    )
    answer = calls.inference.Predict(request)
    package: automl_pb2.Model = calls.automl.GetModel(automl_pb2.GetModelRequest(name=served.response.model.name))
    raw = infer(gateway, model, batch(gateway, model, headers)[3:4], headers).as_numpy("probabilities")[0]
    told = {score.class_name: score.probability for score in answer.classification.scores}
    np.testing.assert_allclose([told[name] for name in package.classes], raw, atol=1e-6)


def test_without_a_token_nothing_passes(gateway, model):
    with pytest.raises(InferenceServerException) as caught:
        gateway.get_model_metadata(model)
    assert "UNAUTHENTICATED" in str(caught.value.status())


def test_what_would_change_the_server_does_not_pass(gateway, headers, model):
    for call in (lambda: gateway.unload_model(model, headers=headers), lambda: gateway.load_model(model, headers=headers)):
        with pytest.raises(InferenceServerException) as caught:
            call()
        assert "PERMISSION_DENIED" in str(caught.value.status())
    assert gateway.is_model_ready(model, headers=headers)
