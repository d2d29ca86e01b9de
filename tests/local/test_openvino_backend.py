"""The embedded Triton's `openvino` backend: answers as the graph's own, in bfloat16 where asked for, and by onnxruntime what OpenVINO does not take."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc as client
from local_models import channel_means
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException

from oteo_local import triton
from oteo_local.triton_env import TritonEnvironment

CONFIG = """
name: "{name}"
backend: "openvino"
default_model_filename: "model.onnx"
max_batch_size: 0
input [ {{ name: "image" data_type: TYPE_UINT8 dims: [ -1, -1, -1, 3 ] }} ]
output [ {{ name: "mean" data_type: TYPE_FP32 dims: [ -1, 3 ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
parameters {{ key: "INFERENCE_NUM_THREADS" value: {{ string_value: "1" }} }}
"""
HINT = 'parameters {{ key: "HINT_BF16" value: {{ string_value: "{}" }} }}\n'


@pytest.fixture(scope="module")
def connection(running_triton: triton.RunningTriton) -> Iterator[client.InferenceServerClient]:
    with client.InferenceServerClient(running_triton.address) as connection:
        yield connection


def put(repository: Path, name: str, graph: bytes, config: str = CONFIG) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "1" / "model.onnx").write_bytes(graph)
    (repository / name / "config.pbtxt").write_text(config.format(name=name))


def mean(connection: client.InferenceServerClient, name: str, images: np.ndarray) -> np.ndarray:
    tensor = client.InferInput("image", images.shape, "UINT8")
    tensor.set_data_from_numpy(images)
    answer = connection.infer(name, [tensor], outputs=[client.InferRequestedOutput("mean")], client_timeout=120).as_numpy("mean")
    assert answer is not None
    return answer


def test_it_answers_as_the_graph_does_for_any_batch_and_refuses_what_does_not_fit(running_triton, connection, images):
    put(running_triton.repository, "plain", channel_means())
    put(running_triton.repository, "rounded", channel_means(), CONFIG + HINT.replace("{}", "YES"))
    expected = images.astype(np.float64).mean(axis=(1, 2))
    for name, tolerance in (("plain", 1e-6), ("rounded", 2**-7)):
        connection.load_model(name)
        for count in (1, 5, 2):
            np.testing.assert_allclose(mean(connection, name, images[:count]), expected[:count], rtol=tolerance)
        with pytest.raises(InferenceServerException, match=name):
            mean(connection, name, np.zeros((1, 6, 6, 3), np.uint8))
        np.testing.assert_allclose(mean(connection, name, images), expected, rtol=tolerance)
        connection.unload_model(name)


def test_a_graph_that_openvino_does_not_take_is_run_by_onnxruntime_and_the_log_says_so(running_triton, connection, images):
    # An operator of classical learning, which OpenVINO has not.
    scaler = helper.make_node("Scaler", ["flat"], ["mean"], domain="ai.onnx.ml", offset=[0.0] * 3, scale=[2.0] * 3)
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real"], ["flat"], axes=[1, 2], keepdims=0),
        scaler,
    ]
    values = [
        helper.make_tensor_value_info(*one) for one in (("image", TensorProto.UINT8, ["N", 4, 4, 3]), ("mean", TensorProto.FLOAT, ["N", 3]))
    ]
    graph = helper.make_graph(nodes, "scaled", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    put(
        running_triton.repository,
        "foreign",
        onnx.ModelProto.SerializeToString(helper.make_model(graph, opset_imports=opsets, ir_version=8)),
    )
    connection.load_model("foreign")
    np.testing.assert_allclose(mean(connection, "foreign", images), 2 * images.astype(np.float64).mean(axis=(1, 2)), rtol=1e-6)
    assert "model 'foreign': OpenVINO does not take it, onnxruntime runs it" in running_triton.log.read_text()


@pytest.mark.parametrize(
    ("name", "config", "graph", "message"),
    [
        ("hint", CONFIG + HINT.replace("{}", "PERHAPS"), channel_means(), "HINT_BF16"),
        ("threads", CONFIG.replace('"1"', '"many"'), channel_means(), "INFERENCE_NUM_THREADS"),
        ("broken", CONFIG, b"not a graph", "onnxruntime cannot open"),
    ],
)
def test_wrong_parameters_and_files_are_refused_with_a_reason(running_triton, connection, name, config, graph, message):
    put(running_triton.repository, name, graph, config)
    with pytest.raises(InferenceServerException, match=message):
        connection.load_model(name)


_WITHOUT = """
import json, sys, types
pb_utils = types.ModuleType("triton_python_backend_utils")
pb_utils.TritonModelException = RuntimeError
sys.modules["triton_python_backend_utils"] = pb_utils
import numpy as np, openvino
from oteo_local.backends.openvino_graphs import OpenvinoGraph
from pathlib import Path

class OfAnEarlierProcessor(openvino.Core):
    def get_property(self, device, name):
        return [one for one in super().get_property(device, name) if one != "BF16"] if name == "OPTIMIZATION_CAPABILITIES" else super().get_property(device, name)
    def compile_model(self, model, device, settings):
        hints.append(settings["INFERENCE_PRECISION_HINT"])
        return super().compile_model(model, device, settings)

openvino.Core, said, hints = OfAnEarlierProcessor, [], []
graph = OpenvinoGraph(Path(sys.argv[1]), {"output": [{"name": "mean"}], "parameters": {"HINT_BF16": {"string_value": "yes"}}}, said.append)
[first] = graph.run(["mean"], {"image": np.full((2, 4, 4, 3), 7, np.uint8)})
graph.run(["mean"], {"image": np.zeros((2, 4, 4, 3), np.uint8)})
print(json.dumps([said, hints, first.tolist()]))
"""


def test_a_processor_without_bfloat16_runs_in_full_precision_and_it_is_said(triton_environment: TritonEnvironment, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(channel_means())
    python = triton_environment.prefix / "bin" / "python"
    done = subprocess.run([python, "-I", "-c", _WITHOUT, tmp_path / "model.onnx"], capture_output=True, text=True, check=True)
    said, hints, first = json.loads(done.stdout)
    assert len(said) == 1
    assert "no instructions for bfloat16" in said[0]
    assert hints == ["f32"]
    assert first == [[7.0] * 3] * 2, "an answer was written over by the next"
