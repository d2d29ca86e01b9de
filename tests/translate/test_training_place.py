"""A training of a translator gets the GPUs that the cluster has, and says what it runs on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from thread_runner import ThreadRunner

from oteo_core.artifacts import open_store
from oteo_core.jobs import JobContext, Placing, Resources, files
from oteo_core.jobs.runner import NOTHING
from oteo_protos.translate.v1 import translate_pb2 as pb
from oteo_translate import train_job
from oteo_translate.placing import choose_device
from oteo_translate.service import Translate
from oteo_translate.settings import TranslateSettings


class Runner(ThreadRunner):
    """Starts nothing, and writes down what it was to start."""

    def __init__(self, nodes: Sequence[Resources]) -> None:
        self.there = nodes
        self.given: list[tuple[Resources, Placing | None]] = []

    def submit(
        self, operation_id: str, attempt: int, entrypoint: Sequence[str], env: Mapping[str, str], resources: Resources = NOTHING
    ) -> None:
        self.given.append((resources, Placing.from_environment(env)))

    def nodes(self) -> Sequence[Resources]:
        return self.there


@pytest.mark.parametrize(
    ("setting", "nodes", "taken", "note"),
    [
        ("auto", [Resources(2.0)], Resources(1.0), ""),
        ("auto", [Resources(0.0), Resources(8.0, 4)], Resources(1.0, 1), ""),
        ("0", [Resources(8.0, 4)], Resources(1.0), ""),
        ("3", [Resources(8.0, 4)], Resources(1.0, 3), ""),
        ("3", [Resources(2.0)], Resources(1.0), "3 GPUs of one node asked for, and none has more than 0"),
    ],
)
def test_a_training_asks_for_a_cpu_and_for_the_gpus_of_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, nodes: list[Resources], taken: Resources, note: str
) -> None:
    monkeypatch.setenv("OTEO_TRANSLATE_TRAIN_GPUS", setting)
    runner = Runner(nodes)
    translate = Translate(TranslateSettings(home=tmp_path), runner)
    requests = {
        "TrainTranslator": (pb.TrainTranslatorRequest(), pb.TrainTranslatorMetadata()),
        "MeasureShift": (pb.MeasureShiftRequest(), pb.MeasureShiftMetadata()),
    }
    for method, (request, metadata) in requests.items():
        operation = translate.operations.start(method, request, metadata=metadata)
        translate.operations.reconciler.advance(operation.name.removeprefix("operations/"))
    translate.stop()
    assert runner.given == [(taken, Placing(taken, note)), (NOTHING, None)]


@pytest.mark.parametrize("setting", ["-1", "17", "all", "1.5"])
def test_a_number_of_gpus_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("OTEO_TRANSLATE_TRAIN_GPUS", setting)
    with pytest.raises(ValidationError, match="translate_train_gpus"):
        TranslateSettings()


@pytest.mark.parametrize(
    ("seen", "placing", "name", "words", "short"),
    [
        (2, None, "cuda", "runs on 2 GPUs (H)", False),
        (0, None, "cpu", "runs on a processor", False),
        (1, Placing(Resources(1.0, 1)), "cuda", "runs on 1 GPU (H)", False),
        # On one machine a job sees what it was not given.
        (4, Placing(Resources(1.0)), "cpu", "runs on a processor", False),
        (0, Placing(Resources(1.0, 1)), "cpu", "runs on a processor: 1 GPU given, and PyTorch can use none", True),
        (1, Placing(Resources(1.0, 2)), "cuda", "runs on 1 GPU (H), of 2 given", True),
        (2, Placing(Resources(1.0, 2), "4 are asked for"), "cuda", "runs on 2 GPUs (H); 4 are asked for", True),
        (0, Placing(Resources(1.0), "2 are asked for"), "cpu", "runs on a processor; 2 are asked for", True),
    ],
)
def test_what_was_given_is_what_is_used_and_told(
    monkeypatch: pytest.MonkeyPatch, seen: int, placing: Placing | None, name: str, words: str, short: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: seen > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _index: "H")
    device = choose_device(placing)
    assert (device.name, device.words, device.short) == (name, words, short)


def test_the_budget_counts_no_wait_and_does_not_begin_anew_after_a_kill(tmp_path: Path) -> None:
    settings = TranslateSettings(home=tmp_path)
    artifacts = open_store(settings)
    asked = time.time() - 3600.0

    def began(attempt: int) -> float:
        context = JobContext(
            operation_id="translate-a",
            attempt=files.Attempt(attempt, 5, "translate", "TrainTranslator", "", asked),
            request=pb.TrainTranslatorRequest(),
            metadata=pb.TrainTranslatorMetadata(),
            artifacts=artifacts,
            settings=settings,
            scratch=tmp_path,
        )
        assert context.create_time == datetime.fromtimestamp(asked, UTC)
        return train_job._began(context)

    first = began(1)
    assert first > asked + 3590.0
    assert began(2) == first
