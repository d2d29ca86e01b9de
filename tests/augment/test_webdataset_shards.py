"""WebDataset shards in: parts, names, keys with dots, and what is wrong with them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import webdataset
from export_tools import boxes, by_pixels, codes, export
from import_sources import class_folders, picture

from oteo_augment.exporting.objects import things_of
from oteo_core.datasets.runs import runs_from_mask
from oteo_core.errors import InvalidArgument
from oteo_core.images import encode_png


def shard(place, seeds, label=lambda seed: {"cls": str(seed % 2).encode()}, key="{:04}"):
    place.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(place), encoder=False) as writer:
        for seed in seeds:
            writer.write({"__key__": key.format(seed), "png": encode_png(picture(seed)), **label(seed)})
    return place


def test_shards_by_part_with_names(tmp_path, import_source):
    shard(tmp_path / "in" / "data-train-000000.tar", range(8))
    shard(tmp_path / "in" / "data-train-000001.tar", range(8, 12))
    shard(tmp_path / "in" / "val" / "000000.tar", range(20, 24))
    shard(tmp_path / "in" / "test" / "000000.tar", range(30, 34))
    (tmp_path / "in" / "classes.txt").write_text("round\nlong\n")
    made = import_source(tmp_path / "in")
    assert made.info.source_format == "webdataset"
    assert made.info.classes == ("long", "round")
    assert [(count.split, count.sample_count) for count in made.info.splits] == [("train", 12), ("validation", 4), ("test", 4)]
    assert made.samples["data-train-000001/0009.png"].labels == ("long",)


def test_json_with_several_classes_and_keys_with_dots(tmp_path, import_source):
    labels = lambda seed: {"json": json.dumps({"labels": ["a", "b"][: seed % 2 + 1]}).encode(), "cls": b""}  # noqa: E731
    made = import_source(shard(tmp_path / "one.tar", range(12), labels, "case.1.{:02}"))
    assert made.info.task == "multi_label_classification"
    assert made.samples["case.1.03.png"].labels == ("a", "b")
    assert made.info.sample_count == 12


def test_a_class_out_of_range_and_a_bad_file_are_said(tmp_path, import_source):
    def labels(seed):
        return {5: {"cls": b"7"}, 6: {"cls": b"\xff\xfe"}}.get(seed, {"cls": str(seed % 2).encode()})

    shard(tmp_path / "in" / "x-000000.tar", range(10), labels)
    (tmp_path / "in" / "classes.txt").write_text("round\nlong\n")
    made = import_source(tmp_path / "in")
    assert made.codes("x-000000/0005.png") == ["UNKNOWN_CLASS"]
    assert made.codes("x-000000/0006.png") == ["BAD_ANNOTATION_FILE"]
    assert (made.info.sample_count, made.info.excluded_count) == (8, 2)


def test_a_truncated_shard_is_refused(tmp_path, import_source):
    place = shard(tmp_path / "in" / "x-000000.tar", range(10))
    place.write_bytes(place.read_bytes()[:9000])
    with pytest.raises(InvalidArgument) as refused:
        import_source(tmp_path / "in")
    assert refused.value.reason == "DAMAGED_ARCHIVE"


@pytest.mark.parametrize("several", [True, False])
def test_out_and_in_again_and_webdataset_reads_it(several, tmp_path, store, import_source, monkeypatch):
    monkeypatch.setattr("oteo_augment.exporting.writers.webdataset.SHARD", 4)
    class_folders(tmp_path / "in", {"round": 9, "lo.ng": 9})
    given = import_source(tmp_path / "in", name="given", task="" if not several else "classification")
    if several:
        labels = lambda seed: {"json": json.dumps({"labels": ["a", "b"][: seed % 2 + 1]}).encode(), "cls": b""}  # noqa: E731
        given = import_source(shard(tmp_path / "several.tar", range(14), labels, "k.{}"), name="given")
    done = export(store, "given", "webdataset", tmp_path / "out")
    assert codes(done) <= {"GROUP_LOST"}
    export(store, "given", "webdataset", tmp_path / "twice")
    files = sorted(place.name for place in (tmp_path / "out").iterdir())
    assert "train-000001.tar" in files
    assert all((tmp_path / "out" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes() for name in files)
    shards = [str(tmp_path / "out" / name) for name in files if name.startswith("train")]
    rows = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert len(rows) == given.info.splits[0].sample_count
    assert all("png" in row and json.loads(row["json"])["labels"] for row in rows)
    made = import_source(tmp_path / "out")
    assert made.info.task == given.info.task
    want, got = by_pixels(given.samples.values()), by_pixels(made.samples.values())
    assert {key: (s.labels, s.split) for key, s in got.items()} == {key: (s.labels, s.split) for key, s in want.items()}


def objects_of(seed):
    box = {"class": "cell", "bbox": [2.5, 3, 20 + seed, 10], "attributes": {"stain": "weak"}}
    outline = {"class": "débris", "segmentation": [[1.25, 2, 20, 2, 20, 18.75], [30, 30, 40, 30, 35, 44]], "bbox": [1, 2, 39, 42]}
    inside = np.zeros((48, 64), np.uint8)
    inside[10:30, 20:50] = 1
    crowd = {"class": "cell", "iscrowd": 1, "segmentation": {"size": [48, 64], "counts": list(runs_from_mask(inside))}}
    return [[box, outline, crowd], [box], []][seed % 3]


def as_json(seed):
    return {"json": json.dumps({"objects": objects_of(seed)}).encode()}


@pytest.mark.parametrize("task", ["detection", "instance_segmentation"])
def test_objects_come_in_and_go_out(task, tmp_path, import_source, store):
    for part, first in (("train", 0), ("val", 10), ("test", 20)):
        shard(tmp_path / "in" / f"{part}-000000.tar", range(first, first + 6), as_json)
    (tmp_path / "in" / "classes.txt").write_text("débris\ncell\nnever\n")
    one = import_source(tmp_path / "in", task=task)
    assert (one.info.source_format, one.info.classes) == ("webdataset", ("débris", "cell", "never"))
    sample = one.samples["train-000000/0003.png"]
    assert boxes(sample) == [("cell", 2.5, 3, 23, 10, False), ("débris", 1, 2, 39, 42, False)]
    assert len(things_of(sample)) == 3
    assert not one.samples["train-000000/0002.png"].excluded
    assert not one.samples["train-000000/0002.png"].boxes
    assert export(store, "made", "webdataset", tmp_path / "out").losses == ()
    two = import_source(tmp_path / "out", name="again", task=task)
    assert two.info.classes == one.info.classes
    after = by_pixels(two.samples.values())
    for key, sample in by_pixels(one.samples.values()).items():
        other = after[key]
        assert (other.split, other.boxes, other.polygons, other.rle) == (sample.split, sample.boxes, sample.polygons, sample.rle)


def test_what_is_wrong_with_objects_is_said(tmp_path, import_source):
    bad = [
        {"bbox": [1, 2, 3, 4]},
        {"class": "cell", "bbox": [1, 2, 3]},
        {"class": "cell", "bbox": [1, 2, 30, 40]},
        {"label": 9, "bbox": [1, 2, 3, 4]},
    ]
    labels = lambda seed: {"json": json.dumps({"annotations": bad if seed == 3 else objects_of(seed)}).encode()}  # noqa: E731
    shard(tmp_path / "in" / "x-000000.tar", range(9), labels)
    (tmp_path / "in" / "classes.txt").write_text("débris\ncell\n")
    made = import_source(tmp_path / "in", task="detection")
    assert sorted(made.codes("x-000000/0003.png")) == ["BAD_ANNOTATION", "UNKNOWN_CLASS", "UNKNOWN_CLASS"]
    assert boxes(made.samples["x-000000/0003.png"]) == [("cell", 1, 2, 30, 40, False)]


@pytest.mark.parametrize("kind", ["class", "instance"])
def test_masks_come_in_and_go_out(kind, tmp_path, import_source, store):
    def with_mask(seed):
        labels = np.zeros((48, 64), np.uint16)
        for number in range(1, 3 + seed % 10):
            labels[4 * number : 4 * number + 3, 2 : 20 + number] = number * 300 if kind == "instance" else 40 * (1 + number % 2)
        return {"seg.png": encode_png(labels)}

    for part, first in (("train", 0), ("val", 10), ("test", 20)):
        shard(tmp_path / "in" / f"{part}-000000.tar", range(first, first + 6), with_mask)
    (tmp_path / "in" / "classes.txt").write_text("* nucleus\n" if kind == "instance" else "40 body\n80 core\n")
    one = import_source(tmp_path / "in")
    assert one.info.task == ("instance_segmentation" if kind == "instance" else "semantic_segmentation")
    assert one.info.classes == (("nucleus",) if kind == "instance" else ("body", "core"))
    assert one.info.sample_count == 18
    assert export(store, "made", "webdataset", tmp_path / "out").losses == ()
    first = next(iter(webdataset.WebDataset(str(tmp_path / "out" / "val-000000.tar"), shardshuffle=False)))
    assert set(first) >= {"png", "mask.png", "json"}
    two = import_source(tmp_path / "out", name="again")
    assert (two.info.task, two.info.classes, two.info.mask) == (one.info.task, one.info.classes, one.info.mask)
    after = by_pixels(two.samples.values())
    for key, sample in by_pixels(one.samples.values()).items():
        assert (after[key].split, after[key].labels) == (sample.split, sample.labels)
        assert two.reader.read_mask(after[key]) == one.reader.read_mask(sample)
