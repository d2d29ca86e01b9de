"""Writing a network as an ONNX graph and checking that the graph is the network.

PyTorch has two exporters. The TorchScript one goes first: measured on networks and on classical candidates it takes 0.3 to 0.9 s of
processor time where the newer one (dynamo) takes 4 to 17 s, which a budget of a minute would feel, and both graphs agree with PyTorch
to 1e-6. The newer one is there for what the first cannot write, and for the day that it goes.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from oteo_core.errors import Internal
from oteo_core.graphs.outputs import Output, compare_outputs
from oteo_core.graphs.running import batches, run_torch
from oteo_core.images import InputPolicy

OPSET = 18
"""Operator set: the least that the exporter writes, so that older runtimes (ONNX Runtime from 1.14 on) serve the graph."""

IR_VERSION = 8
"""The file format that belongs to operator set 18; the onnx package would write a newer one that older servers refuse."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported graph.

    Parameters
    ----------
    data
        The ONNX file.
    exporter
        ``"torchscript"``, or ``"dynamo"`` where the first failed.
    fallback_reason
        Why the first exporter failed; empty where it did not.
    error
        Largest difference of the first output between ONNX Runtime and PyTorch on the images checked.
    """

    data: bytes
    exporter: str
    fallback_reason: str
    error: float


def export_onnx(
    served: torch.nn.Module,
    policy: InputPolicy,
    outputs: Sequence[Output],
    check_images: NDArray[Any],
    *,
    metadata: Mapping[str, str] | None = None,
) -> Exported:
    """Export a network and compare the graph with it.

    Parameters
    ----------
    served
        The network; put into evaluation mode and on the processor.
    policy
        What it takes.
    outputs
        What it gives, a tuple in this order.
    check_images
        Prepared images ``(N, H, W, C)`` to compare on, N >= 1.
    metadata
        Words to keep in the file.

    Returns
    -------
    Exported
        A graph with input ``image`` ``[N, H, W, C]`` and the outputs, N free.

    Raises
    ------
    Internal
        ``EXPORT_FAILED``: neither exporter can write it, or its answers differ by more than the outputs' tolerances.
    """
    served = served.cpu().float().eval()
    # Two images and not one: a batch of one is taken for a constant by the tracer.
    dtype = torch.uint8 if policy.dtype == "uint8" else torch.float32
    example = torch.zeros((2, policy.height, policy.width, policy.channels), dtype=dtype)
    failures: list[str] = []
    for exporter, write in (("torchscript", _export_torchscript), ("dynamo", _export_dynamo)):
        try:
            data = finalise(write(served, example, [output.name for output in outputs]), policy, outputs, metadata or {})
            error, complaint = compare_runtime(data, served, outputs, check_images)
            if complaint:
                raise ValueError(f"the graph does not answer as PyTorch does: {complaint}")  # noqa: TRY301
            return Exported(data, exporter, "; ".join(failures), error)
        except Exception as failure:  # noqa: BLE001 (exporters raise whatever the network provokes; the other one is tried, and it is said)
            said = f"{type(failure).__name__}: {str(failure).splitlines()[0][:300] if str(failure) else ''}"
            failures.append(said)
            _log.warning("the %s exporter failed: %s", exporter, said)
    raise Internal(f"the network cannot be written as ONNX: {'; '.join(failures)}", reason="EXPORT_FAILED")


def _export_dynamo(served: torch.nn.Module, example: torch.Tensor, names: list[str]) -> bytes:
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="oteo-export-") as folder:
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        program = torch.onnx.export(
            served,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=names,
            dynamic_shapes={"image": {0: torch.export.Dim("batch", min=1, max=4096)}},
            verbose=False,
        )
        if program is None:
            raise RuntimeError("the exporter gave nothing")
        program.save(path, external_data=False)
        return path.read_bytes()


def _export_torchscript(served: torch.nn.Module, example: torch.Tensor, names: list[str]) -> bytes:
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="oteo-export-") as folder:
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            served,
            (example,),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            output_names=names,
            dynamic_axes={name: {0: "batch"} for name in ("image", *names)},
        )
        return path.read_bytes()


def finalise(data: bytes, policy: InputPolicy, outputs: Sequence[Output], metadata: Mapping[str, str]) -> bytes:
    """Check a graph's form and write what belongs to every package: fixed shapes, file version, words.

    Raises
    ------
    ValueError
        Inputs or outputs that are not those of a package.
    """
    model = onnx.load_model_from_string(data)
    names = [value.name for value in model.graph.input], [value.name for value in model.graph.output]
    if names != (["image"], [output.name for output in outputs]):
        raise ValueError(f"a graph with inputs {names[0]} and outputs {names[1]}")
    model.ir_version = min(model.ir_version, IR_VERSION)
    _set_shape(model.graph.input[0], ["batch", policy.height, policy.width, policy.channels])
    for value, output in zip(model.graph.output, outputs, strict=True):
        _set_shape(value, ["batch", *output.shape])
    # Where the network was written down, line by line: of no use to who serves it, and it names folders of this machine.
    for node in model.graph.node:
        del node.metadata_props[:]
    del model.graph.metadata_props[:]
    for value in model.graph.value_info:
        del value.metadata_props[:]
    for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    model.producer_name, model.producer_version, model.doc_string = "oteo", "", ""
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _set_shape(value: onnx.ValueInfoProto, shape: list[str | int]) -> None:
    kept = value.type.tensor_type.elem_type
    value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, kept, shape))


def session(data: bytes, threads: int = 0, *, arena: bool = True) -> onnxruntime.InferenceSession:
    """Open a graph in ONNX Runtime on the processor.

    Parameters
    ----------
    data
        The graph.
    threads
        0: as many as PyTorch uses.
    arena
        False: memory goes back after every run. An arena keeps the most that any run has taken for as long as the session lives (1.3 GB for a U-Net on 64 images of
        128 x 128 pixels), which is much where there are many sessions at once; the time is the same.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.enable_cpu_mem_arena = arena
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run_onnx(data: bytes, images: NDArray[Any], batch: int = 64) -> tuple[NDArray[Any], ...]:
    """Run a graph in ONNX Runtime on prepared images ``(N, H, W, C)``; give its outputs in their order."""
    runtime = session(data)
    parts = [runtime.run(None, {"image": np.ascontiguousarray(part)}) for part in batches(images, batch)]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def compare_runtime(data: bytes, served: torch.nn.Module, outputs: Sequence[Output], images: NDArray[Any]) -> tuple[float, str]:
    """Compare ONNX Runtime and PyTorch, with batches of one and of all; see `oteo_core.graphs.outputs.compare_outputs`."""
    expected = run_torch(served, images)
    error, complaint = compare_outputs(outputs, run_onnx(data, images, len(images)), expected)
    first = [one[:1] for one in expected]
    error_alone, complaint_alone = compare_outputs(outputs, run_onnx(data, images[:1]), first)
    return max(error, error_alone), complaint or complaint_alone
