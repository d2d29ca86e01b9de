"""The one table of access: which roles may call which RPC, and what a call counts as.

Whatever is not in it is refused, whoever asks; only Oteo's own parts, which bear the shared token and could call the services themselves, are not asked
for roles. A test walks every RPC that a gateway serves and fails where one has no row here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from oteo_core.access import Role
from oteo_core.security import OPEN_METHODS

VIEWER, CLINICIAN, TRAINER, OPERATOR, ADMIN = Role.VIEWER, Role.CLINICIAN, Role.TRAINER, Role.OPERATOR, Role.ADMIN


class Counts(Enum):
    """What of a call counts against the quota of images."""

    NOTHING = "nothing"
    MESSAGES = "messages"
    """Each message holds an image."""
    MESSAGES_BUT_FIRST = "messages but the first"
    """The first message holds settings."""
    BATCHES = "batches"
    """Each message is a request of the Open Inference Protocol: as many images as its batch."""


@dataclass(frozen=True, slots=True)
class Row:
    """One RPC.

    Attributes
    ----------
    roles
        Who may call it: any of these; None: whoever is known, whatever the role.
    counts
        What of it counts as images.
    starts
        Whether it begins a long-running operation.
    """

    roles: frozenset[Role] | None
    counts: Counts = Counts.NOTHING
    starts: bool = False


def _may(*roles: Role, counts: Counts = Counts.NOTHING, starts: bool = False) -> Row:
    return Row(frozenset({*roles, ADMIN}), counts, starts)


_KNOWN = Row(None)
# What there is: names, figures and states, nothing of a single patient.
_LOOK = _may(VIEWER, CLINICIAN, TRAINER, OPERATOR)
# Single samples and trials: file names of a source may name patients.
_LOOK_CLOSER = _may(TRAINER, OPERATOR)
_ASK = _may(CLINICIAN, TRAINER, OPERATOR, counts=Counts.MESSAGES)
_ASK_TRITON = _may(CLINICIAN, TRAINER, OPERATOR, counts=Counts.BATCHES)
_TRY = _may(TRAINER, OPERATOR, counts=Counts.MESSAGES)
# A judgement of a reader; who trains or runs the machines is none.
_JUDGE = _may(CLINICIAN)
_WORK = _may(TRAINER, OPERATOR, starts=True)
_CHANGE = _may(TRAINER, OPERATOR)
_RUN = _may(OPERATOR, starts=True)
_OPERATE = _may(OPERATOR)
_NOBODY = Row(frozenset())

_SERVICES: dict[str, dict[str, Row]] = {
    "oteo.augment.v1.DatasetService": {
        "ImportDataset": _WORK,
        "UploadDataset": _WORK,
        "GetDataset": _LOOK,
        "ListDatasets": _LOOK,
        "DeleteDataset": _CHANGE,
        "AuditDataset": _WORK,
        "ExportDataset": _WORK,
        "ListSamples": _LOOK_CLOSER,
    },
    "oteo.augment.v1.AugmentService": {
        "ListTransforms": _LOOK,
        "PreviewAugmentation": _TRY,
        "AugmentImages": _may(TRAINER, OPERATOR, counts=Counts.MESSAGES_BUT_FIRST),
        "AugmentDataset": _WORK,
        "ReplayAugmentation": _TRY,
    },
    "oteo.automl.v1.AutoMLService": {
        "TrainModel": _WORK,
        "EvaluateModel": _WORK,
        "ListEvaluations": _LOOK,
        "ListTrials": _LOOK_CLOSER,
        "GetModel": _LOOK,
        "ListModels": _LOOK,
        "DeleteModel": _CHANGE,
        "ExportModel": _WORK,
        "CombinePredictions": _WORK,
        "CompareModels": _LOOK_CLOSER,
    },
    "oteo.translate.v1.TranslateService": {
        "MeasureShift": _WORK,
        "TrainTranslator": _WORK,
        "TranslateDataset": _WORK,
        "TranslateImages": _may(CLINICIAN, TRAINER, OPERATOR, counts=Counts.MESSAGES_BUT_FIRST),
        "GetTranslator": _LOOK,
        "ListTranslators": _LOOK,
        "DeleteTranslator": _CHANGE,
    },
    "oteo.gateway.v1.InferenceService": {
        "Predict": _ASK,
        "PredictStream": _ASK,
    },
    "oteo.gateway.v1.FeedbackService": {
        "SubmitCorrection": _JUDGE,
        "GetCorrection": _may(CLINICIAN, TRAINER),
        "ListCorrections": _may(CLINICIAN, TRAINER),
    },
    "oteo.gateway.v1.DeploymentService": {
        "CreateDeployment": _RUN,
        "GetDeployment": _LOOK,
        "ListDeployments": _LOOK,
        "UpdateDeployment": _RUN,
        "RollbackDeployment": _RUN,
        "DeleteDeployment": _OPERATE,
    },
    "oteo.gateway.v1.PipelineService": {
        "RunPipeline": _RUN,
    },
    "oteo.gateway.v1.IdentityService": {
        "WhoAmI": _KNOWN,
    },
    # Whose operations: `operations_service` gives each caller its own, and those of others to `SEES_ALL_OPERATIONS`.
    "google.longrunning.Operations": {
        "ListOperations": _LOOK,
        "GetOperation": _LOOK,
        "WaitOperation": _LOOK,
        "CancelOperation": _CHANGE,
        "DeleteOperation": _CHANGE,
    },
    "inference.GRPCInferenceService": {
        "ServerLive": _LOOK,
        "ServerReady": _LOOK,
        "ServerMetadata": _LOOK,
        "ModelReady": _LOOK,
        "ModelMetadata": _LOOK,
        "ModelConfig": _LOOK,
        "ModelStatistics": _OPERATE,
        "ModelInfer": _ASK_TRITON,
        "ModelStreamInfer": _ASK_TRITON,
        "RepositoryIndex": _OPERATE,
        "TraceSetting": _OPERATE,
        "LogSettings": _OPERATE,
        "SystemSharedMemoryStatus": _OPERATE,
        "CudaSharedMemoryStatus": _OPERATE,
        # Refused to parts as well, with the reason, by `open_inference_service`.
        "RepositoryModelLoad": _NOBODY,
        "RepositoryModelUnload": _NOBODY,
        "SystemSharedMemoryRegister": _NOBODY,
        "SystemSharedMemoryUnregister": _NOBODY,
        "CudaSharedMemoryRegister": _NOBODY,
        "CudaSharedMemoryUnregister": _NOBODY,
    },
    # The contract is no secret, and tools such as grpcurl read it here.
    "grpc.reflection.v1alpha.ServerReflection": {
        "ServerReflectionInfo": _KNOWN,
    },
}

TABLE: dict[str, Row] = {f"/{service}/{name}": row for service, rows in _SERVICES.items() for name, row in rows.items()}
"""The rows by full method. `OPEN` needs none."""

OPEN = OPEN_METHODS
"""Health checks: probes are nobody."""

NAMES_IMAGES = frozenset({TRAINER, OPERATOR, ADMIN})
"""Who may name an image of a dataset or of the artifact store where others must send theirs: those who may list samples."""

SEES_ALL_OPERATIONS = frozenset({OPERATOR, ADMIN})
"""Who may see, cancel and delete what others began; everyone else only what they began themselves."""
