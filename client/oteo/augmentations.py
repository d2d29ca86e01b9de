"""The catalogue of transforms."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from oteo.connection import pages
from oteo.names import enum_name
from oteo_protos.augment.v1 import augment_pb2, augment_pb2_grpc
from oteo_protos.type.v1 import task_pb2


class Augmentations:
    """What the augment service can do to images; `Datasets.augment` does it to a dataset."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = augment_pb2_grpc.AugmentServiceStub(channel)

    def transforms(self, *, task: str | None = None, limit: int | None = None) -> Iterator[augment_pb2.Transform]:
        """Give the transforms that a policy may use, by name.

        Parameters
        ----------
        task
            Only those that can keep annotations of this task (``"detection"``, …); None: all.
        limit
            At most so many; None: all.
        """
        request = augment_pb2.ListTransformsRequest(task=enum_name(task_pb2.Task, "TASK_", task, "task"))
        return pages(self._stub.ListTransforms, request, "transforms", limit)
