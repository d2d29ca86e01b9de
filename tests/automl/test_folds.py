"""What is held out: groups whole, classes and amounts in their share, and as many folds as a dataset of its size needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training_tools import write_discs

from oteo_automl.dense.base import find_task
from oteo_automl.dense.work import contents, hold_out
from oteo_automl.search.folds import fold_count, hold_out_share, make_folds
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader


@pytest.mark.parametrize(("count", "folds"), [(120, 5), (2000, 3), (6000, 1)])
def test_large_sets_need_fewer_folds(count: int, folds: int) -> None:
    labels = np.arange(count) % 3
    training = np.arange(count) % 5 != 0
    groups = [f"p{number // 2}" for number in range(count)]
    found, number = make_folds(labels, training, groups, seed=1)
    assert number == folds == fold_count(count)
    assert (found[~training] == 0).all()
    assert set(found[training].tolist()) == (set(range(1, folds)) if folds > 1 else {-1})


def test_no_group_is_in_two_folds_and_every_fold_has_every_class() -> None:
    rng = np.random.default_rng(0)
    groups = [f"p{number}" for number in rng.integers(0, 40, 300)]
    labels = rng.choice(3, 300, p=[0.7, 0.2, 0.1])
    found, number = make_folds(labels, np.ones(300, bool), groups, seed=1)
    assert number == 5
    for group in set(groups):
        assert len({int(fold) for fold, name in zip(found, groups, strict=True) if name == group}) == 1
    assert all(len(np.unique(labels[found == one])) == 3 for one in range(5))


def test_a_rare_class_and_empty_images_are_held_out_in_their_share() -> None:
    rng = np.random.default_rng(3)
    present = np.zeros((200, 3), dtype=np.int64)
    present[:, 0] = rng.random(200) < 0.8
    present[:10, 1] = 1
    present[:, 2] = present[:, :2].sum(axis=1) == 0
    groups = [f"p{number // 2}" for number in range(200)]
    held = hold_out_share(present, groups, share=0.2, seed=0)
    assert 30 <= held.sum() <= 50
    assert 1 <= present[held, 1].sum() <= 4
    assert (held[::2] == held[1::2]).all()


@pytest.mark.parametrize("task", ["detection", "semantic_segmentation"])
def test_what_is_in_an_image_is_known_for_every_task(task: str, tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}")
    write_discs(store, task, count=40)
    data = find_task(task).read(DatasetReader(store, "discs"))
    data.parts[data.parts == "validation"] = "train"
    rows = data.part("train")
    found = contents(data, rows)
    assert found.shape == (len(rows), len(data.classes) + 3)
    # Nothing, little or much: one of them.
    assert (found[:, -3:].sum(axis=1) == 1).all()
    train, held, words = hold_out(data, 0)
    assert "with its share of every class" in words
    assert sorted([*train, *held]) == rows.tolist()
    assert found[np.isin(rows, held), : len(data.classes)].any(axis=0).all()
