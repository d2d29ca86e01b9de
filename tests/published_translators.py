"""A translator as translate publishes it, fitted on drawn cells, without the ladder."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from oteo_core.artifacts import ArtifactStore
from oteo_core.graphs.modules import dump_module
from oteo_core.images import InputPolicy
from oteo_core.packages import PackageFile
from oteo_core.packages.translators import TRANSLATION, TRANSLATOR_MANIFEST, TranslatorPackage
from oteo_core.sampledata import draw_cell
from oteo_translate.domains import Domain
from oteo_translate.methods.base import METHODS, FitContext


def cells(count: int, *, size: int = 48, gain: float = 1.0, first: int = 0) -> np.ndarray:
    """Draw cells ``(N, size, size, 3)`` uint8, darker where `gain` is below 1."""
    drawn = np.stack([draw_cell(first + index, size=size)[0] for index in range(count)])
    return np.rint(drawn * gain).astype(np.uint8)


def domain(name: str, images: np.ndarray) -> Domain:
    """Give images as a domain, each its own group."""
    ids = [f"{name}-{index}" for index in range(len(images))]
    return Domain(name, images, ids, ids)


def publish(store: ArtifactStore, name: str = "lighter", *, accepted: bool = True, **changes: object) -> TranslatorPackage:
    """Publish ``translators/{name}``: it makes cells of six tenths of the light as light as they were."""
    home, shifted = domain("datasets/home", cells(8)), domain("datasets/dark", cells(8, gain=0.6, first=100))
    translation = METHODS["moments"].fit(shifted, home, {"scope": "domain"}, FitContext())
    data = dump_module(translation)
    package = TranslatorPackage(
        id=name,
        display_name=name,
        uid=hashlib.sha256(name.encode()).hexdigest()[:32],
        model="models/judge",
        model_digest="0" * 64,
        home_dataset="datasets/home",
        shifted_dataset="datasets/dark",
        method="moments",
        accepted=accepted,
        reason="the model is right again" if accepted else "the model is no better",
        input=InputPolicy(width=48, height=48, channels=3),
        create_time=datetime.now(UTC),
        files={TRANSLATION: PackageFile(hashlib.sha256(data).hexdigest(), len(data))},
        digest=hashlib.sha256(data).hexdigest(),
    )
    package = replace(package, **changes)
    store.write_bytes(f"{package.name}/{TRANSLATION}", data)
    store.write_bytes(f"{package.name}/{TRANSLATOR_MANIFEST}", package.to_json())
    return package
