"""ListTransforms: the catalogue, by pages and by task, with a schema that holds what the catalogue says."""

from __future__ import annotations

import jsonschema
import pytest
from google.protobuf.json_format import MessageToDict

from oteo_augment.augment_service import AugmentService
from oteo_core.augmentation import CATALOGUE
from oteo_core.errors import InvalidArgument
from oteo_core.images import ImageLimits
from oteo_protos.augment.v1 import augment_pb2
from oteo_protos.type.v1 import task_pb2


@pytest.fixture(scope="module")
def service() -> AugmentService:
    return AugmentService(None, None, ImageLimits(), 1)


def ask(service: AugmentService, **fields):
    return service.ListTransforms(augment_pb2.ListTransformsRequest(**fields), None)


def test_all_of_them_by_name(service):
    answer = ask(service)
    assert [one.name for one in answer.transforms] == sorted(CATALOGUE)
    assert answer.next_page_token == ""
    for one in answer.transforms:
        spec = CATALOGUE[one.name]
        schema = MessageToDict(one.parameters_schema)
        jsonschema.Draft202012Validator.check_schema(schema)
        defaults = {name: part["default"] for name, part in schema["properties"].items()}
        jsonschema.validate(defaults, schema)
        assert spec.checked(defaults) == spec.parameters
        # Every number of channels between the limits is taken, and none beyond.
        for channels in (1, 2, 3, 4, 7):
            within = one.min_channels <= channels and (not one.max_channels or channels <= one.max_channels)
            assert within == (not spec.refusal(spec.pixel_types[0], channels))
    flip = next(one for one in answer.transforms if one.name == "HorizontalFlip")
    assert flip.geometric
    assert flip.mirrors
    assert list(flip.aliases) == ["mirror", "flip"]
    assert list(flip.engines) == ["cpu", "gpu"]


def test_by_pages(service):
    names, token = [], ""
    while True:
        answer = ask(service, page_size=30, page_token=token)
        names += [one.name for one in answer.transforms]
        token = answer.next_page_token
        if not token:
            break
        assert len(answer.transforms) == 30
    assert names == sorted(CATALOGUE)


def test_by_task(service):
    points = {one.name for one in ask(service, task=task_pb2.TASK_KEYPOINTS).transforms}
    assert points == {name for name, spec in CATALOGUE.items() if not spec.needs_objects}
    masks = ask(service, task=task_pb2.TASK_INSTANCE_SEGMENTATION).transforms
    assert len(masks) == len(CATALOGUE)


def test_a_token_of_another_query_is_refused(service):
    token = ask(service, page_size=3).next_page_token
    for fields in ({"page_token": "made-up"}, {"page_token": token, "task": task_pb2.TASK_KEYPOINTS}):
        with pytest.raises(InvalidArgument) as caught:
            ask(service, page_size=3, **fields)
        assert caught.value.reason == "BAD_PAGE_TOKEN"
