"""Each check of an audit finds what was planted, and nothing in a dataset without faults."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from audit_sets import audit, codes, row, scene, scenes, write

from oteo_augment.auditing import NAMES, choose
from oteo_augment.auditing.checks import CHECKS
from oteo_augment.auditing.fixing import plan_repair
from oteo_core.datasets import (
    Box,
    DatasetReader,
    Finding,
    Keypoint,
    Keypoints,
    MaskEncoding,
    OrientedBox,
    Polygons,
    Rle,
    Sample,
    Severity,
)
from oteo_core.errors import InvalidArgument
from oteo_core.images import encode_png


@pytest.fixture
def rows():
    return scenes()


def test_nothing_is_found_where_nothing_is_wrong(store, rows):
    write(store, "clean", list(rows.values()))
    outcome = audit(store, "clean")
    assert codes(outcome) == {}
    assert tuple(outcome.results) == NAMES == tuple(CHECKS)
    assert all(result.note for result in outcome.results.values())
    assert "0 suspects among 60 images" in outcome.results["label_errors"].note


def test_files_that_went_bad_and_what_was_left_out(store, rows):
    gone = (Finding(Severity.ERROR, "TRUNCATED_IMAGE", "ends early", "in/bad.png"),)
    write(store, "files", [*rows.values(), (Sample("bad", source_path="in/bad.png", excluded=True, findings=gone), b"")])
    reader = DatasetReader(store, "files")
    good = {sample.id: sample for sample in reader.samples()}
    store.delete(f"datasets/files/{good['c0-01'].path}")
    store.write_bytes(f"datasets/files/{good['c0-02'].path}", b"not a picture")
    data = reader.read_media(good["c0-03"])
    store.write_bytes(f"datasets/files/{good['c0-03'].path}", data[:-30])
    found = codes(audit(store, "files"))
    assert found == {"MEDIA_LOST": ["c0-01"], "CONTENT_CHANGED": ["c0-02", "c0-03"], "LEFT_OUT_BEFORE": ["bad"]}


def test_duplicates_and_one_picture_under_two_labels(store, rows):
    copy = row("copy", scene(0, 0), labels=("c0",), split="train")
    two = row("two-labels", scene(1, 1), labels=("c2",), split="train")
    brighter = row("brighter", np.clip(scene(2, 2).astype(int) + 14, 0, 255).astype(np.uint8), labels=("c2",), split="train")
    derived = row("derived", scene(0, 5), labels=("c0",), split="train", derived_from="c0-05")
    write(store, "twice", [*rows.values(), copy, two, brighter, derived])
    outcome = audit(store, "twice", "duplicates")
    assert codes(outcome) == {
        "CONFLICTING_LABELS": ["c1-01", "two-labels"],
        "EXACT_DUPLICATE": ["c0-00", "copy"],
        "NEAR_DUPLICATE": ["brighter", "c2-02"],
    }
    first = outcome.findings[0]
    assert first.severity is Severity.ERROR
    assert "'c1' and 'c2'" in first.message
    assert "in/c1-01.png, in/two-labels.png" in first.message


def test_leaks_by_group_picture_and_augmented_copy(store, rows):
    for name in ("c0-00", "c0-01", "c0-03"):
        rows[name] = (replace(rows[name][0], group="patient-7"), rows[name][1])
    copy = row("copy", scene(1, 4), labels=("c1",), split="train")
    copy_of_test = row("augmented", scene(2, 90), labels=("c2",), split="train", derived_from="c2-04")
    write(store, "leaky", [*rows.values(), copy, copy_of_test])
    outcome = audit(store, "leaky", "leaks")
    assert codes(outcome) == {
        "LEAK_GROUP": ["c0-00", "c0-01", "c0-03"],
        "LEAK_DUPLICATE": ["c1-04", "copy"],
        "LEAK_AUGMENTED": ["augmented", "c2-04"],
    }
    message = next(f.message for f in outcome.findings if f.code == "LEAK_GROUP")
    assert "'patient-7'" in message
    assert "2 in train, 1 in validation" in message


def test_rare_and_missing_classes_and_parts(store, rows):
    kept = [value for name, value in rows.items() if not name.startswith("c2") or name in ("c2-00", "c2-01")]
    write(store, "uneven", kept, classes=("c0", "c1", "c2", "never"))
    found = codes(audit(store, "uneven", "balance"))
    assert found == {
        "EMPTY_CLASS": [],
        "CLASS_MISSING_IN_PART": ["c2-00", "c2-01"],
        "RARE_CLASS": ["c2-00", "c2-01"],
        "UNEVEN_CLASSES": [],
    }
    write(store, "whole", [(replace(sample, split="train"), data) for sample, data in rows.values()])
    assert [f.message.split(":")[0] for f in audit(store, "whole", "balance").findings] == [
        "the dataset has no validation and no test part"
    ]


def test_sizes_and_modes(store, rows):
    large = row("large", scene(0, 50, size=200), labels=("c0",), split="train")
    long = row("long", scene(0, 51)[:20], labels=("c0",), split="train")
    grey = row("grey", scene(1, 52)[:, :, :1], labels=("c1",), split="train")
    deep = row("deep", scene(1, 53).astype(np.uint16) * 257, labels=("c1",), split="train")
    repeated = row("repeated", np.repeat(scene(2, 54)[:, :, :1], 3, axis=2), labels=("c2",), split="train")
    write(store, "mixed", [*rows.values(), large, long, grey, deep, repeated])
    found = codes(audit(store, "mixed", "sizes", "modes"))
    assert found == {
        "SIZE_OUTLIER": ["large", "long"],
        "TINY_IMAGE": ["long"],
        "MIXED_SIZES": ["large", "long"],
        "MIXED_PIXEL_TYPES": ["deep"],
        "MIXED_CHANNELS": ["grey"],
        "GREY_AS_COLOUR": ["repeated"],
    }


def test_a_class_that_is_told_by_how_its_images_are_stored(store, rows):
    told = [
        (row(name, scene(2, i)[:, :, :1], labels=("c2",), split=s.split) if name[1] == "2" else (s, d))
        for i, (name, (s, d)) in enumerate(rows.items())
    ]
    write(store, "format", told)
    assert "MODE_TELLS_CLASS" in codes(audit(store, "format", "modes"))


def test_boxes_outlines_and_runs(store):
    good = Box("a", 10, 10, 20, 20)
    plain = [row(f"ok-{i}", scene(0, i), split="train", boxes=(good, replace(good, x=30, class_name="b"))) for i in range(3)]
    faults = {
        "empty": {"boxes": (good, Box("a", 5, 5, 0, 10))},
        "nan": {"boxes": (Box("a", float("nan"), 5, 4, 10),)},
        "outside": {"boxes": (Box("a", 70, 5, 9, 10),)},
        "tiny": {"boxes": (Box("a", 5, 5, 1.5, 30),)},
        "huge": {"boxes": (Box("a", 0, 0, 64, 64),)},
        "twice": {"boxes": (good, replace(good, x=10.5))},
        "which": {"boxes": (good, replace(good, class_name="b"))},
        "flat": {"polygons": (Polygons("a", ((1, 1, 9, 9, 5, 5),)),)},
        "runs": {"rle": (Rle("a", 64, 64, (4096,)),)},
        "bare": {},
    }
    planted = [row(name, scene(1, i), split="train", **fields) for i, (name, fields) in enumerate(faults.items())]
    write(store, "boxes", [*plain, *planted], task="detection", classes=("a", "b"))
    outcome = audit(store, "boxes", "annotations")
    assert codes(outcome) == {
        "EMPTY_ANNOTATION": ["empty", "flat", "nan", "runs"],
        "ANNOTATION_OUT_OF_IMAGE": ["outside"],
        "TINY_ANNOTATION": ["tiny"],
        "HUGE_ANNOTATION": ["huge"],
        "DUPLICATE_ANNOTATION": ["twice"],
        "CONFLICTING_ANNOTATION": ["which"],
        "NO_ANNOTATION": ["bare"],
    }


def test_turned_boxes_and_points(store):
    good = OrientedBox("a", 25, 25, 30, 12, 0.5)
    seen = Keypoints("a", (Keypoint("nose", 5, 5), Keypoint("tail", 60, 60)))
    other = replace(good, angle=-0.5)
    # The same around it, turned the other way: two things.
    plain = [row(f"ok-{i}", scene(0, i), split="train", oriented_boxes=(good, other), keypoints=(seen,)) for i in range(3)]
    outside, nan = Keypoint("ear", 90, 5), float("nan")
    faults = {
        "empty": {"oriented_boxes": (replace(good, height=0.0),)},
        "nan": {"oriented_boxes": (replace(good, angle=nan),)},
        "outside": {"oriented_boxes": (replace(good, center_x=120.0),)},
        "thin": {"oriented_boxes": (replace(good, height=1.0),)},
        "twice": {"oriented_boxes": (good, replace(good, center_x=25.3))},
        "which": {"oriented_boxes": (good, replace(good, class_name="b"))},
        "none": {"keypoints": (Keypoints("a", ()),)},
        "nowhere": {"keypoints": (Keypoints("a", (Keypoint("nose", nan, 5),)),)},
        "away": {"keypoints": (Keypoints("a", (outside,)),)},
        "partly": {"keypoints": (Keypoints("a", (*seen.points, outside)),)},
        "double": {"keypoints": (Keypoints("a", (*seen.points, Keypoint("nose", 6, 6))),)},
    }
    planted = [row(name, scene(1, i), split="train", **fields) for i, (name, fields) in enumerate(faults.items())]
    write(store, "marks", [*plain, *planted], task="detection", classes=("a", "b"))
    outcome = audit(store, "marks", "annotations")
    assert codes(outcome) == {
        "EMPTY_ANNOTATION": ["empty", "nan", "none", "nowhere"],
        "ANNOTATION_OUT_OF_IMAGE": ["away", "outside"],
        "TINY_ANNOTATION": ["thin"],
        "DUPLICATE_ANNOTATION": ["twice"],
        "CONFLICTING_ANNOTATION": ["which"],
        "POINT_OUT_OF_IMAGE": ["partly"],
        "REPEATED_POINT": ["double"],
    }
    repair = plan_repair(outcome)
    assert {name: [(ref.kind, ref.index) for ref in refs] for name, refs in repair.annotations.items()} == {
        "empty": [("oriented_boxes", 0)], "nan": [("oriented_boxes", 0)], "outside": [("oriented_boxes", 0)],
        "twice": [("oriented_boxes", 1)], "none": [("keypoints", 0)], "nowhere": [("keypoints", 0)], "away": [("keypoints", 0)],
    }  # fmt: skip


def test_masks(store):
    def mask(*things: tuple[int, int, int]) -> bytes:
        made = np.zeros((64, 64, 1), np.uint8)
        for number, at, size in things:
            made[at : at + size, at : at + size] = number
        return encode_png(made)

    masks = {"good": mask((1, 5, 9), (2, 30, 9)), "speck": mask((1, 5, 9), (2, 30, 1)), "nothing": mask(), "whole": mask((1, 0, 64))}
    rows = [row(name, scene(0, i), split="train", labels=("a",)) for i, name in enumerate(masks)]
    write(store, "masks", rows, task="instance_segmentation", classes=("a",), mask=MaskEncoding("instance"), masks=masks)
    found = codes(audit(store, "masks", "annotations", "files"))
    assert found == {"TINY_ANNOTATION": ["speck"], "EMPTY_MASK": ["nothing"], "HUGE_ANNOTATION": ["whole"]}


def test_black_white_constant_clipped_and_outlying_images(store, rows):
    shapes = {
        "black": (scene(0, 60) // 30).astype(np.uint8),
        "white": (246 + scene(0, 61) // 30).astype(np.uint8),
        "constant": np.full((64, 64, 3), 77, np.uint8),
        "clipped": np.where(np.arange(64)[:, None, None] < 20, 255, scene(0, 62)).astype(np.uint8),
        "dim": (scene(0, 63) // 4).astype(np.uint8),
        "one-colour": scene(0, 64) * np.array([1, 1, 0], np.uint8),
    }
    write(store, "lights", [*rows.values(), *(row(n, p, labels=("c0",), split="train") for n, p in shapes.items())])
    found = codes(audit(store, "lights", "channels"))
    assert found["NEARLY_BLACK"] == ["black"]
    assert found["NEARLY_WHITE"] == ["white"]
    assert found["CONSTANT_IMAGE"] == ["constant"]
    assert found["CLIPPED"] == ["clipped"]
    assert found["CONSTANT_CHANNEL"] == ["one-colour"]
    assert "dim" in found["BRIGHTNESS_OUTLIER"]


def test_channel_statistics_are_those_of_all_pixels(store, rows):
    write(store, "clean", list(rows.values()))
    figures = audit(store, "clean", "channels").results["channels"].figures
    everything = np.stack([scene(k, n) for k in range(3) for n in range(20)]).reshape(-1, 3) / 255
    assert figures["mean"] == pytest.approx(everything.mean(axis=0), abs=1e-5)
    assert figures["std"] == pytest.approx(everything.std(axis=0), abs=1e-5)


def test_writing_is_found_at_the_border_and_not_made_of_cells(store):
    def picture(seed: int, *texts: tuple[str, tuple[int, int]]) -> np.ndarray:
        made = cv2.resize(scene(2, seed), (320, 320), interpolation=cv2.INTER_CUBIC)
        for text, place in texts:
            cv2.putText(made, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (250, 250, 250), 1, cv2.LINE_AA)
        return made

    rows = [row(f"plain-{i}", picture(i), labels=("c2",), split="train") for i in range(4)]
    rows.append(row("name", picture(10, ("MUSTER HANS 1961", (8, 18))), labels=("c2",), split="train"))
    rows.append(row("date", picture(11, ("12:45:01", (220, 310))), labels=("c2",), split="train"))
    dots = picture(12)
    for x in range(20, 300, 22):
        cv2.circle(dots, (x, 20), 6, (20, 20, 20), -1)  # a row of cells
    rows.append(row("cells", dots, labels=("c2",), split="train"))
    write(store, "written", rows)
    outcome = audit(store, "written", "text")
    assert codes(outcome) == {"TEXT_SUSPECT": ["date", "name"]}
    left, upper, right, lower = next(f.boxes[0] for f in outcome.findings if f.sample == "name")
    assert left < 20
    assert right > 120
    assert upper < 12 < lower


def test_wrong_labels_are_suspected(store, rows):
    wrong = {"c0-02": "c1", "c1-07": "c2", "c2-11": "c0"}
    for name, label in wrong.items():
        rows[name] = (replace(rows[name][0], labels=(label,)), rows[name][1])
    write(store, "wrong", list(rows.values()))
    outcome = audit(store, "wrong", "label_errors")
    assert codes(outcome) == {"LABEL_SUSPECT": sorted(wrong)}
    told = next(f.message for f in outcome.findings if f.sample == "c0-02")
    assert "labelled 'c1'" in told
    assert "says 'c0'" in told


def test_labels_without_meaning_give_no_suspects(store):
    rng = np.random.default_rng(1)
    rows = [row(f"n{i}", scene(0, i), labels=(f"c{rng.integers(2)}",), split="train") for i in range(60)]
    write(store, "noise", rows, classes=("c0", "c1"))
    outcome = audit(store, "noise", "label_errors")
    assert codes(outcome) == {}
    assert "too low for its word to count" in outcome.results["label_errors"].note


def test_an_unknown_check_is_refused_with_those_there_are():
    with pytest.raises(InvalidArgument) as caught:
        choose(["files", "spelling"])
    assert (caught.value.reason, caught.value.field) == ("UNKNOWN_CHECK", "checks[1]")
    assert all(name in caught.value.message for name in NAMES)
    assert choose(["text", "files"]) == ("files", "text")
