"""What the report takes from the dataset: an audit's findings, and figures by subgroup."""

from __future__ import annotations

import json

import numpy as np
import pytest
from judged_models import dataset, shade

from oteo_automl.report.audits import find_audit
from oteo_automl.report.rivals import RivalAnswers, against_rivals, left_unsaid
from oteo_automl.report.subgroups import subgroups_of
from oteo_core.artifacts import open_store
from oteo_core.datasets import DatasetReader
from oteo_core.evaluation.scored import score_answers
from oteo_core.packages.answers import ClassMap
from oteo_core.settings import CoreSettings

COUNT = 40


@pytest.fixture
def store(tmp_path):
    made = open_store(CoreSettings(home=tmp_path))
    dataset(
        made,
        "cells",
        "classification",
        ("dark", "light"),
        lambda index: (shade(index, 0.3), {"labels": (("dark", "light")[index % 4 // 2],)}),
        COUNT,
    )
    return made


def write_audit(store, name, digest, when, counts):
    summary = {
        "format_version": 1,
        "dataset_digest": digest,
        "create_time": when,
        "counts": [{"code": code, "severity": severity, "count": count} for code, severity, count in counts],
    }
    store.write_bytes(f"audits/{name}/summary.json", json.dumps(summary).encode())


def test_the_newest_audit_of_this_very_dataset_is_told_worst_first(store):
    info = DatasetReader(store, "cells").info
    assert find_audit(store, info) == []
    write_audit(store, "a1", info.digest, "2026-11-01T00:00:00+00:00", [("CLIPPED", "info", 9)])
    write_audit(store, "a2", info.digest, "2026-11-03T00:00:00+00:00", [("RARE_CLASS", "warning", 1), ("LEAK_GROUP", "error", 2)])
    write_audit(store, "a3", "of another state", "2026-11-04T00:00:00+00:00", [("NEARLY_BLACK", "error", 1)])
    found = find_audit(store, info)
    assert [(one.code, one.count) for one in found] == [("LEAK_GROUP", 2), ("RARE_CLASS", 1)]
    assert "too good" in found[0].meaning
    store.write_bytes("audits/a4/summary.json", b"{not json")
    assert find_audit(store, info) == []


def test_a_folder_in_which_the_model_fails_is_shown(store):
    ids = [f"s{index:03d}" for index in range(COUNT)]
    truths = [index % 4 // 2 for index in range(COUNT)]
    # Folders alternate: right in one, wrong in the other.
    said = [truth if index % 2 == 0 else 1 - truth for index, truth in enumerate(truths)]
    probabilities = [np.array([0.9, 0.1]) if one == 0 else np.array([0.1, 0.9]) for one in said]
    score = score_answers("classification", 2, truths, probabilities).one("accuracy")
    found = {
        one.value: one
        for one in subgroups_of(store, "cells", "classification", ids, None, score, "accuracy")
        if one.attribute == "source folder"
    }
    assert {name: (one.figure, one.count) for name, one in found.items()} == {"set/a": (1.0, 20), "set/b": (0.0, 20)}
    assert found["set/a"].lower < 0.9
    assert found["set/a"].upper == pytest.approx(1.0)
    assert subgroups_of(store, "gone", "classification", ids, None, score, "accuracy") == []
    assert subgroups_of(store, "cells", "classification", ["other"], None, score, "accuracy") == []


def test_folders_that_are_the_classes_are_no_subgroups(tmp_path):
    made = open_store(CoreSettings(home=tmp_path))
    dataset(
        made,
        "named",
        "classification",
        ("dark", "light"),
        lambda index: (shade(index, 0.3), {"labels": (("dark", "light")[index % 2],)}),
        COUNT,
    )
    ids = [f"s{index:03d}" for index in range(COUNT)]
    answers = [np.array([0.9, 0.1])] * COUNT
    score = score_answers("classification", 2, [index % 2 for index in range(COUNT)], answers).one("accuracy")
    assert "source folder" not in {one.attribute for one in subgroups_of(made, "named", "classification", ids, None, score, "accuracy")}


def test_intervals_of_a_subgroup_hold_its_figure(store):
    rng = np.random.default_rng(0)
    ids = [f"s{index:03d}" for index in range(COUNT)]
    truths = [index % 4 // 2 for index in range(COUNT)]
    probabilities = [np.array([1 - p, p]) for p in rng.random(COUNT)]
    score = score_answers("classification", 2, truths, probabilities).one("accuracy")
    for one in subgroups_of(store, "cells", "classification", ids, [f"g{index // 2}" for index in range(COUNT)], score, "accuracy"):
        assert one.lower <= one.figure <= one.upper
        assert one.lower < one.upper


def test_the_winner_is_told_apart_from_a_worse_rival_and_not_from_its_like():
    truths = [ClassMap(np.pad(np.ones((8, 8), np.uint8), 4)) for _ in range(30)]
    rng = np.random.default_rng(0)

    def shifted(largest):
        return [ClassMap(np.roll(one.labels, int(rng.integers(0, largest + 1)), axis=1)) for one in truths]

    winner, like, worse = (
        RivalAnswers("unet", shifted(2)),
        RivalAnswers("twin (the runner-up)", shifted(2)),
        RivalAnswers("small (the baseline)", shifted(6)),
    )
    said = [one.sentence for one in against_rivals("semantic_segmentation", 1, truths, None, winner, [like, worse], "dice")]
    assert "unet is not shown to be better than twin (the runner-up): Dice 0." in said[0]
    assert "unet is better than small (the baseline): Dice 0." in said[1]
    assert "on the same 30 images" in said[1]
    turned = against_rivals("semantic_segmentation", 1, truths, None, RivalAnswers("small", worse.answers), [winner], "dice")[0].sentence
    assert "small is worse than unet" in turned
    assert "difference \N{MINUS SIGN}" in turned


def test_a_page_says_what_the_winner_was_not_compared_with():
    unet, small, cheap = ("t0", "unet"), ("t1", "small"), ("t2", "cheap")
    assert left_unsaid(unet, small, cheap, {"t1", "t2"}) == []
    [alone] = left_unsaid(unet, None, unet, set())
    assert "unet had no rival" in alone
    [first] = left_unsaid(unet, small, unet, {"t1"})
    assert first.startswith("No cheaper model was compared with unet")
    [both] = left_unsaid(unet, small, small, {"t1"})
    assert both == "The runner-up, small, is also the baseline that the search began with."
    [late] = left_unsaid(unet, small, cheap, {"t1"})
    assert "no time left to judge cheap on the test part" in late
    [later] = left_unsaid(unet, small, cheap, set())
    assert "small and cheap" in later
