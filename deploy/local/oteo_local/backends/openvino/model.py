"""A Triton backend that runs ONNX models with OpenVINO on the processor, written for Triton's Python runtime.

As the folder ``onnxruntime`` beside it stands for NVIDIA's backend of that name, this one stands for its ``openvino``: a model whose configuration says
``backend: "openvino"``, ``default_model_filename: "model.onnx"`` and instances of ``KIND_CPU`` is served from the same repository by either. Read of the
configuration is what `OpenvinoGraph` names. A graph that OpenVINO does not take is run by onnxruntime, in full precision, and the log says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # given by Triton's stub process

from oteo_local.backends.onnx_graphs import OnnxGraph, first_line
from oteo_local.backends.openvino_graphs import OpenvinoGraph
from oteo_local.backends.serving import Graph, ServedGraph


class TritonPythonModel(ServedGraph):
    """A model that OpenVINO runs."""

    def open(self, file: Path, config: dict[str, Any], kind: str) -> Graph:
        """Open the graph; see the base class."""
        if kind != "CPU":
            raise pb_utils.TritonModelException(f"model '{self.name}': OpenVINO runs on processors; its instances must be of KIND_CPU")
        try:
            return OpenvinoGraph(file, config, lambda words: pb_utils.Logger.log_warn(f"model '{self.name}': {words}"))
        except (ImportError, RuntimeError) as error:
            graph = OnnxGraph(file, {})
            pb_utils.Logger.log_warn(f"model '{self.name}': OpenVINO does not take it, onnxruntime runs it: {first_line(error)}")
            return graph
