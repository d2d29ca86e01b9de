"""What a translator is trained on, or why it cannot be: by the manifests alone, so that a call is answered at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader
from oteo_core.errors import FailedPrecondition, InvalidArgument, NotFound
from oteo_core.packages import ModelPackage
from oteo_translate.measure_requests import find_model, open_dataset, refuse_same

if TYPE_CHECKING:
    from oteo_protos.translate.v1 import translate_pb2
    from oteo_translate.measures.encoders import Encoder as Inception
    from oteo_translate.methods.style.encoder import Encoder


def open_request(
    artifacts: ArtifactStore, request: translate_pb2.TrainTranslatorRequest
) -> tuple[ModelPackage, DatasetReader, DatasetReader]:
    """Open model, home and shifted dataset.

    Raises
    ------
    NotFound
        ``MODEL_NOT_FOUND``, ``DATASET_NOT_FOUND``.
    InvalidArgument
        ``SAME_DATASET``, ``UNKNOWN_METHOD``, ``METHOD_NOT_ASKED``, ``BAD_PARAMETER``.
    """
    package = find_model(artifacts, request.model)
    home = open_dataset(artifacts, request.home_dataset, "home_dataset")
    shifted = open_dataset(artifacts, request.shifted_dataset, "shifted_dataset")
    refuse_same(home, shifted)
    check_methods(request.methods)
    check_parameters(request)
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


def given_parameters(request: translate_pb2.TrainTranslatorRequest) -> dict[str, dict[str, Any]]:
    """Give the request's parameters by method: JSON values, and whole numbers as such, which a ``Struct`` does not know."""
    return {
        name: {key: int(value) if isinstance(value, float) and value.is_integer() else value for key, value in MessageToDict(one).items()}
        for name, one in request.parameters.items()
    }


def check_parameters(request: translate_pb2.TrainTranslatorRequest) -> None:
    """Refuse parameters of methods that are not known or not tried, and what a method does not take.

    Raises
    ------
    InvalidArgument
        ``UNKNOWN_METHOD``, ``METHOD_NOT_ASKED``, ``BAD_PARAMETER``; its field is ``parameters.{method}.{parameter}``.
    """
    if not request.parameters:
        return
    from oteo_translate.adaptation.registry import ADAPTATIONS
    from oteo_translate.methods.registry import METHODS

    for name, given in sorted(given_parameters(request).items()):
        way = METHODS.get(name) or ADAPTATIONS.get(name)
        if way is None:
            raise InvalidArgument(
                f"there is no method {name!r} to give parameters to; there are: {', '.join([*METHODS, *ADAPTATIONS])}",
                reason="UNKNOWN_METHOD",
                field=f"parameters.{name}",
            )
        if request.methods and name not in request.methods:
            raise InvalidArgument(
                f"there are parameters of {name}, and only {', '.join(request.methods)} are to be tried: name it among the methods too",
                reason="METHOD_NOT_ASKED",
                field=f"parameters.{name}",
            )
        way.settings(given)


def check_encoder(request: translate_pb2.TrainTranslatorRequest, setting: str) -> None:
    """Refuse a place of an encoder's weights where none lie; they are not read.

    Parameters
    ----------
    request
        What is asked for.
    setting
        The service's ``encoder_uri``, where the request names none.

    Raises
    ------
    InvalidArgument
        ``NO_ENCODER_WEIGHTS``; ``METHOD_NOT_ASKED``: the request names an encoder, and no method that would use it.
    FailedPrecondition
        ``NO_ENCODER_WEIGHTS``, where it is the setting that is to blame.
    """
    with _encoder_of(request, setting) as uri:
        if uri:
            from oteo_translate.methods.style.encoder import find_weights

            find_weights(uri)


def open_request_encoder(request: translate_pb2.TrainTranslatorRequest, setting: str) -> Encoder | None:
    """Read the encoder that methods of style transfer see with; None: they see with the frozen model's own, or none is tried.

    Raises
    ------
    InvalidArgument, FailedPrecondition
        See `check_encoder`; also ``BAD_ENCODER_WEIGHTS``.
    """
    with _encoder_of(request, setting) as uri:
        if not uri:
            return None
        from oteo_translate.methods.style.encoder import open_encoder

        return open_encoder(uri)


@contextmanager
def _encoder_of(request: translate_pb2.TrainTranslatorRequest, setting: str) -> Iterator[str]:
    """Give where the encoder of a request lies, empty for none, and say of an error whether request or setting is to blame."""
    if not request.encoder_uri and not setting:
        yield ""
        return
    from oteo_translate.methods.base import STYLE
    from oteo_translate.methods.registry import METHODS

    style = [name for name, one in METHODS.items() if one.kind == STYLE]
    if request.methods and not set(style) & set(request.methods):
        if request.encoder_uri:
            raise InvalidArgument(
                f"an encoder is what {', '.join(style)} see with, and none of them is to be tried",
                reason="METHOD_NOT_ASKED",
                field="encoder_uri",
            )
        yield ""
        return
    try:
        yield request.encoder_uri or setting
    except (InvalidArgument, NotFound) as error:
        if request.encoder_uri:
            raise InvalidArgument(error.message, reason=error.reason, field="encoder_uri") from error
        raise FailedPrecondition(f"the service's setting encoder_uri is of no use: {error.message}", reason=error.reason) from error


def check_inception(setting: str) -> None:
    """Refuse a setting ``inception_uri`` of a place where no weights of Inception lie; they are not read.

    Raises
    ------
    FailedPrecondition
        ``NO_INCEPTION_WEIGHTS``.
    """
    with _inception_of():
        if setting:
            from oteo_translate.measures.encoders import find_inception

            find_inception(setting)


def open_setting_inception(setting: str, device: str) -> Inception | None:
    """Read the network that the published translation is measured with; None: no weights are given.

    Raises
    ------
    FailedPrecondition
        See `check_inception`; also ``BAD_INCEPTION_WEIGHTS``.
    """
    with _inception_of():
        if not setting:
            return None
        from oteo_translate.measures.encoders import open_inception

        return open_inception(setting, device)


@contextmanager
def _inception_of() -> Iterator[None]:
    try:
        yield
    except (InvalidArgument, NotFound) as error:
        raise FailedPrecondition(f"the service's setting inception_uri is of no use: {error.message}", reason=error.reason) from error
