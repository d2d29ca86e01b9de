"""Model packages in a store, their manifest, and how unusual an image is for a model."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta

import cv2
import numpy as np
import pytest

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import DataLoss, NotFound
from oteo_core.images import InputPolicy
from oteo_core.packages import (
    Conformal,
    MetricValue,
    ModelPackage,
    OperatingPoint,
    PackageFile,
    ReferenceStatistics,
    TrialRecord,
    delete_model,
    image_statistics,
    list_models,
    read_model,
    statistic_names,
)


def package(name="cells", age=0):
    return ModelPackage(
        id=name,
        display_name="Cells",
        uid="u-1",
        task="classification",
        classes=["nö", "yes"],
        dataset="datasets/cells",
        dataset_name="My cells",
        dataset_digest="d" * 64,
        candidate="resnet18",
        input=InputPolicy(width=64, height=48, channels=3, dtype="uint8", resize="stretch", interpolation="area"),
        create_time=datetime(2026, 11, 24, 3, tzinfo=UTC) - timedelta(hours=age),
        temperature=1.25,
        conformal=Conformal(0.4, 0.9, 50),
        operating_points=[OperatingPoint("yes", 0.3, 0.95, 0.8, "sensitivity>=0.95")],
        reference=ReferenceStatistics.fit(np.random.default_rng(0).random((20, 13)), statistic_names(3)),
        metrics=[MetricValue("accuracy", 0.9, 0.8, 0.95, 0.95, "test", "", 40), MetricValue("ece", 0.05)],
        trials=[TrialRecord("t1", "resnet18", {"lr": 0.1, "deep": {"a": [1]}}, "finished", [MetricValue("log_loss", 0.3)], 0.3, 12.5, "r")],
        files={"triton/cells/1/model.onnx": PackageFile("a" * 64, 10)},
        labels={"site": "north"},
        operation="operations/automl-x",
        training_time=99.5,
        budget=240,
        parity_error=1e-7,
    )


@pytest.fixture
def store(tmp_path):
    return ArtifactStore(f"file://{tmp_path}/store")


def put(store, given):
    store.write_bytes(f"models/{given.id}/package.json", given.to_json())


def test_manifest_survives_writing_and_reading(store):
    put(store, package())
    read = read_model(store, "models/cells")
    assert read.package_uri == store.uri("models/cells")
    assert dataclasses.replace(read, package_uri="") == package()
    assert read.metric("accuracy").upper == 0.95
    assert read.metric("auroc") is None


def test_message_says_what_the_manifest_says(store):
    put(store, package())
    model = read_model(store, "cells").to_proto()
    assert model.name == "models/cells"
    assert list(model.classes) == ["nö", "yes"]
    assert (model.input.width, model.input.height, model.input.channels, model.input.resize) == (64, 48, 3, "stretch")
    assert model.metrics[0].HasField("lower")
    assert not model.metrics[1].HasField("lower")
    assert model.operating_points[0].criterion == "sensitivity>=0.95"
    assert (model.conformal_quantile, model.conformal_coverage) == (0.4, 0.9)
    assert model.training_time.ToTimedelta() == timedelta(seconds=99.5)
    assert model.create_time.ToDatetime(UTC) == package().create_time
    assert model.report_uri.endswith("models/cells/report.html")
    assert model.triton_model == "cells"
    trial = package().trials[0].to_proto("cells")
    assert trial.name == "models/cells/trials/t1"
    assert trial.objective == 0.3
    assert trial.parameters["lr"] == 0.1
    assert not TrialRecord("t2", "x", state="failed").to_proto("cells").HasField("objective")


def test_list_is_newest_first_and_passes_over_what_is_not_published(store):
    for name, age in (("old", 2), ("new", 0), ("middle", 1)):
        put(store, package(name, age))
    store.write_bytes("models/half/report.html", b"<html>")
    assert [found.id for found in list_models(store)] == ["new", "middle", "old"]


def test_empty_store_has_no_models(store):
    assert list_models(store) == []


def test_deleting_leaves_nothing(store):
    put(store, package())
    store.write_bytes("models/cells/report.html", b"<html>")
    assert delete_model(store, "cells")
    assert list(store.iter("models")) == []
    with pytest.raises(NotFound) as caught:
        delete_model(store, "models/cells")
    assert caught.value.reason == "MODEL_NOT_FOUND"
    assert not delete_model(store, "cells", allow_missing=True)


@pytest.mark.parametrize("name", ["missing", "../datasets", "models/a/b", ""])
def test_no_such_model(store, name):
    with pytest.raises(NotFound) as caught:
        read_model(store, name)
    assert caught.value.reason == "MODEL_NOT_FOUND"


@pytest.mark.parametrize("data", [b"", b"[]", b'{"format": 99}', b'{"format": 1}', b"{"])
def test_broken_manifest_is_named(store, data):
    store.write_bytes("models/cells/package.json", data)
    with pytest.raises(DataLoss) as caught:
        read_model(store, "cells")
    assert caught.value.reason == "BROKEN_PACKAGE"


def test_serving_digest_changes_with_what_decides_an_answer_only():
    digest = package().serving_digest("g")
    assert digest == dataclasses.replace(package(), metrics=[], display_name="other", create_time=datetime.now(UTC)).serving_digest("g")
    for change in ({"temperature": 1.3}, {"classes": ["yes", "nö"]}, {"conformal": None}, {"operating_points": []}):
        assert dataclasses.replace(package(), **change).serving_digest("g") != digest
    assert package().serving_digest("h") != digest


def test_a_figure_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="auroc"):
        MetricValue("auroc", float("nan"))
    assert "NaN" not in json.dumps(json.loads(package().to_json()))


def texture(rng, colour=(0.6, 0.4, 0.5)):
    field = cv2.GaussianBlur(rng.random((64, 64, 3)).astype(np.float32), (0, 0), 2) - 0.5
    return np.clip((np.array(colour) + 2 * field) * 255, 0, 255).astype(np.uint8)


def test_unusual_images_are_told_from_usual_ones():
    rng = np.random.default_rng(0)
    rows = np.stack([image_statistics(texture(rng)) for _ in range(150)])
    reference = ReferenceStatistics.fit(rows, statistic_names(3))
    usual = [reference.score(texture(rng))[1] for _ in range(150)]
    # A p-value of a usual image is uniform: about a tenth lie below 0.1.
    assert 0.03 <= np.mean(np.array(usual) < 0.1) <= 0.25
    assert 0.35 <= np.mean(usual) <= 0.65
    for strange in (
        texture(rng, (0.4, 0.5, 0.7)),
        cv2.GaussianBlur(texture(rng), (0, 0), 4),
        np.clip(texture(rng) + rng.normal(0, 30, (64, 64, 3)), 0, 255).astype(np.uint8),
        255 - texture(rng),
        np.zeros((64, 64, 3), np.uint8),
    ):
        assert reference.score(strange)[1] < 0.02
    assert ReferenceStatistics.from_dict(json.loads(json.dumps(reference.to_dict()))) == reference


def test_depth_does_not_change_the_statistics():
    image = texture(np.random.default_rng(1))
    np.testing.assert_allclose(image_statistics(image), image_statistics((image / 255).astype(np.float32)), atol=1e-9)
    assert len(image_statistics(image[:, :, :1])) == len(statistic_names(1))
    assert len(image_statistics(image)) == len(statistic_names(3))


def test_p_value_is_never_zero_and_falls_with_distance():
    reference = ReferenceStatistics.fit(np.random.default_rng(2).normal(size=(99, 9)), statistic_names(1))
    values = [reference.p_value(distance) for distance in (0.0, 0.8, 1.0, 1.3, 50.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] == 1.0
    assert values[-1] == pytest.approx(1 / 100)
