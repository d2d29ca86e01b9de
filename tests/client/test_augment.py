"""``oteo augment`` and the SDK's catalogue of transforms."""

from __future__ import annotations

import pytest

import oteo
from oteo_core.augmentation import CATALOGUE
from oteo_protos.augment.v1 import augment_pb2, dataset_pb2


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
    assert command("augment", "catalogue").out == ran.out
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
    ran = command("augment", *words)
    assert ran.code == 0
    assert "6 copies made; 2 objects left out" in ran.out
    assert world.asked[-1].dataset == "datasets/cells"


def test_what_stands_on_the_command_line_becomes_the_policy(command, world, tmp_path):
    file = tmp_path / "policy.json"
    file.write_text('{"steps": [{"transform": "HorizontalFlip", "probability": 0.5}], "mode": "MODE_LINEAR"}')
    words = ("--policy", file, "--laterality", "--mirror-swaps", "left=right", "--copies-of", "round=7", "--seed", "5", "--drop-originals")
    assert command("augment", "cells", *words).code == 0
    asked = world.asked[-1]
    assert asked.policy.steps[0].transform == "HorizontalFlip"
    assert (asked.policy.mode, asked.policy.laterality) == (augment_pb2.AugmentationPolicy.MODE_LINEAR, True)
    assert dict(asked.policy.mirror_swaps) == {"left": "right"}
    assert (dict(asked.copies_by_class), asked.seed, asked.drop_originals) == ({"round": 7}, 5, True)
    assert command("augment", "cells", "--preset", "h-and-e").code == 0
    assert world.asked[-1].policy.preset == "h-and-e"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--mirror-swaps", "left"), "LEFT=RIGHT"),
        (("--copies-of", "round=many"), "CLASS=NUMBER"),
        (("--policy", "bad.json"), "holds no policy"),
        (("--policy", "typo.json"), "holds no policy"),
    ],
)
def test_a_wrong_policy_is_refused_before_it_is_sent(command, world, tmp_path, monkeypatch, words, told):
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "typo.json").write_text('{"stepz": []}')
    monkeypatch.chdir(tmp_path)
    ran = command("augment", "cells", *words)
    assert ran.code == 3
    assert told in ran.err
    assert not world.asked


def test_a_sheet_is_written(command, world, tmp_path):
    sheet = tmp_path / "sheet.png"
    assert command("augment", "preview", "cells", "-o", sheet, "--samples", "2", "--copies", "3", "--preset", "x-ray").code == 0
    assert sheet.read_bytes() == b"a sheet"
    asked = world.asked[-1]
    assert (asked.dataset, asked.sample_count, asked.copies, asked.policy.preset) == ("datasets/cells", 2, 3, "x-ray")


def test_a_copy_is_made_again_and_compared(command, world, tmp_path):
    picture = tmp_path / "again.png"
    ran = command("augment", "replay", "cells-augmented/a-aug-1", "-o", picture)
    assert ran.code == 0
    assert world.asked[-1].name == "datasets/cells-augmented/samples/a-aug-1"
    assert picture.read_bytes() == b"a picture"
    assert "HorizontalFlip, RandomGamma" in ran.out
    forged = command("augment", "replay", "datasets/cells-augmented/samples/forged")
    assert forged.code == 10
    assert "NO" in forged.out
    assert command("augment", "replay", "cells-augmented/forged", "--json").json["same"] is False
    assert command("augment", "replay", "cells-augmented/gone").code == 4


def test_balance_brings_rare_classes_near_the_most_frequent(client, world):
    world.datasets["datasets/skewed"] = dataset_pb2.Dataset(
        name="datasets/skewed",
        classes=[
            dataset_pb2.ClassInfo(name=name, sample_count=2 * count, splits=[dataset_pb2.SplitCount(split=1, sample_count=count)])
            for name, count in (("common", 90), ("rare", 10), ("rarest", 1), ("never", 0))
        ],
    )
    assert client.datasets.balanced_copies("skewed") == {"common": 0, "rare": 8, "rarest": 20}


def test_help_names_what_there_is(command):
    told = command("augment", "--help").out
    assert "transforms" in told
    assert "run" in told
