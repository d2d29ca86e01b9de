"""The exported graph: what it takes, what it answers, and that it is the network."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from oteo_automl.packaging.served import ServedClassifier
from oteo_core.errors import Internal
from oteo_core.graphs import export
from oteo_core.graphs.config import MAX_BATCH, config_pbtxt, labels_txt
from oteo_core.graphs.outputs import classification_outputs
from oteo_core.graphs.running import run_torch
from oteo_core.images import InputPolicy


class Small(torch.nn.Module):
    """A little network that takes images as `prepare` gives them."""

    def __init__(self, channels: int, classes: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(channels, 8, 3, stride=2, padding=1),
            torch.nn.BatchNorm2d(8),
            torch.nn.Hardswish(),
            torch.nn.AdaptiveAvgPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(32, classes),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.body(image.permute(0, 3, 1, 2).float() / self.scale) * 5


def policy(dtype="uint8", channels=3):
    return InputPolicy(width=40, height=24, channels=channels, dtype=dtype, resize="stretch", interpolation="area")


def images(given: InputPolicy, count=5):
    rng = np.random.default_rng(0)
    shape = (count, given.height, given.width, given.channels)
    return rng.integers(0, 256, shape, dtype=np.uint8) if given.dtype == "uint8" else rng.random(shape, dtype=np.float32)


@pytest.mark.parametrize(("dtype", "channels", "classes"), [("uint8", 3, 3), ("float32", 1, 2)])
def test_graph_answers_as_the_network_for_any_batch(dtype, channels, classes):
    torch.manual_seed(1)
    given = policy(dtype, channels)
    served = ServedClassifier(Small(channels, classes, 255 if dtype == "uint8" else 1), 1.7)
    batch = images(given)
    exported = export.export_onnx(served, given, classification_outputs(classes), batch, metadata={"oteo.model": "m"})
    assert (exported.exporter, exported.fallback_reason) == ("torchscript", "")
    assert exported.error < 1e-5
    expected, logits = run_torch(served, batch)
    for size in (1, 2, 5):
        probabilities, raw = export.run_onnx(exported.data, batch, size)
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)
        np.testing.assert_allclose(raw, logits, atol=1e-4)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-6)
    graph = onnx.load_model_from_string(exported.data)
    [entry] = graph.graph.input
    dims = entry.type.tensor_type.shape.dim
    assert entry.name == "image"
    assert dims[0].dim_param
    assert [dim.dim_value for dim in dims[1:]] == [24, 40, channels]
    assert {prop.key: prop.value for prop in graph.metadata_props} == {"oteo.model": "m"}
    assert b"site-packages" not in exported.data
    assert b".py" not in exported.data


def test_temperature_is_in_the_graph_and_changes_no_decision():
    torch.manual_seed(2)
    network, given = Small(3, 3, 255), policy()
    batch = images(given, 8)
    cold, warm = (run_torch(ServedClassifier(network, t).eval(), batch) for t in (1.0, 4.0))
    np.testing.assert_allclose(cold[1] / 4.0, warm[1], rtol=1e-5, atol=1e-6)
    assert (cold[0].argmax(axis=1) == warm[0].argmax(axis=1)).all()
    assert (warm[0].max(axis=1) < cold[0].max(axis=1)).all()


def test_other_exporter_takes_over_and_it_is_said(monkeypatch):
    def broken(*_args):
        raise RuntimeError("an operator that it does not know\nand a long trace")

    monkeypatch.setattr(export, "_export_torchscript", broken)
    batch = images(policy())
    served = ServedClassifier(Small(3, 3, 255), 1.0)
    exported = export.export_onnx(served, policy(), classification_outputs(3), batch)
    assert exported.exporter == "dynamo"
    assert exported.fallback_reason == "RuntimeError: an operator that it does not know"
    assert exported.error < 1e-5
    assert b"site-packages" not in exported.data
    for size in (1, 2, 5):
        np.testing.assert_allclose(export.run_onnx(exported.data, batch, size)[0], run_torch(served, batch)[0], atol=1e-5)


def test_a_graph_that_is_not_the_network_is_refused(monkeypatch):
    torch.manual_seed(3)
    honest = export._export_torchscript
    asked = []

    def forged(served, example, names):
        asked.append(True)
        return honest(ServedClassifier(served.network, 3.0).eval(), example, names)

    monkeypatch.setattr(export, "_export_torchscript", forged)
    monkeypatch.setattr(export, "_export_dynamo", forged)
    with pytest.raises(Internal, match="differ") as caught:
        export.export_onnx(ServedClassifier(Small(3, 3, 255), 1.0), policy(), classification_outputs(3), images(policy()))
    assert caught.value.reason == "EXPORT_FAILED"
    assert len(asked) == 2


def test_configuration_is_what_triton_reads():
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    text = config_pbtxt("cells", policy("float32", 1), classification_outputs(4), parameters={"oteo_digest": 'ab"c'})
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("cells", "onnxruntime", MAX_BATCH)
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [("image", model_config_pb2.TYPE_FP32, [24, 40, 1])]
    assert [(o.name, list(o.dims)) for o in config.output] == [("probabilities", [4]), ("logits", [4])]
    assert config.parameters["oteo_digest"].string_value == 'ab"c'
    assert [group.count for group in config.instance_group] == [1]
    assert config.dynamic_batching.max_queue_delay_microseconds > 0
    assert all(size <= MAX_BATCH for size in config.dynamic_batching.preferred_batch_size)
    assert config.model_warmup[0].batch_size == 1


def test_labels_keep_one_line_each():
    assert labels_txt(["no", "two\nlines", "β-cell"]) == "no\ntwo lines\nβ-cell\n"
