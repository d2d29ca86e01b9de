"""What a reader of a format makes of a source, before any pixel is seen."""

from __future__ import annotations

from dataclasses import dataclass, field

from oteo_core.datasets import Box, DatasetInfo, Finding, Keypoints, OrientedBox, Polygons, Rle, Sample, Severity, Skeleton


@dataclass(slots=True)
class Item:
    """One image that the source names or holds.

    Parameters
    ----------
    path
        Of the image file inside the source; the path that annotations name where there is no such file.
    missing
        True: annotations name it and it is not there.
    unlabelled
        True: nothing is known of it, so that it is left out.
    labels, boxes, polygons, rle, oriented_boxes, keypoints
        As in `oteo_core.datasets.Sample`; not yet held against the image's size. Oriented boxes are always in pixels.
    quads
        Four corners each, of a turned box or of an outline: which of both, the task decides.
    mask
        Path of its mask file inside the source, or ""; with a slash at its end, a folder whose files are a mask of one object each.
    split
        Part that the source names, or "".
    group
        What it belongs to by the source's own word (a patient), or "".
    declared_size
        Width and height that the annotations give; zeros where they do not.
    normalised
        True: coordinates are shares of the image's width and height, as in YOLO's files.
    findings
        What the reader found wrong.
    frame
        The frame of the file that is meant, from 0; -1: all of them.
    """

    path: str
    missing: bool = False
    unlabelled: bool = False
    labels: list[str] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    polygons: list[Polygons] = field(default_factory=list)
    rle: list[Rle] = field(default_factory=list)
    oriented_boxes: list[OrientedBox] = field(default_factory=list)
    keypoints: list[Keypoints] = field(default_factory=list)
    quads: list[Polygons] = field(default_factory=list)
    mask: str = ""
    split: str = ""
    group: str = ""
    declared_size: tuple[int, int] = (0, 0)
    normalised: bool = False
    findings: list[Finding] = field(default_factory=list)
    frame: int = -1

    def report(self, severity: Severity, code: str, message: str, path: str = "") -> None:
        """Add a finding; `path` is the file to look at, the image itself where it is left out."""
        self.findings.append(Finding(severity, code, message, path or self.path))


@dataclass(slots=True)
class Reading:
    """A source as a reader of its format sees it.

    Parameters
    ----------
    items
        All images, one each; order does not matter.
    classes
        Classes that the source declares, in its order; empty where it declares none.
    tasks
        Tasks that the annotations can serve, the natural one first.
    used
        Files that were read as annotations.
    mask_numbers
        Numbers of mask images with their classes, where the source says so; the single number -1 says that every number is an object.
    skeletons
        The points of classes that have key points.
    mask_colors
        Colours of mask images with their numbers, where the source says so: 0 is background, `oteo_augment.importing.colors.VOID` is set aside.
    stored
        The dataset that the source is already; None for every other format.
    """

    items: list[Item]
    classes: tuple[str, ...]
    tasks: tuple[str, ...]
    used: frozenset[str] = frozenset()
    mask_numbers: tuple[tuple[int, str], ...] = ()
    mask_colors: tuple[tuple[tuple[int, int, int], int], ...] = ()
    stored: Stored | None = None
    skeletons: tuple[Skeleton, ...] = ()

    @property
    def masked(self) -> bool:
        """Whether any image has a mask."""
        return any(item.mask for item in self.items)


@dataclass(slots=True)
class Stored:
    """A dataset of Oteo's own that a source holds: its description, its rows, and its folder inside the source ("" or "name/")."""

    info: DatasetInfo
    samples: list[Sample]
    folder: str
