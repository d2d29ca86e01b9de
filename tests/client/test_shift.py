"""``oteo shift``: the reference is found by its name, and the answer is readable."""

from __future__ import annotations

import pytest
from client_fakes import make_dataset, make_model


@pytest.mark.parametrize(
    ("name", "there", "field", "full"),
    [
        ("cells", {"models"}, "model", "models/cells"),
        ("cells", {"datasets"}, "reference_dataset", "datasets/cells"),
        ("datasets/cells", {"models", "datasets"}, "reference_dataset", "datasets/cells"),
        ("models/cells", {"models", "datasets"}, "model", "models/cells"),
    ],
)
def test_a_reference_is_a_model_or_a_dataset(command, world, tmp_path, name, there, field, full):
    if "models" in there:
        world.models["models/cells"] = make_model("models/cells")
    if "datasets" in there:
        world.datasets["datasets/cells"] = make_dataset("datasets/cells", tmp_path / "cells")
    ran = command("shift", name, "new", "--alpha", "0.01", "--seed", "3")
    assert ran.code == 0, ran.err
    asked = world.asked[-1]
    assert asked.WhichOneof("reference") == field
    assert getattr(asked, field) == full
    assert (asked.dataset, asked.alpha, asked.seed) == ("datasets/new", 0.01, 3)


def test_a_name_of_both_or_of_neither_is_not_guessed(command, world, tmp_path):
    neither = command("shift", "cells", "new")
    assert (neither.code, "neither a model nor a dataset" in neither.err) == (4, True)
    world.models["models/cells"] = make_model("models/cells")
    world.datasets["datasets/cells"] = make_dataset("datasets/cells", tmp_path / "cells")
    both = command("shift", "cells", "new")
    assert (both.code, "models/cells or datasets/cells" in both.err) == (3, True)
    assert world.asked == []


def test_the_verdict_is_a_sentence_and_the_tests_are_a_table(command, world):
    ran = command("shift", "models/cells", "new")
    assert ran.code == 0
    for words in (
        "the images look different",
        "kernel test",
        "0.604",
        "0.139",
        "what the model sees",
        "0.340 (0.310 to 0.370)",
        "s-17",
        "/store/shifts/op/report.html",
    ):
        assert words in ran.out, words
    told = command("shift", "models/cells", "new", "--json").json
    assert told["kind"] == "SHIFT_KIND_COVARIATE"
    assert told["expected_loss"]["value"] == 0.34
    begun = command("shift", "models/cells", "new", "--no-wait")
    assert "has begun" in begun.out
