"""Objects with a mask each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.candidates.lesson import Lesson
from oteo_automl.candidates.modules import SavedModule
from oteo_automl.dense.base import DenseCandidate, DenseData, Facts, Mixing, Served
from oteo_automl.dense.segment.mask_lesson import OUTPUTS, MaskLesson, most_objects
from oteo_automl.dense.segment.masks import MASK_STRIDE, MaskNetwork, ServedMasks
from oteo_automl.dense.segment.mixing import MapMixing
from oteo_automl.dense.segment.networks import NARROW, WIDE, SegmentationNetwork
from oteo_automl.dense.segment.objects import WatershedLesson, class_maps, prepared_truth
from oteo_automl.dense.segment.serving import ServedWatershed, choose_mirrors, choosing_rows, pixel_temperature, uncovered
from oteo_automl.dense.segment.targets import InstanceTargets, build_instances, instance_facts, level_facts, open_instances
from oteo_automl.dense.segment.task import SegmentationTask
from oteo_automl.dense.segment.truths import read_rows
from oteo_automl.dense.segment.tuning import pq_by_image, tune_masks, tune_watershed, usual_watershed
from oteo_automl.objectives import OBJECTIVES
from oteo_core.datasets import DatasetReader
from oteo_core.evaluation.instances import evaluate_instances, instance_scores
from oteo_core.images import InputPolicy
from oteo_core.packages import MetricValue
from oteo_core.packages.answers import Instances
from oteo_core.packages.decoding.instances import decode_instances, described
from oteo_core.packages.decoding.watershed import watershed_objects
from oteo_core.truths.masks import instance_map

_TUNED_ON = 20
_MIXED_ON = 48


class InstanceTask(SegmentationTask):
    """Instance segmentation: a watershed on learnt heights, and a mask head."""

    name: ClassVar[str] = "instance_segmentation"
    objectives: ClassVar[tuple[str, ...]] = OBJECTIVES[name]
    shown: ClassVar[str] = "pq"
    candidates: ClassVar[tuple[DenseCandidate, ...]] = (
        DenseCandidate("watershed-resnet18", "resnet18", "watershed", half=True, rate=3e-3, batch=8),
        DenseCandidate("watershed-mobilenetv4_conv_small", "mobilenetv4_conv_small", "watershed", half=True, rate=3e-3, batch=8, cost=0.7),
        DenseCandidate("mask-resnet18", "resnet18", "mask", half=True, rate=3e-3, batch=8, cost=0.9),
        DenseCandidate("watershed-efficientnetv2_rw_s", "efficientnetv2_rw_s", "watershed", large=True, rate=6e-4, batch=4, cost=4.0),
        DenseCandidate("mask-resnet34", "resnet34", "mask", large=True, rate=1e-3, batch=4, cost=1.6),
    )

    def read(self, reader: DatasetReader) -> DenseData:
        """Read masks that number objects, outlines and run-length masks."""
        return read_rows(reader, instance_map, instances=True)

    def build_targets(self, data: DenseData, policy: InputPolicy, folder: Path, check: Callable[[], None]) -> None:
        """Write objects' numbers and heights."""
        build_instances(data, policy, folder, check)

    def open_targets(self, folder: Path) -> InstanceTargets:
        """Open what was written."""
        return open_instances(folder)

    def facts(self, targets: Any, rows: NDArray[np.int64], policy: InputPolicy, classes: int) -> Facts:
        """Look at objects; see `instance_facts`."""
        return instance_facts(targets, rows, classes) | level_facts(policy)

    def network(
        self, candidate: DenseCandidate, classes: int, channels: int, mean: Sequence[float], spread: Sequence[float], facts: Facts
    ) -> SavedModule:
        """Make an encoder-decoder network with outputs for background, each class and the height, or one with a mask head."""
        if candidate.head == "mask":
            return MaskNetwork(candidate.architecture, classes, channels, mean, spread)
        widths = WIDE if candidate.large else NARROW
        return SegmentationNetwork(
            candidate.architecture, "unet", classes + 2, channels, mean, spread, widths=widths, relative=bool(facts.get("relative"))
        )

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
        """Make the lesson."""
        if candidate.head == "mask":
            masks = MaskLesson(images, targets, train, held_out, classes=classes, seed=seed)
            masks.most = most_objects(facts["objects"][1])
            return masks
        heights = WatershedLesson(images, targets, train, held_out, classes=classes, seed=seed)
        heights.settings = usual_watershed(_median_area(facts))
        return heights

    def mixes(self, candidate: DenseCandidate) -> str:
        """Say that those with heights can be mixed; vectors of mask heads mean something to their own features alone."""
        return candidate.head if candidate.head == "watershed" else ""

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
        """Mix the logits of pixels' classes and of heights."""
        rows = choosing_rows(held_out, images, classes, _MIXED_ON)
        windows = [uncovered(targets.ids[row], -1) for row in rows.tolist()]
        truths = [prepared_truth(targets, row, window) for row, window in zip(rows.tolist(), windows, strict=True)]

        settings = usual_watershed(_median_area(facts))

        def read(place: int, maps: NDArray[np.float32]) -> Instances:
            inside = maps[(slice(None), *windows[place])]
            chances = _softmax(inside[:-1])
            return described(watershed_objects(1.0 - chances[0], 1.0 / (1.0 + np.exp(-inside[-1])), settings), chances)

        return MapMixing(networks, images, rows, truths, read, check=check), rows

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
        """Make what is exported; mirroring, temperature and thresholds are found on the held-out rows."""
        network = network.cpu().float().eval()
        rows = choosing_rows(held_out, images, classes, _TUNED_ON)
        area = _median_area(facts)
        make = _serve_masks if candidate.head == "mask" else _serve_watershed
        return make(network, images, targets, rows, policy=policy, classes=classes, area=area, most=facts["objects"][1], seed=seed)

    def answers(
        self, outputs: Mapping[str, NDArray[Any]], sizes: Sequence[tuple[int, int]], policy: InputPolicy, decoding: Mapping[str, Any]
    ) -> list[Any]:
        """Give `Instances`."""
        return list(decode_instances(outputs, sizes, policy, decoding))

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
        """Judge objects."""
        return evaluate_instances(truths, answers, classes, groups=groups, split=split, seed=seed)

    def scores(self, truths: Sequence[Any], answers: Sequence[Any], classes: int) -> dict[str, float]:
        """Give the quick figures."""
        return instance_scores(truths, answers, classes)


def _serve_watershed(
    network: SavedModule,
    images: NDArray[Any],
    targets: InstanceTargets,
    rows: NDArray[np.int64],
    *,
    policy: InputPolicy,
    classes: int,
    area: float,
    most: int,
    seed: int,
) -> Served:
    windows = [uncovered(targets.ids[row], -1) for row in rows.tolist()]
    truths = [prepared_truth(targets, row, window) for row, window in zip(rows.tolist(), windows, strict=True)]

    def parts(maps: NDArray[np.float32]) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        outputs = [one[(slice(None), *window)] for one, window in zip(maps, windows, strict=True)]
        return [_softmax(one[:-1]) for one in outputs], [1.0 / (1.0 + np.exp(-one[-1])) for one in outputs]

    usual = usual_watershed(area)

    def quality(maps: NDArray[np.float32]) -> NDArray[np.float64]:
        found = [described(watershed_objects(1.0 - p[0], h, usual), p) for p, h in zip(*parts(maps), strict=True)]
        return pq_by_image(found, truths, classes)

    mirrors, maps = choose_mirrors(network, images, rows, quality)
    calibration = pixel_temperature(maps[:, :-1], class_maps(targets, rows), seed)
    temperature = calibration.temperature if calibration is not None else 1.0
    maps[:, :-1] /= temperature
    decoding = tune_watershed(*parts(maps), truths, classes, area)
    shape = (policy.height, policy.width)
    return Served(
        module=ServedWatershed(network, mirrors, temperature).eval(),
        outputs=(("probabilities", (classes + 1, *shape), "FP32"), ("heights", shape, "FP32")),
        decoding=decoding | ({"mirrored": mirrors} if mirrors else {}),
        calibration=calibration.to_dict() if calibration is not None else {},
        tolerance={"probabilities": 2e-3, "heights": 2e-3},
    )


def _serve_masks(
    network: SavedModule,
    images: NDArray[Any],
    targets: InstanceTargets,
    rows: NDArray[np.int64],
    *,
    policy: InputPolicy,
    classes: int,
    area: float,
    most: int,
    seed: int,
) -> Served:
    count = most_objects(most)
    served = ServedMasks(network, count).eval()
    outputs: list[dict[str, NDArray[Any]]] = []
    with torch.inference_mode():
        for row in rows.tolist():
            found = served(torch.from_numpy(np.array(images[row : row + 1])))
            outputs.append(dict(zip(OUTPUTS, (one.numpy() for one in found), strict=True)))
    # Logarithms of probabilities are logits up to a constant that softmax does not see.
    logits = np.log(np.concatenate([one["probabilities"] for one in outputs]) + 1e-12)
    calibration = pixel_temperature(logits, class_maps(targets, rows), seed)
    temperature = calibration.temperature if calibration is not None else 1.0
    truths = [prepared_truth(targets, row) for row in rows.tolist()]
    shape = (policy.height, policy.width)
    return Served(
        module=ServedMasks(network, count, temperature).eval(),
        outputs=(
            ("probabilities", (classes + 1, *shape), "FP32"),
            ("masks", (count, policy.height // MASK_STRIDE, policy.width // MASK_STRIDE), "UINT8"),
            ("scores", (count,), "FP32"),
            ("classes", (count,), "INT64"),
        ),
        decoding=tune_masks(outputs, truths, policy, classes, area) | {"method": "masks"},
        calibration=calibration.to_dict() if calibration is not None else {},
        tolerance={"probabilities": 2e-3, "scores": 2e-3, "masks": 2.0},
    )


def _median_area(facts: Facts) -> float:
    """Give the area of a disc of the median diameter, prepared pixels."""
    return float(np.pi / 4.0 * facts["diameters"][1] ** 2)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    exponentials = np.exp(logits - logits.max(axis=0))
    return np.asarray(exponentials / exponentials.sum(axis=0), dtype=np.float32)
