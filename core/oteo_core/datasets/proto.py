"""Datasets and samples to and from the contract's messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import NamedTuple, cast

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from oteo_core.datasets.annotations import Attributes, Box, Keypoint, Keypoints, OrientedBox, Polygons, Rle
from oteo_core.datasets.info import DatasetInfo, SplitCount, Task
from oteo_core.datasets.sample import Finding, Sample, Severity
from oteo_protos.augment.v1 import dataset_pb2
from oteo_protos.type.v1 import annotation_pb2, report_pb2, task_pb2

TASKS: dict[str, task_pb2.Task] = {
    Task.CLASSIFICATION: task_pb2.TASK_CLASSIFICATION,
    Task.MULTI_LABEL: task_pb2.TASK_MULTI_LABEL_CLASSIFICATION,
    Task.DETECTION: task_pb2.TASK_DETECTION,
    Task.SEMANTIC: task_pb2.TASK_SEMANTIC_SEGMENTATION,
    Task.INSTANCE: task_pb2.TASK_INSTANCE_SEGMENTATION,
    Task.KEYPOINTS: task_pb2.TASK_KEYPOINTS,
}
SPLITS: dict[str, task_pb2.Split] = {
    "": task_pb2.SPLIT_UNSPECIFIED,
    "train": task_pb2.SPLIT_TRAIN,
    "validation": task_pb2.SPLIT_VALIDATION,
    "test": task_pb2.SPLIT_TEST,
}
FORMATS: dict[str, dataset_pb2.DatasetFormat] = {
    name.removeprefix("DATASET_FORMAT_").lower(): cast("dataset_pb2.DatasetFormat", value)
    for name, value in dataset_pb2.DatasetFormat.items()
    if value != dataset_pb2.DATASET_FORMAT_UNSPECIFIED
}
_PIXELS: dict[str, task_pb2.PixelType] = {
    "": task_pb2.PIXEL_TYPE_UNSPECIFIED,
    "uint8": task_pb2.PIXEL_TYPE_UINT8,
    "uint16": task_pb2.PIXEL_TYPE_UINT16,
    "float32": task_pb2.PIXEL_TYPE_FLOAT32,
}
_MEDIA: dict[str, task_pb2.MediaKind] = {
    "": task_pb2.MEDIA_KIND_UNSPECIFIED,
    "image": task_pb2.MEDIA_KIND_IMAGE,
    "stack": task_pb2.MEDIA_KIND_STACK,
    "video": task_pb2.MEDIA_KIND_VIDEO,
}
SEVERITIES: dict[str, report_pb2.Finding.Severity] = {
    Severity.INFO: report_pb2.Finding.SEVERITY_INFO,
    Severity.WARNING: report_pb2.Finding.SEVERITY_WARNING,
    Severity.ERROR: report_pb2.Finding.SEVERITY_ERROR,
}


def name_of(table: Mapping[str, int], value: int) -> str:
    """Give the name that a table has for a value of an enum; "" where it has none."""
    return next((str(name) for name, number in table.items() if number == value), "")


def dataset_to_proto(info: DatasetInfo, uri: str = "") -> dataset_pb2.Dataset:
    """Bring a dataset's description to the contract's message."""
    created = info.created()
    timestamp = Timestamp()
    if created is not None:
        timestamp.FromDatetime(created.astimezone(UTC))
    return dataset_pb2.Dataset(
        name=f"datasets/{info.id}",
        display_name=info.display_name,
        uid=info.uid,
        task=TASKS.get(info.task, task_pb2.TASK_UNSPECIFIED),
        classes=[
            dataset_pb2.ClassInfo(
                name=c.name, sample_count=c.sample_count, annotation_count=c.annotation_count, splits=[_split_count(s) for s in c.splits]
            )
            for c in info.class_info
        ],
        domain=info.domain,
        source_format=FORMATS.get(info.source_format, dataset_pb2.DATASET_FORMAT_UNSPECIFIED),
        source=info.source,
        sample_count=info.sample_count,
        splits=[_split_count(s) for s in info.splits],
        excluded_count=info.excluded_count,
        findings=[report_pb2.FindingCount(code=f.code, severity=SEVERITIES[Severity(f.severity)], count=f.count) for f in info.findings],
        exact_duplicate_group_count=info.exact_duplicate_groups,
        near_duplicate_group_count=info.near_duplicate_groups,
        digest=info.digest,
        uri=uri,
        create_time=timestamp if created is not None else None,
        labels=info.labels,
        media_bytes=info.media_bytes,
        sizes=dataset_pb2.SizeRange(
            min_width=info.sizes.min_width,
            max_width=info.sizes.max_width,
            min_height=info.sizes.min_height,
            max_height=info.sizes.max_height,
        ),
        bit_depth=info.bit_depth,
        skeletons=[
            dataset_pb2.Skeleton(
                class_name=skeleton.class_name,
                points=skeleton.points,
                edges=[dataset_pb2.Skeleton.Edge(first=one, second=other) for one, other in skeleton.edges],
            )
            for skeleton in info.skeletons
        ],
    )


def _split_count(count: SplitCount) -> dataset_pb2.SplitCount:
    return dataset_pb2.SplitCount(split=SPLITS[count.split], sample_count=count.sample_count, group_count=count.group_count)


def finding_to_proto(finding: Finding, dataset_id: str = "", sample_id: str = "") -> report_pb2.Finding:
    """Bring a finding to the contract's message."""
    prefix = f"datasets/{dataset_id}/samples/"
    return report_pb2.Finding(
        severity=SEVERITIES[finding.severity],
        code=finding.code,
        message=finding.message,
        sample=prefix + sample_id if sample_id else "",
        path=finding.path,
        related_samples=[prefix + other for other in finding.related],
    )


def sample_to_proto(sample: Sample, dataset_id: str) -> dataset_pb2.Sample:
    """Bring a sample to the contract's message."""
    name = f"datasets/{dataset_id}/samples/{sample.id}"
    return dataset_pb2.Sample(
        name=name,
        path=sample.path,
        source_path=sample.source_path,
        sha256=sample.sha256,
        width=sample.width,
        height=sample.height,
        channels=sample.channels,
        pixel_type=_PIXELS[sample.dtype],
        media_kind=_MEDIA[sample.media_kind],
        frame_count=sample.frames,
        split=SPLITS[sample.split],
        group=sample.group,
        annotations=annotations_to_proto(sample),
        mask_path=sample.mask_path,
        spacing=sample.spacing,
        excluded=sample.excluded,
        findings=[finding_to_proto(f, dataset_id, sample.id) for f in sample.findings],
        derived_from=f"datasets/{dataset_id}/samples/{sample.derived_from}" if sample.derived_from else "",
        sequence=sample.sequence,
        frame=sample.frame,
        bit_depth=sample.bit_depth,
        provenance=json.loads(sample.provenance) if sample.provenance else None,
    )


def annotations_to_proto(sample: Sample) -> list[annotation_pb2.Annotation]:
    """Bring labels and objects to annotations; an object's number goes to the attribute "instance", its track to `track_id`."""
    found = [annotation_pb2.Annotation(class_name=label) for label in sample.labels]
    for box in sample.boxes:
        place = annotation_pb2.BoundingBox(x=box.x, y=box.y, width=box.width, height=box.height)
        found.append(annotation_pb2.Annotation(class_name=box.class_name, box=place, crowd=box.crowd, attributes=_attributes(box)))
    for outline in sample.polygons:
        rings = annotation_pb2.PolygonSet(polygons=[annotation_pb2.Polygon(points=ring) for ring in outline.rings])
        found.append(
            annotation_pb2.Annotation(class_name=outline.class_name, polygons=rings, crowd=outline.crowd, attributes=_attributes(outline))
        )
    for rle in sample.rle:
        mask = annotation_pb2.RunLengthMask(height=rle.height, width=rle.width, counts=rle.counts)
        found.append(annotation_pb2.Annotation(class_name=rle.class_name, mask=mask, crowd=rle.crowd, attributes=_attributes(rle)))
    for turned in sample.oriented_boxes:
        placed = annotation_pb2.OrientedBox(
            center_x=turned.center_x, center_y=turned.center_y, width=turned.width, height=turned.height, angle=turned.angle
        )
        found.append(
            annotation_pb2.Annotation(class_name=turned.class_name, oriented_box=placed, crowd=turned.crowd, attributes=_attributes(turned))
        )
    for marked in sample.keypoints:
        points = [annotation_pb2.Keypoints.Point(name=p.name, x=p.x, y=p.y, visible=p.visible) for p in marked.points]
        found.append(
            annotation_pb2.Annotation(
                class_name=marked.class_name,
                keypoints=annotation_pb2.Keypoints(points=points),
                crowd=marked.crowd,
                attributes=_attributes(marked),
            )
        )
    for annotation in found:
        track = annotation.attributes.pop("track", "")
        if track.lstrip("-").isdecimal():
            annotation.track_id = int(track)
        elif track:
            annotation.attributes["track"] = track
        if sample.sequence:
            annotation.frame = sample.frame
    return found


def sample_from_proto(message: dataset_pb2.Sample) -> Sample:
    """Read a sample from the contract's message; what the message does not carry keeps its default."""
    objects = annotations_from_proto(message.annotations)
    return Sample(
        id=message.name.rpartition("/")[2],
        path=message.path,
        source_path=message.source_path,
        sha256=message.sha256,
        width=message.width,
        height=message.height,
        channels=message.channels,
        dtype=name_of(_PIXELS, message.pixel_type),
        media_kind=name_of(_MEDIA, message.media_kind),
        frames=message.frame_count,
        split=name_of(SPLITS, message.split),
        group=message.group,
        labels=objects.labels,
        boxes=objects.boxes,
        polygons=objects.polygons,
        rle=objects.rle,
        oriented_boxes=objects.oriented_boxes,
        keypoints=objects.keypoints,
        mask_path=message.mask_path,
        spacing=tuple(message.spacing),
        excluded=message.excluded,
        findings=tuple(
            Finding(
                Severity(name_of(SEVERITIES, f.severity) or Severity.INFO),
                f.code,
                f.message,
                f.path,
                tuple(other.rpartition("/")[2] for other in f.related_samples),
            )
            for f in message.findings
        ),
        derived_from=message.derived_from.rpartition("/")[2],
        sequence=message.sequence,
        frame=message.frame,
        bit_depth=message.bit_depth,
        provenance=json.dumps(json_format.MessageToDict(message.provenance), sort_keys=True) if message.HasField("provenance") else "",
    )


class Objects(NamedTuple):
    """What annotations say, by kind; as of `Sample`."""

    labels: tuple[str, ...]
    boxes: tuple[Box, ...]
    polygons: tuple[Polygons, ...]
    rle: tuple[Rle, ...]
    oriented_boxes: tuple[OrientedBox, ...]
    keypoints: tuple[Keypoints, ...]


def annotations_from_proto(items: Iterable[annotation_pb2.Annotation]) -> Objects:
    """Read labels and objects from annotations."""
    boxes: list[Box] = []
    outlines: list[Polygons] = []
    masks: list[Rle] = []
    labels: list[str] = []
    turned: list[OrientedBox] = []
    points: list[Keypoints] = []
    for item in items:
        kind = item.WhichOneof("geometry")
        rest = (item.crowd, int(item.attributes.get("instance", "-1")), _pairs(item))
        if kind == "box":
            boxes.append(Box(item.class_name, item.box.x, item.box.y, item.box.width, item.box.height, *rest))
        elif kind == "polygons":
            outlines.append(Polygons(item.class_name, tuple(tuple(p.points) for p in item.polygons.polygons), *rest))
        elif kind == "mask":
            masks.append(Rle(item.class_name, item.mask.height, item.mask.width, tuple(item.mask.counts), *rest))
        elif kind == "oriented_box":
            place = item.oriented_box
            turned.append(OrientedBox(item.class_name, place.center_x, place.center_y, place.width, place.height, place.angle, *rest))
        elif kind == "keypoints":
            marked = tuple(Keypoint(p.name, p.x, p.y, p.visible) for p in item.keypoints.points)
            points.append(Keypoints(item.class_name, marked, *rest))
        else:
            labels.append(item.class_name)
    return Objects(tuple(labels), tuple(boxes), tuple(outlines), tuple(masks), tuple(turned), tuple(points))


def _attributes(item: Box | Polygons | Rle | OrientedBox | Keypoints) -> dict[str, str]:
    return dict(item.attributes) | ({"instance": str(item.instance)} if item.instance >= 0 else {})


def _pairs(item: annotation_pb2.Annotation) -> Attributes:
    pairs = {key: value for key, value in item.attributes.items() if key != "instance"}
    if item.HasField("track_id"):
        pairs["track"] = str(item.track_id)
    return tuple(sorted(pairs.items()))
