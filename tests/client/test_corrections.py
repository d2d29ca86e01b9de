"""``oteo correct``: what is sent of an answer, what is kept only with consent, and what a deployment shows of shift and accuracy."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from oteo.cli.show_deployments import deployment_facts, deployments_table
from oteo.corrections import confirmed
from oteo_protos.gateway.v1 import deployment_pb2, inference_pb2
from oteo_protos.type.v1 import annotation_pb2


@pytest.fixture
def image(tmp_path):
    """Give a picture."""
    path = tmp_path / "cell.png"
    Image.new("RGB", (12, 8), (200, 90, 10)).save(path)
    return path


@pytest.fixture
def deployed(command):
    assert command("deploy", "create", "cells").code == 0


def test_a_class_is_said_and_the_image_stays_here_without_consent(command, world, deployed, image):
    ran = command("correct", "cells", image, "--class", "long")
    assert ran.code == 0, ran.err
    assert "without consent the image is not kept" in ran.out
    asked = world.asked[-1]
    assert [item.class_name for item in asked.annotations] == ["long"]
    assert asked.answer.model == "models/cells"
    assert not asked.consent
    assert asked.image.WhichOneof("source") is None


def test_with_consent_the_image_and_its_group_go_along(command, world, deployed, image):
    ran = command("correct", "cells", image, "--class", "long", "--consent", "--group", "patient 7")
    assert "datasets/cells-corrections/samples/abc" in ran.out
    assert "BURNED_IN_TEXT_SUSPECTED: look whether it names the patient" in ran.out
    asked = world.asked[-1]
    assert (asked.consent, asked.group) == (True, "patient 7")
    assert asked.image.content == image.read_bytes()


def test_an_answer_is_confirmed_and_nothing_is_said_of_an_empty_image(command, world, deployed, image):
    assert "1.000" in command("correct", "cells", image, "--right").out
    assert [item.class_name for item in world.asked[-1].annotations] == ["round"]
    assert command("correct", "cells", image, "--nothing").code == 0
    assert not world.asked[-1].annotations
    ran = command("correct", "cells", image)
    assert (ran.code, "--class, --file, --right or --nothing" in ran.err) == (3, True)
    assert command("correct", "cells", image, "--right", "--class", "long").code == 3


def test_annotations_and_the_answer_come_from_files(command, world, deployed, image, tmp_path):
    answer = tmp_path / "answer.json"
    answer.write_text(command("predict", "cells", image, "--json").out)
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([{"class_name": "round", "box": {"x": 1, "y": 2, "width": 3, "height": 4}}]))
    assert command("correct", "cells", image, "--file", boxes, "--answer", answer).code == 0
    assert world.asked[-1].annotations[0].box.width == 3
    for text, reason in (("{", "BAD_ANNOTATIONS"), ("{}", "BAD_ANNOTATIONS"), ('[{"colour": 1}]', "BAD_ANNOTATIONS")):
        boxes.write_text(text)
        ran = command("correct", "cells", image, "--file", boxes, "--json")
        assert (ran.code, ran.json["error"]["reason"]) == (3, reason)
    assert command("correct", "cells", image, "--file", tmp_path / "none.json").code == 4
    ran = command("correct", "cells", image, "--class", "violet", "--json")
    assert (ran.code, ran.json["error"]["reason"]) == (3, "CLASS_NOT_KNOWN")


def test_corrections_are_listed_and_shown(command, deployed, image):
    assert "no corrections yet" in command("corrections", "list", "cells").out
    name = command("correct", "cells", image, "--class", "long", "--json").json["name"]
    assert "long" in command("corrections", "list", "cells").out
    assert "0.000" in command("corrections", "show", name).out


def test_pictures_stay_here_unless_masks_would_be_missing(client, world):
    answer = inference_pb2.PredictResponse(deployment="deployments/cells", model="models/cells")
    answer.explanation.content = answer.drawing.content = b"a picture"
    answer.segmentation.label_image.content = b"numbers"
    region = answer.segmentation.regions.add(class_name="round")
    region.annotation.class_name, region.annotation.score = "round", 0.7
    client.corrections.submit(answer, [])
    kept = world.asked[-1].answer
    assert (kept.explanation.content, kept.drawing.content, kept.segmentation.label_image.content) == (b"", b"", b"numbers")
    region.annotation.mask.height = region.annotation.mask.width = 2
    client.corrections.submit(answer, confirmed(answer))
    asked = world.asked[-1]
    assert asked.answer.segmentation.label_image.content == b""
    assert asked.annotations == [annotation_pb2.Annotation(class_name="round", mask=region.annotation.mask)]


def test_a_deployment_shows_shift_and_accuracy():
    deployment = deployment_pb2.Deployment(name="deployments/cells")
    deployment.shift.message = "17 more different images are needed before the test can begin."
    assert "17 more" in deployment_facts(deployment).plain
    shift = deployment.shift
    shift.p_value, shift.effect_size, shift.window_size, shift.test, shift.alarm = 1e-9, 0.62, 96, "ks of image statistics", True
    shift.update_time.seconds = shift.alarm_time.seconds = 1_800_000_000
    right = deployment.live_accuracy
    right.name, right.value, right.lower, right.upper, right.sample_count = "accuracy", 0.9, 0.8, 0.95, 40
    told = deployment_facts(deployment).plain
    assert "ALARM since 2027" in told
    assert "p 1e-09, effect 0.62, ks of image statistics, 96 images" in told
    assert "accuracy 0.900 (0.800 to 0.950) on 40 images that readers judged" in told
    cells = [next(iter(column.cells)) for column in deployments_table([deployment]).columns]
    assert "[red]alarm[/]" in cells
