"""Packages of untrained models, published as `finish` does, for tests of what is done with packages."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from oteo_automl.candidates.descriptors import Descriptors
from oteo_automl.candidates.heads import LinearHead, Standardise
from oteo_automl.candidates.modules import Blend, Chain
from oteo_automl.candidates.networks import NetworkClassifier
from oteo_automl.exporting.network_file import network_files
from oteo_automl.exporting.program_file import program_files
from oteo_automl.packaging.served import ServedClassifier
from oteo_core.artifacts import ArtifactStore
from oteo_core.graphs.config import LABELS, config_pbtxt, labels_txt
from oteo_core.graphs.export import export_onnx
from oteo_core.graphs.outputs import Output, classification_outputs
from oteo_core.images import InputPolicy
from oteo_core.packages import Conformal, ModelPackage, OperatingPoint, PackageFile

CLASSES = ("round", "long", "ünusual")
POLICY = InputPolicy(width=40, height=32, channels=3, resize="letterbox")


def network(architecture: str = "resnet10t", classes: int = 3, channels: int = 3) -> NetworkClassifier:
    """Give a network of timm whose answers differ between images."""
    torch.manual_seed(5)
    made = NetworkClassifier(architecture, classes, channels, (0.5,) * channels, (0.25,) * channels)
    for parameter in made.network.get_classifier().parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    # Statistics as training leaves them, or all images look alike to a network that was never trained.
    made.train()
    with torch.no_grad():
        made(torch.rand(16, 32, 40, channels))
    return made.eval()


def classical(policy: InputPolicy = POLICY) -> Chain:
    """Give a classifier on classical features."""
    torch.manual_seed(6)
    features = Descriptors(policy.height, policy.width, policy.channels)
    count = features(torch.zeros((1, policy.height, policy.width, policy.channels), dtype=torch.uint8)).shape[1]
    head = LinearHead(count, len(CLASSES))
    for tensor in head.state_dict().values():
        tensor.normal_(std=0.2)
    return Chain([features, Standardise(count), head]).eval()


def modules() -> dict[str, torch.nn.Module]:
    """Give one network of each kind."""
    return {"network": network(), "classical": classical(), "blend": Blend([network(), classical()], [0.7, 0.3], [1.0, 2.0]).eval()}


def publish(
    store: ArtifactStore, model: str, module: torch.nn.Module, policy: InputPolicy = POLICY, *, keep: bool = True, program: bool = False
) -> ModelPackage:
    """Publish a classifier; without `keep`, as packages were before they kept their network."""
    outputs = classification_outputs(len(CLASSES))
    return publish_served(store, model, ServedClassifier(module, 1.7).eval(), outputs, policy, keep=keep, program=program)


def publish_served(
    store: ArtifactStore,
    model: str,
    served: torch.nn.Module,
    outputs: Sequence[Output],
    policy: InputPolicy = POLICY,
    *,
    task: str = "classification",
    decoding: dict[str, Any] | None = None,
    keep: bool = True,
    program: bool = False,
) -> ModelPackage:
    """Publish what is served, whatever the task; with `program`, also as a program of `torch.export`."""
    shape = (2, policy.height, policy.width, policy.channels)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    graph = export_onnx(served, policy, outputs, images if policy.dtype == "uint8" else (images / 255).astype(np.float32)).data
    whole = task == "classification"
    package = ModelPackage(
        id=model,
        display_name=model.title(),
        uid=model,
        task=task,
        classes=list(CLASSES),
        dataset="datasets/cells",
        dataset_digest="ab" * 32,
        candidate="timm-resnet10t",
        input=policy,
        create_time=datetime(2026, 1, 2, tzinfo=UTC),
        temperature=1.7,
        conformal=Conformal(0.6, 0.9, 50) if whole else None,
        operating_points=[OperatingPoint("round", 0.4, 0.95, 0.8, "sensitivity>=0.95")] if whole else [],
        decoding=decoding or {},
    )
    package.digest = package.serving_digest(hashlib.sha256(graph).hexdigest())
    contents = {
        f"{package.triton_path}/config.pbtxt": config_pbtxt(model, policy, outputs, parameters={"oteo_digest": package.digest}).encode(),
        f"{package.triton_path}/{LABELS}": labels_txt(CLASSES).encode(),
        f"{package.triton_path}/1/model.onnx": graph,
        **(network_files(served) if keep else {}),
        **(program_files(served, policy, [one.name for one in outputs], 600.0) if program else {}),
    }
    for name, content in contents.items():
        store.write_bytes(f"models/{model}/{name}", content)
        package.files[name] = PackageFile(hashlib.sha256(content).hexdigest(), len(content))
    store.write_bytes(f"models/{model}/package.json", package.to_json())
    return package
