"""One call that imports a source and reads everything back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from oteo_augment.importing import Hooks, ImportOptions, Limits, SplitOptions, import_dataset
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetInfo, DatasetReader, Sample
from oteo_core.images import ImageLimits


@dataclass
class Imported:
    """A dataset that was imported, with all its samples by the path in the source."""

    info: DatasetInfo
    reason: str
    samples: dict[str, Sample]
    reader: DatasetReader

    def codes(self, path: str) -> list[str]:
        return [finding.code for finding in self.samples[path].findings]

    def splits(self) -> dict[str, str]:
        return {path: sample.split for path, sample in self.samples.items() if not sample.excluded}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"))


@pytest.fixture
def import_source(store: ArtifactStore) -> Callable[..., Imported]:
    """Import a source and read everything back."""

    def run(
        source: Path | str,
        *,
        split: SplitOptions | None = None,
        hooks: Hooks | None = None,
        name: str = "made",
        limits: ImageLimits | None = None,
        **options: Any,
    ) -> Imported:
        store.delete(f"datasets/{name}")
        result = import_dataset(
            # Tests speak of files by their names; those that hide them say so.
            ImportOptions(name, str(source), split=split or SplitOptions(), **{"keep_names": True, **options}),
            store,
            f"datasets/{name}",
            limits=Limits(images=limits or ImageLimits()),
            hooks=hooks or Hooks(),
        )
        reader = DatasetReader(store, name)
        samples = {sample.source_path: sample for sample in reader.samples(include_excluded=True)}
        assert reader.info == result.info
        return Imported(result.info, result.format_reason, samples, reader)

    return run
