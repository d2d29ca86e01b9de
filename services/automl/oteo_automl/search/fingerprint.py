"""What a dataset is, as far as it decides what to try: sizes, depth, balance, groups."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_automl.search.data import TrainingData
from oteo_core.datasets import DatasetReader
from oteo_core.images import InputPolicy


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Counts and shapes of a classification dataset.

    Parameters
    ----------
    train_count, validation_count, test_count
        Images.
    group_count
        Independent groups among them.
    class_counts
        Images of each class, training and validation parts.
    imbalance
        Largest class over smallest.
    width, height
        Median, pixels.
    aspect_spread
        95th over 5th percentile of width over height.
    channels
        1 where every image is grey, 3 where any has colours, more where all have as many.
    deep
        True where pixels have more than 8 bits.
    bit_depth
        The most bits that any 16-bit image fills, which all are scaled by; 0 where there is none.
    left_out
        Samples that could not be used, by reason.
    """

    train_count: int
    validation_count: int
    test_count: int
    group_count: int
    class_counts: dict[str, int]
    imbalance: float
    width: int
    height: int
    aspect_spread: float
    channels: int
    deep: bool
    left_out: dict[str, int]
    bit_depth: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Give JSON values."""
        return asdict(self)


def take_fingerprint(data: TrainingData) -> Fingerprint:
    """Look at a dataset's table; no pixels are read."""
    chosen = data.part("train", "validation")
    counts = class_counts(data.labels[chosen], len(data.classes))
    widths, heights = np.maximum(data.sizes[:, 0], 1), np.maximum(data.sizes[:, 1], 1)
    low, high = np.percentile(widths / heights, [5, 95])
    return Fingerprint(
        train_count=len(data.part("train")),
        validation_count=len(data.part("validation")),
        test_count=len(data.part("test")),
        group_count=len(set(data.groups)),
        class_counts={name: int(count) for name, count in zip(data.classes, counts, strict=True)},
        imbalance=float(counts.max() / max(1, counts.min())),
        width=int(np.median(widths)),
        height=int(np.median(heights)),
        aspect_spread=float(high / low),
        channels=input_channels(data.channels),
        deep=data.deep,
        left_out=dict(data.left_out),
        bit_depth=data.bit_depth,
    )


def class_counts(labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Give the samples of each class, of labels ``(N,)`` or ``(N, K)``."""
    counts: NDArray[np.int64] = labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=classes)
    return counts


def choose_policy(fingerprint: Fingerprint, *, gpu: bool, budget: float, largest: int = 0) -> InputPolicy:
    """Choose how images become inputs.

    As large as the images are, but not larger than the time allows: 224 pixels on a GPU, else 128, and 96 or 64 where so many
    images would leave time for fewer than a dozen epochs of a small network. `largest` (pixels), where it is not 0, is the limit instead.
    """
    smaller = min(fingerprint.width, fingerprint.height)
    most = largest or (224 if gpu else 128)
    if not gpu and not largest:
        # A small network at 128 pixels: about 12 ms an image and core (docs/benchmarks.md).
        per_epoch = 0.012 * max(1, fingerprint.train_count)
        for side in (96, 64):
            if per_epoch * (most / 128) ** 2 * 12 > 0.6 * budget:
                most = side
    side = int(np.clip(round(smaller / 32) * 32, 32, most))
    return InputPolicy(
        width=side,
        height=side,
        channels=fingerprint.channels,
        dtype="float32" if fingerprint.deep else "uint8",
        bit_depth=fingerprint.bit_depth,
        resize="letterbox" if fingerprint.aspect_spread > 2.5 else "stretch",
    )


def describe_depth(reader: DatasetReader) -> dict[str, Any]:
    """Say what is known of the third dimension and of lengths, JSON values; empty where nothing is.

    ``spacing_mm``: median distance of pixels in x, y and, for stacks, z, of the samples that have as many as most; ``slices``: median number of
    samples that came from one stack or clip.
    """
    spacings: list[tuple[float, ...]] = []
    stacks: Counter[str] = Counter()
    for sample in reader.samples(columns=("spacing", "sequence")):
        if sample.spacing:
            spacings.append(tuple(sample.spacing))
        if sample.sequence:
            stacks[sample.sequence] += 1
    found: dict[str, Any] = {}
    if spacings:
        length = Counter(len(one) for one in spacings).most_common(1)[0][0]
        found["spacing_mm"] = [round(float(one), 4) for one in np.median([one for one in spacings if len(one) == length], axis=0)]
    if stacks:
        found["slices"] = int(np.median(list(stacks.values())))
    return found


def input_channels(kinds: frozenset[int]) -> int:
    """Give the channels of a model's input: 1 where every image is grey, as many as the images have where all have more than four, else 3."""
    if kinds <= {1, 2}:
        return 1
    return next(iter(kinds)) if len(kinds) == 1 and min(kinds) > 4 else 3


def describe_images(sizes: NDArray[np.int64], kinds: frozenset[int], *, deep: bool, bit_depth: int) -> dict[str, Any]:
    """Say in JSON values what images ``(N, 2)`` (width, height) are like."""
    widths, heights = np.maximum(sizes[:, 0], 1), np.maximum(sizes[:, 1], 1)
    return {
        "width": int(np.median(widths)),
        "height": int(np.median(heights)),
        "largest_width": int(widths.max()),
        "largest_height": int(heights.max()),
        "channels": input_channels(kinds),
        "deep": deep,
        "bit_depth": bit_depth,
    }
