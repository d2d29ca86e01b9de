"""What callers are told of a deployment that does not answer: whether to try again, or that somebody must mend it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from oteo_core.errors import FailedPrecondition, OteoError, Unavailable
from oteo_gateway.deployments.directory import Directory
from oteo_gateway.deployments.records import LOAD_FAILED, Deployment, ModelPart, Replica, Serving, ServingModel

NOW = datetime(2026, 11, 30, tzinfo=UTC)
PART = ModelPart("cells")
SERVED = Serving((ServingModel(PART, "d" * 64),), 1)


def refusal(serving: Serving | None, failure: tuple[str, str]) -> OteoError:
    made = Deployment(id="cells", uid="uid", display_name="", models=(PART,), create_time=NOW, update_time=NOW)
    stands = made.with_status((Replica("a:1", False, failure[1]),), serving, failure)

    def unread(name: str) -> None:
        raise AssertionError(name)

    with pytest.raises(OteoError) as refused:
        asyncio.run(Directory(lambda: [stands], unread, unread).find("cells"))  # type: ignore[arg-type]
    return refused.value


def test_a_model_that_has_never_loaded_must_be_mended_by_somebody() -> None:
    error = refusal(None, (LOAD_FAILED, "no graph"))
    assert isinstance(error, FailedPrecondition)
    assert error.reason == "MODEL_LOAD_FAILED"


def test_a_model_that_answered_and_does_not_load_any_more_is_worth_another_try() -> None:
    # Its replicas are broken, and the page that fires for callers without an answer must not fall silent after three loads.
    error = refusal(SERVED, (LOAD_FAILED, "CUDA error"))
    assert isinstance(error, Unavailable)
    assert error.reason == "DEPLOYMENT_NOT_READY"
    assert "CUDA error" in error.message
    assert error.retry_after


def test_a_model_that_was_deleted_is_not() -> None:
    assert isinstance(refusal(SERVED, ("MODEL_NOT_FOUND", "The model is not there any more.")), FailedPrecondition)
