"""``oteo augment`` and the SDK's catalogue of transforms."""

from __future__ import annotations

import pytest

import oteo
from oteo_core.augmentation import CATALOGUE


def test_the_sdk_gives_all_pages(client):
    assert [one.name for one in client.augmentations.transforms()] == sorted(CATALOGUE)
    assert len(list(client.augmentations.transforms(limit=25))) == 25
    points = {one.name for one in client.augmentations.transforms(task="keypoints")}
    assert "GaussNoise" in points
    assert "Rotate" in points
    with pytest.raises(oteo.OteoApiError) as caught:
        client.augmentations.transforms(task="painting")
    assert caught.value.field == "task"


def test_the_catalogue_as_a_table_and_as_json(command):
    ran = command("augment", "transforms")
    assert ran.code == 0
    lines = {line.split()[0]: line for line in ran.out.splitlines()[1:]}
    assert set(lines) == set(CATALOGUE)
    assert "mirror, flip" in lines["HorizontalFlip"]
    assert "mirrors" in lines["HorizontalFlip"]
    assert "uint8, uint16" in lines["CLAHE"]
    listed = command("augment", "transforms", "--json", "--task", "detection").json
    assert {one["name"] for one in listed} == set(CATALOGUE)


def test_one_transform_with_its_parameters(command):
    ran = command("augment", "transforms", "hed")
    assert ran.code == 0
    assert "StainJitter" in ran.out
    assert "0.9 … 1.1" in ran.out
    assert "optical density to base 10" in ran.out
    schema = command("augment", "transforms", "StainJitter", "--json").json["parameters_schema"]
    assert schema["properties"]["scale"]["default"] == [0.9, 1.1]
    assert command("augment", "transforms", "invert").code == 0


def test_a_wrong_name_is_told_with_what_was_meant(command):
    ran = command("augment", "transforms", "stainjiter")
    assert ran.code == 4
    assert "StainJitter" in ran.err
    assert command("augment", "transforms", "Rotate", "--task", "keypoints").code == 0
    assert command("augment", "transforms", "--task", "painting").code == 3


@pytest.mark.parametrize("words", [("cells",), ("run", "cells"), ("--copies", "2", "cells"), ("cells", "--copies", "2")])
def test_a_dataset_is_augmented_with_and_without_the_word_run(command, world, words):
    assert command("augment", *words).code == 0
    assert world.asked[-1].dataset == "datasets/cells"


def test_help_names_what_there_is(command):
    told = command("augment", "--help").out
    assert "transforms" in told
    assert "run" in told
