"""Several detectors as one.

Heads of the same kind and stride are averaged before they are read, as those of a mirrored image are. Where heads differ, each detector is read
by itself, its scores are calibrated, and boxes of one class that overlap are fused: weighted boxes fusion (Solovyev, Wang and Gabruseva, Image
and Vision Computing 2021), with the clusters of a suppression whose shapes do not depend on values in the place of its loop.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from oteo_automl.candidates.modules import SavedModule, build, saved, to_planes
from oteo_automl.candidates.training import runs_on
from oteo_automl.dense.base import Mixing
from oteo_automl.dense.detect.calibration import EDGE, Platt, fit_platt, judge_answers
from oteo_automl.dense.detect.centre import CentreDetector
from oteo_automl.dense.detect.detector import Detector, Raw
from oteo_automl.dense.detect.lesson import found_of
from oteo_automl.dense.detect.suppression import overlaps, survivors
from oteo_automl.dense.detect.targets import BatchBoxes, BoxTable
from oteo_core.packages import Detections, TrueBoxes

_BATCH = 8

SAME = 0.55
"""Intersection over union above which two boxes of a class are of one object (the paper's threshold)."""


def _built(parts: Sequence[Any]) -> list[Detector]:
    found = [part if isinstance(part, SavedModule) else build(part) for part in parts]
    wrong = [module.kind for module in found if not isinstance(module, Detector)]
    if wrong:
        raise TypeError(f"{wrong[0]} is not a detector")
    return [module for module in found if isinstance(module, Detector)]


class _Several(Detector):
    """What mixtures of detectors have in common."""

    def __init__(self, parts: Sequence[Any], weights: Sequence[float], **settings: Any) -> None:
        found = _built(parts)
        first = found[0]
        super().__init__(
            channels=first.settings["channels"],
            mean=first.settings["mean"],
            spread=first.settings["spread"],
            parts=[part.spec() for part in found],
            weights=[float(one) for one in weights],
            **settings,
        )
        # Every part normalises by itself; a constructor's arguments are all that is written down.
        for name in ("channels", "mean", "spread"):
            del self.settings[name]
        self.parts = nn.ModuleList(found)

    @property
    def detectors(self) -> list[Detector]:
        """The parts."""
        return [part for part in self.parts if isinstance(part, Detector)]

    def from_planes(self, planes: torch.Tensor) -> Raw:
        """Give what `combined` makes of the parts' raw heads."""
        return self.combined([part.from_planes(planes) for part in self.detectors])

    @abstractmethod
    def combined(self, raws: Sequence[Raw]) -> Raw:
        """Make raw heads of the mixture of those of the parts."""


@saved
class MeanDetector(_Several):
    """Centre detectors of one stride: the weighted mean of their raw heads.

    Parameters
    ----------
    parts
        `CentreDetector`s that `alike` holds for, or their specs.
    weights
        One each; they sum to one.
    balance
        As of `CentreDetector`.
    """

    kind = "mean-detector"
    can_mirror = True

    def __init__(self, parts: Sequence[Any], weights: Sequence[float], balance: float = 0.5) -> None:
        super().__init__(parts, weights, balance=balance)
        self.balance = balance

    def combined(self, raws: Sequence[Raw]) -> Raw:
        """Give the mean heads."""
        weights = self.settings["weights"]
        return tuple(
            torch.stack([head.float() * weight for head, weight in zip(heads, weights, strict=True)]).sum(dim=0)
            for heads in zip(*raws, strict=True)
        )

    def mirror_raw(self, raw: Raw) -> Raw:
        """Mirror the heads."""
        return self.detectors[0].mirror_raw(raw)

    def raw_loss(self, raw: Raw, targets: BatchBoxes, height: int, width: int) -> torch.Tensor:
        """Give the loss of the mean heads."""
        return self.detectors[0].raw_loss(raw, targets, height, width)

    def decode(self, raw: Raw, height: int, width: int, limit: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Read the mean heads as one detector's."""
        first = self.detectors[0]
        first.balance = self.balance
        return first.decode(raw, height, width, limit)


@saved
class FusedDetector(_Several):
    """Detectors of any kind: their boxes, fused; its raw heads are the parts' boxes, scores and classes. It is made of trained parts and not trained.

    Parameters
    ----------
    parts
        Detectors, or their specs.
    weights
        How much each one's scores count; they sum to one.
    slopes, offsets
        Of each part's calibration, so that scores of different kinds can be compared; see `oteo_automl.dense.detect.calibration.Platt`.
    limit
        Boxes that each part gives at most.
    """

    kind = "fused-detector"

    def __init__(
        self, parts: Sequence[Any], weights: Sequence[float], slopes: Sequence[float], offsets: Sequence[Sequence[float]], limit: int
    ) -> None:
        super().__init__(
            parts, weights, slopes=[float(one) for one in slopes], offsets=[[float(one) for one in own] for own in offsets], limit=limit
        )
        self.draws = any(part.draws for part in self.detectors)

    def from_planes(self, planes: torch.Tensor) -> Raw:
        """Give boxes in prepared pixels, calibrated scores and classes of each part."""
        return self.combined([self.read(place, planes) for place in range(len(self.parts))])

    def read(self, place: int, planes: torch.Tensor) -> Raw:
        """Give those of one part."""
        part = self.detectors[place]
        height, width = int(planes.shape[2]), int(planes.shape[3])
        boxes, scores, labels = part.decode(part.from_planes(planes), height, width, self.settings["limit"])
        return boxes, _calibrated(scores, labels, self.settings["slopes"][place], self.settings["offsets"][place]), labels

    def combined(self, raws: Sequence[Raw]) -> Raw:
        """Give the boxes, scores and classes of all parts, one part after the other."""
        return tuple(head for raw in raws for head in raw)

    def raw_loss(self, raw: Raw, targets: BatchBoxes, height: int, width: int) -> torch.Tensor:
        """Refuse: boxes are no heads."""
        raise TypeError("fused detectors are made of trained ones and not trained")

    def held_out_loss(self, planes: torch.Tensor, raw: Raw, targets: BatchBoxes) -> torch.Tensor:
        """Give the weighted mean of the parts' losses."""
        losses = [
            weight * part.held_out_loss(planes, part.from_planes(planes), targets)
            for part, weight in zip(self.detectors, self.settings["weights"], strict=True)
        ]
        return torch.stack(losses).sum()

    def decode(self, raw: Raw, height: int, width: int, limit: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Fuse the boxes."""
        weights = [torch.full_like(raw[3 * place + 1], weight) for place, weight in enumerate(self.settings["weights"])]
        boxes, scores, labels = (torch.cat(raw[start::3], dim=1) for start in range(3))
        return fuse(boxes, scores, labels, torch.cat(weights, dim=1), limit)


def _calibrated(scores: torch.Tensor, labels: torch.Tensor, slope: float, offsets: Sequence[float]) -> torch.Tensor:
    inner = scores.clamp(EDGE, 1.0 - EDGE)
    odds = torch.log(inner) - torch.log1p(-inner) + (scores - inner) / (EDGE * (1.0 - EDGE))
    own = torch.tensor(list(offsets), dtype=odds.dtype, device=odds.device)
    found = torch.sigmoid(slope * odds + (own[labels] if len(offsets) > 1 else own))
    return torch.where(scores > 0, found, torch.zeros_like(found))


def fuse(
    boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, limit: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fuse boxes of several detectors.

    Parameters
    ----------
    boxes, scores, labels, weights
        ``(N, k, 4)``, ``(N, k)``, ``(N, k)`` int64 and ``(N, k)``: the weight of the detector that a box comes from; those of all detectors sum to
        one. A score of 0: nothing.
    limit
        Boxes that are given at most.

    Returns
    -------
    tuple
        Boxes ``(N, M, 4)``: of each cluster the mean, weighted by score and weight; scores ``(N, M)``, falling: of each cluster the weighted mean of
        the detectors' scores, those that found nothing there counting 0; classes ``(N, M)``. M is the smaller of `limit` and k.
    """
    strength = scores * weights
    count = int(scores.shape[1])
    scores, order = torch.topk(scores, count, dim=1)
    boxes = boxes.gather(1, order[:, :, None].expand(-1, -1, 4))
    strength, labels = strength.gather(1, order), labels.gather(1, order)
    there = (scores > 0).float()
    leads = survivors(boxes, labels, SAME) * there
    same = overlaps(boxes) * (labels[:, :, None] == labels[:, None, :]).float() * leads[:, :, None]
    # A leader is of its own cluster, whatever else it touches; the others are of the leader's that they overlap most.
    own = torch.eye(count, device=boxes.device)[None] * leads[:, :, None]
    same = torch.where(leads[:, None, :] > 0, own, same)
    best = same.amax(dim=1, keepdim=True)
    first = same.argmax(dim=1)
    places = torch.arange(count, device=boxes.device)
    member = (places[None, :, None] == first[:, None, :]).float() * (best > SAME).float() * there[:, None, :]
    shares = member * strength[:, None, :]
    total = shares.sum(dim=2)
    # A detector that draws two boxes around one object does not make it twice as sure.
    fused_scores = torch.minimum(total, scores) * leads
    fused = torch.bmm(shares, boxes) / total.clamp(min=1e-9)[:, :, None]
    found, chosen = torch.topk(fused_scores, min(limit, count), dim=1)
    return fused.gather(1, chosen[:, :, None].expand(-1, -1, 4)), found, labels.gather(1, chosen)


def alike(parts: Sequence[SavedModule]) -> bool:
    """Say whether the raw heads of these detectors mean the same, so that they can be averaged."""
    keys = {(part.stride, part.base, part.classes) if isinstance(part, CentreDetector) else None for part in parts}
    return len(keys) == 1 and None not in keys


class BoxMixing(Mixing):
    """Mixtures of trained detectors: of their raw heads where these are `alike`, else of their boxes.

    Parameters
    ----------
    networks
        In evaluation mode.
    images, table, rows
        Prepared images, boxes of all samples, and the rows that answers are given of.
    classes, limit
        K, and objects of an image at most.
    check
        Called between batches; may raise.
    """

    def __init__(
        self,
        networks: Sequence[SavedModule],
        images: NDArray[Any],
        table: BoxTable,
        rows: NDArray[np.int64],
        *,
        classes: int,
        limit: int,
        check: Callable[[], None],
    ) -> None:
        self.truths: list[TrueBoxes] = list(table.rows(rows))
        self._networks = _built(networks)
        self._height, self._width, self._limit = int(images.shape[1]), int(images.shape[2]), limit
        self._alike = alike(networks)
        self._platts = [Platt() for _ in networks]
        self._raws: list[list[Raw]] = [[] for _ in networks]
        device = runs_on()
        with torch.inference_mode():
            for network, kept in zip(self._networks, self._raws, strict=True):
                network.to(device)
                for start in range(0, len(rows), _BATCH):
                    check()
                    batch = torch.from_numpy(np.stack([images[row] for row in rows[start : start + _BATCH].tolist()]))
                    raw = network.from_planes(to_planes(batch.to(device)))
                    if not self._alike:
                        raw = network.decode(raw, self._height, self._width, limit)
                    kept.append(tuple(head.cpu() for head in raw))
                network.cpu()
        if not self._alike:
            self._platts = [fit_platt(judge_answers(self.truths, self._found(kept)), classes) for kept in self._raws]
            self._raws = [
                [(boxes, _calibrated(scores, labels, platt.slope, platt.offsets), labels) for boxes, scores, labels in kept]
                for kept, platt in zip(self._raws, self._platts, strict=True)
            ]

    def module(self, parts: Sequence[int], weights: Sequence[float]) -> Detector:
        """Give the mixture of some of the networks as a detector."""
        chosen = [self._networks[part] for part in parts]
        if self._alike:
            return MeanDetector(chosen, weights).eval()
        platts = [self._platts[part] for part in parts]
        return FusedDetector(chosen, weights, [one.slope for one in platts], [one.offsets for one in platts], self._limit).eval()

    @torch.inference_mode()
    def answers(self, parts: Sequence[int], weights: Sequence[float]) -> list[Detections]:
        """Give what it finds in the rows' images, in prepared pixels."""
        raws = [self._raws[part] for part in parts]
        if len(parts) == 1 and not self._alike:
            return self._found(raws[0])
        mixture = self.module(parts, weights)
        assert isinstance(mixture, _Several)
        return self._found(
            [mixture.decode(mixture.combined(batch), self._height, self._width, self._limit) for batch in zip(*raws, strict=True)]
        )

    @staticmethod
    def _found(batches: Sequence[Raw]) -> list[Detections]:
        found = []
        for batch in batches:
            boxes, scores, labels = (part.numpy() for part in batch)
            found += [found_of(boxes[place], scores[place], labels[place]) for place in range(len(boxes))]
        return found
