"""`oteo augment` against the real service with jobs as processes: what a person at a shell sees."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
import structlog
from import_sources import class_folders
from live_server import live_server
from typer.testing import CliRunner
from waiting import patient

from oteo.cli import app
from oteo_augment.service import Augment
from oteo_augment.settings import AugmentSettings
from oteo_core.jobs import ProcessJobRunner


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> Iterator[Callable[..., Any]]:
    """Run a command of `oteo` against a service that holds the dataset `cells`: six round ones and two long ones."""
    home = tmp_path_factory.mktemp("augment")
    settings = AugmentSettings(home=home, allow_anonymous=True, job_python=sys.executable, reconcile_seconds=0.1)
    runner = ProcessJobRunner(home / "jobs", executor="inline")
    augment = Augment(settings, runner)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with live_server(settings, augment.register) as server, pytest.MonkeyPatch.context() as patch:
        server.run(augment.start()).result(patient(30))
        patch.setenv("OTEO_HOME", str(home / "client"))
        patch.setenv("OTEO_ADDRESS", server.address)

        def run(*words: Any, code: int = 0) -> Any:
            ran = CliRunner().invoke(app, [*map(str, words), "--json"])
            assert ran.exit_code == code, ran.output
            return json.loads(ran.stdout) if ran.stdout.strip() else None

        source = class_folders(home / "cells", {"round": 12, "long": 4})
        run("datasets", "import", source, "--name", "cells")
        yield run
        server.run(augment.stop()).result(patient(30))
    structlog.reset_defaults()
    runner.close()


def test_run_then_replay(command, tmp_path):
    told = command("augment", "run", "cells", "--copies", "2", "--name", "more", "--seed", "3", "--preset", "orientation-free")
    assert int(told["augmented_count"]) > 0
    listed = command("datasets", "samples", "more")
    copies = [sample for sample in listed if sample.get("derived_from")]
    assert len(copies) == int(told["augmented_count"])
    picture = tmp_path / "again.png"
    made = command("augment", "replay", copies[0]["name"], "-o", picture)
    assert made["same"] is True
    assert made["sample"]["sha256"] == copies[0]["sha256"]
    assert cv2.imread(str(picture)) is not None
    assert command("augment", "replay", next(s["name"] for s in listed if not s.get("derived_from")), code=5)


def test_balance_evens_the_classes_out(command):
    made = command("augment", "run", "cells", "--balance", "--name", "even")["dataset"]
    counts = {one["name"]: int(next(s["sample_count"] for s in one["splits"] if s["split"] == "SPLIT_TRAIN")) for one in made["classes"]}
    assert max(counts.values()) <= 1.5 * min(counts.values())


def test_a_preview_is_a_sheet_with_a_row_for_each_sample(command, tmp_path):
    sheet = tmp_path / "sheet.png"
    command("augment", "preview", "cells", "-o", sheet, "--samples", "3", "--copies", "2")
    picture = cv2.imread(str(sheet))
    assert picture.shape[1] > 2 * picture.shape[0] // 3
    assert np.std(picture) > 10


def test_convert_brings_a_folder_to_another_format_and_leaves_no_dataset_behind(command, tmp_path):
    source = class_folders(tmp_path / "some", {"a": 3, "b": 2})
    before = {one["name"] for one in command("datasets", "list")}
    made = command("augment", "convert", source, tmp_path / "out", "--to", "csv")
    assert made["sample_count"] == "5"
    assert len((tmp_path / "out" / "samples.csv").read_text().splitlines()) == 6
    assert {one["name"] for one in command("datasets", "list")} == before
    # A format that cannot hold it is refused, and nothing is left behind either.
    command("augment", "convert", source, tmp_path / "boxes", "--to", "coco", code=5)
    assert {one["name"] for one in command("datasets", "list")} == before


def test_the_audit_says_what_it_found(command):
    told = command("augment", "audit", "cells")
    assert told["report_uri"].endswith(".html")
