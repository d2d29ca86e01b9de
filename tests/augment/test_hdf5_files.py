"""HDF5 files of pictures, in and out."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from export_tools import by_pixels, codes, export
from import_sources import class_folders, picture, write_picture

from oteo_augment.importing import archives, hdf5
from oteo_core.datasets import MaskEncoding
from oteo_core.errors import FailedPrecondition, InvalidArgument
from oteo_core.images import decode_labels, encode_png


def pictures(count, first=0, size=(28, 28)):
    return np.stack([picture(first + i, size=size) for i in range(count)])


def blobs(count, high=2):
    masks = np.zeros((count, 28, 28), np.uint8)
    for index in range(count):
        masks[index, 4:20, 5 : 10 + index % 10] = 1 + index % high
    return masks


@pytest.mark.parametrize("style", ["groups", "names", "split", "pcam", "channels first"])
def test_what_people_have_is_read(style, tmp_path, import_source):
    counts = {"train": 12, "val": 4, "test": 4}
    seed = 0
    everything, labels, parts = [], [], []
    place = tmp_path / "in"
    place.mkdir()
    for part, count in counts.items():
        images, numbers = pictures(count, seed), np.arange(count) % 3
        seed += count
        everything.append(images)
        labels.append(numbers)
        parts += [part] * count
        if style == "groups":
            with h5py.File(place / "cells.h5", "a") as file:
                file[f"{part}/images"], file[f"{part}/labels"] = images, numbers[:, None]
        elif style == "names":
            with h5py.File(place / "cells.hdf5", "a") as file:
                file[f"X_{part}"], file[f"y_{part}"] = images, np.array([b"abc"[n : n + 1] for n in numbers])
        elif style == "pcam":
            word = {"val": "valid"}.get(part, part)
            with h5py.File(place / f"camelyonpatch_level_2_split_{word}_x.h5", "w") as file:
                file.create_dataset("x", data=images, chunks=(3, 28, 28, 3), compression="gzip")
            with h5py.File(place / f"camelyonpatch_level_2_split_{word}_y.h5", "w") as file:
                file["y"] = numbers.astype(np.uint8)[:, None, None, None]
    if style in ("split", "channels first"):
        with h5py.File(place / "cells.h5", "w") as file:
            whole = np.concatenate(everything)
            file["images"] = whole.transpose(0, 3, 1, 2) if style == "channels first" else whole
            file["labels"], file["split"] = np.concatenate(labels), parts
            file.attrs["classes"] = ["a", "b", "c"]
    made = import_source(place)
    assert (made.info.source_format, made.info.task) == ("hdf5", "classification")
    assert made.info.classes == (("0", "1", "2") if style in ("groups", "pcam") else ("a", "b", "c"))
    assert [count.sample_count for count in made.info.splits] == [12, 4, 4]
    decoded = {made.reader.image(s).pixels.tobytes(): s for s in made.samples.values()}
    for index, (pixels, number) in enumerate(zip(np.concatenate(everything), np.concatenate(labels), strict=True)):
        sample = decoded[pixels.tobytes()]
        assert sample.labels == (made.info.classes[number],)
        assert sample.split == {"val": "validation"}.get(parts[index], parts[index])


def test_masks_are_the_natural_task_and_labels_can_be_asked_for(tmp_path, import_source):
    with h5py.File(tmp_path / "set.h5", "w") as file:
        file["images"], file["masks"], file["labels"] = pictures(8)[..., 0], blobs(8), np.arange(8) % 2
        file["names"] = [f"../../patient {index // 2}/slide.tif" for index in range(8)]
        file["patients"] = [f"p{index // 2}" for index in range(8)]
    made = import_source(tmp_path / "set.h5", classes=("body", "core"))
    assert (made.info.task, made.info.mask) == ("semantic_segmentation", MaskEncoding("class", (1, 2)))
    assert sorted(made.samples)[:2] == ["images/slide-2.png", "images/slide-3.png"]
    assert made.samples["images/slide.png"].group == "p0"
    assert (decode_labels(made.reader.read_mask(made.samples["images/slide-3.png"])) == blobs(8)[2]).all()
    assert "LABELS_NOT_KEPT" in made.codes("images/slide.png")
    made = import_source(tmp_path / "set.h5", name="labels", task="classification")
    assert {s.labels for s in made.samples.values()} == {("0",), ("1",)}


@pytest.mark.parametrize("several", [True, False])
def test_classes_go_out_and_come_back(several, tmp_path, import_source, store):
    for part, first in (("train", 0), ("val", 100), ("test", 200)):
        class_folders(tmp_path / "in" / part, {"round cell": 4, "débris": 3}, first)
    write_picture(tmp_path / "in" / "train" / "débris" / "grey.png", 999, channels=1)
    if several:
        rows = [
            f"{p.relative_to(tmp_path / 'in')},{p.parent.name}{'|old' if n % 3 else ''}"
            for n, p in enumerate((tmp_path / "in").rglob("*.png"))
        ]
        (tmp_path / "in" / "labels.csv").write_text("\n".join(["file,labels", *rows]) + "\n")
    one = import_source(tmp_path / "in", format="csv" if several else "")
    assert one.info.task == ("multi_label_classification" if several else "classification")
    assert codes(export(store, "made", "hdf5", tmp_path / "out")) == {"CHANNELS_ADDED"}
    with h5py.File(tmp_path / "out" / "made.h5") as file:
        assert file["images"].shape == (22, 48, 64, 3)
        assert file["labels"].shape == ((22, 3) if several else (22,))
        assert list(file.attrs["classes"]) == list(one.info.classes)
    two = import_source(tmp_path / "out" / "made.h5", name="again")
    assert (two.info.task, two.info.classes) == (one.info.task, one.info.classes)
    assert sorted((sorted(s.labels), s.split) for s in two.samples.values()) == sorted(
        (sorted(s.labels), s.split) for s in one.samples.values()
    )
    after = by_pixels(two.samples.values())
    kept = {key: s for key, s in by_pixels(one.samples.values()).items() if s.channels == 3}
    assert len(kept) == 21
    for key, sample in kept.items():
        assert (set(after[key].labels), after[key].split) == (set(sample.labels), sample.split)
    export(store, "made", "hdf5", tmp_path / "twice")
    assert (tmp_path / "out" / "made.h5").read_bytes() == (tmp_path / "twice" / "made.h5").read_bytes()


@pytest.mark.parametrize("kind", ["class", "instance"])
def test_masks_go_out_and_come_back(kind, tmp_path, import_source, store):
    for index in range(9):
        labels = np.zeros((48, 64), np.uint16)
        for number in range(1, 3 + index):
            labels[4 * number : 4 * number + 3, 2 : 20 + number] = number * 300 if kind == "instance" else 40 * (1 + number % 2)
        write_picture(tmp_path / "in" / "images" / f"{index}.png", index)
        (tmp_path / "in" / "masks").mkdir(exist_ok=True)
        (tmp_path / "in" / "masks" / f"{index}.png").write_bytes(encode_png(labels))
    (tmp_path / "in" / "classes.txt").write_text("* nucleus\n" if kind == "instance" else "40 body\n80 core\n120 never\n")
    one = import_source(tmp_path / "in")
    assert codes(export(store, "made", "hdf5", tmp_path / "out")) == set()
    two = import_source(tmp_path / "out", name="again")
    assert (two.info.task, two.info.classes, two.info.mask) == (one.info.task, one.info.classes, one.info.mask)
    after = by_pixels(two.samples.values())
    for key, sample in by_pixels(one.samples.values()).items():
        assert after[key].split == sample.split
        assert (decode_labels(two.reader.read_mask(after[key])) == decode_labels(one.reader.read_mask(sample))).all()


def test_a_file_for_each_slice_with_a_label_for_each_pixel_is_read(tmp_path, import_source):
    for part, count in (("train", 6), ("test", 3)):
        for index in range(count):
            (tmp_path / part).mkdir(exist_ok=True)
            with h5py.File(tmp_path / part / f"case_{index}_slice_1.h5", "w") as file:
                file["image"] = picture(index + 10 * count)[..., 0] / 256  # float64, but of numbers that float32 has
                file["label"] = np.tile(np.arange(64) // 22, (48, 1)).astype(np.uint8)
    with h5py.File(tmp_path / "train" / "volume.h5", "w") as file:
        file["image"] = np.arange(5 * 48 * 64, dtype=np.int16).reshape(5, 48, 64) - 1000
        file["label"] = np.tile(np.arange(64) // 22, (5, 48, 1))
    made = import_source(tmp_path, classes=("liver", "spleen"))
    assert (made.info.source_format, made.info.task, made.info.sample_count) == ("hdf5", "semantic_segmentation", 14)
    sample = made.samples["images/test/case_2_slice_1.tif"]
    assert (sample.split, sample.dtype) == ("test", "float32")
    assert (made.reader.image(sample).pixels[:, :, 0] * 256 == picture(32)[..., 0]).all()
    assert np.unique(mask_of(made, "images/test/case_2_slice_1.tif")).tolist() == [0, 1, 2]
    assert {s.group for path, s in made.samples.items() if "volume" in path} == {"volume"}
    volume = made.reader.image(made.samples["images/train/volume-3.tif"]).pixels
    assert (volume[0, 0, 0], volume[-1, -1, 0]) == (3 * 48 * 64 - 1000, 4 * 48 * 64 - 1001)


def mask_of(made, path):
    return decode_labels(made.reader.read_mask(made.samples[path]))


def test_pictures_of_several_sizes_are_refused(tmp_path, import_source, store):
    class_folders(tmp_path / "in", {"a": 3, "b": 3})
    write_picture(tmp_path / "in" / "a" / "small.png", 99, size=(30, 40))
    import_source(tmp_path / "in")
    with pytest.raises(FailedPrecondition) as refused:
        export(store, "made", "hdf5", tmp_path / "out")
    assert refused.value.reason == "FORMAT_CANNOT_HOLD_SIZES"


def external(file):
    file.create_dataset("images", (4, 28, 28), np.uint8, external=[("/etc/hostname", 0, 4 * 28 * 28)])


def virtual(file):
    layout = h5py.VirtualLayout((4, 28, 28), np.uint8)
    layout[:] = h5py.VirtualSource("/elsewhere.h5", "images", (4, 28, 28))
    file.create_virtual_dataset("images", layout)


def plain(**data):
    def write(file):
        for name, value in ({"images": np.zeros((4, 28, 28), np.uint8)} | data).items():
            file[name] = value

    return write


@pytest.mark.parametrize(
    ("write", "reason", "why"),
    [
        (external, "UNSAFE_ARCHIVE", "other files"),
        (virtual, "UNSAFE_ARCHIVE", "other files"),
        (plain(labels=np.arange(5)), "UNSUPPORTED_FORMAT", "4 pictures"),
        (plain(labels=np.arange(4) / 2), "UNSUPPORTED_FORMAT", "whole numbers"),
        (plain(images=np.full((4, 28, 28), 0.1)), "UNSUPPORTED_FORMAT", "float64"),
        (plain(images=np.full((4, 28, 28), "a", dtype="S1")), "UNSUPPORTED_FORMAT", "numbers"),
        (plain(images=np.zeros((4, 9, 28, 28, 3), np.uint8)), "UNSUPPORTED_FORMAT", "shape"),
        (plain(masks=-np.ones((4, 28, 28), int)), "UNSUPPORTED_FORMAT", "0 to 65535"),
        (plain(x=np.zeros((4, 28, 28), np.uint8)), "UNSUPPORTED_FORMAT", "nothing tells apart"),
        (lambda file: file.create_dataset("labels", data=np.arange(4)), "UNSUPPORTED_FORMAT", "no pictures"),
        (lambda file: file.create_dataset("weights", data=np.arange(4)), "UNSUPPORTED_FORMAT", "HDF5 without"),
    ],
)
def test_what_cannot_be_read_is_refused(write, reason, why, tmp_path, import_source):
    with h5py.File(tmp_path / "set.h5", "w") as file:
        write(file)
    with pytest.raises(InvalidArgument, match=why) as refused:
        import_source(tmp_path / "set.h5")
    assert (refused.value.reason, refused.value.field) == (reason, "source_uri")


def test_damaged_and_too_large_files_are_refused(tmp_path):
    place = tmp_path / "set.h5"
    with h5py.File(place, "w") as file:
        file.create_dataset("images", data=pictures(8), chunks=(4, 28, 28, 3), compression="gzip")
        file["labels"] = np.arange(8) % 2
    with pytest.raises(InvalidArgument, match="declare") as refused:
        hdf5.expand([(place.name, place)], tmp_path / "small", archives.ArchiveLimits(max_bytes=1000))
    assert refused.value.reason == "UNSAFE_ARCHIVE"
    data = bytearray(place.read_bytes())
    middle = data.index(b"\x78", 5000)
    data[middle : middle + 3000] = b"\x00" * 3000
    place.write_bytes(data)
    with pytest.raises(InvalidArgument) as refused:
        hdf5.expand([(place.name, place)], tmp_path / "damaged", archives.ArchiveLimits())
    assert refused.value.reason == "DAMAGED_ARCHIVE"


def test_real_membranes_go_out_and_come_back(tmp_path, real_data, import_source, store):
    one = import_source(real_data / "isbi2012_em" / "train", name="a")
    assert codes(export(store, "a", "hdf5", tmp_path / "out")) <= {"SEQUENCE_LOST"}
    two = import_source(tmp_path / "out" / "a.h5", name="b")
    assert (two.info.task, two.info.classes, two.info.mask) == (one.info.task, one.info.classes, one.info.mask)
    before, after = by_pixels(one.samples.values()), by_pixels(two.samples.values())
    assert before.keys() == after.keys()
    assert len(before) == 30
    for key, sample in before.items():
        assert (decode_labels(two.reader.read_mask(after[key])) == decode_labels(one.reader.read_mask(sample))).all()
