"""What publishing takes, whatever the task: steps that are timed, the graph's proof on Triton, files moved into their place, the manifest last.

Everything here can be killed and run again: files go to the operation's staging folder first.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetInfo
from oteo_core.errors import NotFound
from oteo_core.graphs.config import LABELS, config_pbtxt, labels_txt
from oteo_core.graphs.export import Exported, export_onnx
from oteo_core.graphs.outputs import Output
from oteo_core.graphs.parity import BATCH, Parity, ParityClient, check_parity, parity_name
from oteo_core.images import InputPolicy
from oteo_core.packages import (
    MANIFEST,
    MetricValue,
    ModelPackage,
    PackageFile,
    ReferenceStatistics,
    TrialRecord,
    image_statistics,
    model_prefix,
    read_model,
    statistic_names,
)
from oteo_core.packages.reference_sample import ReferenceSample
from oteo_core.packages.versions import versions

RESERVE_SECONDS = 20.0
"""What a search on two processor cores should leave for `finish` with a few hundred test images: 2 to 6 s for Triton, 1 s for the export,
2 s for the rest, and as much again for a loaded machine."""

REFERENCE_IMAGES = 2000
"""So many training images are measured for the reference statistics."""

_FOLDER = "package"
_REPORT_SECONDS = 5.0
_SPARE_SECONDS = 30.0
_LIBRARIES = (
    "oteo-automl",
    "oteo-core",
    "torch",
    "torchvision",
    "timm",
    "segmentation-models-pytorch",
    "transformers",
    "scikit-learn",
    "scikit-image",
    "optuna",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "numpy",
    "scipy",
    "opencv-python-headless",
    "mlflow",
    "ray",
)

_log = logging.getLogger(__name__)


class FinishContext(Protocol):
    """What is used of `oteo_core.jobs.JobContext`."""

    operation_id: str
    artifacts: ArtifactStore

    @property
    def staging(self) -> str:
        """Artifact prefix for files to be published."""

    def check(self) -> None:
        """Raise if the job is to stop."""

    def publish(self, target: str, manifest: str, *, subdir: str = "") -> None:
        """Make the staged files visible, the manifest last."""


class Steps:
    """Times the steps and tells the caller of each."""

    def __init__(self, check: Callable[[], None], report: Callable[[str, float], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._check = check
        self._report = report

    @contextmanager
    def __call__(self, name: str, fraction: float) -> Iterator[None]:
        """Do a step: its name and the share of all that is done before it."""
        self._check()
        self._report(name, fraction)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start


class Asked(Protocol):
    """What every task's winner says of the model to be made."""

    model_id: str
    display_name: str
    seed: int
    budget: float
    start_time: float
    run_id: str
    labels: Mapping[str, str]

    @property
    def dataset(self) -> DatasetInfo:
        """The dataset's manifest."""


def start_package(
    ctx: FinishContext,
    asked: Asked,
    *,
    task: str,
    classes: Sequence[str],
    candidate: str,
    policy: InputPolicy,
    trials: Sequence[TrialRecord],
    metrics: Sequence[MetricValue],
    calibration: Mapping[str, Any],
    details: Mapping[str, Any],
) -> ModelPackage:
    """Begin a manifest with what is known of every task's model; see `ModelPackage`."""
    return ModelPackage(
        id=asked.model_id,
        display_name=asked.display_name or asked.model_id,
        uid=hashlib.sha256(f"{ctx.operation_id}\0{asked.model_id}".encode()).hexdigest()[:32],
        task=task,
        classes=list(classes),
        dataset=f"datasets/{asked.dataset.id}",
        dataset_name=asked.dataset.display_name,
        dataset_digest=asked.dataset.digest,
        candidate=candidate,
        input=policy,
        create_time=datetime.now(UTC),
        calibration=dict(calibration),
        metrics=list(metrics),
        trials=list(trials),
        versions=versions(_LIBRARIES),
        operation=f"operations/{ctx.operation_id}",
        budget=asked.budget,
        seed=asked.seed,
        run_id=asked.run_id,
        labels=dict(asked.labels),
        details=dict(details),
    )


def write_graph(
    package: ModelPackage, served: torch.nn.Module, outputs: Sequence[Output], images: NDArray[Any], **batching: Any
) -> tuple[Exported, str, dict[str, bytes]]:
    """Export a served network, and give the package its digest.

    Parameters
    ----------
    package
        Complete in what decides an answer.
    served, outputs
        What is exported, and what it gives.
    images
        Prepared images to compare on.
    batching
        Of Triton; see `config_pbtxt`.

    Returns
    -------
    exported, config, files
        The graph, Triton's configuration, and the files by path below the model's folder.

    Raises
    ------
    Internal
        ``EXPORT_FAILED``.
    """
    words = {"oteo.model": package.name, "oteo.operation": package.operation, "oteo.classes": json.dumps(package.classes)}
    exported = export_onnx(served, package.input, outputs, images, metadata=words)
    package.digest = package.serving_digest(hashlib.sha256(exported.data).hexdigest())
    config = config_pbtxt(package.triton_model, package.input, outputs, parameters=serving_parameters(package), **batching)
    return exported, config, {"1/model.onnx": exported.data, LABELS: labels_txt(package.classes).encode()}


def serving_parameters(package: ModelPackage) -> dict[str, str]:
    """Give the parameters of a package's Triton configuration: words for the gateway."""
    return {"oteo_digest": package.digest, "oteo_model": package.name}


def already_published(ctx: FinishContext, model_id: str) -> ModelPackage | None:
    """Give the package that an earlier attempt of this operation published, or None."""
    try:
        package = read_model(ctx.artifacts, model_id)
    except NotFound:
        return None
    return package if package.operation == f"operations/{ctx.operation_id}" else None


def prove(
    ctx: FinishContext,
    client: ParityClient,
    config: str,
    files: Mapping[str, bytes],
    images: NDArray[Any],
    outputs: Sequence[Output],
    expected: Sequence[NDArray[Any]],
    *,
    deadline: float,
    sleep: Callable[[float], None] = time.sleep,
    batch: int = BATCH,
) -> Parity:
    """Have a real Triton answer and compare with PyTorch; see `oteo_core.graphs.parity.check_parity`.

    `deadline` is for everything that is still to come, seconds since 1970; a few seconds are kept of it for the report.
    """

    def wait(seconds: float) -> None:
        ctx.check()
        sleep(seconds)

    name = parity_name(ctx.operation_id.removeprefix("operations/"))
    return check_parity(
        client,
        name,
        config,
        files,
        images,
        outputs,
        expected,
        remaining=lambda: deadline - time.time() - _REPORT_SECONDS,
        sleep=wait,
        batch=batch,
    )


def publish(
    ctx: FinishContext,
    package: ModelPackage,
    contents: Mapping[str, bytes],
    seconds: Mapping[str, float],
    exported: Exported,
    parity: Parity,
    start_time: float,
) -> ModelPackage:
    """Write the files and then the manifest, and make them visible together.

    Parameters
    ----------
    ctx
        The job.
    package
        The manifest; what is known only now is filled in.
    contents
        Files by path inside the package.
    seconds
        What each step took.
    exported, parity
        Of the graph.
    start_time
        When the work began, seconds since 1970; 0: not known.

    Returns
    -------
    ModelPackage
        With its URI.
    """
    folder = f"{ctx.staging}/{_FOLDER}"
    ctx.artifacts.delete(folder)
    for name, content in contents.items():
        ctx.artifacts.write_bytes(f"{folder}/{name}", content)
        package.files[name] = PackageFile(hashlib.sha256(content).hexdigest(), len(content))
    package.training_time = used(start_time)
    package.create_time = datetime.now(UTC)
    package.details["finish_seconds"] = {name: round(value, 3) for name, value in seconds.items()}
    package.details["exporter"] = exported.exporter
    package.details["graph_error"] = exported.error
    package.details["parity_images"] = parity.count
    ctx.artifacts.write_bytes(f"{folder}/{MANIFEST}", package.to_json())
    ctx.publish(model_prefix(package.id), MANIFEST, subdir=_FOLDER)
    _log.info("published %s: %s", package.name, ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items()))
    return dataclasses.replace(package, package_uri=ctx.artifacts.uri(model_prefix(package.id)))


def used(start_time: float) -> float:
    """Give the seconds since the work began; 0 where that is not known."""
    return max(0.0, time.time() - start_time) if start_time else 0.0


def exporter_words(exported: Exported) -> str:
    """Say which exporter wrote the graph, and why not the first."""
    names = {"dynamo": "written by torch.onnx (dynamo)", "torchscript": "written by torch.onnx (TorchScript)"}
    return names[exported.exporter] + (f", because the other failed ({exported.fallback_reason})" if exported.fallback_reason else "")


def reference_of(
    images: Iterable[NDArray[Any]],
    channels: int,
    *,
    groups: Sequence[str] = (),
    truths: NDArray[np.bool_] | None = None,
    answers: NDArray[np.bool_] | None = None,
    answer_groups: Sequence[str] = (),
) -> tuple[ReferenceStatistics | None, bytes]:
    """Measure training images, so that unusual ones, and a shift of the stream, can be told later.

    Parameters
    ----------
    images
        Prepared training images ``(H, W, C)``, without augmentation; at most `REFERENCE_IMAGES` are looked at.
    channels
        C.
    groups, truths
        Of the same images: patient or slide; classes ``(N, K)``, None where they are not known.
    answers, answer_groups
        Classes that the model finds on held-out images, ``(M, K)``, and their groups.

    Returns
    -------
    reference, file
        The statistics, None where there is no image; and every image's own, as `oteo_core.packages.reference_sample.ReferenceSample` writes them.
    """
    rows = [image_statistics(image) for image in itertools.islice(images, REFERENCE_IMAGES)]
    names = statistic_names(channels)
    statistics = np.stack(rows) if rows else np.empty((0, len(names)))
    reference = ReferenceStatistics.fit(statistics, names) if rows else None
    count = len(rows)
    known = None if truths is None else truths[:count]
    sample = ReferenceSample.of(names if reference else (), statistics, list(groups)[:count], known, answers, answer_groups)
    return reference, sample.to_npz()


def spare_seconds(deadline: float) -> float:
    """Give the seconds that what may be left out of a report can take, before the deadline of everything (seconds since 1970)."""
    return max(0.0, min(_SPARE_SECONDS, 0.5 * (deadline - time.time() - 2 * _REPORT_SECONDS)))
