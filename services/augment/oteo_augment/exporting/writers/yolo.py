"""YOLO's text files in the folders of Ultralytics (docs.ultralytics.com/datasets/detect, /segment, /obb and /pose)."""

from __future__ import annotations

import yaml

from oteo_augment.exporting.objects import Thing, box_around, largest_contour, ring_area
from oteo_augment.exporting.points import PointNames
from oteo_augment.exporting.writers.base import OBJECTS, PARTS, Job, Writer, media_ending
from oteo_core.datasets import Sample, Severity, Task, mirror_pairs
from oteo_core.datasets.runs import mask_from_runs


class Yolo(Writer):
    """Writes ``images/train/NAME.png``, ``labels/train/NAME.txt`` and ``data.yaml``.

    All lines of a set are of one kind: outlines for instance segmentation; else boxes with points where any object has points, four corners where
    any box is turned, and boxes where neither is. Which it is, is written as ``task`` in ``data.yaml``: four corners may be an outline too.

    Shares are written with twelve significant digits: 1e-8 pixels in an image of 10,000.
    """

    name = "yolo"
    tasks = OBJECTS | {Task.KEYPOINTS}

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._numbers = {name: number for number, name in enumerate(job.info.classes)}
        self._points = PointNames(job.reader)
        self._kind = "detect"
        if job.info.task == Task.INSTANCE:
            self._kind = "segment"
        elif self._points.any_points:
            self._kind = "pose"
        elif self._points.any_turned:
            self._kind = "obb"
        self.keeps_points, self.keeps_turned = self._kind == "pose", self._kind == "obb"
        self._skeletons = [self._points.of(name) for name in job.info.classes]
        self._point_count = max((len(skeleton.points) for skeleton in self._skeletons), default=0)

    def start(self) -> None:
        """Say what is lost of the dataset as a whole."""
        super().start()
        if any(skeleton.edges for skeleton in self._skeletons):
            self.losses.add("SKELETON_LOST", "which points are joined is not in the format", severity=Severity.INFO)

    def add(self, sample: Sample) -> None:
        """Copy the image and write its text file, empty where it has no object."""
        folder = PARTS[sample.split]
        stem = self.stem(sample)
        self.media(sample, f"images/{folder}/{stem}{media_ending(sample)}")
        lines = [line for thing in self.things(sample) if (line := self._line(thing, sample))]
        self.sink.write(f"labels/{folder}/{stem}.txt", "".join(f"{line}\n" for line in lines).encode())
        self.labels_lost(sample)
        self.lost(sample)

    def _line(self, thing: Thing, sample: Sample) -> str:
        if thing.crowd:
            self.losses.add("CROWD_LOST", "crowds are left out: YOLO would take each for one object", sample.id, severity=Severity.ERROR)
            return ""
        if thing.attributes:
            self.losses.add("ATTRIBUTE_LOST", "attributes of objects are not in the format", sample.id, count=len(thing.attributes))
        number = self._numbers[thing.class_name]
        if self._kind != "segment" and thing.has_outline:
            self.losses.add("OUTLINE_LOST", "outlines are not in the lines of a detection set, which hold boxes", sample.id)
        if self._kind == "pose":
            return f"{self._box(number, thing, sample)} {self._marked(thing, sample)}"
        if self._kind == "obb":
            return self._turned(number, thing, sample)
        if self._kind == "detect":
            return self._box(number, thing, sample)
        ring = self._ring(thing, sample)
        if ring is None:
            return ""
        shares = [v / (sample.height if index % 2 else sample.width) for index, v in enumerate(ring)]
        return f"{number} {' '.join(map(_share, shares))}"

    def _box(self, number: int, thing: Thing, sample: Sample) -> str:
        if thing.box is None and not thing.has_outline and thing.oriented is None:
            self.losses.add(
                "BOX_ADDED",
                "objects of points alone got a box around their points, which the format asks for",
                sample.id,
                severity=Severity.INFO,
            )
        x, y, width, height = box_around(thing)
        shares = (
            (x + width / 2) / sample.width,
            (y + height / 2) / sample.height,
            width / sample.width,
            height / sample.height,
        )
        return f"{number} {' '.join(map(_share, shares))}"

    def _marked(self, thing: Thing, sample: Sample) -> str:
        """Give the points of an object: three numbers each, zeros for those that are not marked."""
        placed = self._points.placed(thing.class_name, thing.keypoints)
        placed += [(0.0, 0.0, 0)] * (self._point_count - len(placed))
        return " ".join(f"{_share(x / sample.width)} {_share(y / sample.height)} {seen}" for x, y, seen in placed)

    def _turned(self, number: int, thing: Thing, sample: Sample) -> str:
        """Give the four corners of an object's turned box, of its upright box where it has no other."""
        if thing.oriented is not None:
            corners = thing.oriented.corners()
        else:
            x, y, width, height = thing.bounds()
            corners = ((x, y), (x + width, y), (x + width, y + height), (x, y + height))
        shares = [side / full for corner in corners for side, full in zip(corner, (sample.width, sample.height), strict=True)]
        inside = [min(max(share, 0.0), 1.0) for share in shares]
        if max(abs(one - other) for one, other in zip(shares, inside, strict=True)) > 1e-9:
            self.losses.add(
                "BOX_CUT", "turned boxes that stand out of the image had corners moved to its edge: shares go from 0 to 1", sample.id
            )
        return f"{number} {' '.join(map(_share, inside))}"

    def _ring(self, thing: Thing, sample: Sample) -> tuple[float, ...] | None:
        """Give the one ring that a line can hold."""
        if thing.polygons is not None:
            rings = thing.polygons.rings
            if len(rings) > 1:
                self.losses.add(
                    "RINGS_LOST",
                    "pieces of outlines are lost: YOLO holds one ring for each object, the largest",
                    sample.id,
                    count=len(rings) - 1,
                )
            return max(rings, key=lambda ring: abs(ring_area(ring)))
        if thing.rle is not None:
            ring, pieces = largest_contour(mask_from_runs(thing.rle.counts, thing.rle.height, thing.rle.width))
            if ring is None:
                self.losses.add("OBJECT_LOST", "objects without an area are left out", sample.id, severity=Severity.ERROR)
                return None
            self.losses.add("MASK_OUTLINED", "masks became outlines along pixel edges: holes are filled", sample.id, severity=Severity.INFO)
            if pieces > 1:
                self.losses.add(
                    "RINGS_LOST",
                    "pieces of outlines are lost: YOLO holds one ring for each object, the largest",
                    sample.id,
                    count=pieces - 1,
                )
            return ring
        # The four corners of a box are an outline too, if a coarse one.
        self.losses.add("BOX_OUTLINED", "boxes without an outline are written as outlines of four corners", sample.id)
        if thing.oriented is not None:
            return tuple(value for corner in thing.oriented.corners() for value in corner)
        x, y, width, height = thing.bounds()
        return x, y, x + width, y, x + width, y + height, x, y + height

    def finish(self) -> None:
        """Write `data.yaml`."""
        content: dict[str, object] = {"path": "."}
        for split in filter(None, self.job.parts()):
            content[PARTS[split]] = f"images/{PARTS[split]}"
        # Ultralytics asks for both, whether there are such samples or not.
        content.setdefault("train", "images/train")
        content.setdefault("val", "images/val")
        content["names"] = {number: name for name, number in self._numbers.items()}
        if self._kind != "detect":
            content["task"] = self._kind
        if self._kind == "pose":
            content["kpt_shape"] = [self._point_count, 3]
            content["kpt_names"] = {number: list(skeleton.points) for number, skeleton in enumerate(self._skeletons) if skeleton.points}
            if flipped := self._flipped():
                content["flip_idx"] = flipped
        self.sink.write("data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())

    def _flipped(self) -> list[int]:
        """Give which point takes a point's place in a mirrored image, where names of left and right say so and classes agree; else nothing."""
        orders = set()
        for skeleton in self._skeletons:
            if skeleton.points:
                pairs = mirror_pairs(skeleton.points)
                pairs |= {other: name for name, other in pairs.items()}
                names = [pairs.get(name, name) for name in skeleton.points]
                orders.add((*map(skeleton.points.index, names), *range(len(names), self._point_count)) if pairs else ())
        return list(orders.pop()) if len(orders) == 1 else []


def _share(value: float) -> str:
    return f"{value:.12g}"
