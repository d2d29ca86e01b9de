"""Images that a call names instead of sending them, and who may.

A sample or an object of the artifact store is anybody's image. Who may not list samples has no right to them, however well the name was guessed: an answer
for it, drawn over it, is the image itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from oteo_core.access import Identity
from oteo_core.errors import PermissionDenied
from oteo_gateway.access.table import NAMES_IMAGES
from oteo_protos.type.v1 import image_pb2

_SOURCE = image_pb2.ImageSource.DESCRIPTOR.full_name
_NAMED = ("sample", "uri")


class ImageNames:
    """What a method's requests name images by.

    Parameters
    ----------
    request
        Type of the requests.
    paths
        Fields that lead to an `ImageSource`, each from the outermost message on.
    """

    def __init__(self, request: type[Message], paths: tuple[tuple[str, ...], ...]) -> None:
        self._request = request
        self._paths = paths

    def check(self, message: Any) -> None:
        """Look at a request, as a message or as its bytes; what is no request is left to the server that it is for.

        Raises
        ------
        PermissionDenied
            ``ROLE_MISSING``: it names an image.
        """
        if isinstance(message, bytes):
            try:
                message = self._request.FromString(message)
            except DecodeError:
                return
        for path in self._paths:
            found = message
            for name in path:
                found = getattr(found, name)
            if found.WhichOneof("source") in _NAMED:
                raise PermissionDenied(
                    f"images of datasets and of the artifact store are for the roles {', '.join(sorted(NAMES_IMAGES))}; "
                    "send the image's bytes",
                    reason="ROLE_MISSING",
                    field=".".join(path),
                    metadata={"roles": ",".join(sorted(NAMES_IMAGES))},
                )


def image_names(method: str, identity: Identity) -> ImageNames | None:
    """Give what to hold a caller's requests against; None where the caller may name images, or the method takes none.

    Parameters
    ----------
    method
        Full name, ``/package.Service/Method``.
    identity
        The caller.
    """
    return None if identity.roles & NAMES_IMAGES else _of_method(method)


@cache
def _of_method(method: str) -> ImageNames | None:
    service, _, name = method.removeprefix("/").rpartition("/")
    try:
        request = descriptor_pool.Default().FindMethodByName(f"{service}.{name}").input_type
    except KeyError:
        return None
    paths = tuple(_paths(request, (request,)))
    return ImageNames(message_factory.GetMessageClass(request), paths) if paths else None


def _paths(message: Descriptor, seen: tuple[Descriptor, ...]) -> Iterator[tuple[str, ...]]:
    for field in message.fields:
        inner = field.message_type
        if inner is None or field.type != FieldDescriptor.TYPE_MESSAGE or inner in seen:
            continue
        if inner.full_name == _SOURCE:
            yield (field.name,)
        elif not field.is_repeated:
            yield from ((field.name, *rest) for rest in _paths(inner, (*seen, inner)))
