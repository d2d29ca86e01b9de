"""A dataset made of another by shards: some samples in, their rows and files out, in workers; resumed from checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets.columns import from_batch, to_batch
from oteo_core.datasets.sample import Sample
from oteo_core.datasets.staging import staged_sizes
from oteo_core.jobs.executor import Executor, Task

SHARD_WORK = 64
"""Pictures that a shard reads, writes or makes, about: a second or two of work, so that small datasets have pieces for all cores and a kill loses little."""

_NOTES = b"oteo"


class Checkpoints(Protocol):
    """Where finished pieces are kept; what a job's context gives."""

    def save(self, name: str, data: bytes) -> None:
        """Keep data under a name, atomically."""

    def load(self, name: str) -> bytes | None:
        """Give what was kept, or None."""

    def check(self) -> None:
        """Raise if the work is to stop."""


@dataclass(frozen=True)
class ShardResult:
    """What came of a shard.

    Attributes
    ----------
    samples
        Rows for the new dataset, in the order of the source.
    media
        Files written and their sizes, bytes.
    counts
        Whatever the work counts, by name.
    """

    samples: tuple[Sample, ...]
    media: dict[str, int]
    counts: Mapping[str, int] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Give the result as an Arrow stream, for a checkpoint."""
        notes = json.dumps({"media": self.media, "counts": dict(self.counts)}).encode()
        batch = to_batch(list(self.samples)).replace_schema_metadata({_NOTES: notes})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        data: bytes = sink.getvalue().to_pybytes()
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> ShardResult:
        """Read what `to_bytes` gave."""
        with pa.ipc.open_stream(data) as reader:
            notes = json.loads(reader.schema.metadata[_NOTES])
            samples = tuple(sample for batch in reader for sample in from_batch(batch))
        return cls(samples, {str(k): int(v) for k, v in notes["media"].items()}, notes["counts"])


def cut(samples: Iterable[Sample], work_of: Callable[[Sample], int] = lambda sample: 2) -> Iterator[list[Sample]]:
    """Cut samples into pieces of about equal work, `SHARD_WORK` by default of a picture read and one written; the same on every attempt."""
    piece: list[Sample] = []
    work = 0
    for sample in samples:
        piece.append(sample)
        work += work_of(sample)
        if work >= SHARD_WORK:
            yield piece
            piece, work = [], 0
    if piece:
        yield piece


def make_shards(
    store: ArtifactStore,
    staging: str,
    pieces: Iterable[Sequence[Sample]],
    submit: Callable[[Sequence[Sample]], Task[bytes]],
    executor: Executor,
    checkpoints: Checkpoints,
    progress: Callable[[int], None],
) -> int:
    """Make every shard that is not there yet; give their number.

    Parameters
    ----------
    store, staging
        Where the shards' files are written; what is left there of an earlier attempt counts.
    pieces
        The same on every attempt.
    submit
        Starts one piece; its task gives `ShardResult.to_bytes`.
    executor
        Where they run.
    checkpoints
        Finished shards are kept there and not made again.
    progress
        Called with the rows that are done.
    """
    ahead = max(2, int(2 * executor.cpus))
    staged: dict[str, int] | None = None
    running: dict[Task[bytes], tuple[int, int]] = {}
    done_rows = number = 0

    def collect(timeout: float | None) -> None:
        nonlocal done_rows
        finished, _ = executor.wait(list(running), timeout=timeout)
        for task in finished:
            index, rows = running.pop(task)
            checkpoints.save(_name(index), task.result())
            done_rows += rows
        progress(done_rows)

    try:
        for number, samples in enumerate(pieces, start=1):
            checkpoints.check()
            kept = checkpoints.load(_name(number - 1))
            if kept is not None:
                if staged is None:
                    staged = staged_sizes(store, staging)
                # A checkpoint speaks of files; where those are gone (a power cut, a cleaned staging folder) it is worth nothing.
                if ShardResult.from_bytes(kept).media.items() <= staged.items():
                    done_rows += len(samples)
                    continue
            running[submit(samples)] = (number - 1, len(samples))
            while len(running) >= ahead:
                collect(0.5)
                checkpoints.check()
        while running:
            collect(0.5)
            checkpoints.check()
    except BaseException:
        for task in running:
            task.cancel()
        raise
    progress(done_rows)
    return number


def made_shards(count: int, checkpoints: Checkpoints) -> Iterator[ShardResult]:
    """Give what came of the shards, in their order."""
    for index in range(count):
        checkpoints.check()
        data = checkpoints.load(_name(index))
        if data is None:
            raise RuntimeError(f"the checkpoint of shard {index} is gone")
        yield ShardResult.from_bytes(data)


def _name(index: int) -> str:
    return f"shards/{index:06d}.arrow"
