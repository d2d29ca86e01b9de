"""Augmented datasets: more copies of the training part, made after the split, the same to the byte however the work is shared."""

from __future__ import annotations

from oteo_augment.augmentation.dataset import Outcome, augment_dataset
from oteo_augment.augmentation.plan import DEFAULT_COPIES, AugmentationPlan
from oteo_augment.augmentation.preview import preview_sheet
from oteo_augment.augmentation.requests import check_points_swap, plan_from_request, policy_from_proto, policy_of_dataset
from oteo_core.datasets.sharding import Checkpoints

__all__ = [
    "DEFAULT_COPIES",
    "AugmentationPlan",
    "Checkpoints",
    "Outcome",
    "augment_dataset",
    "check_points_swap",
    "plan_from_request",
    "policy_from_proto",
    "policy_of_dataset",
    "preview_sheet",
]
