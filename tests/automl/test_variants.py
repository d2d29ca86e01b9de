"""Half precision, 8-bit integers and bfloat16: kept where they lose little, named with the reason where they do not; TensorRT in Triton's configuration."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
import torch
from google.protobuf import text_format
from model_packages import classical, network
from onnx import TensorProto
from training_runs import Home
from training_tools import train
from tritonclient.grpc import model_config_pb2
from waiting import patient

from oteo_automl.packaging.bfloat16 import serve_bf16
from oteo_automl.packaging.served import ServedClassifier
from oteo_automl.packaging.tensorrt import accelerated, with_tensorrt
from oteo_automl.packaging.variants import Served, VariantRequest, Variants, make_variants
from oteo_core.errors import FailedPrecondition
from oteo_core.graphs.config import LABELS, bf16_config_pbtxt, config_pbtxt, labels_txt
from oteo_core.graphs.export import export_onnx, session
from oteo_core.graphs.outputs import classification_outputs
from oteo_core.graphs.parity import Parity, TritonAway
from oteo_core.graphs.running import run_torch
from oteo_core.graphs.triton import TritonParityClient
from oteo_core.images import InputPolicy
from oteo_core.packages import read_model
from oteo_core.packages.variants import BF16, FP16, INT8

POLICY = InputPolicy(width=32, height=32)
OUTPUTS = classification_outputs(3)
NAMES = [output.name for output in OUTPUTS]


def blots(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)


@pytest.fixture(scope="module")
def graph() -> tuple[bytes, torch.nn.Module]:
    served = ServedClassifier(network(), 1.0).eval()
    return export_onnx(served, POLICY, OUTPUTS, blots(4, 0)).data, served


def asked(served: torch.nn.Module, kinds=(FP16, INT8), **changes) -> VariantRequest:
    """Judge by the share of images that are answered as the network does, where it is sure."""
    held_out = blots(60, 2)
    wanted = run_torch(served, held_out)[0]
    ranked = np.sort(wanted, axis=1)
    held_out = held_out[ranked[:, -1] - ranked[:, -2] > 0.1]
    labels = run_torch(served, held_out)[0].argmax(axis=1)
    given = {"figure": lambda outputs: float((outputs["probabilities"].argmax(axis=1) == labels).mean()), **changes}
    return VariantRequest(kinds, "accuracy", calibration=blots(32, 1), held_out=held_out, **given)


@pytest.fixture(scope="module")
def variants(graph) -> tuple[VariantRequest, Variants]:
    """Both variants of the graph, and what was asked for."""
    data, served = graph
    request = asked(served)
    return request, make_variants(request, data, OUTPUTS, deadline=time.time() + 600)


def test_both_are_smaller_answer_alike_and_keep_their_ends(graph, variants):
    data, served = graph
    request, made = variants
    base, half, integers = made.details
    assert (base["kind"], base["figure"], base["size"]) == ("fp32", 1.0, len(data))
    assert set(made.files) == {"variants/fp16.onnx", "variants/int8.onnx"}
    assert half["size"] == len(made.files["variants/fp16.onnx"]) < 0.55 * len(data)
    assert integers["size"] == len(made.files["variants/int8.onnx"]) < 0.35 * len(data)
    for one in (half, integers):
        assert one["kept"]
        assert one["loss"] <= 0.01
        assert one["latency"] > 0
        assert "times the speed" in one["reason"]
    expected = run_torch(served, request.held_out)[0]
    for name, content in made.files.items():
        model = onnx.load_model_from_string(content)
        assert [value.type.tensor_type.elem_type for value in model.graph.input] == [TensorProto.UINT8]
        assert [value.type.tensor_type.elem_type for value in model.graph.output] == [TensorProto.FLOAT] * 2
        for count in (1, 5):
            probabilities = session(content).run(["probabilities"], {"image": request.held_out[:count]})[0]
            assert np.abs(probabilities - expected[:count]).mean() < 0.05, name


@pytest.mark.parametrize(
    ("noise", "before", "kept", "words"),
    [
        (0.0, 0.02, True, "kept: 4 times the speed as Triton serves it here (20 ms an image before)"),
        (0.0, 0.005, False, "a processor without bfloat16 gains nothing by it"),
        (1.0, 0.02, False, "not kept: it loses"),
    ],
)
def test_bfloat16_is_kept_where_the_triton_that_serves_it_is_faster_and_answers_alike(graph, noise, before, kept, words):
    data, served = graph
    request = asked(served, (BF16,))

    def server(images):
        probabilities, logits = run_torch(served, images)
        turned = noise * probabilities[:, ::-1] + (1 - noise) * probabilities
        return Served(b"configuration", {"logits": logits, "probabilities": turned}, 0.005, before)

    made = make_variants(request, data, OUTPUTS, deadline=time.time() + 600, server=server)
    assert words in made.details[1]["reason"]
    assert made.details[1]["kept"] is kept
    assert made.files == ({"variants/bf16.pbtxt": b"configuration"} if kept else {})
    assert made.details[1]["size"] == len(data)


def test_bfloat16_without_a_triton_that_serves_it_is_named_and_stops_nothing(graph):
    data, served = graph

    def refused(images):
        raise ValueError("unknown backend: openvino")

    made = make_variants(asked(served, (BF16,)), data, OUTPUTS, deadline=time.time() + 600, server=refused)
    assert made.files == {}
    assert made.details[1]["reason"] == "no Triton serves it (ValueError: unknown backend: openvino)"


def test_a_real_triton_serves_both_forms_in_turn_and_keeps_neither(graph):
    from oteo_local.triton import start
    from oteo_local.triton_env import TritonEnvironmentError

    data, served = graph
    images = blots(5, 3)
    configs = [make("m", POLICY, OUTPUTS, parameters={}) for make in (config_pbtxt, bf16_config_pbtxt)]
    files = {"1/model.onnx": data, LABELS: labels_txt(["a", "b", "c"]).encode()}
    try:
        with start(timeout=patient(30)) as running:
            client = TritonParityClient(running.address)
            found = serve_bf16(client, "oteo-parity-both", *configs, files, OUTPUTS, images, batch=2, check=lambda: None)
            for left in ("oteo-parity-both", "oteo-parity-both-bf16"):
                with pytest.raises((ValueError, TritonAway)):
                    client.infer(left, images, NAMES)
            client.close()
    except TritonEnvironmentError as error:
        pytest.skip(f"the embedded Triton is not built: {error}")
    assert found.config.decode() == configs[1]
    assert found.latency > 0 < found.before
    for name, expected in zip(NAMES, run_torch(served, images), strict=True):
        assert found.outputs[name].shape == expected.shape
        assert np.abs(found.outputs[name] - expected).max() < 0.05


def test_what_loses_too_much_is_not_kept_and_says_how_much(graph):
    data, served = graph
    expected = run_torch(served, asked(served).held_out)[0]
    request = asked(served, (INT8,), figure=lambda outputs: -100 * float(np.abs(outputs["probabilities"] - expected).mean()))
    made = make_variants(request, data, OUTPUTS, deadline=time.time() + 600)
    assert made.files == {}
    assert not made.details[1]["kept"]
    assert made.details[1]["reason"].startswith("not kept: it loses")
    assert made.details[1]["loss"] > 0.01


def test_no_time_is_said_and_nothing_asked_is_nothing_made(graph):
    data, served = graph
    made = make_variants(asked(served), data, OUTPUTS, deadline=time.time())
    assert made.files == {}
    assert [one["reason"] for one in made.details[1:]] == ["not made: the budget leaves no time for it"] * 2
    assert make_variants(None, data, OUTPUTS, deadline=time.time() + 600).details == []


def test_a_graph_that_gains_nothing_is_left_alone():
    served = ServedClassifier(classical(POLICY), 1.0).eval()
    data = export_onnx(served, POLICY, OUTPUTS, blots(4, 0)).data
    made = make_variants(asked(served), data, OUTPUTS, deadline=time.time() + 600)
    assert made.files == {}
    assert [one["reason"] for one in made.details[1:]] == ["not made: it has so few weights that another form would not help"] * 2


def test_tensorrt_stands_in_the_configuration_and_is_dropped_where_it_answers_otherwise():
    plain = config_pbtxt("m", POLICY, OUTPUTS, parameters={})
    config = text_format.Parse(with_tensorrt(plain, "FP16"), model_config_pb2.ModelConfig())
    [accelerator] = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert accelerator.parameters["precision_mode"] == "FP16"
    tolerances = []

    def proven(tried, wanted):
        tolerances.append({one.name: one.tolerance for one in wanted})
        return Parity(3e-3, 4)

    chosen, words = accelerated(proven, plain, OUTPUTS, "FP16")
    assert chosen == with_tensorrt(plain, "FP16")
    assert "0.003" in words
    assert tolerances == [{"probabilities": 2e-2}]

    def differs(tried, wanted):
        raise FailedPrecondition("it differs by 0.5", reason="PARITY_FAILED")

    chosen, words = accelerated(differs, plain, OUTPUTS, "FP16")
    assert (chosen, words) == (plain, "without TensorRT: it differs by 0.5")
    assert accelerated(differs, plain, OUTPUTS, "") == (plain, "")


def test_a_triton_without_a_gpu_serves_tensorrts_configuration_and_the_variants(graph, variants):
    from oteo_local.triton import start
    from oteo_local.triton_env import TritonEnvironmentError

    data, served = graph
    request, made = variants
    images = np.ascontiguousarray(request.held_out[:5])
    expected = run_torch(served, images)[0]
    config = with_tensorrt(config_pbtxt("m", POLICY, OUTPUTS, parameters={}), "FP16")
    try:
        with start(timeout=patient(30)) as running:
            client = TritonParityClient(running.address)
            for content, tolerance in ((data, 1e-5), (made.files["variants/int8.onnx"], 0.2), (made.files["variants/fp16.onnx"], 0.02)):
                client.load("oteo-parity-v", config, {"1/model.onnx": content, LABELS: labels_txt(["a", "b", "c"]).encode()})
                answer = client.infer("oteo-parity-v", images, ["probabilities"])[0]
                assert np.abs(answer - expected).max() < tolerance
                client.unload("oteo-parity-v")
            client.close()
    except TritonEnvironmentError as error:
        pytest.skip(f"the embedded Triton is not built: {error}")


@pytest.mark.slow
def test_a_training_publishes_them_with_their_figures(tmp_path, monkeypatch):
    home = Home(tmp_path)
    home.dataset("stripes", {"lying": (20, 12, 10), "standing": (20, 12, 10)})
    response = train(
        monkeypatch,
        home.store,
        tmp_path,
        "stripes",
        seconds=60,
        candidates=["timm-resnet10t"],
        variants=["MODEL_VARIANT_FP16", "MODEL_VARIANT_INT8"],
        max_variant_loss=0.1,
    )
    package = read_model(home.store, response.model.name)
    kinds = {one["kind"]: one for one in package.details["variants"]}
    assert set(kinds) == {"fp32", "fp16", "int8"}
    for one in package.details["variants"]:
        assert one["reason"]
        if one["file"]:
            assert package.files[one["file"]].size == one["size"]
            assert home.store.is_file(f"models/{package.id}/{one['file']}")
