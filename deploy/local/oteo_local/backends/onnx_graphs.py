"""A graph run by onnxruntime; in Triton's Python runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # given by Triton's stub process


class OnnxGraph:
    """An ONNX file opened by onnxruntime as a model's configuration asks.

    Parameters
    ----------
    file
        The graph.
    config
        The model's configuration, JSON values. Read of it: ``optimization.graph.level`` and the native backend's parameters
        ``intra_op_thread_count``, ``inter_op_thread_count``, ``execution_mode`` and ``enable_mem_arena``.
    threads
        Of one operator; 0: as the configuration says.
    gpu
        True: on a GPU, if this onnxruntime has one.

    Raises
    ------
    pb_utils.TritonModelException
        It is no graph that onnxruntime runs, or a parameter is wrong.
    """

    def __init__(self, file: Path, config: dict[str, Any], *, threads: int = 0, gpu: bool = False) -> None:
        parameters = parameters_of(config)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or positive(parameters, "intra_op_thread_count") or default_threads()
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
            self.session = ort.InferenceSession(str(file), sess_options=options, providers=providers)
        except Exception as error:
            raise pb_utils.TritonModelException(f"onnxruntime cannot open {file.name}: {first_line(error)}") from error
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]
        self.strings = {value.name for value in self.session.get_inputs() if value.type == "tensor(string)"}

    def run(self, names: list[str], feed: dict[str, np.ndarray]) -> list[Any]:
        """Give the outputs of these names."""
        return list(self.session.run(names, feed))


def parameters_of(config: dict[str, Any]) -> dict[str, str]:
    """Give a configuration's parameters as words."""
    return {key: str(value.get("string_value", "")) for key, value in config.get("parameters", {}).items()}


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
