"""Which engine does a step of a batch."""

from __future__ import annotations

from oteo_core.augmentation.catalogue import TransformSpec

LEAST_PIXELS = 1 << 20
"""Pixels of a batch below which a device is left alone: starting its work and carrying images there and back would cost more than the
step. 16 images of 256 x 256."""


def choose_engine(spec: TransformSpec, shape: tuple[int, ...], batch: int, device: str) -> str:
    """Choose the engine for a step.

    Parameters
    ----------
    spec
        The transform.
    shape
        (H, W, C) of each image.
    batch
        Number of images of that shape.
    device
        As torch calls it. On "cpu" the CPU engine is chosen always: OpenCV is the faster there.

    Returns
    -------
    str
        "cpu" or "gpu".
    """
    fits = "gpu" in spec.engines and batch * shape[0] * shape[1] >= LEAST_PIXELS
    return "gpu" if fits and device.partition(":")[0] != "cpu" else "cpu"
