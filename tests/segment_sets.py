"""Drawn sets of discs for tests of segmentation, written as datasets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from waiting import patient

from oteo_automl.candidates.modules import dump_module, load_module
from oteo_automl.candidates.training import Trainer, has_bfloat16
from oteo_automl.dense.base import DenseTask
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetInfo, DatasetReader, DatasetWriter, MaskEncoding, Sample
from oteo_core.images import encode_png, prepare

Drawing = tuple[np.ndarray, np.ndarray]


def discs(index: int, *, side: int = 64, channels: int = 3, count: int = 3, empty: bool = False) -> Drawing:
    """Draw bright rings' worth of discs on a grey, noisy ground; every second one is darker. Gives the image and the objects' numbers."""
    rng = np.random.default_rng(index)
    image = np.full((side, side), 70.0)
    ids = np.zeros((side, side), np.uint16)
    for number in range(0 if empty else count):
        centre = tuple(int(v) for v in rng.integers(8, side - 8, 2))
        radius = int(rng.integers(5, 10))
        inside = cv2.circle(np.zeros((side, side), np.uint8), centre, radius, 1, -1) > 0
        image[inside] = 200 if number % 2 == 0 else 10
        ids[inside] = number + 1
    pixels = np.clip(image[:, :, None] + rng.normal(0, 8, (side, side, channels)), 0, 255).astype(np.uint8)
    return pixels, ids


def write_set(
    path: Any,
    drawings: list[Drawing],
    *,
    task: str,
    mask: MaskEncoding,
    classes: tuple[str, ...],
    values: Callable[[np.ndarray], np.ndarray],
) -> DatasetReader:
    """Write a dataset whose last quarter is the validation part; `values` makes mask numbers of the objects' numbers."""
    store = ArtifactStore(str(path))
    with DatasetWriter(store, "datasets/drawn", DatasetInfo("drawn", task=task, classes=classes, mask=mask)) as writer:
        for index, (pixels, ids) in enumerate(drawings):
            numbers = values(ids)
            present = set(np.unique(numbers).tolist())
            labels = (
                tuple(name for name, value in zip(classes, mask.values, strict=True) if value in present)
                if mask.kind == "class"
                else classes
                if ids.any()
                else ()
            )
            tall, wide, channels = pixels.shape
            split = "validation" if index >= 3 * len(drawings) // 4 else "train"
            media = writer.add_media(f"{index}.png", encode_png(pixels[:, :, :3]))
            writer.add(
                Sample(
                    f"s-{index:03}",
                    path=media,
                    sha256=f"{index:x}",
                    width=wide,
                    height=tall,
                    channels=channels,
                    dtype="uint8",
                    split=split,
                    labels=labels,
                    mask_path=writer.add_media(f"{index}-mask.png", encode_png(numbers[:, :, None])),
                )
            )
        writer.finish()
    return DatasetReader(store, "drawn")


def taught(
    task: DenseTask,
    name: str,
    reader: DatasetReader,
    drawings: list[Drawing],
    folder: Any,
    *,
    epochs: int,
    seed: int = 0,
    strength: str = "light",
) -> Any:
    """Teach a candidate for some epochs; gives all that was made on the way."""
    import time
    from types import SimpleNamespace

    import torch

    data = task.read(reader)
    channels = drawings[0][0].shape[2]
    policy = task.policy(data, gpu=False, budget=600.0, channels=channels)
    folder.mkdir(parents=True, exist_ok=True)
    task.build_targets(data, policy, folder, lambda: None)
    targets = task.open_targets(folder)
    images = np.stack([prepare(pixels, policy) for pixels, _ in drawings])
    train, held_out = data.part("train"), data.part("validation")
    facts = task.facts(targets, train, policy, len(data.classes))
    candidate = task.find(name)
    mean, spread = images[train].mean((0, 1, 2)) / 255.0, images[train].std((0, 1, 2)) / 255.0 + 1e-3
    torch.manual_seed(seed)
    network = task.network(candidate, len(data.classes), channels, mean.tolist(), spread.tolist(), facts)
    lesson = task.lesson(candidate, images, targets, train, held_out, classes=len(data.classes), facts=facts, seed=seed)
    recipe = task.recipe(candidate, train_count=len(train), pretrained=False, gpu=False)
    recipe = replace(recipe, strength=strength)
    trainer = Trainer(network, lesson, recipe, seed=seed, half=candidate.half and has_bfloat16())
    outcome = trainer.run(epochs, epochs, time.time() + patient(300), judge_every=epochs)
    network = trainer.result()
    served = task.serve(candidate, network, images, targets, held_out, policy=policy, classes=len(data.classes), facts=facts, seed=seed)
    return SimpleNamespace(
        data=data,
        policy=policy,
        targets=targets,
        images=images,
        train=train,
        held_out=held_out,
        facts=facts,
        candidate=candidate,
        network=network,
        lesson=lesson,
        outcome=outcome,
        served=served,
        trainer=trainer,
    )


def again(served: Any) -> Any:
    """Write the module that is served down and read it, as a package does."""
    return load_module(dump_module(served.module))


def exported(served: Any, policy: Any, folder: Any) -> Any:
    """Write what is served as an ONNX file and open it in ONNX Runtime."""
    import onnxruntime
    import torch

    names = [name for name, _, _ in served.outputs]
    example = torch.zeros((2, policy.height, policy.width, policy.channels), dtype=torch.uint8)
    path = folder / "model.onnx"
    axes = {name: {0: "batch"} for name in ["image", *names]}
    torch.onnx.export(
        served.module, (example,), path, dynamo=False, opset_version=17, input_names=["image"], output_names=names, dynamic_axes=axes
    )
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
