"""What is exported of a detector: decoding of fixed shapes and calibrated scores in one graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.candidates.modules import SavedModule, Spec, build, saved, to_planes
from oteo_automl.dense.base import Served
from oteo_automl.dense.detect.calibration import EDGE, best_thresholds, calibrate, judge_answers
from oteo_automl.dense.detect.detector import Detector, Raw
from oteo_automl.dense.detect.lesson import found_of
from oteo_automl.dense.detect.targets import BoxTable
from oteo_core.evaluation.detection import detection_scores
from oteo_core.packages import Detections, TrueBoxes
from oteo_core.packages.decoding.detection import suppress

BOX_TOLERANCE = 0.01
SCORE_TOLERANCE = 1e-3
_BATCH = 8
_MOST_ROWS = 400
"""Held-out images that are looked at."""
_BALANCES = (0.25, 0.75, 1.0)
_BALANCE_GAIN = 0.002
"""Mean average precision that another weight of the predicted overlap than the usual one must gain."""
_MIRROR_GAIN = 0.005
"""Mean average precision that answering twice, also of the mirrored image, must gain: it costs twice the time."""

_OVERLAPS = (0.7, 0.6, 0.5)
_OVERLAP_GAIN = 0.002
"""Mean average precision that suppression after the graph must gain; detectors whose peaks are single do without."""


@saved
class ServedDetector(SavedModule):
    """From ``(N, H, W, C)`` to boxes ``(N, M, 4)``, scores ``(N, M)`` falling, and classes ``(N, M)``.

    Parameters
    ----------
    detector
        Trained, or its spec.
    limit
        M, where the detector has so many places.
    slope, offsets
        Of the scores' calibration; see `Platt`.
    mirrored
        True: the mean of the raw heads of the image and of the mirrored one.
    """

    kind = "served-detector"
    slope: torch.Tensor
    offsets: torch.Tensor

    def __init__(
        self, detector: Detector | Spec, limit: int, slope: float = 1.0, offsets: Sequence[float] = (0.0,), mirrored: bool = False
    ) -> None:
        made = detector if isinstance(detector, Detector) else build(detector)
        if not isinstance(made, Detector):
            raise TypeError(f"{made.kind} is not a detector")
        super().__init__(detector=made.spec(), limit=limit, slope=slope, offsets=list(offsets), mirrored=mirrored)
        self.detector = made
        self.limit = limit
        self.mirrored = mirrored
        self.register_buffer("slope", torch.tensor(slope, dtype=torch.float32))
        self.register_buffer("offsets", torch.tensor(list(offsets), dtype=torch.float32))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give boxes in prepared pixels, calibrated scores and class numbers; a score of 0 means nothing."""
        planes = to_planes(image)
        raw = self.detector.from_planes(planes)
        if self.mirrored:
            again = self.detector.mirror_raw(self.detector.from_planes(planes.flip(3)))
            raw = tuple(0.5 * (one + two) for one, two in zip(raw, again, strict=True))
        height, width = int(image.shape[1]), int(image.shape[2])
        boxes, scores, classes = self.detector.decode(raw, height, width, self.limit)
        there = scores > 0
        inner = scores.clamp(EDGE, 1.0 - EDGE)
        odds = torch.log(inner) - torch.log1p(-inner) + (scores - inner) / (EDGE * (1.0 - EDGE))
        own = self.offsets[classes] if len(self.offsets) > 1 else self.offsets
        calibrated = torch.sigmoid(self.slope * odds + own)
        calibrated = torch.where(there, calibrated, torch.zeros_like(calibrated))
        ordered, places = torch.topk(calibrated, int(scores.shape[1]), dim=1)
        boxes = boxes.gather(1, places[:, :, None].expand(-1, -1, 4))
        return boxes, ordered, classes.gather(1, places)


def serve(
    detector: Detector, images: NDArray[Any], table: BoxTable, held_out: NDArray[np.int64], *, classes: int, limit: int, seed: int
) -> Served:
    """Find on held-out images what is served: whether mirroring and suppression pay, how scores are calibrated, and where they are cut."""
    detector = detector.cpu().float().eval()
    if len(held_out) > _MOST_ROWS:
        held_out = np.sort(np.random.Generator(np.random.Philox(key=seed)).choice(held_out, _MOST_ROWS, replace=False))
    truths = list(table.rows(held_out))
    mirrored = False
    if detector.can_mirror and len(held_out):
        found, mirrored = _best_reading(detector, images, held_out, truths, limit, classes)
    else:
        found = answer(ServedDetector(detector, limit), images, held_out)
    figure = _precision(truths, found, classes)
    overlap = 0.0
    for tried in _OVERLAPS:
        fewer = [_suppressed(one, tried) for one in found]
        better = _precision(truths, fewer, classes)
        if better - figure >= _OVERLAP_GAIN:
            overlap, figure = tried, better
    if overlap > 0:
        found = [_suppressed(one, overlap) for one in found]
    judged = judge_answers(truths, found)
    platt, figures = calibrate(judged, classes, seed)
    module = ServedDetector(detector, limit, platt.slope, platt.offsets, mirrored).eval()
    judged.scores[:] = platt.apply(judged.scores, judged.labels)
    decoding: dict[str, Any] = {"score_threshold": best_thresholds(judged, truths, classes), "nms_iou": overlap}
    if detector.can_mirror:
        decoding |= {"mirrored": mirrored, "overlap_weight": detector.balance}
    with torch.no_grad():
        shapes = [tuple(part.shape[1:]) for part in module(torch.from_numpy(np.zeros((1, *images.shape[1:]), images.dtype)))]
    outputs = tuple(zip(("boxes", "scores", "classes"), shapes, ("FP32", "FP32", "INT64"), strict=True))
    tolerance = {"boxes": BOX_TOLERANCE, "scores": SCORE_TOLERANCE, "classes": 0.0}
    return Served(module, outputs, decoding, figures, tolerance, ranked_by="scores")


@torch.no_grad()
def _best_reading(
    detector: Detector, images: NDArray[Any], rows: NDArray[np.int64], truths: Sequence[TrueBoxes], limit: int, classes: int
) -> tuple[list[Detections], bool]:
    """Choose how raw heads are read, and set it: how much the predicted overlap counts, and whether the mirrored image is asked, too."""
    height, width = int(images.shape[1]), int(images.shape[2])
    plain: list[Raw] = []
    twice: list[Raw] = []
    for part in _parts(images, rows):
        planes = to_planes(part)
        raw = detector.from_planes(planes)
        again = detector.mirror_raw(detector.from_planes(planes.flip(3)))
        plain.append(raw)
        twice.append(tuple(0.5 * (one + two) for one, two in zip(raw, again, strict=True)))

    def read(raws: Sequence[Raw]) -> tuple[float, list[Detections]]:
        found = [one for raw in raws for one in _found(detector.decode(raw, height, width, limit))]
        return _precision(truths, found, classes), found

    usual = detector.balance
    figure, found = read(plain)
    chosen = usual
    for tried in _BALANCES:
        detector.balance = tried
        better, other = read(plain)
        if better - figure >= (_BALANCE_GAIN if chosen == usual else 0.0):
            figure, found, chosen = better, other, tried
    detector.balance = chosen
    detector.settings["balance"] = chosen
    better, other = read(twice)
    if better - figure >= _MIRROR_GAIN:
        return other, True
    return found, False


def _precision(truths: Sequence[TrueBoxes], found: Sequence[Detections], classes: int) -> float:
    return float(detection_scores(truths, found, classes)["map50_95"])


def _suppressed(found: Detections, overlap: float) -> Detections:
    kept = suppress(found.boxes, found.scores, found.labels, overlap)
    return Detections(found.boxes[kept], found.scores[kept], found.labels[kept])


def answer(module: ServedDetector, images: NDArray[Any], rows: NDArray[np.int64]) -> list[Detections]:
    """Run a served detector on rows of prepared images; boxes in prepared pixels."""
    return list(_answers(module.eval(), images, rows))


@torch.no_grad()
def _answers(module: ServedDetector, images: NDArray[Any], rows: NDArray[np.int64]) -> Iterator[Detections]:
    for part in _parts(images, rows):
        yield from _found(module(part))


def _parts(images: NDArray[Any], rows: NDArray[np.int64]) -> Iterator[torch.Tensor]:
    for start in range(0, len(rows), _BATCH):
        yield torch.from_numpy(np.stack([images[int(row)] for row in rows[start : start + _BATCH]]))


def _found(outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> Iterator[Detections]:
    boxes, scores, labels = (out.numpy() for out in outputs)
    for index in range(len(boxes)):
        yield found_of(boxes[index], scores[index], labels[index])
