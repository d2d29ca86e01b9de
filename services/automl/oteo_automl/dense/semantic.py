"""A class for each pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from oteo_automl.candidates.lesson import Lesson
from oteo_automl.candidates.modules import SavedModule
from oteo_automl.dense.base import DenseCandidate, DenseData, Facts, Mixing, Served
from oteo_automl.dense.segment.lessons import SemanticLesson
from oteo_automl.dense.segment.mixing import MapMixing
from oteo_automl.dense.segment.networks import DEEP_FROM, NARROW, WIDE, SegmentationNetwork
from oteo_automl.dense.segment.serving import (
    ServedSemantic,
    choose_cleaning,
    choose_mirrors,
    choosing_rows,
    dice_by_image,
    pixel_temperature,
    uncovered,
)
from oteo_automl.dense.segment.targets import build_maps, level_facts, open_maps, semantic_facts
from oteo_automl.dense.segment.task import SegmentationTask
from oteo_automl.dense.segment.truths import read_rows
from oteo_automl.objectives import OBJECTIVES
from oteo_core.datasets import DatasetReader
from oteo_core.evaluation.semantic import evaluate_semantic, semantic_scores
from oteo_core.images import InputPolicy
from oteo_core.packages import MetricValue
from oteo_core.packages.answers import IGNORED, ClassMap
from oteo_core.packages.decoding.semantic import decode_class_maps
from oteo_core.truths.masks import class_map

DECODERS = {"unet": "unet", "unet++": "unet++", "deeplabv3+": "deeplabv3+"}
"""Decoder by `DenseCandidate.head`."""


class SemanticTask(SegmentationTask):
    """Semantic segmentation by encoder-decoder networks; rules of patches, loss and mirroring are nnU-Net's (Isensee et al. 2021)."""

    name: ClassVar[str] = "semantic_segmentation"
    objectives: ClassVar[tuple[str, ...]] = OBJECTIVES[name]
    shown: ClassVar[str] = "dice"
    candidates: ClassVar[tuple[DenseCandidate, ...]] = (
        DenseCandidate("unet-resnet18", "resnet18", "unet", half=True, rate=3e-3, batch=8),
        DenseCandidate("unet-mobilenetv4_conv_small", "mobilenetv4_conv_small", "unet", half=True, rate=3e-3, batch=8, cost=0.7),
        DenseCandidate("unet++-resnet34", "resnet34", "unet++", large=True, rate=6e-4, batch=4, cost=6.0),
        DenseCandidate("unet-efficientnetv2_rw_s", "efficientnetv2_rw_s", "unet", large=True, rate=6e-4, batch=4, cost=4.0),
        DenseCandidate("deeplabv3+-resnet50d", "resnet50d", "deeplabv3+", scratch=False, large=True, rate=6e-4, batch=4, cost=4.0),
    )

    def read(self, reader: DatasetReader) -> DenseData:
        """Read masks of classes, masks of objects (all one class) and outlines."""
        return read_rows(reader, class_map, instances=False)

    def build_targets(self, data: DenseData, policy: InputPolicy, folder: Path, check: Callable[[], None]) -> None:
        """Write class maps."""
        build_maps(data, policy, folder, check)

    def open_targets(self, folder: Path) -> NDArray[np.uint8]:
        """Open class maps ``(N, H, W)``."""
        return open_maps(folder)

    def facts(self, targets: Any, rows: NDArray[np.int64], policy: InputPolicy, classes: int) -> Facts:
        """Look at class maps; see `semantic_facts`."""
        return semantic_facts(targets, rows, classes) | level_facts(policy)

    def network(
        self, candidate: DenseCandidate, classes: int, channels: int, mean: Sequence[float], spread: Sequence[float], facts: Facts
    ) -> SavedModule:
        """Make an encoder-decoder network with an output for background and each class."""
        return SegmentationNetwork(
            candidate.architecture,
            DECODERS[candidate.head],
            classes + 1,
            channels,
            mean,
            spread,
            widths=WIDE if candidate.large else NARROW,
            deep=candidate.head == "unet" and facts.get("height", 0) * facts.get("width", 0) >= DEEP_FROM,
            relative=bool(facts.get("relative")),
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
        return SemanticLesson(images, targets, train, held_out, classes=classes, seed=seed, sided=bool(facts.get("sided")))

    def mixes(self, candidate: DenseCandidate) -> str:
        """Say that all can be mixed."""
        return "maps"

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
        """Mix the logits of pixels' classes."""
        rows = choosing_rows(held_out, images, classes)
        truths = [ClassMap(np.asarray(targets[row])) for row in rows.tolist()]

        def read(_place: int, maps: NDArray[np.float32]) -> ClassMap:
            return ClassMap(maps.argmax(axis=0).astype(np.uint8))

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
        """Make what is exported; mirroring, temperature and cleaning are found on the held-out rows."""
        network = network.cpu().float().eval()
        rows = choosing_rows(held_out, images, classes)
        windows = [uncovered(targets[row], IGNORED) for row in rows.tolist()]
        truths = [np.asarray(targets[row][window]) for row, window in zip(rows.tolist(), windows, strict=True)]

        def cut(logits: NDArray[np.float32]) -> list[NDArray[np.uint8]]:
            return [one.argmax(axis=0).astype(np.uint8)[window] for one, window in zip(logits, windows, strict=True)]

        mirrors, logits = choose_mirrors(network, images, rows, lambda maps: dice_by_image(cut(maps), truths, classes))
        calibration = pixel_temperature(logits, np.stack([targets[row] for row in rows.tolist()]), seed)
        decoding = choose_cleaning(cut(logits), truths, classes, facts["areas"])
        temperature = calibration.temperature if calibration is not None else 1.0
        shape = (policy.height, policy.width)
        return Served(
            module=ServedSemantic(network, mirrors, temperature).eval(),
            outputs=(("label_map", shape, "UINT8"), ("probabilities", (classes + 1, *shape), "FP32")),
            decoding=decoding | ({"mirrored": mirrors} if mirrors else {}),
            calibration=calibration.to_dict() if calibration is not None else {},
            tolerance={"probabilities": 2e-3},
        )

    def answers(
        self, outputs: Mapping[str, NDArray[Any]], sizes: Sequence[tuple[int, int]], policy: InputPolicy, decoding: Mapping[str, Any]
    ) -> list[Any]:
        """Give `ClassMap`."""
        return list(decode_class_maps(outputs, sizes, policy, decoding))

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
        """Judge class maps."""
        return evaluate_semantic(truths, answers, classes, groups=groups, split=split, seed=seed)

    def scores(self, truths: Sequence[Any], answers: Sequence[Any], classes: int) -> dict[str, float]:
        """Give the quick figures."""
        return semantic_scores(truths, answers, classes)
