"""Oteo's own form, out and in again: what comes back is what went out."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from export_tools import export
from import_sources import class_folders, picture, write_picture

from oteo_augment.importing import SplitOptions
from oteo_core.datasets import (
    Box,
    DatasetInfo,
    DatasetReader,
    DatasetWriter,
    Finding,
    Keypoint,
    Keypoints,
    MaskEncoding,
    OrientedBox,
    Polygons,
    Rle,
    Sample,
    Severity,
)  # fmt: skip
from oteo_core.datasets.runs import runs_from_mask
from oteo_core.errors import InvalidArgument
from oteo_core.images import encode_png, pixel_digest


def everything(store, name="all"):
    """Write a dataset that has something in each of a sample's fields."""
    info = DatasetInfo(
        name, "All of it", task="instance_segmentation", classes=("cell", "debris"), domain="scanner A", source_format="coco",
        mask=MaskEncoding("instance"), labels={"ward": "3"}, provenance={"operation": "operations/x"}, exact_duplicate_groups=1,
    )  # fmt: skip
    with DatasetWriter(store, f"datasets/{name}", info) as writer:
        for index in range(12):
            pixels = picture(index)
            mask = np.zeros((48, 64), np.uint8)
            mask[5:9, 5 : 9 + index] = 1
            media = writer.add_media("x.png", encode_png(pixels))
            writer.add(
                Sample(
                    f"s{index}", media, f"folder/{index}.png", media.rpartition("/")[2][:64], pixel_digest(pixels), 1 << 40 | index, 64, 48, 3,
                    "uint8", "stack" if index < 4 else "image", 4 if index < 4 else 1, ("train", "validation", "test")[index // 4],
                    f"g{index // 2}", ("cell",), (Box("cell", 1.5, 2, 3, 4.25, instance=0, attributes=(("track", "7"),)),),
                    (Polygons("cell", ((1.0, 1.0, 5.0, 1.0, 5.0, 6.0),), instance=0),), (Rle("debris", 48, 64, runs_from_mask(mask), crowd=True),),
                    writer.add_media("m.png", encode_png(mask)), (0.5, 0.5, 2.0), False, (Finding(Severity.WARNING, "SEEN", "look", "x", ("s1",)),),
                    "s0" if index > 8 else "", (OrientedBox("cell", 9, 9, 4, 2, 0.3),), (Keypoints("cell", (Keypoint("eye", 3, 4, False),)),),
                    "scan" if index < 4 else "", index if index < 4 else 0, 8, '{"copy": 1}' if index > 8 else "",
                )
            )  # fmt: skip
        writer.add(Sample("gone", source_path="bad.png", excluded=True, findings=(Finding(Severity.ERROR, "UNREADABLE_IMAGE", "no"),)))
        return writer.finish()


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_all_that_a_dataset_holds_comes_back(form, tmp_path, store, import_source):
    given = everything(store)
    done = export(store, "all", "oteo", tmp_path / "out")
    assert not done.losses
    source = tmp_path / "out" if form == "folder" else shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "out")
    made = import_source(source)
    assert made.info.digest == given.digest
    assert list(made.reader.samples(include_excluded=True)) == list(DatasetReader(store, "all").samples(include_excluded=True))
    for field in (
        "task",
        "classes",
        "mask",
        "splits",
        "class_info",
        "findings",
        "domain",
        "labels",
        "media_bytes",
        "sizes",
        "exact_duplicate_groups",
    ):
        assert getattr(made.info, field) == getattr(given, field), field
    assert (made.info.source_format, made.info.id, made.info.display_name) == ("oteo", "made", "All of it")
    assert made.info.uid != given.uid
    assert made.info.provenance["stored"]["uid"] == given.uid
    assert made.info.provenance["stored"]["provenance"] == {"operation": "operations/x"}
    assert made.info.provenance["files_not_used_count"] == 0
    for sample in made.reader.samples():
        assert made.reader.read_media(sample) == DatasetReader(store, "all").read_media(sample)
        assert made.reader.read_mask(sample)


def test_an_import_of_folders_survives_with_its_findings(tmp_path, store, import_source):
    class_folders(tmp_path / "in", {"round": 9, "long": 9})
    (tmp_path / "in" / "round" / "broken.png").write_bytes(b"\x89PNG no")
    (tmp_path / "in" / "long" / "copy.png").write_bytes((tmp_path / "in" / "long" / "000.png").read_bytes())
    given = import_source(tmp_path / "in", name="given")
    export(store, "given", "oteo", tmp_path / "out")
    made = import_source(tmp_path / "out")
    assert made.samples == given.samples
    assert made.info.digest == given.info.digest
    assert made.info.excluded_count == 1


def test_a_file_that_changed_or_went_is_left_out_and_said(tmp_path, store, import_source):
    everything(store)
    export(store, "all", "oteo", tmp_path / "out")
    rows = {sample.id: sample for sample in DatasetReader(store, "all").samples()}
    write_picture(tmp_path / "out" / rows["s1"].path, 99)
    (tmp_path / "out" / rows["s2"].path).write_bytes((tmp_path / "out" / rows["s2"].path).read_bytes()[:50])
    (tmp_path / "out" / rows["s3"].path).unlink()
    (tmp_path / "out" / rows["s4"].mask_path).unlink()
    made = import_source(tmp_path / "out")
    by_id = {sample.id: sample for sample in made.samples.values()}
    assert {name: s.findings[-1].code for name, s in by_id.items() if s.excluded and name != "gone"} == {
        "s1": "FILE_CHANGED", "s2": "TRUNCATED_IMAGE", "s3": "MISSING_IMAGE", "s4": "MISSING_ANNOTATION",
    }  # fmt: skip
    assert made.info.sample_count == 8
    assert not by_id["s1"].path


def test_parts_are_drawn_anew_by_group_on_demand(tmp_path, store, import_source):
    everything(store)
    export(store, "all", "oteo", tmp_path / "out")
    made = import_source(tmp_path / "out", split=SplitOptions(0.5, 0.25, 0.25, ignore_source_split=True))
    parts = {}
    for sample in made.samples.values():
        if not sample.excluded:
            parts.setdefault(sample.group, set()).add(sample.split)
    assert all(len(splits) == 1 for splits in parts.values())
    assert {count.split for count in made.info.splits} == {"train", "validation", "test"}


def test_a_part_alone_comes_back(tmp_path, store, import_source):
    everything(store)
    export(store, "all", "oteo", tmp_path / "out", splits=("test",))
    made = import_source(tmp_path / "out")
    assert [(count.split, count.sample_count) for count in made.info.splits] == [("test", 4)]


def damage(folder, what):
    manifest, table = folder / "dataset.json", folder / "samples.parquet"
    if what == "version":
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format_version": 99}))
    elif what == "json":
        manifest.write_bytes(manifest.read_bytes()[:200])
    elif what == "list":
        manifest.write_text("[1, 2]")
    elif what == "task":
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"task": "pose"}))
    elif what == "truncated":
        table.write_bytes(table.read_bytes()[:-300])
    elif what == "middle":
        data = bytearray(table.read_bytes())
        data[200:260] = bytes(60)
        table.write_bytes(data)
    elif what == "rows":
        pq.write_table(pq.read_table(table).slice(0, 5), table)
    elif what == "column":
        pq.write_table(pq.read_table(table).drop_columns(["sha256"]), table)
    elif what == "type":
        columns = pq.read_table(table)
        pq.write_table(columns.set_column(columns.schema.get_field_index("boxes"), "boxes", columns.column("id")), table)


@pytest.mark.parametrize(
    ("what", "word"),
    [
        ("version", "version 99"), ("json", "dataset.json is damaged"), ("list", "dataset.json is damaged"), ("task", "'pose'"), ("truncated", "samples.parquet is damaged"),
        ("middle", "samples.parquet"), ("rows", "is not the table"), ("column", "no column sha256"), ("type", "samples.parquet is damaged"),
    ],
)  # fmt: skip
def test_what_is_damaged_or_of_later_versions_is_refused(what, word, tmp_path, store, import_source):
    everything(store)
    export(store, "all", "oteo", tmp_path / "out")
    damage(tmp_path / "out", what)
    with pytest.raises(InvalidArgument) as refused:
        import_source(tmp_path / "out")
    assert (refused.value.reason, refused.value.field) == ("BAD_DATASET", "source_uri")
    assert word in refused.value.message


def test_other_tasks_and_classes_are_refused(tmp_path, store, import_source):
    everything(store)
    export(store, "all", "oteo", tmp_path / "out")
    for options, reason in (({"task": "detection"}, "WRONG_TASK"), ({"classes": ("cell",)}, "UNKNOWN_CLASS")):
        with pytest.raises(InvalidArgument) as refused:
            import_source(tmp_path / "out", **options)
        assert refused.value.reason == reason
