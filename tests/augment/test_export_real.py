"""Real images through one format after the other, and back."""

from __future__ import annotations

from collections import Counter

import numpy as np
from export_tools import boxes, by_pixels, codes, export

from oteo_augment.importing.paths import stem
from oteo_core.images import decode_labels


def test_blood_smears_go_round_by_coco_voc_and_yolo(tmp_path, real_data, import_source, store):
    first = import_source(real_data / "bccd", name="a")
    before = by_pixels(first.samples.values())
    source = "a"
    for step, name in enumerate(("coco", "pascal_voc", "yolo", "coco")):
        done = export(store, source, name, tmp_path / f"{step}-{name}")
        assert done.sample_count == first.info.sample_count
        # VOC's flags go no further than YOLO; groups are held by none of these.
        assert codes(done) <= {"GROUP_LOST", "ATTRIBUTE_LOST"}
        assert ("ATTRIBUTE_LOST" in codes(done)) is (name == "yolo")
        source = f"step{step}"
        made = import_source(tmp_path / f"{step}-{name}", name=source, task="detection")
        assert made.info.source_format == name
        assert made.info.classes == first.info.classes
        after = by_pixels(made.samples.values())
        assert after.keys() == before.keys()
        for key, sample in before.items():
            assert after[key].split == sample.split
            assert after[key].sha256 == sample.sha256
            assert [box[0] for box in boxes(after[key])] == [box[0] for box in boxes(sample)]
            np.testing.assert_allclose([b[1:5] for b in boxes(after[key])], [b[1:5] for b in boxes(sample)], atol=1e-6)


def test_blood_smears_go_round_by_labelme_and_cvat(tmp_path, real_data, import_source, store):
    first = import_source(real_data / "bccd", name="a")
    before = by_pixels(first.samples.values())
    source = "a"
    for step, name in enumerate(("coco", "labelme", "coco", "cvat", "coco")):
        done = export(store, source, name, tmp_path / f"{step}-{name}")
        assert done.sample_count == first.info.sample_count
        assert codes(done) <= {"GROUP_LOST", "CLASS_LIST_LOST"}
        source = f"step{step}"
        made = import_source(tmp_path / f"{step}-{name}", name=source, task="detection")
        assert made.info.source_format == name
        assert sorted(made.info.classes) == sorted(first.info.classes)
        after = by_pixels(made.samples.values())
        assert after.keys() == before.keys()
        for key, sample in before.items():
            assert (after[key].split, after[key].sha256) == (sample.split, sample.sha256)
            assert boxes(after[key]) == boxes(sample)


def test_nuclei_go_to_coco_and_back_to_the_pixel(tmp_path, real_data, import_source, store):
    first = import_source(real_data / "dsb2018_nuclei_compact" / "color_HE", name="a", task="instance_segmentation")
    assert codes(export(store, "a", "coco", tmp_path / "coco")) <= {"GROUP_LOST"}
    middle = import_source(tmp_path / "coco", name="b")
    assert middle.info.task == "instance_segmentation"
    assert codes(export(store, "b", "masks", tmp_path / "masks")) <= {"GROUP_LOST"}
    last = import_source(tmp_path / "masks", name="c")
    assert last.info.task == "instance_segmentation"
    before, after = by_pixels(first.samples.values()), by_pixels(last.samples.values())
    assert before.keys() == after.keys()
    objects = 0
    for key, sample in before.items():
        truth = decode_labels(first.reader.read_mask(sample)).astype(np.int64)
        numbers = np.unique(truth[truth != 0])
        expected = np.searchsorted(numbers, truth) + 1
        expected[truth == 0] = 0
        assert (decode_labels(last.reader.read_mask(after[key])) == expected).all()
        objects += len(numbers)
    assert objects > 1000


def test_cell_masks_keep_numbers_and_classes(tmp_path, real_data, import_source, store):
    first = import_source(real_data / "wbc_zheng" / "domain1", name="a", classes=("cytoplasm", "nucleus"))
    assert first.info.task == "semantic_segmentation"
    done = export(store, "a", "masks", tmp_path / "out")
    assert codes(done) <= {"GROUP_LOST"}
    last = import_source(tmp_path / "out", name="b")
    assert (last.info.classes, last.info.mask) == (first.info.classes, first.info.mask)
    # Some cells are there twice, so that names tell which is which.
    before, after = ({stem(s.source_path): s for s in made.samples.values()} for made in (first, last))
    assert before.keys() == after.keys()
    for key, sample in before.items():
        assert after[key].sha256 == sample.sha256
        assert (decode_labels(last.reader.read_mask(after[key])) == decode_labels(first.reader.read_mask(sample))).all()


def test_brain_slices_as_a_table(tmp_path, real_data, import_source, store):
    first = import_source(real_data / "brain_mri_yesno", name="a")
    done = export(store, "a", "csv", tmp_path / "out")
    assert (done.sample_count, done.losses) == (253, ())
    last = import_source(tmp_path / "out", name="b")
    count = Counter((s.sha256, s.labels, s.split) for s in first.samples.values())
    assert Counter((s.sha256, s.labels, s.split) for s in last.samples.values()) == count
