"""What tests of the export share: an export into a folder, and datasets held against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oteo_augment.exporting import Exported, export_dataset
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import Sample
from oteo_core.exports import FolderSink


def export(store: ArtifactStore, dataset: str, name: str, folder: Path, splits: tuple[str, ...] = (), *, stacks: bool = False) -> Exported:
    """Export a dataset of a store into a folder."""
    scratch = folder.parent / f"{folder.name}-scratch"
    scratch.mkdir()
    return export_dataset(store, dataset, name, FolderSink(folder), scratch, splits=splits, stacks=stacks)


def codes(exported: Exported) -> set[str]:
    """Give the codes of what was lost."""
    return {loss.code for loss in exported.losses}


def by_pixels(samples: Any) -> dict[str, Sample]:
    """Give the samples that are used by what they show, which no export changes."""
    kept = [sample for sample in samples if not sample.excluded]
    found = {sample.pixel_digest: sample for sample in kept}
    assert len(found) == len(kept)
    return found


def boxes(sample: Sample) -> list[tuple[Any, ...]]:
    """Give boxes without what depends on the file that they came from."""
    return [(box.class_name, box.x, box.y, box.width, box.height, box.crowd) for box in sample.boxes]
