"""What is special to a task in judging: truths, answers, how they are kept between attempts, and figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_automl.dense.base import find_task
from oteo_core.datasets import DatasetReader, Sample
from oteo_core.evaluation.bootstrap import RESAMPLES, Floats
from oteo_core.evaluation.classification import evaluate
from oteo_core.evaluation.conformal import check_conformal
from oteo_core.evaluation.detection import ObjectScorer, match_boxes
from oteo_core.evaluation.instances import InstanceScorer
from oteo_core.evaluation.label_calibration import check_label_sets
from oteo_core.evaluation.multilabel import MultilabelScorer
from oteo_core.evaluation.operating import rates_at
from oteo_core.evaluation.resampled import Scorer, affordable, measure
from oteo_core.evaluation.semantic import SemanticScorer
from oteo_core.packages import MetricValue, ModelPackage
from oteo_core.packages.answers import ClassMap, Detections, Instances
from oteo_core.truths.reading import true_boxes, true_class, true_instances, true_labels, true_map

Arrays = dict[str, NDArray[Any]]


class Figures(ABC):
    """Truths and answers of all images, looked at once; figures of any of them."""

    @abstractmethod
    def measure(self, rows: Sequence[int], groups: Sequence[str], split: str, seed: int) -> list[MetricValue]:
        """Give the figures of these images with intervals by their groups (one for each row)."""


class Judge(ABC):
    """One task's part of judging a package."""

    def __init__(self, package: ModelPackage) -> None:
        self.package = package
        self.classes = tuple(package.classes)

    @abstractmethod
    def answers(self, outputs: Mapping[str, NDArray[Any]], sizes: Sequence[tuple[int, int]]) -> list[Any]:
        """Turn a batch of the graph's outputs into answers; sizes are widths and heights of the originals."""

    @abstractmethod
    def pack(self, answers: Sequence[Any]) -> Arrays:
        """Give answers as arrays, to be kept."""

    @abstractmethod
    def unpack(self, arrays: Mapping[str, NDArray[Any]]) -> list[Any]:
        """Read what `pack` gave."""

    @abstractmethod
    def truth(self, reader: DatasetReader, sample: Sample) -> Any:
        """Read what is true of a sample, in the model's class numbers; may read a mask."""

    @abstractmethod
    def figures(self, truths: Sequence[Any], answers: Sequence[Any], samples: Sequence[Sample]) -> Figures:
        """Look at all images once."""


class _Scored(Figures):
    def __init__(self, scorer: Scorer, classes: Sequence[str]) -> None:
        self._scorer, self._classes = scorer, classes

    def measure(self, rows: Sequence[int], groups: Sequence[str], split: str, seed: int) -> list[MetricValue]:
        part = self._scorer.subset(rows)
        resamples = affordable(RESAMPLES, part.work)
        return measure(part.score, part.columns, len(rows), self._classes, groups=groups, split=split, seed=seed, resamples=resamples)


class _Classified(Figures):
    def __init__(self, package: ModelPackage, labels: NDArray[np.int64], probabilities: Floats) -> None:
        self._package, self._labels, self._probabilities = package, labels, probabilities

    def measure(self, rows: Sequence[int], groups: Sequence[str], split: str, seed: int) -> list[MetricValue]:
        labels, probabilities = self._labels[list(rows)], self._probabilities[list(rows)]
        classes = self._package.classes
        metrics = evaluate(labels, probabilities, classes, groups=groups, split=split, seed=seed)
        conformal = self._package.conformal
        if conformal is not None:
            check = check_conformal(labels, probabilities, conformal, groups=groups, seed=seed)
            interval = check.interval
            metrics.append(
                MetricValue(
                    "conformal_coverage",
                    check.coverage,
                    interval.lower if interval else None,
                    interval.upper if interval else None,
                    interval.level if interval else 0.0,
                    split,
                    sample_count=len(labels),
                )
            )
            metrics.append(MetricValue("conformal_set_size", check.mean_size, split=split, sample_count=len(labels)))
        for point in self._package.operating_points:
            rates = rates_at(labels, probabilities, classes.index(point.class_name), point.threshold)
            for name, value in zip(("sensitivity", "specificity"), rates, strict=True):
                if np.isfinite(value):
                    title = f"{name}_at_{point.criterion}"
                    metrics.append(MetricValue(title, value, split=split, class_name=point.class_name, sample_count=len(labels)))
        return metrics


class _Labelled(_Scored):
    def __init__(self, package: ModelPackage, truths: NDArray[np.bool_], probabilities: Floats) -> None:
        super().__init__(MultilabelScorer(truths, probabilities, label_thresholds(package)), package.classes)
        self._sets = package.decoding.get("set_threshold")
        self._truths, self._probabilities = truths.astype(np.int64), probabilities

    def measure(self, rows: Sequence[int], groups: Sequence[str], split: str, seed: int) -> list[MetricValue]:
        metrics = super().measure(rows, groups, split, seed)
        if self._sets is not None:
            check = check_label_sets(self._truths[list(rows)], self._probabilities[list(rows)], np.asarray(self._sets, dtype=np.float64))
            if np.isfinite(check.coverage):
                metrics.append(MetricValue("label_set_coverage", check.coverage, split=split, sample_count=len(rows)))
            metrics.append(MetricValue("label_set_size", check.mean_size, split=split, sample_count=len(rows)))
        return metrics


class ClassificationJudge(Judge):
    """One class for an image."""

    def answers(self, outputs: Mapping[str, NDArray[Any]], sizes: Sequence[tuple[int, int]]) -> list[Any]:
        """Give probabilities ``(K,)`` each."""
        return list(outputs["probabilities"].astype(np.float64))

    def pack(self, answers: Sequence[Any]) -> Arrays:
        """Stack them."""
        return {"probabilities": np.stack(answers) if answers else np.zeros((0, len(self.classes)))}

    def unpack(self, arrays: Mapping[str, NDArray[Any]]) -> list[Any]:
        """Give the rows."""
        return list(arrays["probabilities"])

    def truth(self, reader: DatasetReader, sample: Sample) -> Any:
        """Give the class number."""
        return true_class(sample, self.classes)

    def figures(self, truths: Sequence[Any], answers: Sequence[Any], samples: Sequence[Sample]) -> Figures:
        """Keep both."""
        return _Classified(self.package, np.array(truths, dtype=np.int64), np.stack(answers))


class MultilabelJudge(ClassificationJudge):
    """Any number of classes for an image."""

    def truth(self, reader: DatasetReader, sample: Sample) -> Any:
        """Give ``(K,)`` bool."""
        return true_labels(sample, self.classes)

    def figures(self, truths: Sequence[Any], answers: Sequence[Any], samples: Sequence[Sample]) -> Figures:
        """Judge at the package's thresholds."""
        return _Labelled(self.package, np.stack(truths), np.stack(answers))


def label_thresholds(package: ModelPackage) -> list[float]:
    """Give the probability from which each class of a multi-label package counts as present; 0.5 where the package does not say."""
    given = np.asarray(package.decoding.get("score_threshold", 0.5), dtype=np.float64)
    values: list[float] = np.broadcast_to(given, (len(package.classes),)).tolist()
    return values


class DenseJudge(Judge):
    """What the dense tasks share: decoding by the task's own code."""

    def answers(self, outputs: Mapping[str, NDArray[Any]], sizes: Sequence[tuple[int, int]]) -> list[Any]:
        """Decode in original pixels."""
        return find_task(self.package.task).answers(outputs, sizes, self.package.input, self.package.decoding)


class DetectionJudge(DenseJudge):
    """Boxes."""

    def pack(self, answers: Sequence[Detections]) -> Arrays:
        """Put all objects in one table, with the number of each image."""
        return {
            "counts": np.array([len(one.scores) for one in answers], dtype=np.int64),
            "boxes": np.concatenate([np.zeros((0, 4), np.float32), *(one.boxes for one in answers)]),
            "scores": np.concatenate([np.zeros(0, np.float32), *(one.scores for one in answers)]),
            "labels": np.concatenate([np.zeros(0, np.int64), *(one.labels for one in answers)]),
        }

    def unpack(self, arrays: Mapping[str, NDArray[Any]]) -> list[Any]:
        """Cut the table."""
        cuts = np.cumsum(arrays["counts"])[:-1]
        columns = (np.split(arrays[name], cuts) for name in ("boxes", "scores", "labels"))
        return [Detections(*parts) for parts in zip(*columns, strict=True)] if len(arrays["counts"]) else []

    def truth(self, reader: DatasetReader, sample: Sample) -> Any:
        """Give the boxes; see `true_boxes`."""
        return true_boxes(reader, sample, self.classes)

    def figures(self, truths: Sequence[Any], answers: Sequence[Any], samples: Sequence[Sample]) -> Figures:
        """Match once; F1 is at the package's threshold."""
        threshold = self.package.decoding.get("score_threshold")
        return _Scored(ObjectScorer(match_boxes(truths, answers, len(self.classes)), threshold), self.classes)


class SemanticJudge(DenseJudge):
    """A class for each pixel."""

    def pack(self, answers: Sequence[ClassMap]) -> Arrays:
        """Keep each map, by its place."""
        return {f"{place:06d}": one.labels for place, one in enumerate(answers)}

    def unpack(self, arrays: Mapping[str, NDArray[Any]]) -> list[Any]:
        """Read the maps."""
        return [ClassMap(arrays[name]) for name in sorted(arrays)]

    def truth(self, reader: DatasetReader, sample: Sample) -> Any:
        """Draw the classes."""
        return true_map(reader, sample, self.classes)

    def figures(self, truths: Sequence[Any], answers: Sequence[Any], samples: Sequence[Sample]) -> Figures:
        """Look at each map once, with its pixels' size where the dataset knows it."""
        spacings = [pixel_size(sample) for sample in samples]
        return _Scored(SemanticScorer(truths, answers, len(self.classes), spacings=spacings), self.classes)


class InstanceJudge(DenseJudge):
    """A mask for each object."""

    def pack(self, answers: Sequence[Instances]) -> Arrays:
        """Keep each map and its objects, by its place."""
        packed: Arrays = {}
        for place, one in enumerate(answers):
            packed |= {f"{place:06d}.ids": one.ids, f"{place:06d}.labels": one.labels, f"{place:06d}.scores": one.scores}
        return packed

    def unpack(self, arrays: Mapping[str, NDArray[Any]]) -> list[Any]:
        """Read them."""
        places = sorted({name.partition(".")[0] for name in arrays})
        return [Instances(arrays[f"{place}.ids"], arrays[f"{place}.labels"], arrays[f"{place}.scores"]) for place in places]

    def truth(self, reader: DatasetReader, sample: Sample) -> Any:
        """Draw the objects."""
        return true_instances(reader, sample, self.classes)

    def figures(self, truths: Sequence[Any], answers: Sequence[Any], samples: Sequence[Sample]) -> Figures:
        """Look at each map once."""
        return _Scored(InstanceScorer(truths, answers, len(self.classes)), self.classes)


def pixel_size(sample: Sample) -> tuple[float, float] | None:
    """Give height and width of a sample's pixels in mm, where known."""
    spacing = sample.spacing
    if len(spacing) < 2 or min(spacing[:2]) <= 0:
        return None
    return float(spacing[1]), float(spacing[0])


_JUDGES: dict[str, type[Judge]] = {
    "classification": ClassificationJudge,
    "multi_label_classification": MultilabelJudge,
    "detection": DetectionJudge,
    "semantic_segmentation": SemanticJudge,
    "instance_segmentation": InstanceJudge,
}


def find_judge(package: ModelPackage) -> Judge:
    """Give the judge of a package's task.

    Raises
    ------
    KeyError
        There is none for it.
    """
    return _JUDGES[package.task](package)
