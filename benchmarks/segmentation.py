"""Semantic and instance segmentation against a plain U-Net of segmentation-models-pytorch, and a watershed on the same foreground.

    python benchmarks/segmentation.py wbc --seconds 300 --seeds 0 1 2
    python benchmarks/segmentation.py isbi --seconds 300 --peer smp
    python benchmarks/segmentation.py dsb-instances --seconds 300

Images come from the folder that `OTEO_TEST_DATA` names. The split is by image (30 % test; of `isbi` the last six slices), a fifth of the training
part is held out for choices. `wbc` is trained on domain 1 and also judged on domain 2, which training never sees. Every row is one training on
the threads asked for; the peer has the same images, input size, threads and seconds. ``--clock cpu`` gives each training so many seconds of this
process's processor time in place of wall-clock, for a machine that others use too.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from oteo_automl.candidates.training import Trainer, has_bfloat16
from oteo_automl.dense.base import DenseData, DenseTask, find_task
from oteo_core.evaluation.instances import instance_scores
from oteo_core.evaluation.semantic import semantic_scores
from oteo_core.images import InputPolicy, prepare
from oteo_core.packages.answers import IGNORED, ClassMap, Instances
from oteo_core.truths.masks import renumbered

DATA = Path(os.environ.get("OTEO_TEST_DATA", "../shared/data"))


@dataclass
class Images:
    """Images, truths and parts: "train", "validation", "test", or "shifted"."""

    pixels: list[NDArray[Any]]
    truths: list[Any]
    parts: NDArray[np.str_]
    classes: tuple[str, ...]

    def data(self) -> DenseData:
        """Give what a dense task wants."""
        names = [f"{index}" for index in range(len(self.pixels))]
        sizes = np.array([(one.shape[1], one.shape[0]) for one in self.pixels])
        return DenseData(names, [], self.classes, self.parts, names, sizes, lambda index: self.truths[index])


def _parts(count: int, seed: int) -> NDArray[np.str_]:
    order = np.random.default_rng(1000 + seed).permutation(count)
    parts = np.full(count, "train", dtype="<U10")
    parts[order[: round(0.3 * count)]] = "test"
    rest = order[round(0.3 * count) :]
    parts[rest[: round(0.2 * len(rest))]] = "validation"
    return parts


def _rgb(path: Path) -> NDArray[Any]:
    return np.asarray(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB))


def load_wbc(seed: int) -> Images:
    """White blood cells: nucleus and cytoplasm; domain 2 is "shifted"."""
    pixels, truths, counts = [], [], []
    for domain in ("domain1", "domain2"):
        files = sorted((DATA / "wbc_zheng" / domain / "images").iterdir())
        counts.append(len(files))
        for path in files:
            mask = cv2.imread(str(path.parent.parent / "masks" / path.name), cv2.IMREAD_GRAYSCALE)
            labels = np.full(mask.shape, IGNORED, np.uint8)
            for value, number in ((0, 0), (128, 1), (255, 2)):
                labels[mask == value] = number
            pixels.append(_rgb(path))
            truths.append(ClassMap(labels))
    return Images(pixels, truths, np.concatenate([_parts(counts[0], seed), np.full(counts[1], "shifted")]), ("cytoplasm", "nucleus"))


def load_isbi(seed: int) -> Images:
    """Membranes in electron microscopy; the last six slices are the test part, the three before them are held out."""
    files = sorted((DATA / "isbi2012_em" / "train" / "image").iterdir(), key=lambda path: int(path.stem))
    pixels = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)[:, :, None] for path in files]
    truths = [
        ClassMap((cv2.imread(str(path.parent.parent / "label" / path.name), cv2.IMREAD_GRAYSCALE) < 128).astype(np.uint8)) for path in files
    ]
    parts = np.array(["train"] * (len(files) - 9) + ["validation"] * 3 + ["test"] * 6)
    return Images(pixels, truths, parts, ("membrane",))


def _dsb(seed: int, truth: Callable[[NDArray[Any]], Any]) -> Images:
    files = sorted((DATA / "dsb2018_nuclei_compact" / "fluorescence" / "images").iterdir())
    numbers = [cv2.imread(str(path.parent.parent / "labels" / path.name), cv2.IMREAD_UNCHANGED) for path in files]
    return Images([_rgb(path)[:, :, :1] for path in files], [truth(one) for one in numbers], _parts(len(files), seed), ("nucleus",))


def load_dsb(seed: int) -> Images:
    """Nuclei in fluorescence against background."""
    return _dsb(seed, lambda numbers: ClassMap((numbers > 0).astype(np.uint8)))


def load_dsb_instances(seed: int) -> Images:
    """Nuclei in fluorescence, each its own object."""

    def truth(numbers: NDArray[Any]) -> Instances:
        return renumbered(numbers.astype(np.int32), np.zeros(int(numbers.max()), dtype=np.int64))

    return _dsb(seed, truth)


LOADERS: dict[str, tuple[str, Callable[[int], Images]]] = {
    "wbc": ("semantic_segmentation", load_wbc),
    "isbi": ("semantic_segmentation", load_isbi),
    "dsb": ("semantic_segmentation", load_dsb),
    "dsb-instances": ("instance_segmentation", load_dsb_instances),
}


def figures(task: DenseTask, truths: list[Any], answers: list[Any], classes: int) -> dict[str, float]:
    """Give the figures of a part; of semantic segmentation also the IoU of all classes together against the background."""
    if task.name == "instance_segmentation":
        found = instance_scores(truths, answers, classes)
        return {name: round(found[name], 4) for name in ("pq", "map50_95", "map50", "map_dsb2018", "f1", "aji")}
    found = semantic_scores(truths, answers, classes)
    both = [ClassMap(np.where(one.labels == IGNORED, IGNORED, np.minimum(one.labels, 1)).astype(np.uint8)) for one in (*truths, *answers)]
    foreground = semantic_scores(both[: len(truths)], both[len(truths) :], 1)
    return {
        "dice": found["dice"],
        "iou": found["iou"],
        "foreground_iou": foreground["iou"],
        "foreground_iou_pooled": foreground["iou_pooled"],
    }


def train_ours(
    task: DenseTask,
    name: str,
    images: Images,
    prepared: NDArray[Any],
    policy: InputPolicy,
    folder: Path,
    seconds: float,
    seed: int,
    strength: str,
) -> tuple[Any, Any, dict[str, Any]]:
    """Train a candidate; give what is served, the trainer's outcome and words."""
    data = images.data()
    task.build_targets(data, policy, folder, lambda: None)
    targets = task.open_targets(folder)
    train, held_out = data.part("train"), data.part("validation")
    facts = task.facts(targets, train, policy, len(images.classes))
    candidate = task.find(name)
    mean, spread = prepared[train].mean((0, 1, 2)) / 255.0, prepared[train].std((0, 1, 2)) / 255.0 + 1e-3
    torch.manual_seed(seed)
    network = task.network(candidate, len(images.classes), prepared.shape[3], mean.tolist(), spread.tolist(), facts)
    lesson = task.lesson(candidate, prepared, targets, train, held_out, classes=len(images.classes), facts=facts, seed=seed)
    recipe = task.recipe(candidate, train_count=len(train), pretrained=False, gpu=torch.cuda.is_available())
    if strength:
        recipe = replace(recipe, strength=strength)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trainer = Trainer(network, lesson, recipe, seed=seed, device=device, half=candidate.half and has_bfloat16())
    outcome = trainer.run(10_000, 10_000, time.time() + seconds, judge_every=10_000)
    served = task.serve(
        candidate, trainer.result(), prepared, targets, held_out, policy=policy, classes=len(images.classes), facts=facts, seed=seed
    )
    return (
        served,
        outcome,
        {"epochs": outcome.epochs, "strength": recipe.strength, "decoding": served.decoding, "calibration": served.calibration},
    )


def train_smp(images: Images, prepared: NDArray[Any], targets: NDArray[np.uint8], seconds: float, seed: int) -> tuple[Any, dict[str, Any]]:
    """Train a plain U-Net: resnet18 encoder, Adam at 1e-3, Dice and cross-entropy, mirroring, batches of 8 whole images or patches of 256."""
    import segmentation_models_pytorch as smp

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(np.isin(images.parts, ("train", "validation")))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = smp.Unet("resnet18", encoder_weights=None, in_channels=prepared.shape[3], classes=len(images.classes) + 1)
    network = network.to(device).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    dice = smp.losses.DiceLoss("multiclass", ignore_index=IGNORED)
    entropy = torch.nn.CrossEntropyLoss(ignore_index=IGNORED)
    end, steps = time.time() + seconds, 0
    tall, wide = prepared.shape[1:3]
    patch = min(256, tall), min(256, wide)
    while time.time() < end:
        chosen = rng.choice(rows, 8)
        top, left = (int(rng.integers(0, whole - part + 1)) for whole, part in zip((tall, wide), patch, strict=True))
        window = (slice(None), slice(top, top + patch[0]), slice(left, left + patch[1]))
        planes = torch.from_numpy(prepared[chosen][window]).to(device).permute(0, 3, 1, 2).float() / 255.0
        maps = torch.from_numpy(targets[chosen][window].astype(np.int64)).to(device)
        if rng.random() < 0.5:
            planes, maps = planes.flip(3), maps.flip(2)
        if rng.random() < 0.5:
            planes, maps = planes.flip(2), maps.flip(1)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=has_bfloat16() or device == "cuda"):
            logits = network(planes.contiguous(memory_format=torch.channels_last))
        loss = dice(logits.float(), maps) + entropy(logits.float(), maps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
    network = network.cpu().eval()

    def forward(batch: torch.Tensor) -> tuple[torch.Tensor]:
        return (torch.softmax(network(batch.permute(0, 3, 1, 2).float() / 255.0), dim=1),)

    return forward, {"steps": steps}


def classic_watershed(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give the heights that come from a foreground alone: the distance to its border, smoothed, as a share of its neighbourhood's largest."""
    from scipy import ndimage

    heights = []
    for one in probabilities:
        inside = 1.0 - one[0] > 0.5
        distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(inside), 1.0) * inside
        peak = ndimage.maximum_filter(distance, size=9)
        heights.append(np.where((distance >= peak - 1e-6) & (distance > 1.0), 1.0, 0.5 * distance / max(1e-6, distance.max())))
    return np.stack(heights).astype(np.float32)


@torch.inference_mode()
def answer(
    task: DenseTask,
    module: Any,
    names: list[str],
    images: Images,
    prepared: NDArray[Any],
    rows: NDArray[np.int64],
    policy: InputPolicy,
    decoding: Any,
) -> tuple[list[Any], list[Any]]:
    """Give answers in original pixels, and of instances those of a classic watershed on the same foreground."""
    found: list[Any] = []
    classic: list[Any] = []
    for start in range(0, len(rows), 8):
        chosen = rows[start : start + 8]
        outputs = dict(zip(names, (one.numpy() for one in module(torch.from_numpy(prepared[chosen]))), strict=True))
        sizes = [(images.pixels[row].shape[1], images.pixels[row].shape[0]) for row in chosen.tolist()]
        found += task.answers(outputs, sizes, policy, decoding)
        if task.name == "instance_segmentation":
            own = {"probabilities": outputs["probabilities"], "heights": classic_watershed(outputs["probabilities"])}
            classic += task.answers(own, sizes, policy, {"method": "watershed", "marker": 0.9})
    return found, classic


def draw(path: Path, images: Images, rows: list[int], answers: list[Any]) -> None:
    """Write a picture: images with the truth's outlines in green and the answer's in red."""
    tiles = []
    for row, found in zip(rows, answers, strict=True):
        pixels = images.pixels[row]
        tile = np.ascontiguousarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)
        if tile.mean() < 40:
            tile = np.clip(tile.astype(np.float32) * 3, 0, 255).astype(np.uint8)
        scale = 320 / max(tile.shape[:2])
        for truth, colour in ((images.truths[row], (0, 255, 0)), (found, (255, 0, 0))):
            labels = truth.labels if isinstance(truth, ClassMap) else truth.ids
            for number in np.unique(labels[labels > 0]):
                contours, _ = cv2.findContours((labels == number).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
                cv2.drawContours(tile, contours, -1, colour, 1)
        canvas = np.zeros((320, 320, 3), np.uint8)
        small = cv2.resize(tile, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        canvas[: small.shape[0], : small.shape[1]] = small[:320, :320]
        tiles.append(canvas)
    wide = 4
    tiles += [np.zeros((320, 320, 3), np.uint8)] * (-len(tiles) % wide)
    whole = np.vstack([np.hstack(tiles[start : start + wide]) for start in range(0, len(tiles), wide)])
    cv2.imwrite(str(path), cv2.cvtColor(whole, cv2.COLOR_RGB2BGR))


def run(arguments: argparse.Namespace, seed: int) -> None:
    """Train and judge once; print a line of JSON for each method."""
    name, load = LOADERS[arguments.data]
    task = find_task(name)
    images = load(seed)
    data = images.data()
    channels = images.pixels[0].shape[2]
    policy = task.policy(data, gpu=torch.cuda.is_available(), budget=arguments.seconds / 0.4, channels=channels, largest=arguments.largest)
    prepared = np.stack([prepare(one, policy) for one in images.pixels])
    candidate = arguments.candidate or task.candidates[0].name
    line: dict[str, Any] = {
        "data": arguments.data,
        "method": candidate,
        "seed": seed,
        "input": f"{policy.width}x{policy.height}",
        "seconds": arguments.seconds,
    }
    with tempfile.TemporaryDirectory(prefix="oteo-benchmark-") as folder:
        if arguments.peer == "smp":
            task.build_targets(data, policy, Path(folder), lambda: None)
            module, words = train_smp(images, prepared, np.array(task.open_targets(Path(folder))), arguments.seconds, seed)
            line["method"], names, decoding = "smp U-Net", ["probabilities"], {}
        else:
            served, _, words = train_ours(
                task, candidate, images, prepared, policy, Path(folder), arguments.seconds, seed, arguments.strength
            )
            module, names, decoding = served.module, [one for one, _, _ in served.outputs], served.decoding
    for part in ("test", "shifted"):
        rows = np.flatnonzero(images.parts == part)
        if not len(rows):
            continue
        found, classic = answer(task, module, names, images, prepared, rows, policy, decoding)
        truths = [images.truths[row] for row in rows.tolist()]
        line[part] = figures(task, truths, found, len(images.classes))
        if classic:
            line[f"{part}_classic_watershed"] = figures(task, truths, classic, len(images.classes))
        if arguments.pictures:
            chosen = list(range(0, len(rows), max(1, len(rows) // 8)))[:8]
            Path(arguments.pictures).mkdir(parents=True, exist_ok=True)
            target = Path(arguments.pictures) / f"{arguments.data}-{line['method'].replace(' ', '-')}-{seed}-{part}.png"
            draw(target, images, rows[chosen].tolist(), [found[one] for one in chosen])
    print(json.dumps(line | words), flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=sorted(LOADERS))
    parser.add_argument("--candidate", default="")
    parser.add_argument("--strength", default="", help="augmentation instead of the recipe's")
    parser.add_argument("--seconds", type=float, default=300.0, help="of training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="what --seconds counts")
    parser.add_argument("--largest", type=int, default=0, help="limit of the input's longer side, pixels")
    parser.add_argument("--peer", choices=["smp"], default="", help="train this instead of the candidate")
    parser.add_argument("--pictures", default="", help="folder for pictures of answers")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.clock == "cpu":
        # Every deadline, ours and the peer's, is asked of this one clock.
        started, used = time.time(), time.process_time()
        time.time = lambda: started + time.process_time() - used
    for seed in arguments.seeds:
        run(arguments, seed)


if __name__ == "__main__":
    main()
