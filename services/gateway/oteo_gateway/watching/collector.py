"""What predictions bring: statistics of the image and the classes that were found, kept until they are written."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from oteo_core.packages import ModelPackage
from oteo_gateway.prediction.answer import ClassAnswer
from oteo_gateway.prediction.regions import ObjectAnswer, RegionAnswer
from oteo_gateway.prediction.routing import Routes

_REMEMBERED = 4096
_MOST_PENDING = 20_000


class Watched(NamedTuple):
    """Whose images are tested together: a deployment by its uid, the mark of what serves (`Serving.mark`), and the model that answered."""

    uid: str
    mark: str
    model: str


class Batch(NamedTuple):
    """Images of one `Watched`: statistics ``(n, D)`` float32 and classes that were found ``(n, K)`` bool, in order of arrival."""

    statistics: NDArray[np.float32]
    answers: NDArray[np.bool_]


class Collector:
    """Takes the figures of predictions on the event loop; costs it microseconds. Only figures are kept, no pixel and no name.

    The same file again (a cine loop's frames, an image asked for twice) counts once: its SHA-256 is remembered for the latest files of each
    deployment, in this process's memory alone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: dict[Watched, list[tuple[NDArray[np.float32], NDArray[np.bool_]]]] = defaultdict(list)
        self._files: dict[Watched, OrderedDict[str, None]] = defaultdict(OrderedDict)
        self._count = 0

    def note(self, watched: Watched, sha256: str, statistics: NDArray[Any], answers: NDArray[np.bool_]) -> None:
        """Take an image: what it was encoded as, its statistics ``(D,)`` and the classes found ``(K,)``."""
        with self._lock:
            files = self._files[watched]
            known = sha256 in files
            files[sha256] = None
            files.move_to_end(sha256)
            while len(files) > _REMEMBERED:
                files.popitem(last=False)
            # While the database is away, the newest images are not worth the process's memory.
            if known or self._count >= _MOST_PENDING:
                return
            self._pending[watched].append((statistics.astype(np.float32), answers))
            self._count += 1

    def saw(
        self,
        routes: Routes,
        package: ModelPackage,
        sha256: str,
        statistics: NDArray[np.float64],
        answer: ClassAnswer | ObjectAnswer | RegionAnswer,
    ) -> None:
        """Take what `oteo_gateway.prediction.predictor.Watch` is given."""
        self.note(Watched(routes.uid, routes.mark, package.id), sha256, statistics, presence(answer, package.classes))

    def take(self) -> dict[Watched, Batch]:
        """Give what has come since the last call."""
        with self._lock:
            pending, self._pending, self._count = self._pending, defaultdict(list), 0
        return {
            watched: Batch(np.stack([row for row, _ in rows]), np.stack([found for _, found in rows])) for watched, rows in pending.items()
        }

    def forget(self, kept: set[Watched]) -> None:
        """Forget the files of what is not watched any more."""
        with self._lock:
            for watched in [one for one in self._files if one not in kept]:
                del self._files[watched]


def presence(answer: ClassAnswer | ObjectAnswer | RegionAnswer, classes: Sequence[str]) -> NDArray[np.bool_]:
    """Tell which of a model's classes an answer has, ``(K,)`` bool; of one class an image the likeliest, whatever the operating point."""
    if isinstance(answer, ClassAnswer):
        names = set(answer.decisions) if answer.decision == "" else {answer.scores[0][0]}
    elif isinstance(answer, ObjectAnswer):
        names = {name for name, _, _ in answer.objects}
    else:
        names = {region.class_name for region in answer.regions}
    return np.array([name in names for name in classes], dtype=np.bool_)
