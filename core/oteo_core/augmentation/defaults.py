"""Policies that are there before anybody has thought about one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from oteo_core.augmentation.policy import Policy, Step
from oteo_core.augmentation.presets import MODALITIES
from oteo_core.errors import InvalidArgument

TASKS = frozenset(
    {"classification", "multi_label_classification", "detection", "semantic_segmentation", "instance_segmentation", "keypoints"}
)
"""Tasks whose annotations stay right: they speak of the whole image, or move along with the pixels."""


def check_task(task: str) -> None:
    """Raise InvalidArgument TASK_NOT_SUPPORTED for a task whose annotations cannot be moved along."""
    if task not in TASKS:
        raise InvalidArgument(
            f"the annotations of {task.replace('_', ' ') or 'no task'} are not moved along yet; augmented are: {', '.join(sorted(TASKS))}",
            reason="TASK_NOT_SUPPORTED",
            field="policy",
        )


def default_policy(task: str = "classification", laterality: bool = False, *, orientation_free: bool = False) -> Policy:
    """Give the default policy for a task.

    Its strengths are those at which a person still gives every image its old label without thinking:

    - a mirror, half of the time: few findings have a side, and it doubles what is seen; left out with `laterality`;
    - turns to 15 degrees, scale by a tenth and shifts by a twentieth: how an image is framed says nothing. Small, because size
      is often a finding; what comes in from outside is mirrored, for black corners would be learnt;
    - brightness, contrast and gamma by a fifth: lamp, exposure and window differ between instruments; strong intensity
      augmentation is also what carries a model farthest to another instrument;
    - saturation by a fifth and hue by a thirtieth of the circle, on colour images: stain and white balance; not more, because
      colour is often the finding;
    - blur and noise, now and then and weak: focus and gain; strong ones would wipe out the texture that decides.

    For detection nothing is turned but by quarters: a turned box alone does not say where its object's edge is, and the box
    around it is larger than the object.

    For key points there is no mirror: a mirrored left eye is a right one, and only who knows the names can say which change places
    (`Policy.mirror_swaps`).

    With `orientation_free` the mirror gives way to all eight symmetries of the square: for what is seen from above (smears,
    sections, skin, satellites) up and down mean nothing.

    Parameters
    ----------
    task
        One of `TASKS`.
    laterality
        True where left and right mean something.
    orientation_free
        True where up and down mean nothing.

    Returns
    -------
    Policy
        Steps that change colour or brightness are optional: images for whose pixels they are not defined go without.

    Raises
    ------
    InvalidArgument
        TASK_NOT_SUPPORTED.
    """
    check_task(task)
    laterality = laterality or task == "keypoints"
    symmetry: tuple[Step, ...]
    if orientation_free:
        symmetry = (Step("RandomRotate90"),) if laterality else (Step("D4"),)
    else:
        symmetry = () if laterality else (Step("HorizontalFlip", probability=0.5),)
    steps = (
        *symmetry,
        Step(
            "Affine",
            {"rotate": (0.0, 0.0) if task == "detection" else (-15.0, 15.0), "scale": (0.9, 1.1), "translate_percent": (-0.05, 0.05)},
            0.8,
        ),
        Step("RandomBrightnessContrast", {"brightness_limit": (-0.2, 0.2), "contrast_limit": (-0.2, 0.2)}, 0.7, optional=True),
        Step("RandomGamma", {"gamma_limit": (80.0, 125.0)}, 0.3, optional=True),
        Step("ColorJitter", {"saturation": (0.8, 1.2), "hue": (-0.033, 0.033)}, 0.5, optional=True),
        Step("GaussianBlur", {"sigma_limit": (0.3, 1.2)}, 0.15, optional=True),
        Step("GaussNoise", {"std_range": (0.005, 0.03)}, 0.15, optional=True),
    )
    return Policy(steps, laterality=laterality, name="orientation-free" if orientation_free else "default")


PRESETS: Mapping[str, Callable[[str, bool], Policy]] = {
    "default": default_policy,
    "orientation-free": lambda task, laterality: default_policy(task, laterality, orientation_free=True),
    **{name: preset.policy for name, preset in MODALITIES.items()},
}
"""Named policies: functions of task and laterality."""


def preset_policy(name: str, task: str, laterality: bool = False) -> Policy:
    """Give a named policy.

    Raises
    ------
    InvalidArgument
        UNKNOWN_PRESET, TASK_NOT_SUPPORTED.
    """
    try:
        make = PRESETS[name]
    except KeyError:
        known = ", ".join(sorted(PRESETS))
        raise InvalidArgument(f"there is no preset {name!r}; there are: {known}", reason="UNKNOWN_PRESET", field="policy.preset") from None
    check_task(task)
    return make(task, laterality or task == "keypoints")
