"""Wall-clock time, kept."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from oteo_automl.search.checkpoints import Checkpoints

_NAME = "clock.json"


@dataclass(slots=True)
class Budget:
    """The time that a training may take, over all its attempts.

    Only time in which an attempt was running counts: a search that was dead for an hour has not lost that hour. What was spent is
    written down as the search goes, so a kill costs at most the seconds since the last word.

    Parameters
    ----------
    total
        Seconds from the job's first start to the published package.
    reserve
        Seconds of those kept for what follows the search: calibration, report, export, parity, publishing.
    spent_before
        Seconds that earlier attempts used.
    started
        When this attempt began, seconds since 1970.
    """

    total: float
    reserve: float
    spent_before: float
    started: float

    @classmethod
    def resume(cls, checkpoints: Checkpoints, total: float, reserve: float, started: float | None = None) -> Budget:
        """Take up the clock that an earlier attempt left; begin one where there is none."""
        data = checkpoints.load(_NAME)
        spent = float(json.loads(data)["spent"]) if data is not None else 0.0
        return cls(total, min(reserve, 0.6 * total), spent, time.time() if started is None else started)

    @property
    def spent(self) -> float:
        """Seconds used so far, all attempts together."""
        return self.spent_before + time.time() - self.started

    @property
    def end(self) -> float:
        """When everything has to be done, seconds since 1970."""
        return self.started + self.total - self.spent_before

    @property
    def deadline(self) -> float:
        """When the search has to be done, seconds since 1970."""
        return self.end - self.reserve

    @property
    def left(self) -> float:
        """Seconds left for the search; negative when it is over."""
        return self.deadline - time.time()

    def keep(self, checkpoints: Checkpoints) -> None:
        """Write down what was spent."""
        checkpoints.save(_NAME, json.dumps({"spent": round(self.spent, 3)}).encode())
