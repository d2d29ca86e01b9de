"""A graph served in bfloat16: tried by the Triton that would serve it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_automl.packaging.variants import Served
from oteo_core.graphs.outputs import Output
from oteo_core.graphs.parity import ParityClient

_PAIRS = 15
_WARM = 3
_SECONDS = 6.0


def serve_bf16(
    client: ParityClient,
    name: str,
    config: str,
    in_bfloat16: str,
    files: Mapping[str, bytes],
    outputs: Sequence[Output],
    images: NDArray[Any],
    *,
    batch: int,
    check: Callable[[], None],
) -> Served:
    """Have a Triton serve a graph under both configurations: all images in bfloat16, and one image in turn for the times.

    Both times are those of a caller on the job's machine, way there and back included: what is gained by bfloat16 is not told for more than it is.

    Parameters
    ----------
    client
        A Triton.
    name
        Under which the graph is served; ``-bf16`` is added for the other.
    config, in_bfloat16
        Triton's configurations.
    files
        By path below the model's folder.
    outputs
        What the graph gives.
    images
        ``(N, H, W, C)``.
    batch
        Images in a request.
    check
        Raises if the job is to stop.

    Raises
    ------
    TritonAway
        No Triton.
    ValueError
        It refuses the configuration, or the images.
    """
    other = f"{name}-bf16"
    names = [output.name for output in outputs]
    try:
        for model, text in ((name, config), (other, in_bfloat16)):
            check()
            client.unload(model)  # a killed attempt may have left its own
            client.load(model, text, files)
        parts = []
        for start in range(0, len(images), batch):
            check()
            parts.append(client.infer(other, images[start : start + batch], names))
        image = np.ascontiguousarray(images[:1])
        taken: dict[str, list[float]] = {name: [], other: []}
        began = time.perf_counter()
        for turn in range(_WARM + _PAIRS):
            for model in (name, other):
                start_time = time.perf_counter()
                client.infer(model, image, names)
                if turn >= _WARM:
                    taken[model].append(time.perf_counter() - start_time)
            if turn > _WARM and time.perf_counter() - began > _SECONDS:
                break
    finally:
        for model in (name, other):
            client.unload(model)
    found = {one: np.concatenate(column) for one, column in zip(names, zip(*parts, strict=True), strict=True)}
    return Served(in_bfloat16.encode(), found, statistics.median(taken[other]), statistics.median(taken[name]))
