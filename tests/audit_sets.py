"""Small drawn datasets with faults planted in them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from oteo_augment.auditing import AuditHooks, AuditOutcome, AuditPlan, audit_dataset, choose
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetInfo, DatasetWriter, MaskEncoding, Sample
from oteo_core.images import ImageLimits, encode_png, perceptual_hash, pixel_digest

SPLITS = ("train", "train", "train", "validation", "test")


def scene(kind: int, seed: int, size: int = 64) -> np.ndarray:
    """Draw a cloudy picture with one disc (kind 0), three bars (1) or a ring of dots (2); (size, size, 3) uint8."""
    rng = np.random.default_rng([kind, seed])
    picture = cv2.resize(rng.integers(70, 170, (5, 5, 3), dtype=np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
    x, y = (int(v) for v in rng.integers(size // 3, 2 * size // 3, 2))
    if kind == 0:
        cv2.circle(picture, (x, y), size // 4, (230, 60, 60), -1)
    elif kind == 1:
        for step in (-1, 0, 1):
            cv2.line(picture, (x - 14, y + 9 * step), (x + 14, y + 9 * step), (60, 60, 230), 3)
    else:
        for turn in np.linspace(0, 2 * np.pi, 7)[:-1]:
            cv2.circle(picture, (x + int(16 * np.cos(turn)), y + int(16 * np.sin(turn))), 3, (60, 230, 60), -1)
    return np.clip(picture.astype(int) + rng.integers(-6, 7, picture.shape), 0, 254).astype(np.uint8)


def row(name: str, pixels: np.ndarray, **fields: Any) -> tuple[Sample, bytes]:
    """Give a sample and its file; the file's place is filled in by `write`."""
    data = encode_png(pixels)
    height, width, channels = pixels.shape
    sample = Sample(
        id=name,
        source_path=f"in/{name}.png",
        sha256=hashlib.sha256(data).hexdigest(),
        pixel_digest=pixel_digest(pixels),
        phash=perceptual_hash(pixels),
        width=width,
        height=height,
        channels=channels,
        dtype=pixels.dtype.name,
    )
    return replace(sample, **fields), data


def scenes(classes: int = 3, each: int = 20) -> dict[str, tuple[Sample, bytes]]:
    """Give a dataset without faults, by id: `c0-00` is the first of class `c0`; every five make train, train, train, validation, test."""
    made = {}
    for kind in range(classes):
        for number in range(each):
            name = f"c{kind}-{number:02d}"
            made[name] = row(name, scene(kind, number), labels=(f"c{kind}",), split=SPLITS[number % 5])
    return made


def write(
    store: ArtifactStore,
    name: str,
    rows: Sequence[tuple[Sample, bytes]],
    *,
    task: str = "classification",
    classes: Sequence[str] = ("c0", "c1", "c2"),
    mask: MaskEncoding | None = None,
    masks: dict[str, bytes] | None = None,
) -> DatasetInfo:
    """Write a dataset."""
    with DatasetWriter(store, f"datasets/{name}", DatasetInfo(name, task=task, classes=tuple(classes), mask=mask)) as writer:
        for sample, data in rows:
            path = "" if sample.excluded else writer.add_media(f"{sample.id}.png", data)
            mask_path = writer.add_media("mask.png", masks[sample.id]) if masks and sample.id in masks else ""
            writer.add(replace(sample, path=path, mask_path=mask_path))
        return writer.finish()


def audit(store: ArtifactStore, name: str, *checks: str, hooks: AuditHooks | None = None) -> AuditOutcome:
    """Audit a dataset in this process."""
    plan = AuditPlan(name, choose(checks), operation="operations/augment-test", create_time="2026-01-02T03:04:05+00:00")
    return audit_dataset(store, plan, limits=ImageLimits(), hooks=hooks)


def codes(outcome: AuditOutcome) -> dict[str, list[str]]:
    """Give the samples of each code's findings, sorted."""
    found: dict[str, set[str]] = {}
    for finding in outcome.findings:
        found.setdefault(finding.code, set()).update(finding.samples)
    return {code: sorted(names) for code, names in found.items()}
