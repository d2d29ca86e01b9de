"""Augmentation of images: which transforms there are, what a policy says, and how its draws are made.

Both the service that writes augmented datasets and the trainer that augments as it goes stand on it. Importing it is cheap;
albumentations (and with it torch) is loaded with the first image. Every draw is made by a counter-based generator keyed by the
policy, the seed, the sample, the copy and the step, so that the pixels do not depend on workers, shards or order.
"""

from __future__ import annotations

from oteo_core.augmentation.applying import Augmented, augment, augment_image, check_policy, refusal
from oteo_core.augmentation.batches import augment_batch
from oteo_core.augmentation.catalogue import CATALOGUE, TransformSpec, find_transform
from oteo_core.augmentation.defaults import PRESETS, check_task, default_policy, preset_policy
from oteo_core.augmentation.engines.base import Border
from oteo_core.augmentation.keys import REDRAW, AugmentationKey, step_generator
from oteo_core.augmentation.moving import Annotations
from oteo_core.augmentation.policy import Mode, Policy, Step

__all__ = [
    "CATALOGUE",
    "PRESETS",
    "REDRAW",
    "Annotations",
    "AugmentationKey",
    "Augmented",
    "Border",
    "Mode",
    "Policy",
    "Step",
    "TransformSpec",
    "augment",
    "augment_batch",
    "augment_image",
    "check_policy",
    "check_task",
    "default_policy",
    "find_transform",
    "preset_policy",
    "refusal",
    "step_generator",
]
