"""How large the images are that segmentation networks see."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from oteo_automl.dense.base import DenseData
from oteo_core.images import InputPolicy

_SECONDS = 0.035
"""Of one core for training on one image of 128 x 128 pixels with unet-resnet18."""

_EPOCHS = 12
_SHARE = 0.4
_MOST = {False: 512, True: 1024}
_LEAST = 64


def segmentation_policy(data: DenseData, *, gpu: bool, budget: float, channels: int, largest: int = 0) -> InputPolicy:
    """Choose the input: the median image fits, and nine of ten images are shrunk by no more than half; less where time is short.

    Sides are multiples of 32. On a processor a dozen epochs of the first candidate should fit in two fifths of the budget. Where images have several
    shapes the input has the one in which they leave least unused.
    """
    rows = data.part("train")
    sizes = data.sizes[rows if len(rows) else slice(None)].astype(np.float64)
    width, height = np.maximum(np.median(sizes, axis=0), np.percentile(sizes, 90, axis=0) / 2.0)
    aspect = np.log(sizes[:, 0] / sizes[:, 1])
    # Stretching every image alike costs nothing; images of different proportions would be bent differently.
    letterbox = float(np.percentile(aspect, 95) - np.percentile(aspect, 5)) > 0.15
    if letterbox:
        side, stretch = np.sqrt(width * height), np.exp(0.5 * best_fitting(aspect))
        width, height = side * stretch, side / stretch
    most = largest or _MOST[gpu]
    scale = min(1.0, most / max(width, height))
    if not gpu:
        # A small set is repeated until an epoch has 64 samples.
        samples = max(len(rows), 64 if width * height <= 320 * 320 else 16)
        affordable = _SHARE * budget / (_EPOCHS * samples * _SECONDS) * 128.0**2
        scale = min(scale, float(np.sqrt(affordable / (width * height))))
    wide, high = (int(np.clip(_multiple(side * scale, most), _LEAST, max(_LEAST, most // 32 * 32))) for side in (width, height))
    return InputPolicy(
        width=wide,
        height=high,
        channels=channels,
        dtype="float32" if data.deep else "uint8",
        resize="letterbox" if letterbox else "stretch",
        bit_depth=data.bit_depth,
    )


def best_fitting(aspects: NDArray[np.float64]) -> float:
    """Give the shape, of those that images have, of which they cover most on average.

    Parameters
    ----------
    aspects
        ``(N,)`` logarithms of width over height.

    Returns
    -------
    float
        The logarithm of the input's width over its height. An image covers ``exp(-|difference|)`` of an input of another shape.
    """
    shapes = np.unique(np.quantile(aspects, np.linspace(0.0, 1.0, 65)))
    covered = np.exp(-np.abs(aspects[:, None] - shapes[None])).mean(axis=0)
    return float(shapes[covered.argmax()])


def _multiple(side: float, most: int) -> int:
    """Give the multiple of 32 that is nearest, rather the larger one: a quarter more is still taken up."""
    return int(min(max(1, round(side / 32 + 0.25)), max(1, most // 32)) * 32)
