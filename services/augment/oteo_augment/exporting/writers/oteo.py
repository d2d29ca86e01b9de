"""Oteo's own form: `dataset.json` and `samples.parquet` beside the media, as in the artifact store."""

from __future__ import annotations

import uuid
from dataclasses import replace

from oteo_augment.exporting.writers.base import Job, Writer
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetWriter, Sample, Task


class Oteo(Writer):
    """Writes the dataset as it is; with some parts alone, its counts and digest are those of what was written."""

    name = "oteo"
    tasks = frozenset(Task)
    keeps_groups = True
    keeps_excluded = True

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._store = ArtifactStore(str(job.scratch / "oteo"))
        info = job.info
        if job.splits:
            # A part is another set of data than the whole, and the same one in every run.
            uid = uuid.uuid5(uuid.NAMESPACE_OID, f"{info.uid} {' '.join(sorted(job.splits))}").hex
            info = replace(info, uid=uid, provenance={**info.provenance, "parts_of": info.uid, "parts": sorted(job.splits)})
        self._rows = DatasetWriter(self._store, "dataset", info)
        self._sent: set[str] = set()

    def add(self, sample: Sample) -> None:
        """Copy media that no sample before had, and keep the row."""
        for path, copy in ((sample.path, self.media), (sample.mask_path, self.mask_file)):
            if path and path not in self._sent:
                self._rows.note_media(path, copy(sample, path))
                self._sent.add(path)
        self._rows.add(sample)

    def lost(self, sample: Sample, *, stacked: bool = False) -> None:
        """Nothing is."""

    def finish(self) -> None:
        """Write the table, then the description."""
        info = self._rows.finish()
        with self._store.local("dataset/samples.parquet") as table:
            self.sink.put("samples.parquet", table)
        self.sink.write("dataset.json", info.to_json())
