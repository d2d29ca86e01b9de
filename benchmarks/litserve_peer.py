"""A LitServe server with the same model and the same decoding as the gateway's, for `predict.py`; run by an environment that has LitServe.

``python litserve_peer.py PORT``; the rest stands in ``PEER_GRAPH``, ``PEER_POLICY``, ``PEER_SITE`` (where onnxruntime, OpenCV and the rest of Oteo's decoding are),
``PEER_CORES`` and ``PEER_SPIN``.
"""

import os
import site
import sys
from typing import Any

# Behind LitServe's own: of what both have, each keeps its version. As a site folder, since Oteo's parts are found by its .pth files.
site.addsitedir(os.environ["PEER_SITE"])

import litserve
import numpy as np
from peer_model import BATCH, PeerModel

WAIT = 0.0005


class Served(litserve.LitAPI):
    """An image as base64 in JSON, as LitServe's documentation sends them; answers the probabilities."""

    def setup(self, device: str) -> None:
        """Load the model."""
        self.model = PeerModel.of_environment()

    def decode_request(self, request) -> Any:
        """Decode and resize."""
        return self.model.decode(request["image"])

    def batch(self, inputs: Any) -> Any:
        """Lay images one behind the other."""
        return np.stack(inputs)

    def predict(self, batch: Any) -> Any:
        """Run the model."""
        return self.model.run(batch)

    def unbatch(self, output: Any) -> Any:
        """Take them apart."""
        return list(output)

    def encode_response(self, output: Any) -> dict[str, list[float]]:
        """Write the answer."""
        return {"probabilities": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Served(max_batch_size=BATCH, batch_timeout=WAIT), accelerator="cpu", workers_per_device=1, timeout=120)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="error")
