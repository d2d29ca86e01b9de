"""The points of classes in the order that formats need: they number them, and every object has all of them."""

from __future__ import annotations

from dataclasses import replace

from oteo_core.datasets import DatasetReader, Keypoints, Sample, Skeleton


class PointNames:
    """Gives each class its points.

    Those that the dataset declares come first, then those that its objects have beyond: an object's order of points is kept where it can be.

    Parameters
    ----------
    reader
        The dataset; its column of key points is read once.
    """

    def __init__(self, reader: DatasetReader) -> None:
        self._skeletons = {skeleton.class_name: skeleton for skeleton in reader.info.skeletons}
        self._declared = frozenset(self._skeletons)
        self.any_points = self.any_turned = False
        for sample in reader.samples(columns=["keypoints", "oriented_boxes"]):
            self._learn(sample)
        self._numbers = {name: {point: number for number, point in enumerate(s.points)} for name, s in self._skeletons.items()}

    def _learn(self, sample: Sample) -> None:
        self.any_points |= bool(sample.keypoints)
        self.any_turned |= bool(sample.oriented_boxes)
        for marked in sample.keypoints:
            old = self._skeletons.get(marked.class_name, Skeleton(marked.class_name, ()))
            known = list(old.points)
            place = 0
            for point in marked.points:
                if point.name in known:
                    place = known.index(point.name) + 1
                    continue
                # What is declared keeps its number: edges go by numbers. What is not is put where this object has it.
                place = len(known) if marked.class_name in self._declared else place
                known.insert(place, point.name)
                place += 1
            if len(known) > len(old.points):
                self._skeletons[marked.class_name] = replace(old, points=tuple(known))

    def of(self, class_name: str) -> Skeleton:
        """Give a class's points; none where it has none."""
        return self._skeletons.get(class_name, Skeleton(class_name, ()))

    def placed(self, class_name: str, marked: Keypoints | None) -> list[tuple[float, float, int]]:
        """Give x, y in pixels and visibility (0 not marked, 1 hidden, 2 seen) of all points of an object's class."""
        numbers = self._numbers.get(class_name, {})
        found = [(0.0, 0.0, 0)] * len(numbers)
        for point in marked.points if marked is not None else ():
            found[numbers[point.name]] = (point.x, point.y, 2 if point.visible else 1)
        return found
