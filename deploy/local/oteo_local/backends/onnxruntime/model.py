"""A Triton backend that runs ONNX models with onnxruntime, written for Triton's Python runtime.

Triton's wheel carries the Python backend alone. This file, in a folder named ``onnxruntime`` among the backends, makes a *Python-based backend* of it: a model
whose configuration says ``backend: "onnxruntime"`` (or ``platform: "onnxruntime_onnx"``) is served here as NVIDIA's container serves it with its native backend,
from the same repository. It is copied into the embedded Triton's environment and runs there, under that environment's interpreter and NumPy, never in Oteo's own.

Understood of a model's configuration: inputs, outputs, ``max_batch_size``, dynamic batching, ``instance_group``, ``optimization.graph.level`` and the native
backend's parameters ``intra_op_thread_count``, ``inter_op_thread_count``, ``execution_mode`` and ``enable_mem_arena``. What is missing is completed from the graph.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # given by Triton's stub process

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


class TritonPythonModel:
    """One instance of one model, in a process of its own."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
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
        session = open_session(model_file_of_stub(), {}, intra_op_threads=1)
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

    def initialize(self, args: dict[str, str]) -> None:
        """Open the graph.

        Parameters
        ----------
        args : dict
            Triton's: ``model_config`` (JSON), ``model_repository`` (the model's folder), ``model_version``, ``model_name``, ``model_instance_kind``.
        """
        if int(np.__version__.split(".")[0]) >= 2:
            raise pb_utils.TritonModelException(
                f"NumPy {np.__version__} gives wrong outputs under this Triton: the environment needs numpy<2"
            )
        config = json.loads(args["model_config"])
        self.name = args["model_name"]
        self.batched = int(config.get("max_batch_size", 0)) > 0
        file = Path(args["model_repository"]) / args["model_version"] / (config.get("default_model_filename") or "model.onnx")
        self.session = open_session(file, config, gpu=args.get("model_instance_kind") == "GPU")
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.strings = {value.name for value in self.session.get_inputs() if value.type == "tensor(string)"}
        self.outputs = [value.name for value in self.session.get_outputs()]
        unknown = [item["name"] for item in config.get("input", []) if item["name"] not in self.inputs]
        unknown += [item["name"] for item in config.get("output", []) if item["name"] not in self.outputs]
        if unknown:
            raise pb_utils.TritonModelException(
                f"model '{self.name}': the configuration names {unknown}; the graph has inputs {self.inputs} and outputs {self.outputs}"
            )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests: those that fit together run as one batch, and one that fails takes no other with it.

        Returns
        -------
        list of pb_utils.InferenceResponse
            One a request, in their order.
        """
        responses: list[Any] = [None] * len(requests)
        groups: dict[tuple[Any, ...], list[int]] = {}
        feeds: list[dict[str, np.ndarray]] = []
        for index, request in enumerate(requests):
            feed: dict[str, np.ndarray] = {}
            try:
                feed = self._feed(request)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one request is that request's answer
                responses[index] = refused(f"model '{self.name}': {error}")
            feeds.append(feed)
            if responses[index] is None:
                # A key of its own keeps a request alone where the model takes no batches.
                key = (index,) if not self.batched else tuple((name, array.dtype.str, array.shape[1:]) for name, array in feed.items())
                groups.setdefault(key, []).append(index)
        for members in groups.values():
            self._answer(members, requests, feeds, responses)
        return responses

    def finalize(self) -> None:
        """Let go of the graph before the process ends."""
        del self.session

    def _feed(self, request: Any) -> dict[str, np.ndarray]:
        """Read a request's tensors by name."""
        feed = {}
        for tensor in request.inputs():
            array = tensor.as_numpy()
            if tensor.name() in self.strings:
                array = np.array([item.decode() if isinstance(item, bytes) else item for item in array.ravel()], dtype=object).reshape(
                    array.shape
                )
            feed[tensor.name()] = array
        return feed

    def _answer(self, members: list[int], requests: Sequence[Any], feeds: list[dict[str, np.ndarray]], responses: list[Any]) -> None:
        """Run the requests ``members`` together and fill in their responses."""
        wanted = [requested_outputs(requests[index], self.outputs) for index in members]
        names = [name for name in self.outputs if any(name in some for some in wanted)]
        sizes = [next(iter(feeds[index].values())).shape[0] if self.batched else 1 for index in members]
        try:
            results = self._run(names, [feeds[index] for index in members], sizes)
        except Exception as error:  # noqa: BLE001 - becomes the answer of the request at fault
            if len(members) == 1:
                responses[members[0]] = refused(f"model '{self.name}': {first_line(error)}")
            else:  # one of them is at fault: each alone tells which
                for index in members:
                    self._answer([index], requests, feeds, responses)
            return
        for index, some, arrays in zip(members, wanted, results, strict=True):
            tensors = [pb_utils.Tensor(name, array) for name, array in zip(names, arrays, strict=True) if name in some]
            responses[index] = pb_utils.InferenceResponse(output_tensors=tensors)

    def _run(self, names: list[str], feeds: list[dict[str, np.ndarray]], sizes: list[int]) -> list[list[np.ndarray]]:
        """Run feeds as one batch; the outputs of each feed, in the order of ``names``."""
        if len(feeds) == 1:
            return [[plain(array) for array in self.session.run(names, feeds[0])]]
        together = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
        arrays = [plain(array) for array in self.session.run(names, together)]
        if any(array.ndim == 0 or array.shape[0] != sum(sizes) for array in arrays):
            raise ValueError(f"an output of shape {[array.shape for array in arrays]} has no batch axis of {sum(sizes)}")
        cuts = np.cumsum(sizes)[:-1]
        return [list(parts) for parts in zip(*(np.split(array, cuts) for array in arrays), strict=True)]


def open_session(file: Path, config: dict[str, Any], *, intra_op_threads: int | None = None, gpu: bool = False) -> ort.InferenceSession:
    """Open an ONNX file as a model's configuration asks."""
    parameters = {key: value.get("string_value", "") for key, value in config.get("parameters", {}).items()}
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = intra_op_threads or positive(parameters, "intra_op_thread_count") or default_threads()
    options.inter_op_num_threads = positive(parameters, "inter_op_thread_count")
    if parameters.get("execution_mode") == "1":
        options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
    if parameters.get("enable_mem_arena") == "0":
        options.enable_cpu_mem_arena = False
    level = str(config.get("optimization", {}).get("graph", {}).get("level", "0"))
    if level == "-1":
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    elif level == "1":
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    # Waiting threads that spin take the cores from the services and jobs that share this machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = ["CPUExecutionProvider"]
    if gpu and "CUDAExecutionProvider" in ort.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    try:
        return ort.InferenceSession(str(file), sess_options=options, providers=providers)
    except Exception as error:
        raise pb_utils.TritonModelException(f"onnxruntime cannot open {file.name}: {first_line(error)}") from error


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


def requested_outputs(request: Any, outputs: Iterable[str]) -> set[str]:
    """Give the names of the outputs that a request asks for; none named means all."""
    return set(request.requested_output_names()) or set(outputs)


def plain(array: Any) -> np.ndarray:
    """Give an output as Triton carries it: contiguous, strings as bytes."""
    array = np.asarray(array)
    if array.dtype.kind in "OU":
        return np.array([str(item).encode() for item in array.ravel()], dtype=object).reshape(array.shape)
    return np.ascontiguousarray(array)


def refused(message: str) -> Any:
    """Answer one request with an error."""
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))


def first_line(error: BaseException) -> str:
    """Give an error's message without onnxruntime's trace."""
    return str(error).strip().split("\n")[0][:400]


def positive(parameters: dict[str, str], name: str) -> int:
    """Read a whole number of a model's parameters; 0 means onnxruntime's own choice."""
    text = parameters.get(name, "").strip()
    if not text:
        return 0
    if not text.lstrip("-").isdigit():
        raise pb_utils.TritonModelException(f"parameter {name} is '{text}', not a whole number")
    return max(0, int(text))


def default_threads() -> int:
    """Give the threads of an instance whose configuration names none: ``OTEO_TRITON_THREADS``, else every core that this process may use."""
    text = os.environ.get("OTEO_TRITON_THREADS", "")
    return int(text) if text.isdigit() and int(text) > 0 else len(os.sched_getaffinity(0))
