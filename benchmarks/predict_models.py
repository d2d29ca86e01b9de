"""The models that `predict.py` and its kin serve, with random weights, and the pictures that they are asked about."""

from __future__ import annotations

import hashlib
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import cv2
import numpy as np
import onnx
import sequence_files

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import OteoError
from oteo_core.graphs.config import QUEUE_DELAY_MICROSECONDS, bf16_config_pbtxt
from oteo_core.graphs.outputs import Output
from oteo_core.images import ImageLimits, InputPolicy, decode
from oteo_core.images.sequences import open_image
from oteo_core.packages import Conformal, ModelPackage, PackageFile, ReferenceStatistics, image_statistics, statistic_names
from oteo_core.packages.variants import BF16, variant_path

SIDE = 224
LARGE = 448  # 448 x 448 x 3 bytes: a request of 600 KB
CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: 32
input {{ name: "image" data_type: TYPE_UINT8 dims: [ {side}, {side}, 3 ] }}
output {{ name: "probabilities" data_type: TYPE_FP32 dims: [ {classes} ] }}
output {{ name: "logits" data_type: TYPE_FP32 dims: [ {classes} ] }}
instance_group {{ count: 1 kind: KIND_CPU }}
dynamic_batching {{ max_queue_delay_microseconds: {delay} }}
parameters {{ key: "oteo_digest" value: {{ string_value: "{digest}" }} }}
"""


def tiny_graph() -> bytes:
    """ONNX that looks at 16 pixels only: uint8 [N, H, W, 3] -> softmax over their channels' means."""
    helper = onnx.helper
    constants = [
        helper.make_tensor(name, onnx.TensorProto.INT64, [2], values)
        for name, values in (("starts", [0, 0]), ("ends", [4, 4]), ("axes", [1, 2]))
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Slice", ["image", "starts", "ends", "axes"], ["corner"]),
            helper.make_node("Cast", ["corner"], ["real"], to=onnx.TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["real"], ["logits"], axes=[1, 2], keepdims=0),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["N", "H", "W", 3])],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 3]) for name in ("probabilities", "logits")],
        constants,
    )
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())


def resnet_graph(folder: Path, classes: int = 3) -> bytes:
    """ONNX of a resnet18 with random weights: uint8 [N, 224, 224, 3] -> probabilities."""
    import timm
    import torch

    class Served(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.network = timm.create_model("resnet18", pretrained=False, num_classes=classes).eval()

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            logits = self.network((image.to(torch.float32) / 255.0 - 0.45).permute(0, 3, 1, 2) / 0.225)
            return torch.softmax(logits, dim=1), logits

    path = folder / "resnet18.onnx"
    torch.onnx.export(
        Served().eval(),
        (torch.zeros(1, SIDE, SIDE, 3, dtype=torch.uint8),),
        str(path),
        input_names=["image"],
        output_names=["probabilities", "logits"],
        dynamic_axes={name: {0: "N"} for name in ("image", "probabilities", "logits")},
        opset_version=17,
        dynamo=False,
    )
    return path.read_bytes()


def png(seed: int = 0, side: int = SIDE) -> bytes:
    """PNG that compresses like a micrograph: smooth structures and some noise."""
    generator = np.random.default_rng(seed)
    smooth = cv2.GaussianBlur(generator.uniform(0, 255, (side, side, 3)), (0, 0), 9)
    smooth = (smooth - smooth.min()) / np.ptp(smooth) * 220
    return bytes(cv2.imencode(".png", (smooth + generator.normal(0, 2, smooth.shape)).clip(0, 255).astype(np.uint8))[1].tobytes())


def publish(store: ArtifactStore, name: str, graph: bytes, side: int, delay: int = QUEUE_DELAY_MICROSECONDS) -> ModelPackage:
    """Put a model package into the artifact store; `delay` is the longest wait for a batch, microseconds."""
    rows = np.stack([image_statistics(decode(png(seed, 64)).pixels) for seed in range(8)])
    package = ModelPackage(
        id=name,
        display_name=name,
        uid=name,
        task="classification",
        classes=["a", "b", "c"],
        dataset="datasets/none",
        dataset_digest="0" * 64,
        candidate=name,
        input=InputPolicy(width=side, height=side),
        create_time=datetime.now(UTC),
        conformal=Conformal(0.5, 0.9, 100),
        reference=ReferenceStatistics.fit(rows, statistic_names(3)),
    )
    package.digest = package.serving_digest(hashlib.sha256(graph).hexdigest())
    store.write_bytes(f"models/{name}/triton/{name}/1/model.onnx", graph)
    config = CONFIG.format(name=name, side=side, classes=3, digest=package.digest, delay=delay)
    store.write_bytes(f"models/{name}/triton/{name}/config.pbtxt", config.encode())
    store.write_bytes(f"models/{name}/package.json", package.to_json())
    return package


def add_bf16(store: ArtifactStore, package: ModelPackage) -> None:
    """Give a published classifier its form in bfloat16, as automl does for processors that have it."""
    outputs = tuple(Output(name, (len(package.classes),)) for name in ("probabilities", "logits"))
    config = bf16_config_pbtxt(package.id, package.input, outputs, parameters={"oteo_digest": package.digest}).encode()
    package.files[variant_path(BF16)] = PackageFile(hashlib.sha256(config).hexdigest(), len(config))
    store.write_bytes(f"models/{package.id}/{variant_path(BF16)}", config)
    store.write_bytes(f"models/{package.id}/package.json", package.to_json())


def drawn_dicom(seed: int = 0, side: int = 512) -> bytes:
    """DICOM of 12 bits as a CT gives it, drawn by the tests' own code: a disc over a ramp, noise, not compressed."""
    return sequence_files.dicom(sequence_files.slices(seed, 1, side, "uint16", 4000)[0], 0.0, series="1.2")


def real_dicom(folder: Path) -> bytes | None:
    """Give the first DICOM file in or below a folder, by its path, that holds one picture of at least 256 pixels a side; None where none does."""
    for path in sorted(folder.rglob("*.dcm")):
        data = path.read_bytes()
        with suppress(OteoError):
            file = open_image(data, ImageLimits())
            if file.header.frames <= 1 and min(next(file.decoders(0))().pixels.shape[:2]) >= 256:
                return data
    return None
