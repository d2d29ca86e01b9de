"""Learning curves of a search as the report draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from oteo_automl.report.charts import LearningCurve
from oteo_automl.search.result import EpochRecord


def learning_curve(name: str, records: Sequence[EpochRecord], *, best: bool, score_name: str = "") -> LearningCurve:
    """Give the curve of a trial; epochs that were not judged are left out of the held-out curves.

    `score_name` is the figure behind `EpochRecord.validation_score`; empty: it is not shown.
    """
    measured = [record for record in records if math.isfinite(record.validation_loss)]
    trained = [record for record in records if math.isfinite(record.train_loss)]
    return LearningCurve(
        name=name,
        steps=[record.epoch for record in trained],
        train_loss=[record.train_loss for record in trained],
        validation_steps=[record.epoch for record in measured],
        validation_loss=[record.validation_loss for record in measured],
        best=best,
        score_steps=[record.epoch for record in measured] if score_name else (),
        score=[record.validation_score for record in measured] if score_name else (),
        score_name=score_name,
    )
