"""Triton over gRPC, as far as the parity check needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tritonclient.grpc as tc
from google.protobuf import json_format, text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from oteo_core.graphs.parity import TritonAway

_AWAY = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED")

_CHANNEL = [
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
    # A Triton that was started again is found within a second; gRPC's own pause grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class TritonParityClient:
    """A `oteo_core.graphs.parity.ParityClient` on a real Triton.

    Parameters
    ----------
    url
        ``host:port`` of its gRPC endpoint.
    timeout
        Seconds that a call may take; loading starts a process and warms it up.
    """

    def __init__(self, url: str, timeout: float = 60.0) -> None:
        self._url = url
        self._timeout = timeout
        self._client = tc.InferenceServerClient(url, channel_args=_CHANNEL)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def load(self, name: str, config: str, files: Mapping[str, bytes]) -> None:
        """Upload the files and load the model; see the base class."""
        parsed = text_format.Parse(config, model_config_pb2.ModelConfig())
        parsed.name = name
        self._call(
            self._client.load_model,
            name,
            config=json_format.MessageToJson(parsed, preserving_proto_field_name=True),
            files={f"file:{path}": data for path, data in files.items()},
        )

    def infer(self, name: str, images: NDArray[Any], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Give outputs; see the base class."""
        tensor = tc.InferInput("image", list(images.shape), np_to_triton_dtype(images.dtype))
        tensor.set_data_from_numpy(np.ascontiguousarray(images))
        result = self._call(self._client.infer, name, [tensor], outputs=[tc.InferRequestedOutput(one) for one in outputs])
        answers: list[NDArray[Any]] = []
        for one in outputs:
            answer = result.as_numpy(one)
            if answer is None:
                raise ValueError(f"it gives no output named {one}")
            answers.append(answer)
        return answers

    def unload(self, name: str) -> None:
        """Unload the model; see the base class."""
        self._call(self._client.unload_model, name)

    def _call(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, client_timeout=self._timeout, **kwargs)
        except InferenceServerException as error:
            # A killed stub process leaves its model loaded and every inference failing; loading anew mends it.
            if error.status() in _AWAY or "stub process" in str(error.message()).lower():
                raise TritonAway(f"{self._url}: {error.message()}") from error
            raise ValueError(error.message()) from error
