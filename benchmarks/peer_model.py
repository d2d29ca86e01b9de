"""The model and the decoding that the peers of `predict.py` serve: the gateway's own, as a site would write them into another server.

onnxruntime has as many threads as Triton's instance. Between runs they spin, which is its default and what a site that sets nothing has; Oteo's backend in
Triton has spinning off, so that a model that waits takes nothing from those that work (`deploy/local/oteo_local/backends`). A peer so keeps the cores busy
while it waits, and is a little quicker where nobody else wants them. ``spin=False`` gives both the same.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from oteo_core.images import ImageLimits, InputPolicy, prepare
from oteo_core.images.sequences import open_image

BATCH = 16
"""Most images of a batch; how long a batch waits for more is each peer's own affair."""


def opened(data: bytes) -> tuple[NDArray[Any], int]:
    """Give the first frame ``(H, W, C)`` of a file of any format that the gateway reads, and the bits that it declares; opened as `Predict` opens it."""
    file = open_image(data, ImageLimits())
    frame = next(file.decoders(0))()
    depth = frame.bit_depth if frame.pixels.dtype == np.uint16 and frame.bit_depth else frame.pixels.dtype.itemsize * 8
    return frame.pixels, depth if file.image is None else file.image.bit_depth


def prepared(data: bytes, policy: InputPolicy) -> NDArray[Any]:
    """Give a file's first frame as a model takes it, ``(height, width, channels)``."""
    pixels, depth = opened(data)
    return prepare(pixels, policy, depth)


class PeerModel:
    """A classifier.

    Parameters
    ----------
    graph
        ONNX file.
    policy
        JSON file of the package's input policy.
    cores
        Threads of onnxruntime.
    spin
        Whether they spin while they wait.
    """

    def __init__(self, graph: str, policy: str, cores: int, *, spin: bool = True) -> None:
        cv2.setNumThreads(1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._policy = InputPolicy(**json.loads(Path(policy).read_text()))

    @classmethod
    def of_environment(cls) -> PeerModel:
        """Make what the variables ``PEER_GRAPH``, ``PEER_POLICY``, ``PEER_CORES`` and ``PEER_SPIN`` say."""
        variables = os.environ
        return cls(variables["PEER_GRAPH"], variables["PEER_POLICY"], int(variables["PEER_CORES"]), spin=variables["PEER_SPIN"] == "1")

    def decode(self, text: str) -> NDArray[Any]:
        """Give an image, base64 in JSON as the peers' own documentation sends them, as the model takes it."""
        return prepared(base64.b64decode(text), self._policy)

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Give the probabilities ``(N, K)`` of images ``(N, H, W, C)``."""
        found: NDArray[np.float32] = self._session.run(["probabilities"], {"image": batch})[0]
        return found
