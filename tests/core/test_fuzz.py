"""Mutated files through the decoders: an answer or a reason, and nothing else. ``benchmarks/fuzz.py`` runs as many as one likes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fuzzing.child import outcome
from fuzzing.harness import run
from fuzzing.seeds import drawn

COUNT = 3000


def test_every_drawn_seed_is_read() -> None:
    assert {(seed.kind, outcome(seed.data)) for seed in drawn()} == {(seed.kind, "answered") for seed in drawn()}


@pytest.mark.parametrize("real", [False, True], ids=["drawn", "real"])
def test_mutated_files_are_answered_or_refused(real: bool, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue("real_data") if real else None
    result = run(COUNT, tmp_path / "corpus", seed=os.getpid(), real=folder, faults=tmp_path / "faults")
    assert not result.faults, f"seed {os.getpid()}"
    assert result.total == COUNT
    reasons = {reason for _, outcomes in result.outcomes for reason in outcomes.split(",")}
    # Enough comes through, and enough does not, for the run to mean something.
    assert {"answered", "UNREADABLE_IMAGE", "TRUNCATED_IMAGE", "IMAGE_TOO_LARGE"} <= reasons


def test_a_child_that_dies_is_noticed_and_its_input_kept(tmp_path: Path) -> None:
    # A codec that brings its process down after some files, in the place of Pillow's.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'fuzzing.child' in sys.orig_argv:\n"
        "    import PIL.Image as module\n"
        "    first, calls = module.open, []\n"
        "    def opened(*arguments, **options):\n"
        "        calls.append(1)\n"
        "        return first(*arguments, **options) if len(calls) < 20 else os.abort()\n"
        "    module.open = opened\n"
    )
    result = run(200, tmp_path / "corpus", seed=1, faults=tmp_path / "faults", path=[str(tmp_path)])
    assert result.total == 200
    assert any("the child ended with -6" in fault for fault in result.faults)
    assert len(list((tmp_path / "faults").iterdir())) == len(result.faults)
