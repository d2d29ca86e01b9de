"""The catalogue of transforms."""

from __future__ import annotations

from collections.abc import Iterator

import grpc

from oteo.connection import call, pages
from oteo.names import enum_name, resource
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

    def preview(
        self, dataset: str, *, policy: augment_pb2.AugmentationPolicy | None = None, samples: int = 0, copies: int = 0, seed: int = 0
    ) -> bytes:
        """Give a sheet of pictures (PNG): what a policy does to samples of a dataset, with the annotations drawn; the original stands first.

        Parameters
        ----------
        dataset
            Its id or name.
        policy
            None: the default one of the dataset's task.
        samples, copies
            Rows and, beside the original, columns; 0: 4.
        seed
            Seed of the draws.
        """
        request = augment_pb2.PreviewAugmentationRequest(
            dataset=resource("datasets", dataset), policy=policy, sample_count=samples, copies=copies, seed=seed
        )
        return call(self._stub.PreviewAugmentation, request, timeout=300).sheet.content

    def replay(self, name: str) -> augment_pb2.ReplayAugmentationResponse:
        """Make one copy of an augmented dataset again; ``name`` is ``"datasets/{dataset}/samples/{sample}"``."""
        return call(self._stub.ReplayAugmentation, augment_pb2.ReplayAugmentationRequest(name=name), timeout=120)
