"""What workers of an import are given, and where they write."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from oteo_augment.importing.source import SourceRef
from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import from_exception
from oteo_core.images import ImageLimits


@dataclass(frozen=True)
class ScanPlan:
    """What workers need to scan: picklable.

    Parameters
    ----------
    source
        Where the files are.
    target_root, target_prefix
        Root URI of the artifact store and the dataset's folder in it, to which media are copied.
    limits
        Largest images.
    target_options
        fsspec's options for the store.
    by_frame
        True: a file of several frames becomes a file for each; False: files are taken as they are.
    mask_colors
        As in `Reading`.
    secret
        Key of the hashes that stand for what DICOM headers say.
    """

    source: SourceRef
    target_root: str
    target_prefix: str
    limits: ImageLimits
    target_options: dict[str, object] = field(default_factory=dict)
    by_frame: bool = True
    secret: bytes = b""
    mask_colors: tuple[tuple[tuple[int, int, int], int], ...] = ()


class Target:
    """Where copies go: straight files on a local store, objects elsewhere.

    What is staged is nobody's until it is published, so that it needs neither the rename nor the flush that `write_bytes` makes for each
    object: a shard that was killed is written again as a whole.
    """

    def __init__(self, plan: ScanPlan) -> None:
        self._store = ArtifactStore(plan.target_root, **plan.target_options)
        self._prefix = plan.target_prefix
        uri = self._store.uri(self._prefix)
        self._folder = uri.removeprefix("file://") if uri.startswith("file://") else ""
        self._made: set[str] = set()

    def write(self, path: str, data: bytes) -> None:
        """Write a file, inside the dataset's folder.

        Raises
        ------
        OteoError
            DISK_FULL, READ_ONLY_TARGET.
        """
        if not self._folder:
            self._store.write_bytes(f"{self._prefix}/{path}", data)
            return
        folder = path.rpartition("/")[0]
        try:
            if folder not in self._made:
                os.makedirs(f"{self._folder}/{folder}", exist_ok=True)
                self._made.add(folder)
            descriptor = os.open(f"{self._folder}/{path}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise from_exception(exc) from exc
