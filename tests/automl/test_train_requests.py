"""Wishes for a training that cannot be kept: refused at once, with the field and what it is for."""

from __future__ import annotations

from typing import Any

import pytest
from dense_sets import DENSE, parts, write_dense
from google.longrunning import operations_pb2
from training_runs import Home

from oteo_automl.automl_service import AutoMLService
from oteo_core.errors import InvalidArgument
from oteo_protos.automl.v1 import automl_pb2


class Started:
    """Operations that start, and do nothing."""

    def live(self, _resource: str) -> None:
        return None

    def start(self, *_: Any, **__: Any) -> operations_pb2.Operation:
        return operations_pb2.Operation(name="operations/started")


def ask(home: Home, dataset: str, **fields: Any) -> operations_pb2.Operation:
    request = automl_pb2.TrainModelRequest(dataset=dataset, **fields)
    request.budget.seconds = 60
    return AutoMLService(home.settings, Started(), home.store).TrainModel(request, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", DENSE)
@pytest.mark.parametrize(
    ("fields", "reason", "field", "purpose"),
    [
        (
            {"operating_points": [{"class_name": "dark", "sensitivity": 0.9}]},
            "OPERATING_POINTS_NOT_FOR_TASK",
            "operating_points",
            "thresholds on the probability of an image's class",
        ),
        ({"conformal_coverage": 0.95}, "COVERAGE_NOT_FOR_TASK", "conformal_coverage", "sets of an image's possible classes"),
    ],
)
def test_what_is_for_classes_of_whole_images_is_refused_for_objects_and_pixels(
    task: str, fields: dict[str, Any], reason: str, field: str, purpose: str, tmp_path
) -> None:
    home = Home(tmp_path)
    dataset = write_dense(home.store, task, parts(2, 1, 1))
    with pytest.raises(InvalidArgument, match=purpose) as caught:
        ask(home, dataset, **fields)
    assert (caught.value.reason, caught.value.field) == (reason, field)
    for said in (task, "classification and multi_label_classification", f"leave {field} out"):
        assert said in caught.value.message
    assert ask(home, dataset).name == "operations/started"


def test_they_are_taken_for_classes_of_whole_images(tmp_path) -> None:
    home = Home(tmp_path)
    dataset = home.dataset("cells", {"lying": (2, 1, 1), "standing": (2, 1, 1)})
    wishes = {"operating_points": [{"class_name": "lying", "sensitivity": 0.9}], "conformal_coverage": 0.95}
    assert ask(home, dataset, **wishes).name == "operations/started"
    with pytest.raises(InvalidArgument, match="has no class 'slanting'") as caught:
        ask(home, dataset, operating_points=[{"class_name": "slanting", "specificity": 0.9}])
    assert (caught.value.reason, caught.value.field) == ("UNKNOWN_CLASS", "operating_points[0].class_name")
