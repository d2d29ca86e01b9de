"""Detection on blood smears (BCCD, official split) against torchvision's reference recipe, each for the same time on the same threads.

    python benchmarks/detection.py --minutes 30 --threads 2 --seeds 0 1 2 --peer torchvision

Ours trains one candidate with the product's trainer, lesson and input policy on the part for training, and answers through the graph that would
be served, thresholds and calibration found on the validation part. The peer is torchvision's Faster R-CNN with a MobileNetV3 at 320 pixels
(``--peer-model`` takes another) under its references' recipe: SGD of 0.02 for sixteen images, momentum 0.9, weight decay 1e-4, two images a
step, horizontal flips, the rate a tenth at 16/26 and 22/26 of the time; no weights for either. Figures are pycocotools' on the test part.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from oteo_automl.candidates.bank import normalisation
from oteo_automl.candidates.training import Trainer, has_bfloat16
from oteo_automl.dense.base import find_task
from oteo_automl.dense.detect.facts import box_policy
from oteo_automl.dense.detect.serving import answer
from oteo_automl.dense.detect.targets import table_of
from oteo_core.images import decode, place, prepare
from oteo_core.packages import Detections, TrueBoxes

CLASSES = ("RBC", "WBC", "Platelets")


@dataclass
class Part:
    """Images and true boxes of a part, original pixels."""

    images: list[NDArray[np.uint8]]
    truths: list[TrueBoxes]


def read_part(folder: Path, name: str) -> Part:
    """Read a part of BCCD; boxes without area are left out."""
    images, truths = [], []
    for stem in (folder / "ImageSets" / "Main" / f"{name}.txt").read_text().split():
        pixels = decode((folder / "JPEGImages" / f"{stem}.jpg").read_bytes()).pixels
        boxes, labels = [], []
        for item in ElementTree.parse(folder / "Annotations" / f"{stem}.xml").getroot().iter("object"):
            corners = [float(item.findtext(f"bndbox/{side}", "0")) for side in ("xmin", "ymin", "xmax", "ymax")]
            if corners[2] > corners[0] and corners[3] > corners[1]:
                boxes.append(corners)
                labels.append(CLASSES.index(item.findtext("name", "")))
        images.append(pixels)
        truths.append(TrueBoxes(np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.zeros(len(labels), np.bool_)))
    return Part(images, truths)


def figures(truths: Sequence[TrueBoxes], found: Sequence[Detections]) -> dict[str, float]:
    """Give pycocotools' mean average precision, also by class at .5."""
    boxes = [
        {"id": 0, "image_id": image, "category_id": int(label), "iscrowd": 0, "bbox": _corner_and_size(box), "area": _area(box)}
        for image, truth in enumerate(truths)
        for box, label in zip(truth.boxes, truth.labels, strict=True)
    ]
    for number, box in enumerate(boxes):
        box["id"] = number + 1
    answers = [
        {"image_id": image, "category_id": int(label), "bbox": _corner_and_size(box), "score": float(score)}
        for image, one in enumerate(found)
        for box, score, label in zip(one.boxes, one.scores, one.labels, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": image} for image in range(len(truths))],
            "categories": [{"id": number} for number in range(len(CLASSES))],
            "annotations": boxes,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(answers), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    by_class = {name: float(evaluation.eval["precision"][0, :, number, 0, 2].mean()) for number, name in enumerate(CLASSES)}
    return {"mAP50": float(evaluation.stats[1]), "mAP50-95": float(evaluation.stats[0]), **by_class}


def _corner_and_size(box: NDArray[np.float32]) -> list[float]:
    return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]


def _area(box: NDArray[np.float32]) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def ours(parts: dict[str, Part], candidate: str, seed: int, minutes: float, size: tuple[int, int] | None) -> tuple[dict[str, float], str]:
    """Train a candidate and judge what would be served."""
    task = find_task("detection")
    known = task.find(candidate)
    began = time.time()
    deadline = began + minutes * 60
    everything = [truth for part in parts.values() for truth in part.truths]
    pixels = [image for part in parts.values() for image in part.images]
    sizes = np.array([[image.shape[1], image.shape[0]] for image in pixels])
    ends = np.cumsum([len(part.images) for part in parts.values()])
    train, held_out, test = (np.arange(end - len(part.images), end) for end, part in zip(ends, parts.values(), strict=True))
    policy = box_policy(
        sizes[train], parts["train"].truths, count=len(train), deep=False, bit_depth=0, gpu=False, budget=minutes * 60 / 0.55, channels=3
    )
    if size is not None:
        policy = type(policy)(width=size[0], height=size[1])
    images = np.stack([prepare(image, policy) for image in pixels])
    at = [place(int(width), int(height), policy) for width, height in sizes]
    table = table_of([TrueBoxes(a.boxes_in(t.boxes), t.labels, t.crowd) for a, t in zip(at, everything, strict=True)])
    facts = task.facts(table, train, policy, len(CLASSES))
    mean, spread = normalisation(images, train, pretrained=False)
    torch.manual_seed(seed)
    network = task.network(known, len(CLASSES), 3, mean, spread, facts)
    lesson = task.lesson(known, images, table, train, held_out, classes=len(CLASSES), facts=facts, seed=seed)
    recipe = task.recipe(known, train_count=len(train), pretrained=False, gpu=False)
    trainer = Trainer(network, lesson, recipe, seed=seed, half=known.half and has_bfloat16())
    outcome = trainer.run(100_000, 100_000, deadline - 30.0, judge_every=1_000_000)
    served = task.serve(known, trainer.result(), images, table, held_out, policy=policy, classes=len(CLASSES), facts=facts, seed=seed)
    words = f"{policy.width}x{policy.height}, {outcome.epochs} epochs, {(time.time() - began) / 60:.1f} min; " + ", ".join(
        f"{name} {served.calibration[name]:.3f}" for name in ("ece_before", "ece_after")
    )
    found = [
        Detections(at[row].boxes_out(one.boxes.astype(np.float64)), one.scores, one.labels)
        for row, one in zip(test, answer(served.module, images, test), strict=True)
    ]
    return figures(parts["test"].truths, found), words


def torchvisions(parts: dict[str, Part], name: str, seed: int, minutes: float) -> tuple[dict[str, float], str]:
    """Train torchvision's detector by its references' recipe and judge it."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    began = time.time()
    seconds = minutes * 60
    model = torchvision.models.detection.__dict__[name](weights=None, weights_backbone=None, num_classes=len(CLASSES) + 1)
    images = [torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in parts["train"].images]
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02 * 2 / 16, momentum=0.9, weight_decay=1e-4)
    model.train()
    step, seen = 0, 0
    while time.time() - began < seconds:
        for start in range(0, len(images) // 2 * 2, 2):
            if start == 0:
                order = rng.permutation(len(images))
            share = (time.time() - began) / seconds
            if share >= 1:
                break
            # The references warm up over the first thousand steps at most.
            warm = min(1.0, (step + 1) / min(1000, len(images) // 2))
            for group in optimiser.param_groups:
                group["lr"] = 0.0025 * warm * (0.1 if share > 16 / 26 else 1.0) * (0.1 if share > 22 / 26 else 1.0)
            batch, targets = [], []
            for row in order[start : start + 2]:
                image, truth = images[row], parts["train"].truths[row]
                boxes = torch.from_numpy(truth.boxes.copy())
                if rng.random() < 0.5:
                    image = image.flip(2)
                    boxes[:, [0, 2]] = image.shape[2] - boxes[:, [2, 0]]
                batch.append(image)
                targets.append({"boxes": boxes, "labels": torch.from_numpy(truth.labels) + 1})
            loss = sum(model(batch, targets).values())
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            step, seen = step + 1, seen + 2
    model.eval()
    found = []
    with torch.no_grad():
        for image in parts["test"].images:
            one = model([torch.from_numpy(image).permute(2, 0, 1).float() / 255])[0]
            found.append(Detections(one["boxes"].numpy(), one["scores"].numpy(), one["labels"].numpy() - 1))
    return figures(parts["test"].truths, found), f"{seen / len(images):.1f} epochs, {(time.time() - began) / 60:.1f} min"


def main() -> None:
    """Run what was asked for and print a row for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OTEO_TEST_DATA", "../shared/data")) / "bccd")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--candidates", nargs="*", default=["centre-resnet18"])
    parser.add_argument("--size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="instead of what the input policy chooses")
    parser.add_argument("--peer", choices=("torchvision",))
    parser.add_argument("--peer-model", default="fasterrcnn_mobilenet_v3_large_320_fpn")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts = {name: read_part(options.data, name) for name in ("train", "val", "test")}
    print(f"{options.minutes:g} min, {options.threads} threads, bfloat16 {'yes' if has_bfloat16() else 'no'}")
    for seed in options.seeds:
        for candidate in options.candidates:
            found, words = ours(parts, candidate, seed, options.minutes, tuple(options.size) if options.size else None)
            show(candidate, seed, found, words)
        if options.peer:
            found, words = torchvisions(parts, options.peer_model, seed, options.minutes)
            show(f"torchvision {options.peer_model}", seed, found, words)


def show(name: str, seed: int, found: dict[str, float], words: str) -> None:
    """Print a row."""
    print(f"{name:32} seed {seed}  {'  '.join(f'{key} {value:.3f}' for key, value in found.items())}  ({words})", flush=True)


if __name__ == "__main__":
    main()
