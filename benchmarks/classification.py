"""Classification on small real sets without pretrained weights, against peers that get the same images, time and threads in the same run.

    python benchmarks/classification.py --data DIR --seconds 600 --threads 2 --seeds 0 1 2 --peers oteo frimcla timm boosting

DIR holds ``brain_mri_yesno`` (tumour yes or no; five folds, exact duplicates on one side) and ``wbc_zheng`` (white blood cells of the first domain,
classes with at least 20 images; 70 to 30, exact duplicates on one side). Images are brought to 128 pixels for all. Oteo's search runs in this
process: no services, no Triton, one piece after the other; from what is not test it holds out its own. Figures: AUROC (one against the rest), accuracy,
expected calibration error (15 bins of equal width), log loss, each over the test images of all folds together; wall and processor seconds a fit.
``--clock cpu`` gives each fit so many seconds of this process's processor time in place of wall-clock, for a machine that others use too
(AutoGluon, which runs in a process of its own, counts its own). ``--autogluon PYTHON`` names the interpreter of an environment that has ``autogluon.multimodal``;
``uv pip install autogluon.multimodal`` resolves in seconds and installs in ten minutes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from classification_peers import Images, Labels, Probabilities, autogluon, boosting, frimcla, plain_timm
from measuring import tree_cpu_seconds
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from oteo_automl.candidates.registry import choose
from oteo_automl.packaging.served import ServedClassifier
from oteo_automl.search.budget import Budget
from oteo_automl.search.checkpoints import StoredCheckpoints
from oteo_automl.search.classification_pieces import Problem
from oteo_automl.search.classification_work import ClassificationWork, Settings
from oteo_automl.search.data import ArrayCache
from oteo_automl.search.folds import make_folds
from oteo_automl.search.result import Plan
from oteo_automl.search.search import Search
from oteo_automl.search.tracker import NoTracker
from oteo_core.evaluation.calibration import expected_calibration_error, fit_temperature
from oteo_core.graphs.running import run_torch
from oteo_core.images import ImageLimits, InputPolicy, decode, prepare
from oteo_core.jobs.executor import InlineExecutor

_SIDE = 128
_SETS = ("brain", "wbc")


def read(data: Path, name: str) -> tuple[Images, Labels, Labels]:
    """Give prepared images, labels, and the number of each one's group of exact duplicates."""
    files: list[tuple[Path, int]] = []
    if name == "brain":
        for number, kind in enumerate(("no", "yes")):
            folder = data / "brain_mri_yesno" / kind
            files += [(path, number) for path in sorted(folder.iterdir()) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    else:
        folder = data / "wbc_zheng" / "domain1"
        for row in csv.DictReader((folder / "classes.csv").open()):
            files.append((folder / "images" / f"{row['image ID'].zfill(3)}.png", int(row["class label"])))
    policy = InputPolicy(width=_SIDE, height=_SIDE, channels=1 if name == "brain" else 3, dtype="uint8", resize="stretch")
    images, labels, digests = [], [], []
    for path, label in files:
        image = decode(path.read_bytes(), ImageLimits())
        images.append(prepare(image.pixels, policy, image.header.bit_depth))
        labels.append(label)
        digests.append(hashlib.sha256(image.pixels.tobytes()).hexdigest())
    kinds, counts = np.unique(labels, return_counts=True)
    kept = np.isin(labels, kinds[counts >= 20])
    numbers = np.unique(np.array(labels)[kept], return_inverse=True)[1].astype(np.int64)
    groups = np.unique(np.array(digests)[kept], return_inverse=True)[1].astype(np.int64)
    return np.stack(images)[kept], numbers, groups


def splits(name: str, labels: Labels, groups: Labels, seed: int) -> Iterator[tuple[Labels, Labels]]:
    """Give training and test rows: five folds, or (of ten) three folds together as the test part."""
    splitter = StratifiedGroupKFold(5 if name == "brain" else 10, shuffle=True, random_state=seed)
    folds = list(splitter.split(np.zeros(len(labels)), labels, groups))
    if name == "brain":
        yield from folds
        return
    test = np.sort(np.concatenate([held for _, held in folds[:3]]))
    yield np.setdiff1d(np.arange(len(labels)), test), test


def oteo(train: Images, labels: Labels, test: Images, *, classes: int, seed: int, seconds: float, groups: Labels) -> Probabilities:
    """Oteo's search, its own held-out part, calibration and blend."""
    began = time.time()
    rows = np.arange(len(labels))
    names = [str(group) for group in groups]
    folds, count = make_folds(labels, np.ones(len(labels), dtype=np.bool_), names, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        problem = Problem(
            cache=ArrayCache(train),
            labels=labels,
            rows=rows,
            folds=folds,
            fold_count=count,
            classes=classes,
            seed=seed,
            checkpoints=StoredCheckpoints(f"file://{folder}/checkpoints", "search"),
            scratch=folder,
        )
        candidates, _ = choose([], gpu=False, pretrained=False, budget=seconds, smallest_side=_SIDE)
        policy = InputPolicy(width=_SIDE, height=_SIDE, channels=train.shape[3], dtype="uint8")
        settings = Settings(candidates, "log_loss", policy, tuple(map(str, range(classes))), [str(row) for row in rows], names)
        budget = Budget(seconds, 0.03 * seconds, 0.0, began)
        search = Search(ClassificationWork(problem, settings), InlineExecutor(), budget, Plan(), NoTracker())
        best = search.run().best
    temperature = fit_temperature(best.validation.logits, best.validation.labels).temperature
    print(f"    oteo: {best.candidate} {best.parameters.get('candidates', '')}", flush=True)
    return run_torch(ServedClassifier(best.module, temperature).eval(), test)[0].astype(np.float64)


def figures(labels: Labels, probabilities: Probabilities) -> tuple[float, float, float, float]:
    """Give AUROC, accuracy, calibration error and log loss."""
    classes = probabilities.shape[1]
    if classes == 2:
        auroc = float(roc_auc_score(labels, probabilities[:, 1]))
    else:
        auroc = float(np.mean([roc_auc_score(labels == one, probabilities[:, one]) for one in range(classes)]))
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    loss = float(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-7, 1)).mean())
    return auroc, accuracy, expected_calibration_error(labels, probabilities), loss


def main() -> None:
    """Run it and print a table for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=_SETS, default=list(_SETS))
    parser.add_argument("--seconds", type=float, default=600.0, help="for each fit")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--peers", nargs="+", default=["oteo", "frimcla", "timm", "boosting"])
    parser.add_argument("--folds", type=int, default=5, help="of the five of brain_mri_yesno, so many are run")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="what --seconds counts")
    parser.add_argument("--autogluon", default="", help="Python of an environment with autogluon.multimodal")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.clock == "cpu":
        # Every deadline, ours and the peers', is asked of this one clock, and what a step takes is measured by it: on a shared machine seconds of the
        # wall would make every plan many times too short.
        started, used = time.time(), time.process_time()
        time.time = lambda: started + time.process_time() - used
        time.perf_counter = time.process_time
    known: dict[str, Callable[..., Probabilities]] = {"frimcla": frimcla, "timm": plain_timm, "boosting": boosting}
    if asked.autogluon:
        known["autogluon"] = partial(autogluon, python=asked.autogluon, clock=asked.clock)
    for name in asked.sets:
        images, labels, groups = read(asked.data, name)
        classes = int(labels.max()) + 1
        print(f"{name}: {len(images)} images, {len(set(groups.tolist()))} distinct, classes {np.bincount(labels).tolist()}", flush=True)
        found: dict[str, list[tuple[float, ...]]] = {}
        for seed in asked.seeds:
            parts = list(splits(name, labels, groups, seed))[: asked.folds]
            for peer in asked.peers:
                truths, answers, wall, cpu = [], [], time.monotonic(), tree_cpu_seconds()
                for train, test in parts:
                    given = {"classes": classes, "seed": seed, "seconds": asked.seconds}
                    work = partial(oteo, groups=groups[train]) if peer == "oteo" else known[peer]
                    answers.append(work(images[train], labels[train], images[test], **given))
                    truths.append(labels[test])
                fits = len(parts)
                row = (
                    *figures(np.concatenate(truths), np.concatenate(answers)),
                    (time.monotonic() - wall) / fits,
                    (tree_cpu_seconds() - cpu) / fits,
                )
                found.setdefault(peer, []).append(row)
                print(f"  seed {seed} {peer:10s} " + " ".join(f"{value:.3f}" for value in row), flush=True)
        print(f"\n| {name} | AUROC | accuracy | ECE | log loss | s a fit | CPU s a fit |\n|---|---|---|---|---|---|---|")
        for peer, rows in found.items():
            columns = list(zip(*rows, strict=True))
            cells = [f"{statistics.mean(c):.3f} ({min(c):.3f}-{max(c):.3f})" for c in columns[:4]] + [
                f"{statistics.mean(c):.0f}" for c in columns[4:]
            ]
            print(f"| {peer} | " + " | ".join(cells) + " |")
        print(flush=True)


if __name__ == "__main__":
    main()
