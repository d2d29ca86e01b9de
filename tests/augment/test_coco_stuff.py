"""Masks of classes as COCO's stuff: every pixel of a class comes back, and what was set aside is counted."""

from __future__ import annotations

import json

import numpy as np
from export_tools import codes, export
from import_sources import picture

from oteo_core.datasets import DatasetInfo, DatasetWriter, MaskEncoding, Sample
from oteo_core.datasets.runs import mask_from_runs
from oteo_core.images import encode_png


def test_each_class_of_an_image_is_one_region_of_runs(tmp_path, store):
    mask = np.zeros((48, 64), np.uint8)
    mask[2:10, 3:20], mask[20:30, 30:50], mask[40:44, :], mask[0, 0:5] = 128, 255, 128, 7
    info = DatasetInfo(
        "stuff", task="semantic_segmentation", classes=("cytoplasm", "nucleus"), mask=MaskEncoding("class", (128, 255), (7,))
    )
    with DatasetWriter(store, "datasets/stuff", info) as writer:
        media = writer.add_media("a.png", encode_png(picture(1)))
        place = writer.add_media("m.png", encode_png(mask))
        labels = ("cytoplasm", "nucleus")
        writer.add(
            Sample("a", media, "a.png", width=64, height=48, channels=3, dtype="uint8", split="train", labels=labels, mask_path=place)
        )
        writer.finish()
    done = export(store, "stuff", "coco", tmp_path / "out")
    assert codes(done) == {"VOID_LOST"}
    content = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    assert [names[entry["category_id"]] for entry in content["annotations"]] == ["cytoplasm", "nucleus"]
    for entry, value in zip(content["annotations"], (128, 255), strict=True):
        runs = mask_from_runs(tuple(entry["segmentation"]["counts"]), 48, 64)
        assert (runs == (mask == value)).all()
        assert entry["area"] == (mask == value).sum()
    assert content["annotations"][1]["bbox"] == [30, 20, 20, 10]
