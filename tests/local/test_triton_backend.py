"""The embedded Triton serves ONNX models as NVIDIA's container does."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc as client
from local_models import channel_means
from tritonclient.utils import InferenceServerException
from waiting import patient, wait_for

from oteo_local import processes, triton

TYPES = {np.dtype(np.uint8): "UINT8", np.dtype(np.float32): "FP32"}


@pytest.fixture(scope="module")
def connection(running_triton: triton.RunningTriton) -> Iterator[client.InferenceServerClient]:
    with client.InferenceServerClient(running_triton.address) as connection:
        yield connection


def infer(connection: client.InferenceServerClient, name: str, images: np.ndarray, outputs: list[str] | None = None) -> client.InferResult:
    tensor = client.InferInput("image", images.shape, TYPES[images.dtype])
    tensor.set_data_from_numpy(images)
    wanted = None if outputs is None else [client.InferRequestedOutput(output) for output in outputs]
    return connection.infer(name, [tensor], outputs=wanted, client_timeout=120)


def means(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float64).mean(axis=(1, 2))


def stubs(running: triton.RunningTriton, model: str) -> list[psutil.Process]:
    found = []
    for process in processes.tree(running.process.pid)[1:]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            if any(part.startswith(f"{model}_") for part in process.cmdline()):
                found.append(process)
    return found


def test_a_model_is_listed_loaded_answers_and_is_unloaded(running_triton, connection, put_model, images):
    put_model(running_triton.repository, "whole")
    listed = {entry.name: entry.state for entry in connection.get_model_repository_index().models}
    assert listed["whole"] != "READY"

    connection.load_model("whole")

    assert connection.is_model_ready("whole")
    answer = infer(connection, "whole", images)
    np.testing.assert_allclose(answer.as_numpy("mean"), means(images), rtol=1e-6)
    np.testing.assert_allclose(answer.as_numpy("total")[:, 0], means(images).sum(axis=1), rtol=1e-6)

    connection.unload_model("whole")
    wait_for(lambda: not stubs(running_triton, "whole"), 10)
    assert not connection.is_model_ready("whole")


@pytest.mark.parametrize(
    "config", [None, 'backend: "onnxruntime"\n', 'platform: "onnxruntime_onnx"\ninput [ {{ name: "image" }} ]\nmax_batch_size: 8\n']
)
def test_what_the_configuration_leaves_out_is_read_from_the_graph(running_triton, connection, put_model, images, config, request):
    name = f"partial-{request.node.callspec.indices['config']}"
    put_model(running_triton.repository, name, config=config)
    connection.load_model(name)

    metadata = connection.get_model_metadata(name)
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in metadata.inputs] == [("image", "UINT8", [-1, 4, 4, 3])]
    assert {tensor.name for tensor in metadata.outputs} == {"mean", "total"}
    assert connection.get_model_config(name).config.max_batch_size == (8 if config and "max_batch_size" in config else 4)
    np.testing.assert_allclose(infer(connection, name, images[:4]).as_numpy("mean"), means(images[:4]), rtol=1e-6)


def test_a_graph_without_a_batch_axis_is_served_without_batching(running_triton, connection, put_model, images):
    put_model(running_triton.repository, "fixed", config=None, batch=1)
    connection.load_model("fixed")
    assert connection.get_model_config("fixed").config.max_batch_size == 0
    np.testing.assert_allclose(infer(connection, "fixed", images[:1]).as_numpy("mean"), means(images[:1]), rtol=1e-6)


def test_float_images_and_only_the_outputs_asked_for(running_triton, connection, put_model, images):
    put_model(running_triton.repository, "real", config=None, dtype=1)
    connection.load_model("real")
    answer = infer(connection, "real", images[:2].astype(np.float32), outputs=["total"])
    assert answer.as_numpy("mean") is None
    np.testing.assert_allclose(answer.as_numpy("total")[:, 0], means(images[:2]).sum(axis=1), rtol=1e-6)


def test_requests_batched_together_each_get_their_own_answer(running_triton, connection, put_model):
    config = """name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: 64\ninstance_group [ {{ count: 1 kind: KIND_CPU }} ]
dynamic_batching {{ preferred_batch_size: [ 32 ] max_queue_delay_microseconds: 200000 }}\n"""
    put_model(running_triton.repository, "batched", config=config)
    connection.load_model("batched")
    generator = np.random.default_rng(3)
    asked = [generator.integers(0, 256, (1 + index % 3, 4, 4, 3), dtype=np.uint8) for index in range(16)]
    answered: dict[int, client.InferResult] = {}

    def ask(index: int) -> None:
        answered[index] = infer(connection, "batched", asked[index])

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for index, images in enumerate(asked):
        np.testing.assert_allclose(answered[index].as_numpy("mean"), means(images), rtol=1e-6)
        assert answered[index].as_numpy("total").shape == (len(images), 1)
    # Triton counts a request after it has answered it.
    wait_for(lambda: connection.get_inference_statistics("batched").model_stats[0].inference_count >= sum(map(len, asked)), 10)
    statistics = connection.get_inference_statistics("batched").model_stats[0]
    assert statistics.inference_count == sum(len(images) for images in asked)
    assert statistics.execution_count < len(asked), "requests were run one by one"


def test_a_request_of_the_wrong_shape_is_refused_and_harms_no_other(running_triton, connection, put_model, images):
    # The configuration allows any side, so that it is the graph which finds the fault, in the middle of a batch.
    config = """name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: 16\ninput [ {{ name: "image" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]\ndynamic_batching {{ max_queue_delay_microseconds: 100000 }}\n"""
    put_model(running_triton.repository, "strict", config=config)
    connection.load_model("strict")
    outcome: dict[int, object] = {}
    sides = [4, 4, 6, 4]

    def ask(index: int) -> None:
        given = np.full((1, sides[index], sides[index], 3), index, dtype=np.uint8)
        try:
            outcome[index] = infer(connection, "strict", given).as_numpy("mean")
        except InferenceServerException as error:
            outcome[index] = error

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(sides))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert isinstance(outcome[2], InferenceServerException)
    assert "INVALID_ARGUMENT" in str(outcome[2].status())
    for index in (0, 1, 3):
        np.testing.assert_array_equal(outcome[index], np.full((1, 3), index))
    with pytest.raises(InferenceServerException, match="image"):
        infer(connection, "strict", images.astype(np.float32))


def test_files_and_configuration_uploaded_with_the_call_are_served(running_triton, connection, images, tmp_path):
    config = '{"backend": "onnxruntime", "max_batch_size": 8, "instance_group": [{"count": 1, "kind": "KIND_CPU"}]}'
    connection.load_model("uploaded", config=config, files={"file:1/model.onnx": channel_means(scale=2.0)})
    np.testing.assert_allclose(infer(connection, "uploaded", images).as_numpy("mean"), 2 * means(images), rtol=1e-6)
    assert not (running_triton.repository / "uploaded").exists()
    connection.unload_model("uploaded")


def test_a_new_version_of_the_file_is_served_after_another_load(running_triton, connection, put_model, images):
    folder = put_model(running_triton.repository, "again")
    connection.load_model("again")
    (folder / "1" / "model.onnx").write_bytes(channel_means(scale=3.0))
    connection.load_model("again")
    np.testing.assert_allclose(infer(connection, "again", images).as_numpy("mean"), 3 * means(images), rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('name: "{name}"\nbackend: "onnxruntime"\ninput [ {{ name: "picture" data_type: TYPE_UINT8 dims: [ 4 ] }} ]\n', "picture"),
        ('name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: 4\ninput [ {{ name: "image" data_type: TYPE_FP32 }} ]\n', "TYPE_FP32"),
        (
            'name: "{name}"\nbackend: "onnxruntime"\nparameters {{ key: "intra_op_thread_count" value: {{ string_value: "many" }} }}\n',
            "intra_op_thread_count",
        ),
    ],
)
def test_a_configuration_that_the_graph_contradicts_is_refused_with_a_reason(
    running_triton, connection, put_model, config, message, request
):
    name = f"wrong-{request.node.callspec.indices['config']}"
    put_model(running_triton.repository, name, config=config)
    with pytest.raises(InferenceServerException, match=message):
        connection.load_model(name)


def test_a_broken_file_is_refused_and_other_models_stay(running_triton, connection, put_model, images):
    put_model(running_triton.repository, "sound")
    connection.load_model("sound")
    folder = put_model(running_triton.repository, "broken")
    (folder / "1" / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(InferenceServerException, match="onnxruntime cannot open"):
        connection.load_model("broken")
    assert infer(connection, "sound", images).as_numpy("mean").shape == (5, 3)


def test_a_killed_stub_shows_in_inference_and_is_mended_by_touching_and_loading(running_triton, connection, put_model, images):
    folder = put_model(running_triton.repository, "mended")
    connection.load_model("mended")
    infer(connection, "mended", images)
    (stub,) = stubs(running_triton, "mended")

    os.kill(stub.pid, signal.SIGKILL)
    wait_for(lambda: not processes.is_alive(stub), pause=0.01)
    with pytest.raises(InferenceServerException):
        infer(connection, "mended", images)

    for file in [folder / "config.pbtxt", folder / "1" / "model.onnx"]:
        file.touch()
    connection.load_model("mended")
    np.testing.assert_allclose(infer(connection, "mended", images).as_numpy("mean"), means(images), rtol=1e-6)


def test_throughput_of_a_small_model_is_that_of_the_transport(running_triton, connection, put_model, images):
    put_model(running_triton.repository, "quick")
    connection.load_model("quick")
    infer(connection, "quick", images)
    started = time.perf_counter()
    count = 200
    for _ in range(count):
        infer(connection, "quick", images)
    # About 3 ms a request here, of which the batcher waits 2; thirty times that would be a defect and not a busy machine.
    assert (time.perf_counter() - started) / count < 0.1


def test_nothing_is_left_of_a_triton_that_was_stopped(triton_environment, put_model, images, tmp_path):
    put_model(tmp_path, "some")
    with (
        triton.start(tmp_path, load=("some",), environment=triton_environment, timeout=patient(30)) as running,
        client.InferenceServerClient(running.address) as connection,
    ):
        wait_for(lambda: connection.is_model_ready("some"), 20)
        infer(connection, "some", images)
        members = processes.tree(running.process.pid)
        segments = [Path(path) for path in processes.shared_memory_of(members)]
        assert len(members) == 2
        assert segments
    assert not any(processes.is_alive(process) for process in members)
    assert not any(segment.exists() for segment in segments)


def test_segments_of_a_killed_triton_are_removed_by_the_next(triton_environment, put_model, tmp_path):
    put_model(tmp_path, "some")
    with triton.start(tmp_path, load=("some",), environment=triton_environment, timeout=patient(30)) as running:
        with client.InferenceServerClient(running.address) as connection:
            wait_for(lambda: connection.is_model_ready("some"), 20)
        members = processes.tree(running.process.pid)
        segments = {Path(path).name for path in processes.shared_memory_of(members)}
        processes.end(members, grace=0)
        assert segments
        assert segments <= set(processes.remove_unused_triton_segments(older_than=0))


def test_a_port_in_use_is_named(running_triton, triton_environment, tmp_path):
    port = running_triton.server.grpc_port
    with (
        pytest.raises(triton.TritonFailed, match=f"port {port}"),
        triton.start(tmp_path, grpc_port=port, environment=triton_environment, timeout=patient(30)),
    ):
        pass
