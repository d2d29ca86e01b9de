"""Datasets: what is written comes back, lazily, with the same digest whatever the order."""

from __future__ import annotations

import random
import resource
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import (
    Box,
    DatasetInfo,
    DatasetReader,
    DatasetWriter,
    Finding,
    MaskEncoding,
    Polygons,
    Rle,
    Sample,
    Severity,
    delete_dataset,
    list_datasets,
    new_id,
)
from oteo_core.datasets.columns import SCHEMA, from_batch, to_batch
from oteo_core.datasets.proto import dataset_to_proto, sample_from_proto, sample_to_proto
from oteo_core.errors import DataLoss, InvalidArgument, NotFound
from oteo_core.images import encode_png


def full_sample(name: str = "a-1") -> Sample:
    return Sample(
        id=name,
        path="media/aa/aa.png",
        source_path="images/a.png",
        sha256="aa",
        pixel_digest="bb",
        phash=2**64 - 1,
        width=4,
        height=3,
        channels=3,
        dtype="uint16",
        split="train",
        group="patient 7",
        labels=("yes", "maybe"),
        boxes=(Box("cell", 0.5, 1, 2, 1.25, crowd=True, instance=3, attributes=(("difficult", "1"), ("pose", "Left"))),),
        polygons=(Polygons("cell", ((0.0, 0.0, 2.0, 0.0, 2.0, 2.0), (1.0, 1.0, 2.0, 1.0, 2.0, 2.0)), instance=3),),
        rle=(Rle("cell", 3, 4, (2, 4, 6)),),
        mask_path="media/cc/cc.png",
        spacing=(0.5, 0.5, 2.0),
        findings=(Finding(Severity.WARNING, "EXACT_DUPLICATE", "is the same as b", "images/a.png", ("b-1",)),),
        derived_from="b-1",
    )


@pytest.fixture
def store(tmp_path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


def write(store: ArtifactStore, samples: list[Sample], name: str = "cells", **fields) -> DatasetInfo:
    with DatasetWriter(store, f"datasets/{name}", DatasetInfo(name, task="classification", **fields)) as writer:
        for sample in samples:
            writer.add(sample)
        return writer.finish()


def plain(index: int, **fields) -> Sample:
    values = {
        "sha256": f"{index:x}",
        "width": 8 + index,
        "height": 8,
        "split": ("train", "train", "test")[index % 3],
        "labels": (f"class {index % 2}",),
    }
    return Sample(id=f"s-{index:04}", **(values | fields))


def test_every_field_comes_back(store):
    sample = full_sample()
    info = write(store, [sample], mask=MaskEncoding("class", (1, 2), (255,)), labels={"a": "b"}, provenance={"seed": 3})
    reader = DatasetReader(store, "cells")
    assert list(reader.samples()) == [sample]
    assert reader.sample("a-1") == sample
    assert reader.info == info
    assert DatasetInfo.from_json(info.to_json()) == info


def test_the_message_of_the_contract_carries_it_all():
    sample = full_sample()
    message = sample_to_proto(sample, "cells")
    assert message.name == "datasets/cells/samples/a-1"
    assert message.annotations[2].attributes["instance"] == "3"
    # Digests and hashes are the store's own affair and not in the contract.
    assert sample_from_proto(message) == replace(sample, pixel_digest="", phash=None)


def test_counts(store):
    samples = [plain(i) for i in range(30)]
    samples[4].excluded = True
    samples[4].findings = (Finding(Severity.ERROR, "UNREADABLE_IMAGE", "broken"),)
    for i in (0, 1):
        samples[i].group = "twins"
    info = write(store, samples)
    assert (info.sample_count, info.excluded_count) == (29, 1)
    assert [(s.split, s.sample_count, s.group_count) for s in info.splits] == [("train", 19, 18), ("test", 10, 10)]
    assert info.classes == ("class 0", "class 1")
    assert [c.sample_count for c in info.class_info] == [14, 15]
    assert (info.sizes.min_width, info.sizes.max_width) == (8, 37)
    assert [(f.code, f.count) for f in info.findings] == [("UNREADABLE_IMAGE", 1)]
    message = dataset_to_proto(info, "file:///x")
    assert message.excluded_count == 1
    assert message.create_time.seconds > 1_700_000_000
    assert len(message.uid) == 32


def test_an_object_with_box_and_outline_counts_once():
    assert full_sample().class_names() == ["yes", "maybe", "cell", "cell"]


def test_digest_depends_on_data_alone(store):
    samples = [plain(i) for i in range(200)]
    shuffled = samples[:]
    random.Random(5).shuffle(shuffled)
    first = write(store, samples, "one", display_name="One")
    assert write(store, shuffled, "two", display_name="Two").digest == first.digest
    for change in ({"split": "validation"}, {"labels": ("other",)}, {"sha256": "ff"}, {"group": "g"}):
        changed = [replace(samples[0], **change), *samples[1:]]
        assert write(store, changed, "three").digest != first.digest
    spoken = [replace(samples[0], findings=(Finding(Severity.INFO, "X", "words"),)), *samples[1:]]
    assert write(store, spoken, "four").digest == first.digest


def test_parts_columns_and_left_out_samples(store):
    samples = [plain(i, excluded=i == 5) for i in range(12)]
    write(store, samples)
    reader = DatasetReader(store, "cells")
    assert [s.id for s in reader.samples("test")] == ["s-0002", "s-0008", "s-0011"]
    assert len(list(reader.samples(include_excluded=True))) == 12
    light = next(reader.samples(columns=["labels"]))
    assert (light.id, light.labels, light.width) == ("s-0000", ("class 0",), 0)
    assert [row for row, _ in reader.numbered(4, split="train")] == [4, 6, 7, 9, 10]
    assert reader.table(["id"]).num_rows == 12


def test_media_are_shared_by_content_and_decoded(store):
    pixels = np.arange(48, dtype=np.uint16).reshape(4, 4, 3)
    with DatasetWriter(store, "datasets/cells", DatasetInfo("cells")) as writer:
        one = writer.add_media("x/one.PNG", encode_png(pixels))
        two = writer.add_media("two.png", encode_png(pixels))
        writer.add(plain(0, path=one))
        writer.add(plain(1, path="media/00/gone.png"))
        writer.add(plain(2))
        info = writer.finish()
    assert one == two
    assert info.media_bytes == len(encode_png(pixels))
    reader = DatasetReader(store, "cells")
    here, gone, without = reader.samples()
    np.testing.assert_array_equal(reader.image(here).pixels, pixels)
    with pytest.raises(DataLoss) as caught:
        reader.read_media(gone)
    assert caught.value.reason == "MEDIA_LOST"
    with pytest.raises(NotFound):
        reader.read_media(without)


def test_it_does_not_exist_before_it_is_whole(store):
    with DatasetWriter(store, "datasets/cells", DatasetInfo("cells")) as writer:
        writer.add(plain(0))
        with pytest.raises(NotFound) as caught:
            DatasetReader(store, "cells")
        assert caught.value.reason == "DATASET_NOT_FOUND"
        assert list_datasets(store) == []
    assert list_datasets(store) == []


def test_writer_refuses_nonsense(store):
    with DatasetWriter(store, "datasets/cells", DatasetInfo("cells")) as writer:
        writer.add(plain(0))
        for bad in (plain(0), plain(1, split="holdout")):
            with pytest.raises(InvalidArgument):
                writer.add(bad)


def test_listing_and_deleting(store):
    for index, name in enumerate(("old", "new")):
        write(store, [plain(0)], name, create_time=f"2026-01-0{index + 1}T00:00:00+00:00")
    assert [info.id for info in list_datasets(store)] == ["new", "old"]
    delete_dataset(store, "new")
    assert [info.id for info in list_datasets(store)] == ["old"]
    assert not store.exists("datasets/new")
    with pytest.raises(NotFound):
        delete_dataset(store, "new")


def test_a_damaged_or_later_manifest_is_named(store):
    write(store, [plain(0)])
    for text in (b"{", b'{"format_version": 99}', b"[]"):
        store.write_bytes("datasets/cells/dataset.json", text)
        with pytest.raises(DataLoss) as caught:
            DatasetReader(store, "cells")
        assert caught.value.reason == "BAD_DATASET"


def test_new_ids():
    assert new_id("Blood Smears, München 2025!", ()) == "blood-smears-munchen-2025"
    assert new_id("cells", {"cells", "cells-2"}) == "cells-3"
    assert new_id("2025", ()) == "data-2025"
    assert new_id("", ()) == "data"
    assert len(new_id("x" * 300, {"x" * 57})) <= 63


def test_a_million_rows_need_the_memory_of_one_row_group(store, tmp_path):
    group = [replace(full_sample(f"s-{i:05}"), split=("train", "test")[i % 2], path=f"media/{i}.png", labels=("a",)) for i in range(4096)]
    batch = to_batch(group)
    file = tmp_path / "samples.parquet"
    groups = 245
    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        for number in range(groups):
            ids = pa.array([f"{number}-{i}" for i in range(4096)])
            writer.write_batch(batch.set_column(0, SCHEMA.field(0), ids))
    store.put_file(file, "datasets/big/samples.parquet")
    store.write_bytes("datasets/big/dataset.json", DatasetInfo("big").to_json())
    reader = DatasetReader(store, "big")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pa.default_memory_pool().release_unused()
    first = next(reader.samples())
    assert first.path == "media/0.png"
    assert next(reader.numbered(900_000))[0] == 900_000
    count = sum(1 for sample in reader.samples("test", columns=["path"]) if sample.path)
    assert count == groups * 2048
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    assert grown < 200, f"the process grew by {grown} MiB"


def test_row_round_trip_without_a_store():
    samples = [full_sample("a"), Sample("b")]
    assert list(from_batch(to_batch(samples))) == samples
