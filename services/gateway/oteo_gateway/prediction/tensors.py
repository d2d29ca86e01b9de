"""The model server's request and answer, without copying the pixels through protobuf.

The request's constant part (model, inputs and outputs) is serialised once; the tensor is appended as ``raw_input_contents``, which
is the last field. Source: Open Inference Protocol, ``ModelInferRequest``; fields as in Triton's ``grpc_service.proto``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from oteo_core.errors import Internal
from oteo_core.images import InputPolicy
from oteo_gateway.wire import record, record_header

INPUT = "image"
OUTPUT = "probabilities"
_ID = 3
_RAW_INPUT_CONTENTS = 7
_DATATYPES = {"uint8": "UINT8", "float32": "FP32"}
_FROM_DATATYPE: Mapping[str, type[np.generic]] = {
    "FP32": np.float32,
    "FP64": np.float64,
    "FP16": np.float16,
    "INT64": np.int64,
    "INT32": np.int32,
    "UINT8": np.uint8,
}


@dataclass(frozen=True)
class InferTemplate:
    """What is the same in every request to one model.

    Parameters
    ----------
    model
        Its name on the model server.
    version
        Its version; empty for the newest.
    policy
        What it takes.
    outputs
        The outputs to ask for; none: all that there are.
    images
        Images in one request.
    """

    model: str
    version: str
    policy: InputPolicy
    outputs: tuple[str, ...] = (OUTPUT,)
    images: int = 1

    def __post_init__(self) -> None:
        """Serialise the constant part."""
        size = self.images * self.policy.height * self.policy.width * self.policy.channels * np.dtype(self.policy.dtype).itemsize
        object.__setattr__(self, "_heads", (self._head(self.outputs, size), self._head((), size)))
        object.__setattr__(self, "_size", size)

    def _head(self, outputs: Sequence[str], size: int) -> bytes:
        request = service_pb2.ModelInferRequest(model_name=self.model, model_version=self.version)
        tensor = request.inputs.add(name=INPUT, datatype=_DATATYPES[self.policy.dtype])
        tensor.shape.extend((self.images, self.policy.height, self.policy.width, self.policy.channels))
        for name in outputs:
            request.outputs.add(name=name)
        head: bytes = request.SerializeToString() + record_header(_RAW_INPUT_CONTENTS, size)
        return head

    def build(self, prepared: NDArray[Any], *, everything: bool = False, request_id: str = "") -> bytes:
        """Give the request.

        Parameters
        ----------
        prepared
            ``(height, width, channels)`` as `oteo_core.images.prepare` gives it for the policy; of several images ``(images, height, width, channels)``.
        everything
            True: ask for all outputs that the model has.
        request_id
            By which the model server's log and traces name the request.
        """
        head: bytes = self.__dict__["_heads"][int(everything)]
        pixels = np.ascontiguousarray(prepared)
        if pixels.nbytes != self.__dict__["_size"]:
            raise Internal(f"A prepared image of shape {prepared.shape} and {prepared.dtype}, not what {self.policy} asks for.")
        return b"".join((record(_ID, request_id.encode()) if request_id else b"", head, pixels.data.cast("B")))


def read_outputs(response: bytes) -> tuple[dict[str, NDArray[Any]], str]:
    """Read all outputs of an answer, and the version that gave it.

    Returns
    -------
    dict, str
        Arrays by name, as the model gave them (the pixels are not copied), and the model's version.

    Raises
    ------
    Internal
        ``BAD_MODEL_OUTPUT``: an output is of a type that is no number, or cut off.
    """
    message = service_pb2.ModelInferResponse.FromString(response)
    found: dict[str, NDArray[Any]] = {}
    for index, tensor in enumerate(message.outputs):
        dtype = _FROM_DATATYPE.get(tensor.datatype)
        shape = tuple(tensor.shape)
        if dtype is None:
            raise Internal(f"The model's output {tensor.name!r} is of type {tensor.datatype}.", reason="BAD_MODEL_OUTPUT")
        if index < len(message.raw_output_contents):
            content = message.raw_output_contents[index]
            if len(content) % np.dtype(dtype).itemsize:
                raise Internal(f"The model's output {tensor.name!r} is cut off.", reason="BAD_MODEL_OUTPUT")
            values = np.frombuffer(content, dtype=dtype)
        else:
            given = tensor.contents
            listed = given.fp32_contents or given.fp64_contents or given.int64_contents or given.int_contents or given.uint_contents
            values = np.asarray(listed, dtype=dtype)
        if values.size != math.prod(shape):
            raise Internal(f"The model's output {tensor.name!r} has {values.size} values for shape {shape}.", reason="BAD_MODEL_OUTPUT")
        found[tensor.name] = values.reshape(shape)
    return found, str(message.model_version)
