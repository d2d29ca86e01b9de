"""How usual an image is for a model: cheap statistics of the prepared image against those of the training images.

The same function runs in training and in the gateway, on the image as `oteo_core.images.prepare` gives it. It takes well under a
millisecond at 224 x 224, and tells another stain, scanner, exposure or focus; it does not tell another content.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_QUANTILES = 101
_FLOOR = 1e-3


def statistic_names(channels: int) -> list[str]:
    """Give the names of what `image_statistics` measures on an image of so many channels."""
    per_channel = [f"{what}_{channel}" for what in ("mean", "std") for channel in range(channels)]
    return [*per_channel, "p05", "median", "p95", "dark", "bright", "log_detail", "log_noise"]


def image_statistics(prepared: NDArray[Any]) -> NDArray[np.float64]:
    """Measure a prepared image.

    Parameters
    ----------
    prepared
        ``(height, width, channels)``, uint8 (0 to 255) or float32 (0 to 1), RGB or grey.

    Returns
    -------
    ndarray
        ``(2 * channels + 7,)`` float64, named by `statistic_names`: mean and standard deviation of each channel; 5 %, 50 % and 95 %
        quantile of the brightness (all 0 to 1); shares of pixels that are (nearly) black and white; natural logarithm of the mean
        absolute difference of neighbouring pixels (detail, contrast, focus) and of the median absolute Laplacian (noise).
    """
    if prepared.ndim != 3:
        raise ValueError(f"an image of shape {prepared.shape}, not (height, width, channels)")
    image = prepared
    if image.dtype != np.uint8:
        # A 256-step copy: the histogram needs steps, and statistics of uint8 are several times faster.
        image = cv2.convertScaleAbs(np.ascontiguousarray(image, dtype=np.float32), alpha=255.0).reshape(prepared.shape)
    image = np.ascontiguousarray(image)
    means, deviations = cv2.meanStdDev(image)
    channels = image.shape[2]
    grey: NDArray[np.uint8]
    if channels == 3:
        grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    elif channels == 1:
        grey = image[:, :, 0]
    else:
        grey = image.mean(axis=2).astype(np.uint8)
    shares = np.cumsum(np.asarray(cv2.calcHist([grey], [0], None, [256], [0, 256]), dtype=np.float64).ravel())
    shares /= shares[-1]
    low, middle, high = np.searchsorted(shares, (0.05, 0.5, 0.95)) / 255.0
    detail = (_mean_difference(grey[1:], grey[:-1]) + _mean_difference(grey[:, 1:], grey[:, :-1])) / 510.0
    # At most 1020, four times 255. The median is the lower one of two, by selection: a third of what a histogram of so many steps costs.
    laplacian = np.abs(np.asarray(cv2.Laplacian(grey, cv2.CV_16S))).ravel()
    middlemost = (laplacian.size - 1) // 2
    noise = float(np.partition(laplacian, middlemost)[middlemost]) / 1020.0
    return np.concatenate(
        [
            means.ravel() / 255.0,
            deviations.ravel() / 255.0,
            [low, middle, high, shares[2], 1.0 - shares[252], np.log(detail + _FLOOR), np.log(noise + _FLOOR)],
        ]
    )


def _mean_difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    # OpenCV takes the absolute difference before it sums, so that uint8 does not wrap around.
    return cv2.norm(one, other, cv2.NORM_L1) / one.size if one.size else 0.0


@dataclass(frozen=True)
class ReferenceStatistics:
    """Statistics of a model's training images.

    Parameters
    ----------
    names
        Names of the statistics.
    mean, deviation
        Mean and standard deviation of each over the training images, ``(D,)``.
    quantiles
        Evenly spaced quantiles (minimum to maximum) of the training images' own distances, ``(101,)``, ascending.
    count
        Number of training images.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    quantiles: tuple[float, ...]
    count: int

    @cached_property
    def _arrays(self) -> tuple[NDArray[np.float64], ...]:
        shares = np.linspace(0.0, 1.0, len(self.quantiles))
        return np.asarray(self.mean), np.asarray(self.deviation), np.asarray(self.quantiles), shares

    @classmethod
    def fit(cls, statistics: NDArray[np.float64], names: Iterable[str]) -> ReferenceStatistics:
        """Summarise training images.

        Parameters
        ----------
        statistics
            ``(N, D)``, a row for each image as `image_statistics` gives it; at least one.
        names
            Names of the D statistics.
        """
        labels = tuple(names)
        if statistics.ndim != 2 or not len(statistics) or statistics.shape[1] != len(labels):
            raise ValueError(f"statistics of shape {statistics.shape} for {len(labels)} names")
        mean = statistics.mean(axis=0)
        # A statistic that never varies in training (no black pixel anywhere) would make any other value infinitely far away.
        deviation = np.maximum(statistics.std(axis=0), 0.01)
        distances = np.sqrt((((statistics - mean) / deviation) ** 2).mean(axis=1))
        quantiles = np.quantile(distances, np.linspace(0.0, 1.0, _QUANTILES))
        return cls(labels, tuple(mean.tolist()), tuple(deviation.tolist()), tuple(quantiles.tolist()), len(statistics))

    def distance(self, statistics: NDArray[np.float64]) -> float:
        """Give the distance of an image: root mean square of its standardised statistics, 0 and up; about 1 is usual."""
        mean, deviation, *_ = self._arrays
        return float(np.sqrt((((statistics - mean) / deviation) ** 2).mean()))

    def p_value(self, distance: float) -> float:
        """Give the share of training images at least as far from the mean, above 0 and up to 1.

        ``(1 + n·s) / (n + 1)`` with s the share that lies beyond `distance` by the quantiles: the conformal p-value (Vovk,
        Gammerman and Shafer 2005, section 2.2), read off 101 quantiles. Small means unusual.
        """
        *_, quantiles, shares = self._arrays
        below = float(np.interp(distance, quantiles, shares, left=0.0, right=1.0))
        return (1.0 + self.count * (1.0 - below)) / (self.count + 1.0)

    def score(self, prepared: NDArray[Any]) -> tuple[float, float]:
        """Give distance and p-value of a prepared image ``(height, width, channels)``."""
        distance = self.distance(image_statistics(prepared))
        return distance, self.p_value(distance)

    def to_dict(self) -> dict[str, Any]:
        """Give JSON values."""
        return {
            "names": list(self.names),
            "mean": list(self.mean),
            "deviation": list(self.deviation),
            "quantiles": list(self.quantiles),
            "count": self.count,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ReferenceStatistics:
        """Read what `to_dict` gave."""
        return cls(tuple(data["names"]), tuple(data["mean"]), tuple(data["deviation"]), tuple(data["quantiles"]), int(data["count"]))
