"""Convolutional features learnt without labels from the training images alone.

Coates, Lee and Ng, "An analysis of single-layer networks in unsupervised feature learning" (AISTATS 2011): whitened patches, k-means,
a soft threshold, pooling over quadrants. What a frozen network is where there are no pretrained weights.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from oteo_automl.candidates.modules import SavedModule, saved, to_planes

SIDE = 6
"""Side of a patch, pixels."""
GRID = 3
"""Cells along each side over which answers are pooled."""
_PATCHES = 20_000
_CONTRAST = 10.0 / 255.0 / 255.0


@saved
class PatchFeatures(SavedModule):
    """From ``(N, H, W, C)`` images to ``(N, 2 * centres * 9)`` features.

    Parameters
    ----------
    channels
        Of the images.
    centres
        Number of patches in the dictionary.
    shrink
        Images are shrunk by this whole factor first.
    """

    kind = "patches"
    whitening: torch.Tensor
    mean: torch.Tensor
    centroids: torch.Tensor

    def __init__(self, channels: int, centres: int, shrink: int) -> None:
        super().__init__(channels=channels, centres=centres, shrink=shrink)
        size = channels * SIDE * SIDE
        self.register_buffer("whitening", torch.eye(size))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("centroids", torch.zeros(centres, size))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give ``(N, D)``."""
        planes = to_planes(image)
        if self.settings["shrink"] > 1:
            planes = F.avg_pool2d(planes, self.settings["shrink"])
        # What follows does not depend on a constant added to the image, but its rounding does: a bright background would cost three digits.
        planes = planes - planes.mean(dim=(1, 2, 3), keepdim=True)
        channels, size = self.settings["channels"], self.mean.shape[0]
        # Everything up to the threshold is linear in the patch but for its contrast: four convolutions and a division.
        box = planes.new_full((1, channels, SIDE, SIDE), 1.0 / size)
        local_mean = F.conv2d(planes, box, stride=2)
        local_square = F.conv2d(planes * planes, box, stride=2)
        contrast = torch.rsqrt((local_square - local_mean * local_mean).clamp(min=0.0) + _CONTRAST)
        filters = self.centroids @ self.whitening
        kernel = (filters - filters.mean(dim=1, keepdim=True)).view(-1, channels, SIDE, SIDE)
        offset = (filters @ self.mean).view(1, -1, 1, 1)
        response = F.conv2d(planes, kernel, stride=2) * contrast - offset
        threshold = 0.25
        active = torch.cat([F.relu(response - threshold), F.relu(-response - threshold)], dim=1)
        height, width = int(active.shape[2]) // GRID, int(active.shape[3]) // GRID
        pooled = F.avg_pool2d(active[:, :, : height * GRID, : width * GRID], (height, width))
        return torch.sqrt(pooled.flatten(1) + 1e-6)


def fit_patches(images: NDArray[np.generic], *, centres: int, seed: int) -> PatchFeatures:
    """Learn a dictionary.

    Parameters
    ----------
    images
        ``(N, H, W, C)`` training images, uint8 or float32 of 0 to 1, both sides at least 24.
    centres
        Size of the dictionary.
    seed
        Of the patches drawn and of k-means.
    """
    height, width, channels = images.shape[1:]
    shrink = max(1, round(min(height, width) / 64))
    rng = np.random.Generator(np.random.Philox(key=seed))
    chosen = rng.choice(len(images), size=min(len(images), 512), replace=False)
    patches: list[NDArray[np.float32]] = []
    for index in chosen:
        planes = to_planes(torch.from_numpy(np.ascontiguousarray(images[index]))[None])
        planes = F.avg_pool2d(planes, shrink) if shrink > 1 else planes
        pixels = planes[0].numpy()
        for _ in range(max(1, _PATCHES // len(chosen))):
            y = int(rng.integers(0, pixels.shape[1] - SIDE + 1))
            x = int(rng.integers(0, pixels.shape[2] - SIDE + 1))
            patches.append(pixels[:, y : y + SIDE, x : x + SIDE].ravel())
    data = np.asarray(patches, dtype=np.float32)
    data = (data - data.mean(axis=1, keepdims=True)) / np.sqrt(data.var(axis=1, keepdims=True) + _CONTRAST)
    mean = data.mean(axis=0)
    centred = (data - mean).astype(np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    whitening = (vectors / np.sqrt(np.maximum(values, 0) + 0.1)) @ vectors.T
    white = (centred @ whitening).astype(np.float32)
    count = min(centres, max(2, len(white) // 10))
    means = MiniBatchKMeans(count, random_state=seed % 2**32, n_init=1, batch_size=2048, max_iter=20).fit(white)
    centroids = means.cluster_centers_
    centroids = centroids / np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-6)
    module = PatchFeatures(channels, count, shrink)
    module.whitening.copy_(torch.from_numpy(whitening))
    module.mean.copy_(torch.from_numpy(mean))
    module.centroids.copy_(torch.from_numpy(centroids))
    return module.eval()
