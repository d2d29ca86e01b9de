"""Wall-clock time, kept."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass

from oteo_automl.search.checkpoints import Checkpoints
from oteo_core.errors import InvalidArgument

MOST_LATE = 30.0
"""Seconds that the least worth publishing may take beyond the budget; what takes longer is refused."""

_NAME = "clock.json"


@dataclass(slots=True)
class Budget:
    """The time that a training may take, over all its attempts.

    Only time in which an attempt was running counts: a search that was dead for an hour has not lost that hour. What was spent is
    written down as the search goes, so a kill costs at most the seconds since the last word.

    Parameters
    ----------
    total
        Seconds from the job's first start to the published package, `late` among them.
    reserve
        Seconds of those kept for what follows the search: calibration, report, export, parity, publishing.
    spent_before
        Seconds that earlier attempts used.
    started
        When this attempt began, seconds since 1970.
    late
        Seconds more than were asked for, because not even the least that is worth publishing takes less; see `make_room`.
    """

    total: float
    reserve: float
    spent_before: float
    started: float
    late: float = 0.0

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

    def make_room(self, least: float, finishing: float) -> float:
        """Give a search its least time; out of what is kept for the rest of the work as far as that can spare it, else after the end.

        Parameters
        ----------
        least
            Seconds that the search needs from now on.
        finishing
            Seconds that what follows it needs.

        Returns
        -------
        float
            Seconds more than were asked for, which `total` has grown by; 0 where there is room.

        Raises
        ------
        InvalidArgument
            ``BUDGET_TOO_SMALL``: more than `MOST_LATE`. The message says which budget would do.
        """
        if self.left >= least:
            return self.late
        needed = self.spent + least + finishing
        if needed > self.total - self.late + MOST_LATE:
            raise InvalidArgument(
                f"a budget of {self.total:.0f} s is too small for this dataset on this machine: {self.spent:.0f} s went into starting and preparing it, "
                f"the least training would take {least:.0f} s more (measured), and calibration, export and the report {finishing:.0f} s; "
                f"give at least {math.ceil(needed / 5) * 5} s",
                reason="BUDGET_TOO_SMALL",
                field="budget",
                metadata={"least_seconds": str(math.ceil(needed / 5) * 5)},
            )
        more = max(0.0, needed - self.total)
        self.late += more
        self.total += more
        self.reserve = self.end - time.time() - least
        return self.late

    def keep(self, checkpoints: Checkpoints) -> None:
        """Write down what was spent."""
        checkpoints.save(_NAME, json.dumps({"spent": round(self.spent, 3)}).encode())
