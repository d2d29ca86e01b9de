"""The forms that a model can be written in, behind one registry."""

from __future__ import annotations

import importlib.resources
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.exporting.catalogue import NETWORK
from oteo_automl.exporting.readme import readme
from oteo_automl.exporting.source import Source
from oteo_automl.packaging.tensorrt import with_tensorrt
from oteo_core.errors import Internal
from oteo_core.exports import Sink
from oteo_core.graphs.config import LABELS
from oteo_core.graphs.export import session
from oteo_core.packages.variants import GRAPHS

TRACE_TOLERANCE = 1e-5
"""Largest difference between TorchScript and the network that it was traced from."""

GRAPH_TOLERANCE = 1e-4
"""Largest difference of probabilities and scores between PyTorch and the graph that is served; as before publishing."""

MODEL_JSON = "model.json"


def _standalone(name: str) -> bytes:
    return importlib.resources.files("oteo_automl.exporting.standalone").joinpath(name).read_bytes()


def _labels(source: Source) -> bytes:
    return source.read(f"{source.package.triton_path}/{LABELS}")


_COMMON = (
    (MODEL_JSON, "task, classes, input, outputs, thresholds and where the model comes from"),
    (LABELS, "the classes, one a line"),
    ("predict.py", "runs the model on image files; its preprocessing is the model's own"),
)


def _common(source: Source, sink: Sink) -> None:
    sink.write(MODEL_JSON, source.described_json())
    sink.write(LABELS, _labels(source))
    sink.write("predict.py", _standalone("predict.py"))


def write_onnx(source: Source, sink: Sink, check: Callable[[], None]) -> None:
    """Write the graph, its labels, and how to run it."""
    sink.write("model.onnx", source.graph)
    _common(source, sink)
    use = """
    pip install numpy opencv-python-headless onnxruntime
    python predict.py IMAGE [IMAGE ...]

From a program:

```python
from predict import Model, read

model = Model(".")
print(model.answer(read("image.png")))
```

With ONNX Runtime alone, from prepared images:

```python
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
outputs = session.run(None, {"image": batch})  # in the order of "What it answers"
```
"""
    sink.write("README.md", readme(source, "ONNX", use, [("model.onnx", "the graph, operator set 17 or 18, any batch size"), *_COMMON]))


def write_torchscript(source: Source, sink: Sink, check: Callable[[], None]) -> None:
    """Trace the network, prove that the trace is the network and the served graph, and write it."""
    served = source.network
    images = source.images(3)
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(served, (torch.from_numpy(images[:2]),), check_trace=False)  # type: ignore[no-untyped-call]
        check()
        buffer = io.BytesIO()
        torch.jit.save(traced, buffer)
        loaded = torch.jit.load(io.BytesIO(buffer.getvalue()))  # type: ignore[no-untyped-call]
        for batch in (images[:1], images):
            given = torch.from_numpy(np.ascontiguousarray(batch))
            _same(source, "its trace", _named(source, loaded(given)), _named(source, served(given)), TRACE_TOLERANCE)
    check()
    check_network(source)
    sink.write("model.torchscript.pt", buffer.getvalue())
    _common(source, sink)
    use = f"""
    pip install numpy opencv-python-headless torch
    python predict.py IMAGE [IMAGE ...]

With PyTorch alone, or with LibTorch in C++, from prepared images:

```python
import torch

model = torch.jit.load("model.torchscript.pt").eval()
with torch.inference_mode():
    {", ".join(source.outputs)} = model(batch)  # a tensor [N, height, width, channels]
```
"""
    files = [("model.torchscript.pt", "the traced network, calibration included, any batch size"), *_COMMON]
    sink.write("README.md", readme(source, "TorchScript", use, files))


def write_pytorch(source: Source, sink: Sink, check: Callable[[], None]) -> None:
    """Write the tensors and what they belong to; timm's networks also as timm takes them."""
    check_network(source)
    check()
    content = source.checkpoint
    sink.write("checkpoint.pt", source.read(NETWORK))
    sink.write("spec.json", json.dumps(content["spec"], indent=1, ensure_ascii=False).encode())
    sink.write("load.py", _standalone("load.py"))
    files = [
        ("checkpoint.pt", '`{"format", "spec", "state"}`: read by `torch.load(..., weights_only=True)`, no code in it'),
        ("spec.json", "the spec again, to read: which modules, with which settings"),
        ("load.py", "builds the module from both"),
        *_COMMON,
    ]
    found = list(timm_networks(content["spec"]))
    words = []
    for number, (prefix, settings) in enumerate(found, start=1):
        name = "timm.safetensors" if len(found) == 1 else f"timm-{number}.safetensors"
        sink.write(name, _safetensors(content["state"], prefix))
        files.append((name, f"the tensors of `{settings['architecture']}` alone, under timm's names"))
        words.append(
            "```python\nimport timm\n\n"
            f'network = timm.create_model("{settings["architecture"]}", num_classes={settings["classes"]}, in_chans={settings["channels"]}, '
            f'checkpoint_path="{name}")\n```\n\n'
            f"It takes planes `[N, {settings['channels']}, H, W]` of 0 to 1, less the mean {_numbers(settings['mean'])}, divided by "
            f"{_numbers(settings['spread'])}, and gives logits before calibration."
        )
    _common(source, sink)
    use = """
    pip install numpy opencv-python-headless torch timm
    python predict.py IMAGE [IMAGE ...]

```python
from load import load

module = load(".")
```
"""
    if words:
        use += "\nThe network without calibration, to train it further or to take its features:\n\n" + "\n\n".join(words)
    sink.write("README.md", readme(source, "PyTorch checkpoint", use, files))


def write_triton(source: Source, sink: Sink, check: Callable[[], None]) -> None:
    """Write a model repository of one model."""
    package = source.package
    base = f"{package.triton_path}/"
    names = sorted(name for name in package.files if name.startswith(base))
    for name in names:
        check()
        if name.endswith("/model.onnx"):
            content = source.graph
        elif name.endswith("/config.pbtxt"):
            content = source.config
            if source.tensorrt and b"gpu_execution_accelerator" not in content:
                content = with_tensorrt(content.decode()).encode()
        else:
            content = source.read(name)
        sink.write(name.removeprefix("triton/"), content)
    sink.write(MODEL_JSON, source.described_json())
    sink.write("predict.py", _standalone("predict.py"))
    model = package.triton_model
    if source.variant and source.variant not in GRAPHS:
        engine = (
            "by Triton's `openvino` backend in bfloat16, on the processor. Batches are the first axis of the tensors; requests share none."
        )
    else:
        engine = "by Triton's `onnxruntime` backend, on a GPU where there is one."
    use = f"""
    tritonserver --model-repository=.

It serves the model `{model}`, version 1, {engine} `predict.py` prepares images
(`read`, `prepare`); with `tritonclient`:

```python
import json

import numpy as np
import tritonclient.grpc as triton
from predict import prepare, read

policy = json.load(open("model.json"))["input"]
batch = prepare(read("image.png"), policy)[None]
tensor = triton.InferInput("image", list(batch.shape), "{"UINT8" if package.input.dtype == "uint8" else "FP32"}")
tensor.set_data_from_numpy(np.ascontiguousarray(batch))
result = triton.InferenceServerClient("localhost:8001").infer("{model}", [tensor])
print(result.as_numpy("{source.outputs[0]}"))
```
"""
    files = [
        (f"{model}/", "the model: `config.pbtxt`, `labels.txt`, `1/model.onnx`"),
        (MODEL_JSON, "task, classes, input, thresholds and where the model comes from"),
        ("predict.py", "how images are prepared"),
    ]
    sink.write("README.md", readme(source, "Triton model repository", use, files))


def write_mlflow(source: Source, sink: Sink, check: Callable[[], None]) -> None:
    """Write an MLflow model of the ``onnx`` flavour, with signature and input example."""
    import mlflow.onnx
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    graph = onnx.load_model_from_string(source.graph)
    policy = source.package.input
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(policy.dtype), (-1, policy.height, policy.width, policy.channels), "image")]),
        outputs=Schema([_tensor(value) for value in graph.graph.output]),
    )
    with tempfile.TemporaryDirectory(prefix="oteo-mlflow-") as folder:
        top = Path(folder) / "model"
        versions = source.package.versions
        mlflow.onnx.save_model(
            graph,
            str(top),
            signature=signature,
            input_example={"image": source.images(1)},
            pip_requirements=[
                f"{name}=={versions[name]}" if name in versions else name for name in ("onnx", "onnxruntime", "numpy", "mlflow")
            ],
            metadata={"oteo": source.described()},
            save_as_external_data=False,
        )
        check()
        for file in sorted(path for path in top.rglob("*") if path.is_file()):
            sink.put(file.relative_to(top).as_posix(), file)
    _common(source, sink)
    use = """
```python
import mlflow

model = mlflow.pyfunc.load_model(".")
outputs = model.predict({"image": batch})  # by name: see "What it answers"
```

or `mlflow models serve -m . --env-manager local`. `predict.py` prepares images (`read`, `prepare` with `input` of `model.json`).
"""
    files = [("MLmodel", "what MLflow reads: flavour, signature, requirements"), ("model.onnx", "the graph"), *_COMMON]
    sink.write("README.md", readme(source, "MLflow model", use, files))


WRITERS: Mapping[str, Callable[[Source, Sink, Callable[[], None]], None]] = {
    "onnx": write_onnx,
    "torchscript": write_torchscript,
    "pytorch": write_pytorch,
    "triton": write_triton,
    "mlflow": write_mlflow,
}
"""What writes each of `oteo_automl.exporting.catalogue.FORMS`: called with the package, where the files go, and what raises if it is to stop."""


def check_network(source: Source) -> None:
    """Prove that the PyTorch network of a package is the graph that is served.

    Raises
    ------
    Internal
        ``EXPORT_FAILED``.
    """
    images = source.images(2)
    with torch.inference_mode():
        ours = _named(source, source.network(torch.from_numpy(images)))
    theirs = dict(zip(source.outputs, session(source.graph).run(source.outputs, {"image": images}), strict=True))
    bounded = [name for name in source.outputs if name in ("probabilities", "scores")]
    _same(source, "the network", {name: ours[name] for name in bounded}, {name: theirs[name] for name in bounded}, GRAPH_TOLERANCE)


def timm_networks(spec: Mapping[str, Any], prefix: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Find timm's networks in a spec: the prefix of their tensors' names, and their settings."""
    settings = spec["settings"]
    if spec["kind"] == "network":
        return [(f"{prefix}network.", settings)]
    found = []
    for name, value in settings.items():
        if isinstance(value, dict) and "kind" in value:
            found += timm_networks(value, f"{prefix}{name}.")
        for index, part in enumerate(value if isinstance(value, list) else []):
            if isinstance(part, dict) and "kind" in part:
                found += timm_networks(part, f"{prefix}{name}.{index}.")
    return found


def _safetensors(state: Mapping[str, torch.Tensor], prefix: str) -> bytes:
    from safetensors.torch import save

    data: bytes = save({name.removeprefix(prefix): value.clone() for name, value in state.items() if name.startswith(prefix)})
    return data


def _named(source: Source, values: Any) -> dict[str, NDArray[Any]]:
    return {name: value.numpy() for name, value in zip(source.outputs, values, strict=True)}


def _same(source: Source, what: str, ours: Mapping[str, NDArray[Any]], theirs: Mapping[str, NDArray[Any]], tolerance: float) -> None:
    for name, value in ours.items():
        other = theirs[name]
        scale = max(1.0, float(np.abs(other).max(initial=0)))
        error = float(np.abs(value.astype(np.float64) - other).max(initial=0)) / scale if value.shape == other.shape else float("inf")
        if not error <= tolerance:
            raise Internal(
                f"{what} of {source.package.name} answers otherwise than the model: {name} differs by {error:.2g}", reason="EXPORT_FAILED"
            )


def _tensor(value: Any) -> Any:
    import onnx
    from mlflow.types import TensorSpec

    kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    shape = tuple(dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim)
    return TensorSpec(np.dtype(kind), shape, value.name)


def _numbers(values: Any) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
