"""Small servicers of the whole contract, in memory, for tests of the client."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf import empty_pb2
from google.protobuf.message import Message
from PIL import Image

from oteo_augment.augment_service import AugmentService
from oteo_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, OteoError, Unavailable
from oteo_core.images import ImageLimits
from oteo_protos.augment.v1 import augment_pb2, augment_pb2_grpc, dataset_pb2, dataset_pb2_grpc
from oteo_protos.automl.v1 import automl_pb2, automl_pb2_grpc
from oteo_protos.gateway.v1 import (
    deployment_pb2,
    deployment_pb2_grpc,
    feedback_pb2,
    feedback_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    pipeline_pb2,
    pipeline_pb2_grpc,
)
from oteo_protos.translate.v1 import translate_pb2, translate_pb2_grpc
from oteo_protos.type.v1 import image_pb2, report_pb2, task_pb2

P = report_pb2.Progress


class World:
    """What the fakes share: operations, resources, and what was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.operations: dict[str, operations_pb2.Operation] = {}
        self.requests: dict[str, str] = {}
        self.asked: list[Message] = []
        self.predicted: list[inference_pb2.PredictRequest] = []
        self.datasets: dict[str, dataset_pb2.Dataset] = {}
        self.models: dict[str, automl_pb2.Model] = {}
        self.deployments: dict[str, deployment_pb2.Deployment] = {}
        self.uploaded: dict[str, bytes] = {}
        self.unavailable = 0
        self.step = 0.02
        self.lock = threading.Lock()

    def start(self, request: Message, metadata: Message, response: Message | OteoError, polls: int = 2) -> operations_pb2.Operation:
        """Begin an operation that ends after some looks at it; the same request_id gives the first."""
        with self.lock:
            self.asked.append(request)
            if request.request_id in self.requests:
                return self.operations[self.requests[request.request_id]]
            name = f"operations/automl-{len(self.operations):020d}"
            self.requests[request.request_id] = name
            operation = operations_pb2.Operation(name=name)
            metadata.progress.state = P.STATE_RUNNING
            metadata.progress.create_time.GetCurrentTime()
            operation.metadata.Pack(metadata)
            self.operations[name] = operation
            threading.Thread(target=self._work, args=(name, metadata, response, polls), daemon=True).start()
            return operation

    def _work(self, name: str, metadata: Any, response: Message | OteoError, polls: int) -> None:
        for number in range(polls):
            time.sleep(self.step)
            with self.lock:
                operation = self.operations[name]
                if operation.done:
                    return
                metadata.progress.fraction = number / polls
                metadata.progress.stage = f"stage {number}"
                operation.metadata.Pack(metadata)
        with self.lock:
            operation = self.operations[name]
            if operation.done:
                return
            metadata.progress.fraction = 1.0
            metadata.progress.end_time.GetCurrentTime()
            if isinstance(response, OteoError):
                metadata.progress.state = P.STATE_FAILED
                operation.error.CopyFrom(response.to_status())
            else:
                metadata.progress.state = P.STATE_SUCCEEDED
                operation.response.Pack(response)
            operation.metadata.Pack(metadata)
            operation.done = True


def make_dataset(name: str, folder: Path) -> dataset_pb2.Dataset:
    """Give a dataset of three samples; its test image lies below ``folder``."""
    (folder / "media").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), (200, 40, 40)).save(folder / "media" / "0.png")
    return dataset_pb2.Dataset(
        name=name,
        display_name="cells",
        task=task_pb2.TASK_CLASSIFICATION,
        classes=[dataset_pb2.ClassInfo(name="round", sample_count=2), dataset_pb2.ClassInfo(name="long", sample_count=1)],
        sample_count=3,
        splits=[
            dataset_pb2.SplitCount(split=task_pb2.SPLIT_TRAIN, sample_count=2),
            dataset_pb2.SplitCount(split=task_pb2.SPLIT_TEST, sample_count=1),
        ],
        excluded_count=1,
        findings=[report_pb2.FindingCount(code="UNREADABLE_IMAGE", severity=report_pb2.Finding.SEVERITY_ERROR, count=1)],
        exact_duplicate_group_count=22,
        near_duplicate_group_count=25,
        uri=folder.as_uri(),
    )


def make_model(name: str) -> automl_pb2.Model:
    """Give a model with metrics."""
    model = automl_pb2.Model(
        name=name,
        task=task_pb2.TASK_CLASSIFICATION,
        classes=["round", "long"],
        dataset="datasets/cells",
        candidate="classical/logistic",
        metrics=[
            report_pb2.Metric(name="accuracy", value=0.9123, lower=0.87, upper=0.95, split="test"),
            report_pb2.Metric(name="ece", value=0.041, lower=0.02, upper=0.07, split="test"),
        ],
        report_uri="file:///store/models/cells/report.html",
        package_uri="file:///store/models/cells",
        trial_count=7,
    )
    model.training_time.FromSeconds(200)
    model.budget.FromSeconds(240)
    return model


def make_plan() -> automl_pb2.TrainingPlan:
    """Give a plan of three candidates, one of them left out."""
    plan = automl_pb2.TrainingPlan(summary="Cheap classifiers come first.", device="cpu", folds=5)
    plan.candidates.add(name="classical-logistic", reason="the baseline: there is always an answer", input_size=128)
    network = plan.candidates.add(
        name="timm-resnet18", reason="in the portfolio", input_size=128, batch_size=32, epochs=20, initial_weights="scratch", measured=True
    )
    network.epoch_time.FromMilliseconds(2500)
    plan.candidates.add(name="timm-resnet50d", reason="left out: too slow without a GPU", input_size=128)
    plan.fingerprint.update({"train_count": 70, "test_count": 15})
    plan.predicted_end_time.GetCurrentTime()
    return plan


class Datasets(dataset_pb2_grpc.DatasetServiceServicer):
    """Imports by what the source is called: "empty" fails, "slow" takes long."""

    def __init__(self, world: World) -> None:
        self.world = world

    def ImportDataset(self, request, context):
        if "empty" in request.source_uri:
            raise InvalidArgument("the folder holds no images", reason="EMPTY_SOURCE", field="source_uri")
        metadata = dataset_pb2.ImportDatasetMetadata(found_count=4, read_count=3)
        if "broken" in request.source_uri:
            return self.world.start(request, metadata, FailedPrecondition("the job failed", reason="JOB_LOST"))
        dataset = make_dataset("datasets/cells", self.world.folder / "cells")
        self.world.datasets[dataset.name] = dataset
        polls = 10_000 if "slow" in request.source_uri else 2
        return self.world.start(request, metadata, dataset_pb2.ImportDatasetResponse(dataset=dataset), polls)

    def UploadDataset(self, request_iterator, context):
        settings, current = None, ""
        for request in request_iterator:
            kind = request.WhichOneof("payload")
            if kind == "settings":
                settings = request.settings
            elif kind == "file":
                current = request.file.path
                self.world.uploaded[current] = b""
            else:
                self.world.uploaded[current] += request.chunk
        settings.source_uri = "upload"
        return self.ImportDataset(settings, context)

    def GetDataset(self, request, context):
        if self.world.unavailable > 0:
            self.world.unavailable -= 1
            raise Unavailable("in a moment")
        if request.name not in self.world.datasets:
            raise NotFound(f"there is no {request.name}", reason="DATASET_NOT_FOUND", field="name")
        return self.world.datasets[request.name]

    def ListDatasets(self, request, context):
        names = sorted(self.world.datasets)
        start = int(request.page_token or 0)
        page = dataset_pb2.ListDatasetsResponse(datasets=[self.world.datasets[name] for name in names[start : start + 2]])
        page.next_page_token = str(start + 2) if start + 2 < len(names) else ""
        return page

    def DeleteDataset(self, request, context):
        self.world.asked.append(request)
        if self.world.datasets.pop(request.name, None) is None and not request.allow_missing:
            raise NotFound(f"there is no {request.name}", reason="DATASET_NOT_FOUND", field="name")
        return empty_pb2.Empty()

    def ExportDataset(self, request, context):
        if request.format == dataset_pb2.DATASET_FORMAT_DICOM:
            raise InvalidArgument("the format dicom is not written by this release", reason="UNSUPPORTED_FORMAT", field="format")
        loss = report_pb2.Finding(
            severity=report_pb2.Finding.SEVERITY_WARNING, code="OUTLINE_LOST", message="7 in 3 samples: outlines became boxes"
        )
        response = dataset_pb2.ExportDatasetResponse(
            uri=request.destination_uri or "file:///store/exports/1", sample_count=3, losses=[loss]
        )
        return self.world.start(request, dataset_pb2.ExportDatasetMetadata(dataset=request.name, written_count=2), response)

    def AuditDataset(self, request, context):
        if "spelling" in request.checks:
            raise InvalidArgument("there is no check 'spelling'; there are files, leaks", reason="UNKNOWN_CHECK", field="checks[0]")
        if request.fixed_dataset_id == "taken":
            raise AlreadyExists("there is a dataset datasets/taken already", reason="DATASET_EXISTS", field="fixed_dataset_id")
        severity = report_pb2.Finding
        response = dataset_pb2.AuditDatasetResponse(
            dataset=request.name,
            findings=[
                severity(
                    severity=severity.SEVERITY_ERROR,
                    code="CONFLICTING_LABELS",
                    message="two labels",
                    sample=f"{request.name}/samples/0",
                    path="a/0.png",
                ),
                severity(severity=severity.SEVERITY_INFO, code="MIXED_SIZES", message="sizes are mixed"),
            ],
            counts=[
                report_pb2.FindingCount(code="CONFLICTING_LABELS", severity=severity.SEVERITY_ERROR, count=1),
                report_pb2.FindingCount(code="MIXED_SIZES", severity=severity.SEVERITY_INFO, count=1),
            ],
            report_uri="file:///store/audits/1/report.html",
            findings_uri="file:///store/audits/1/findings.jsonl",
            fixed_dataset=f"datasets/{request.fixed_dataset_id or 'cells-cleaned'}" if request.fix else "",
        )
        metadata = dataset_pb2.AuditDatasetMetadata(dataset=request.name, finished_checks=["files", "leaks"], findings=response.counts)
        return self.world.start(request, metadata, response)

    def ListSamples(self, request, context):
        bad = dataset_pb2.Sample(name=f"{request.parent}/samples/bad", source_path="round/bad.png", excluded=True)
        bad.findings.add(
            severity=report_pb2.Finding.SEVERITY_ERROR, code="UNREADABLE_IMAGE", message="cannot be read", path="round/bad.png"
        )
        good = dataset_pb2.Sample(
            name=f"{request.parent}/samples/0",
            path="media/0.png",
            source_path="round/0.png",
            width=40,
            height=30,
            channels=3,
            split=task_pb2.SPLIT_TEST,
        )
        good.annotations.add(class_name="round")
        return dataset_pb2.ListSamplesResponse(samples=[bad] if request.only_findings else [good])


class Augment(augment_pb2_grpc.AugmentServiceServicer):
    """Augments by name alone."""

    def __init__(self, world: World) -> None:
        self.world = world

    def AugmentDataset(self, request, context):
        dataset = dataset_pb2.Dataset(name="datasets/cells-augmented", sample_count=9)
        response = augment_pb2.AugmentDatasetResponse(dataset=dataset, augmented_count=6, dropped_annotation_count=2)
        return self.world.start(request, augment_pb2.AugmentDatasetMetadata(total_count=9, written_count=3), response)

    def PreviewAugmentation(self, request, context):
        self.world.asked.append(request)
        return augment_pb2.PreviewAugmentationResponse(sheet=image_pb2.EncodedImage(content=b"a sheet", media_type="image/png"))

    def ReplayAugmentation(self, request, context):
        self.world.asked.append(request)
        if request.name.endswith("gone"):
            raise NotFound("its source is gone", reason="SAMPLE_NOT_FOUND", field="name")
        sample = dataset_pb2.Sample(name=request.name, derived_from="datasets/cells/samples/a", sha256="ab" * 32)
        sample.provenance.update({"steps": [{"transform": "HorizontalFlip"}, {"transform": "RandomGamma", "gamma": 1.2}]})
        return augment_pb2.ReplayAugmentationResponse(
            sample=sample,
            image=image_pb2.EncodedImage(content=b"a picture", media_type="image/png"),
            same=not request.name.endswith("forged"),
        )

    def ListTransforms(self, request, context):
        # The real catalogue, in small pages whatever was asked for.
        asked = augment_pb2.ListTransformsRequest()
        asked.CopyFrom(request)
        asked.page_size = 20
        return AugmentService(None, None, ImageLimits(), 1).ListTransforms(asked, context)


class AutoML(automl_pb2_grpc.AutoMLServiceServicer):
    """Trains at once."""

    def __init__(self, world: World) -> None:
        self.world = world

    def TrainModel(self, request, context):
        model = make_model(f"models/{request.model_id or 'cells'}")
        self.world.models[model.name] = model
        metadata = automl_pb2.TrainModelMetadata(finished_trial_count=5, running_trial_count=2)
        metadata.best_trial.candidate = "resnet18"
        metadata.best_trial.metrics.add(name="accuracy", value=0.875)
        if request.validate_only:
            return self.world.start(request, metadata, automl_pb2.TrainModelResponse(plan=make_plan()), 2)
        return self.world.start(request, metadata, automl_pb2.TrainModelResponse(model=model), 5)

    def GetModel(self, request, context):
        if request.name not in self.world.models:
            raise NotFound(f"there is no {request.name}", reason="MODEL_NOT_FOUND", field="name")
        return self.world.models[request.name]

    def ListModels(self, request, context):
        return automl_pb2.ListModelsResponse(models=self.world.models.values())

    def DeleteModel(self, request, context):
        self.world.asked.append(request)
        if self.world.models.pop(request.name, None) is None and not request.allow_missing:
            raise NotFound(f"there is no {request.name}", reason="MODEL_NOT_FOUND", field="name")
        return empty_pb2.Empty()

    def ExportModel(self, request, context):
        if request.format == automl_pb2.MODEL_FORMAT_PYTORCH:
            raise FailedPrecondition(f"{request.name} holds no PyTorch network", reason="NO_NETWORK_FILE", field="format")
        response = automl_pb2.ExportModelResponse(uri=request.destination_uri or "file:///store/exports/1")
        return self.world.start(request, automl_pb2.ExportModelMetadata(model=request.name), response)

    def ListEvaluations(self, request, context):
        judged = automl_pb2.EvaluateModelResponse(model=request.model or "models/cells", dataset="datasets/cells", image_count=27)
        judged.metrics.add(name="accuracy", value=0.875)
        return automl_pb2.ListEvaluationsResponse(evaluations=[judged])

    def ListTrials(self, request, context):
        trial = automl_pb2.Trial(name="models/cells/trials/1", candidate="resnet18", state=automl_pb2.Trial.STATE_FINISHED, objective=0.31)
        trial.metrics.add(name="log_loss", value=0.31, lower=0.22, upper=0.45, confidence_level=0.95)
        return automl_pb2.ListTrialsResponse(trials=[trial])


class Deployments(deployment_pb2_grpc.DeploymentServiceServicer):
    """Deploys at once."""

    def __init__(self, world: World) -> None:
        self.world = world

    def CreateDeployment(self, request, context):
        name = f"deployments/{request.deployment_id}"
        if name in self.world.deployments:
            raise AlreadyExists(f"there is {name} already", reason="DEPLOYMENT_EXISTS", field="deployment_id")
        return self._put(request, name)

    def UpdateDeployment(self, request, context):
        before = self.world.deployments.get(request.deployment.name)
        if request.deployment.etag and request.deployment.etag != before.etag:
            raise FailedPrecondition("it was changed since you read it", reason="ETAG_MISMATCH", field="deployment.etag")
        return self._put(request, request.deployment.name)

    def RollbackDeployment(self, request, context):
        before = self.world.deployments[request.name].revisions[0]
        return self._put(request, request.name, deployment_pb2.Deployment(models=before.models))

    def GetDeployment(self, request, context):
        if request.name not in self.world.deployments:
            raise NotFound(f"there is no {request.name}", reason="DEPLOYMENT_NOT_FOUND", field="name")
        return self.world.deployments[request.name]

    def _put(self, request, name, wanted=None):
        wanted, before = wanted or request.deployment, self.world.deployments.get(name)
        deployment = deployment_pb2.Deployment(
            name=name, models=wanted.models, adapt=wanted.adapt, translator=wanted.translator, state=deployment_pb2.Deployment.STATE_READY
        )
        deployment.generation = before.generation + 1 if before is not None else 1
        deployment.etag = f"etag-{deployment.generation}"
        if before is not None:
            deployment.revisions.add(generation=before.generation, models=before.models)
        for model in deployment.models:
            if model.shadow:
                deployment.comparisons.add(
                    model=model.model,
                    image_count=40,
                    missed_count=2,
                    agreement=0.925,
                    agreement_lower=0.8,
                    agreement_upper=0.97,
                    latency_ratio=1.5,
                )
        deployment.replicas.add(address="127.0.0.1:1", ready=True)
        self.world.deployments[name] = deployment
        return self.world.start(request, deployment_pb2.DeploymentMetadata(deployment=name, replicas=deployment.replicas), deployment)

    def ListDeployments(self, request, context):
        return deployment_pb2.ListDeploymentsResponse(deployments=self.world.deployments.values())


class Inference(inference_pb2_grpc.InferenceServiceServicer):
    """Says "round" to every image that Pillow can read."""

    def __init__(self, world: World) -> None:
        self.world = world

    def Predict(self, request, context):
        self.world.predicted.append(request)
        if request.deployment not in self.world.deployments:
            raise NotFound(f"there is no {request.deployment}", reason="DEPLOYMENT_NOT_FOUND", field="deployment")
        if request.image.content:
            try:
                Image.open(io.BytesIO(request.image.content)).load()
            except OSError:
                raise InvalidArgument("this image cannot be read", reason="UNREADABLE_IMAGE", field="image") from None
        answer = inference_pb2.PredictResponse(deployment=request.deployment, model="models/cells", model_version="1")
        answer.classification.scores.add(class_name="round", probability=0.83)
        answer.classification.scores.add(class_name="long", probability=0.17)
        answer.classification.prediction_set.append("round")
        answer.classification.coverage = 0.9
        answer.timing.total.FromMilliseconds(12)
        if request.adapt == inference_pb2.ADAPT_MODE_AUTO:
            answer.translator = "translators/lighter"
            answer.findings.add(code="TRANSLATED", message="It looks unlike the training images: answered with translators/lighter.")
        if request.draw:
            drawn = io.BytesIO()
            Image.new("RGB", (40, 30), (200, 40, 40)).save(drawn, "PNG")
            answer.drawing.content, answer.drawing.media_type = drawn.getvalue(), "image/png"
        if request.tiling == inference_pb2.TILING_ON:
            answer.findings.add(severity=report_pb2.Finding.SEVERITY_INFO, code="TILED", message="Looked at in 6 tiles.")
        return answer


class Feedback(feedback_pb2_grpc.FeedbackServiceServicer):
    """Takes every correction of a class that it knows."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.corrections: list[feedback_pb2.Correction] = []

    def SubmitCorrection(self, request, context):
        self.world.asked.append(request)
        if any(item.class_name not in ("round", "long") for item in request.annotations):
            raise InvalidArgument("models/cells knows the classes round, long", reason="CLASS_NOT_KNOWN", field="annotations")
        name = f"{request.parent}/corrections/c{len(self.corrections)}"
        right = [item.class_name for item in request.annotations] == ["round"]
        made = feedback_pb2.Correction(name=name, model=request.answer.model, annotations=request.annotations, agreement=float(right))
        if request.consent:
            made.sample = "datasets/cells-corrections/samples/abc"
            made.findings.add(code="BURNED_IN_TEXT_SUSPECTED", message="look whether it names the patient", sample=made.sample)
        self.corrections.insert(0, made)
        return made

    def GetCorrection(self, request, context):
        return next(one for one in self.corrections if one.name == request.name)

    def ListCorrections(self, request, context):
        return feedback_pb2.ListCorrectionsResponse(corrections=self.corrections)


class Pipelines(pipeline_pb2_grpc.PipelineServiceServicer):
    """Runs all steps at once; a source named "fails" fails the first time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.failures = 1

    def RunPipeline(self, request, context):
        name = request.pipeline_id
        if request.request_id in self.world.requests:
            return self.world.operations[self.world.requests[request.request_id]]
        if f"models/{name}" in self.world.models:
            raise AlreadyExists(f"there is models/{name} already", reason="MODEL_EXISTS", field="pipeline_id")
        metadata = pipeline_pb2.RunPipelineMetadata(steps=[pipeline_pb2.PipelineStep(step=step) for step in ("import", "train", "deploy")])
        metadata.steps[0].progress.state = P.STATE_SUCCEEDED
        metadata.steps[1].progress.state = P.STATE_RUNNING
        metadata.steps[1].progress.fraction = 0.4
        source = getattr(request, "import").source_uri
        if "fails" in source and self.failures:
            self.failures -= 1
            return self.world.start(request, metadata, FailedPrecondition("the step 'train' failed", reason="JOB_CRASHED"))
        dataset = make_dataset("datasets/cells", self.world.folder / "cells")
        model = make_model(f"models/{name}")
        deployment = deployment_pb2.Deployment(name=f"deployments/{name}", state=deployment_pb2.Deployment.STATE_READY)
        self.world.datasets[dataset.name], self.world.models[model.name], self.world.deployments[deployment.name] = (
            dataset,
            model,
            deployment,
        )
        response = pipeline_pb2.RunPipelineResponse(dataset=dataset, model=model, deployment=deployment)
        return self.world.start(request, metadata, response, 3)


class Operations(operations_pb2_grpc.OperationsServicer):
    """The operations of the world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def GetOperation(self, request, context):
        if request.name not in self.world.operations:
            raise NotFound(f"there is no {request.name}", reason="OPERATION_NOT_FOUND", field="name")
        return self.world.operations[request.name]

    def WaitOperation(self, request, context):
        end = time.monotonic() + request.timeout.ToNanoseconds() / 1e9
        while not self.GetOperation(request, context).done and time.monotonic() < end:
            time.sleep(0.01)
        return self.GetOperation(request, context)

    def ListOperations(self, request, context):
        wanted = {"": (True, False), "done=true": (True,), "done=false": (False,)}[request.filter]
        return operations_pb2.ListOperationsResponse(operations=[op for op in self.world.operations.values() if op.done in wanted])

    def CancelOperation(self, request, context):
        operation = self.GetOperation(request, context)
        with self.world.lock:
            from oteo_core.errors import Cancelled

            operation.error.CopyFrom(Cancelled("cancelled by a caller", reason="CANCELLED").to_status())
            operation.done = True
        return empty_pb2.Empty()


def make_shift() -> translate_pb2.MeasureShiftResponse:
    """Give a measurement that found another look."""
    return translate_pb2.MeasureShiftResponse(
        kind=translate_pb2.SHIFT_KIND_COVARIATE,
        tests=[
            {"test": "mmd", "feature": "intensity", "statistic": 0.36, "p_value": 0.006, "effect_size": 0.604, "detectable_effect": 0.139},
            {"test": "c2st", "feature": "embedding", "statistic": 0.5, "p_value": 0.71, "effect_size": 0.512, "detectable_effect": 0.64},
        ],
        expected_loss=report_pb2.Metric(name="iou_loss", value=0.34, lower=0.31, upper=0.37),
        extreme_samples=["datasets/new/samples/s-17"],
        report_uri="file:///store/shifts/op/report.html",
    )


def make_translator(name: str) -> translate_pb2.Translator:
    """Give an accepted translator with two ways tried."""
    made = translate_pb2.Translator(
        name=name,
        method="fda",
        model="models/cells",
        home_dataset="datasets/home",
        shifted_dataset="datasets/north",
        verdict=translate_pb2.Translator.VERDICT_ACCEPTED,
        reason="better: +0.110 (+0.050 to +0.170) against doing nothing, by labels",
        criterion="labels",
        contact_sheet_uri="file:///store/translators/north/sheet.png",
    )
    better = made.evidence.add(method="fda", accepted=True, reason="better")
    better.gain.name, better.gain.value, better.gain.lower, better.gain.upper = "iou_gain", 0.11, 0.05, 0.17
    better.distances.add(name="kid", value=0.01234, lower=-0.0021, upper=0.0278, sample_count=64)
    better.distances.add(name="kid_inception", value=0.0456, lower=0.04, upper=0.05, sample_count=64)
    nothing = made.evidence.add(method="nothing", reason="what has to be beaten")
    nothing.score.value = 0.5
    nothing.distances.add(name="kid", value=1.875, lower=1.52, upper=2.25, sample_count=64)
    nothing.distances.add(name="kid_inception", value=0.789, lower=0.7, upper=0.8, sample_count=64)
    return made


class Translate(translate_pb2_grpc.TranslateServiceServicer):
    """Measures a shift."""

    def __init__(self, world: World) -> None:
        self.world = world

    def MeasureShift(self, request, context):
        return self.world.start(request, translate_pb2.MeasureShiftMetadata(dataset=request.dataset), make_shift())

    def TrainTranslator(self, request, context):
        metadata = translate_pb2.TrainTranslatorMetadata(translator=f"translators/{request.translator_id or 'north'}")
        made = make_translator(metadata.translator)
        metadata.evidence.extend(made.evidence)
        metadata.preview.content, metadata.preview.media_type = b"a picture", "image/png"
        return self.world.start(request, metadata, translate_pb2.TrainTranslatorResponse(translator=made))

    def TranslateDataset(self, request, context):
        if request.translator == "translators/rejected" and not request.allow_rejected:
            raise FailedPrecondition("translators/rejected was rejected: it is no better", reason="TRANSLATOR_REJECTED")
        response = translate_pb2.TranslateDatasetResponse(dataset=f"datasets/{request.dataset_id or 'cells-translated'}", sample_count=3)
        return self.world.start(request, translate_pb2.TranslateDatasetMetadata(dataset=response.dataset), response)

    def TranslateImages(self, requests, context):
        for request in requests:
            self.world.asked.append(request)
            if request.WhichOneof("payload") == "settings":
                continue
            if request.item.image.content == b"no picture":
                bad = InvalidArgument("this is no image", reason="UNREADABLE_IMAGE").to_status()
                yield translate_pb2.TranslateImagesResponse(key=request.item.key, error=bad)
                continue
            image = image_pb2.EncodedImage(content=b"translated " + request.item.image.content, media_type="image/png")
            yield translate_pb2.TranslateImagesResponse(key=request.item.key, image=image)

    def GetTranslator(self, request, context):
        if request.name.endswith("/none"):
            raise NotFound(f"there is no {request.name}", reason="TRANSLATOR_NOT_FOUND", field="name")
        made = make_translator(request.name)
        sheet = self.world.folder / f"{request.name}.png"
        if sheet.is_file():
            made.contact_sheet_uri = sheet.as_uri()
        return made

    def ListTranslators(self, request, context):
        return translate_pb2.ListTranslatorsResponse(translators=[make_translator("translators/north")])

    def DeleteTranslator(self, request, context):
        self.world.asked.append(request)
        return empty_pb2.Empty()


def register(world: World, server: Any) -> Sequence[str]:
    """Add all fakes to a server."""
    dataset_pb2_grpc.add_DatasetServiceServicer_to_server(Datasets(world), server)
    augment_pb2_grpc.add_AugmentServiceServicer_to_server(Augment(world), server)
    automl_pb2_grpc.add_AutoMLServiceServicer_to_server(AutoML(world), server)
    deployment_pb2_grpc.add_DeploymentServiceServicer_to_server(Deployments(world), server)
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(Inference(world), server)
    feedback_pb2_grpc.add_FeedbackServiceServicer_to_server(Feedback(world), server)
    pipeline_pb2_grpc.add_PipelineServiceServicer_to_server(Pipelines(world), server)
    translate_pb2_grpc.add_TranslateServiceServicer_to_server(Translate(world), server)
    operations_pb2_grpc.add_OperationsServicer_to_server(Operations(world), server)
    return ()
