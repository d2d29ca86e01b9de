"""What a dense trial said of the held-out images in the prepared geometry, from the answers that it keeps beside its network."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.search.intervals import HeldOut
from oteo_core.packages import ClassMap, Detections, Instances


def kept_answers(data: bytes) -> dict[str, NDArray[Any]]:
    """Read what `oteo_automl.dense.pieces.StoredNetwork` keeps beside the network, without building that."""
    content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return {name: value.numpy() for name, value in content["kept"].items()}


def held_out_answers(task: str, targets: Any, groups: Sequence[str], kept: Mapping[str, NDArray[Any]]) -> HeldOut | None:
    """Put kept answers beside the truths of the same rows; None where they are not all there.

    Parameters
    ----------
    task
        Name of the dense task.
    targets
        The task's targets of all samples.
    groups
        Of all samples.
    kept
        `oteo_automl.candidates.lesson.Judgement.kept` of the task's lesson.
    """
    rows = kept.get("rows")
    if rows is None or not len(rows):
        return None
    truths: list[Any]
    answers: list[Any]
    if task == "detection":
        truths = list(targets.rows(rows))
        answers = _boxes(kept)
    elif task == "semantic_segmentation":
        truths = [ClassMap(np.asarray(targets[row])) for row in rows.tolist()]
        answers = [ClassMap(one) for one in kept["label_map"]]
    elif "counts" in kept:
        from oteo_automl.dense.segment.objects import prepared_truth

        truths = [prepared_truth(targets, row) for row in rows.tolist()]
        ends = np.cumsum(kept["counts"])[:-1]
        labels, scores = np.split(kept["labels"], ends), np.split(kept["scores"], ends)
        answers = [Instances(ids, own, sure) for ids, own, sure in zip(kept["ids"], labels, scores, strict=True)]
    else:
        return None
    return HeldOut(truths, answers, [groups[row] for row in rows.tolist()])


def _boxes(kept: Mapping[str, NDArray[Any]]) -> list[Detections]:
    found = []
    for boxes, scores, labels in zip(kept["boxes"], kept["scores"], kept["classes"], strict=True):
        there = scores > 0
        found.append(Detections(boxes[there], scores[there], labels[there]))
    return found
