"""Stacks, volumes and clips: a sample for each frame, a name for what belongs together, the order along a DICOM series."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from statistics import median
from typing import Any

from oteo_augment.importing.items import Item
from oteo_augment.importing.paths import natural, plain_name
from oteo_augment.importing.scanned import Scanned, Scans
from oteo_core.datasets import Finding, Sample, Severity

_UNEVEN = 0.05
"""Share of the usual distance by which that of two slices may differ."""


def by_frame(items: Sequence[Item], scans: Scans) -> list[Item]:
    """Give an item for each frame of each file: what a reader says of a file holds for all its frames, what it says of a frame for that one.

    Of a file of which it names frames, only those become samples; the others are counted in a finding.
    """
    named: defaultdict[str, set[int]] = defaultdict(set)
    for item in items:
        if item.frame >= 0:
            named[item.path].add(item.frame)
    result: list[Item] = []
    told: set[str] = set()
    for item in items:
        count = 0 if item.missing else len(scans[item.path])
        if item.frame >= 0:
            if not item.missing and item.frame >= count:
                item.missing = True
                item.report(Severity.ERROR, "MISSING_IMAGE", f"frame {item.frame} is named and {item.path} has {count}, counted from 0")
            elif count > len(named[item.path]) and item.path not in told:
                rest = count - len(named[item.path])
                item.report(
                    Severity.INFO,
                    "FRAMES_NOT_ANNOTATED",
                    f"{rest} of the {count} frames of {item.path} have no annotation and are left out",
                )
            told.add(item.path)
            result.append(item)
        elif count <= 1:
            result.append(item)
        else:
            lists = [each.name for each in fields(item) if isinstance(getattr(item, each.name), list)]
            for number in range(count):
                own: dict[str, Any] = {name: list(getattr(item, name)) for name in lists}
                if number:
                    own["findings"] = []  # whatever is wrong with the file is said once
                result.append(replace(item, frame=number, **own))
    return result


def name_sequences(
    samples: Sequence[Sample], items: Sequence[Item], scans: Scans, sequence_of: Callable[[str], str], shown: Callable[[str], str] = str
) -> None:
    """Say of each sample which stack or clip it is a part of, and where it stands there; give frames ids of their own.

    What belongs together: the frames of a file; the files of a DICOM series, along the normal of its planes; files whose paths name the same
    stack, in the order of their names. A sequence is named after its first file and its content, so that the same frames have the same name
    wherever they lie, and an augmentation gives them the same parameters. `sequence_of` and the order of names go by what `shown` gives for a path:
    names that are hidden have no order.
    """
    members: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for index, (sample, item) in enumerate(zip(samples, items, strict=True)):
        if item.missing:
            continue
        rows = scans[item.path]
        if len(rows) > 1:
            sample.id = f"{sample.id}-{max(item.frame, 0):0{len(str(len(rows) - 1))}}"
            sample.media_kind = rows[0].media_kind if rows[0].media_kind != "image" else "stack"
        if sample.excluded:
            continue
        if len(rows) > 1:
            members["file", item.path].append(index)
        elif pattern := sequence_of(shown(item.path)):
            members["pattern", pattern].append(index)
        elif rows[0].series:
            # The same series in another folder is another copy of it.
            members["series", f"{item.path.rpartition('/')[0]}/{rows[0].series}"].append(index)
    for (kind, _), found in members.items():
        if len(found) < 2:
            continue
        found.sort(key=_order(kind, items, scans, shown))
        digest = hashlib.sha256("\n".join(samples[i].pixel_digest for i in found).encode()).hexdigest()[:12]
        first = plain_name(items[found[0]].path) or "sequence"
        for place, index in enumerate(found):
            sample = samples[index]
            sample.sequence, sample.frame, sample.frames = f"{first}-{digest}", place, len(found)
            if sample.media_kind == "image":
                sample.media_kind = "stack"
        if kind == "series":
            _check_geometry([samples[i] for i in found], [scans[items[i].path][0] for i in found])
    _tell_apart(samples)


def name_patients(samples: Sequence[Sample], items: Sequence[Item], scans: Scans) -> None:
    """Group what DICOM headers say is of one person, under numbers in the order of files; what the source itself says goes first."""
    numbers: dict[str, int] = {}
    for sample, item in zip(samples, items, strict=True):
        patient = "" if item.missing else scans[item.path][0].patient
        if patient:
            number = numbers.setdefault(patient, len(numbers) + 1)
            sample.group = sample.group or f"patient-{number:04}"


def _order(kind: str, items: Sequence[Item], scans: Scans, shown: Callable[[str], str]) -> Callable[[int], tuple[object, ...]]:
    def key(index: int) -> tuple[object, ...]:
        path = items[index].path
        if kind == "file":
            return (items[index].frame,)
        if kind == "series":
            position = scans[path][0].position
            return (position is None, position or 0.0, natural(shown(path)))
        return (natural(shown(path)),)

    return key


def _tell_apart(samples: Sequence[Sample]) -> None:
    """Give two sequences of equal frames different names."""
    seen: dict[str, dict[int, int]] = {}
    for sample in samples:
        if not sample.sequence:
            continue
        places = seen.setdefault(sample.sequence, {})
        number = places[sample.frame] = places.get(sample.frame, 0) + 1
        if number > 1:
            sample.sequence = f"{sample.sequence}-{number}"


def _check_geometry(samples: Sequence[Sample], rows: Sequence[Scanned]) -> None:
    """Give a series its distance of slices, and say where slices are missing, double or of another scale."""
    positions = [row.position for row in rows]
    if any(position is None for position in positions):
        return
    known = [position for position in positions if position is not None]
    steps = [after - before for before, after in pairwise(known)]
    usual = median(steps)
    if usual > 0:
        for sample in samples:
            if len(sample.spacing) == 2:
                sample.spacing = (*sample.spacing, usual)
    for before, (sample, step) in zip(samples, zip(samples[1:], steps, strict=True), strict=False):
        if step <= 0:
            _note(sample, "DUPLICATE_SLICE", f"it lies in the same place as {before.source_path}", before)
        elif usual > 0 and abs(step - usual) > _UNEVEN * usual:
            _note(
                sample,
                "SLICE_GAP",
                f"it lies {step:g} mm behind {before.source_path}; slices of its series usually lie {usual:g} mm apart",
                before,
            )
    scales = {tuple(round(value, 3) for value in sample.spacing[:2]) for sample in samples}
    if len(scales) > 1:
        _note(samples[0], "INCONSISTENT_SPACING", f"slices of its series have different distances of pixels: {sorted(scales)}", samples[0])


def _note(sample: Sample, code: str, message: str, other: Sample) -> None:
    related = (other.id,) if other is not sample else ()
    sample.findings += (Finding(Severity.WARNING, code, message, sample.source_path, related),)
