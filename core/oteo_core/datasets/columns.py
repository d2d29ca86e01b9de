"""The columns of `samples.parquet`, and rows to and from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import pyarrow as pa

from oteo_core.datasets.annotations import Box, Keypoint, Keypoints, OrientedBox, Polygons, Rle
from oteo_core.datasets.sample import Finding, Sample, Severity

_OBJECT = [("crowd", pa.bool_()), ("instance", pa.int32()), ("attributes", pa.map_(pa.string(), pa.string()))]
_BOX = pa.struct([("class_name", pa.string()), *((n, pa.float64()) for n in ("x", "y", "width", "height")), *_OBJECT])
_POLYGONS = pa.struct([("class_name", pa.string()), ("rings", pa.list_(pa.list_(pa.float64()))), *_OBJECT])
_RLE = pa.struct([("class_name", pa.string()), ("height", pa.int32()), ("width", pa.int32()), ("counts", pa.list_(pa.uint32())), *_OBJECT])
_ORIENTED = pa.struct(
    [("class_name", pa.string()), *((n, pa.float64()) for n in ("center_x", "center_y", "width", "height", "angle")), *_OBJECT]
)
_POINT = pa.struct([("name", pa.string()), ("x", pa.float64()), ("y", pa.float64()), ("visible", pa.bool_())])
_KEYPOINTS = pa.struct([("class_name", pa.string()), ("points", pa.list_(_POINT)), *_OBJECT])
_FINDING = pa.struct([*((n, pa.string()) for n in ("severity", "code", "message", "path")), ("related", pa.list_(pa.string()))])

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        ("path", pa.string()),
        ("source_path", pa.string()),
        ("sha256", pa.string()),
        ("pixel_digest", pa.string()),
        ("phash", pa.uint64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("channels", pa.int32()),
        ("dtype", pa.string()),
        ("media_kind", pa.string()),
        ("frames", pa.int32()),
        ("split", pa.string()),
        ("group", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("boxes", pa.list_(_BOX)),
        ("polygons", pa.list_(_POLYGONS)),
        ("rle", pa.list_(_RLE)),
        ("mask_path", pa.string()),
        ("spacing", pa.list_(pa.float64())),
        ("excluded", pa.bool_()),
        ("findings", pa.list_(_FINDING)),
        ("derived_from", pa.string()),
        ("oriented_boxes", pa.list_(_ORIENTED)),
        ("keypoints", pa.list_(_KEYPOINTS)),
        ("sequence", pa.string()),
        ("frame", pa.int32()),
        ("bit_depth", pa.int32()),
        ("provenance", pa.string()),
    ]
)
"""Arrow's schema of `samples.parquet`; the names are those of `Sample`."""


_FIELDS = attrgetter(*SCHEMA.names)


def to_batch(samples: Sequence[Sample]) -> pa.RecordBatch:
    """Bring rows to Arrow's columns."""
    columns = list(zip(*map(_FIELDS, samples), strict=True)) or [()] * len(SCHEMA.names)
    arrays = [
        # Most samples of most datasets have no objects: an empty tuple needs no encoder.
        pa.array([encode(value) if value else [] for value in values] if (encode := _ENCODERS.get(name)) else values, kind)
        for name, kind, values in zip(SCHEMA.names, SCHEMA.types, columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def from_batch(batch: pa.RecordBatch) -> Iterator[Sample]:
    """Bring Arrow's columns to rows; columns that are not there keep their defaults."""
    names = batch.schema.names
    columns = []
    for name in names:
        values = batch.column(name).to_pylist()
        decoder = _DECODERS.get(name)
        columns.append([decoder(value) for value in values] if decoder else values)
    for row in zip(*columns, strict=True):
        yield Sample(**dict(zip(names, row, strict=True)))


def _boxes(items: tuple[Box, ...]) -> list[dict[str, Any]]:
    return [
        {
            "class_name": b.class_name, "x": b.x, "y": b.y, "width": b.width, "height": b.height,
            "crowd": b.crowd, "instance": b.instance, "attributes": b.attributes,
        }
        for b in items
    ]  # fmt: skip


def _polygons(items: tuple[Polygons, ...]) -> list[dict[str, Any]]:
    return [
        {"class_name": p.class_name, "rings": p.rings, "crowd": p.crowd, "instance": p.instance, "attributes": p.attributes} for p in items
    ]


def _rle(items: tuple[Rle, ...]) -> list[dict[str, Any]]:
    return [
        {
            "class_name": r.class_name, "height": r.height, "width": r.width, "counts": r.counts,
            "crowd": r.crowd, "instance": r.instance, "attributes": r.attributes,
        }
        for r in items
    ]  # fmt: skip


def _oriented(items: tuple[OrientedBox, ...]) -> list[dict[str, Any]]:
    return [
        {
            "class_name": b.class_name, "center_x": b.center_x, "center_y": b.center_y, "width": b.width, "height": b.height,
            "angle": b.angle, "crowd": b.crowd, "instance": b.instance, "attributes": b.attributes,
        }
        for b in items
    ]  # fmt: skip


def _keypoints(items: tuple[Keypoints, ...]) -> list[dict[str, Any]]:
    return [
        {
            "class_name": k.class_name, "points": [{"name": p.name, "x": p.x, "y": p.y, "visible": p.visible} for p in k.points],
            "crowd": k.crowd, "instance": k.instance, "attributes": k.attributes,
        }
        for k in items
    ]  # fmt: skip


def _findings(items: tuple[Finding, ...]) -> list[dict[str, Any]]:
    return [{"severity": f.severity.value, "code": f.code, "message": f.message, "path": f.path, "related": f.related} for f in items]


_ENCODERS: dict[str, Callable[[Any], Any]] = {
    "boxes": _boxes,
    "polygons": _polygons,
    "rle": _rle,
    "oriented_boxes": _oriented,
    "keypoints": _keypoints,
    "findings": _findings,
}


def _common(value: dict[str, Any]) -> tuple[bool, int, tuple[tuple[str, str], ...]]:
    return value["crowd"], value["instance"], tuple(value["attributes"])


def _read_boxes(items: list[dict[str, Any]]) -> tuple[Box, ...]:
    return tuple(Box(v["class_name"], v["x"], v["y"], v["width"], v["height"], *_common(v)) for v in items)


def _read_polygons(items: list[dict[str, Any]]) -> tuple[Polygons, ...]:
    return tuple(Polygons(v["class_name"], tuple(tuple(ring) for ring in v["rings"]), *_common(v)) for v in items)


def _read_rle(items: list[dict[str, Any]]) -> tuple[Rle, ...]:
    return tuple(Rle(v["class_name"], v["height"], v["width"], tuple(v["counts"]), *_common(v)) for v in items)


def _read_oriented(items: list[dict[str, Any]]) -> tuple[OrientedBox, ...]:
    return tuple(
        OrientedBox(v["class_name"], v["center_x"], v["center_y"], v["width"], v["height"], v["angle"], *_common(v)) for v in items
    )


def _read_keypoints(items: list[dict[str, Any]]) -> tuple[Keypoints, ...]:
    return tuple(
        Keypoints(v["class_name"], tuple(Keypoint(p["name"], p["x"], p["y"], p["visible"]) for p in v["points"]), *_common(v))
        for v in items
    )


def _read_findings(items: list[dict[str, Any]]) -> tuple[Finding, ...]:
    return tuple(Finding(Severity(v["severity"]), v["code"], v["message"], v["path"], tuple(v["related"])) for v in items)


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "labels": tuple,
    "spacing": tuple,
    "boxes": _read_boxes,
    "polygons": _read_polygons,
    "rle": _read_rle,
    "oriented_boxes": _read_oriented,
    "keypoints": _read_keypoints,
    "findings": _read_findings,
}
