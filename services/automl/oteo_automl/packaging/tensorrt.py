"""TensorRT in a Triton configuration, for clusters with GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from oteo_core.errors import DeadlineExceeded, FailedPrecondition
from oteo_core.graphs.outputs import Output
from oteo_core.graphs.parity import Parity

PRECISIONS = ("FP32", "FP16")
WORKSPACE_BYTES = 1 << 30
CACHE = "/tmp/oteo-tensorrt"
"""Where engines are kept, so that a model that is loaded again need not build them again."""

_LOOSER = {"FP32": 1e-3, "FP16": 2e-2}
"""What probabilities and scores may differ by; sums in another order and in half precision do not give the digits of the processor."""


def with_tensorrt(config: str, precision: str = "FP16") -> str:
    """Give a ``config.pbtxt`` whose instances on GPUs are run by TensorRT inside the ``onnxruntime`` backend.

    A Triton without a GPU loads it as it is: execution accelerators for GPUs are read for instances on a GPU alone, and those of the package
    are there only where there is one (``KIND_AUTO``).

    Parameters
    ----------
    config
        As `oteo_core.graphs.config.config_pbtxt` writes it.
    precision
        Of `PRECISIONS`.

    Notes
    -----
    Names of the parameters: Triton's ONNX Runtime backend, "ONNX Runtime with TensorRT optimization".
    """
    settings = {
        "precision_mode": precision,
        "max_workspace_size_bytes": str(WORKSPACE_BYTES),
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": CACHE,
    }
    parameters = "".join(f'      parameters {{ key: "{key}" value: "{value}" }}\n' for key, value in settings.items())
    return (
        f"{config}optimization {{\n  execution_accelerators {{\n    gpu_execution_accelerator {{\n"
        f'      name: "tensorrt"\n{parameters}    }}\n  }}\n}}\n'
    )


def accelerated(
    prove: Callable[[str, Sequence[Output]], Parity], config: str, outputs: Sequence[Output], precision: str
) -> tuple[str, str]:
    """Give the configuration with TensorRT if a real Triton answers rightly with it.

    Parameters
    ----------
    prove
        Has a Triton serve the graph with a configuration, and compares what it answers within the outputs' tolerances; raises if it differs.
    config, outputs
        As they were proven without TensorRT.
    precision
        Of `PRECISIONS`; empty: none is asked for.

    Returns
    -------
    config, words
        The configuration to publish, and what is said of it; no words where none was asked for.
    """
    if not precision:
        return config, ""
    tried = with_tensorrt(config, precision)
    loose = [
        replace(one, tolerance=max(one.tolerance, _LOOSER[precision]), spare=max(one.spare, 0.0 if one.datatype == "FP32" else 0.02))
        for one in outputs
        if one.name not in ("logits", "boxes")
    ]
    try:
        parity = prove(tried, loose)
    except (FailedPrecondition, DeadlineExceeded) as error:
        return config, f"without TensorRT: {error.message}"
    return tried, f"TensorRT in {precision} on GPUs; checked with a difference of {parity.error:.2g}"
