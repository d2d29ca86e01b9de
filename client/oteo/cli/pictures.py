"""Pictures that services make, kept in files of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import Message

from oteo.cli.session import Session
from oteo.cli.words import local_file, local_path, short
from oteo.errors import OteoApiError
from oteo.operations import OperationHandle
from oteo_protos.translate.v1 import translate_pb2

T = TypeVar("T", bound=Message)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: who looks at it sees the picture before or this one; its folder is made where it is not there.

    Raises
    ------
    OteoApiError
        INVALID_ARGUMENT, ``NOT_WRITABLE``: it cannot be written.
    """
    part = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OteoApiError("INVALID_ARGUMENT", f"{path} cannot be written: {error.strerror or error}", reason="NOT_WRITABLE") from error


class Preview:
    """Keeps the newest picture of a training in a file while a command waits; called with the operation as last seen.

    Parameters
    ----------
    session
        The command's session.
    path
        The file, PNG. What cannot be written is told once, and stops nothing.

    Raises
    ------
    OteoApiError
        INVALID_ARGUMENT, ``NOT_WRITABLE``: its folder cannot be made or written to.
    """

    def __init__(self, session: Session, path: Path) -> None:
        self._session, self._path = session, path
        self._shown = b""
        self._told = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OteoApiError("INVALID_ARGUMENT", f"{path.parent} cannot be made: {error.strerror}", reason="NOT_WRITABLE") from error
        if not os.access(path.parent, os.W_OK):
            raise OteoApiError("INVALID_ARGUMENT", f"{path.parent} cannot be written to", reason="NOT_WRITABLE")

    def __call__(self, handle: OperationHandle[T]) -> None:
        """Write the picture if there is a new one."""
        metadata = handle.metadata
        if not isinstance(metadata, translate_pb2.TrainTranslatorMetadata) or metadata.preview.content in (b"", self._shown):
            return
        first = not self._shown
        self._shown = metadata.preview.content
        try:
            replace_file(self._path, self._shown)
        except OteoApiError as error:
            if not self._told:
                self._session.note(error.message)
            self._told = True
            return
        if first:
            self._session.note(f"{self._path}: what came, its translation, home's look; kept new as the training goes on")


def save_sheet(one: translate_pb2.Translator, target: Path, *, several: bool) -> Path:
    """Copy a translator's contact sheet (PNG): to ``target``, or into that folder where there are several translators.

    Raises
    ------
    OteoApiError
        NOT_FOUND, ``NO_SHEET``: it has none, or it does not lie on this machine; INVALID_ARGUMENT, ``NOT_WRITABLE``.
    """
    source = local_file(one.contact_sheet_uri) if one.contact_sheet_uri else None
    if source is None:
        where = f"lies at {local_path(one.contact_sheet_uri)}, which this machine cannot read" if one.contact_sheet_uri else "was not made"
        raise OteoApiError("NOT_FOUND", f"the sheet of {one.name} {where}", reason="NO_SHEET", field="sheet")
    path = target / f"{short(one.name)}.png" if several else target
    replace_file(path, source.read_bytes())
    return path
