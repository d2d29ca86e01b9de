"""The same picture more than once: equal pixels, perceptual hashes that nearly agree, and one picture under two labels."""

from __future__ import annotations

from oteo_augment.auditing.data import AuditData
from oteo_augment.auditing.findings import AuditFinding, CheckResult, plural, some
from oteo_augment.importing.splitting import counts_of, winner
from oteo_core.datasets import Sample, Severity, Task

_NAME = "duplicates"
_LABELLED = (Task.CLASSIFICATION, Task.MULTI_LABEL)


def answers(sample: Sample) -> object:
    """Give what a sample teaches, comparable: labels and places, not the wording of its file."""
    return (
        tuple(sorted(sample.labels)),
        tuple(sorted((b.class_name, b.crowd, *(round(v, 1) for v in (b.x, b.y, b.width, b.height))) for b in sample.boxes)),
        tuple(sorted((p.class_name, p.crowd, tuple(tuple(round(v, 1) for v in ring) for ring in p.rings)) for p in sample.polygons)),
        tuple(sorted((r.class_name, r.crowd, r.counts) for r in sample.rle)),
        sample.mask_path,
        tuple(
            sorted(
                (t.class_name, t.crowd, tuple(sorted((round(x, 1) + 0.0, round(y, 1) + 0.0) for x, y in t.corners())))
                for t in sample.oriented_boxes
            )
        ),
        tuple(
            sorted(
                (k.class_name, k.crowd, tuple(sorted((p.name, round(p.x, 1), round(p.y, 1), p.visible) for p in k.points)))
                for k in sample.keypoints
            )
        ),
    )


def kept_of(data: AuditData, group: list[int]) -> int:
    """Give the copy that stays: in the part that most copies have, in a tie in the one that is for judging, and there the first."""
    part = winner(counts_of([data.samples[index].split for index in group]))
    return next((index for index in group if data.samples[index].split == part), group[0])


def run(data: AuditData) -> CheckResult:
    """Report each group of equal and of similar pictures once, named by the copy that a cleaned dataset keeps."""
    found: list[AuditFinding] = []
    copies = 0
    for group in data.exact_groups:
        copies += len(group) - 1
        names = some(data.named(group))
        if len({answers(data.samples[index]) for index in group}) == 1:
            kept = kept_of(data, group)
            others = data.ids([index for index in group if index != kept])
            told = f"{len(group)} files hold the same pixels and the same annotations: {names}. --fix keeps {data.paths[data.samples[kept].id]}."
            found.append(
                AuditFinding(_NAME, Severity.WARNING, "EXACT_DUPLICATE", told, data.samples[kept].id, others, score=len(group), drop=others)
            )
            continue
        ids = data.ids(group)
        if data.info.task in _LABELLED:
            labels = sorted({", ".join(data.samples[index].labels) or "no label" for index in group})
            told = (
                f"the same picture is labelled {' and '.join(repr(label) for label in labels)}: {names}. Find out which is right; "
                "--fix leaves all of them out."
            )
            found.append(
                AuditFinding(
                    _NAME, Severity.ERROR, "CONFLICTING_LABELS", told, ids[0], ids[1:], score=len(group), drop=_families(data, group)
                )
            )
        else:
            told = f"{len(group)} files hold the same pixels with different annotations: {names}. Keep the better ones; --fix leaves them."
            found.append(AuditFinding(_NAME, Severity.WARNING, "CONFLICTING_ANNOTATIONS", told, ids[0], ids[1:], score=len(group)))
    for group in data.near_groups:
        found.append(_near(data, group))
    near = sum(len(group) for group in data.near_groups)
    note = (
        f"{plural(len(data.exact_groups), 'group')} of equal pictures ({plural(copies, 'surplus copy', 'surplus copies')}); "
        f"{plural(len(data.near_groups), 'group')} of pictures that look alike ({plural(near, 'image')}; perceptual hashes within "
        f"{data.near_distance} of 64 bits)."
    )
    return CheckResult(tuple(found), note)


def _families(data: AuditData, group: list[int]) -> tuple[str, ...]:
    """Give all samples with these pixels, augmented copies too, which share the doubt."""
    digests = {data.measured[index].pixel_digest for index in group}
    return tuple(s.id for s, row in zip(data.samples, data.measured, strict=True) if row.readable and row.pixel_digest in digests)


def _near(data: AuditData, group: list[int]) -> AuditFinding:
    ids, names = data.ids(group), some(data.named(group))
    labels = {data.samples[index].labels for index in group}
    if data.info.task in _LABELLED and len(labels) > 1:
        told = f"{len(group)} images look alike and are labelled differently: {names}. Compare them; one label may be wrong."
        return AuditFinding(_NAME, Severity.WARNING, "NEAR_DUPLICATE_LABELS", told, ids[0], ids[1:], score=len(group))
    told = f"{len(group)} images look alike: {names}. Keep them in one part; drop those that add nothing."
    return AuditFinding(_NAME, Severity.INFO, "NEAR_DUPLICATE", told, ids[0], ids[1:], score=len(group))
