"""Load this checkpoint: ``from load import load; module = load(".")``. Needs PyTorch, and timm where the network is one of timm's.

``module`` takes prepared images (N, height, width, channels), uint8 or float32 as ``model.json`` says, as a tensor, and gives the tensors
that ``model.json`` lists under ``outputs`` (attention maps are in the ONNX and TorchScript forms alone); `predict.py` prepares images.
``checkpoint.pt`` holds no code: ``spec`` says what to build, ``state`` has the tensors. Networks that are not timm's (classical features, detectors, segmentation) are built by Oteo's own classes
and need the package ``oteo-automl``; export as TorchScript where it is not to be had.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Network(nn.Module):
    """A timm network that takes (N, H, W, C), uint8 or float32 of 0 to 1, and normalises by itself."""

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(
        self, architecture: str, classes: int, channels: int, mean: list[float], spread: list[float], drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        timm = importlib.import_module("timm")
        self.network = timm.create_model(architecture, pretrained=False, num_classes=classes, in_chans=channels, drop_rate=drop_rate)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("spread", torch.tensor(spread).view(1, -1, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give logits (N, K)."""
        planes = image.permute(0, 3, 1, 2).float()
        if image.dtype == torch.uint8:
            planes = planes / 255.0
        return self.network((planes - self.mean) / self.spread)  # type: ignore[no-any-return]


class Blend(nn.Module):
    """Several classifiers' log-probabilities, each with its temperature, weighted."""

    def __init__(self, parts: list[Any], weights: list[float], temperatures: list[float]) -> None:
        super().__init__()
        self.parts, self.weights, self.temperatures = nn.ModuleList(parts), weights, temperatures

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give (N, K)."""
        terms = [
            weight * torch.log_softmax(part(image) / temperature, dim=1)
            for part, weight, temperature in zip(self.parts, self.weights, self.temperatures, strict=True)
        ]
        return torch.stack(terms).sum(dim=0)


class Served(nn.Module):
    """A classifier of one class an image with its calibration: probabilities and logits."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("temperature", torch.tensor(temperature))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give probabilities and logits, both (N, K)."""
        logits = self.network(image).float() / self.temperature
        return torch.softmax(logits, dim=1), logits


class ServedLabels(nn.Module):
    """A classifier of several labels an image with its calibration: probabilities and logits."""

    def __init__(self, network: nn.Module, scale: list[float], bias: list[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("bias", torch.tensor(bias))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Give probabilities and logits, both (N, K)."""
        logits = self.network(image).float() * self.scale + self.bias
        return torch.sigmoid(logits), logits


def build(spec: dict[str, Any]) -> nn.Module:
    """Build the module that a spec describes; its tensors are not yet filled."""
    kind, settings = spec["kind"], spec["settings"]
    if kind == "served-classifier":
        return Served(build(settings["network"]), settings["temperature"])
    if kind == "served-labels":
        return ServedLabels(build(settings["network"]), settings["scale"], settings["bias"])
    if kind == "blend":
        return Blend([build(part) for part in settings["parts"]], settings["weights"], settings["temperatures"])
    if kind == "network":
        return Network(**settings)
    try:
        wrappings = importlib.import_module("oteo_automl.exporting.wrappings")
    except ImportError:
        raise ImportError(
            f"a module of kind {kind!r} is built by Oteo's own classes: install oteo-automl, or export the model as TorchScript"
        ) from None
    module: nn.Module = wrappings.rebuild(spec)
    return module


def load(folder: str | Path = Path(__file__).parent) -> nn.Module:
    """Give the module of a folder, in evaluation mode, on the processor."""
    content = torch.load(Path(folder) / "checkpoint.pt", map_location="cpu", weights_only=True)
    module = build(content["spec"])
    module.load_state_dict(content["state"])
    return module.eval()
