"""Real images: what the sources are known to hold is found."""

from __future__ import annotations

from collections import Counter, defaultdict

from oteo_augment.importing import SplitOptions


def test_brain_slices_have_22_groups_of_copies_each_on_one_side(real_data, import_source):
    made = import_source(real_data / "brain_mri_yesno")
    assert made.info.task == "classification"
    assert made.info.classes == ("no", "yes")
    assert (made.info.sample_count, made.info.excluded_count) == (253, 0)
    assert made.info.exact_duplicate_groups == 22
    by_pixels = defaultdict(set)
    for sample in made.samples.values():
        by_pixels[sample.pixel_digest].add((sample.split, sample.group))
    assert all(len(places) == 1 for places in by_pixels.values())
    by_group = defaultdict(set)
    for sample in made.samples.values():
        if sample.group:
            by_group[sample.group].add(sample.split)
    assert len(by_group) == made.info.near_duplicate_groups >= 22
    assert all(len(parts) == 1 for parts in by_group.values())
    assert [s.sample_count for s in made.info.splits] == [177, 38, 38]
    for info in made.info.class_info:
        assert abs(info.splits[0].sample_count / info.sample_count - 0.7) < 0.02
    # Grey, colour and colour with alpha lie side by side, and stay what they are.
    assert set(Counter(sample.channels for sample in made.samples.values())) >= {1, 3}


def test_blood_smears_name_their_two_boxes_without_area(real_data, import_source):
    made = import_source(real_data / "bccd")
    assert made.info.source_format == "pascal_voc"
    assert made.info.task == "detection"
    found = {
        path: finding.message for path, sample in made.samples.items() for finding in sample.findings if finding.code == "ZERO_AREA_BOX"
    }
    assert set(found) == {"JPEGImages/BloodImage_00338.jpg", "JPEGImages/BloodImage_00343.jpg"}
    assert "object 13 (RBC)" in found["JPEGImages/BloodImage_00338.jpg"]
    counts = {c.name: c.annotation_count for c in made.info.class_info}
    assert counts == {"RBC": 4155 - 2, "WBC": 372, "Platelets": 361}
    official = {}
    for split in ("train", "val", "test"):
        for line in (real_data / "bccd" / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
            official[f"JPEGImages/{line}.jpg"] = {"val": "validation"}.get(split, split)
    moved = {path for path, split in made.splits().items() if split != official[path]}
    assert moved == {path for path in made.samples if "LEAK" in made.codes(path)}
    assert len(moved) <= 2
    exact = import_source(real_data / "bccd", split=SplitOptions(near_duplicate_distance=0))
    assert exact.splits() == official


def test_masks_of_white_cells(real_data, import_source):
    made = import_source(real_data / "wbc_zheng" / "domain2", classes=("cytoplasm", "nucleus"))
    assert made.info.task == "semantic_segmentation"
    assert made.info.mask is not None
    assert made.info.mask.values == (128, 255)
    assert sum("STRAY_MASK_VALUE" in made.codes(path) for path in made.samples) == 5
    assert made.info.excluded_count == 0


def test_instance_masks_of_nuclei(real_data, import_source):
    made = import_source(real_data / "dsb2018_nuclei_compact" / "fluorescence")
    assert made.info.task == "instance_segmentation"
    assert made.info.mask is not None
    assert made.info.mask.kind == "instance"
    assert made.info.sample_count == 150


def test_membranes_with_masks_for_training_only(real_data, import_source):
    made = import_source(real_data / "isbi2012_em")
    assert made.info.task == "semantic_segmentation"
    assert made.info.sample_count == 30
    assert all(made.codes(path) == ["MISSING_ANNOTATION"] for path in made.samples if path.startswith("test/"))
