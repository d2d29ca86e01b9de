"""What workers of an import are given."""

from __future__ import annotations

from dataclasses import dataclass, field

from oteo_augment.importing.source import SourceRef
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets.staging import Target
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

    def target(self) -> Target:
        """Open the place to write to."""
        return Target(ArtifactStore(self.target_root, **self.target_options), self.target_prefix)
