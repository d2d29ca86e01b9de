"""What an import is asked to do."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

from oteo_core.errors import InvalidArgument

FORMATS = (
    "class_folders",
    "coco",
    "pascal_voc",
    "yolo",
    "csv",
    "masks",
    "color_masks",
    "instance_masks",
    "numpy",
    "hdf5",
    "webdataset",
    "labelme",
    "cvat",
    "oteo",
)
"""Formats that are read."""


@dataclass(frozen=True)
class SplitOptions:
    """How samples are parted.

    Parameters
    ----------
    train, validation, test
        Shares, adding up to 1.
    seed
        Of the draw.
    group_pattern
        Regular expression searched in a file's path; its first group, or the whole match, is the sample's group. "" for none.
    ignore_source_split
        True: forget the parts that the source names.
    sequence_pattern
        Regular expression searched in a file's path; files of which its first group, or the whole match, is the same are the slices of one stack,
        in the order of their names. "" for none: files of several frames and DICOM series are stacks by themselves.
    near_duplicate_distance
        Largest Hamming distance of perceptual hashes at which two images count as near duplicates; 0 to 16.
    """

    train: float = 0.7
    validation: float = 0.15
    test: float = 0.15
    seed: int = 0
    group_pattern: str = ""
    sequence_pattern: str = ""
    ignore_source_split: bool = False
    near_duplicate_distance: int = 4

    @cached_property
    def pattern(self) -> re.Pattern[str] | None:
        """The compiled group pattern.

        Raises
        ------
        InvalidArgument
            BAD_GROUP_PATTERN.
        """
        return _compiled("group", self.group_pattern)

    @cached_property
    def stack_pattern(self) -> re.Pattern[str] | None:
        """The compiled sequence pattern.

        Raises
        ------
        InvalidArgument
            BAD_SEQUENCE_PATTERN.
        """
        return _compiled("sequence", self.sequence_pattern)

    def group_of(self, path: str) -> str:
        """Give the group that a path names, or ""."""
        return _found(self.pattern, path)

    def sequence_of(self, path: str) -> str:
        """Give the stack that a path names, or ""."""
        return _found(self.stack_pattern, path)


def _compiled(what: str, pattern: str) -> re.Pattern[str] | None:
    if not pattern:
        return None
    try:
        return re.compile(pattern)
    except re.error as exc:
        raise InvalidArgument(
            f"the {what} pattern {pattern!r} is no regular expression: {exc}",
            reason=f"BAD_{what.upper()}_PATTERN",
            field=f"split.{what}_pattern",
        ) from exc


def _found(pattern: re.Pattern[str] | None, path: str) -> str:
    match = pattern.search(path) if pattern is not None else None
    if pattern is None or match is None:
        return ""
    return (match.group(1) or "") if pattern.groups else match.group(0)


@dataclass(frozen=True)
class ImportOptions:
    """What an import is asked to do.

    Parameters
    ----------
    dataset_id, display_name, domain
        Of the new dataset.
    source_uri
        Directory, archive or fsspec URI.
    source_name
        What the dataset says that it came from; the URI where it is empty.
    format
        One of `FORMATS`, or "" to find it.
    task
        A value of `oteo_core.datasets.Task`, or "" to read it from the annotations.
    classes
        Classes that may occur, in order; empty: those that do.
    split
        How to part it.
    labels
        Free labels.
    leave_out_text
        True: DICOM images in which text is suspected are left out.
    keep_names
        True: files beside DICOM keep their names; else hashes stand for them.
    """

    dataset_id: str
    source_uri: str
    display_name: str = ""
    source_name: str = ""
    format: str = ""
    task: str = ""
    classes: tuple[str, ...] = ()
    split: SplitOptions = field(default_factory=SplitOptions)
    domain: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    leave_out_text: bool = False
    keep_names: bool = False
