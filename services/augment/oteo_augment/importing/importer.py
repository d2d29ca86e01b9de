"""The import as a whole: from a source to a dataset in a staging folder."""

from __future__ import annotations

import hashlib
import secrets
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from oteo_augment.importing.archives import ArchiveLimits
from oteo_augment.importing.assembly import Assembly, assemble
from oteo_augment.importing.detection import detect_format
from oteo_augment.importing.items import Reading
from oteo_augment.importing.names import Names, names_of
from oteo_augment.importing.options import ImportOptions
from oteo_augment.importing.readers import DETECTORS, READERS
from oteo_augment.importing.restoring import restore
from oteo_augment.importing.scanned import Scanned, from_bytes, to_bytes
from oteo_augment.importing.scanning import scan_shard, shard_key
from oteo_augment.importing.source import Source, SourceFile, open_source
from oteo_augment.importing.targets import ScanPlan
from oteo_augment.importing.tasks import check_classes, choose_task
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetInfo, DatasetWriter
from oteo_core.datasets import Task as Question
from oteo_core.datasets.staging import staged_sizes
from oteo_core.deidentification.keys import derived, pseudonym
from oteo_core.errors import InvalidArgument, OteoError
from oteo_core.images import FORMATS, ImageLimits
from oteo_core.images.sequences import ENDINGS as SEQUENCE_ENDINGS
from oteo_core.jobs.executor import Executor, Task
from oteo_core.memory import rare_collections

SHARD = 500
"""Files of one shard."""
FAN_OUT_FROM = 2000
"""Files from which shards go to an executor: below, its workers would not be warm before the work is done."""
_NOT_USED_SHOWN = 1000
_PLAIN = tuple(ending for endings in FORMATS.values() for ending in endings)


@dataclass(frozen=True)
class Limits:
    """Largest images and archives."""

    images: ImageLimits = field(default_factory=ImageLimits)
    archives: ArchiveLimits = field(default_factory=ArchiveLimits)


@dataclass
class Hooks:
    """What an import tells its surroundings and asks of them; the defaults do nothing.

    Parameters
    ----------
    check
        Raises where the work is to stop.
    progress
        Takes the share done, 0 to 1, and what is done now.
    found
        Takes the format and the number of files.
    read
        Takes the number of files read so far and how often each (code, severity) was found.
    load, save
        Checkpoints by name.
    executor
        Opens an executor for the fan-out; None: all is done here.
    key
        Gives the key of de-identification; asked only where a source may hold DICOM.
    """

    check: Callable[[], None] = lambda: None
    progress: Callable[[float, str], None] = lambda fraction, stage: None
    found: Callable[[str, int], None] = lambda name, count: None
    read: Callable[[int, Counter[tuple[str, str]]], None] = lambda count, findings: None
    load: Callable[[str], bytes | None] = lambda name: None
    save: Callable[[str, bytes], None] = lambda name, data: None
    executor: Callable[[], AbstractContextManager[Executor]] | None = None
    key: Callable[[], bytes] = lambda: secrets.token_bytes(32)


@dataclass(frozen=True)
class ImportResult:
    """What an import made: the dataset's description and, in a sentence, why the format was taken for what it is."""

    info: DatasetInfo
    format_reason: str


@dataclass
class _Opened:
    source: Source
    format: str
    reason: str
    reading: Reading
    task: str
    scanned: dict[str, list[Scanned]] = field(default_factory=dict)
    resumed: bool = False

    def conceal(self, names: Names) -> None:
        """Hide the names of files in all that was read and scanned."""
        if names:
            names.reading(self.reading)
            for rows in self.scanned.values():
                for row in rows:
                    names.row(row)
            self.scanned = {names.hide(path): rows for path, rows in self.scanned.items()}


def inspect(options: ImportOptions, scratch: Path, limits: Limits, check: Callable[[], None] = lambda: None) -> tuple[str, str, int]:
    """Check a request and its source without decoding or writing anything.

    Returns
    -------
    tuple
        The format, why it was taken for that, and the number of images.

    Raises
    ------
    OteoError
        As `import_dataset`, as far as annotations and names tell.
    """
    with open_source(options.source_uri, scratch, limits.archives, check) as source:
        opened = _read(options, source, secrets.token_bytes(32))
        return opened.format, opened.reason, len(opened.reading.items)


def import_dataset(
    options: ImportOptions, store: ArtifactStore, prefix: str, *, limits: Limits, hooks: Hooks, provenance: dict[str, object] | None = None,
    store_options: dict[str, object] | None = None, scratch: Path | None = None, uid: str = "", create_time: str = "",
) -> ImportResult:  # fmt: skip
    """Read, check and part a source, and write a dataset under a prefix of a store.

    Parameters
    ----------
    options
        What to import and how.
    store, prefix
        Where to write: a staging folder, which is published by the caller.
    limits
        Largest images and archives.
    hooks
        Progress, stopping, checkpoints, fan-out.
    provenance
        What else the dataset should say of how it was made.
    store_options
        fsspec's options with which workers open the store.
    scratch
        Local folder for unpacked archives; a temporary one if left out.
    uid, create_time
        Of the dataset, so that a job that is run again makes the same one; new ones if left out.

    Raises
    ------
    NotFound
        SOURCE_NOT_FOUND.
    InvalidArgument
        EMPTY_SOURCE, UNSUPPORTED_FORMAT, UNSAFE_ARCHIVE, WRONG_TASK, SINGLE_CLASS, UNKNOWN_CLASS, NO_READABLE_IMAGE and others, each with the
        field of the request that is to blame.
    ResourceExhausted
        DISK_FULL.
    FailedPrecondition
        READ_ONLY_TARGET.
    """
    _ = options.split.pattern, options.split.stack_pattern  # refuse a bad pattern before anything is read
    with rare_collections(), tempfile.TemporaryDirectory(prefix="oteo-import-", dir=scratch) as folder:
        hooks.progress(0.0, "looking at the source")
        with open_source(options.source_uri, Path(folder), limits.archives, hooks.check) as source:
            hooks.progress(0.03, "reading annotations")
            key = derived(hooks.key(), "import", uid or options.dataset_id) if _may_hold_dicom(source) else b""
            opened = _read(options, source, key)
            images, masks = _files(opened)
            hooks.found(opened.format, len(images) + len(masks))
            plan = ScanPlan(
                source.ref,
                store.root_uri,
                prefix,
                limits.images,
                store_options or {},
                opened.reading.stored is None,
                key,
                opened.reading.mask_colors,
            )
            names = names_of(source, opened.reading, options, key)
            opened.scanned, opened.resumed = _scan(plan, store, source, images, masks, hooks, names)
            # What is not DICOM keeps its names.
            names = names if any(row.dicom for rows in opened.scanned.values() for row in rows) else Names(b"")
            opened.conceal(names)
            hooks.progress(0.86, "checking, grouping and parting")
            stored = opened.reading.stored
            if stored is None:
                result = assemble(options, opened.format, opened.task, opened.reading, opened.scanned, hooks.check, names)
            else:
                result = restore(options, opened.reading, stored, opened.scanned, hooks.check)
                options = _completed(options, stored.info)
                provenance = {"stored": _origin(stored.info), **(provenance or {})}
            hooks.progress(0.93, "writing the table")
            info = _write(options, opened, names, result, store, prefix, {**(provenance or {})}, hooks, uid, create_time)
    hooks.progress(0.99, "publishing")
    return ImportResult(info, opened.reason)


def _may_hold_dicom(source: Source) -> bool:
    return not all(path.lower().endswith(_PLAIN) for path in source.images)


def _read(options: ImportOptions, source: Source, key: bytes) -> _Opened:
    try:
        return _read_plainly(options, source)
    except OteoError as exc:
        # What is wrong with a source is told by names; beside DICOM they are hidden here too.
        dicom = any(path.lower().endswith(SEQUENCE_ENDINGS["dicom"]) for path in source.files)
        names = names_of(source, None, options, key if dicom else b"")
        if not names:
            raise
        raise names.error(exc) from None


def _read_plainly(options: ImportOptions, source: Source) -> _Opened:
    if options.format:
        name, reason = options.format, DETECTORS[options.format](source)
        if not reason:
            raise InvalidArgument(
                f"{source.description} is not in the format {name}: it lacks what that format is made of",
                reason="UNSUPPORTED_FORMAT",
                field="format",
            )
    else:
        name, reason = detect_format(source)
    reading = READERS[name](source)
    task = (
        ""
        if reading.masked and not options.task and reading.tasks[0] in (Question.SEMANTIC, Question.INSTANCE)
        else choose_task(options.task, reading, name)
    )
    if task == Question.CLASSIFICATION and reading.stored is None:
        # Told by folders alone: no need to decode a thousand images to say so.
        allowed = set(options.classes or reading.classes)
        check_classes(
            task, (label for item in reading.items for label in item.labels if label in allowed), options.classes, reading.classes
        )
    return _Opened(source, name, reason, reading, task)


def _completed(options: ImportOptions, info: DatasetInfo) -> ImportOptions:
    """Take from a dataset of Oteo's own what the caller leaves open."""
    return replace(
        options,
        display_name=options.display_name or info.display_name,
        domain=options.domain or info.domain,
        labels=info.labels | options.labels,
    )


def _origin(info: DatasetInfo) -> dict[str, object]:
    """Say which dataset a copy was made from, and how that was made."""
    return {
        "id": info.id, "uid": info.uid, "digest": info.digest, "create_time": info.create_time, "source": info.source,
        "source_format": info.source_format, "provenance": info.provenance,
    }  # fmt: skip


def _files(opened: _Opened) -> tuple[list[SourceFile], list[SourceFile]]:
    files = opened.source.files
    images = sorted({item.path for item in opened.reading.items if not item.missing and item.path in files})
    masks = sorted({item.mask for item in opened.reading.items if item.mask})
    folders: dict[str, list[SourceFile]] = {path: [] for path in masks if path.endswith("/")}
    for path, file in files.items() if folders else ():
        if (folder := path[: path.rfind("/") + 1]) in folders:
            folders[folder].append(file)
    colors = opened.reading.mask_colors
    return [files[path] for path in images], [_version(path, folders.get(path) or [files[path]], colors) for path in masks]


def _version(path: str, parts: Sequence[SourceFile], colors: Sequence[object]) -> SourceFile:
    """Give a mask as a file whose mark changes when one of its parts does, or what its colours mean."""
    if len(parts) == 1 and parts[0].path == path and not colors:
        return parts[0]
    digest = hashlib.sha256(repr((colors, [(part.path, part.size, part.version) for part in parts])).encode())
    return SourceFile(path, sum(part.size for part in parts), digest.hexdigest()[:32])


def _scan(
    plan: ScanPlan, store: ArtifactStore, source: Source, images: Sequence[SourceFile], masks: Sequence[SourceFile], hooks: Hooks,
    names: Names,
) -> tuple[dict[str, list[Scanned]], bool]:  # fmt: skip
    shards: list[tuple[list[SourceFile], list[SourceFile]]] = [(list(images[i : i + SHARD]), []) for i in range(0, len(images), SHARD)]
    shards += [([], list(masks[i : i + SHARD])) for i in range(0, len(masks), SHARD)]
    total = max(1, len(images) + len(masks))
    scanned: dict[str, list[Scanned]] = {}
    counts: Counter[tuple[str, str]] = Counter()
    staged: dict[str, int] | None = None

    def take(data: bytes) -> None:
        for row in from_bytes(data):
            row.path = names.show(row.path)
            scanned.setdefault(row.path, []).append(row)
            if row.code:
                counts[row.code, "error"] += 1
        hooks.read(len(scanned), counts)
        hooks.progress(0.05 + 0.8 * len(scanned) / total, "reading images")

    mark = f"-{pseudonym(plan.secret, 'checkpoint', '', 8)}" if plan.secret else ""
    pending: list[tuple[str, list[str], list[str]]] = []
    for shard_images, shard_masks in shards:
        # Rows that were hashed under another key are worth nothing.
        key = f"scan-{shard_key(shard_images, shard_masks)}{mark}.arrow"
        data = hooks.load(key)
        if data is not None:
            if staged is None:
                staged = staged_sizes(store, plan.target_prefix)
            # A checkpoint speaks of copies; where those are gone (a cleaned staging folder) it is worth nothing.
            if all(not row.media or staged.get(row.media) == row.size for row in from_bytes(data)):
                take(data)
                continue
        pending.append((key, [file.path for file in shard_images], [file.path for file in shard_masks]))
    remaining = sum(len(one) + len(two) for _, one, two in pending)
    if hooks.executor is not None and remaining > FAN_OUT_FROM:
        with hooks.executor() as executor:
            _fan_out(executor, plan, pending, hooks, take, names)
    else:
        for key, image_paths, mask_paths in pending:
            data = _hidden(scan_shard(plan, image_paths, mask_paths, hooks.check), names)
            hooks.save(key, data)
            take(data)
    return scanned, staged is not None


def _hidden(data: bytes, names: Names) -> bytes:
    """Hide the names in a shard's table: it becomes a checkpoint, which outlives the import."""
    rows = list(from_bytes(data)) if names else []
    if not any(row.dicom for row in rows):
        return data
    for row in rows:
        names.row(row)
    return to_bytes(rows)


def _fan_out(
    executor: Executor, plan: ScanPlan, pending: Sequence[tuple[str, list[str], list[str]]], hooks: Hooks, take: Callable[[bytes], None],
    names: Names,
) -> None:  # fmt: skip
    # A few more tasks than cores, so that a core never waits for this loop and a cancelled job has little to wait for.
    width = max(2, int(executor.cpus) * 2)
    queue = list(pending)[::-1]
    running: dict[Task[bytes], str] = {}
    while queue or running:
        hooks.check()
        while queue and len(running) < width:
            key, image_paths, mask_paths = queue.pop()
            running[executor.submit(scan_shard, plan, image_paths, mask_paths)] = key
        done, _ = executor.wait(list(running), timeout=0.5)
        for task in done:
            key = running.pop(task)
            data = _hidden(task.result(), names)
            hooks.save(key, data)
            take(data)


def _write(
    options: ImportOptions, opened: _Opened, names: Names, result: Assembly, store: ArtifactStore, prefix: str, provenance: dict[str, object],
    hooks: Hooks, uid: str, create_time: str,
) -> DatasetInfo:  # fmt: skip
    not_used = sorted(names.hide(path) for path in set(opened.source.files) - opened.reading.used)
    split = options.split
    info = DatasetInfo(
        id=options.dataset_id,
        uid=uid,
        create_time=create_time,
        display_name=options.display_name or options.dataset_id,
        task=result.task,
        classes=result.classes,
        domain=options.domain,
        source_format=opened.format,
        source=options.source_name or options.source_uri,
        labels=dict(options.labels),
        mask=result.mask,
        skeletons=opened.reading.skeletons,
        exact_duplicate_groups=result.exact_groups,
        near_duplicate_groups=result.near_groups,
        provenance={
            **provenance,
            "format_reason": names.text(opened.reason),
            "split": {
                "shares": [split.train, split.validation, split.test],
                "seed": split.seed,
                "group_pattern": split.group_pattern,
                "sequence_pattern": split.sequence_pattern,
                "near_duplicate_distance": split.near_duplicate_distance,
                "source_split": result.source_split,
            },
            "files_not_used": not_used[:_NOT_USED_SHOWN],
            "files_not_used_count": len(not_used),
        },
    )
    with DatasetWriter(store, prefix, info) as writer:
        for path, size in _drop_unused(opened, result, store, prefix).items():
            writer.note_media(path, size)
        for index, sample in enumerate(result.samples):
            if index % 256 == 0:
                hooks.check()
            writer.add(sample)
        return writer.finish()


def _drop_unused(opened: _Opened, result: Assembly, store: ArtifactStore, prefix: str) -> dict[str, int]:
    """Delete copies that no kept sample has: of samples that were left out, and of files that changed between two attempts.

    Gives the sizes of those that stay.
    """
    used = {path for sample in result.samples if not sample.excluded for path in (sample.path, sample.mask_path) if path}
    for sample in result.samples:
        if sample.excluded:
            sample.path = sample.mask_path = ""
    copied = {row.media: row.size for rows in opened.scanned.values() for row in rows if row.media}
    if opened.resumed:
        copied |= {entry.path[len(prefix) + 1 :]: entry.size for entry in store.iter(f"{prefix}/media")}
    for path in sorted(copied.keys() - used):
        store.delete(f"{prefix}/{path}")
    return {path: size for path, size in copied.items() if path in used}
