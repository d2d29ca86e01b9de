"""A Triton backend that runs ONNX models with onnxruntime, written for Triton's Python runtime.

Triton's wheel carries the Python backend alone. This file, in a folder named ``onnxruntime`` among the backends, makes a *Python-based backend* of it: a model
whose configuration says ``backend: "onnxruntime"`` (or ``platform: "onnxruntime_onnx"``) is served here as NVIDIA's container serves it with its native backend,
from the same repository. It is copied into the embedded Triton's environment, with the modules beside its folder, and runs there, under that environment's
interpreter and NumPy, never in Oteo's own.

Understood of a model's configuration: inputs, outputs, ``max_batch_size``, dynamic batching, ``instance_group``, and what `OnnxGraph` names.
What is missing is completed from the graph.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oteo_local.backends.onnx_graphs import OnnxGraph
from oteo_local.backends.serving import Graph, ServedGraph


class TritonPythonModel(ServedGraph):
    """A model that onnxruntime runs."""

    def open(self, file: Path, config: dict[str, Any], kind: str) -> Graph:
        """Open the graph; see the base class."""
        return OnnxGraph(file, config, gpu=kind == "GPU")
