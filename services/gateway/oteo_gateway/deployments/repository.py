"""The model server's repository: units' folders written into it, taken out, and touched.

A folder is ``{model}/config.pbtxt`` and ``{model}/1/...``. The configuration is written last and carries the package's digest as the
parameter ``oteo_digest``: a folder with the right digest is whole. Folders without that parameter belong to somebody else.
"""

from __future__ import annotations

import os

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import DataLoss, FailedPrecondition, NotFound
from oteo_gateway.deployments.units import CONFIG, Unit

DIGEST = "oteo_digest"
PARITY_PREFIX = "oteo-parity-"
_VERSION_FILE = "1/ensemble"
MARKER = ".oteo-repository"
"""A file that makes an empty folder be there: an object store has none without one, and a Triton that finds no folder takes it for a mistake for good."""


def config_digest(config: model_config_pb2.ModelConfig) -> str:
    """Give the digest that a model's configuration carries; empty if it carries none."""
    return str(config.parameters[DIGEST].string_value) if DIGEST in config.parameters else ""


class ModelRepository:
    """Folders of models, translators and ensembles in the model server's repository.

    Parameters
    ----------
    repository
        The repository that every replica reads.
    artifacts
        Where packages lie.
    """

    def __init__(self, repository: ArtifactStore, artifacts: ArtifactStore) -> None:
        self._repository = repository
        self._artifacts = artifacts

    def prepare(self) -> None:
        """Make the repository be there, empty as it may be."""
        if not self._repository.is_file(MARKER):
            self._repository.write_bytes(MARKER, b"")

    def digest(self, model: str) -> str:
        """Give the digest of a model's folder; empty where it is missing, not whole, or not ours."""
        try:
            return config_digest(_parse(self._repository.read_bytes(f"{model}/{CONFIG}"), model))
        except (NotFound, DataLoss):
            return ""

    def models(self) -> dict[str, str]:
        """Give our models' digests by name; those of parity checks and of others are left out."""
        names = [name for name in self._repository.children("") if not name.startswith(PARITY_PREFIX)]
        found = {name: self.digest(name) for name in names}
        return {name: digest for name, digest in found.items() if digest}

    def write(self, unit: Unit) -> bool:
        """Make a unit's folder be there; True if it had to be written.

        Raises
        ------
        FailedPrecondition
            ``BROKEN_PACKAGE``: it has no configuration, no model file, or another name than its folder.
        """
        name = unit.name
        if self.digest(name) == unit.digest:
            return False
        files = [entry.path.removeprefix(f"{unit.source}/") for entry in self._artifacts.iter(unit.source)] if unit.source else []
        if unit.source and (CONFIG not in files or len(files) < 2):
            raise FailedPrecondition(
                f"{unit.owner} has no complete Triton folder at {unit.source}: it holds {files}.", reason="BROKEN_PACKAGE"
            )
        try:
            config = _parse(self._artifacts.read_bytes(unit.config), name)
        except NotFound as error:
            raise FailedPrecondition(f"{unit.owner} has no {unit.config}.", reason="BROKEN_PACKAGE") from error
        named = unit.package.triton_model if unit.package is not None and unit.source else name
        if config.name and config.name != named:
            raise FailedPrecondition(
                f"{unit.owner}'s configuration names another model, {config.name!r}, not {named!r}.", reason="BROKEN_PACKAGE"
            )
        config.name = name
        config.parameters[DIGEST].string_value = unit.digest
        written = [path for path in files if path != CONFIG]
        for path in written:
            with self._artifacts.local(unit.instead.get(path, f"{unit.source}/{path}")) as local:
                self._repository.put_file(local, f"{name}/{path}")
        if not unit.source:
            # Triton wants a folder for the version, and an object store has none without a file.
            self._repository.write_bytes(f"{name}/{_VERSION_FILE}", b"")
            written = [_VERSION_FILE]
        self._repository.write_bytes(f"{name}/{CONFIG}", text_format.MessageToString(config).encode())
        for entry in list(self._repository.iter(name)):
            if entry.path.removeprefix(f"{name}/") not in (CONFIG, *written):
                # Of an earlier package of this name.
                self._repository.delete(entry.path)
        return True

    def remove(self, model: str) -> None:
        """Take a model's folder out, its configuration first, so that a folder half-removed is not taken for whole."""
        self._repository.delete(f"{model}/{CONFIG}")
        self._repository.delete(model)

    def touch(self, model: str) -> None:
        """Make a model's files look changed: Triton loads a model that it believes to be loaded only then."""
        for entry in list(self._repository.iter(model)):
            self._renew(entry.path)

    def _renew(self, path: str) -> None:
        with self._repository.local(path) as local:
            if self._repository.root_uri.startswith("file://"):
                os.utime(local)
            else:
                self._repository.put_file(local, path)


def _parse(data: bytes, model: str) -> model_config_pb2.ModelConfig:
    try:
        return text_format.Parse(data.decode(), model_config_pb2.ModelConfig(), allow_unknown_field=True)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise DataLoss(f"The configuration of the model {model} cannot be read: {error}", reason="BROKEN_PACKAGE") from error
