"""An augmented dataset, made by shards, resumed from checkpoints, the same however the work is shared out."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Protocol

from oteo_augment.augmentation.plan import AugmentationPlan
from oteo_augment.augmentation.shard import ShardJob, ShardResult, augment_shard
from oteo_augment.staging import staged_sizes
from oteo_core.artifacts import ArtifactStore
from oteo_core.augmentation import check_policy
from oteo_core.datasets import DatasetInfo, DatasetReader, DatasetWriter, Finding, Sample
from oteo_core.images import ImageLimits
from oteo_core.jobs.executor import Executor, Task

SHARD_WORK = 64
"""Pictures that a shard reads, writes or makes, about: a second or two of work, so that small datasets have pieces for all cores and a kill loses little."""

MOST_FINDINGS = 1000
"""Findings that an answer names; all are in the dataset."""


class Checkpoints(Protocol):
    """Where finished pieces are kept; what a job's context gives."""

    def save(self, name: str, data: bytes) -> None:
        """Keep data under a name, atomically."""

    def load(self, name: str) -> bytes | None:
        """Give what was kept, or None."""

    def check(self) -> None:
        """Raise if the work is to stop."""


@dataclass(frozen=True)
class Outcome:
    """What was made.

    Attributes
    ----------
    info
        The new dataset, complete in its staging folder.
    copies
        Copies made.
    dropped_annotations
        Objects of which too little was left in a copy.
    findings
        Samples that could not be augmented, by id, the first thousand.
    """

    info: DatasetInfo
    copies: int
    dropped_annotations: int
    findings: tuple[tuple[str, Finding], ...]


def augment_dataset(
    store: ArtifactStore,
    source: str,
    plan: AugmentationPlan,
    target: DatasetInfo,
    *,
    staging: str,
    store_options: dict[str, Any],
    limits: ImageLimits,
    executor: Executor,
    checkpoints: Checkpoints,
    progress: Callable[[int, int], None],
) -> Outcome:
    """Write an augmented dataset below `staging`.

    Parameters
    ----------
    store, store_options
        The artifact store and the options that workers open it with.
    source
        Id of the dataset.
    plan
        What to make.
    target
        Id, name and provenance of the new dataset; task, classes and the like are taken over from the source.
    staging
        Prefix to write below; it survives a crash together with the checkpoints.
    limits
        Largest images.
    executor
        Where shards run.
    checkpoints
        Finished shards are kept there and not made again.
    progress
        Called with the rows that are done and all rows.

    Returns
    -------
    Outcome
        What was made; `dataset.json` is written last.

    Raises
    ------
    NotFound
        DATASET_NOT_FOUND.
    InvalidArgument
        BAD_PARAMETER where a transform refuses its parameters.
    """
    check_policy(plan.policy)
    # A copy is made again from its row and this.
    target = replace(target, provenance={**target.provenance, "augmentation": plan.to_json()})
    reader = DatasetReader(store, source)
    if plan.copies_by_class and any(sample.sequence for sample in reader.samples(columns=["sequence"])):
        plan = plan.for_sequences(reader.samples())
    total = reader.info.sample_count + reader.info.excluded_count
    job = ShardJob(store.root_uri, store_options, source, staging, plan, limits)
    shards = _make_shards(store, job, reader, executor, checkpoints, lambda done: progress(done, total))
    return _assemble(store, reader.info, target, staging, shards, checkpoints)


def _make_shards(
    store: ArtifactStore,
    job: ShardJob,
    reader: DatasetReader,
    executor: Executor,
    checkpoints: Checkpoints,
    progress: Callable[[int], None],
) -> int:
    """Make every shard that is not there yet; give their number."""
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
        for number, samples in enumerate(_cut(reader.samples(include_excluded=True), job.plan), start=1):
            checkpoints.check()
            kept = checkpoints.load(_name(number - 1))
            if kept is not None:
                if staged is None:
                    staged = staged_sizes(store, job.target)
                # A checkpoint speaks of files; where those are gone (a power cut, a cleaned staging folder) it is worth nothing.
                if ShardResult.from_bytes(kept).media.items() <= staged.items():
                    done_rows += len(samples)
                    continue
            running[executor.submit(augment_shard, job, samples)] = (number - 1, len(samples))
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


def _cut(samples: Iterator[Sample], plan: AugmentationPlan) -> Iterator[list[Sample]]:
    """Cut the source into pieces of about equal work; the same on every attempt."""
    piece: list[Sample] = []
    work = 0
    for sample in samples:
        piece.append(sample)
        work += 1 + plan.copies_of(sample)
        if work >= SHARD_WORK:
            yield piece
            piece, work = [], 0
    if piece:
        yield piece


def _assemble(
    store: ArtifactStore, source: DatasetInfo, target: DatasetInfo, staging: str, shards: int, checkpoints: Checkpoints
) -> Outcome:
    info = replace(
        target,
        task=source.task,
        classes=source.classes,
        domain=source.domain,
        source_format=source.source_format,
        source=f"datasets/{source.id}",
        labels={**source.labels, **target.labels},
        mask=source.mask,
        skeletons=source.skeletons,
        exact_duplicate_groups=source.exact_duplicate_groups,
        near_duplicate_groups=source.near_duplicate_groups,
        provenance={
            **target.provenance,
            "source_dataset": source.id,
            "source_digest": source.digest,
            "source_provenance": source.provenance,
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("albumentations", "numpy", "opencv-python-headless")},
            },
        },
    )
    copies = dropped = 0
    findings: list[tuple[str, Finding]] = []
    taken: set[str] = set()
    with DatasetWriter(store, staging, info) as writer:
        for index in range(shards):
            checkpoints.check()
            data = checkpoints.load(_name(index))
            if data is None:
                raise RuntimeError(f"the checkpoint of shard {index} is gone")
            result = ShardResult.from_bytes(data)
            copies, dropped = copies + result.copies, dropped + result.dropped
            for path, size in result.media.items():
                writer.note_media(path, size)
            for sample in result.samples:
                findings += [(sample.id, f) for f in sample.findings if f.message.startswith("not augmented")]
                # The source may hold copies of an augmentation by the same policy and seed.
                while sample.id in taken:
                    sample = replace(sample, id=f"{sample.id}x")
                taken.add(sample.id)
                writer.add(sample)
        info = writer.finish()
    return Outcome(info, copies, dropped, tuple(findings[:MOST_FINDINGS]))


def _name(index: int) -> str:
    return f"shards/{index:06d}.arrow"
