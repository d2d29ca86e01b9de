"""``package.json``: everything about a published model that is not a large file.

The manifest is read by people too, so it is JSON with plain names, indented, and holds no number that is not finite: a figure that
does not exist (an AUROC where a class is missing) is left out rather than written as NaN.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from oteo_core.errors import DataLoss
from oteo_core.images import InputPolicy
from oteo_core.packages.reference import ReferenceStatistics

if TYPE_CHECKING:
    from oteo_protos.automl.v1 import automl_pb2

FORMAT = 1
"""Version of the manifest's form; a reader refuses a newer one."""

TRIAL_STATES = ("running", "finished", "pruned", "failed", "stopped")
"""How a trial can end; the lower-case names of ``Trial.State`` in the contract."""


@dataclass(frozen=True, slots=True)
class MetricValue:
    """One measured figure with its uncertainty.

    Parameters
    ----------
    name
        Name as in the literature: ``"accuracy"``, ``"auroc"``, ``"ece"``.
    value
        The figure; finite.
    lower, upper
        Ends of the confidence interval; None where none was computed.
    confidence_level
        Level of the interval, 0 to 1; 0 without interval.
    split
        Part of the data: ``"train"``, ``"validation"`` or ``"test"``.
    class_name
        Class that it speaks of; empty for the whole.
    sample_count
        Number of samples behind it.
    """

    name: str
    value: float
    lower: float | None = None
    upper: float | None = None
    confidence_level: float = 0.0
    split: str = "test"
    class_name: str = ""
    sample_count: int = 0

    def __post_init__(self) -> None:
        """Refuse a figure that is not a number."""
        if not math.isfinite(self.value):
            raise ValueError(f"metric {self.name!r} is {self.value}; leave out what is not defined")


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold on one class's probability and what it gives on the validation part.

    ``criterion`` says what was asked for: ``"sensitivity>=0.95"``, ``"specificity>=0.9"`` or ``"youden"``.
    """

    class_name: str
    threshold: float
    sensitivity: float
    specificity: float
    criterion: str


@dataclass(frozen=True, slots=True)
class Conformal:
    """Split conformal prediction: the set of a case holds every class whose probability is at least ``1 - quantile``.

    Parameters
    ----------
    quantile
        Finite-sample quantile of ``1 - probability of the true class`` on the calibration part, 0 to 1. 1 puts every class in
        the set, which is what a calibration part too small for the coverage gives.
    coverage
        Share of cases whose true class the set holds, in expectation, 0 to 1.
    calibration_count
        Number of calibration cases.
    """

    quantile: float
    coverage: float
    calibration_count: int

    def prediction_set(self, probabilities: Mapping[str, float]) -> list[str]:
        """Give the classes in the set of one case, most probable first; the most probable class is always in it."""
        ranked = sorted(probabilities.items(), key=lambda item: -item[1])
        return [name for rank, (name, value) in enumerate(ranked) if rank == 0 or value >= 1.0 - self.quantile]


@dataclass(slots=True)
class TrialRecord:
    """One thing that was tried during a training.

    Parameters
    ----------
    id
        Last part of its name, ``models/{model}/trials/{id}``.
    candidate
        Name of the candidate.
    parameters
        Its settings; JSON values.
    state
        One of `TRIAL_STATES`.
    metrics
        On the validation part.
    objective
        Value of the objective; None where the trial never had one.
    duration
        Seconds.
    run_id
        The run in MLflow; empty if not tracked.
    message
        Why it failed or was stopped.
    latency
        Seconds for one image at inference on the machine that trained; 0 where it was not measured.
    on_front
        True where no other trial was both better and quicker at inference.
    """

    id: str
    candidate: str
    parameters: dict[str, Any] = field(default_factory=dict)
    state: str = "finished"
    metrics: list[MetricValue] = field(default_factory=list)
    objective: float | None = None
    duration: float = 0.0
    run_id: str = ""
    message: str = ""
    latency: float = 0.0
    on_front: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Give JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrialRecord:
        """Read what `to_dict` gave."""
        values = dict(data)
        values["metrics"] = [MetricValue(**metric) for metric in values.get("metrics", [])]
        return cls(**values)

    def to_proto(self, model_id: str) -> automl_pb2.Trial:
        """Give the contract's ``Trial`` below ``models/{model_id}``."""
        from oteo_core.packages.proto import trial_to_proto

        return trial_to_proto(self, model_id)


@dataclass(frozen=True, slots=True)
class PackageFile:
    """A file of the package: SHA-256 as lower-case hexadecimal and size in bytes."""

    sha256: str
    size: int


@dataclass(slots=True)
class ModelPackage:
    """The manifest of a model package, ``models/{id}/package.json``.

    Parameters
    ----------
    id
        Last part of ``models/{id}``; also the model's name on Triton.
    display_name
        For people.
    uid
        A number that no other model has.
    task
        Lower-case name of the contract's task: ``"classification"``.
    classes
        In the order of the model's outputs.
    dataset, dataset_name, dataset_digest
        ``"datasets/{id}"``, its display name and its digest.
    candidate
        The candidate that won.
    input
        How an image becomes the model's input.
    temperature
        Divides the logits inside the graph; 1 where calibration does nothing.
    calibration
        How the temperature was found, in words and figures: ``method``, ``count``, ``log_loss_before`` and so on.
    conformal
        Prediction sets.
    operating_points
        Thresholds.
    decoding
        How the graph's outputs become an answer, beyond what `oteo_core.packages.answers` fixes: ``score_threshold``, post-processing; JSON
        values. Empty for classification.
    training_size
        Width and height of the median training image, pixels: the scale at which larger images are looked at by tiles. None where not known.
    reference
        Statistics of the training images, to tell how usual an image is; None where there are none.
    metrics
        With intervals.
    trials
        What was tried, best first.
    versions
        Versions of the libraries that made it.
    parity_error
        Largest difference of probabilities between the graph on Triton and the original.
    files
        All files but the manifest, by path inside the package.
    digest
        SHA-256 of the graph and of what in this manifest decides an answer (`serving_digest`).
    create_time
        With time zone.
    operation
        ``operations/{id}`` that made it.
    training_time, budget
        Seconds.
    seed
        Seed of every draw.
    run_id
        In MLflow.
    labels
        Free.
    details
        More for reports: plan, steps' times, split counts. JSON values.
    package_uri
        Where the package lies; set by who reads it, not stored, so that a package may be moved.
    """

    id: str
    display_name: str
    uid: str
    task: str
    classes: list[str]
    dataset: str
    dataset_digest: str
    candidate: str
    input: InputPolicy
    create_time: datetime
    dataset_name: str = ""
    temperature: float = 1.0
    calibration: dict[str, Any] = field(default_factory=dict)
    conformal: Conformal | None = None
    operating_points: list[OperatingPoint] = field(default_factory=list)
    decoding: dict[str, Any] = field(default_factory=dict)
    training_size: tuple[int, int] | None = None
    reference: ReferenceStatistics | None = None
    metrics: list[MetricValue] = field(default_factory=list)
    trials: list[TrialRecord] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    parity_error: float = 0.0
    files: dict[str, PackageFile] = field(default_factory=dict)
    digest: str = ""
    operation: str = ""
    training_time: float = 0.0
    budget: float = 0.0
    seed: int = 0
    run_id: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    package_uri: str = ""

    @property
    def name(self) -> str:
        """``models/{id}``."""
        return f"models/{self.id}"

    @property
    def triton_model(self) -> str:
        """Name in Triton's model repository."""
        return self.id

    @property
    def triton_path(self) -> str:
        """Folder of the Triton model inside the package."""
        return f"triton/{self.id}"

    def metric(self, name: str, *, split: str = "test", class_name: str = "") -> MetricValue | None:
        """Give one metric, or None where it was not measured."""
        for metric in self.metrics:
            if metric.name == name and metric.split == split and metric.class_name == class_name:
                return metric
        return None

    def serving_digest(self, graph_sha256: str) -> str:
        """Give the digest of all that decides an answer.

        Report, metrics and times are left out: two packages with equal digests answer alike. It does not cover ``config.pbtxt``,
        which carries the digest itself.
        """
        parts = {
            "graph": graph_sha256,
            "task": self.task,
            "classes": self.classes,
            "input": asdict(self.input),
            "temperature": self.temperature,
            "conformal": asdict(self.conformal) if self.conformal else None,
            "operating_points": [asdict(point) for point in self.operating_points],
        }
        if self.decoding:
            parts["decoding"] = self.decoding
        return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def to_json(self) -> bytes:
        """Give the manifest, UTF-8."""
        data = asdict(self)
        del data["package_uri"]
        data["create_time"] = self.create_time.isoformat()
        data["reference"] = self.reference.to_dict() if self.reference else None
        return json.dumps({"format": FORMAT, **data}, indent=1, ensure_ascii=False, allow_nan=False).encode()

    @classmethod
    def from_json(cls, data: bytes, *, package_uri: str = "") -> ModelPackage:
        """Read a manifest.

        Raises
        ------
        DataLoss
            ``BROKEN_PACKAGE``: not a manifest, or of a newer form than this program knows.
        """
        try:
            values: dict[str, Any] = json.loads(data)
            form = values.pop("format")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise DataLoss(f"not a model package's manifest: {error!r}", reason="BROKEN_PACKAGE") from error
        if form != FORMAT:
            raise DataLoss(f"a manifest of form {form}, and this program reads form {FORMAT}", reason="BROKEN_PACKAGE")
        try:
            values["input"] = InputPolicy(**values["input"])
            values["create_time"] = datetime.fromisoformat(values["create_time"])
            values["conformal"] = Conformal(**values["conformal"]) if values.get("conformal") else None
            values["operating_points"] = [OperatingPoint(**point) for point in values.get("operating_points", [])]
            values["training_size"] = tuple(values["training_size"]) if values.get("training_size") else None
            values["reference"] = ReferenceStatistics.from_dict(values["reference"]) if values.get("reference") else None
            values["metrics"] = [MetricValue(**metric) for metric in values.get("metrics", [])]
            values["trials"] = [TrialRecord.from_dict(trial) for trial in values.get("trials", [])]
            values["files"] = {name: PackageFile(**file) for name, file in values.get("files", {}).items()}
            return cls(**values, package_uri=package_uri)
        except (TypeError, KeyError, ValueError) as error:
            raise DataLoss(f"a model package's manifest that cannot be read: {error!r}", reason="BROKEN_PACKAGE") from error

    def to_proto(self) -> automl_pb2.Model:
        """Give the contract's ``Model``; URIs are set where `package_uri` is."""
        from oteo_core.packages.proto import package_to_proto

        return package_to_proto(self)
