"""The cleaned dataset: what findings ask to be left out is left out and stays listed; nothing moves but what a leak demands."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from oteo_augment.auditing.audit import AuditOutcome
from oteo_augment.auditing.findings import AnnotationRef, AuditFinding
from oteo_augment.importing.splitting import counts_of, winner
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetInfo, DatasetReader, DatasetWriter, Finding, Sample, Severity

_LISTED = 1000


@dataclass
class Repair:
    """What is done.

    Parameters
    ----------
    dropped
        Samples that are left out, by id, and the finding that asks for it.
    annotations
        Annotations that are left out, by sample, and the findings' codes.
    moved
        Samples that go to another part, by id: from, to.
    """

    dropped: dict[str, AuditFinding] = field(default_factory=dict)
    annotations: dict[str, dict[AnnotationRef, str]] = field(default_factory=dict)
    moved: dict[str, tuple[str, str]] = field(default_factory=dict)

    def to_json(self, paths: dict[str, str]) -> dict[str, Any]:
        """Give what was done and why: counts of all, names of the first thousand."""
        codes: Counter[str] = Counter(finding.code for finding in self.dropped.values())
        annotation_codes: Counter[str] = Counter(code for refs in self.annotations.values() for code in refs.values())
        return {
            "samples_left_out": dict(sorted(codes.items())),
            "annotations_left_out": dict(sorted(annotation_codes.items())),
            "samples_moved": len(self.moved),
            "left_out": [
                {"sample": name, "path": paths.get(name, ""), "code": finding.code}
                for name, finding in list(self.dropped.items())[:_LISTED]
            ],
            "moved": [
                {"sample": name, "path": paths.get(name, ""), "from": old, "to": new, "code": "LEAK"}
                for name, (old, new) in list(self.moved.items())[:_LISTED]
            ],
        }


def plan_repair(outcome: AuditOutcome) -> Repair:
    """Turn findings into what is done to each sample."""
    data = outcome.data
    repair = Repair()
    for finding in outcome.findings:
        for name in finding.drop:
            repair.dropped.setdefault(name, finding)
        for ref in finding.drop_annotations:
            repair.annotations.setdefault(ref.sample, {}).setdefault(ref, finding.code)
    # A copy of a sample that is left out for its content or label is left out with it; a surplus original leaves its copies their worth.
    for sample in data.samples:
        cause = repair.dropped.get(sample.derived_from)
        if cause is not None and cause.code != "EXACT_DUPLICATE":
            repair.dropped.setdefault(sample.id, cause)
    for name in repair.dropped:
        repair.annotations.pop(name, None)
    if any(finding.check == "leaks" for finding in outcome.findings):
        members: defaultdict[int, list[Sample]] = defaultdict(list)
        for sample, cluster in zip(data.samples, data.clusters(), strict=True):
            if sample.id not in repair.dropped and sample.split:
                members[int(cluster)].append(sample)
        for samples in members.values():
            splits = counts_of([sample.split for sample in samples])
            if len(splits) > 1:
                goal = winner(splits)
                repair.moved |= {sample.id: (sample.split, goal) for sample in samples if sample.split != goal}
    return repair


def write_fixed(
    store: ArtifactStore,
    source: str,
    target: DatasetInfo,
    outcome: AuditOutcome,
    repair: Repair,
    staging: str,
    *,
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> DatasetInfo:
    """Write the cleaned dataset below a prefix.

    Parameters
    ----------
    source
        Id of the audited dataset.
    target
        Id, name and provenance of the cleaned one; the rest is taken over.
    staging
        Prefix to write below; files that an earlier attempt left there are taken as they are.

    Raises
    ------
    DataLoss
        MEDIA_LOST where a file went between the audit and the copy.
    """
    reader, data = DatasetReader(store, source), outcome.data
    old = reader.info
    info = replace(
        target,
        task=old.task,
        classes=old.classes,
        domain=old.domain,
        source_format=old.source_format,
        source=f"datasets/{source}",
        labels={**old.labels, **target.labels},
        mask=old.mask,
        skeletons=old.skeletons,
        # Counted anew: what was left out is gone from the groups.
        exact_duplicate_groups=_groups_left(data.exact_groups, data.samples, repair),
        near_duplicate_groups=_near_left(outcome, repair),
        provenance={
            **{key: value for key, value in old.provenance.items() if key == "split"},
            **target.provenance,
            "source_dataset": source,
            "source_digest": old.digest,
            "source_provenance": old.provenance,
            "fix": repair.to_json(data.paths),
        },
    )
    there = {entry.path[len(staging) + 1 :]: entry.size for entry in store.iter(f"{staging}/media")}
    noted: set[str] = set()
    total = len(data.samples) + len(data.excluded)
    with DatasetWriter(store, staging, info) as writer:

        def copy(path: str, read: Callable[[], bytes]) -> None:
            if not path or path in noted:
                return
            if path not in there:
                content = read()
                store.write_bytes(f"{staging}/{path}", content)
                there[path] = len(content)
            noted.add(path)
            writer.note_media(path, there[path])

        for number, sample in enumerate(reader.samples(include_excluded=True)):
            check()
            fixed = _fixed(sample, repair)
            if not fixed.excluded:
                copy(fixed.path, lambda sample=sample: reader.read_media(sample))  # type: ignore[misc]
                copy(fixed.mask_path, lambda sample=sample: reader.read_mask(sample))  # type: ignore[misc]
            writer.add(fixed)
            progress(number + 1, total)
        return writer.finish()


def _fixed(sample: Sample, repair: Repair) -> Sample:
    cause = repair.dropped.get(sample.id)
    if cause is not None:
        told = f"left out by an audit: {cause.message}"
        related = tuple(name for name in cause.samples if name != sample.id)[:50]
        finding = Finding(Severity.ERROR, cause.code, told, sample.source_path, related)
        return replace(sample, excluded=True, path="", mask_path="", findings=(*sample.findings, finding))
    findings = [finding for finding in sample.findings if not _settled(finding, repair)]
    refs = repair.annotations.get(sample.id, {})
    if refs:
        gone = {(ref.kind, ref.index) for ref in refs}
        kept: dict[str, tuple[Any, ...]] = {
            kind: tuple(item for place, item in enumerate(getattr(sample, kind)) if (kind, place) not in gone)
            for kind in ("boxes", "polygons", "rle", "oriented_boxes", "keypoints")
        }
        sample = replace(
            sample,
            boxes=kept["boxes"],
            polygons=kept["polygons"],
            rle=kept["rle"],
            oriented_boxes=kept["oriented_boxes"],
            keypoints=kept["keypoints"],
        )
        for code, count in sorted(Counter(refs.values()).items()):
            told = f"an audit left out {count} of its annotations"
            findings.append(Finding(Severity.ERROR, code, told, sample.source_path))
    if sample.id in repair.moved:
        old, new = repair.moved[sample.id]
        findings.append(
            Finding(Severity.WARNING, "LEAK", f"an audit moved it from {old} to {new}, where most of its group are", sample.source_path)
        )
        sample = replace(sample, split=new)
    return replace(sample, findings=tuple(findings))


_ON_OTHERS = frozenset({"EXACT_DUPLICATE", "NEAR_DUPLICATE", "CONFLICTING_LABELS"})
"""What an import says of a sample because of the others like it."""


def _settled(finding: Finding, repair: Repair) -> bool:
    """Tell whether all samples that a kept sample was like are left out, so that the finding is true no more."""
    return finding.code in _ON_OTHERS and bool(finding.related) and all(name in repair.dropped for name in finding.related)


def _groups_left(groups: Sequence[list[int]], samples: Sequence[Sample], repair: Repair) -> int:
    return sum(sum(samples[index].id not in repair.dropped for index in group) > 1 for group in groups)


def _near_left(outcome: AuditOutcome, repair: Repair) -> int:
    """Count groups of images that look alike, equal ones included, as an import counts them."""
    data = outcome.data
    sets = [set(group) for group in data.near_groups]
    inside = {index for group in sets for index in group}
    alone = [group for group in data.exact_groups if not inside & set(group)]
    return _groups_left([*data.near_groups, *alone], data.samples, repair)
