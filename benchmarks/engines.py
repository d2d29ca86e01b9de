"""Both engines of augmentation, a transform at a time, from the same draws.

``python benchmarks/engines.py [--device cpu] [--batch 32] [--side 256] [--repeats 5] [--threads 1]``

Images a second of `augment_batch`, drawing included, and for the second engine the way to the device and back; best of the repeats.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from oteo_core.augmentation import AugmentationKey, Policy, Step, augment_batch
from oteo_core.sampledata import draw_cell

TRANSFORMS = (
    *("HorizontalFlip", "Affine", "Perspective", "ElasticTransform", "RandomResizedCrop"),
    *("RandomBrightnessContrast", "RandomGamma", "ColorJitter", "GaussianBlur", "MedianBlur"),
)


def images_a_second(images: Sequence[NDArray[Any]], name: str, engine: str, device: str, repeats: int) -> float:
    """Give the best rate of some repeats, after one that warms up."""
    policy, keys = Policy((Step(name),)), [AugmentationKey(str(number)) for number in range(len(images))]
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        augment_batch(images, policy, keys, engine=engine, device=device)
        times.append(time.perf_counter() - start)
    return len(images) / min(times[1:])


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    cv2.setNumThreads(given.threads)
    torch.set_num_threads(given.threads)
    images = [np.ascontiguousarray(draw_cell(number, size=given.side)[0]) for number in range(given.batch)]
    print(f"{given.batch} images of {given.side} x {given.side} x 3, 8 bits; second engine on {given.device}; {given.threads} threads\n")
    print("| transform | first engine, images/s | second engine, images/s | second by first |\n|---|---|---|---|")
    for name in TRANSFORMS:
        first, second = (images_a_second(images, name, engine, given.device, given.repeats) for engine in ("cpu", "gpu"))
        print(f"| {name} | {first:.0f} | {second:.0f} | {second / first:.2f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
