"""One folder per class, "train", "val" and "test" above them where the dataset is parted."""

from __future__ import annotations

from collections.abc import Sequence

from oteo_augment.exporting.naming import clean
from oteo_augment.exporting.writers.base import PARTS, Job, Writer, media_ending, unique_folders
from oteo_core.datasets import Sample, Task


class ClassFolders(Writer):
    """Writes ``train/CLASS/NAME.png``."""

    name = "class_folders"
    tasks = frozenset({Task.CLASSIFICATION, Task.MULTI_LABEL})
    holds_stacks = True
    keeps_class_list = False

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._folders = dict(unique_folders(job.info.classes, clean))
        parts = job.parts()
        self._parted = any(parts)

    def start(self) -> None:
        """Say which classes are called otherwise."""
        super().start()
        renamed = [f"{name!r} is {folder!r}" for name, folder in self._folders.items() if name != folder]
        if renamed:
            self.losses.add("CLASS_RENAMED", f"names of classes that no folder can have were changed: {', '.join(renamed[:10])}")

    def add(self, sample: Sample) -> None:
        """Copy the image into its class's folder."""
        folder = self._folder(sample)
        self.media(sample, f"{folder}/{self.stem(sample, folder)}{media_ending(sample)}")
        self._count(sample)

    def add_stack(self, frames: Sequence[Sample]) -> None:
        """Write a sequence as one TIFF file into its class's folder."""
        folder = self._folder(frames[0])
        self.stack(frames, f"{folder}/{self.stack_stem(frames, folder)}.tif", self.pictures(frames), frames[0].channels)
        for sample in frames:
            self._count(sample, stacked=True)

    def _folder(self, sample: Sample) -> str:
        folder = self._folders[sample.labels[0]]
        # A folder that is no part would make all others look like classes.
        return f"{PARTS[sample.split or 'train']}/{folder}" if self._parted else folder

    def _count(self, sample: Sample, *, stacked: bool = False) -> None:
        if self._parted and not sample.split:
            self.losses.add("PART_GIVEN", "samples of no part lie in train, since all lie in parts or none does", sample.id)
        if len(sample.labels) > 1:
            self.losses.add(
                "LABELS_LOST",
                "further classes of a sample are lost: a file lies in one folder, that of its first class",
                sample.id,
                count=len(sample.labels) - 1,
            )
        self.lost(sample, stacked=stacked)

    def finish(self) -> None:
        """Folders say it all."""
