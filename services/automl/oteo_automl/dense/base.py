"""The contract of a dense task.

How data flows: `DenseTask.read` turns the dataset's rows into `DenseData` (ids, parts, groups and truths in original pixels). The search
prepares the images once under one input policy, as for classification, and `build_targets` writes beside them what networks learn, in
the geometry of the prepared images. A worker opens both and trains a candidate's network by its lesson. The winner's network becomes the
module that is exported (`serve`: preprocessing arithmetic and decoding inside, outputs of fixed shapes); its outputs become answers in
original pixels (`answers`), the same code for held-out images, evaluation and, through `oteo_core.packages`, the gateway.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.candidates.lesson import Lesson
from oteo_automl.candidates.modules import SavedModule
from oteo_automl.candidates.training import Recipe
from oteo_core.datasets import DatasetReader, Sample
from oteo_core.images import InputPolicy
from oteo_core.packages import MetricValue

Facts = dict[str, Any]
"""What a dataset's objects are like, found once from the targets of the training rows: JSON values. Networks, lessons and policies are made
from them (object sizes, objects an image, share of each class). Reports show them."""


@dataclass(frozen=True, slots=True)
class DenseCandidate:
    """A network that can be tried for a dense task.

    Parameters
    ----------
    name
        As users and reports call it: ``"centre-resnet18"``, ``"unet-resnet18"``, ``"watershed-resnet18"``.
    architecture
        timm's name of its encoder, or the torchvision/transformers model where it is one; its pretrained weights are looked for by this name.
    head
        What is on top: ``"centre"``, ``"fcos"``, ``"faster-rcnn"``, ``"detr"``, ``"unet"``, ``"watershed"``, ``"mask"``.
    scratch
        True where it learns well without pretrained weights, on few images.
    large
        True where it wants a GPU.
    half
        True where bfloat16 is faster on a processor that has it.
    rate
        Learning rate from scratch, AdamW, at `batch`.
    batch
        Images in a batch, on a processor.
    cost
        Time of a training step relative to ``unet-resnet18`` at the same size: a guess until it is measured.
    hub
        Repository on the Hugging Face hub where the weights of an architecture that is not timm's are published; empty for timm's.
    """

    name: str
    architecture: str
    head: str
    scratch: bool = True
    large: bool = False
    half: bool = False
    rate: float = 1e-3
    batch: int = 8
    cost: float = 1.0
    hub: str = ""


@dataclass(slots=True)
class DenseData:
    """The samples of a dataset that a dense task can use; index ``i`` everywhere is the same sample.

    Parameters
    ----------
    samples
        Ids, in the dataset's order.
    rows
        The dataset's own rows of them, with media paths; the media are read through the reader.
    classes
        Names, in the order of the class numbers: those that have training objects or pixels.
    parts
        ``(N,)`` of ``"train"``, ``"validation"`` and ``"test"``.
    groups
        Group of each; the sample's own id where it has none.
    sizes
        ``(N, 2)`` width and height of the originals, pixels.
    truths
        What is true of each sample, in original pixels: a function of ``i``, that gives `TrueBoxes`, `ClassMap` or `Instances`; reads the mask
        file where there is one.
    channels, deep, bit_depth
        As in `oteo_automl.search.data.TrainingData`.
    left_out
        Samples that could not be used, by reason.
    """

    samples: list[str]
    rows: list[Sample]
    classes: tuple[str, ...]
    parts: NDArray[np.str_]
    groups: list[str]
    sizes: NDArray[np.int64]
    truths: Callable[[int], Any]
    channels: frozenset[int] = frozenset({3})
    deep: bool = False
    bit_depth: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: list[Sample], classes: tuple[str, ...], truths: Callable[[int], Any], left_out: dict[str, int]) -> DenseData:
        """Gather what rows of a dataset say of themselves."""
        return cls(
            samples=[sample.id for sample in rows],
            rows=rows,
            classes=classes,
            parts=np.array([sample.split for sample in rows], dtype=np.str_),
            groups=[sample.group or sample.id for sample in rows],
            sizes=np.array([[sample.width, sample.height] for sample in rows], dtype=np.int64).reshape(-1, 2),
            truths=truths,
            channels=frozenset(sample.channels for sample in rows) or frozenset({3}),
            deep=any(sample.dtype not in ("uint8", "") for sample in rows),
            bit_depth=max((sample.bit_depth or 16 for sample in rows if sample.dtype == "uint16"), default=0),
            left_out=left_out,
        )

    def part(self, *names: str) -> NDArray[np.int64]:
        """Give the indices of these parts, ascending."""
        return np.flatnonzero(np.isin(self.parts, names)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Served:
    """What is exported.

    Parameters
    ----------
    module
        From prepared images ``(N, H, W, C)`` to a tuple of tensors, in evaluation mode, float32, on the processor; exported by ``torch.onnx``
        with a dynamic N and everything else fixed.
    outputs
        Names of the outputs, in that order, with their shapes without the batch and Triton's data types: ``("scores", (100,), "FP32")``.
    decoding
        `ModelPackage.decoding`: thresholds and post-processing, found on held-out images.
    calibration
        How scores were calibrated, in figures: ``method``, ``count``, ``ece_before``, ``ece_after``.
    tolerance
        Largest difference between PyTorch's and Triton's outputs that counts as the same, by output.
    ranked_by
        Output ``(M,)`` of falling scores by which the rows of all other outputs ``(M, ...)`` are ordered; empty where there is no such order.
    """

    module: torch.nn.Module
    outputs: tuple[tuple[str, tuple[int, ...], str], ...]
    decoding: dict[str, Any]
    calibration: dict[str, Any] = field(default_factory=dict)
    tolerance: Mapping[str, float] = field(default_factory=dict)
    ranked_by: str = ""


class Mixing(ABC):
    """Trained networks of a task on some images: any mixture of them, as a network and as answers.

    Attributes
    ----------
    truths
        Of the images, in the prepared geometry.
    """

    truths: list[Any]

    @abstractmethod
    def module(self, parts: Sequence[int], weights: Sequence[float]) -> SavedModule:
        """Give the mixture of some of the networks, by their places; weights sum to one. It takes the place of a network everywhere but in training."""

    @abstractmethod
    def answers(self, parts: Sequence[int], weights: Sequence[float]) -> list[Any]:
        """Give its answers for the images, in the prepared geometry, read as a lesson reads them."""


class DenseTask(ABC):
    """One dense task. Instances hold no state: they are made wherever one is needed, also in workers.

    An implementation must be such that

    - a sample without objects is an ordinary sample (all background), in training, judging and export;
    - nothing depends on the order of samples or on worker processes, and equal seeds give equal networks on one device;
    - images of one channel and of more than three work;
    - a class without training objects is left out of `DenseData.classes` and named in `left_out`, as is a sample with annotations of another
      kind only; a dataset without any usable object is refused with ``SINGLE_CLASS`` or ``NO_OBJECTS`` (`InvalidArgument`), with a sentence.
    """

    name: ClassVar[str]
    """A value of `oteo_core.datasets.Task`."""

    objectives: ClassVar[tuple[str, ...]]
    """What can be chosen by, larger is better; the first is the usual one."""

    shown: ClassVar[str]
    """The figure for people: of learning curves (`Judgement.score`) and of simulated shifts; a name of `scores`."""

    candidates: ClassVar[tuple[DenseCandidate, ...]]
    """What can be tried, the most promising first; the first is quick, learns from scratch and is the baseline."""

    @abstractmethod
    def read(self, reader: DatasetReader) -> DenseData:
        """Read the dataset's rows and annotations, no pixels.

        Raises
        ------
        InvalidArgument
            ``WRONG_TASK``, ``NO_OBJECTS``.
        """

    @abstractmethod
    def build_targets(self, data: DenseData, policy: InputPolicy, folder: Path, check: Callable[[], None]) -> None:
        """Write what networks learn, for all samples, in the geometry of `policy` (`stretch` or `letterbox`), into an empty local folder; `check` is called between samples and may raise.

        A mask that cannot be read is left out as a corrupt image is: `unreadable.json` in the folder lists ``[index, why]``.
        """

    @abstractmethod
    def open_targets(self, folder: Path) -> Any:
        """Open what `build_targets` wrote, mapped into memory where it is large."""

    @abstractmethod
    def facts(self, targets: Any, rows: NDArray[np.int64], policy: InputPolicy, classes: int) -> Facts:
        """Look at the targets of these (training) rows; see `Facts`."""

    @abstractmethod
    def policy(self, data: DenseData, *, gpu: bool, budget: float, channels: int, largest: int = 0) -> InputPolicy:
        """Choose how images become inputs: sides are multiples of 32; nnU-Net's rule is that the median image fits, reduced until the time allows a dozen epochs.

        `largest` (pixels), where not 0, is the limit of the longer side.
        """

    @abstractmethod
    def network(
        self, candidate: DenseCandidate, classes: int, channels: int, mean: Sequence[float], spread: Sequence[float], facts: Facts
    ) -> SavedModule:
        """Make an untrained network (weights drawn from torch's global generator, which the caller seeds).

        It has ``forward(image NHWC)`` and ``from_planes(planes NCHW of 0 to 1)``, both giving raw heads as its lesson and `serve`
        know them; and ``encoder``, the module that pretrained weights of `candidate.architecture` are loaded into.
        """

    @abstractmethod
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
        """Make the lesson of a candidate; rows are indices of `images` and `targets`.

        Figures in `Judgement.scores` are computed in the prepared geometry and hold every name of `objectives`.
        """

    @abstractmethod
    def mixes(self, candidate: DenseCandidate) -> str:
        """Say by a name which candidates' networks can be mixed with each other; empty where a candidate's can be mixed with none."""

    @abstractmethod
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
        """Run trained networks, which `mixes` says can be mixed, on held-out images; also gives the rows that were taken, few enough for the memory.

        `check` is called between batches and may raise.
        """

    @abstractmethod
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
        """Make what is exported of a trained network; thresholds, post-processing and calibration are found on the held-out rows."""

    @abstractmethod
    def answers(
        self, outputs: Mapping[str, NDArray[Any]], sizes: Sequence[tuple[int, int]], policy: InputPolicy, decoding: Mapping[str, Any]
    ) -> list[Any]:
        """Turn a batch of served outputs into answers in original pixels; `sizes` are widths and heights of the originals.

        Calls `oteo_core.packages.decoding`, which the gateway calls too.
        """

    @abstractmethod
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
        """Judge answers in original pixels, with bootstrap confidence intervals by group; calls `oteo_core.evaluation`.

        `decoding` is the package's: where it has thresholds, figures that need one are taken at those; without it, at the best on these images.
        """

    @abstractmethod
    def scores(self, truths: Sequence[Any], answers: Sequence[Any], classes: int) -> dict[str, float]:
        """Give the figures of answers by name, quickly, without intervals; those of `objectives` among them."""

    def find(self, name: str) -> DenseCandidate:
        """Give a candidate by name.

        Raises
        ------
        KeyError
            There is none of that name.
        """
        for candidate in self.candidates:
            if candidate.name == name:
                return candidate
        raise KeyError(name)

    def recipe(self, candidate: DenseCandidate, *, train_count: int, pretrained: bool, gpu: bool) -> Recipe:
        """Give the recipe that is tried first."""
        batch = min(candidate.batch * (4 if gpu else 1), max(1, train_count))
        return Recipe(rate=candidate.rate * (0.3 if pretrained else 1.0), batch=batch, decay=0.02, smoothing=0.0)


_TASKS = {
    "detection": "oteo_automl.dense.detection:DetectionTask",
    "semantic_segmentation": "oteo_automl.dense.semantic:SemanticTask",
    "instance_segmentation": "oteo_automl.dense.instances:InstanceTask",
}


def find_task(name: str) -> DenseTask:
    """Give a dense task by its name; modules are imported when first asked for.

    Raises
    ------
    KeyError
        Not a dense task.
    """
    module, _, cls = _TASKS[name].partition(":")
    task: DenseTask = getattr(importlib.import_module(module), cls)()
    return task


def is_dense(task: str) -> bool:
    """Say whether a task's answers have a place in the image."""
    return task in _TASKS
