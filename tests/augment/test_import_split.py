"""Duplicates stay on one side, parts are stratified and grouped, and neither order nor luck plays a role."""

from __future__ import annotations

import random
import shutil
from collections import Counter

import cv2
import numpy as np
import pytest
from import_sources import class_folders, picture, write_picture

from oteo_augment.importing import SplitOptions
from oteo_augment.importing.duplicates import near_pairs
from oteo_augment.importing.splitting import Cluster, assign
from oteo_core.errors import InvalidArgument
from oteo_core.images import encode_jpeg, encode_png


def test_duplicates_are_found_and_stay_together(tmp_path, import_source):
    class_folders(tmp_path, {"a": 30, "b": 30})
    shutil.copy(tmp_path / "a" / "000.png", tmp_path / "a" / "copy.png")
    # The same pixels in other bytes, and nearly the same pixels.
    (tmp_path / "a" / "other-bytes.png").write_bytes(encode_png(picture(0), level=9) + b"")
    again = encode_png(picture(1), level=0)
    (tmp_path / "a" / "level0.png").write_bytes(again)
    (tmp_path / "a" / "jpeg.jpg").write_bytes(encode_jpeg(picture(2), 80))
    small = cv2.resize(picture(3), (32, 24), interpolation=cv2.INTER_AREA)
    (tmp_path / "a" / "small.png").write_bytes(encode_png(np.clip(small.astype(int) + 9, 0, 255).astype(np.uint8)))
    made = import_source(tmp_path)
    assert made.info.exact_duplicate_groups == 2
    assert made.info.near_duplicate_groups == 4
    for names in (("000", "copy", "other-bytes"), ("001", "level0")):
        found = [made.samples[f"a/{name}.png"] for name in names]
        assert len({s.split for s in found}) == 1
        assert len({s.group for s in found}) == 1 != {""}
        assert all("EXACT_DUPLICATE" in [f.code for f in s.findings] for s in found)
    for one, other in (("a/002.png", "a/jpeg.jpg"), ("a/003.png", "a/small.png")):
        assert made.splits()[one] == made.splits()[other]
        finding = next(f for f in made.samples[one].findings if f.code == "NEAR_DUPLICATE")
        assert finding.related == (made.samples[other].id,)
    assert made.samples["b/000.png"].group == ""


def test_no_near_duplicates_when_not_asked_for(tmp_path, import_source):
    class_folders(tmp_path, {"a": 10, "b": 10})
    (tmp_path / "a" / "jpeg.jpg").write_bytes(encode_jpeg(picture(2), 30))
    assert import_source(tmp_path, split=SplitOptions(near_duplicate_distance=4)).info.near_duplicate_groups == 1


def test_conflicting_labels_are_named(tmp_path, import_source):
    class_folders(tmp_path, {"a": 6, "b": 6})
    shutil.copy(tmp_path / "a" / "000.png", tmp_path / "b" / "twin.png")
    made = import_source(tmp_path)
    for path in ("a/000.png", "b/twin.png"):
        assert made.codes(path) == ["EXACT_DUPLICATE", "CONFLICTING_LABELS"]
        assert not made.samples[path].excluded


def test_parts_are_stratified(tmp_path, import_source):
    class_folders(tmp_path, {"a": 100, "b": 40, "c": 20})
    made = import_source(tmp_path)
    table = {c.name: {s.split: s.sample_count for s in c.splits} for c in made.info.class_info}
    for name, count in (("a", 100), ("b", 40), ("c", 20)):
        assert table[name] == {"train": count * 0.7, "validation": count * 0.15, "test": count * 0.15}


def test_groups_of_a_pattern_stay_together(tmp_path, import_source):
    for patient in range(20):
        for view in range(5):
            write_picture(tmp_path / ("sick" if patient % 2 else "well") / f"p{patient:02}_v{view}.png", patient * 5 + view)
    made = import_source(tmp_path, split=SplitOptions(group_pattern=r"(p\d+)_"))
    by_patient = {}
    for path, split in made.splits().items():
        by_patient.setdefault(path.split("/")[1][:3], set()).add(split)
    assert all(len(parts) == 1 for parts in by_patient.values())
    assert {s.split: s.group_count for s in made.info.splits} == {"train": 14, "validation": 3, "test": 3}
    assert made.samples["well/p00_v0.png"].group == "p00"
    with pytest.raises(InvalidArgument) as caught:
        import_source(tmp_path, split=SplitOptions(group_pattern="(p"))
    assert (caught.value.reason, caught.value.field) == ("BAD_GROUP_PATTERN", "split.group_pattern")


def test_source_parts_are_kept_and_leaks_mended(tmp_path, import_source):
    for part, first in (("train", 0), ("val", 100), ("test", 200)):
        class_folders(tmp_path / part, {"a": 8, "b": 8}, first)
    shutil.copy(tmp_path / "train" / "a" / "000.png", tmp_path / "test" / "a" / "leaked.png")
    (tmp_path / "val" / "b" / "near.jpg").write_bytes(encode_jpeg(picture(1), 85))
    (tmp_path / "val" / "b" / "near.jpg").rename(tmp_path / "val" / "a" / "near.jpg")
    made = import_source(tmp_path)
    splits = made.splits()
    assert splits["train/a/000.png"] == splits["test/a/leaked.png"] == "test"
    assert splits["train/a/001.png"] == splits["val/a/near.jpg"] == "validation"
    leaks = sorted(path for path in made.samples if "LEAK" in made.codes(path))
    assert leaks == ["train/a/000.png", "train/a/001.png"]
    kept = {path: split for path, split in splits.items() if path not in leaks}
    assert all(split == {"train": "train", "val": "validation", "test": "test"}[path.split("/")[0]] for path, split in kept.items())
    free = import_source(tmp_path, split=SplitOptions(ignore_source_split=True))
    assert free.splits() != splits
    assert not any("LEAK" in free.codes(path) for path in free.samples)
    assert free.splits()["train/a/000.png"] == free.splits()["test/a/leaked.png"]


def test_a_missing_part_is_taken_from_training(tmp_path, import_source):
    for part, first in (("train", 0), ("test", 200)):
        class_folders(tmp_path / part, {"a": 17, "b": 17}, first)
    made = import_source(tmp_path)
    assert all(split == "test" for path, split in made.splits().items() if path.startswith("test"))
    assert Counter(split for path, split in made.splits().items() if path.startswith("train")) == {"train": 28, "validation": 6}


def test_the_same_seed_gives_the_same_parts_whatever_the_order():
    clusters = [Cluster(f"k{i}", 1 + i % 3, {f"c{i % 4}": 1 + i % 3}, {}) for i in range(300)]
    first = dict(zip((c.key for c in clusters), assign(clusters, (0.6, 0.2, 0.2), 1, True), strict=True))
    random.Random(3).shuffle(clusters)
    again = dict(zip((c.key for c in clusters), assign(clusters, (0.6, 0.2, 0.2), 1, True), strict=True))
    assert first == again
    other = dict(zip((c.key for c in clusters), assign(clusters, (0.6, 0.2, 0.2), 2, True), strict=True))
    assert first != other
    none = assign(clusters, (1.0, 0.0, 0.0), 1, True)
    assert set(none) == {"train"}


def test_many_labels_at_once_are_balanced():
    rng = np.random.default_rng(0)
    clusters = [
        Cluster(
            f"k{i}",
            1,
            {
                name: int(rng.integers(1, 9))
                for name in ("common", "rare", "seldom")
                if rng.random() < {"common": 0.9, "rare": 0.05, "seldom": 0.2}[name]
            },
            {},
        )
        for i in range(600)
    ]
    parts = assign(clusters, (0.7, 0.15, 0.15), 0, True)
    for name in ("common", "rare", "seldom"):
        counts = Counter()
        for cluster, part in zip(clusters, parts, strict=True):
            counts[part] += cluster.classes.get(name, 0)
        total = sum(counts.values())
        assert abs(counts["train"] / total - 0.7) < 0.03
        assert abs(counts["test"] / total - 0.15) < 0.03


@pytest.mark.parametrize("distance", [0, 2, 4, 7])
def test_banded_search_finds_what_comparing_all_finds(distance):
    rng = np.random.default_rng(distance)
    base = rng.integers(0, 2**63, 3000, dtype=np.uint64)
    flips = np.array(
        [np.bitwise_or.reduce([np.uint64(1) << np.uint64(b) for b in rng.choice(64, rng.integers(1, 9), replace=False)]) for _ in base]
    )
    hashes = np.unique(np.concatenate([base, base ^ flips]))
    assert len(hashes) > 4096
    brute = {
        (int(i), int(j))
        for i in range(len(hashes))
        for j in np.flatnonzero(np.bitwise_count(hashes[i] ^ hashes[i + 1 :]) <= distance) + i + 1
    }
    assert {tuple(map(int, pair)) for pair in near_pairs(hashes, distance)} == brute
    assert len(brute) > (0 if distance else -1)


def test_two_imports_have_one_digest(tmp_path, import_source):
    class_folders(tmp_path / "one", {"a": 12, "b": 12})
    class_folders(tmp_path / "two", {"b": 1, "a": 1})
    shutil.rmtree(tmp_path / "two")
    # Written in another order, so that the folder lists them in another.
    for path in sorted((tmp_path / "one").rglob("*.png"), reverse=True):
        goal = tmp_path / "two" / path.relative_to(tmp_path / "one")
        goal.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, goal)
    assert import_source(tmp_path / "one").info.digest == import_source(tmp_path / "two", name="again").info.digest
