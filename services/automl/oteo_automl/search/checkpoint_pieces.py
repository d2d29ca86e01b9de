"""Checkpoints of others in a search: read once for all workers, judged as they are, or begun from."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from oteo_automl.candidates.checkpoints import Checkpoint, Given, load_given, read_checkpoint
from oteo_automl.search.checkpoints import Checkpoints
from oteo_automl.search.classification_pieces import Problem, StoredModel
from oteo_automl.search.ensemble import measure_latency
from oteo_automl.search.pieces import PieceResult, model_name, result_name
from oteo_automl.search.scoring import score
from oteo_core.errors import InvalidArgument

_BATCH = 32


def take_checkpoints(asked: Sequence[Checkpoint], checkpoints: Checkpoints, classes: Sequence[str], channels: int) -> tuple[Given, ...]:
    """Read the checkpoints that are asked for and keep them for all pieces; what an earlier attempt has read is taken as it is.

    Raises
    ------
    InvalidArgument
        ``BAD_CHECKPOINT``, ``CHECKPOINT_CLASSES``: see `read_checkpoint`; ``DUPLICATE_CHECKPOINT``: two of one name.
    """
    found: list[Given] = []
    for index, one in enumerate(asked):
        if any(one.label == other.label for other in found):
            raise InvalidArgument(
                f"two checkpoints are called {one.label}: name them apart",
                reason="DUPLICATE_CHECKPOINT",
                field=f"checkpoints[{index}].name",
            )
        stored = checkpoints.load(f"given/{one.label}.json")
        if stored is not None:
            found.append(Given.from_json(stored))
            continue
        given, network = read_checkpoint(one, classes, channels, field=f"checkpoints[{index}]")
        checkpoints.save(given.file, network)
        checkpoints.save(f"given/{one.label}.json", given.to_json())
        found.append(given)
    return tuple(found)


def judge_given(problem: Problem, trial: str, given: Given) -> PieceResult:
    """Judge a checkpoint as it is, on the samples that candidates are compared on; the piece of its trial."""
    earlier = problem.checkpoints.load(result_name(trial, 0))
    if earlier is not None:
        return PieceResult.from_json(earlier)
    began = time.time()
    stored = problem.checkpoints.load(given.file)
    if stored is None:
        raise FileNotFoundError(f"{given.file} is gone from the training's checkpoints")
    network = load_given(stored).eval()
    images, rows = problem.cache.open(), problem.held_out
    with torch.inference_mode():
        logits = np.concatenate(
            [
                network(torch.from_numpy(np.ascontiguousarray(images[rows[start : start + _BATCH]]))).numpy()
                for start in range(0, len(rows), _BATCH)
            ]
        )
    if not np.isfinite(logits).all():
        raise ValueError("the checkpoint's answers are not finite")
    source = "the training images themselves (there are too few to hold any out)" if problem.fold_count == 0 else "the validation part"
    problem.checkpoints.save(model_name(trial), StoredModel(network, rows, logits, source).to_bytes())
    result = PieceResult(
        scores=score(logits, problem.labels[rows]),
        seconds=time.time() - began,
        parameters={"architecture": given.architecture, "classes": given.reason},
        initial_weights=given.source,
        latency=measure_latency(network, images[rows[0]]),
    )
    problem.checkpoints.save(result_name(trial, 0), result.to_json())
    return result
