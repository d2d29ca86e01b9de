"""Which variants a training makes, and what a classifier's are judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_automl.candidates.bank import spread
from oteo_automl.packaging.variants import MAX_LOSS, VariantRequest
from oteo_automl.search.data import TrainingData
from oteo_automl.search.result import SearchResult
from oteo_automl.search.scoring import score
from oteo_core.packages.proto import variant_name
from oteo_core.packages.variants import FP16
from oteo_protos.automl.v1 import automl_pb2

_JUDGED = 400
_CALIBRATION = 128


def wanted(request: automl_pb2.TrainModelRequest, *, gpu: bool) -> tuple[tuple[str, ...], float]:
    """Give the kinds of variants to make and their largest loss: what is asked for, or half precision where there is a GPU for it."""
    asked = tuple(variant_name(kind) for kind in request.variants)
    return asked or ((FP16,) if gpu else ()), request.max_variant_loss or MAX_LOSS


def classification_variants(
    request: automl_pb2.TrainModelRequest, data: TrainingData, result: SearchResult, *, gpu: bool
) -> VariantRequest | None:
    """Give the request of a classifier's variants; None where none are to be made.

    They are judged on the validation part; where there is none, on what the search held out.
    """
    kinds, max_loss = wanted(request, gpu=gpu)
    if not kinds:
        return None
    places = {sample: row for row, sample in enumerate(data.samples)}
    rows = np.array([places[sample] for sample in result.best.validation.sample_ids], dtype=np.int64)
    validation = rows[np.isin(rows, data.part("validation"))]
    rows = spread(np.sort(validation if len(validation) else rows), _JUDGED)
    labels = data.labels[rows]

    def figure(outputs: Mapping[str, NDArray[Any]]) -> float:
        if result.objective == "log_loss":
            sure = np.clip(outputs["probabilities"].astype(np.float64), 1e-7, 1.0 - 1e-7)
            if labels.ndim == 2:
                return float((labels * np.log(sure) + (1 - labels) * np.log1p(-sure)).mean())
            return float(np.log(sure[np.arange(len(labels)), labels]).mean())
        scores = score(outputs["logits"], labels)
        return scores.get(result.objective, -scores["log_loss"])

    calibration = np.ascontiguousarray(data.images[spread(data.part("train"), _CALIBRATION)])
    name = "log_loss (negative)" if result.objective == "log_loss" else result.objective
    return VariantRequest(kinds, name, figure, calibration, np.ascontiguousarray(data.images[rows]), max_loss)
