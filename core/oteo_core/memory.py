"""Python's cyclic garbage collector, where it costs and finds nothing."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_FEW = 100_000
"""New objects between two collections while they are rare. Rows without cycles are freed by their counts all the same."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let the collector look seldom while very many objects without cycles are made, as the rows of a table.

    Each of its full passes visits every row that there is. Without any collection an import of 3,000 small images took 7 % less time.
    """
    before = gc.get_threshold()
    gc.set_threshold(_FEW, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
