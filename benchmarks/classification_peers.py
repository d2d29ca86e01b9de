"""Peers of the classification benchmark: each takes prepared images and labels and a time, and gives probabilities of the test images.

- ``frimcla``: FrImCla's protocol as published (Garcia-Dominguez et al., IEEE Access 7, 2019), without pretrained weights: each descriptor (LBP, HOG,
  Haralick, Lab and HSV histograms) with each classifier, settings by random search, ten stratified folds that know nothing of groups, the
  pair of the highest mean accuracy fitted on all. No calibration.
- ``timm``: a plain recipe for timm's resnet18 from scratch: AdamW, cosine, flips, label smoothing; the last weights are the model.
- ``boosting``: scikit-learn's histogram gradient boosting at its defaults on all classical descriptors.
- ``autogluon``: AutoGluon MultiModal, in an environment of its own, its pretrained weights off.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold

from oteo_automl.candidates.classical import FAMILIES, fit_head, head_logits
from oteo_automl.candidates.descriptors import DESCRIPTORS, Descriptors
from oteo_core.evaluation.calibration import softmax

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Probabilities = NDArray[np.float64]


def describe(images: Images, name: str) -> NDArray[np.float32]:
    """Compute a set of descriptors."""
    module = Descriptors(*images.shape[1:], DESCRIPTORS[name]).eval()
    with torch.inference_mode():
        parts = [module(torch.from_numpy(images[start : start + 8])).numpy() for start in range(0, len(images), 8)]
    return np.concatenate(parts)


def frimcla(train: Images, labels: Labels, test: Images, *, classes: int, seed: int, seconds: float) -> Probabilities:
    """FrImCla's protocol; pairs are gone through until the time is up."""
    deadline = time.time() + seconds
    rng = np.random.default_rng(seed)
    features = {name: (describe(train, name), describe(test, name)) for name in ("lbp", "hog", "haralick", "lab", "hsv")}
    folds = list(StratifiedKFold(min(10, int(np.bincount(labels).min())), shuffle=True, random_state=seed).split(labels, labels))
    best: tuple[float, str, str, dict[str, object]] = (-1.0, "lab", "logistic", dict(FAMILIES["logistic"].first))
    for turn in range(1000):
        for family in ("logistic", "svm", "neighbours", "forest", "trees", "perceptron", "boosting"):
            for name, (known, _) in features.items():
                if time.time() > deadline - 0.05 * seconds:
                    break
                settings = dict(FAMILIES[family].first) if turn == 0 else FAMILIES[family].draw(rng)
                rates = []
                for inside, outside in folds:
                    head = fit_head(FAMILIES[family], known[inside], labels[inside], settings, classes, seed)
                    rates.append(float((head_logits(head, known[outside]).argmax(axis=1) == labels[outside]).mean()))
                    if time.time() > deadline:
                        break
                if len(rates) == len(folds) and float(np.mean(rates)) > best[0]:
                    best = (float(np.mean(rates)), name, family, settings)
        if time.time() > deadline - 0.05 * seconds:
            break
    _, name, family, settings = best
    head = fit_head(FAMILIES[family], features[name][0], labels, settings, classes, seed)
    return softmax(head_logits(head, features[name][1]))


def plain_timm(train: Images, labels: Labels, test: Images, *, classes: int, seed: int, seconds: float) -> Probabilities:
    """A plain resnet18."""
    begun, deadline = time.time(), time.time() + seconds
    torch.manual_seed(seed)
    network = timm.create_model("resnet18", pretrained=False, num_classes=classes, in_chans=train.shape[3]).to(
        memory_format=torch.channels_last
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    planes = torch.from_numpy(train).permute(0, 3, 1, 2).float() / 255
    mean, spread = planes.mean(dim=(0, 2, 3), keepdim=True), planes.std(dim=(0, 2, 3), keepdim=True)
    planes = (planes - mean) / spread
    targets = torch.from_numpy(labels)
    generator = torch.Generator().manual_seed(seed)
    network.train()
    while time.time() < deadline:
        order = torch.randperm(len(planes), generator=generator)
        for start in range(0, len(order) - 31, 32):
            if time.time() > deadline:
                break
            for group in optimiser.param_groups:
                group["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * min(1.0, (time.time() - begun) / seconds)))
            chosen = order[start : start + 32]
            batch = planes[chosen]
            flips = (torch.rand(len(batch), generator=generator) < 0.5).view(-1, 1, 1, 1)
            batch = torch.where(flips, batch.flip(3), batch).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(network(batch), targets[chosen], label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    network.eval()
    with torch.inference_mode():
        given = (torch.from_numpy(test).permute(0, 3, 1, 2).float() / 255 - mean) / spread
        return softmax(np.concatenate([network(given[start : start + 32]).numpy() for start in range(0, len(given), 32)]))


def boosting(train: Images, labels: Labels, test: Images, *, classes: int, seed: int, seconds: float) -> Probabilities:
    """Gradient boosting on classical descriptors; it takes the time that it takes."""
    model = HistGradientBoostingClassifier(random_state=seed).fit(describe(train, "classical"), labels)
    found: Probabilities = model.predict_proba(describe(test, "classical"))
    return found


_SCRIPT = """
import json, os, sys, time
job = json.load(open(sys.argv[1]))
if job["clock"] == "cpu":
    # Its time limit is Lightning's, which asks this clock.
    time.monotonic = time.process_time
import pandas, timm, torch
torch.set_num_threads(job["threads"])
import autogluon.multimodal.models.timm_image as image_model
# It has no setting that leaves the weights out.
image_model.create_model = lambda name, pretrained=False, **more: timm.create_model(name, pretrained=False, **more)
from autogluon.multimodal import MultiModalPredictor
train, test = (pandas.DataFrame(job[part]) for part in ("train", "test"))
predictor = MultiModalPredictor(label="label", problem_type="multiclass" if job["classes"] > 2 else "binary", path=job["folder"], verbosity=0)
predictor.fit(train, time_limit=job["seconds"], seed=job["seed"], hyperparameters={
    "model.names": ["timm_image"], "model.timm_image.checkpoint_name": "resnet18", "model.timm_image.image_size": job["side"],
    "env.num_gpus": 0, "env.num_workers": 0, "env.num_workers_inference": 0, "env.per_gpu_batch_size": 32, "env.batch_size": 32,
    "optim.lr": 1e-3, "optim.lr_choice": "single_stage", "optim.max_epochs": 1000, "optim.patience": 1000})
table = predictor.predict_proba(test, as_pandas=True)
with open(job["answer"], "w") as file:
    json.dump(table[list(range(job["classes"]))].to_numpy().tolist(), file)
# Its threads wait by the clock that was changed.
os._exit(0)
"""


def autogluon(
    train: Images, labels: Labels, test: Images, *, classes: int, seed: int, seconds: float, python: str, clock: str = "wall"
) -> Probabilities:
    """AutoGluon MultiModal with a timm resnet18 from scratch, the same images as PNG files; its own validation part, augmentation and choice of weights.

    `clock` is ``"wall"`` or ``"cpu"``: what its time limit counts. It has no plan that ends with the time: epochs without end, until it is stopped.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)

        def write(images: Images, part: str) -> list[str]:
            paths = []
            for index, image in enumerate(images):
                path = root / f"{part}-{index}.png"
                cv2.imwrite(str(path), image[:, :, ::-1] if image.shape[2] == 3 else np.repeat(image, 3, axis=2))
                paths.append(str(path))
            return paths

        job = {
            "train": {"image": write(train, "train"), "label": labels.tolist()},
            "test": {"image": write(test, "test")},
            "classes": classes,
            "seed": seed,
            "seconds": seconds,
            "clock": clock,
            "threads": torch.get_num_threads(),
            "side": train.shape[1],
            "folder": str(root / "model"),
            "answer": str(root / "answer.json"),
        }
        (root / "job.json").write_text(json.dumps(job))
        (root / "run.py").write_text(_SCRIPT)
        surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run([python, str(root / "run.py"), str(root / "job.json")], capture_output=True, text=True, env=surroundings)
        if done.returncode:
            raise RuntimeError(f"AutoGluon failed: {done.stderr[-2000:]}")
        return np.asarray(json.loads((root / "answer.json").read_text()), dtype=np.float64)
