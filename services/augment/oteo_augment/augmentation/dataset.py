"""An augmented dataset, made by shards, resumed from checkpoints, the same however the work is shared out."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from oteo_augment.augmentation.plan import AugmentationPlan
from oteo_augment.augmentation.shard import ShardJob, augment_shard
from oteo_core.artifacts import ArtifactStore
from oteo_core.augmentation import check_policy
from oteo_core.datasets import DatasetInfo, DatasetReader, DatasetWriter, Finding
from oteo_core.datasets.sharding import Checkpoints, cut, made_shards, make_shards
from oteo_core.images import ImageLimits
from oteo_core.jobs.executor import Executor

MOST_FINDINGS = 1000
"""Findings that an answer names; all are in the dataset."""


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
    shards = make_shards(
        store,
        staging,
        cut(reader.samples(include_excluded=True), lambda sample: 1 + plan.copies_of(sample)),
        lambda samples: executor.submit(augment_shard, job, samples),
        executor,
        checkpoints,
        lambda done: progress(done, total),
    )
    return _assemble(store, reader.info, target, staging, shards, checkpoints)


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
        for result in made_shards(shards, checkpoints):
            copies, dropped = copies + result.counts["copies"], dropped + result.counts["dropped"]
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
