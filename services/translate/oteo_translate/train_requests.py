"""What a translator is trained on, or why it cannot be: by the manifests alone, so that a call is answered at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader
from oteo_core.errors import InvalidArgument
from oteo_core.packages import ModelPackage
from oteo_translate.measure_requests import find_model, open_dataset, refuse_same

if TYPE_CHECKING:
    from oteo_protos.translate.v1 import translate_pb2


def open_request(
    artifacts: ArtifactStore, request: translate_pb2.TrainTranslatorRequest
) -> tuple[ModelPackage, DatasetReader, DatasetReader]:
    """Open model, home and shifted dataset.

    Raises
    ------
    NotFound
        ``MODEL_NOT_FOUND``, ``DATASET_NOT_FOUND``.
    InvalidArgument
        ``SAME_DATASET``, ``UNKNOWN_METHOD``.
    """
    package = find_model(artifacts, request.model)
    home = open_dataset(artifacts, request.home_dataset, "home_dataset")
    shifted = open_dataset(artifacts, request.shifted_dataset, "shifted_dataset")
    refuse_same(home, shifted)
    check_methods(request.methods)
    return package, home, shifted


def check_methods(asked: Sequence[str]) -> None:
    """Refuse names of methods and adaptations that are not known.

    Raises
    ------
    InvalidArgument
        ``UNKNOWN_METHOD``.
    """
    if not asked:
        return
    # PyTorch takes seconds to load; a request without names does without.
    from oteo_translate.adaptation.registry import ADAPTATIONS
    from oteo_translate.methods.registry import METHODS

    for name in asked:
        if name not in METHODS and name not in ADAPTATIONS:
            raise InvalidArgument(
                f"there is no method {name!r}; there are: {', '.join([*METHODS, *ADAPTATIONS])}", reason="UNKNOWN_METHOD", field="methods"
            )
