"""The augmentation that a person writes: a pool of processes, albumentations, OpenCV, JSON. A peer of `augment.py`.

In a module of its own, so that its processes start without loading Oteo's services.
"""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
warnings.filterwarnings("ignore", message="Got processor for bboxes")

import albumentations  # noqa: E402  (after what it reads)
import cv2  # noqa: E402

from oteo_core.images import encode_png  # noqa: E402

Steps = tuple[tuple[str, dict[str, Any]], ...]

FIXED = {"Affine": {"border_mode": cv2.BORDER_CONSTANT, "keep_ratio": True}, "GaussianBlur": {"blur_limit": 0}}
"""What Oteo's transforms set by themselves."""


@dataclass(frozen=True)
class PoolWork:
    """One image for a worker.

    Attributes
    ----------
    image, mask
        Files to read; mask "" where there is none.
    boxes
        x, y, width, height.
    steps
        The transforms.
    linear
        True: one output for each transform; False: `copies` outputs, each step with probability 0.5.
    copies
        Outputs, if not linear.
    goal
        Folder to write to.
    index
        Number of the image.
    """

    image: str
    mask: str
    boxes: tuple[tuple[float, float, float, float], ...]
    steps: Steps
    linear: bool
    copies: int
    goal: str
    index: int


_built: dict[str, list[albumentations.Compose]] = {}


def _pipelines(work: PoolWork) -> list[albumentations.Compose]:
    """Build the pipelines once a process."""
    key = repr((work.steps, work.linear, bool(work.mask)))
    if key not in _built:
        cv2.setNumThreads(1)
        parts = [[step] for step in work.steps] if work.linear else [list(work.steps)]
        boxes = None if work.mask else albumentations.BboxParams(format="coco", label_fields=["labels"], min_visibility=0.1, clip=True)
        _built[key] = [
            albumentations.Compose(
                [getattr(albumentations, n)(**given, **FIXED.get(n, {}), p=1.0 if work.linear else 0.5) for n, given in part],
                bbox_params=boxes,
            )
            for part in parts
        ]
    return _built[key]


def one(work: PoolWork) -> list[dict[str, Any]]:
    """Read, decode, augment, encode and write one image's copies; give their annotations."""
    pipelines = _pipelines(work)
    pixels = cv2.cvtColor(cv2.imread(work.image, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    mask = cv2.imread(work.mask, cv2.IMREAD_UNCHANGED) if work.mask else None
    made = []
    for copy, pipeline in enumerate(pipelines if work.linear else pipelines * work.copies):
        path = f"{work.goal}/{work.index:05}-{copy}.png"
        if mask is None:
            out = pipeline(image=pixels, bboxes=work.boxes, labels=["cell"] * len(work.boxes))
            made.append({"image": path, "boxes": [list(map(float, box)) for box in out["bboxes"]]})
        else:
            out = pipeline(image=pixels, mask=mask)
            _write(f"{path[:-4]}-mask.png", out["mask"])
            made.append({"image": path, "mask": f"{path[:-4]}-mask.png"})
        _write(path, out["image"])
    return made


def _write(path: str, pixels: Any) -> None:
    # The same encoding as ours: the bar asks for it.
    Path(path).write_bytes(encode_png(pixels))


def run(pool: Any, work: list[PoolWork]) -> int:
    """Do all of it; give the number of images written."""
    goal = Path(work[0].goal)
    goal.mkdir()
    found = [item for part in pool.imap(one, work, chunksize=4) for item in part]
    (goal / "annotations.json").write_text(json.dumps(found))
    return len(found)
