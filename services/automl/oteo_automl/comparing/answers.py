"""What published models said of the same test images, and what is true of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_automl.predictions.formats import NAMES, read_predictions
from oteo_automl.predictions.records import CLASSES, PredictionSet
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader, Sample
from oteo_core.errors import NotFound, OteoError
from oteo_core.evaluation.bootstrap import Ints, encode_groups, generator
from oteo_core.packages import ModelPackage, model_prefix

MOST_MASKS = 400
"""Images of which masks are read, at most: whoever asks is waiting."""


@dataclass(slots=True)
class Shared:
    """The images that all models answered.

    Parameters
    ----------
    ids
        Their N samples.
    groups
        ``(N,)`` group numbers from 0.
    truths
        One for each: class numbers (classification), ``(K,)`` bool (multi-label), or the task's form; in the first model's class numbers.
    answers
        For each model, one for each image, in the same class numbers.
    drawn_from
        Images that there were; more than N where not all were looked at.
    """

    ids: list[str]
    groups: Ints
    truths: list[Any]
    answers: list[list[Any]]
    drawn_from: int


def find_shared(
    store: ArtifactStore, packages: Sequence[ModelPackage], *, seed: int = 0, check: Callable[[], None] = lambda: None
) -> Shared | str:
    """Find the test images that all models answered, with truths.

    Parameters
    ----------
    store
        Where models and datasets lie.
    packages
        Of one task, with the same classes in any order.
    seed
        Chooses the images where there are too many masks.
    check
        Called between images; may raise.

    Returns
    -------
    Shared or str
        Why there is none, in words.
    """
    first = packages[0]
    if len({package.dataset_digest for package in packages}) > 1:
        listed = ", ".join(sorted({package.dataset_name or package.dataset for package in packages}))
        return f"they were tested on different data ({listed}, or states of it that differ)"
    sets = []
    for package in packages:
        try:
            sets.append(read_predictions(store.read_bytes, f"{model_prefix(package.id)}/{NAMES['csv']}", classes=first.classes))
        except NotFound:
            return f"{package.name} keeps no predictions of its test images"
    placed = [{image.sample: place for place, image in enumerate(one.images)} for one in sets]
    ids = [image.sample for image in sets[0].images if all(image.sample in places for places in placed)]
    if not ids:
        return "they were tested on different images of the same dataset"
    drawn_from = len(ids)
    if first.task in CLASSES:
        truths = _written_truths(sets[0], [placed[0][name] for name in ids], first)
        if truths is None:
            return f"{first.name} keeps predictions without truths"
    else:
        # Boxes are in the table of samples; masks are files.
        most = MOST_MASKS if first.task != "detection" else 20 * MOST_MASKS
        if len(ids) > most:
            kept = np.sort(generator(seed, "compare-images").permutation(len(ids))[:most])
            ids = [ids[int(place)] for place in kept]
        try:
            truths = _dataset_truths(store, first, ids, check)
        except OteoError as error:
            return f"the truths cannot be read any more: {error.message}"
    records = [sets[0].images[placed[0][name]] for name in ids]
    return Shared(
        ids=ids,
        groups=encode_groups([record.group for record in records], len(ids)),
        truths=truths,
        answers=[[one.answers[places[name]] for name in ids] for one, places in zip(sets, placed, strict=True)],
        drawn_from=drawn_from,
    )


def _written_truths(written: PredictionSet, places: Sequence[int], package: ModelPackage) -> list[Any] | None:
    if not written.truths:
        return None
    numbers = {name: number for number, name in enumerate(package.classes)}
    truths: list[Any] = []
    for place in places:
        names = written.truths[place]
        if package.task == "classification":
            if len(names) != 1 or names[0] not in numbers:
                return None
            truths.append(numbers[names[0]])
        else:
            row: NDArray[np.bool_] = np.zeros(len(numbers), dtype=np.bool_)
            row[[numbers[name] for name in names if name in numbers]] = True
            truths.append(row)
    return truths


def _dataset_truths(store: ArtifactStore, package: ModelPackage, ids: Sequence[str], check: Callable[[], None]) -> list[Any]:
    # Drawing truths is the dense tasks' own code, which loads PyTorch: only where it is needed.
    from oteo_automl.judging.judges import find_judge

    reader = DatasetReader(store, package.dataset.removeprefix("datasets/"))
    if reader.info.digest != package.dataset_digest:
        raise NotFound(f"{package.dataset} is not what it was when the models were made", reason="DATASET_CHANGED")
    wanted = set(ids)
    samples: dict[str, Sample] = {sample.id: sample for sample in reader.samples() if sample.id in wanted}
    missing = wanted - set(samples)
    if missing:
        raise NotFound(f"{package.dataset} has no sample {min(missing)} any more", reason="SAMPLE_NOT_FOUND")
    judge = find_judge(package)
    truths = []
    for name in ids:
        check()
        truths.append(judge.truth(reader, samples[name]))
    return truths
