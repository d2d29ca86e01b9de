"""A graph run by OpenVINO on the processor, in bfloat16 where asked for and the processor has it; in Triton's Python runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # given by Triton's stub process

from oteo_local.backends.onnx_graphs import default_threads, parameters_of, positive

HINTS = ("LATENCY", "THROUGHPUT", "CUMULATIVE_THROUGHPUT")


class OpenvinoGraph:
    """An ONNX file compiled by OpenVINO for the processor.

    Parameters
    ----------
    file
        The graph.
    config
        The model's configuration, JSON values. Read of it: the native backend's parameters ``HINT_BF16`` (``YES``), ``INFERENCE_NUM_THREADS``,
        ``NUM_STREAMS`` and ``PERFORMANCE_HINT``.
    say
        Told in a line that bfloat16 is asked for and the processor has none.

    Raises
    ------
    pb_utils.TritonModelException
        A parameter is wrong.
    RuntimeError
        OpenVINO does not take the graph.

    Notes
    -----
    A graph is run in full precision where ``HINT_BF16`` is not set. OpenVINO's own choice, and so that of the native backend, is then bfloat16 wherever the
    processor has it; nobody has asked for other answers than the graph's.
    """

    def __init__(self, file: Path, config: dict[str, Any], say: Callable[[str], None]) -> None:
        parameters = parameters_of(config)
        settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": positive(parameters, "INFERENCE_NUM_THREADS") or default_threads(),
            "PERFORMANCE_HINT": one_of(parameters, "PERFORMANCE_HINT", HINTS) or "LATENCY",
            # Several models and the services share the cores: each bound to the first ones would be in the others' way.
            "ENABLE_CPU_PINNING": False,
        }
        if streams := positive(parameters, "NUM_STREAMS"):
            settings["NUM_STREAMS"] = streams
        wanted = one_of(parameters, "HINT_BF16", ("YES",)) == "YES"

        import openvino

        core = openvino.Core()
        # Asked of the device: OpenVINO also takes the hint where it would have to imitate bfloat16, slower than full precision.
        has = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if wanted and not has:
            say("this processor has no instructions for bfloat16: run in full precision")
        settings["INFERENCE_PRECISION_HINT"] = "bf16" if wanted and has else "f32"
        compiled = core.compile_model(core.read_model(str(file)), "CPU", settings)
        self.strings: set[str] = set()  # it takes no texts
        # A tensor may go by several names, inner ones among them: the configuration says which is meant.
        self.inputs = [name for value in compiled.inputs for name in value.names]
        self._ports = {name: value for value in compiled.outputs for name in value.names}
        self.outputs = [item["name"] for item in config.get("output", []) if item["name"] in self._ports]
        self._request = compiled.create_infer_request()

    def run(self, names: list[str], feed: dict[str, np.ndarray]) -> list[Any]:
        """Give the outputs of these names."""
        self._request.infer(feed, share_inputs=True, share_outputs=True)
        # The request's own memory is written again by its next run.
        return [np.array(self._request.get_tensor(self._ports[name]).data) for name in names]


def one_of(parameters: dict[str, str], name: str, allowed: tuple[str, ...]) -> str:
    """Read a word of a model's parameters, in capitals; empty where it is not set."""
    word = parameters.get(name, "").strip().upper()
    if word and word not in allowed:
        raise pb_utils.TritonModelException(f"parameter {name} is '{word}', not {' or '.join(allowed)}")
    return word
