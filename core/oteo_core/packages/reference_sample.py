"""``reference.npz``: the training images' own statistics, to test a stream of images against; a few dozen numbers an image, no pixel.

Packages of earlier releases have the statistics alone, or no such file; what is missing is then not compared.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import NotFound
from oteo_core.evaluation.bootstrap import Floats, encode_groups
from oteo_core.packages.manifest import ModelPackage
from oteo_core.shift.home import Home

REFERENCE = "reference.npz"


@dataclass(frozen=True)
class ReferenceSample:
    """What a package keeps of single images of the training domain.

    Parameters
    ----------
    names
        Of the D statistics.
    statistics
        ``(N, D)`` of training images.
    groups
        ``(N,)`` number of each image's patient, study or slide; empty: not known.
    truths
        ``(N, K)`` bool: classes of the same images; None: not known.
    answers
        ``(M, K)`` bool: classes that the model found on held-out images; None: not known.
    answer_groups
        ``(M,)`` their groups.
    """

    names: tuple[str, ...]
    statistics: Floats
    groups: NDArray[np.int64]
    truths: NDArray[np.bool_] | None = None
    answers: NDArray[np.bool_] | None = None
    answer_groups: NDArray[np.int64] | None = None

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        statistics: Floats,
        groups: Sequence[str] = (),
        truths: NDArray[np.bool_] | None = None,
        answers: NDArray[np.bool_] | None = None,
        answer_groups: Sequence[str] = (),
    ) -> ReferenceSample:
        """Take groups by name; an empty one is a group of its own. Names are not kept."""
        numbered = encode_groups(groups or None, len(statistics)) if len(statistics) else np.zeros(0, dtype=np.int64)
        of_answers = encode_groups(answer_groups or None, len(answers)) if answers is not None and len(answers) else None
        return cls(tuple(names), statistics, numbered, truths, answers if of_answers is not None else None, of_answers)

    def to_npz(self) -> bytes:
        """Give the file."""
        parts: dict[str, NDArray[np.generic]] = {
            "statistics": self.statistics.astype(np.float32),
            "names": np.array(self.names, dtype=np.str_),
            "groups": self.groups,
        }
        for name in ("truths", "answers", "answer_groups"):
            value = getattr(self, name)
            if value is not None:
                parts[name] = value
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **parts)  # type: ignore[arg-type]
        return buffer.getvalue()

    @classmethod
    def from_npz(cls, data: bytes) -> ReferenceSample:
        """Read the file; pickled objects are refused.

        Raises
        ------
        ValueError
            It is none.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise ValueError(f"{REFERENCE} cannot be read: {error}") from error
        statistics = found["statistics"].astype(np.float64)
        return cls(
            tuple(str(name) for name in found["names"]),
            statistics,
            found.get("groups", np.arange(len(statistics))),
            found.get("truths"),
            found.get("answers"),
            found.get("answer_groups"),
        )


def training_domain(store: ArtifactStore, package: ModelPackage) -> Home | None:
    """Give what a model's stream is compared with: its sample, else the summary in its manifest; None where it has neither."""
    try:
        sample = ReferenceSample.from_npz(store.read_bytes(f"models/{package.id}/{REFERENCE}"))
    except (NotFound, ValueError, KeyError):
        sample = None
    if sample is None or not len(sample.statistics):
        return Home.of_summary(package.reference) if package.reference is not None else None
    known = sample.answers is not None and sample.answers.shape[1] == len(package.classes)
    return Home.of_sample(
        sample.names,
        sample.statistics,
        sample.groups.tolist(),
        classes=package.classes if known else (),
        truths=sample.truths if sample.truths is not None and sample.truths.shape[1] == len(package.classes) else None,
        answers=sample.answers if known else None,
        answer_groups=sample.answer_groups.tolist() if known and sample.answer_groups is not None else None,
    )
