"""The model server's request and answer, without copying the pixels through protobuf.

The request's constant part (model, inputs and outputs) is serialised once; the tensor is appended as ``raw_input_contents``, which
is the last field. Source: Open Inference Protocol, ``ModelInferRequest``; fields as in Triton's ``grpc_service.proto``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from oteo_core.errors import Internal
from oteo_core.images import InputPolicy
from oteo_gateway.wire import record_header

INPUT = "image"
OUTPUT = "probabilities"
_RAW_INPUT_CONTENTS = 7
_DATATYPES = {"uint8": "UINT8", "float32": "FP32"}
_FROM_DATATYPE: Mapping[str, type[np.generic]] = {"FP32": np.float32, "FP64": np.float64, "FP16": np.float16}


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
    output
        The output to ask for.
    """

    model: str
    version: str
    policy: InputPolicy
    output: str = OUTPUT

    def __post_init__(self) -> None:
        """Serialise the constant part."""
        request = service_pb2.ModelInferRequest(model_name=self.model, model_version=self.version)
        tensor = request.inputs.add(name=INPUT, datatype=_DATATYPES[self.policy.dtype])
        tensor.shape.extend((1, self.policy.height, self.policy.width, self.policy.channels))
        request.outputs.add(name=self.output)
        size = self.policy.height * self.policy.width * self.policy.channels * np.dtype(self.policy.dtype).itemsize
        object.__setattr__(self, "_head", request.SerializeToString() + record_header(_RAW_INPUT_CONTENTS, size))
        object.__setattr__(self, "_size", size)

    def build(self, prepared: NDArray[Any]) -> bytes:
        """Give the request of one image.

        Parameters
        ----------
        prepared
            ``(height, width, channels)`` as `oteo_core.images.prepare` gives it for the policy.
        """
        head: bytes = self.__dict__["_head"]
        pixels = np.ascontiguousarray(prepared)
        if pixels.nbytes != self.__dict__["_size"]:
            raise Internal(f"A prepared image of shape {prepared.shape} and {prepared.dtype}, not what {self.policy} asks for.")
        return b"".join((head, pixels.data.cast("B")))


def read_output(response: bytes, output: str = OUTPUT) -> tuple[NDArray[np.float64], str]:
    """Read one output of an answer, and the version that gave it.

    Returns
    -------
    ndarray, str
        The values ``(N, K)`` as float64, and the model's version.

    Raises
    ------
    Internal
        ``BAD_MODEL_OUTPUT``: the output is missing, of a type that is no number, or cut off.
    """
    message = service_pb2.ModelInferResponse.FromString(response)
    for index, tensor in enumerate(message.outputs):
        if tensor.name != output:
            continue
        dtype = _FROM_DATATYPE.get(tensor.datatype)
        shape = tuple(tensor.shape)
        if dtype is None:
            raise Internal(f"The model's output {output!r} is of type {tensor.datatype}.", reason="BAD_MODEL_OUTPUT")
        if index < len(message.raw_output_contents):
            values = np.frombuffer(message.raw_output_contents[index], dtype=dtype)
        else:
            values = np.asarray(tensor.contents.fp32_contents or tensor.contents.fp64_contents, dtype=dtype)
        if values.size != int(np.prod(shape)):
            raise Internal(f"The model's output {output!r} has {values.size} values for shape {shape}.", reason="BAD_MODEL_OUTPUT")
        return values.reshape(shape).astype(np.float64), str(message.model_version)
    raise Internal(f"The model gave no output {output!r}.", reason="BAD_MODEL_OUTPUT")
