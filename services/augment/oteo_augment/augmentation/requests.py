"""The contract's words for policies and plans, brought to the domain's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace

from google.protobuf.json_format import MessageToDict

from oteo_augment.augmentation.plan import DEFAULT_COPIES, AugmentationPlan
from oteo_core.augmentation import Mode, Policy, Step, check_task, default_policy, find_transform, preset_policy
from oteo_core.datasets import DatasetInfo, mirror_pairs
from oteo_core.errors import FailedPrecondition, InvalidArgument
from oteo_protos.augment.v1 import augment_pb2

_MODES = {
    augment_pb2.AugmentationPolicy.MODE_UNSPECIFIED: Mode.SEQUENTIAL,
    augment_pb2.AugmentationPolicy.MODE_SEQUENTIAL: Mode.SEQUENTIAL,
    augment_pb2.AugmentationPolicy.MODE_LINEAR: Mode.LINEAR,
    augment_pb2.AugmentationPolicy.MODE_POWER: Mode.POWER,
    augment_pb2.AugmentationPolicy.MODE_TRIVIAL: Mode.TRIVIAL,
    augment_pb2.AugmentationPolicy.MODE_RANDOM: Mode.RANDOM,
}


def policy_from_proto(message: augment_pb2.AugmentationPolicy, task: str) -> Policy:
    """Give the policy that a message describes.

    Raises
    ------
    InvalidArgument
        UNKNOWN_TRANSFORM, BAD_PARAMETER, MIRROR_REFUSED, BAD_POLICY, UNKNOWN_PRESET, TASK_NOT_SUPPORTED.
    """
    if message.preset:
        if message.steps:
            raise InvalidArgument(
                f"the policy names the preset {message.preset!r} and has steps of its own: give one or the other",
                reason="BAD_POLICY",
                field="policy.preset",
            )
        return _with_rest(preset_policy(message.preset, task, message.laterality), message)
    if not message.steps:
        return _with_rest(default_policy(task, message.laterality), message)
    check_task(task)
    for number, step in enumerate(message.steps):
        spec = find_transform(step.transform, field=f"policy.steps[{number}].transform")
        if spec.needs_objects and task not in spec.tasks:
            raise InvalidArgument(
                f"step {number + 1}, {spec.name}, has to know where objects are: it is for {', '.join(spec.tasks)}",
                reason="TASK_NOT_SUPPORTED",
                field=f"policy.steps[{number}].transform",
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
    return _with_rest(Policy(steps, laterality=message.laterality, name="custom", mirror_swaps=dict(message.mirror_swaps)), message)


def _with_rest(policy: Policy, message: augment_pb2.AugmentationPolicy) -> Policy:
    """Give a policy with what a message says beside its steps; presets, too, can be drawn from in another mode."""
    return replace(
        policy,
        mode=_MODES[message.mode],
        min_visible_share=message.min_visible_share if message.HasField("min_visible_share") else policy.min_visible_share,
        draws=message.draws or policy.draws,
        magnitude=message.magnitude or policy.magnitude,
        mirror_swaps=dict(message.mirror_swaps),
    )


def policy_of_dataset(message: augment_pb2.AugmentationPolicy, source: DatasetInfo) -> Policy:
    """Give the policy that a message describes for a dataset.

    Where the names of key points say left and right, a mirror must say that they swap: the presets go without mirrors unless they are told, and a
    policy of steps is refused.

    Raises
    ------
    InvalidArgument
        POINTS_NOT_SWAPPED, UNKNOWN_CLASS where `mirror_swaps` names what the dataset does not have, and those of `policy_from_proto`.
    """
    points = [point for skeleton in source.skeletons for point in skeleton.points]
    known = {*source.classes, *points}
    if not message.steps and _not_told(points, message.mirror_swaps):
        message = _copied(message, laterality=True)
    policy = policy_from_proto(message, source.task)
    for name in {*policy.mirror_swaps, *policy.mirror_swaps.values()} - known:
        has = f"the classes {', '.join(source.classes)}" + (f" and the points {', '.join(dict.fromkeys(points))}" if points else "")
        raise InvalidArgument(
            f"mirror_swaps names {name!r}; datasets/{source.id} has {has}", reason="UNKNOWN_CLASS", field="policy.mirror_swaps"
        )
    check_points_swap(policy, points, f"datasets/{source.id}", "policy.mirror_swaps")
    return policy


def check_points_swap(policy: Policy, points: Iterable[str], where: str, field: str) -> None:
    """Refuse a policy that has a mirror and does not say which of these points it swaps, where their names say left and right.

    Raises
    ------
    InvalidArgument
        POINTS_NOT_SWAPPED.
    """
    missing = _not_told(points, policy.mirror_swaps)
    mirrors = next((step.transform for step in policy.steps if find_transform(step.transform).mirrors), "")
    if missing and mirrors:
        raise InvalidArgument(
            f"{mirrors} swaps left and right, and the points of {where} have sides: say in mirror_swaps {json.dumps(missing)}, "
            "or take the mirror out",
            reason="POINTS_NOT_SWAPPED",
            field=field,
        )


def _not_told(points: Iterable[str], swaps: Mapping[str, str]) -> dict[str, str]:
    """Give the pairs of points, by their names left and right, that swaps say nothing of."""
    told = {*swaps, *swaps.values()}
    return {one: other for one, other in mirror_pairs(points).items() if one not in told}


def _copied(message: augment_pb2.AugmentationPolicy, *, laterality: bool) -> augment_pb2.AugmentationPolicy:
    copy = augment_pb2.AugmentationPolicy()
    copy.CopyFrom(message)
    copy.laterality = laterality
    return copy


def plan_from_request(request: augment_pb2.AugmentDatasetRequest, source: DatasetInfo) -> AugmentationPlan:
    """Give the plan of a request for a dataset.

    Raises
    ------
    InvalidArgument
        UNKNOWN_CLASS where `copies_by_class` names a class that the dataset does not have, and those of `policy_of_dataset`.
    FailedPrecondition
        NOT_SPLIT where the dataset has no training part.
    """
    policy = policy_of_dataset(request.policy, source)
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
    copies = request.copies or (policy.combinations if policy.mode is Mode.POWER else DEFAULT_COPIES)
    return AugmentationPlan(policy, copies, dict(request.copies_by_class), request.seed, request.drop_originals)
