"""NumPy archives in MedMNIST's form, in and out."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from export_tools import by_pixels, codes, export
from import_sources import class_folders, picture, write_picture

from oteo_augment.importing import archives
from oteo_augment.importing.arrays import expand
from oteo_core.errors import FailedPrecondition, InvalidArgument


def medmnist(place, *, colour=True, several=False, counts=(12, 4, 4), compressed=False, **extra):
    """Write an archive as MedMNIST's are; give its arrays."""
    arrays, seed = {}, 0
    for part, count in zip(("train", "val", "test"), counts, strict=True):
        images = np.stack([picture(seed + i, size=(28, 28)) for i in range(count)])
        arrays[f"{part}_images"] = images if colour else images[..., 0]
        labels = np.arange(count)[:, None] % 3
        arrays[f"{part}_labels"] = (labels == np.arange(3)).astype(np.uint8) | (np.arange(3) == 1) if several else labels.astype(np.uint8)
        seed += count
    arrays |= extra
    place.parent.mkdir(parents=True, exist_ok=True)
    (np.savez_compressed if compressed else np.savez)(place, **arrays)
    return arrays


@pytest.mark.parametrize("colour", [True, False])
@pytest.mark.parametrize("several", [True, False])
def test_in_and_out_and_the_arrays_are_the_same(colour, several, tmp_path, import_source, store):
    given = medmnist(tmp_path / "in" / "cellmnist.npz", colour=colour, several=several, compressed=colour)
    made = import_source(tmp_path / "in")
    assert made.info.source_format == "numpy"
    assert made.info.task == ("multi_label_classification" if several else "classification")
    assert made.info.classes == ("0", "1", "2")
    assert [count.sample_count for count in made.info.splits] == [12, 4, 4]
    assert {sample.channels for sample in made.samples.values()} == {3 if colour else 1}
    done = export(store, "made", "numpy", tmp_path / "out")
    assert codes(done) <= {"NAMES_LOST", "GROUP_LOST"}
    got = np.load(tmp_path / "out" / "made.npz")
    assert set(got.files) == {*given, "classes"}
    for name, array in given.items():
        assert got[name].dtype == array.dtype
        assert (got[name] == array).all()
    again = import_source(tmp_path / "out" / "made.npz", name="again")
    assert {k: (s.labels, s.split) for k, s in by_pixels(again.samples.values()).items()} == {
        k: (s.labels, s.split) for k, s in by_pixels(made.samples.values()).items()
    }


def test_names_of_classes_go_along(tmp_path, import_source, store):
    for part, first in (("train", 0), ("val", 100), ("test", 200)):
        class_folders(tmp_path / "in" / part, {"round cell": 4, "long": 3}, first)
    write_picture(tmp_path / "in" / "train" / "long" / "grey.png", 999, channels=1)
    import_source(tmp_path / "in")
    done = export(store, "made", "numpy", tmp_path / "out")
    assert "CHANNELS_ADDED" in codes(done)
    again = import_source(tmp_path / "out", name="again")
    assert again.info.classes == ("long", "round cell")
    assert [count.sample_count for count in again.info.splits] == [8, 7, 7]


def test_many_classes_keep_their_order(tmp_path, import_source):
    medmnist(tmp_path / "x.npz", counts=(24, 3, 3), train_labels=np.arange(24)[:, None] % 12)
    assert import_source(tmp_path).info.classes == tuple(f"{number:02}" for number in range(12))


def test_pictures_of_several_sizes_are_refused_before_anything_is_written(tmp_path, import_source, store):
    class_folders(tmp_path / "in", {"a": 4, "b": 4})
    write_picture(tmp_path / "in" / "a" / "larger.png", 77, size=(50, 64))
    import_source(tmp_path / "in")
    with pytest.raises(FailedPrecondition) as refused:
        export(store, "made", "numpy", tmp_path / "out")
    assert (refused.value.reason, refused.value.field) == ("FORMAT_CANNOT_HOLD_SIZES", "format")
    assert not list((tmp_path / "out").iterdir())


def test_pictures_without_labels_are_said(tmp_path, import_source):
    arrays = medmnist(tmp_path / "all.npz")
    np.savez(tmp_path / "all.npz", **{name: array for name, array in arrays.items() if name != "test_labels"})
    made = import_source(tmp_path)
    assert made.codes("all/test/0.png") == ["MISSING_ANNOTATION"]
    assert (made.info.sample_count, made.info.excluded_count) == (16, 4)


@pytest.mark.parametrize(
    ("extra", "reason", "word"),
    [
        ({"train_images": np.zeros((12, 28, 28, 28), np.uint8)}, "UNSUPPORTED_FORMAT", "shape"),
        ({"train_images": np.zeros((12, 28, 28), np.float64)}, "UNSUPPORTED_FORMAT", "float64"),
        ({"train_labels": np.zeros((11, 1), np.uint8)}, "UNSUPPORTED_FORMAT", "11 rows"),
        ({"train_labels": np.zeros((12, 1), np.float32)}, "UNSUPPORTED_FORMAT", "whole numbers"),
        ({"train_labels": -np.ones((12, 1), np.int64)}, "UNSUPPORTED_FORMAT", "whole numbers"),
        (
            {"train_labels": np.full((12, 3), 2), "val_labels": np.zeros((4, 3), int), "test_labels": np.zeros((4, 3), int)},
            "UNSUPPORTED_FORMAT",
            "0 and 1",
        ),
        ({"train_labels": np.array([[object()]] * 12)}, "DAMAGED_ARCHIVE", "pickle"),
        ({"train_labels": np.full((12, 1), 10**6)}, "UNSUPPORTED_FORMAT", "class numbers"),
    ],
)
def test_arrays_of_another_kind_are_refused(extra, reason, word, tmp_path, import_source):
    medmnist(tmp_path / "x.npz", **extra)
    with pytest.raises(InvalidArgument) as refused:
        import_source(tmp_path)
    assert (refused.value.reason, refused.value.field) == (reason, "source_uri")
    assert word in refused.value.message


def test_other_archives_and_damaged_ones_are_said(tmp_path, import_source):
    np.savez(tmp_path / "x.npz", weights=np.zeros(3))
    with pytest.raises(InvalidArgument) as refused:
        import_source(tmp_path)
    assert "NumPy archives without arrays such as train_images" in refused.value.message
    medmnist(tmp_path / "x.npz")
    data = (tmp_path / "x.npz").read_bytes()
    short = io.BytesIO()
    with zipfile.ZipFile(tmp_path / "x.npz") as old, zipfile.ZipFile(short, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name)[:-5] if name == "val_images.npy" else old.read(name))
    (tmp_path / "x.npz").write_bytes(short.getvalue())
    with pytest.raises(InvalidArgument) as refused:
        import_source(tmp_path)
    assert refused.value.reason == "DAMAGED_ARCHIVE"
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(InvalidArgument) as refused:
        expand(tmp_path / "x.npz", tmp_path / "goal", archives.ArchiveLimits(max_bytes=1000))
    assert refused.value.reason == "UNSAFE_ARCHIVE"
