"""A BentoML service with the same model and the same decoding as the gateway's, for `predict.py`; run by an environment that has BentoML.

``python -m bentoml serve bentoml_peer:Served --port PORT``; the rest stands in ``PEER_GRAPH``, ``PEER_POLICY``, ``PEER_SITE`` (where onnxruntime, OpenCV and the
rest of Oteo's decoding are), ``PEER_CORES`` and ``PEER_SPIN``. Requests are batched by BentoML's own adaptive batching (at most 16, its default limit on
latency), and a batch is decoded by as many threads as there are cores.
"""

import os
import site

# Behind BentoML's own, as LitServe's peer has it.
site.addsitedir(os.environ["PEER_SITE"])

from concurrent.futures import ThreadPoolExecutor

import bentoml
import numpy as np
from peer_model import BATCH, PeerModel


@bentoml.service(workers=1, traffic={"timeout": 120}, logging={"access": {"enabled": False}})
class Served:
    """Images as base64 in JSON; answers their probabilities."""

    def __init__(self) -> None:
        self.model = PeerModel.of_environment()
        self.threads = ThreadPoolExecutor(int(os.environ["PEER_CORES"]))

    @bentoml.api(batchable=True, max_batch_size=BATCH)
    def predict(self, images: list[str]) -> list[list[float]]:
        """Decode, resize, run."""
        found: list[list[float]] = self.model.run(np.stack(list(self.threads.map(self.model.decode, images)))).tolist()
        return found
