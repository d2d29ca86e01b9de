"""What translate brings back of a frozen segmentation model's IoU on images of another domain, and whether its ladder knows.

    python benchmarks/translate.py wbc-1-2 --seconds 120 --seeds 0 1 2
    python benchmarks/translate.py wbc-2-1 --seconds 120
    python benchmarks/translate.py dsb --seconds 120
    python benchmarks/translate.py wbc-1-2 --seconds 120 --keep /some/folder      (trained once, then read again)
    python benchmarks/translate.py wbc-1-2 --seconds 120 --second 7               (a second network, of that seed, is asked for its opinion)
    python benchmarks/translate.py wbc-1-2 --seconds 120 --second 7 --loss-only   (what is lost and what was expected without labels; no ladder)

Images come from the folder that `OTEO_TEST_DATA` names. A U-Net is trained on home alone, by automl's own trainer, and exported as a package's model is. The
ladder sees no label of the shifted images; every way that it tries is then judged here by all labels. A line of JSON for each way and one for the
choice: ``recovered`` is the share of the recoverable (best way by all labels that keeps structure, less doing nothing) that the choice brought back.
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import segmentation
import torch
from numpy.typing import NDArray

from oteo_automl.dense.base import find_task
from oteo_automl.dense.finish import graph_outputs
from oteo_core.graphs.export import export_onnx
from oteo_core.graphs.programs import write_program
from oteo_core.images import InputPolicy, prepare
from oteo_core.images.geometry import place
from oteo_core.packages import ModelPackage
from oteo_core.packages.answers import IGNORED, ClassMap
from oteo_translate.adaptation.base import AdaptedModel
from oteo_translate.adaptation.registry import ADAPTATIONS
from oteo_translate.domains import Domain
from oteo_translate.ladder.anatomy import translate
from oteo_translate.ladder.ladder import climb
from oteo_translate.ladder.result import Evidence, LadderResult
from oteo_translate.methods.base import TRAINING_FREE, FitContext, Translation
from oteo_translate.methods.registry import METHODS
from oteo_translate.shift.loss import expect_loss
from oteo_translate.shift.sides import Sides
from oteo_translate.tasks.believing import believed
from oteo_translate.tasks.model import TaskModel

TASK = "semantic_segmentation"


@dataclass
class Trained:
    """A frozen model with its domains: home's held-out images, home's test part, and the shifted images."""

    model: TaskModel
    home: Domain
    test: Domain
    shifted: Domain


def _foreground(images: segmentation.Images) -> segmentation.Images:
    truths = [ClassMap(np.where(one.labels == IGNORED, IGNORED, np.minimum(one.labels, 1)).astype(np.uint8)) for one in images.truths]
    return segmentation.Images(images.pixels, truths, images.parts, ("foreground",))


def load_wbc(seed: int, home: int) -> segmentation.Images:
    """White blood cells against background; home is domain 1 or 2, the other one is shifted."""
    images = _foreground(segmentation.load_wbc(seed))
    if home == 2:
        second = images.parts == "shifted"
        images.parts = np.full(len(second), "shifted", dtype="<U10")
        images.parts[second] = segmentation._parts(int(second.sum()), seed)
    return images


def load_dsb(seed: int) -> segmentation.Images:
    """Nuclei in fluorescence; stained ones (H&E) are shifted."""
    pixels, truths, counts = [], [], []
    for name in ("fluorescence", "color_HE"):
        files = sorted((segmentation.DATA / "dsb2018_nuclei_compact" / name / "images").iterdir())
        counts.append(len(files))
        for path in files:
            numbers = cv2.imread(str(path.parent.parent / "labels" / path.name), cv2.IMREAD_UNCHANGED)
            pixels.append(segmentation._rgb(path))
            truths.append(ClassMap((numbers > 0).astype(np.uint8)))
    parts = np.concatenate([segmentation._parts(counts[0], seed), np.full(counts[1], "shifted")])
    return segmentation.Images(pixels, truths, parts, ("foreground",))


PAIRS = {"wbc-1-2": lambda seed: load_wbc(seed, 1), "wbc-2-1": lambda seed: load_wbc(seed, 2), "dsb": load_dsb}


def train(arguments: argparse.Namespace, seed: int) -> Trained:
    """Train and export, or read what an earlier run kept."""
    images = PAIRS[arguments.pair](seed)
    policy = InputPolicy(width=arguments.side, height=arguments.side, channels=3, resize="letterbox")
    prepared = np.stack([prepare(one, policy) for one in images.pixels])
    kept = (
        Path(arguments.keep or tempfile.gettempdir()) / f"{arguments.pair}-{arguments.seconds:g}-{arguments.strength or 'usual'}-{seed}.pkl"
    )
    if arguments.keep and kept.exists():
        graph, program, decoding = pickle.loads(kept.read_bytes())
    else:
        task = find_task(TASK)
        with tempfile.TemporaryDirectory(prefix="oteo-benchmark-") as folder:
            name = arguments.candidate or task.candidates[0].name
            served, _, _ = segmentation.train_ours(
                task, name, images, prepared, policy, Path(folder), arguments.seconds, seed, arguments.strength
            )
        outputs = graph_outputs(served)
        graph = export_onnx(served.module, policy, outputs, prepared[:4]).data
        program = write_program(served.module, policy, [one.name for one in outputs])
        decoding = served.decoding
        if arguments.keep:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(pickle.dumps((graph, program, decoding)))
    package = ModelPackage(
        id=arguments.pair, display_name=arguments.pair, uid="0", task=TASK, classes=["foreground"], dataset="datasets/home", dataset_digest="",
        candidate="unet", input=policy, create_time=datetime.now(UTC), decoding=decoding,
    )  # fmt: skip

    def domain(part: str, most: int) -> Domain:
        rows = np.flatnonzero(images.parts == part)
        if len(rows) > most:
            rows = np.sort(np.random.default_rng(seed).permutation(rows)[:most])
        names = [str(row) for row in rows]
        truths = [_truth(images, int(row), policy) for row in rows]
        return Domain(f"datasets/{part}", prepared[rows], names, names, truths)

    model = TaskModel(package, graph, program)
    return Trained(model, domain("validation", 64), domain("test", 64), domain("shifted", arguments.images))


def _truth(images: segmentation.Images, row: int, policy: InputPolicy) -> ClassMap:
    height, width = images.pixels[row].shape[:2]
    return ClassMap(place(width, height, policy).plane_in(images.truths[row].labels, policy, IGNORED))


def iou(model: TaskModel, images: NDArray[Any], truths: Any) -> float:
    """Give the mean IoU by all labels."""
    return model.total(truths, model.answers(images))


def expected_loss(trained: Trained, second: TaskModel) -> dict[str, Any]:
    """Say what the model loses, and what confidences and a second network say without a label, as a measurement of the shift does; means over images."""
    model, domains = trained.model, (trained.home, trained.shifted)
    answers, sure = zip(*(model.judge(domain.images) for domain in domains), strict=True)
    right = [model.scores(domain.truths, found) for domain, found in zip(domains, answers, strict=True)]
    agreed = [model.scores(model.as_truths(found), second.answers(domain.images)) for domain, found in zip(domains, answers, strict=True)]
    home, shifted = ((model.shares(found), model.counts(found)) for found in answers)
    belief = believed(*home, *shifted)
    found = expect_loss(
        model.metric,
        sure[0],
        right[0],
        sure[1] * belief,
        right[1],
        Sides.of(*(domain.groups for domain in domains)),
        np.random.default_rng(0),
        seconded=(agreed[0], agreed[1] * belief),
    )
    if found is None:
        return {}
    told = {one.method: round(one.value, 3) for one in (found.expected, *found.others)}
    measured = None if found.measured is None else round(found.measured, 3)
    return {"measured": measured, **told, "not_believed": int((belief < 1).sum())}


def run(arguments: argparse.Namespace, seed: int) -> None:
    """Train, climb without labels, and judge all by labels."""
    trained = train(arguments, seed)
    model, shifted = trained.model, trained.shifted
    begun: dict[str, Any] = {
        "pair": arguments.pair,
        "seed": seed,
        "second": arguments.second,
        "seconds": arguments.seconds,
        "side": arguments.side,
    }
    nothing = iou(model, shifted.images, shifted.truths)
    at_home = iou(model, trained.test.images, trained.test.truths)
    second = None if arguments.second is None else train(arguments, arguments.second).model
    expected = {} if second is None else {"expected": expected_loss(trained, second)}
    print(json.dumps(begun | {"home": round(at_home, 4), "shifted": round(nothing, 4)} | expected), flush=True)
    if arguments.loss_only:
        return
    methods = {
        name: one for name, one in METHODS.items() if (one.kind == TRAINING_FREE or arguments.dear) and name not in arguments.without
    }
    truly: dict[int, float] = {}

    def seen(evidence: Evidence, translation: Translation | None, adapted: AdaptedModel | None) -> None:
        if not evidence.tried:
            return
        images = translate(translation, shifted.images) if translation is not None else shifted.images
        truly[id(evidence)] = iou(adapted.model if adapted else model, images, shifted.truths)

    blind = Domain(shifted.name, shifted.images, shifted.ids, shifted.groups)
    began = time.time()
    context = FitContext(seed=seed, deadline=began + arguments.budget)
    found: LadderResult = climb(
        model, blind, trained.home, methods=methods, adaptations=ADAPTATIONS, second=second, context=context, seen=seen
    )
    for one in found.evidence:
        line = {
            "way": one.candidate.label,
            "iou": round(truly.get(id(one), nothing), 4) if one.tried else None,
            "accepted": one.accepted,
        }
        figures = {name: round(value, 3) for name, value in one.figures.items()}
        score = {} if one.score is None else {"score": round(one.score.value, 4)}
        print(json.dumps(begun | line | score | figures | {"reason": one.reason}), flush=True)
    keeping = [one for one in found.evidence if id(one) in truly and not one.reason.startswith("rejected")]
    best = max(keeping, key=lambda one: truly[id(one)], default=None)
    best_iou = max(nothing, truly[id(best)]) if best else nothing
    chosen_iou = truly[id(found.choice)] if found.choice else nothing
    recoverable = best_iou - nothing
    summary = {
        "choice": found.choice.candidate.label if found.choice else "nothing",
        "iou": round(chosen_iou, 4),
        "gain": round(chosen_iou - nothing, 4),
        "best": best.candidate.label if best and best_iou > nothing else "nothing",
        "best_iou": round(best_iou, 4),
        "same": (found.choice is best) if best_iou > nothing else found.choice is None,
        "recovered": round((chosen_iou - nothing) / recoverable, 3) if recoverable > 0.01 else None,
        "not_worse": chosen_iou >= nothing - 0.01,
        "ladder_seconds": round(time.time() - began, 1),
        "reason": found.reason,
    }
    print(json.dumps(begun | summary), flush=True)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pair", choices=sorted(PAIRS))
    parser.add_argument("--seconds", type=float, default=120.0, help="of each training")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--budget", type=float, default=600.0, help="seconds of the ladder, judging by all labels among them")
    parser.add_argument("--second", type=int, help="seed of the second network; none is asked where this is not given")
    parser.add_argument("--loss-only", action="store_true", help="no ladder: the loss, and what was expected without labels")
    parser.add_argument("--images", type=int, default=64, help="shifted images")
    parser.add_argument("--side", type=int, default=128, help="of the model's input, pixels")
    parser.add_argument("--strength", default="", help="of augmentation in training; empty: automl's usual")
    parser.add_argument("--candidate", default="", help="network; empty: the task's first")
    parser.add_argument("--without", nargs="*", default=[], help="methods that are left out")
    parser.add_argument("--dear", action="store_true", help="style transfer and trained methods too")
    parser.add_argument("--keep", default="", help="folder for trained models")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for seed in arguments.seeds:
        run(arguments, seed)


if __name__ == "__main__":
    main()
