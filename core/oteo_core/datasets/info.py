"""What `dataset.json` says of a dataset as a whole."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from oteo_core.datasets.skeletons import Skeleton
from oteo_core.errors import DataLoss

FORMAT_VERSION = 1
"""Version of the layout of `dataset.json` and `samples.parquet`."""


class Task(StrEnum):
    """The question that is asked of an image."""

    CLASSIFICATION = "classification"
    MULTI_LABEL = "multi_label_classification"
    DETECTION = "detection"
    SEMANTIC = "semantic_segmentation"
    INSTANCE = "instance_segmentation"
    KEYPOINTS = "keypoints"


@dataclass(frozen=True, slots=True)
class SplitCount:
    """Samples in one part: its name, samples and groups."""

    split: str
    sample_count: int
    group_count: int = 0


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """One class: its name, samples that have it, annotations of it, and samples by part."""

    name: str
    sample_count: int = 0
    annotation_count: int = 0
    splits: tuple[SplitCount, ...] = ()


@dataclass(frozen=True, slots=True)
class FindingCount:
    """How often a finding occurs."""

    code: str
    severity: str
    count: int


@dataclass(frozen=True, slots=True)
class SizeRange:
    """Smallest and largest extents of the images, pixels."""

    min_width: int = 0
    max_width: int = 0
    min_height: int = 0
    max_height: int = 0


@dataclass(frozen=True, slots=True)
class MaskEncoding:
    """What the numbers in mask images mean.

    Parameters
    ----------
    kind
        "class": a number is a class; "instance": a number is an object, all of one class.
    values
        For "class": the classes' numbers, in the order of `DatasetInfo.classes`; 0 is background.
    ignore
        Numbers that belong to no class and are left out of training and measuring (Pascal VOC's 255).
    """

    kind: str
    values: tuple[int, ...] = ()
    ignore: tuple[int, ...] = ()


@dataclass(slots=True)
class DatasetInfo:
    """A dataset as a whole. The writer fills in everything that can be counted.

    Parameters
    ----------
    id, display_name, uid
        Last part of its name, a name for people, and a number that no other dataset has or will have.
    task
        A value of `Task`.
    classes
        Names, in the order of their numbers.
    domain
        Where the images come from.
    source_format, source
        Format that it came in ("class_folders", "coco", "pascal_voc", "yolo", "masks", "oteo") and where it came from.
    provenance
        How it was made: settings, seeds, versions, the operation.
    labels
        Free labels.
    mask
        What mask images mean; None where there are none.
    create_time
        When it was published, RFC 3339, UTC.
    digest
        SHA-256 over everything that makes it what it is; does not depend on the order of samples.
    sample_count, excluded_count
        Samples that are used, and samples that were left out.
    class_info, splits, findings, sizes, media_bytes
        Counts, filled in by the writer.
    bit_depth
        The most bits that any sample's pixels fill: with it all images are scaled alike. Filled in by the writer; 0 where it is not known.
    skeletons
        The points of classes whose objects have key points.
    table
        File of the samples' table, beside `dataset.json`. One that grows has a new one with each change, so that whoever reads it sees it before
        the change or after it.
    exact_duplicate_groups, near_duplicate_groups
        Groups of equal images, and of images that look alike, exact ones included.
    """

    id: str
    display_name: str = ""
    uid: str = ""
    task: str = ""
    classes: tuple[str, ...] = ()
    domain: str = ""
    source_format: str = ""
    source: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    mask: MaskEncoding | None = None
    create_time: str = ""
    digest: str = ""
    sample_count: int = 0
    excluded_count: int = 0
    class_info: tuple[ClassInfo, ...] = ()
    splits: tuple[SplitCount, ...] = ()
    findings: tuple[FindingCount, ...] = ()
    exact_duplicate_groups: int = 0
    near_duplicate_groups: int = 0
    media_bytes: int = 0
    sizes: SizeRange = SizeRange()
    bit_depth: int = 0
    skeletons: tuple[Skeleton, ...] = ()
    table: str = "samples.parquet"

    def to_json(self) -> bytes:
        """Give `dataset.json`."""
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}, indent=1, sort_keys=True, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, data: bytes) -> DatasetInfo:
        """Read `dataset.json`.

        Raises
        ------
        DataLoss
            BAD_DATASET for one that is damaged or from a later version.
        """
        try:
            fields = json.loads(data)
            version = fields.pop("format_version")
            if version > FORMAT_VERSION:
                raise DataLoss(
                    f"dataset.json has version {version}; this program reads up to {FORMAT_VERSION}: update it", reason="BAD_DATASET"
                )
            fields = {name: value for name, value in fields.items() if name in cls.__dataclass_fields__}
            fields["classes"] = tuple(fields["classes"])
            fields["mask"] = _mask(fields.get("mask"))
            fields["class_info"] = tuple(
                ClassInfo(c["name"], c["sample_count"], c["annotation_count"], tuple(SplitCount(**s) for s in c["splits"]))
                for c in fields["class_info"]
            )
            fields["splits"] = tuple(SplitCount(**s) for s in fields["splits"])
            fields["findings"] = tuple(FindingCount(**f) for f in fields["findings"])
            fields["skeletons"] = tuple(
                Skeleton(s["class_name"], tuple(s["points"]), tuple((int(a), int(b)) for a, b in s["edges"]))
                for s in fields.get("skeletons", ())
            )
            fields["sizes"] = SizeRange(**fields["sizes"])
            return cls(**fields)
        except (ValueError, KeyError, TypeError) as exc:
            raise DataLoss(f"dataset.json is damaged: {exc}", reason="BAD_DATASET") from exc

    def created(self) -> datetime | None:
        """Give the time at which it was published."""
        return datetime.fromisoformat(self.create_time) if self.create_time else None


def now() -> str:
    """Give the time of day as `create_time` has it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _mask(fields: dict[str, Any] | None) -> MaskEncoding | None:
    return None if fields is None else MaskEncoding(fields["kind"], tuple(fields["values"]), tuple(fields["ignore"]))
