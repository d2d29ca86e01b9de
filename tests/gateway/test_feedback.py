"""Readers' corrections: how right an answer was, the accuracy in use, samples with consent, and nothing of the image without."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import grpc
import numpy as np
import prometheus_client
import pytest
from engine_fixtures import postgres
from gateway_support import CLASSES, TOKEN, Loop, RunningGateway, details_of, picture, publish_model, running_gateway, settings_for
from google.longrunning import operations_pb2, operations_pb2_grpc
from live_server import live_server
from sequence_files import dicom
from waiting import patient, wait_for

from oteo_augment.service import Augment
from oteo_augment.settings import AugmentSettings
from oteo_automl.search.data import read_table
from oteo_core.artifacts import ArtifactStore, open_store
from oteo_core.datasets import Box, DatasetInfo, DatasetReader, DatasetWriter, Polygons, Rle, Sample
from oteo_core.errors import AlreadyExists, InvalidArgument
from oteo_core.images import ImageLimits
from oteo_core.jobs import ProcessJobRunner
from oteo_core.packages.answers import ClassMap
from oteo_gateway.feedback.accuracy import live_accuracy
from oteo_gateway.feedback.agreement import agreement
from oteo_gateway.feedback.dataset import claim, dataset_of, gather
from oteo_gateway.feedback.keys import FeedbackKey
from oteo_gateway.feedback.records import CorrectionRecord
from oteo_gateway.feedback.samples import KeptSample, Pixels, keep_sample, make_sample, part_of, read_pixels
from oteo_gateway.feedback.store import CorrectionStore
from oteo_local.triton import start
from oteo_protos.augment.v1 import dataset_pb2, dataset_pb2_grpc
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, feedback_pb2, feedback_pb2_grpc, inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import annotation_pb2, image_pb2

__all__ = ["postgres"]

NAMES = ("cell", "debris")


def said(**fields: object) -> Sample:
    return replace(Sample("x", width=10, height=10), **fields)  # type: ignore[arg-type]


def square(left: int, top: int, size: int, name: str = "cell") -> Polygons:
    return Polygons(name, ((left, top, left + size, top, left + size, top + size, left, top + size),))


def test_agreement_of_classes_and_of_several_labels() -> None:
    assert agreement("classification", NAMES, said(labels=("cell",)), said(labels=("cell",))) == 1.0
    assert agreement("classification", NAMES, said(labels=("cell",)), said(labels=("debris",))) == 0.0
    several = "multi_label_classification"
    assert agreement(several, NAMES, said(labels=("cell", "debris")), said(labels=("cell",))) == 0.5
    assert agreement(several, NAMES, said(), said()) == 1.0
    assert agreement(several, NAMES, said(), said(labels=("cell",))) == 0.0


def test_agreement_of_objects_is_f1_at_half_overlap() -> None:
    found = said(boxes=(Box("cell", 0, 0, 4, 4), Box("cell", 6, 6, 3, 3)))
    near = said(boxes=(Box("cell", 0, 0, 4, 5),))
    assert agreement("detection", NAMES, found, near, (0.9, 0.8)) == pytest.approx(2 / 3)
    assert agreement("detection", NAMES, said(), said()) == 1.0
    assert agreement("detection", NAMES, said(), near) == 0.0
    assert agreement("detection", NAMES, found, said(boxes=(Box("debris", 0, 0, 4, 4),)), (0.9, 0.8)) == 0.0
    outlined = said(polygons=(square(0, 0, 4), square(6, 6, 3)))
    assert agreement("instance_segmentation", NAMES, outlined, said(polygons=(square(0, 0, 4),))) == pytest.approx(2 / 3)
    assert agreement("instance_segmentation", NAMES, outlined, outlined) == 1.0


def test_agreement_of_maps_is_dice_of_the_classes_that_are_there() -> None:
    half = Rle("cell", 10, 10, (0, 50, 50))
    assert agreement("semantic_segmentation", NAMES, said(rle=(half,)), said(rle=(half,))) == 1.0
    quarter = Rle("cell", 10, 10, (0, 25, 75))
    assert agreement("semantic_segmentation", NAMES, said(rle=(quarter,)), said(rle=(half,))) == pytest.approx(2 / 3)
    plane = np.zeros((10, 10), np.uint8)
    plane[:, :5] = 1
    assert agreement("semantic_segmentation", NAMES, said(), said(rle=(half,)), labels=ClassMap(plane)) == 1.0
    assert agreement("semantic_segmentation", NAMES, said(), said()) == 1.0


def test_accuracy_in_use_has_an_interval_and_counts_groups() -> None:
    assert live_accuracy("classification", []) is None
    rows = [(str(number), "", float(number % 5 > 0)) for number in range(50)]
    found = live_accuracy("classification", rows)
    assert found is not None
    assert (found.name, found.value, found.sample_count, found.split) == ("accuracy", 0.8, 50, "live")
    assert found.lower is not None
    assert found.upper is not None
    assert 0.65 < found.lower < 0.8 < found.upper < 0.9
    one_patient = live_accuracy("classification", [(image, "patient", value) for image, _, value in rows])
    assert one_patient is not None
    assert one_patient.lower is not None
    assert one_patient.lower < found.lower - 0.2
    dice = live_accuracy("semantic_segmentation", [(str(n), "", 0.5 + 0.01 * n) for n in range(40)])
    assert dice is not None
    assert dice.lower is not None
    assert (dice.name, dice.lower < dice.value) == ("dice", True)


@pytest.fixture(params=["sqlite", "postgresql"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CorrectionStore]:
    url = f"sqlite:///{tmp_path}/oteo.db" if request.param == "sqlite" else request.getfixturevalue("postgres").new_url()
    store = CorrectionStore(url)
    yield store
    store.close()


def record(number: int, image: str = "", **fields: object) -> CorrectionRecord:
    made = CorrectionRecord(f"c{number:03}", "cells", "uid", "m", image or f"{number:064}", "", b"", 1.0, "", 1000.0 + number)
    return replace(made, **fields)  # type: ignore[arg-type]


def test_the_table_counts_an_image_once_by_its_latest_correction(table: CorrectionStore) -> None:
    for number in range(5):
        table.add(record(number), "", "")
    table.add(record(5, image="0" * 64, agreement=0.0), "", "")
    table.add(record(6, model="other", agreement=0.0), "", "")
    assert sorted(value for _, _, value in table.judged("uid", "m")) == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert table.newest("uid", "m") == "c005"
    assert [one.id for one in table.latest("uid", 3)] == ["c006", "c005", "c004"]
    assert [one.id for one in table.latest("uid", 3, before="c001")] == ["c000"]
    assert table.judged("another uid", "m") == []


def test_the_table_answers_a_replay_and_refuses_another_request(table: CorrectionStore) -> None:
    first = table.add(record(1), "r", "f")
    assert table.add(record(2), "r", "f") == first
    with pytest.raises(AlreadyExists) as caught:
        table.add(record(3), "r", "g")
    assert caught.value.reason == "REQUEST_ID_REUSED"
    table.add(record(4, sample="datasets/d/samples/s"), "", "")
    assert table.pending() == {"d": ["c004"]}
    table.settle(["c004"])
    assert table.pending() == {}


def test_one_key_is_made_however_many_gateways_ask(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    keys = [FeedbackKey(settings.deidentification_key) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        found = set(pool.map(lambda key: key.image("a" * 64, 0), keys))
    assert len(found) == 1
    (one,) = found
    assert len(one) == 64
    assert one != keys[0].image("a" * 64, 1)
    assert settings.deidentification_key().decode() not in one


def test_a_dicom_leaves_its_header_behind(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (32, 24), dtype=np.uint16)
    data = dicom(pixels, 0.0, series="1.2.3", patient="DOE^JANE")
    assert b"DICM" in data[:140]
    found = read_pixels(data, 0, ImageLimits())
    sample, encoded = make_sample(found, said(labels=("cell",)), "", "f" * 64)
    assert encoded[:4] == b"\x89PNG"
    assert (sample.width, sample.height, sample.dtype) == (24, 32, "uint16")
    assert sample.source_path == ""
    assert b"DOE" in data
    assert b"DOE" not in encoded
    with pytest.raises(InvalidArgument) as caught:
        read_pixels(data, 7, ImageLimits())
    assert caught.value.reason == "NO_SUCH_FRAME"


def test_what_a_camera_wrote_into_a_file_is_not_kept() -> None:
    encoded = cv2.imencode(".jpg", np.full((16, 16, 3), 90, np.uint8))[1].tobytes()
    comment = b"Doe^Jane 1970-01-01"
    data = encoded[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + encoded[2:]
    _, kept = make_sample(read_pixels(data, 0, ImageLimits()), said(), "", "f" * 64)
    assert b"Doe" not in kept


def test_groups_stay_in_one_part_and_parts_have_their_shares() -> None:
    parts = [part_of(uuid.uuid4().hex) for _ in range(4000)]
    assert part_of("ab" * 12) == part_of("ab" * 12)
    assert 0.66 < parts.count("train") / 4000 < 0.74
    assert 0.12 < parts.count("test") / 4000 < 0.18


def keep(store: ArtifactStore, dataset: str, number: int, label: str = "cell", task: str = "classification") -> Sample:
    pixels = Pixels(np.full((8, 8, 1), number, np.uint8), 8)
    sample, encoded = make_sample(pixels, said(labels=(label,)), "", f"{number:064x}")
    keep_sample(store, dataset, KeptSample(sample, task, NAMES, len(encoded)), encoded)
    return sample


def test_a_reader_sees_the_dataset_before_a_change_or_after_it(tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}")
    claim(store, "cells-corrections", "uid")
    assert gather(store, "cells-corrections", "cells") is None
    for number in range(3):
        keep(store, "cells-corrections", number)
    first = gather(store, "cells-corrections", "cells")
    assert first is not None
    assert (first.sample_count, first.media_bytes > 0, first.classes) == (3, True, NAMES)
    before = DatasetReader(store, "cells-corrections")
    relabelled = keep(store, "cells-corrections", 1, "debris")
    keep(store, "cells-corrections", 3)
    second = gather(store, "cells-corrections", "cells")
    assert second is not None
    assert second.digest != first.digest
    assert second.uid != first.uid
    assert second.create_time == first.create_time
    assert sorted(one.labels[0] for one in before.samples()) == ["cell"] * 3
    after = DatasetReader(store, "cells-corrections")
    assert after.info.sample_count == 4
    assert after.sample(relabelled.id).labels == ("debris",)
    assert after.image(relabelled if relabelled.path else after.sample(relabelled.id)).pixels.mean() == 1
    gather(store, "cells-corrections", "cells")
    tables = [name for name in store.children("datasets/cells-corrections") if name.endswith(".parquet")]
    assert len(tables) == 2


def test_a_sample_whose_image_is_gone_is_forgotten(tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}")
    claim(store, "d", "uid")
    kept, gone = keep(store, "d", 1), keep(store, "d", 2)
    store.delete(f"datasets/d/{gone.path}")
    info = gather(store, "d", "cells")
    assert info is not None
    assert [one.id for one in DatasetReader(store, "d").samples()] == [kept.id]
    assert gone.id not in " ".join(entry.path for entry in store.iter(""))


def test_nobody_elses_dataset_is_written_to(tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}")
    assert dataset_of(store, "cells", "one") == "cells-corrections"
    claim(store, "cells-corrections", "one")
    assert dataset_of(store, "cells", "one") == "cells-corrections"
    other = dataset_of(store, "cells", "two")
    assert other.startswith("cells-corrections-")
    with DatasetWriter(store, "datasets/spots-corrections", DatasetInfo("spots-corrections")) as writer:
        writer.finish()
    assert dataset_of(store, "spots", "one") != "spots-corrections"
    assert len(dataset_of(store, "a" * 63, "one")) <= 63


@dataclass
class Site:
    running: RunningGateway
    home: Path

    def __post_init__(self) -> None:
        channel = self.running.channel
        self.feedback = feedback_pb2_grpc.FeedbackServiceStub(channel)
        self.inference = inference_pb2_grpc.InferenceServiceStub(channel)
        self.deployments = deployment_pb2_grpc.DeploymentServiceStub(channel)
        self.datasets = dataset_pb2_grpc.DatasetServiceStub(channel)

    def predict(self, image: bytes) -> inference_pb2.PredictResponse:
        source = image_pb2.ImageSource(content=image)
        return self.inference.Predict(inference_pb2.PredictRequest(deployment="deployments/colours", image=source), timeout=60)

    def correct(self, answer: inference_pb2.PredictResponse, *classes: str, **fields: object) -> feedback_pb2.Correction:
        request = feedback_pb2.SubmitCorrectionRequest(
            parent="deployments/colours",
            answer=answer,
            annotations=[annotation_pb2.Annotation(class_name=name) for name in classes],
            **fields,
        )
        return self.feedback.SubmitCorrection(request, timeout=120)

    def refused(self, answer: inference_pb2.PredictResponse, *classes: str, **fields: object) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            self.correct(answer, *classes, **fields)
        return caught.value.code(), details_of(caught.value)[0]

    def deployment(self) -> deployment_pb2.Deployment:
        return self.deployments.GetDeployment(deployment_pb2.GetDeploymentRequest(name="deployments/colours"), timeout=60)

    def everything(self) -> bytes:
        """All bytes of the artifact store and the database."""
        files = [*(self.home / "artifacts").rglob("*"), *self.home.glob("oteo.db*")]
        return b"\0".join(file.read_bytes() for file in files if file.is_file())


@pytest.fixture(scope="module")
def site(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A gateway over a real Triton and a real augment service."""
    home = tmp_path_factory.mktemp("feedback")
    of_augment = AugmentSettings(home=home, token=TOKEN)
    augment = Augment(of_augment, ProcessJobRunner(home / "logs"))
    with start(home / "model-repository", timeout=patient(30)) as server, live_server(of_augment, augment.register) as datasets:
        settings = settings_for(home, triton_urls=[server.address], augment_address=datasets.address, watch_seconds=0.2)
        publish_model(open_store(settings), "colours")
        with running_gateway(loop, settings, log_dir=home / "logs") as running:
            found = Site(running, home)
            made = deployment_pb2.Deployment(models=[deployment_pb2.DeployedModel(model="models/colours")])
            operation = found.deployments.CreateDeployment(deployment_pb2.CreateDeploymentRequest(deployment=made), timeout=60)
            operations = operations_pb2_grpc.OperationsStub(running.channel)
            wait_for(lambda: operations.GetOperation(operations_pb2.GetOperationRequest(name=operation.name), timeout=60).done, 40)
            yield found


def shade(seed: int, colour: str = "red") -> bytes:
    """A picture of one colour that no other call gives."""
    pixels = np.random.default_rng(seed).integers(0, 40, (24, 24, 3), dtype=np.uint8)
    pixels[:, :, 2 - CLASSES.index(colour)] += 200
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def test_without_consent_nothing_of_the_image_is_anywhere(site: Site) -> None:
    image = shade(1)
    answer = site.predict(image)
    assert not site.deployment().HasField("live_accuracy")
    found = site.correct(answer, "green", image=image_pb2.ImageSource(content=image), group="Doe^Jane")
    assert (found.agreement, found.sample, found.model) == (0.0, "", "models/colours")
    assert [item.class_name for item in found.annotations] == ["green"]
    accuracy = site.deployment().live_accuracy
    assert (accuracy.name, accuracy.value, accuracy.sample_count) == ("accuracy", 0.0, 1)
    # Figures of the watch are written, too, before it is looked for.
    wait_for(lambda: site.deployment().shift.window_size >= 1)
    kept = site.everything()
    assert len(answer.image.sha256) == 64
    for trace in (image, image[60:100], answer.image.sha256.encode(), bytes.fromhex(answer.image.sha256), b"Doe"):
        assert trace not in kept
    assert found.image_hash.encode() in kept


def test_confirmations_count_and_a_later_word_takes_the_place_of_an_earlier(site: Site) -> None:
    for seed in range(2, 6):
        site.correct(site.predict(shade(seed)), "red")
    accuracy = site.deployment().live_accuracy
    assert (accuracy.value, accuracy.sample_count) == (0.8, 5)
    assert accuracy.lower < 0.8 < accuracy.upper
    site.correct(site.predict(shade(1)), "red")
    assert site.deployment().live_accuracy.value == 1.0
    labels = {"deployment": "colours", "model": "colours"}
    value = prometheus_client.REGISTRY.get_sample_value
    wait_for(lambda: value("oteo_live_accuracy", labels | {"bound": "mean"}) == 1.0 and value("oteo_live_corrections", labels) == 5)


def test_with_consent_the_image_becomes_a_sample_that_others_read(site: Site) -> None:
    images = [shade(100 + number, CLASSES[number % 3]) for number in range(12)]
    corrections = []
    for number, image in enumerate(images):
        source = image_pb2.ImageSource(content=image)
        label = CLASSES[number % 3]
        corrections.append(site.correct(site.predict(image), label, consent=True, image=source, group=f"patient {number // 2}"))
    assert all(one.sample.startswith("datasets/colours-corrections/samples/") for one in corrections)
    request = dataset_pb2.ListSamplesRequest(parent="datasets/colours-corrections")

    def listed() -> list[dataset_pb2.Sample]:
        try:
            return list(site.datasets.ListSamples(request, timeout=60).samples)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return []

    wait_for(lambda: len(listed()) == 12)
    samples = {sample.name: sample for sample in listed()}
    assert set(samples) == {one.sample for one in corrections}
    first = samples[corrections[0].sample]
    assert first.annotations[0].class_name == "red"
    groups = {samples[one.sample].group for one in corrections}
    assert len(groups) == 6
    assert not any("patient" in group for group in groups)
    assert samples[corrections[0].sample].split == samples[corrections[1].sample].split
    # Its image is read by name, by anybody who reads datasets.
    named = image_pb2.ImageSource(sample=first.name)
    answer = site.inference.Predict(inference_pb2.PredictRequest(deployment="deployments/colours", image=named), timeout=60)
    assert answer.classification.scores[0].class_name == "red"
    # A later correction of the same image replaces the label.
    source = image_pb2.ImageSource(content=images[0])
    again = site.correct(site.predict(images[0]), "blue", consent=True, image=source, group="patient 0")
    assert again.sample == corrections[0].sample
    wait_for(lambda: {s.name: s.annotations[0].class_name for s in listed()}[again.sample] == "blue")
    assert len(listed()) == 12
    info = site.datasets.GetDataset(dataset_pb2.GetDatasetRequest(name="datasets/colours-corrections"), timeout=60)
    assert info.sample_count == 12
    assert info.labels["oteo-corrections-of"] == "colours"
    # What training begins with reads it.
    reader = DatasetReader(open_store(site.running.settings), "colours-corrections")
    data, rows = read_table(reader)
    assert len(rows) == 12
    assert set(data.classes) <= set(CLASSES)
    assert reader.image(rows[0]).pixels.shape == (24, 24, 3)


def test_corrections_are_listed_newest_first_and_found_by_name(site: Site) -> None:
    made = [site.correct(site.predict(shade(200 + number)), "red") for number in range(3)]
    first = site.feedback.ListCorrections(feedback_pb2.ListCorrectionsRequest(parent="deployments/colours", page_size=2), timeout=60)
    assert [one.name for one in first.corrections] == [made[2].name, made[1].name]
    second = site.feedback.ListCorrections(
        feedback_pb2.ListCorrectionsRequest(parent="deployments/colours", page_size=2, page_token=first.next_page_token), timeout=60
    )
    assert second.corrections[0].name == made[0].name
    assert site.feedback.GetCorrection(feedback_pb2.GetCorrectionRequest(name=made[0].name), timeout=60) == made[0]
    with pytest.raises(grpc.RpcError) as caught:
        site.feedback.GetCorrection(feedback_pb2.GetCorrectionRequest(name="deployments/colours/corrections/none"), timeout=60)
    assert details_of(caught.value)[0] == "CORRECTION_NOT_FOUND"


def test_a_replay_gives_the_first_answer(site: Site) -> None:
    answer, request_id = site.predict(shade(300)), str(uuid.uuid4())
    first = site.correct(answer, "red", request_id=request_id)
    assert site.correct(answer, "red", request_id=request_id) == first
    assert site.refused(answer, "green", request_id=request_id) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


def test_bad_corrections_are_refused_and_leave_nothing(site: Site) -> None:
    image = shade(400)
    answer = site.predict(image)
    bad = grpc.StatusCode.INVALID_ARGUMENT
    source = image_pb2.ImageSource(content=image)
    before = len(site.feedback.ListCorrections(feedback_pb2.ListCorrectionsRequest(parent="deployments/colours"), timeout=60).corrections)
    assert site.refused(answer, "violet") == (bad, "CLASS_NOT_KNOWN")
    assert site.refused(answer) == (bad, "BAD_CORRECTION")
    assert site.refused(answer, "red", "green") == (bad, "BAD_CORRECTION")
    assert site.refused(answer, "red", consent=True) == (bad, "IMAGE_MISSING")
    other = image_pb2.ImageSource(content=picture("blue"))
    assert site.refused(answer, "red", consent=True, image=other) == (bad, "IMAGE_DIFFERS")
    torn = image_pb2.ImageSource(content=image[:50])
    assert site.refused(answer, "red", consent=True, image=torn) == (bad, "IMAGE_DIFFERS")
    empty = inference_pb2.PredictResponse(deployment="deployments/colours", model="models/colours")
    assert site.refused(empty, "red") == (bad, "ANSWER_MISSING")
    elsewhere = inference_pb2.PredictResponse()
    elsewhere.CopyFrom(answer)
    elsewhere.deployment = "deployments/others"
    assert site.refused(elsewhere, "red") == (bad, "ANSWER_OF_ANOTHER")
    elsewhere.CopyFrom(answer)
    elsewhere.model = "models/none"
    assert site.refused(elsewhere, "red", image=source) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    lying = inference_pb2.PredictResponse()
    lying.CopyFrom(answer)
    lying.image.width = 99
    assert site.refused(lying, "red", consent=True, image=source) == (bad, "IMAGE_DIFFERS")
    with pytest.raises(grpc.RpcError) as caught:
        site.feedback.SubmitCorrection(feedback_pb2.SubmitCorrectionRequest(parent="deployments/none", answer=answer), timeout=60)
    assert details_of(caught.value)[0] == "DEPLOYMENT_NOT_FOUND"
    after = site.feedback.ListCorrections(feedback_pb2.ListCorrectionsRequest(parent="deployments/colours"), timeout=60).corrections
    assert len(after) == before
