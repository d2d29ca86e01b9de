"""From what was read and what was scanned to checked, grouped, parted samples."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from oteo_augment.importing.checks import check_annotations
from oteo_augment.importing.colors import VOID
from oteo_augment.importing.duplicates import UnionFind, equal_groups, near_pairs
from oteo_augment.importing.items import Item, Reading
from oteo_augment.importing.maskvalues import encoding_of
from oteo_augment.importing.names import Names
from oteo_augment.importing.options import ImportOptions
from oteo_augment.importing.paths import plain_name
from oteo_augment.importing.scanned import Scanned, Scans
from oteo_augment.importing.sequences import by_frame, name_patients, name_sequences
from oteo_augment.importing.splitting import Cluster, assign, counts_of, winner
from oteo_augment.importing.tasks import check_classes, choose_task, shape_for_task
from oteo_core.datasets import Finding, MaskEncoding, Sample, Severity, Task
from oteo_core.deidentification.burned_in import BURNED_IN_TEXT
from oteo_core.errors import InvalidArgument

_MOST_RELATED = 50
_MOST_SHOWN = 3


@dataclass
class Assembly:
    """What becomes of a source: samples in the order of their paths, and what holds for all of them."""

    task: str
    classes: tuple[str, ...]
    mask: MaskEncoding | None
    samples: list[Sample] = field(default_factory=list)
    exact_groups: int = 0
    near_groups: int = 0
    source_split: str = "none"


def assemble(
    options: ImportOptions,
    format_name: str,
    task: str,
    reading: Reading,
    scanned: Scans,
    check: Callable[[], None],
    names: Names | None = None,
) -> Assembly:
    """Check annotations, find duplicates, group and part.

    Paths of `reading` and `scanned` may be hidden ones: `names` is then asked for what patterns and the order of names go by.

    Raises
    ------
    InvalidArgument
        NO_READABLE_IMAGE, SINGLE_CLASS, UNKNOWN_CLASS, WRONG_TASK.
    """
    names = names or Names(b"")
    items = by_frame(sorted(reading.items, key=lambda item: item.path), scanned)
    mask: MaskEncoding | None = None
    mask_classes: tuple[str, ...] = ()
    if reading.masked and task in ("", Task.SEMANTIC, Task.INSTANCE):
        task, mask, mask_classes = encoding_of(
            [row for path in dict.fromkeys(item.mask for item in items if item.mask) for row in scanned[path] if row.values],
            task,
            options.classes,
            reading.mask_numbers,
        )
        task = choose_task(task, reading, format_name)
    known = frozenset(options.classes) if options.classes and mask is None else None
    samples = []
    for index, item in enumerate(items):
        if index % 256 == 0:
            check()
        samples.append(_sample(item, scanned, task, known, mask, mask_classes, options.leave_out_text))
    name_sequences(samples, items, scanned, options.split.sequence_of, names.show)
    name_patients(samples, items, scanned)
    _unique_ids(samples)
    kept = [sample for sample in samples if not sample.excluded]
    _refuse_nothing_left(samples, kept)
    declared = reading.classes or tuple(sorted({name for s in samples for name in s.class_names()}))
    present = {name for sample in kept for name in sample.class_names()}
    if mask is None:
        check_classes(task, present, options.classes, declared)
    # Classes that the source declares and that do not occur keep their numbers.
    classes = mask_classes or options.classes or (reading.classes if task != Task.CLASSIFICATION else tuple(sorted(present)))
    result = Assembly(task, tuple(classes) or tuple(sorted(present)), mask, samples)
    _group_and_part(options, kept, {id(s): i.split for s, i in zip(samples, items, strict=True)}, result, names)
    return result


def sample_id(path: str) -> str:
    """Give a sample's id: the file's name for people and a hash of its whole path, the same in every import."""
    name = plain_name(path)
    digest = hashlib.sha256(path.encode()).hexdigest()[:12]
    return f"{name}-{digest}" if name else digest


def _unique_ids(samples: Sequence[Sample]) -> None:
    taken: set[str] = set()
    for sample in samples:
        number = 2
        plain = sample.id
        while sample.id in taken:
            sample.id, number = f"{plain}-{number}", number + 1
        taken.add(sample.id)


def _sample(
    item: Item,
    scanned: Scans,
    task: str,
    known: frozenset[str] | None,
    mask: MaskEncoding | None,
    mask_classes: Sequence[str],
    leave_out_text: bool,
) -> Sample:
    sample = Sample(id=sample_id(item.path), source_path=item.path, split=item.split, group=item.group)
    row = None if item.missing else scanned[item.path][max(item.frame, 0)]
    out = item.missing or item.unlabelled
    if row is not None:
        sample.sha256 = row.sha256
        if row.code:
            out = True
            item.report(Severity.ERROR, row.code, row.message)
        else:
            sample.path, sample.pixel_digest, sample.phash = row.media, row.pixel_digest, row.phash
            sample.width, sample.height, sample.channels = row.width, row.height, row.channels
            sample.dtype, sample.bit_depth, sample.spacing = row.dtype, row.bit_depth, row.spacing
            if row.note_code:
                item.report(Severity.WARNING, row.note_code, row.note)
            if row.suspicion:
                out = out or leave_out_text
                item.report(Severity.ERROR if leave_out_text else Severity.WARNING, BURNED_IN_TEXT, row.suspicion)
            check_annotations(item, row, known)
            shape_for_task(item, task)
            if item.mask and mask is not None:
                out = _take_mask(item, sample, row, scanned[item.mask], mask, mask_classes) or out
    if not out and task in (Task.CLASSIFICATION, Task.MULTI_LABEL) and not item.labels:
        out = True
        if not any(finding.code == "UNKNOWN_CLASS" for finding in item.findings):
            item.report(Severity.ERROR, "MISSING_ANNOTATION", "no annotation that could be kept says what is on the image")
    sample.labels = tuple(sample.labels or item.labels)
    sample.boxes, sample.polygons, sample.rle = tuple(item.boxes), tuple(item.polygons), tuple(item.rle)
    sample.oriented_boxes, sample.keypoints = tuple(item.oriented_boxes), tuple(item.keypoints)
    sample.excluded = out
    sample.findings = tuple(item.findings)
    if out:
        sample.split = ""
    return sample


def _take_mask(item: Item, sample: Sample, image: Scanned, rows: Sequence[Scanned], mask: MaskEncoding, classes: Sequence[str]) -> bool:
    """Attach a mask to its sample; tell whether the sample has to be left out."""
    if len(rows) not in (1, image.frames):
        item.report(
            Severity.ERROR,
            "MASK_FRAMES_MISMATCH",
            f"its mask {item.mask} has {len(rows)} frames, the image has {image.frames}; one for each is wanted, or one for all",
            item.mask,
        )
        return True
    row = rows[max(item.frame, 0)] if len(rows) > 1 else rows[0]
    if row.code:
        item.report(Severity.ERROR, row.code, f"its mask {item.mask} cannot be used: {row.message}", item.mask)
        return True
    if (row.width, row.height) != (image.width, image.height):
        item.report(
            Severity.ERROR,
            "MASK_SIZE_MISMATCH",
            f"its mask {item.mask} has {row.width} x {row.height} pixels, the image has {image.width} x {image.height}",
            item.mask,
        )
        return True
    sample.mask_path = row.media
    if row.note_code:
        item.report(Severity.WARNING, row.note_code, f"its mask {item.mask}: {row.note}", item.mask)
    if mask.kind == "instance":
        sample.labels = tuple(classes) if any(row.values) else ()
        return False
    by_value = dict(zip(row.values, row.counts, strict=True))
    sample.labels = tuple(name for name, value in zip(classes, mask.values, strict=True) if value in by_value)
    # What colours were not named is said already.
    stray = {
        value: by_value[value] for value in mask.ignore if value in by_value and not (row.note_code == "UNKNOWN_COLOR" and value == VOID)
    }
    if stray:
        shown = ", ".join(f"{value} ({count} pixels)" for value, count in list(stray.items())[:8])
        item.report(
            Severity.WARNING,
            "STRAY_MASK_VALUE",
            f"its mask {item.mask} holds numbers that are no class: {shown}{', ...' if len(stray) > 8 else ''}; those pixels are left aside",
            item.mask,
        )
    return False


def _refuse_nothing_left(samples: Sequence[Sample], kept: Sequence[Sample]) -> None:
    if kept:
        return
    codes = Counter(finding.code for sample in samples for finding in sample.findings if finding.severity is Severity.ERROR)
    if set(codes) == {"UNKNOWN_CLASS"}:
        return  # check_classes says it better
    shown = "; ".join(f"{code} {count} times" for code, count in codes.most_common(_MOST_SHOWN))
    first = next((f"{s.source_path}: {s.findings[0].message}" for s in samples if s.findings), "")
    raise InvalidArgument(
        f"none of the {len(samples)} images can be used ({shown}). The first: {first}", reason="NO_READABLE_IMAGE", field="source_uri"
    )


def _group_and_part(
    options: ImportOptions, kept: Sequence[Sample], source_splits: Mapping[int, str], result: Assembly, names: Names
) -> None:
    exact = UnionFind(len(kept))
    for group in (*equal_groups([s.sha256 for s in kept]), *equal_groups([s.pixel_digest for s in kept])):
        for other in group[1:]:
            exact.join(group[0], other)
    near, partners = _near(kept, options.split.near_duplicate_distance)
    both = UnionFind(len(kept))
    for union in (exact, near):
        for members in union.sets().values():
            for other in members[1:]:
                both.join(members[0], other)
    exact_sets = [members for members in exact.sets().values() if len(members) > 1]
    result.exact_groups = len(exact_sets)
    result.near_groups = sum(len(members) > 1 for members in both.sets().values())
    _report_duplicates(kept, exact_sets, exact, partners)
    patterns = [names.group(options.split.group_of(names.show(sample.source_path))) or sample.group for sample in kept]
    for group in (*equal_groups(patterns), *equal_groups([sample.sequence for sample in kept])):
        for other in group[1:]:
            both.join(group[0], other)
    clusters = list(both.sets().values())
    for members in clusters:
        called = sorted({patterns[i] for i in members} - {""})
        stacks = {kept[i].sequence for i in members}
        if not called and len(members) > 1:
            called = [*stacks] if len(stacks) == 1 and "" not in stacks else [f"like-{min(kept[i].id for i in members)}"]
        name = called[0] if called else ""
        for i in members:
            kept[i].group = name
    _part(options, kept, clusters, source_splits, result)


def _near(kept: Sequence[Sample], distance: int) -> tuple[UnionFind, dict[int, list[int]]]:
    """Join what looks alike; give also each sample's direct partners."""
    union = UnionFind(len(kept))
    by_hash: defaultdict[int, list[int]] = defaultdict(list)
    for index, sample in enumerate(kept):
        if sample.phash is not None:
            by_hash[sample.phash].append(index)
    hashes = sorted(by_hash)
    partners: defaultdict[int, list[int]] = defaultdict(list)

    def link(left: Iterable[int], right: Iterable[int]) -> None:
        ones, others = list(left), list(right)
        for one in ones:
            partners[one] += [other for other in others if other != one][:_MOST_RELATED]

    for members in by_hash.values():
        if len(members) > 1:
            link(members, members)
            for other in members[1:]:
                union.join(members[0], other)
    for a, b in near_pairs(np.array(hashes, np.uint64), distance):
        left, right = by_hash[hashes[a]], by_hash[hashes[b]]
        link(left, right)
        link(right, left)
        union.join(left[0], right[0])
    return union, partners


def _report_duplicates(
    kept: Sequence[Sample], exact_sets: Sequence[Sequence[int]], exact: UnionFind, partners: Mapping[int, Sequence[int]]
) -> None:
    for members in exact_sets:
        meanings = {i: tuple(sorted(kept[i].class_names())) for i in members}
        torn = len(set(meanings.values())) > 1
        for i in members:
            others = [j for j in members if j != i and not _together(kept[i], kept[j])]
            if not others:
                continue
            same_file = [j for j in others if kept[j].sha256 == kept[i].sha256 and _whole_file(kept[i]) and _whole_file(kept[j])]
            how = "is the same file as" if len(same_file) == len(others) else "shows the same pixels as"
            _add(kept, i, Severity.WARNING, "EXACT_DUPLICATE", f"{how} {_named(kept, others)}", others)
            if torn:
                # Some other must differ: were all like this one, the group would not be torn.
                differing = [j for j in others if meanings[j] != meanings[i]]
                if not differing:
                    continue
                what, other = _classes(meanings[i]), _classes(meanings[differing[0]])
                message = f"it is {what}, and the same image {_named(kept, differing)} is {other}; one is wrong"
                _add(kept, i, Severity.WARNING, "CONFLICTING_LABELS", message, differing)
    for i, near in sorted(partners.items()):
        alike = sorted({j for j in near if exact.find(j) != exact.find(i) and not _together(kept[i], kept[j])})
        if alike:
            _add(kept, i, Severity.INFO, "NEAR_DUPLICATE", f"looks like {_named(kept, alike)}", alike)


def _whole_file(sample: Sample) -> bool:
    """Tell whether a sample's file is that of the source, byte for byte, and not a frame that was taken out of it."""
    return not sample.sequence and sample.path.rpartition(".")[2].lower() == sample.source_path.rpartition(".")[2].lower()


def _together(one: Sample, other: Sample) -> bool:
    """Tell whether two samples are frames of one sequence, which are expected to look alike."""
    return bool(one.sequence) and one.sequence == other.sequence


def _part(
    options: ImportOptions, kept: Sequence[Sample], clusters: Sequence[Sequence[int]], source_splits: Mapping[int, str], result: Assembly
) -> None:
    splits = [source_splits[id(sample)] for sample in kept]
    keep_source = not options.split.ignore_source_split
    named = len(set(splits) - {""})
    result.source_split = "none" if named < 2 else "kept" if keep_source else "ignored"
    described = [
        Cluster(
            key=min(kept[i].id for i in members),
            size=len(members),
            classes=_class_counts(kept, members),
            source_splits=counts_of([splits[i] for i in members]),
        )
        for members in clusters
    ]
    shares = (options.split.train, options.split.validation, options.split.test)
    parts = assign(described, shares, options.split.seed, keep_source)
    for members, cluster, part in zip(clusters, described, parts, strict=True):
        for i in members:
            kept[i].split = part
        if result.source_split == "kept" and len(cluster.source_splits) > 1:
            home = winner(cluster.source_splits)
            for i in members:
                if splits[i] and splits[i] != home:
                    others = [j for j in members if splits[j] == home]
                    _add(
                        kept,
                        i,
                        Severity.WARNING,
                        "LEAK",
                        f"the source has it in {splits[i]} and what belongs together with it, {_named(kept, others)}, in {home}; it is now in {part}",
                        others,
                    )


def _class_counts(kept: Sequence[Sample], members: Sequence[int]) -> dict[str, int]:
    if len(members) == 1:  # nearly always, and a Counter takes longer than all else here
        return dict.fromkeys(kept[members[0]].class_names(), 1)
    return Counter(name for i in members for name in set(kept[i].class_names()))


def _add(kept: Sequence[Sample], index: int, severity: Severity, code: str, message: str, others: Sequence[int]) -> None:
    sample = kept[index]
    related = tuple(kept[j].id for j in others[:_MOST_RELATED])
    sample.findings += (Finding(severity, code, message, sample.source_path, related),)


def _named(kept: Sequence[Sample], indices: Sequence[int]) -> str:
    shown = ", ".join(kept[i].source_path for i in indices[:_MOST_SHOWN])
    rest = len(indices) - _MOST_SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown


def _classes(names: Sequence[str]) -> str:
    return (
        ", ".join(f"{name!r} ({count})" if count > 1 else repr(name) for name, count in sorted(Counter(names).items())) or "without a class"
    )
