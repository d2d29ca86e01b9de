"""A LitServe server with the same model and the same decoding as the gateway's, for `predict.py`; run by an environment that has LitServe.

``python litserve_peer.py PORT MODEL.onnx POLICY.json SITE_PACKAGES CORES``; SITE_PACKAGES is where onnxruntime, OpenCV and the rest of Oteo's decoding are.
"""

import base64
import json
import site
import sys
from typing import Any

# Behind LitServe's own: of what both have, each keeps its version. As a site folder, since Oteo's parts are found by its .pth files.
site.addsitedir(sys.argv[4])

import cv2
import litserve
import numpy as np
import onnxruntime

from oteo_core.images import InputPolicy, decode, prepare

BATCH, WAIT = 16, 0.0005


class Served(litserve.LitAPI):
    """An image as base64 in JSON, as LitServe's documentation sends them; answers the probabilities."""

    def setup(self, device: str) -> None:
        """Load the model, its threads on all cores, as Triton's instance."""
        cv2.setNumThreads(1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(sys.argv[5])
        self.session = onnxruntime.InferenceSession(sys.argv[2], options, providers=["CPUExecutionProvider"])
        with open(sys.argv[3]) as file:
            self.policy = InputPolicy(**json.load(file))

    def decode_request(self, request) -> Any:
        """Decode and resize."""
        return prepare(decode(base64.b64decode(request["image"])).pixels, self.policy)

    def batch(self, inputs: Any) -> Any:
        """Lay images one behind the other."""
        return np.stack(inputs)

    def predict(self, batch: Any) -> Any:
        """Run the model."""
        return self.session.run(["probabilities"], {"image": batch})[0]

    def unbatch(self, output: Any) -> Any:
        """Take them apart."""
        return list(output)

    def encode_response(self, output: Any) -> dict[str, list[float]]:
        """Write the answer."""
        return {"probabilities": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Served(max_batch_size=BATCH, batch_timeout=WAIT), accelerator="cpu", workers_per_device=1, timeout=120)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="error")
