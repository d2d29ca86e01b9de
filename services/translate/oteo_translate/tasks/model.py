"""The frozen task model: the judge of every translation. It answers by its served graph, so that what is judged is what is served."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import DataLoss, FailedPrecondition, NotFound
from oteo_core.evaluation.scored import score_answers
from oteo_core.graphs.export import session
from oteo_core.graphs.modules import to_planes
from oteo_core.graphs.programs import PROGRAM
from oteo_core.graphs.running import batches
from oteo_core.packages import ModelPackage, model_prefix
from oteo_core.packages.answers import ClassMap, Instances
from oteo_core.packages.decoding.detection import decode_detections
from oteo_core.packages.decoding.instances import decode_instances
from oteo_core.packages.decoding.semantic import decode_class_maps
from oteo_core.packages.second import SECOND, as_second
from oteo_translate.tasks.network import FLOAT_TOLERANCE, FrozenNetwork
from oteo_translate.tasks.scoring import MAIN_METRICS, agreement, as_truth, count_objects, expected_scores, found_share, image_score
from oteo_translate.tasks.views import View, usual_views

Floats = NDArray[np.float64]

_PIXELS_AT_ONCE = 16 * 256 * 256

_log = logging.getLogger(__name__)


class TaskModel:
    """A model package that answers; nothing of it is trained.

    Parameters
    ----------
    package
        The manifest.
    graph
        The served ONNX graph.
    program
        ``network.pt2``; None where the package has none.

    Attributes
    ----------
    package, graph
        As given.
    metric
        The task's main figure, of `oteo_translate.tasks.scoring.MAIN_METRICS`.
    network
        The model as a network; None where there is no program, or where it cannot be entered with floats.

    Raises
    ------
    FailedPrecondition
        ``UNKNOWN_TASK``: key points and the like.
    """

    def __init__(self, package: ModelPackage, graph: bytes, program: bytes | None = None) -> None:
        if package.task not in MAIN_METRICS:
            raise FailedPrecondition(f"{package.name} is for {package.task}, which translate does not judge", reason="UNKNOWN_TASK")
        self.package = package
        self.graph = graph
        self.metric = MAIN_METRICS[package.task]
        # Every adapted model of a ladder has a session of its own.
        self._session = session(graph, arena=False)
        self._names = [output.name for output in self._session.get_outputs()]
        self.network = _usable(package, program)
        width = int(np.prod((package.input.height, package.input.width)))
        self._batch = int(np.clip(_PIXELS_AT_ONCE // max(1, width), 1, 64))

    @property
    def task(self) -> str:
        """A value of `oteo_core.datasets.Task`."""
        return self.package.task

    def adapted(self, graph: bytes, program: bytes | None) -> TaskModel:
        """Give the model with another graph in its place: what model-side adaptation made."""
        return TaskModel(self.package, graph, program)

    def outputs(self, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Run the served graph on prepared images ``(N, H, W, C)``; all outputs ``(N, ...)`` by name."""
        parts = [self._run(part) for part in batches(images, self._batch)] or [self._run(self._blank())]
        found = {name: np.concatenate([part[name] for part in parts]) for name in self._names}
        return found if len(images) else {name: value[:0] for name, value in found.items()}

    def answers(self, images: NDArray[Any]) -> list[Any]:
        """Answer prepared images ``(N, H, W, C)``, in their own geometry: probabilities ``(K,)``, or the task's form in `oteo_core.packages.answers`."""
        return [answer for part in batches(images, self._batch) for answer in self._decode(self._run(part))]

    def judge(self, images: NDArray[Any]) -> tuple[list[Any], Floats]:
        """Give `answers` and `confidence` at the cost of one."""
        answers: list[Any] = []
        sure: list[Floats] = []
        for part in batches(images, self._batch):
            outputs = self._run(part)
            found = self._decode(outputs)
            answers += found
            sure.append(expected_scores(self.task, outputs, found, self.package.decoding))
        return answers, np.concatenate(sure) if sure else np.zeros(0)

    def confidence(self, images: NDArray[Any]) -> Floats:
        """Give the calibrated confidence of each image's answer ``(N,)``, 0 to 1; see `oteo_translate.tasks.scoring.expected_scores`."""
        return self.judge(images)[1]

    def agreements(self, images: NDArray[Any], answers: Sequence[Any], views: Sequence[View] | None = None) -> Floats:
        """Say how alike the answers are to those to other views of the images, ``(N,)`` of 0 to 1.

        Parameters
        ----------
        images
            Prepared, ``(N, H, W, C)``.
        answers
            To them.
        views
            None: the usual ones.
        """
        height, width = images.shape[1:3]
        shown = usual_views(height, width) if views is None else views
        total = np.zeros(len(images))
        for view in shown:
            total += self.alike(answers, [view.back(one, height, width) for one in self.answers(view.image(images))])
        return total / max(1, len(shown))

    def alike(self, answers: Sequence[Any], others: Sequence[Any]) -> Floats:
        """Say how alike answers are to others to the same images, ``(N,)`` of 0 to 1."""
        return np.array([agreement(self.task, one, other, self.package.decoding) for one, other in zip(answers, others, strict=True)])

    def scores(self, truths: Sequence[Any], answers: Sequence[Any]) -> Floats:
        """Give each image's own score ``(N,)``, 0 to 1, NaN without a truth; see `oteo_translate.tasks.scoring.image_score`."""
        pairs = zip(truths, answers, strict=True)
        return np.array([image_score(self.task, truth, answer, self.package.decoding) for truth, answer in pairs], dtype=np.float64)

    def figure(self, truths: Sequence[Any], answers: Sequence[Any]) -> Callable[[Floats], Floats]:
        """Give the main figure as a function of the images' weights, from ``(B, N)`` to ``(B,)``; every image needs a truth."""
        decoding, classes = self.package.decoding, len(self.package.classes)
        return score_answers(self.task, classes, truths, answers, decoding.get("score_threshold")).one(self.metric)

    def total(self, truths: Sequence[Any], answers: Sequence[Any]) -> float:
        """Give the main figure over all images that have a truth; NaN where none has."""
        rows = [row for row, truth in enumerate(truths) if truth is not None]
        if not rows:
            return float("nan")
        score = self.figure([truths[row] for row in rows], [answers[row] for row in rows])
        return float(score(np.ones((1, len(rows))))[0])

    def as_truths(self, answers: Sequence[Any]) -> list[Any]:
        """Take answers for truths, so that others can be compared with them."""
        return [as_truth(self.task, answer, self.package.decoding) for answer in answers]

    def counts(self, answers: Sequence[Any]) -> NDArray[np.int64]:
        """Count the objects of each answer ``(N,)``; zeros for classes of whole images."""
        return np.array([count_objects(self.task, answer, self.package.decoding) for answer in answers], dtype=np.int64)

    def shares(self, answers: Sequence[Any]) -> Floats:
        """Say how much of its image each answer calls something, ``(N,)`` of 0 to 1; zeros for tasks that name no pixels."""
        return np.array([found_share(self.task, answer) for answer in answers], dtype=np.float64)

    @torch.inference_mode()
    def embeddings(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Describe each image by what the model sees in it, ``(N, D)`` float32.

        The mean over places of the coarsest feature map; of a model without a network the outputs, reduced to ``(N, D)`` by means over places.
        """
        depths = self.network.depths() if self.network is not None else ()
        parts = []
        for part in batches(images, self._batch):
            if self.network is not None and depths:
                planes = to_planes(torch.from_numpy(np.ascontiguousarray(part)))
                parts.append(self.network.features(planes, depths[-1:])[0].mean((2, 3)).numpy())
            else:
                parts.append(_pooled(self._run(part)))
        return np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, 1), np.float32)

    def _run(self, part: NDArray[Any]) -> dict[str, NDArray[Any]]:
        found = self._session.run(self._names, {"image": np.ascontiguousarray(part)})
        return dict(zip(self._names, found, strict=True))

    def _blank(self) -> NDArray[Any]:
        policy = self.package.input
        return np.zeros((1, policy.height, policy.width, policy.channels), policy.dtype)

    def _decode(self, outputs: dict[str, NDArray[Any]]) -> list[Any]:
        policy, decoding = self.package.input, self.package.decoding
        first = next(iter(outputs.values()))
        if self.task.endswith("classification"):
            return list(np.asarray(outputs["probabilities"], dtype=np.float64))
        # An image of just the input's size lies in the prepared one as it is.
        sizes = [(policy.width, policy.height)] * len(first)
        if self.task == "detection":
            return list(decode_detections(outputs, sizes, policy, decoding))
        if self.task == "semantic_segmentation":
            maps: list[ClassMap] = decode_class_maps(outputs, sizes, policy, decoding)
            return list(maps)
        objects: list[Instances] = decode_instances(outputs, sizes, policy, decoding)
        return list(objects)


def open_task_model(artifacts: ArtifactStore, package: ModelPackage) -> TaskModel:
    """Open a published model.

    Raises
    ------
    NotFound
        Its files are gone.
    FailedPrecondition
        ``UNKNOWN_TASK``.
    """
    prefix = model_prefix(package.id)
    graph = artifacts.read_bytes(f"{prefix}/{package.triton_path}/1/model.onnx")
    program = None
    if PROGRAM in package.files:
        try:
            program = artifacts.read_bytes(f"{prefix}/{PROGRAM}")
        except NotFound:
            _log.warning("%s names %s, which is gone", package.name, PROGRAM)
    return TaskModel(package, graph, program)


def open_second(artifacts: ArtifactStore, package: ModelPackage) -> TaskModel | None:
    """Open the second network of a published model (`oteo_core.packages.second`); None where it has none that can be read."""
    manifest = as_second(package)
    if manifest is None:
        return None
    try:
        return TaskModel(manifest, artifacts.read_bytes(f"{model_prefix(package.id)}/{SECOND}"))
    except NotFound:
        _log.warning("%s names %s, which is gone", package.name, SECOND)
    return None


def _usable(package: ModelPackage, program: bytes | None) -> FrozenNetwork | None:
    if program is None:
        return None
    try:
        network = FrozenNetwork.from_bytes(program, package.input)
        error = network.error_of_floats()
    except DataLoss as broken:
        _log.warning("%s goes without its network: %s", package.name, broken)
        return None
    if not error <= FLOAT_TOLERANCE:
        _log.warning("%s goes without its network: entered with floats it answers otherwise, by %.3g", package.name, error)
        return None
    return network


def _pooled(outputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Reduce a graph's outputs to ``(N, D)``: logits or probabilities, maps by their means over places; what is ranked (boxes) by its scores."""
    for name in ("logits", "probabilities", "scores"):
        if name in outputs:
            value = np.asarray(outputs[name], dtype=np.float32)
            return value if value.ndim == 2 else value.reshape(*value.shape[:2], -1).mean(axis=2)
    first = np.asarray(next(iter(outputs.values())), dtype=np.float32)
    return first.reshape(len(first), -1)
