"""The export as a whole: samples go one by one from a dataset through a writer into a sink."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from oteo_augment.exporting.losses import Losses
from oteo_augment.exporting.stacks import Collector, alike
from oteo_augment.exporting.writers import WRITERS, Job
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetInfo, DatasetReader, Finding, Sample, Severity
from oteo_core.errors import DataLoss, FailedPrecondition, InvalidArgument
from oteo_core.exports import Sink

_REPORT_EVERY = 64


@dataclass(frozen=True)
class Exported:
    """What was written: samples, and what the format could not hold."""

    sample_count: int
    losses: tuple[Finding, ...]


def check_export(info: DatasetInfo, format_name: str, splits: Sequence[str] = (), stacks: bool = False) -> None:
    """Refuse what cannot be done, before anything is written.

    Raises
    ------
    InvalidArgument
        UNSUPPORTED_FORMAT for a format that this release does not write; FORMAT_CANNOT_HOLD_STACKS.
    FailedPrecondition
        FORMAT_CANNOT_HOLD_TASK; NOTHING_TO_EXPORT where the parts have no sample.
    """
    writer = WRITERS.get(format_name)
    if writer is None:
        raise InvalidArgument(
            f"the format {format_name} is not written by this release; {', '.join(WRITERS)} are",
            reason="UNSUPPORTED_FORMAT",
            field="format",
        )
    if info.task not in writer.tasks:
        able = [name for name, other in WRITERS.items() if info.task in other.tasks]
        raise FailedPrecondition(
            f"{format_name} cannot hold what the dataset {info.id} is for, {info.task}; {', '.join(able)} can",
            reason="FORMAT_CANNOT_HOLD_TASK",
            field="format",
        )
    if stacks and not writer.holds_stacks:
        able = [name for name, other in WRITERS.items() if other.holds_stacks]
        raise InvalidArgument(
            f"{format_name} has a file for each frame; {', '.join(able)} can hold stacks",
            reason="FORMAT_CANNOT_HOLD_STACKS",
            field="stacks",
        )
    if not sum(count.sample_count for count in info.splits if not splits or count.split in splits):
        raise FailedPrecondition(
            f"the dataset {info.id} has no sample in {', '.join(splits) or 'any part'}", reason="NOTHING_TO_EXPORT", field="splits"
        )


def export_dataset(
    store: ArtifactStore, dataset_id: str, format_name: str, sink: Sink, scratch: Path, *, splits: Sequence[str] = (), stacks: bool = False,
    check: Callable[[], None] = lambda: None, progress: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:  # fmt: skip
    """Write a dataset, or some parts of it, in an outside format.

    Memory does not grow with the number of samples, but for their names.

    Parameters
    ----------
    store, dataset_id
        The dataset.
    format_name
        A name of `WRITERS`.
    sink
        Takes the files; closed by the caller.
    scratch
        A local folder, which the caller removes.
    splits
        Only these parts, names of `SPLITS`; empty: all.
    stacks
        True: the frames of a sequence go into one TIFF file; False: a file for each.
    check
        Called for every sample; raises where the work is to stop.
    progress
        Takes the number of samples done and that of all.

    Raises
    ------
    OteoError
        As `check_export`.
    OSError
        Where nothing can be written.
    """
    reader = DatasetReader(store, dataset_id)
    check_export(reader.info, format_name, splits, stacks)
    losses = Losses()
    writer = WRITERS[format_name](Job(store, reader, sink, losses, scratch, tuple(splits)))
    writer.start()
    total = sum(count.sample_count for count in reader.info.splits if not splits or count.split in splits)
    done = written = 0
    collector = Collector()

    def add(frames: Sequence[Sample]) -> None:
        nonlocal done, written
        try:
            if len(frames) > 1 and alike(frames):
                writer.add_stack(frames)
            else:
                for each in frames:
                    writer.add(each)
        except DataLoss as exc:
            for each in frames:
                losses.add(
                    "MEDIA_LOST",
                    f"samples whose file is gone from the artifact store are left out; the first: {exc.message}",
                    each.id,
                    severity=Severity.ERROR,
                )
        else:
            written += sum(not each.excluded for each in frames)
        before, done = done, done + sum(not each.excluded for each in frames)
        if done // _REPORT_EVERY > before // _REPORT_EVERY:
            progress(done, total)

    for sample in reader.samples(include_excluded=writer.keeps_excluded):
        if splits and (sample.excluded or sample.split not in splits):
            continue
        check()
        if frames := collector.take(sample) if stacks else [sample]:
            add(frames)
    for frames in collector.rest():
        add(frames)
    writer.finish()
    progress(done, total)
    return Exported(written - losses.count_of("SAMPLE_LOST"), losses.findings())
