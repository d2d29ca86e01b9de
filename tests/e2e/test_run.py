"""From a folder of images to a served prediction."""

from __future__ import annotations

import hashlib

import pytest

from oteo_core.artifacts import ArtifactStore
from oteo_core.sampledata import CLASSES, draw_cell
from oteo_protos.augment.v1 import dataset_pb2
from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.gateway.v1 import deployment_pb2, inference_pb2
from oteo_protos.type.v1 import image_pb2, report_pb2, task_pb2

pytestmark = pytest.mark.stack


def test_every_step_ended_and_the_budget_was_kept(served):
    steps = {step.step: step for step in served.metadata.steps}
    assert list(steps) == ["import", "audit", "train", "deploy", "evaluate"]
    assert all(step.progress.state == report_pb2.Progress.STATE_SUCCEEDED for step in steps.values())
    assert served.metadata.progress.fraction == 1.0
    training = steps["train"].progress
    seconds = training.end_time.ToNanoseconds() / 1e9 - training.start_time.ToNanoseconds() / 1e9
    assert seconds <= (1.6 if served.crowded else 1.1) * served.budget


def test_the_dataset_reports_every_flaw_and_leaks_nothing(served, calls):
    dataset = served.response.dataset
    found = {count.code: count.count for count in dataset.findings}
    assert found["TRUNCATED_IMAGE"] == 1
    assert (dataset.sample_count, dataset.excluded_count) == (147, 1)
    assert [info.name for info in dataset.classes] == list(CLASSES)
    listed = calls.datasets.ListSamples(dataset_pb2.ListSamplesRequest(parent=dataset.name, page_size=1000)).samples
    by_content: dict[str, set[int]] = {}
    by_group: dict[str, set[int]] = {}
    for sample in listed:
        if not sample.excluded:
            by_content.setdefault(sample.sha256, set()).add(sample.split)
            by_group.setdefault(sample.group, set()).add(sample.split)
    assert len(by_content) == 147 - len(served.drawn.duplicates)
    assert all(len(splits) == 1 for splits in (*by_content.values(), *by_group.values()))
    assert {split for splits in by_group.values() for split in splits} == {
        task_pb2.SPLIT_TRAIN,
        task_pb2.SPLIT_VALIDATION,
        task_pb2.SPLIT_TEST,
    }


def test_the_model_is_better_than_guessing_and_says_how_sure_it_is(served):
    metrics = {(m.name, m.split): m for m in served.response.model.metrics if not m.class_name}
    accuracy = metrics["accuracy", "test"]
    assert accuracy.value > 0.5
    assert accuracy.lower < accuracy.value < accuracy.upper or accuracy.value in (accuracy.lower, accuracy.upper)
    assert ("ece", "test") in metrics
    through = {m.name: m for m in served.response.metrics if not m.class_name}
    # The same images through the deployment: what was packaged is what was measured.
    assert through["accuracy"].value == pytest.approx(accuracy.value, abs=1e-9)


def test_package_report_and_card_are_there(served, stack):
    store = ArtifactStore(f"file://{stack.home}/artifacts")
    prefix = served.response.model.name
    for name in ("package.json", "report.html", "README.md", "predictions.csv", f"triton/{prefix.split('/')[1]}/1/model.onnx"):
        assert store.is_file(f"{prefix}/{name}"), name
    report = store.read_bytes(f"{prefix}/report.html").decode()
    assert "<svg" in report or "data:image" in report
    # One self-contained page: nothing is fetched from elsewhere.
    assert 'src="http' not in report
    assert 'href="http' not in report.replace('href="https://doi.org', "")


def test_the_deployment_answers(served, calls):
    deployment = calls.deployments.GetDeployment(deployment_pb2.GetDeploymentRequest(name=served.response.deployment.name))
    assert deployment.state == deployment_pb2.Deployment.STATE_READY
    right = 0
    for index in range(12):
        from oteo_core.images import encode_png

        pixels, label, _ = draw_cell(index, seed=1234)
        content = encode_png(pixels)
        request = inference_pb2.PredictRequest(deployment=deployment.name, image=image_pb2.ImageSource(content=content))
        answer = calls.inference.Predict(request, timeout=60)
        scores = answer.classification.scores
        assert [s.class_name for s in scores] == [s.class_name for s in sorted(scores, key=lambda s: -s.probability)]
        assert sum(s.probability for s in scores) == pytest.approx(1, abs=1e-4)
        assert (answer.image.width, answer.image.height, answer.image.channels) == (112, 112, 3)
        assert answer.image.sha256 == hashlib.sha256(content).hexdigest()
        assert answer.model == served.response.model.name
        assert answer.timing.total.ToNanoseconds() > 0
        right += scores[0].class_name == label
    assert right >= 6  # of three classes; pictures that nobody trained on


def test_a_sample_by_name_is_answered_as_its_bytes_are(served, calls):
    dataset = served.response.dataset.name
    sample = calls.datasets.ListSamples(dataset_pb2.ListSamplesRequest(parent=dataset, page_size=1)).samples[0]
    request = inference_pb2.PredictRequest(
        deployment=served.response.deployment.name, image=image_pb2.ImageSource(sample=sample.name), top_k=2
    )
    answer = calls.inference.Predict(request, timeout=60)
    assert len(answer.classification.scores) == 2
    assert answer.image.sha256 == sample.sha256


def test_trials_can_be_looked_at(served, calls):
    trials = calls.automl.ListTrials(automl_pb2.ListTrialsRequest(parent=served.response.model.name)).trials
    assert len(trials) >= 2
    assert len({trial.name for trial in trials}) == len(trials)
