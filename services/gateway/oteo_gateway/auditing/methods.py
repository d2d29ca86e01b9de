"""What the audit log needs to know of each method: whether it changes something, and which fields of its request name resources.

Of a request only fields that name resources are read, by their names in the contract; of bytes that are forwarded, by their numbers.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from oteo_gateway.wire import string_field


class Kind(enum.Enum):
    """What a call does."""

    PROBE = "probe"
    """Asks whether somebody is there, or whether work has ended, again and again; not logged."""
    READ = "read"
    """Reads."""
    PREDICT = "predict"
    """Answers for images and keeps nothing."""
    CHANGE = "change"
    """Anything else: logged before it is carried out, and on the disk before it is answered."""


_PROBES = frozenset({"Check", "Watch", "ServerReflectionInfo", "ServerLive", "ServerReady", "ServerMetadata", "WaitOperation"})
_PREDICTIONS = frozenset({"Predict", "PredictStream", "ModelInfer", "ModelStreamInfer", "AugmentImages", "TranslateImages"})
_READS = frozenset(
    {
        *("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex", "TraceSetting", "LogSettings"),
        *("PreviewAugmentation", "ReplayAugmentation", "WhoAmI"),
    }
)
_READ_VERBS = ("Get", "List", "Compare")

# Fields that name what a call is about, the nearest first, with the collection where the field has only the id.
_TARGETS: tuple[tuple[str, str], ...] = (
    ("name", ""),
    ("parent", ""),
    ("deployment_id", "deployments/"),
    ("model_id", "models/"),
    ("translator_id", "translators/"),
    ("dataset_id", "datasets/"),
    ("pipeline_id", "pipelines/"),
    ("deployment", ""),
    ("model", ""),
    ("translator", ""),
    ("dataset", ""),
    ("model_name", "models/"),
)
_USED = ("dataset", "model", "translator", "home_dataset", "shifted_dataset", "reference_dataset", "unlabelled_dataset")
_NAMING = frozenset({*(name for name, _ in _TARGETS), *_USED})
_OPERATION = "google.longrunning.Operation"


@dataclass(frozen=True)
class Method:
    """A method as the log sees it.

    Attributes
    ----------
    action
        ``package.Service/Method``.
    kind
        What it does.
    fields
        Numbers of the text fields of its request that name resources, by name.
    starts_operation
        Whether its answer is an operation.
    """

    action: str
    kind: Kind
    fields: Mapping[str, int]
    starts_operation: bool

    def resources(self, request: Any) -> tuple[str, dict[str, str | int]]:
        """Give the name of what a call is about, and what it uses, as its request says; empty where it does not."""
        if not isinstance(request, bytes | Message):
            return "", {}
        read = {name: text for name, number in self.fields.items() if (text := self._text(request, name, number))}
        target = next((prefix + read[name] for name, prefix in _TARGETS if name in read), "")
        used: dict[str, str | int] = {name: read[name] for name in _USED if name in read}
        deployment = getattr(request, "deployment", None)
        if isinstance(deployment, Message):
            # What a deployment is asked to serve is its first model.
            target = target or str(getattr(deployment, "name", ""))
            for part in list(getattr(deployment, "models", ()))[:1]:
                used["model"] = part.model
        return target, used

    @staticmethod
    def _text(request: bytes | Message, name: str, number: int) -> str:
        return string_field(request, number) if isinstance(request, bytes) else str(getattr(request, name))

    def operation(self, response: Any) -> str:
        """Give the name of the operation that an answer is; empty where it is none."""
        if not self.starts_operation or response is None:
            return ""
        return string_field(response, 1) if isinstance(response, bytes) else str(getattr(response, "name", ""))


def _kind(name: str) -> Kind:
    if name in _PROBES:
        return Kind.PROBE
    if name in _PREDICTIONS:
        return Kind.PREDICT
    return Kind.READ if name in _READS or name.startswith(_READ_VERBS) else Kind.CHANGE


def _method(descriptor: MethodDescriptor) -> Method:
    fields = {
        field.name: field.number
        for field in descriptor.input_type.fields
        if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated and field.name in _NAMING
    }
    return Method(
        action=f"{descriptor.containing_service.full_name}/{descriptor.name}",
        kind=_kind(descriptor.name),
        fields=fields,
        starts_operation=descriptor.output_type.full_name == _OPERATION,
    )


class Methods:
    """All methods of a server.

    Parameters
    ----------
    services
        Those whose contract is known.
    """

    def __init__(self, services: Iterable[ServiceDescriptor]) -> None:
        self._known = {f"/{method.action}": method for service in services for method in map(_method, service.methods)}
        self._services = {path.rpartition("/")[0] for path in self._known}

    def get(self, path: str) -> Method:
        """Give a method by its path. What nobody knows is taken for a change, and its name, which is the caller's, does not reach the log."""
        found = self._known.get(path)
        if found is not None:
            return found
        service, _, name = path.rpartition("/")
        if name in _PROBES and service not in self._services:
            return Method("probe", Kind.PROBE, {}, starts_operation=False)
        action = f"{service.removeprefix('/')}/unknown" if service in self._services else "unknown"
        return Method(action, Kind.CHANGE, {}, starts_operation=False)
