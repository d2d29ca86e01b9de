"""Detection: where objects are, as boxes with a class and a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from oteo_automl.candidates.bank import spread
from oteo_automl.candidates.lesson import Lesson
from oteo_automl.candidates.modules import SavedModule
from oteo_automl.dense.base import DenseCandidate, DenseData, DenseTask, Facts, Mixing, Served
from oteo_automl.dense.detect.detector import Detector
from oteo_automl.dense.detect.facts import box_facts, box_policy
from oteo_automl.dense.detect.lesson import DetectionLesson
from oteo_automl.dense.detect.making import CANDIDATES, make_detector
from oteo_automl.dense.detect.mixing import BoxMixing
from oteo_automl.dense.detect.serving import serve
from oteo_automl.dense.detect.targets import BoxTable, build_table
from oteo_automl.objectives import OBJECTIVES
from oteo_automl.search.data import COLUMNS as IMAGE_COLUMNS
from oteo_core.datasets import DatasetReader, Sample
from oteo_core.errors import InvalidArgument
from oteo_core.evaluation.detection import detection_scores, evaluate_detection
from oteo_core.images import InputPolicy
from oteo_core.packages import Detections, MetricValue, TrueBoxes
from oteo_core.packages.decoding.detection import decode_detections
from oteo_core.truths.boxes import boxes_of

COLUMNS = (*IMAGE_COLUMNS, "boxes", "polygons", "rle", "oriented_boxes")
_LOOKED_AT = 500
"""Training images whose objects the input size is chosen by."""

_MIXED_ON = 200
"""Held-out images on which mixtures are chosen."""


class DetectionTask(DenseTask):
    """See `DenseTask`."""

    name: ClassVar[str] = "detection"
    objectives: ClassVar[tuple[str, ...]] = OBJECTIVES[name]
    shown: ClassVar[str] = "map50"
    candidates: ClassVar[tuple[DenseCandidate, ...]] = CANDIDATES

    def read(self, reader: DatasetReader) -> DenseData:
        """Read rows and boxes; outlines count as the boxes around them.

        A sample without objects is all background.
        """
        found: list[Sample] = []
        left_out: dict[str, int] = {}

        def leave(why: str, count: int = 1) -> None:
            left_out[why] = left_out.get(why, 0) + count

        for sample in reader.samples(columns=COLUMNS):
            if sample.split not in ("train", "validation", "test"):
                leave("in no part")
            elif not sample.is_picture:
                raise InvalidArgument(
                    f"sample {sample.id!r} is a {sample.media_kind} in one file; import it again, which makes a sample of each frame",
                    reason="WRONG_TASK",
                    field="dataset",
                )
            elif sample.labels and not _objects(sample):
                leave("with a class for the whole image and no object")
            else:
                found.append(sample)
        classes = self._classes(reader, found)
        numbers = {name: number for number, name in enumerate(classes)}
        unknown = sum(item.class_name not in numbers for sample in found for item in _objects(sample))
        if unknown:
            leave("objects of a class without training objects", unknown)
        truths = [boxes_of(sample, numbers) for sample in found]
        return DenseData.of(found, classes, truths.__getitem__, left_out)

    @staticmethod
    def _classes(reader: DatasetReader, found: Sequence[Sample]) -> tuple[str, ...]:
        known = {name: number for number, name in enumerate(reader.info.classes)}
        names: set[str] = set()
        masks = False
        for sample in found:
            if sample.split == "train":
                truth = boxes_of(sample, known)
                names.update(reader.info.classes[int(label)] for label in truth.labels[~truth.crowd])
        masks = reader.info.mask is not None
        if not names:
            why = "its objects are masks: train a segmentation" if masks else "mark some, or check that the part for training has them"
            raise InvalidArgument(
                f"dataset {reader.info.id!r} has no training image with a box; {why}", reason="NO_OBJECTS", field="dataset"
            )
        return tuple(name for name in reader.info.classes if name in names)

    def build_targets(self, data: DenseData, policy: InputPolicy, folder: Path, check: Callable[[], None]) -> None:
        """Write all boxes in prepared pixels."""
        build_table(data.rows, data.sizes, data.truths, policy, check).save(folder)

    def open_targets(self, folder: Path) -> BoxTable:
        """Read them; they are small."""
        return BoxTable.load(folder)

    def facts(self, targets: Any, rows: NDArray[np.int64], policy: InputPolicy, classes: int) -> Facts:
        """See `oteo_automl.dense.detect.facts.box_facts`."""
        return box_facts(targets, rows, policy, classes)

    def policy(self, data: DenseData, *, gpu: bool, budget: float, channels: int, largest: int = 0) -> InputPolicy:
        """See `oteo_automl.dense.detect.facts.box_policy`."""
        train = data.part("train")
        looked = spread(train, _LOOKED_AT)
        return box_policy(
            data.sizes[train] if len(train) else data.sizes,
            [cast(TrueBoxes, data.truths(int(row))) for row in looked],
            count=len(train),
            deep=data.deep,
            bit_depth=data.bit_depth,
            gpu=gpu,
            budget=budget,
            channels=channels,
            largest=largest,
        )

    def network(
        self, candidate: DenseCandidate, classes: int, channels: int, mean: Sequence[float], spread: Sequence[float], facts: Facts
    ) -> SavedModule:
        """Make the detector of a candidate's head."""
        return make_detector(candidate, classes, channels, mean, spread, facts)

    def lesson(
        self,
        candidate: DenseCandidate,
        images: NDArray[Any],
        targets: Any,
        train: NDArray[np.int64],
        held_out: NDArray[np.int64],
        *,
        classes: int,
        facts: Facts,
        seed: int,
    ) -> Lesson:
        """Teach boxes; one lesson for all detectors."""
        return DetectionLesson(images, targets, train, held_out, classes=classes, limit=int(facts["limit"]), seed=seed)

    def mixes(self, candidate: DenseCandidate) -> str:
        """Say that all can be mixed: their boxes if not their heads."""
        return "boxes"

    def mixing(
        self,
        networks: Sequence[SavedModule],
        images: NDArray[Any],
        targets: Any,
        held_out: NDArray[np.int64],
        *,
        classes: int,
        facts: Facts,
        check: Callable[[], None],
    ) -> tuple[Mixing, NDArray[np.int64]]:
        """Mix raw heads of centre detectors, and boxes of others."""
        rows = spread(held_out, _MIXED_ON)
        limit = int(facts["limit"])
        return BoxMixing(networks, images, targets, rows, classes=classes, limit=limit, check=check), rows

    def serve(
        self,
        candidate: DenseCandidate,
        network: SavedModule,
        images: NDArray[Any],
        targets: Any,
        held_out: NDArray[np.int64],
        *,
        policy: InputPolicy,
        classes: int,
        facts: Facts,
        seed: int,
    ) -> Served:
        """Make the graph: decoding of fixed shapes, calibrated scores."""
        return serve(cast(Detector, network), images, targets, held_out, classes=classes, limit=int(facts["limit"]), seed=seed)

    def answers(
        self, outputs: Mapping[str, NDArray[Any]], sizes: Sequence[tuple[int, int]], policy: InputPolicy, decoding: Mapping[str, Any]
    ) -> list[Any]:
        """Give `Detections`, also unlikely ones: mean average precision needs them."""
        return decode_detections(outputs, sizes, policy, decoding)

    def evaluate(
        self,
        truths: Sequence[Any],
        answers: Sequence[Any],
        classes: Sequence[str],
        *,
        groups: Sequence[str],
        split: str,
        seed: int,
        decoding: Mapping[str, Any] | None = None,
    ) -> list[MetricValue]:
        """Give COCO's figures, F1 and more, by class and size."""
        found = cast(Sequence[Detections], answers)
        return evaluate_detection(
            cast(Sequence[TrueBoxes], truths),
            found,
            classes,
            groups=groups,
            split=split,
            seed=seed,
            threshold=decoding.get("score_threshold") if decoding else None,
        )

    def scores(self, truths: Sequence[Any], answers: Sequence[Any], classes: int) -> dict[str, float]:
        """Give the quick figures."""
        return detection_scores(truths, answers, classes)


def _objects(sample: Sample) -> list[Any]:
    return [*sample.boxes, *sample.oriented_boxes, *sample.polygons, *sample.rle]
