"""The wall-clock budget: what is used, what is left, and what the end needs."""

from __future__ import annotations

import json
import time

from oteo_automl.search.vault import Vault

NAME = "clock.json"
SAVE_SECONDS = 2.0


class Budget:
    """A budget that outlives a crash: time while nothing runs is not counted.

    Parameters
    ----------
    total
        Seconds for everything.
    reserve
        Seconds of them that calibration, export, parity, report and publishing need at the end.
    vault
        Where the time used is kept.
    began
        ``time.time()`` at which this attempt's work began.
    """

    def __init__(self, total: float, reserve: float, vault: Vault, began: float | None = None) -> None:
        self.total = total
        self.reserve = min(reserve, 0.6 * total)
        self._vault = vault
        self._began = time.time() if began is None else began
        stored = vault.load(NAME)
        self._before = float(json.loads(stored)["elapsed"]) if stored else 0.0
        self._saved = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds used, those of earlier attempts included."""
        return self._before + time.time() - self._began

    @property
    def search_end(self) -> float:
        """``time.time()`` at which the search must hand over."""
        return self._began + self.total - self.reserve - self._before

    @property
    def end(self) -> float:
        """``time.time()`` at which everything must be done."""
        return self._began + self.total - self._before

    @property
    def left_for_search(self) -> float:
        """Seconds until `search_end`, at least 0."""
        return max(0.0, self.search_end - time.time())

    def keep(self, *, force: bool = False) -> None:
        """Write down the time used, now and then."""
        if force or time.monotonic() - self._saved > SAVE_SECONDS:
            self._saved = time.monotonic()
            self._vault.save(NAME, json.dumps({"elapsed": self.elapsed}).encode())
