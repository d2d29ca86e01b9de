"""Running a served module over many images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def run_torch(module: torch.nn.Module, images: NDArray[Any], batch: int = 64) -> tuple[NDArray[Any], ...]:
    """Run a served network in PyTorch, in float32, on the processor.

    Parameters
    ----------
    module
        Gives a tuple of tensors, in evaluation mode: a `ServedClassifier`, or what `oteo_automl.dense.DenseTask.serve` gives.
    images
        ``(N, H, W, C)``.
    batch
        Images at a time.

    Returns
    -------
    tuple of ndarray
        One ``(N, ...)`` for each output: probabilities and logits ``(N, K)`` float32 of a classifier.
    """
    parts: list[list[NDArray[Any]]] = []
    with torch.inference_mode():
        for part in batches(images, batch):
            parts.append([one.numpy() for one in module(torch.from_numpy(np.ascontiguousarray(part)))])
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def batches(images: NDArray[Any], size: int) -> Iterator[NDArray[Any]]:
    """Cut ``(N, ...)`` into parts of at most `size`."""
    for start in range(0, len(images), size):
        yield images[start : start + size]
