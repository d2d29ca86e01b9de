"""Images that come with corrections: held to the limits of predictions, decoded in their places, and flagged where they may name the patient."""

from __future__ import annotations

import hashlib
import resource
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest
from bombs import deflated
from fuzzing.seeds import nested_sequences
from gateway_support import CLASSES, Loop, details_of, picture, publish_model, running_gateway, settings_for
from sequence_files import clip, dicom, nifti, slices, tiff
from waiting import patient, wait_for

from oteo_core.artifacts import open_store
from oteo_core.datasets import DatasetReader
from oteo_core.errors import NotFound
from oteo_gateway.feedback import keeper
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, feedback_pb2, feedback_pb2_grpc, inference_pb2
from oteo_protos.type.v1 import annotation_pb2, image_pb2

NAME = "deployments/colours"
MIB = 1 << 20


class Site:
    """A gateway with narrow limits; nothing serves its deployment, whose answers are made up here."""

    def __init__(self, loop: Loop, home: Path) -> None:
        self.settings = settings_for(
            home,
            max_image_bytes=4 * MIB,
            predict_max_frames=50,
            predict_max_nesting=4,
            predict_concurrency=1,
            predict_queue=0,
            decode_threads=1,
            watch_seconds=0.2,
        )
        self.store = open_store(self.settings)
        publish_model(self.store, "colours")
        spots = publish_model(self.store, "spots")
        spots.task = "semantic_segmentation"
        self.store.write_bytes("models/spots/package.json", spots.to_json())

    def serve(self, channel: grpc.Channel) -> None:
        self.feedback = feedback_pb2_grpc.FeedbackServiceStub(channel)
        stub = deployment_pb2_grpc.DeploymentServiceStub(channel)
        for model in ("colours", "spots"):
            made = deployment_pb2.Deployment(models=[deployment_pb2.DeployedModel(model=f"models/{model}")])
            stub.CreateDeployment(deployment_pb2.CreateDeploymentRequest(deployment=made), timeout=60)

    def correct(self, image: bytes, size: tuple[int, int], frame: int = 0, *, consent: bool = True) -> feedback_pb2.Correction:
        answer = inference_pb2.PredictResponse(deployment=NAME, model="models/colours", frame=frame)
        answer.image.width, answer.image.height, answer.image.sha256 = *size, hashlib.sha256(image).hexdigest()
        answer.classification.decision = "red"
        request = feedback_pb2.SubmitCorrectionRequest(
            parent=NAME,
            answer=answer,
            annotations=[annotation_pb2.Annotation(class_name="green")],
            consent=consent,
            image=image_pb2.ImageSource(content=image) if consent else None,
        )
        return self.feedback.SubmitCorrection(request, timeout=120)

    def refused(self, ask: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            ask()
        return caught.value.code(), details_of(caught.value)[0]


@pytest.fixture(scope="module")
def site(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("corrected")
    found = Site(loop, home)
    with running_gateway(loop, found.settings, log_dir=home / "logs") as running:
        found.serve(running.channel)
        yield found


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (deflated, (8, 8)),
        (lambda: nifti(np.zeros((40, 512, 512), "uint8")), (512, 512)),
        (lambda: nested_sequences(5), (8, 8)),
        (lambda: tiff(slices(1, 51, size=8)), (8, 8)),
        (lambda: dicom(slices(1, 51, size=8), 0, series="1"), (8, 8)),
    ],
    ids=["deflated", "gzip", "nested", "pages", "frames"],
)
def test_a_correction_s_image_is_held_to_the_limits_of_predictions(site: Site, make: Callable[[], bytes], size: tuple[int, int]) -> None:
    data = make()
    assert len(data) < 2 * MIB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert site.refused(lambda: site.correct(data, size)) == (grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_TOO_LARGE")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 100, f"refusing it took {grown:.0f} MiB"


def test_what_predictions_do_not_read_is_not_kept(site: Site, tmp_path: Path) -> None:
    video = clip(tmp_path / "clip.avi", slices(1, 3, size=16)).read_bytes()
    assert site.refused(lambda: site.correct(video, (16, 16))) == (grpc.StatusCode.INVALID_ARGUMENT, "UNSUPPORTED_FORMAT")


def test_a_correction_of_an_image_of_any_size_that_a_caller_makes_up_is_not_drawn(site: Site) -> None:
    side = 40_000
    mask = annotation_pb2.Annotation(class_name="red")
    mask.mask.width, mask.mask.height = side, side
    mask.mask.counts.extend([0, side * side])
    answer = inference_pb2.PredictResponse(deployment="deployments/spots", model="models/spots")
    answer.image.width, answer.image.height, answer.image.sha256 = side, side, "a" * 64
    answer.segmentation.regions.add(class_name="red").annotation.CopyFrom(mask)
    request = feedback_pb2.SubmitCorrectionRequest(parent="deployments/spots", answer=answer, annotations=[mask])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert site.refused(lambda: site.feedback.SubmitCorrection(request, timeout=120)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "IMAGE_TOO_LARGE",
    )
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 100


def test_images_of_corrections_are_decoded_in_the_places_of_predictions(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, read = threading.Event(), threading.Event(), keeper.read_pixels
    at_once: list[int] = []

    def slowly(*arguments: object) -> object:
        at_once.append(threading.active_count())
        begun.set()
        assert go_on.wait(patient(30))
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(keeper, "read_pixels", slowly)
    images = [picture(colour) for colour in CLASSES]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(site.correct, images[0], (24, 24))
        try:
            assert begun.wait(patient(20))
            # One place and no queue: the next picture is refused before it is decoded, and what brings none goes on.
            assert site.refused(lambda: site.correct(images[1], (24, 24))) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_REQUESTS")
            assert len(at_once) == 1
            assert site.correct(images[2], (24, 24), consent=False).sample == ""
        finally:
            go_on.set()
        assert first.result(patient(20)).sample
    assert site.correct(images[1], (24, 24)).sample


def written(text: str) -> np.ndarray:
    """A grey DICOM frame with a name on it, as a device writes it."""
    pixels = np.full((256, 384), 300, np.uint16)
    cv2.putText(pixels, text, (20, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 4095, 2)
    return pixels


@pytest.mark.parametrize(
    ("pixels", "tags", "words"),
    [
        (np.full((32, 24), 300, np.uint16), {"BurnedInAnnotation": "YES"}, "its header says that text is burned into the picture"),
        (np.full((33, 24), 300, np.uint16), {"Modality": "US"}, "ultrasound"),
        (written("DOE JANE 31.01.1970"), {"BurnedInAnnotation": "NO"}, "there seems to be text in the picture, at column"),
    ],
    ids=["said by the header", "modality", "seen in the pixels"],
)
def test_text_that_may_name_the_patient_is_said_and_stands_at_the_sample(
    site: Site, pixels: np.ndarray, tags: dict[str, str], words: str
) -> None:
    data = dicom(pixels, 0, series="1.2", patient="DOE^JANE", **tags)
    made = site.correct(data, pixels.shape[::-1])
    (finding,) = made.findings
    assert (finding.code, finding.sample) == ("BURNED_IN_TEXT_SUSPECTED", made.sample)
    assert words in finding.message
    assert site.feedback.GetCorrection(feedback_pb2.GetCorrectionRequest(name=made.name), timeout=60) == made
    assert "DOE" not in str(made)
    wanted = made.sample.rpartition("/")[2]

    def kept() -> list[str]:
        try:
            reader = DatasetReader(site.store, "colours-corrections")
        except NotFound:
            return []
        return [
            f"{one.severity.value} {one.code} {one.message}"
            for sample in reader.samples()
            if sample.id == wanted
            for one in sample.findings
        ]

    (said,) = wait_for(kept)
    assert said == f"warning {finding.code} {finding.message}"
    counts = {count.code: count.count for count in DatasetReader(site.store, "colours-corrections").info.findings}
    assert counts["BURNED_IN_TEXT_SUSPECTED"] >= 1


def test_an_image_that_gives_no_reason_has_no_finding(site: Site) -> None:
    pixels = np.full((34, 24), 300, np.uint16)
    assert not site.correct(dicom(pixels, 0, series="1.3"), (24, 34)).findings
    assert not site.correct(picture("blue"), (24, 24)).findings
