"""What a measurement of shift is between, or why there can be none: by the manifests alone, so that a call is answered at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader
from oteo_core.errors import FailedPrecondition, InvalidArgument, NotFound
from oteo_core.packages import ModelPackage, read_model

if TYPE_CHECKING:
    from oteo_protos.translate.v1 import translate_pb2


def find_model(artifacts: ArtifactStore, name: str) -> ModelPackage:
    """Read the model that is the reference.

    Raises
    ------
    NotFound
        ``MODEL_NOT_FOUND``.
    """
    try:
        return read_model(artifacts, name)
    except NotFound as error:
        raise NotFound(error.message, reason=error.reason, field="model") from error


def open_home(artifacts: ArtifactStore, request: translate_pb2.MeasureShiftRequest, package: ModelPackage | None) -> DatasetReader:
    """Open what the dataset in question is compared with.

    Raises
    ------
    NotFound
        ``DATASET_NOT_FOUND``.
    FailedPrecondition
        ``HOME_DATASET_GONE``: the model's own dataset was deleted.
    """
    if package is None:
        return open_dataset(artifacts, request.reference_dataset, "reference_dataset")
    try:
        return open_dataset(artifacts, package.dataset, "model")
    except NotFound:
        raise FailedPrecondition(
            f"{package.name} was trained on {package.dataset}, which is not there any more: give a dataset of its domain instead of the model",
            reason="HOME_DATASET_GONE",
            field="model",
        ) from None


def open_dataset(artifacts: ArtifactStore, name: str, field: str) -> DatasetReader:
    """Open a dataset.

    Raises
    ------
    NotFound
        ``DATASET_NOT_FOUND``, with the request's field.
    """
    try:
        return DatasetReader(artifacts, name.removeprefix("datasets/"))
    except NotFound:
        raise NotFound(f"there is no {name}: import it, or look at the list of datasets", reason="DATASET_NOT_FOUND", field=field) from None


def refuse_same(home: DatasetReader, shifted: DatasetReader, model: str = "") -> None:
    """Refuse a dataset compared with itself.

    Raises
    ------
    InvalidArgument
        ``SAME_DATASET``.
    """
    same_name = home.info.id == shifted.info.id
    if not same_name and (not home.info.digest or home.info.digest != shifted.info.digest):
        return
    if same_name:
        why = f"datasets/{shifted.info.id} is what {model} was trained on" if model else f"datasets/{shifted.info.id} was given twice"
    else:
        why = f"datasets/{home.info.id} and datasets/{shifted.info.id} hold the same"
    raise InvalidArgument(f"{why}: a shift is measured between two different sets of images", reason="SAME_DATASET", field="dataset")
