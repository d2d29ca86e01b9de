"""The catalogue of transforms in the contract's words."""

from __future__ import annotations

from google.protobuf.json_format import ParseDict

from oteo_core.augmentation import TransformSpec
from oteo_protos.augment.v1 import augment_pb2


def transform_to_proto(spec: TransformSpec) -> augment_pb2.Transform:
    """Give a transform as `ListTransforms` does."""
    message = augment_pb2.Transform(
        name=spec.name,
        aliases=spec.aliases,
        description=spec.summary,
        tasks=[f"TASK_{task.upper()}" for task in spec.tasks],
        geometric=spec.geometric,
        mirrors=spec.mirrors,
        pixel_types=[f"PIXEL_TYPE_{name.upper()}" for name in spec.pixel_types],
        min_channels=min(spec.channels, default=0),
        max_channels=max(spec.channels, default=0),
        engines=spec.engines,
    )
    ParseDict(spec.schema(), message.parameters_schema)
    return message
