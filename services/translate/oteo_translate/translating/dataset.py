"""A translated dataset, made by shards: every picture through the translator, everything else as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetInfo, DatasetReader, DatasetWriter, Finding, Sample, Severity
from oteo_core.datasets.media_files import media_file
from oteo_core.datasets.sharding import Checkpoints, ShardResult, cut, made_shards, make_shards
from oteo_core.datasets.staging import Target
from oteo_core.errors import InvalidArgument
from oteo_core.images import ImageLimits, perceptual_hash, pixel_digest
from oteo_core.jobs.executor import Executor
from oteo_core.packages.translators import TranslatorPackage
from oteo_translate.translating.translator import Translator, cached_translator


@dataclass(frozen=True)
class TranslationJob:
    """What a worker needs to know, the samples aside.

    Attributes
    ----------
    store_uri, store_options
        The artifact store.
    dataset
        Id of the source.
    target
        Prefix to write media below.
    translator, digest
        Name of the translator, and its package's digest.
    limits
        Largest images.
    """

    store_uri: str
    store_options: tuple[tuple[str, Any], ...]
    dataset: str
    target: str
    translator: str
    digest: str
    limits: ImageLimits


@dataclass(frozen=True)
class Outcome:
    """What was made: the dataset, complete in its staging folder; samples translated; samples left out."""

    info: DatasetInfo
    translated: int
    left_out: int


def translate_dataset(
    store: ArtifactStore,
    source: str,
    package: TranslatorPackage,
    target: DatasetInfo,
    *,
    staging: str,
    store_options: dict[str, Any],
    limits: ImageLimits,
    executor: Executor,
    checkpoints: Checkpoints,
    progress: Callable[[int, int], None],
) -> Outcome:
    """Write a translated dataset below `staging`.

    Annotations, parts and groups stay; pixels move in value alone. A picture that cannot be translated is left out of use, with a finding
    that says why: among translated images one as it was would be a shift of its own.

    Parameters
    ----------
    store, store_options
        The artifact store and the options that workers open it with.
    source
        Id of the dataset.
    package
        The translator; whoever calls has checked that it may be used.
    target
        Id, name and provenance of the new dataset.
    staging, limits, executor, checkpoints
        As of `oteo_core.datasets.sharding.make_shards`.
    progress
        Called with the rows that are done and all rows.

    Raises
    ------
    NotFound
        ``DATASET_NOT_FOUND``.
    FailedPrecondition
        ``TRANSLATOR_CHANGED``: it was replaced meanwhile.
    """
    reader = DatasetReader(store, source)
    total = reader.info.sample_count + reader.info.excluded_count
    options = tuple(sorted(store_options.items()))
    job = TranslationJob(store.root_uri, options, source, staging, package.name, package.digest, limits)
    shards = make_shards(
        store,
        staging,
        cut(reader.samples(include_excluded=True)),
        lambda samples: executor.submit(translate_shard, job, samples),
        executor,
        checkpoints,
        lambda done: progress(done, total),
    )
    known = reader.info
    info = replace(
        target,
        task=known.task,
        classes=known.classes,
        domain=target.domain or f"{known.domain or source}, translated",
        source_format=known.source_format,
        source=f"datasets/{known.id}",
        labels={**known.labels, **target.labels},
        mask=known.mask,
        skeletons=known.skeletons,
        provenance={
            **target.provenance,
            "source_dataset": known.id,
            "source_digest": known.digest,
            "source_provenance": known.provenance,
            "translator": {
                "name": package.name,
                "uid": package.uid,
                "digest": package.digest,
                "method": package.method,
                "accepted": package.accepted,
                "model": package.model,
            },
        },
    )
    counts = {"translated": 0, "left_out": 0}
    with DatasetWriter(store, staging, info) as writer:
        for result in made_shards(shards, checkpoints):
            for name in counts:
                counts[name] += result.counts[name]
            for path, size in result.media.items():
                writer.note_media(path, size)
            for sample in result.samples:
                writer.add(sample)
        info = writer.finish()
    return Outcome(info, counts["translated"], counts["left_out"])


def translate_shard(job: TranslationJob, samples: Sequence[Sample]) -> bytes:
    """Translate samples; gives a `ShardResult`.

    Raises
    ------
    DataLoss
        ``MEDIA_LOST`` where a file of the source is gone.
    """
    store = ArtifactStore(job.store_uri, **dict(job.store_options))
    reader = DatasetReader(store, job.dataset)
    translator = cached_translator(job.store_uri, job.store_options, job.translator, job.digest)
    target = Target(store, job.target)
    rows: list[Sample] = []
    media: dict[str, int] = {}
    counts = {"translated": 0, "left_out": 0}

    def write(path: str, data: bytes) -> None:
        if path not in media:
            target.write(path, data)
            media[path] = len(data)

    for sample in samples:
        if sample.excluded or not sample.path:
            rows.append(replace(sample, path="", mask_path="", excluded=True))
            continue
        try:
            row, path, data = _translated(reader, sample, translator, job)
        except InvalidArgument as error:
            finding = Finding(Severity.ERROR, error.reason or "NOT_TRANSLATED", f"not translated, left out: {error.message}")
            rows.append(replace(sample, path="", mask_path="", excluded=True, findings=(*sample.findings, finding)))
            counts["left_out"] += 1
            continue
        write(path, data)
        if sample.mask_path:
            write(sample.mask_path, reader.read_mask(sample))
        rows.append(row)
        counts["translated"] += 1
    return ShardResult(tuple(rows), media, counts).to_bytes()


def _translated(reader: DatasetReader, sample: Sample, translator: Translator, job: TranslationJob) -> tuple[Sample, str, bytes]:
    if not sample.is_picture:
        raise InvalidArgument(
            f"a {sample.media_kind} of {sample.frames} frames in one file; import it again, which makes a sample of each",
            reason="MEDIA_NOT_SUPPORTED",
        )
    pixels = translator.apply(reader.image(sample, job.limits).pixels, sample.bit_depth)
    path, data, digest = media_file(pixels)
    words = {"translator": job.translator, "translator_digest": job.digest, "dataset": job.dataset, "pixel_digest": sample.pixel_digest}
    row = replace(
        sample,
        path=path,
        sha256=digest,
        pixel_digest=pixel_digest(pixels),
        phash=perceptual_hash(pixels),
        derived_from=sample.id,
        provenance=json.dumps(words, sort_keys=True),
    )
    return row, path, data
