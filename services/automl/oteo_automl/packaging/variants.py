"""Smaller or faster forms of a graph, kept only where they lose little: half precision, 8-bit integers, and the graph itself run in bfloat16.

All take and give what the graph does: inputs and outputs keep their types, so that a variant can stand in its place. They are judged against
the graph itself on held-out images. Graphs are measured on the processor that trains; bfloat16 is a way of running one, and is judged and measured
by the Triton that runs it.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from oteo_core.graphs.export import session
from oteo_core.graphs.outputs import Output
from oteo_core.packages.variants import BF16, FP16, INT8, variant_path

MAX_LOSS = 0.01
MEAN_DIFFERENCE = 0.05
"""Largest mean difference of probabilities and scores from the graph's that counts as the same model."""

FASTER = 1.05
"""So many times the graph's own speed is faster; less is the noise of a measurement."""

_CALIBRATION_BATCH = 8
_TIMED = 15
_BOUNDED = ("probabilities", "scores")
_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_WORTH_BYTES = 400_000
"""Weights below which a graph is small and quick as it is; classifiers on computed features have so few."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class VariantRequest:
    """Which variants are wanted, and what they are judged by.

    Parameters
    ----------
    kinds
        Of `oteo_core.packages.variants.KINDS`.
    figure_name
        The objective.
    figure
        Gives it, larger is better, of the graph's outputs by name for all `held_out` images.
    calibration
        Prepared training images ``(N, H, W, C)``, a hundred or so, by which the ranges of 8-bit integers are found.
    held_out
        Prepared images that were not learnt from.
    max_loss
        Largest loss of the figure.
    """

    kinds: Sequence[str]
    figure_name: str
    figure: Callable[[Mapping[str, NDArray[Any]]], float]
    calibration: NDArray[Any]
    held_out: NDArray[Any]
    max_loss: float = MAX_LOSS


@dataclass(slots=True)
class Variant:
    """One variant and what it is worth; JSON values, for ``details["variants"]`` of the manifest.

    Parameters
    ----------
    kind
        Of `oteo_core.packages.variants.KINDS`, or ``"fp32"`` for the graph itself.
    kept
        True where it is in the package.
    reason
        Why, in a sentence.
    file
        Path inside the package; empty where it is not kept.
    size
        Bytes.
    latency
        Median seconds of one image on one processor thread; of bfloat16 as Triton served it.
    figure_name, figure, loss
        The objective on held-out images and how much worse than the graph's it is.
    difference
        Mean difference of probabilities or scores from the graph's.
    images
        How many it was judged on.
    """

    kind: str
    kept: bool
    reason: str
    file: str = ""
    size: int = 0
    latency: float = 0.0
    figure_name: str = ""
    figure: float | None = None
    loss: float | None = None
    difference: float | None = None
    images: int = 0


@dataclass(slots=True)
class Variants:
    """What was made: files by path inside the package, and what the manifest says of all that were asked for, the graph itself first."""

    files: dict[str, bytes] = field(default_factory=dict)
    details: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Served:
    """How a graph does under another configuration of Triton.

    Parameters
    ----------
    config
        That configuration.
    outputs
        By name, for all images.
    latency, before
        Median seconds of one image, under it and under the graph's own, taken turn about.
    """

    config: bytes
    outputs: Mapping[str, NDArray[Any]]
    latency: float
    before: float


class Server(Protocol):
    """Has a Triton serve the graph in bfloat16."""

    def __call__(self, images: NDArray[Any]) -> Served:
        """Serve it for images ``(N, H, W, C)``; raises where no Triton does."""


def make_variants(
    request: VariantRequest | None, graph: bytes, outputs: Sequence[Output], *, deadline: float, server: Server | None = None
) -> Variants:
    """Make, judge and measure the variants that are asked for.

    Parameters
    ----------
    request
        None: none are asked for.
    graph
        The ONNX file.
    outputs
        What it gives.
    deadline
        Seconds since 1970; a variant for which there is no time is left out, and it is said.
    server
        What bfloat16 is tried with; None: it is not.

    Returns
    -------
    Variants
        What cannot be made or loses too much is named with the reason; nothing is raised for it.
    """
    made = Variants()
    if request is None or not request.kinds or not len(request.held_out):
        return made
    began = time.time()
    bounded = [output.name for output in outputs if output.name in _BOUNDED]
    names = [output.name for output in outputs]
    expected = _run(graph, names, request.held_out)
    before = request.figure(expected)
    base = Variant(
        "fp32", True, "the graph itself", "", len(graph), _latency(graph, request.held_out), request.figure_name, before, 0.0, 0.0
    )
    base.images = len(request.held_out)
    made.details.append(asdict(base))
    seconds = 3.0 * (time.time() - began)
    light = heavy_bytes(graph) < _WORTH_BYTES
    # The quick ones first: they tell little of the time that 8-bit integers take, and should not wait for them.
    for kind in sorted(request.kinds, key=(FP16, BF16, INT8).index):
        if light:
            made.details.append(asdict(Variant(kind, False, "not made: it has so few weights that another form would not help")))
            continue
        if time.time() + 1.3 * seconds + 2.0 > deadline:
            made.details.append(asdict(Variant(kind, False, "not made: the budget leaves no time for it")))
            continue
        began = time.time()
        try:
            tried = _served(server, names, request) if kind == BF16 else _converted(kind, graph, names, request)
        except Exception as error:  # noqa: BLE001 (converters and servers raise whatever a graph provokes; the model itself stands)
            _log.warning("no %s variant: %s: %s", kind, type(error).__name__, error)
            said = str(error).splitlines()[0][:200] if str(error) else ""
            what = "no Triton serves it" if kind == BF16 else "it cannot be made of this graph"
            made.details.append(asdict(Variant(kind, False, f"{what} ({type(error).__name__}: {said})")))
            continue
        variant = _judge(kind, tried, request, base, expected, bounded)
        if variant.kept:
            variant.file = variant_path(kind)
            made.files[variant.file] = tried.data
        made.details.append(asdict(variant))
        seconds = max(seconds, time.time() - began)
    return made


@dataclass(slots=True)
class _Tried:
    """A variant before it is judged: the file that it would be, its answers, and what one image takes with it (and takes the graph, measured alike)."""

    data: bytes
    outputs: Mapping[str, NDArray[Any]]
    latency: float
    before: float | None = None


def _converted(kind: str, graph: bytes, names: Sequence[str], request: VariantRequest) -> _Tried:
    data = half(graph) if kind == FP16 else integers(graph, request.calibration)
    return _Tried(data, _run(data, names, request.held_out), _latency(data, request.held_out))


def _served(server: Server | None, names: Sequence[str], request: VariantRequest) -> _Tried:
    if server is None:
        raise ValueError("there is no Triton to try it with")
    found = server(request.held_out)
    return _Tried(found.config, {name: found.outputs[name] for name in names}, found.latency, found.before)


def _judge(
    kind: str, tried: _Tried, request: VariantRequest, base: Variant, expected: Mapping[str, NDArray[Any]], bounded: Sequence[str]
) -> Variant:
    size = base.size if kind == BF16 else len(tried.data)
    variant = Variant(kind, False, "", size=size, figure_name=request.figure_name, images=base.images)
    found = tried.outputs
    if not all(np.isfinite(value.astype(np.float64)).all() for value in found.values()):
        variant.reason = "not kept: it answers with numbers that are not finite"
        return variant
    variant.figure = request.figure(found)
    variant.loss = float(base.figure or 0.0) - variant.figure
    variant.difference = max((float(np.abs(found[name] - expected[name]).mean()) for name in bounded), default=0.0)
    variant.latency = tried.latency
    before = base.latency if tried.before is None else tried.before
    speed = before / variant.latency if variant.latency > 0 else 0.0
    if not variant.loss <= request.max_loss:
        variant.reason = f"not kept: it loses {variant.loss:.3g} of {request.figure_name}, more than {request.max_loss:g}"
    elif variant.difference > MEAN_DIFFERENCE:
        variant.reason = f"not kept: its answers differ by {variant.difference:.3g} on average, more than {MEAN_DIFFERENCE:g}"
    elif kind == BF16 and speed < FASTER:
        variant.reason = f"not kept: {speed:.2g} times the speed as Triton serves it here; a processor without bfloat16 gains nothing by it"
    elif kind != BF16 and size > 0.9 * base.size and speed < FASTER:
        variant.reason = "not kept: it is neither smaller nor faster"
    elif kind == BF16:
        variant.kept = True
        variant.reason = f"kept: {speed:.2g} times the speed as Triton serves it here ({1000 * before:.3g} ms an image before)"
    else:
        variant.kept = True
        variant.reason = f"kept: {size / base.size:.0%} of the size, {speed:.2g} times the speed on this processor"
        if kind == FP16:
            variant.reason += " (it is for GPUs)"
    return variant


def heavy_bytes(graph: bytes) -> int:
    """Give the bytes of the weights of convolutions and matrix products."""
    model = onnx.load_model_from_string(graph)
    sizes = {one.name: 4 * int(np.prod(one.dims)) for one in model.graph.initializer if len(one.dims) > 1}
    used = {name for node in model.graph.node if node.op_type in _HEAVY for name in node.input}
    return sum(count for name, count in sizes.items() if name in used)


def half(graph: bytes) -> bytes:
    """Give the graph in half precision, inputs and outputs as they were (onnxruntime's converter; what half precision cannot hold stays)."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    model = onnx.load_model_from_string(graph)
    # What turns scores into an order, and sums over many pixels, needs the digits.
    blocked = [*DEFAULT_OP_BLOCK_LIST, "Resize", "ReduceSum", "ReduceMean", "Softmax", "Log", "Exp", "Pow", "Sqrt", "Reciprocal"]
    converted = convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)
    return bytes(converted.SerializeToString())


def integers(graph: bytes, images: NDArray[Any]) -> bytes:
    """Give the graph with convolutions and matrix products in 8-bit integers: QDQ form, symmetric, weights by channel, ranges from images.

    The form is the one that TensorRT takes, and ONNX Runtime runs on processors. The first and the last layer keep their precision: they are
    small, and most of the loss comes from them.
    """
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Gives the images a few at a time."""

        def __init__(self) -> None:
            self._parts = iter(range(0, len(images), _CALIBRATION_BATCH))

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            """Give the next few; None at the end."""
            start = next(self._parts, None)
            return None if start is None else {"image": np.ascontiguousarray(images[start : start + _CALIBRATION_BATCH])}

    with tempfile.TemporaryDirectory(prefix="oteo-int8-") as folder:
        plain, ready, goal = (Path(folder) / name for name in ("plain.onnx", "ready.onnx", "int8.onnx"))
        plain.write_bytes(graph)
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        model = onnx.load(str(ready))
        heavy = [node.name for node in model.graph.node if node.op_type in _HEAVY]
        if len(heavy) < 3:
            raise ValueError("it has no layers between the first and the last")
        quantize_static(
            str(ready),
            str(goal),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=[*_HEAVY, "Add", "GlobalAveragePool", "MaxPool"],
            nodes_to_exclude=[heavy[0], heavy[-1]],
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "CalibMovingAverage": True},
        )
        made = onnx.load(str(goal))
        made.ir_version = min(made.ir_version, onnx.load_model_from_string(graph).ir_version)
        return bytes(made.SerializeToString())


def _run(graph: bytes, names: Sequence[str], images: NDArray[Any]) -> dict[str, NDArray[Any]]:
    runtime = session(graph)
    parts = [
        runtime.run(list(names), {"image": np.ascontiguousarray(images[start : start + _CALIBRATION_BATCH])})
        for start in range(0, len(images), _CALIBRATION_BATCH)
    ]
    return {name: np.concatenate(column) for name, column in zip(names, zip(*parts, strict=True), strict=True)}


def _latency(graph: bytes, images: NDArray[Any]) -> float:
    """Give the median seconds of one image on one thread."""
    runtime, image = session(graph, 1), np.ascontiguousarray(images[:1])
    runtime.run(None, {"image": image})
    taken = []
    for _ in range(_TIMED):
        start = time.perf_counter()
        runtime.run(None, {"image": image})
        taken.append(time.perf_counter() - start)
        if sum(taken) > 1.0:
            break
    return float(np.median(taken))
