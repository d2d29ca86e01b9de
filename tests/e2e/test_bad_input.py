"""Bad input, each kind answered by a status, a reason and the field: through the gateway, by real services."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import bad_inputs
import pytest
from gateway_calls import Answer, Calls
from google.longrunning import operations_pb2

from oteo_core.sampledata import CLASSES
from oteo_protos.augment.v1 import augment_pb2, dataset_pb2
from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.gateway.v1 import deployment_pb2, inference_pb2, pipeline_pb2
from oteo_protos.type.v1 import image_pb2, report_pb2, task_pb2

pytestmark = pytest.mark.stack


@dataclass
class Place:
    """What a case is given: an empty folder, the gateway, a published dataset and a deployed model."""

    folder: Path
    calls: Calls
    dataset: str
    deployment: str

    def load(self, source: Path | str, **fields: object) -> operations_pb2.Operation:
        """Import a source."""
        return self.calls.datasets.ImportDataset(dataset_pb2.ImportDatasetRequest(source_uri=str(source), **fields))

    def train(self, **fields: object) -> operations_pb2.Operation:
        """Train on the published dataset."""
        return self.calls.automl.TrainModel(automl_pb2.TrainModelRequest(**({"dataset": self.dataset} | fields)))

    def predict(self, deployment: str = "", **source: object) -> inference_pb2.PredictResponse:
        """Predict an image."""
        request = inference_pb2.PredictRequest(deployment=deployment or self.deployment, image=image_pb2.ImageSource(**source))
        return self.calls.inference.Predict(request, timeout=60)


@pytest.fixture
def place(tmp_path: Path, calls: Calls, served) -> Place:
    """A place for one case."""
    return Place(tmp_path, calls, served.response.dataset.name, served.response.deployment.name)


def empty(folder: Path) -> Path:
    (folder / "nothing" / "here").mkdir(parents=True)
    return folder / "nothing"


def documents(folder: Path) -> Path:
    (folder / "letters").mkdir()
    for number in range(3):
        (folder / "letters" / f"letter{number}.docx").write_bytes(b"PK\x03\x04 not an image")
    return folder / "letters"


def all_broken(folder: Path) -> Path:
    for name in CLASSES:
        (folder / name).mkdir()
        for number in range(4):
            (folder / name / f"{number}.png").write_bytes(b"no picture, whatever its name says")
    return folder


Case = tuple[Callable[[Place], object], str, str, str]
INVALID, MISSING = "INVALID_ARGUMENT", "NOT_FOUND"

CASES: dict[str, Case] = {
    # Sources of images.
    "empty folder": (lambda p: p.load(empty(p.folder)), INVALID, "EMPTY_SOURCE", "source_uri"),
    "one class only": (lambda p: p.load(bad_inputs.cells(p.folder, classes=CLASSES[:1])), INVALID, "SINGLE_CLASS", "source_uri"),
    "nothing readable": (lambda p: p.load(all_broken(p.folder)), INVALID, "NO_READABLE_IMAGE", "source_uri"),
    "unsupported format": (lambda p: p.load(documents(p.folder)), INVALID, "UNSUPPORTED_FORMAT", "source_uri"),
    "missing source": (lambda p: p.load(p.folder / "not-there"), MISSING, "SOURCE_NOT_FOUND", "source_uri"),
    "zip with ../": (
        lambda p: p.load(bad_inputs.zip_of(p.folder / "in", p.folder / "a.zip", extra="../../evil.png")),
        INVALID,
        "UNSAFE_ARCHIVE",
        "source_uri",
    ),
    "zip with a symbolic link": (
        lambda p: p.load(bad_inputs.zip_of(p.folder / "in", p.folder / "a.zip", link_to="/etc/passwd")),
        INVALID,
        "UNSAFE_ARCHIVE",
        "source_uri",
    ),
    "tar with ../": (
        lambda p: p.load(bad_inputs.tar_of(p.folder / "in", p.folder / "a.tar.gz", extra="lymphocyte/../../evil.png")),
        INVALID,
        "UNSAFE_ARCHIVE",
        "source_uri",
    ),
    "tar with an absolute path": (
        lambda p: p.load(bad_inputs.tar_of(p.folder / "in", p.folder / "a.tar.gz", extra="/tmp/evil.png")),
        INVALID,
        "UNSAFE_ARCHIVE",
        "source_uri",
    ),
    "tar with a symbolic link": (
        lambda p: p.load(bad_inputs.tar_of(p.folder / "in", p.folder / "a.tar.gz", link_to="../../../../etc/passwd")),
        INVALID,
        "UNSAFE_ARCHIVE",
        "source_uri",
    ),
    "damaged archive": (
        lambda p: p.load(bad_inputs.with_file(p.folder, "a.zip", b"PK\x03\x04 and no more") / "a.zip"),
        INVALID,
        "DAMAGED_ARCHIVE",
        "source_uri",
    ),
    # Annotations that do not bear the task.
    "boxes asked of class folders": (
        lambda p: p.load(bad_inputs.cells(p.folder), task=task_pb2.TASK_DETECTION),
        INVALID,
        "WRONG_TASK",
        "task",
    ),
    "boxes asked of a dataset with classes": (
        lambda p: p.train(task=task_pb2.TASK_DETECTION, budget={"seconds": 60}),
        INVALID,
        "WRONG_TASK",
        "task",
    ),
    # Requests.
    "budget of zero": (lambda p: p.train(budget={}), INVALID, "INVALID_REQUEST", "budget"),
    "no budget": (lambda p: p.train(), INVALID, "INVALID_REQUEST", "budget"),
    "pipeline with a budget of zero": (
        lambda p: p.calls.pipelines.RunPipeline(pipeline_pb2.RunPipelineRequest(dataset=p.dataset, budget={})),
        INVALID,
        "INVALID_REQUEST",
        "budget",
    ),
    "dataset that is not there": (
        lambda p: p.train(dataset="datasets/none", budget={"seconds": 60}),
        MISSING,
        "DATASET_NOT_FOUND",
        "dataset",
    ),
    "shares that do not add up": (
        lambda p: p.load(bad_inputs.cells(p.folder), split={"train": 0.9, "validation": 0.3}),
        INVALID,
        "INVALID_REQUEST",
        "split",
    ),
    "pattern that is none": (
        lambda p: p.load(bad_inputs.cells(p.folder), split={"group_pattern": "(patient"}),
        INVALID,
        "BAD_GROUP_PATTERN",
        "split.group_pattern",
    ),
    "augmentation of a class that is not there": (
        lambda p: p.calls.augment.AugmentDataset(augment_pb2.AugmentDatasetRequest(dataset=p.dataset, copies_by_class={"basophil": 2})),
        INVALID,
        "UNKNOWN_CLASS",
        "copies_by_class['basophil']",
    ),
    "model that is not there": (
        lambda p: p.calls.deployments.CreateDeployment(
            deployment_pb2.CreateDeploymentRequest(deployment=deployment_pb2.Deployment(models=[{"model": "models/none"}]))
        ),
        MISSING,
        "MODEL_NOT_FOUND",
        "deployment.models[0].model",
    ),
    # Images for a prediction.
    "unreadable image": (lambda p: p.predict(content=b"no picture"), INVALID, "UNREADABLE_IMAGE", "image"),
    "truncated PNG": (lambda p: p.predict(content=bad_inputs.truncated_png()), INVALID, "TRUNCATED_IMAGE", "image"),
    "PNG bomb of 30,000 x 30,000": (lambda p: p.predict(content=bad_inputs.png_bomb()), INVALID, "IMAGE_TOO_LARGE", "image"),
    "image of an unsupported format": (
        lambda p: p.predict(content=b"\x00\x00\x00\x1cftypheic" + bytes(200)),
        INVALID,
        "UNSUPPORTED_FORMAT",
        "image",
    ),
    "sample that is not there": (
        lambda p: p.predict(sample=f"{p.dataset}/samples/none"),
        MISSING,
        "SAMPLE_NOT_FOUND",
        "image.sample",
    ),
    "file that is not there": (lambda p: p.predict(uri="uploads/none.png"), MISSING, "IMAGE_NOT_FOUND", "image.uri"),
    "deployment that is not there": (
        lambda p: p.predict(deployment="deployments/none", content=bad_inputs.good_png()),
        MISSING,
        "DEPLOYMENT_NOT_FOUND",
        "deployment",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_with_status_reason_and_field(place, name):
    act, code, reason, field = CASES[name]
    answer = place.calls.refusal(lambda: act(place))
    assert (answer.code, answer.reason) == (code, reason), answer
    assert field in answer.fields, answer
    assert answer.domain == "oteo"
    assert len(answer.message) > 15


FINDINGS = {
    "monocyte/bad.png": (b"no picture", "UNREADABLE_IMAGE"),
    "monocyte/half.png": (bad_inputs.truncated_png(), "TRUNCATED_IMAGE"),
    "monocyte/bomb.png": (bad_inputs.png_bomb(), "IMAGE_TOO_LARGE"),
    "basophil/cell.png": (bad_inputs.good_png(), "UNKNOWN_CLASS"),
}


def test_bad_files_among_good_ones_are_named_and_the_others_are_kept(place):
    source = bad_inputs.cells(place.folder)
    for path, (data, _) in FINDINGS.items():
        (source / path).parent.mkdir(exist_ok=True)
        (source / path).write_bytes(data)
    dataset = place.calls.result(place.load(source, classes=CLASSES)).dataset
    assert (dataset.sample_count, dataset.excluded_count) == (24, len(FINDINGS))
    counted = {count.code: count.count for count in dataset.findings}
    assert all(counted[code] == 1 for _, code in FINDINGS.values())
    listed = place.calls.datasets.ListSamples(dataset_pb2.ListSamplesRequest(parent=dataset.name, include_excluded=True))
    found = {
        finding.path: (finding.code, finding.severity)
        for sample in listed.samples
        if sample.excluded
        for finding in sample.findings
        if finding.severity == report_pb2.Finding.SEVERITY_ERROR
    }
    assert found == {path: (code, report_pb2.Finding.SEVERITY_ERROR) for path, (_, code) in FINDINGS.items()}


def test_a_call_without_a_token_or_with_a_wrong_one(place):
    for token, reason in (("", "TOKEN_MISSING"), ("wrong", "TOKEN_INVALID")):
        calls = Calls(place.calls.address, token)
        answer = calls.refusal(lambda calls=calls: calls.datasets.ListDatasets(dataset_pb2.ListDatasetsRequest(), timeout=10))
        assert (answer.code, answer.reason) == ("UNAUTHENTICATED", reason)
        calls.close()


def test_a_message_over_the_size_limit(place):
    answer: Answer = place.calls.refusal(lambda: place.predict(content=bytes(65 * 1024 * 1024)))
    # gRPC itself refuses before any of our code sees the message, so its status has no details.
    assert answer.code == "RESOURCE_EXHAUSTED"
    assert "larger than max" in answer.message
    # The connection and the service are none the worse for it.
    assert place.predict(content=bad_inputs.good_png()).classification.scores
