"""Detection and segmentation from a dataset to a published package, by the job's own code."""

from __future__ import annotations

import numpy as np
import pytest
from training_tools import train, write_discs

from oteo_automl.dense import find_task
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader
from oteo_core.errors import InvalidArgument
from oteo_core.graphs.export import run_onnx
from oteo_core.images import prepare
from oteo_core.packages import read_model

TASKS = [
    pytest.param("detection", "map50", 0.5, id="detection", marks=pytest.mark.slow),
    pytest.param("semantic_segmentation", "dice", 0.4, id="semantic", marks=pytest.mark.slow),
    pytest.param("instance_segmentation", "pq", 0.3, id="instances", marks=pytest.mark.slow),
]


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(f"file://{tmp_path}/store")


@pytest.mark.parametrize(("task", "metric", "least"), TASKS)
def test_a_dataset_becomes_a_package_whose_graph_finds_the_discs(task, metric, least, store, tmp_path, monkeypatch):
    write_discs(store, task, count=60)
    response = train(monkeypatch, store, tmp_path, "discs", seconds=40 if task == "detection" else 90)
    package = read_model(store, "made")
    assert response.model.name == "models/made"
    assert package.task == task
    figure = package.metric(metric)
    assert figure.value > least
    assert figure.lower <= figure.value <= figure.upper
    assert package.parity_error < 1e-3
    assert [trial.state for trial in package.trials].count("failed") == 0
    assert {"predictions.csv", "predictions.json", "network.pt", "report.html", "README.md"} <= set(package.files)

    # What is published is enough to answer: the graph, the policy and the decoding, and nothing of the training.
    reader = DatasetReader(store, "discs")
    samples = list(reader.samples("test"))
    pixels = np.stack([prepare(reader.image(sample).pixels, package.input) for sample in samples])
    graph = store.read_bytes("models/made/triton/made/1/model.onnx")
    found = dict(zip(_names(graph), run_onnx(graph, pixels), strict=True))
    answers = find_task(task).answers(found, [(sample.width, sample.height) for sample in samples], package.input, package.decoding)
    data = find_task(task).read(reader)
    truths = [data.truths(int(row)) for row in data.part("test")]
    again = find_task(task).evaluate(truths, answers, data.classes, groups=[""] * len(truths), split="test", seed=0)
    assert next(one.value for one in again if one.name == metric and not one.class_name) == pytest.approx(figure.value, abs=0.01)


def _names(graph: bytes) -> list[str]:
    import onnx

    return [output.name for output in onnx.load_model_from_string(graph).graph.output]


def test_a_plan_is_measured_and_nothing_is_trained(store, tmp_path, monkeypatch):
    write_discs(store, "detection", count=40)
    response = train(monkeypatch, store, tmp_path, "discs", seconds=120, validate_only=True)
    assert not response.HasField("model")
    assert not store.is_file("models/made/package.json")
    chosen = [one for one in response.plan.candidates if not one.reason.startswith("left out")]
    assert chosen
    assert any(one.step_time.ToMicroseconds() > 0 and one.peak_memory_bytes > 0 for one in chosen)
    assert all(one.epochs > 0 and one.epoch_time.ToMicroseconds() > 0 for one in chosen)
    assert any(one.reason.startswith("left out: ") for one in response.plan.candidates)
    assert dict(response.plan.fingerprint["objects"])
    assert "epochs" in response.plan.summary


def test_an_objective_of_another_task_is_refused_with_those_there_are(store, tmp_path, monkeypatch):
    write_discs(store, "detection", count=20)
    with pytest.raises(InvalidArgument, match="map50_95") as caught:
        train(monkeypatch, store, tmp_path, "discs", objective="dice")
    assert caught.value.reason == "BAD_OBJECTIVE"
