"""Images that are named, not sent: samples of datasets and objects of the artifact store, and nothing outside it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import pyarrow.compute as pc

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets.reader import DatasetReader
from oteo_core.errors import InvalidArgument, NotFound, OteoError

_KEPT_DATASETS = 4
_TRUSTED_SECONDS = 5.0


class ImageSource(Protocol):
    """``oteo.type.v1.ImageSource``."""

    sample: str
    uri: str
    content: bytes


class ImageStore:
    """Reads named images.

    Parameters
    ----------
    store
        The artifact store.
    max_bytes
        Largest encoded image, bytes.
    """

    def __init__(self, store: ArtifactStore, max_bytes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        # By dataset: when its manifest was last read, its digest, and its samples' ids and paths.
        self._tables: OrderedDict[str, tuple[float, str, Any]] = OrderedDict()

    def source(self, image: ImageSource) -> bytes:
        """Give the bytes of the contract's image: those of a sample, of an object of the store, or those that came with it."""
        if image.sample:
            return self.sample(image.sample)
        if image.uri:
            return self.object(image.uri)
        return image.content

    def sample(self, name: str) -> bytes:
        """Read the image of a sample.

        Parameters
        ----------
        name
            ``datasets/{dataset}/samples/{sample}``.

        Raises
        ------
        NotFound
            ``DATASET_NOT_FOUND`` or ``SAMPLE_NOT_FOUND``.
        """
        path = self._value(name, "path")
        if not path:
            raise NotFound(
                f"There is no sample {name}, or it was left out of the dataset.", reason="SAMPLE_NOT_FOUND", field="image.sample"
            )
        return self._read(f"datasets/{name.split('/', 2)[1]}/{path}", "image.sample")

    def spacing(self, name: str) -> tuple[float, float] | None:
        """Give width and height of a sample's pixels in mm; None where not known. Errors as `sample`."""
        values = self._value(name, "spacing")
        if not values or len(values) < 2 or min(values[:2]) <= 0:
            return None
        return float(values[0]), float(values[1])

    def bit_depth(self, name: str) -> int:
        """Give the bits that a sample's 16-bit pixels fill, as its import found them; 0 where it says nothing. Errors as `sample`."""
        return int(self._value(name, "bit_depth") or 0)

    def object(self, uri: str) -> bytes:
        """Read an image of the artifact store.

        Parameters
        ----------
        uri
            The object's URI below the artifact store's root, or its path relative to it.

        Raises
        ------
        InvalidArgument
            ``FOREIGN_URI``: it lies somewhere else.
        NotFound
            ``IMAGE_NOT_FOUND``.
        """
        root = self._store.root_uri.rstrip("/") + "/"
        path = uri.removeprefix(root)
        if "://" in path or path.startswith("/") or "::" in path or ".." in path.split("/") or "\\" in path:
            raise InvalidArgument(
                f"{uri!r} is not in the artifact store; send the bytes, import the image into a dataset, or give a URI below {root}",
                reason="FOREIGN_URI",
                field="image.uri",
            )
        return self._read(path, "image.uri")

    def _value(self, name: str, column: str) -> Any:
        """Give what the table says of a sample; None where it has no such sample. Errors as `sample`."""
        _, dataset, _, sample = name.split("/", 3)
        try:
            table = self._table(dataset)
        except NotFound as error:
            raise _at_field(error, "image.sample") from error
        row = pc.index(table["id"], sample).as_py()
        return table[column][row].as_py() if row >= 0 else None

    def _read(self, path: str, field: str) -> bytes:
        try:
            with self._store.open(path) as file:
                # One byte more than allowed tells a file that is too large without reading it whole.
                data: bytes = file.read(self._max_bytes + 1)
        except NotFound as error:
            raise NotFound(f"There is no image at {path} in the artifact store.", reason="IMAGE_NOT_FOUND", field=field) from error
        except InvalidArgument as error:
            raise _at_field(error, field) from error
        if len(data) > self._max_bytes:
            raise InvalidArgument(f"{path} has more than {self._max_bytes} bytes.", reason="IMAGE_TOO_LARGE", field=field)
        return data

    def _table(self, dataset: str) -> Any:
        now = self._clock()
        with self._lock:
            kept = self._tables.get(dataset)
            if kept is not None and now - kept[0] < _TRUSTED_SECONDS:
                self._tables.move_to_end(dataset)
                return kept[2]
        reader = DatasetReader(self._store, dataset)
        # A dataset never changes, but one of its name may be deleted and imported again.
        table = kept[2] if kept is not None and kept[1] == reader.info.digest else reader.table(["id", "path", "spacing", "bit_depth"])
        with self._lock:
            self._tables[dataset] = (now, reader.info.digest, table)
            self._tables.move_to_end(dataset)
            while len(self._tables) > _KEPT_DATASETS:
                self._tables.popitem(last=False)
        return table


def _at_field(error: OteoError, field: str) -> OteoError:
    return type(error)(error.message, reason=error.reason, field=field, metadata=error.metadata)
