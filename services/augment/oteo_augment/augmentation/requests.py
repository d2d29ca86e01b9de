"""The contract's words for policies and plans, brought to the domain's."""

from __future__ import annotations

from dataclasses import replace

from google.protobuf.json_format import MessageToDict

from oteo_augment.augmentation.plan import DEFAULT_COPIES, AugmentationPlan
from oteo_core.augmentation import Mode, Policy, Step, default_policy, preset_policy
from oteo_core.datasets import DatasetInfo
from oteo_core.errors import FailedPrecondition, InvalidArgument
from oteo_protos.augment.v1 import augment_pb2

_MODES = {
    augment_pb2.AugmentationPolicy.MODE_UNSPECIFIED: Mode.SEQUENTIAL,
    augment_pb2.AugmentationPolicy.MODE_SEQUENTIAL: Mode.SEQUENTIAL,
    augment_pb2.AugmentationPolicy.MODE_LINEAR: Mode.LINEAR,
}


def policy_from_proto(message: augment_pb2.AugmentationPolicy, task: str) -> Policy:
    """Give the policy that a message describes.

    Raises
    ------
    InvalidArgument
        UNKNOWN_TRANSFORM, BAD_PARAMETER, MIRROR_REFUSED, BAD_POLICY, UNKNOWN_PRESET, TASK_NOT_SUPPORTED, MODE_NOT_SUPPORTED.
    """
    if message.preset:
        if message.steps:
            raise InvalidArgument(
                f"the policy names the preset {message.preset!r} and has steps of its own: give one or the other",
                reason="BAD_POLICY",
                field="policy.preset",
            )
        return _with_share(preset_policy(message.preset, task, message.laterality), message)
    if not message.steps:
        return _with_share(default_policy(task, message.laterality), message)
    default_policy(task)  # raises where the task is one whose annotations cannot be moved along
    if message.mode not in _MODES:
        name = augment_pb2.AugmentationPolicy.Mode.Name(message.mode)
        raise InvalidArgument(
            f"{name} comes with a later release; this one has MODE_SEQUENTIAL and MODE_LINEAR",
            reason="MODE_NOT_SUPPORTED",
            field="policy.mode",
        )
    steps = tuple(
        Step(
            step.transform,
            MessageToDict(step.parameters),
            step.probability if step.HasField("probability") else 1.0,
            step.weight if step.HasField("weight") else 1.0,
        )
        for step in message.steps
    )
    return _with_share(Policy(steps, _MODES[message.mode], message.laterality, "custom"), message)


def _with_share(policy: Policy, message: augment_pb2.AugmentationPolicy) -> Policy:
    return replace(policy, min_visible_share=message.min_visible_share) if message.HasField("min_visible_share") else policy


def plan_from_request(request: augment_pb2.AugmentDatasetRequest, source: DatasetInfo) -> AugmentationPlan:
    """Give the plan of a request for a dataset.

    Raises
    ------
    InvalidArgument
        UNKNOWN_CLASS where `copies_by_class` names a class that the dataset does not have, and those of `policy_from_proto`.
    FailedPrecondition
        NOT_SPLIT where the dataset has no training part.
    """
    policy = policy_from_proto(request.policy, source.task)
    for name in request.copies_by_class:
        if name not in source.classes:
            known = ", ".join(source.classes)
            raise InvalidArgument(
                f"copies_by_class names {name!r}; datasets/{source.id} has the classes {known}",
                reason="UNKNOWN_CLASS",
                field=f"copies_by_class[{name!r}]",
            )
    if not any(part.split == "train" and part.sample_count for part in source.splits):
        raise FailedPrecondition(
            f"datasets/{source.id} has no training part to augment: import it with a split", reason="NOT_SPLIT", field="dataset"
        )
    return AugmentationPlan(policy, request.copies or DEFAULT_COPIES, dict(request.copies_by_class), request.seed, request.drop_originals)
