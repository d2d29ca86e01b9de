"""What requests ask for, in the words of the domain; light, as the server reads it too."""

from __future__ import annotations

from collections.abc import Iterable

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets.proto import SPLITS, name_of
from oteo_core.errors import InvalidArgument, NotFound
from oteo_protos.automl.v1 import automl_pb2


def forms_of(values: Iterable[int]) -> tuple[str, ...]:
    """Name the forms of prediction files that are asked for."""
    names = (automl_pb2.PredictionFormat.Name(value).removeprefix("PREDICTION_FORMAT_").lower() for value in values)
    return tuple(dict.fromkeys(names)) or ("csv",)


def parts_of(request: automl_pb2.EvaluateModelRequest) -> tuple[str, ...]:
    """Name the parts that are asked for."""
    return tuple(dict.fromkeys(name_of(SPLITS, split) for split in request.splits)) or ("test",)


def path_of(store: ArtifactStore, uri: str) -> str:
    """Give the path of a file of the artifact store.

    Raises
    ------
    InvalidArgument
        ``FOREIGN_URI``: it lies elsewhere.
    NotFound
        ``PREDICTIONS_NOT_FOUND``.
    """
    root = store.root_uri.rstrip("/") + "/"
    path = uri[len(root) :] if uri.startswith(root) else uri
    if "://" in path or path.startswith("/") or ".." in path.split("/"):
        raise InvalidArgument(
            f"{uri} is not in the artifact store: give the URI of a file that an evaluation wrote, or upload it there",
            reason="FOREIGN_URI",
            field="inputs",
        )
    if not store.is_file(path):
        raise NotFound(f"there is no file {uri}", reason="PREDICTIONS_NOT_FOUND", field="inputs")
    return path
