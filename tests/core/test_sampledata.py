"""The sample that the project draws itself: the same on every run, hard for a linear model, and flawed as real folders are."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from oteo_core.sampledata import CLASSES, GROUP_PATTERN, draw_cell, draw_cells
from oteo_core.sampledata.__main__ import main


def _digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*.png"))}


def test_same_bytes_on_every_run_and_in_any_order(tmp_path):
    draw_cells(tmp_path / "a", count=12)
    draw_cells(tmp_path / "b", count=12)
    assert _digests(tmp_path / "a") == _digests(tmp_path / "b")
    assert len(_digests(tmp_path / "a")) == 12 + 4
    alone, label, stem = draw_cell(11)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a" / label / f"{stem}.png"))[..., ::-1], alone)


def test_another_seed_gives_other_pictures(tmp_path):
    draw_cells(tmp_path / "a", count=3, flaws=False)
    draw_cells(tmp_path / "b", count=3, seed=8, flaws=False)
    assert not set(_digests(tmp_path / "a").values()) & set(_digests(tmp_path / "b").values())


def test_every_patient_is_under_one_microscope_and_has_every_class():
    seen: dict[str, set[str]] = {}
    scopes: dict[str, set[str]] = {}
    for index in range(144):
        _, label, stem = draw_cell(index, size=48)
        patient = re.search(GROUP_PATTERN, stem)
        assert patient
        seen.setdefault(patient[0], set()).add(label)
        scopes.setdefault(patient[0], set()).add(stem.split("_")[0])
    assert len(seen) == 24
    assert all(labels == set(CLASSES) for labels in seen.values())
    assert all(len(names) == 1 for names in scopes.values())
    assert set.union(*scopes.values()) == {"scope-a", "scope-b"}


def test_flaws_are_what_they_are_said_to_be(tmp_path):
    drawn = draw_cells(tmp_path, count=12)
    for copy, original in drawn.duplicates.items():
        assert copy.read_bytes() == original.read_bytes()
        assert re.search(GROUP_PATTERN, copy.name)[0] != re.search(GROUP_PATTERN, original.name)[0]
    for again, original in drawn.near_duplicates.items():
        first, second = (cv2.imread(str(p)).astype(float) for p in (again, original))
        assert 0 < np.abs(first - second).mean() < 12
    (broken,) = drawn.unreadable
    data = broken.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert b"IEND" not in data
    assert len(drawn.images) == 15


def test_a_linear_classifier_on_pixels_fails_and_shape_does_not():
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    drawn = [draw_cell(i) for i in range(360)]
    labels = np.array([label for _, label, _ in drawn])
    patients = np.array([re.search(GROUP_PATTERN, stem)[0] for _, _, stem in drawn])
    pixels = np.stack([cv2.resize(p, (32, 32), interpolation=cv2.INTER_AREA).ravel() / 255.0 for p, _, _ in drawn])
    shapes = np.stack([_nucleus_shape(p) for p, _, _ in drawn])
    split = GroupKFold(4)
    for strength in (1.0, 1e-3):
        linear = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
        assert cross_val_score(linear, pixels, labels, cv=split, groups=patients).mean() < 0.6
    forest = ExtraTreesClassifier(200, random_state=0)
    assert cross_val_score(forest, shapes, labels, cv=split, groups=patients).mean() > 0.8


def _nucleus_shape(picture: np.ndarray) -> list[float]:
    """What an eye sees at once: is the darkest thing round, folded or in lobes?"""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    level, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_OTSU)
    _, parts, stats, _ = cv2.connectedComponentsWithStats((grey < 0.85 * level).astype(np.uint8))
    mask = (parts == 1 + np.argmax(stats[1:, 4])).astype(np.uint8)
    outline = max(cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0], key=cv2.contourArea)
    area, hull, length = cv2.contourArea(outline) + 1, cv2.contourArea(cv2.convexHull(outline)) + 1, cv2.arcLength(outline, True)
    return [area, area / hull, area / (length**2 + 1), *cv2.HuMoments(cv2.moments(mask)).ravel()[:3]]


@pytest.mark.parametrize(("arguments", "status"), [(["--count", "12", "--size", "48"], 0), (["--count", "3"], 2), (["--size", "7"], 2)])
def test_command(tmp_path, capsys, arguments, status):
    assert main([str(tmp_path / "out"), *arguments]) == status
    said = capsys.readouterr()
    assert ("15 pictures and 1 broken file" in said.out) if status == 0 else ("give " in said.err)
