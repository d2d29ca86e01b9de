"""A dataset of Oteo's own, taken as it is: ids, parts, groups, labels, objects and findings stay, and so does the digest.

What an import otherwise works out (duplicates, groups, parts) was worked out when the dataset was made, or changed since by somebody who knew
why. What can have changed on the way here is the files: each is held against the digest that its row has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from oteo_augment.importing.assembly import Assembly
from oteo_augment.importing.duplicates import equal_groups
from oteo_augment.importing.items import Reading, Stored
from oteo_augment.importing.options import ImportOptions
from oteo_augment.importing.scanned import Scanned, Scans
from oteo_augment.importing.splitting import Cluster, assign
from oteo_core.datasets import Finding, Sample, Severity
from oteo_core.errors import InvalidArgument


def restore(options: ImportOptions, reading: Reading, stored: Stored, scanned: Scans, check: Callable[[], None] = lambda: None) -> Assembly:
    """Hold a dataset's rows against its files.

    A sample whose file is missing, damaged or another one is left out and says so; with ``ignore_source_split`` the samples are parted anew, by
    their groups.

    Parameters
    ----------
    options
        Of the import; near duplicates and group patterns are not looked at.
    reading, stored
        What the source holds.
    scanned
        What its files are.
    check
        Raises where the work is to stop.

    Raises
    ------
    InvalidArgument
        UNKNOWN_CLASS where the caller names other classes than the dataset has, NO_READABLE_IMAGE.
    """
    info = stored.info
    if options.classes and set(options.classes) != set(info.classes):
        raise InvalidArgument(
            f"the dataset has the classes {', '.join(info.classes)}; a dataset of Oteo's own is taken as it is: name these or none",
            reason="UNKNOWN_CLASS",
            field="classes",
        )
    for index, (sample, item) in enumerate(zip(stored.samples, reading.items, strict=True)):
        if index % 256 == 0:
            check()
        if not sample.excluded:
            _check_file(sample, sample.path, None if item.missing else scanned[item.path][0], "image")
        if not sample.excluded and sample.mask_path:
            _check_file(sample, sample.mask_path, scanned[item.mask][0] if item.mask else None, "mask")
    kept = [sample for sample in stored.samples if not sample.excluded]
    if not kept:
        first = next(
            (f"{s.id}: {f.message}" for s in stored.samples for f in s.findings if f.severity is Severity.ERROR), "it has no sample"
        )
        raise InvalidArgument(f"none of the dataset's samples can be used: {first}", reason="NO_READABLE_IMAGE", field="source_uri")
    parted = "kept" if len({sample.split for sample in kept}) > 1 else "none"
    if options.split.ignore_source_split:
        _part(options, kept)
        parted = "ignored"
    return Assembly(
        info.task, info.classes, info.mask, stored.samples, info.exact_duplicate_groups, info.near_duplicate_groups, source_split=parted
    )


def _check_file(sample: Sample, path: str, row: Scanned | None, what: str) -> None:
    if row is None:
        code, message = "MISSING_IMAGE" if what == "image" else "MISSING_ANNOTATION", f"its {what} {path} is not in the source"
    elif row.code:
        code, message = row.code, f"its {what} {path} cannot be used: {row.message}"
    elif row.media != path or (what == "image" and row.sha256 != sample.sha256):
        code, message = "FILE_CHANGED", f"its {what} {path} is not the file that the dataset was made with: its bytes differ"
    else:
        return
    sample.findings += (Finding(Severity.ERROR, code, message, path),)
    sample.excluded = True
    sample.split = ""


def _part(options: ImportOptions, kept: list[Sample]) -> None:
    together = equal_groups([sample.group for sample in kept])
    grouped = {index for members in together for index in members}
    clusters = [*together, *([index] for index in range(len(kept)) if index not in grouped)]
    described = [
        Cluster(
            key=min(kept[i].id for i in members),
            size=len(members),
            classes=Counter(name for i in members for name in set(kept[i].class_names())),
            source_splits={},
        )
        for members in clusters
    ]
    shares = (options.split.train, options.split.validation, options.split.test)
    for members, part in zip(clusters, assign(described, shares, options.split.seed, False), strict=True):
        for index in members:
            kept[index].split = part
