"""Packages whose answers can be foretold, and datasets to judge them on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import Box, DatasetInfo, DatasetWriter, MaskEncoding, Sample
from oteo_core.graphs.config import bf16_config_pbtxt, config_pbtxt
from oteo_core.graphs.export import export_onnx
from oteo_core.graphs.outputs import Output
from oteo_core.images import InputPolicy, encode_png
from oteo_core.packages import ModelPackage, PackageFile
from oteo_core.packages.variants import BF16, variant_path

POLICY = InputPolicy(width=32, height=32, channels=3, dtype="uint8", resize="stretch", interpolation="area")


class Shades(torch.nn.Module):
    """Dark, middle or light, by the mean; probabilities and logits."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = image.float().mean(dim=(1, 2, 3)) / 255
        logits = torch.stack([-((mean - place) ** 2) * 60 for place in (0.2, 0.5, 0.8)], dim=1)
        return torch.softmax(logits, dim=1), logits


class AttentiveShades(Shades):
    """The same with a map of where it is bright, a number for each 8 x 8 pixels."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        planes = image.float().mean(dim=3)[:, None] / 255
        return (*super().forward(image), torch.nn.functional.avg_pool2d(planes, 8)[:, 0])


class Marks(torch.nn.Module):
    """Two labels: bright above, bright below."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        planes = image.float().mean(dim=3) / 255
        logits = torch.stack([planes[:, :16].amax(dim=(1, 2)), planes[:, 16:].amax(dim=(1, 2))], dim=1) * 12 - 7
        return torch.sigmoid(logits), logits


class SquareFinder(torch.nn.Module):
    """Finds the one bright square of an image: class 0 where it is red, 1 where it is green."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        planes = image.float() / 255
        bright = (planes.amax(dim=3) > 0.5).float()
        place = torch.arange(32, dtype=torch.float32)
        across, down = bright.amax(dim=1), bright.amax(dim=2)
        edges = [
            32 - (across * (32 - place)).amax(1),
            32 - (down * (32 - place)).amax(1),
            (across * (place + 1)).amax(1),
            (down * (place + 1)).amax(1),
        ]
        boxes = torch.stack(edges, dim=1)[:, None]
        found = bright.amax(dim=(1, 2))
        green = (planes[..., 1].amax(dim=(1, 2)) > planes[..., 0].amax(dim=(1, 2))).long()
        none = torch.zeros_like(boxes)
        scores = torch.stack([found * 0.9, torch.zeros_like(found)], dim=1)
        return torch.cat([boxes, none], dim=1), scores, torch.stack([green, green], dim=1)


class SquareMarker(torch.nn.Module):
    """A class for each pixel: 1 where it is red, 2 where it is green."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        planes = image.float() / 255
        red, green = (planes[..., 0] > 0.5).float(), (planes[..., 1] > 0.5).float()
        probabilities = torch.stack([1 - torch.maximum(red, green), red * (1 - green), green], dim=1) * 0.9 + 0.03
        return probabilities.argmax(dim=1).to(torch.uint8), probabilities


class SquareSeparator(torch.nn.Module):
    """Classes of pixels as `SquareMarker`, and heights that make each piece of foreground one object."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        _, probabilities = SquareMarker()(image)
        return probabilities, 1 - probabilities[:, 0]


MODELS: dict[str, tuple[type[torch.nn.Module], tuple[str, ...], tuple[Output, ...]]] = {
    "classification": (Shades, ("dark", "middle", "light"), (Output("probabilities", (3,)), Output("logits", (3,), tolerance=1e-2))),
    "attentive": (
        AttentiveShades,
        ("dark", "middle", "light"),
        (Output("probabilities", (3,)), Output("logits", (3,), tolerance=1e-2), Output("attention", (4, 4))),
    ),
    "multi_label_classification": (Marks, ("above", "below"), (Output("probabilities", (2,)), Output("logits", (2,), tolerance=1e-2))),
    "detection": (SquareFinder, ("red", "green"), (Output("boxes", (2, 4)), Output("scores", (2,)), Output("classes", (2,), "INT64"))),
    "semantic_segmentation": (
        SquareMarker,
        ("red", "green"),
        (Output("label_map", (32, 32), "UINT8"), Output("probabilities", (3, 32, 32))),
    ),
    "instance_segmentation": (
        SquareSeparator,
        ("red", "green"),
        (Output("probabilities", (3, 32, 32)), Output("heights", (32, 32))),
    ),
}


def publish(
    store: ArtifactStore, task: str, model: str = "judged", *, variants: Mapping[str, bytes] | None = None, **changes: Any
) -> ModelPackage:
    """Publish the task's model; "attentive" is a classifier with a map of attention. It holds bfloat16 and, by their kinds, the graphs of `variants`."""
    made, classes, outputs = MODELS[task]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    graph = export_onnx(made().eval(), POLICY, outputs, images).data
    package = ModelPackage(
        id=model,
        display_name=model,
        uid=model,
        task="classification" if task == "attentive" else task,
        classes=list(classes),
        dataset="datasets/home",
        dataset_digest="ab" * 32,
        candidate="by hand",
        input=POLICY,
        create_time=datetime(2026, 1, 2, tzinfo=UTC),
        **changes,
    )
    package.digest = package.serving_digest(hashlib.sha256(graph).hexdigest())
    contents = {
        f"{package.triton_path}/1/model.onnx": graph,
        f"{package.triton_path}/config.pbtxt": config_pbtxt(model, POLICY, outputs, parameters={"oteo_digest": package.digest}).encode(),
        variant_path(BF16): bf16_config_pbtxt(model, POLICY, outputs, parameters={"oteo_digest": package.digest}).encode(),
        **{variant_path(kind): data for kind, data in (variants or {}).items()},
    }
    for name, content in contents.items():
        store.write_bytes(f"models/{model}/{name}", content)
        package.files[name] = PackageFile(hashlib.sha256(content).hexdigest(), len(content))
    store.write_bytes(f"models/{model}/package.json", package.to_json())
    return package


def dataset(
    store: ArtifactStore,
    name: str,
    task: str,
    classes: Sequence[str],
    draw: Callable[[int], tuple[np.ndarray, dict[str, Any]]],
    count: int,
    *,
    spoilt: Sequence[int] = (),
    mask: MaskEncoding | None = None,
) -> None:
    """Write a dataset of a test part; `draw` gives pixels and a sample's own fields (a mask as ``mask`` ``(H, W)``)."""
    info = DatasetInfo(id=name, display_name=name.title(), task=task, classes=tuple(classes), mask=mask, domain="lab")
    with DatasetWriter(store, f"datasets/{name}", info) as writer:
        for index in range(count):
            pixels, fields = draw(index)
            data = encode_png(pixels)
            if index in spoilt:
                data = data[: len(data) // 2]
            drawn = fields.pop("mask", None)
            if drawn is not None:
                fields["mask_path"] = writer.add_media(f"mask{index}.png", encode_png(drawn[:, :, None]))
            height, width = pixels.shape[:2]
            given = {"split": "test", "group": f"g{index // 2}", "source_path": f"set/{'ab'[index % 2]}/{index}.png", **fields}
            path = writer.add_media(f"{index}.png", data)
            writer.add(Sample(id=f"s{index:03d}", path=path, width=width, height=height, channels=3, dtype="uint8", **given))
        writer.finish()


def shade(index: int, level: float) -> np.ndarray:
    """An even picture with a little noise."""
    rng = np.random.default_rng(index)
    return np.clip(255 * level + rng.normal(0, 6, (24, 30, 3)), 0, 255).astype(np.uint8)


def square(index: int, side: int = 64) -> tuple[np.ndarray, Box]:
    """A dark picture with one bright square, red or green in turn, and its box; edges at multiples of two survive the resize to half."""
    rng = np.random.default_rng(index)
    pixels = np.zeros((side, side, 3), dtype=np.uint8)
    extent = 2 * int(rng.integers(4, 12))
    left, top = (2 * int(value) for value in rng.integers(2, 16, 2))
    pixels[top : top + extent, left : left + extent, index % 2] = 220
    return pixels, Box(("red", "green")[index % 2], left, top, extent, extent)
