"""Which images of a dataset a model can be judged on, or why it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from oteo_core.datasets import Box, DatasetInfo, DatasetReader, OrientedBox, Polygons, Rle, Sample
from oteo_core.errors import FailedPrecondition, InvalidArgument
from oteo_core.packages import ModelPackage

DATASET_TASKS: dict[str, tuple[str, ...]] = {
    "classification": ("classification",),
    "multi_label_classification": ("multi_label_classification", "classification"),
    "detection": ("detection", "instance_segmentation"),
    "semantic_segmentation": ("semantic_segmentation", "instance_segmentation"),
    "instance_segmentation": ("instance_segmentation",),
}
"""What a dataset may be annotated for, by the model's task: masks of objects have boxes and classes of pixels in them."""

_WHOLE_IMAGE = ("classification", "multi_label_classification")


@dataclass(slots=True)
class Rows:
    """The samples to judge on, in the dataset's order, and how many were left out, by reason."""

    samples: list[Sample]
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, why: str) -> None:
        """Count one."""
        self.left_out[why] = self.left_out.get(why, 0) + 1


def check_pairing(package: ModelPackage, info: DatasetInfo, parts: Sequence[str], *, leave_out_unknown: bool) -> None:
    """Refuse what cannot be judged, by the manifests alone.

    Raises
    ------
    InvalidArgument
        ``WRONG_TASK``: the dataset's annotations do not say what the model answers. ``UNKNOWN_CLASS``: the parts hold classes that the model
        does not know.
    FailedPrecondition
        ``EMPTY_PART``: the parts hold no image.
    """
    allowed = DATASET_TASKS.get(package.task, ())
    if info.task not in allowed:
        raise InvalidArgument(
            f"{package.name} answers {package.task}, and datasets/{info.id} is annotated for {info.task}: choose a dataset for "
            f"{' or '.join(allowed) or package.task}",
            reason="WRONG_TASK",
            field="dataset",
        )
    counts = {split.split: split.sample_count for split in info.splits}
    if not sum(counts.get(part, 0) for part in parts):
        there = ", ".join(f"{name or 'no part'} {count}" for name, count in counts.items() if count) or "none"
        raise FailedPrecondition(
            f"datasets/{info.id} has no image in {' or '.join(parts)} (images: {there}): choose other splits", reason="EMPTY_PART"
        )
    if leave_out_unknown:
        return
    strange = [
        entry.name
        for entry in info.class_info
        if entry.name not in package.classes and any(split.sample_count for split in entry.splits if split.split in parts)
    ]
    if strange:
        raise unknown_classes(package, info, strange)


def unknown_classes(package: ModelPackage, info: DatasetInfo, strange: Sequence[str]) -> InvalidArgument:
    """Make the refusal of classes that a model does not know."""
    return InvalidArgument(
        f"datasets/{info.id} has images of {', '.join(strange)}, and {package.name} knows {', '.join(package.classes)}: rename the classes, "
        "or set leave_out_unknown_classes to judge without them",
        reason="UNKNOWN_CLASS",
        field="dataset",
        metadata={"classes": ", ".join(strange)},
    )


def class_names(sample: Sample, task: str) -> set[str]:
    """Give the classes that a sample is annotated with, as far as the model's task looks at them."""
    if task in _WHOLE_IMAGE:
        return set(sample.labels)
    things: list[Box | OrientedBox | Polygons | Rle] = [*sample.boxes, *sample.oriented_boxes, *sample.polygons, *sample.rle]
    names = {thing.class_name for thing in things}
    return names | set(sample.labels) if sample.mask_path else names


def choose_rows(reader: DatasetReader, package: ModelPackage, parts: Sequence[str], *, leave_out_unknown: bool) -> Rows:
    """Read the samples of these parts.

    Samples that say nothing to judge by (no class, no picture) are counted and left out. An image without objects is judged, as one in which
    there is nothing to find.

    Raises
    ------
    InvalidArgument
        ``UNKNOWN_CLASS``.
    FailedPrecondition
        ``EMPTY_PART``: nothing is left.
    """
    rows = Rows([])
    known, strange = set(package.classes), set()
    for sample in reader.samples():
        if sample.split not in parts:
            continue
        names = class_names(sample, package.task)
        strange |= names - known
        if not sample.is_picture:
            rows.leave_out(f"a {sample.media_kind} in one file: import it again, which makes a sample of each frame")
        elif package.task == "classification" and not names:
            rows.leave_out("without a class")
        elif package.task == "classification" and len(names) > 1:
            rows.leave_out("of several classes")
        elif package.task in _WHOLE_IMAGE and names - known:
            rows.leave_out("of a class that the model does not know")
        else:
            rows.samples.append(sample)
    if strange and not leave_out_unknown:
        raise unknown_classes(package, reader.info, [name for name in reader.info.classes if name in strange] or sorted(strange))
    if not rows.samples:
        why = "; ".join(f"{count} {reason}" for reason, count in rows.left_out.items()) or "it holds none"
        raise FailedPrecondition(
            f"datasets/{reader.info.id} has no image in {' or '.join(parts)} that {package.name} can be judged on: {why}",
            reason="EMPTY_PART",
        )
    return rows
