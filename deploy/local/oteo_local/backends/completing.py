"""What a model's configuration leaves out, read from its ONNX graph; runs in Triton's Python runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # given by Triton's stub process

from oteo_local.backends.onnx_graphs import OnnxGraph

# onnxruntime's type names -> Triton's. What is absent (bfloat16, float8, sequences, maps) has no tensor type in the Python backend.
TRITON_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}
DEFAULT_MAX_BATCH = 4  # the native backend's value for a model without a configuration


def complete_config(config: Any) -> Any:
    """Complete inputs, outputs and batching of a configuration from the ONNX graph.

    Parameters
    ----------
    config : pb_utils.ModelConfig
        What the model's ``config.pbtxt`` says; it may say nothing.

    Raises
    ------
    pb_utils.TritonModelException
        The file is no ONNX graph, or has a type that Triton cannot carry.
    """
    given = config.as_dict()
    if is_complete(given):
        return config
    session = OnnxGraph(model_file_of_stub(), {}, threads=1).session
    try:
        values = [*session.get_inputs(), *session.get_outputs()]
        silent = not given["max_batch_size"] and not given["input"] and not given["output"]
        if silent and all(has_batch_axis(value) for value in values):
            config.set_max_batch_size(DEFAULT_MAX_BATCH)
            config.set_dynamic_batching()
        batched = given["max_batch_size"] > 0
        for value in session.get_inputs():
            complete(given["input"], describe(value, batched))
        for value in session.get_outputs():
            complete(given["output"], describe(value, batched))
    except ValueError as error:
        raise pb_utils.TritonModelException(f"model '{given['name']}': {error}") from error
    return config


def model_file_of_stub() -> Path:
    """Give the ONNX file while a configuration is completed, when Triton passes no path to the model: the stub's first argument holds it."""
    path = Path(os.fsdecode(Path("/proc/self/cmdline").read_bytes().split(b"\0")[1]))
    if not path.is_file():
        raise pb_utils.TritonModelException(f"there is no model file {path.parent.name}/{path.name}")
    return path


def has_batch_axis(value: Any) -> bool:
    """Say whether a graph's value has a first axis of any length."""
    return bool(value.shape) and not isinstance(value.shape[0], int)


def is_complete(config: dict[str, Any]) -> bool:
    """Say whether a configuration names inputs and outputs, each with type and shape."""
    tensors = [*config["input"], *config["output"]]
    return bool(config["input"] and config["output"]) and all(
        tensor["data_type"] != "TYPE_INVALID" and tensor["dims"] for tensor in tensors
    )


def complete(tensors: list[dict[str, Any]], found: dict[str, Any]) -> None:
    """Add a tensor of the graph to those of a configuration, or fill in what one of that name leaves out.

    Raises
    ------
    ValueError
        The configuration gives it another type.
    """
    given = next((tensor for tensor in tensors if tensor["name"] == found["name"]), None)
    if given is None:
        tensors.append(found)
        return
    if given["data_type"] not in ("TYPE_INVALID", found["data_type"]):
        raise ValueError(f"'{found['name']}' is {given['data_type']} in the configuration and {found['data_type']} in the graph")
    given["data_type"] = found["data_type"]
    if not given["dims"]:
        given.update({key: found[key] for key in ("dims", "reshape") if key in found})


def describe(value: Any, batched: bool) -> dict[str, Any]:
    """Write a graph's value as Triton's configuration does, without the batch axis if there is one."""
    if value.type not in TRITON_TYPES:
        raise ValueError(f"'{value.name}' is a {value.type}, which Triton's Python runtime does not carry")
    if batched and not value.shape:
        raise ValueError(f"'{value.name}' is a scalar, but max_batch_size asks for a batch axis")
    shape = value.shape[1:] if batched else value.shape
    described: dict[str, Any] = {
        "name": value.name,
        "data_type": TRITON_TYPES[value.type],
        "dims": [axis if isinstance(axis, int) and axis > 0 else -1 for axis in shape] or [1],
    }
    if not shape:  # a configuration must give an axis; Triton takes it away again on the way to the graph
        described["reshape"] = {"shape": []}
    return described
