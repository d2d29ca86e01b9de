"""The frozen model as a judge of what was done to shifted images: by labels where there are some, else by its own steadiness, certainty and familiarity.

Without labels three things are looked at, each of which can be had wrongly right alone: *agreement*, how alike the model answers to other views of an image
(mirrored, turned, lighter, darker); *confidence*, the score that an answer would have if its calibrated probabilities were true; and *familiarity*, one less
the distance of the images to home in the model's own embedding. The criterion is their weighted mean. A model that finds nothing at all is steady and sure of it,
and so is one that takes the whole image for what it seeks: an answer without any object is believed as far as home has such images, and one that fills more than halfway
from the fullest answer at home to all of the image is not believed.

All three are the model's own word. Where its package has a second network, that is asked too, and never adapted: two networks agree where both are right, and each is
wrong in its own way (`oteo_core.packages.second` has the sources). It is shown the images as they are and as the way gives them, since neither tells alone. Of images
that were brought nearer to home two networks agree more, rightly or wrongly; and with what it says of the images as they are a model agrees less that no longer makes
the same mistakes. What lowers the mean of both is not recommended.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.evaluation.bootstrap import Floats, Interval, Ints, bootstrap, encode_groups, generator, percentile_interval
from oteo_core.evaluation.resampled import affordable
from oteo_core.evaluation.statistics import holm
from oteo_translate.domains import Domain
from oteo_translate.ladder.distance import Distances, HomeDistance
from oteo_translate.measures.home import HomeMeasures
from oteo_translate.tasks.believing import fullest
from oteo_translate.tasks.model import TaskModel

AGREEMENT, CONFIDENCE, FAMILIARITY = 0.6, 0.3, 0.1
"""Weights of the three; agreement told the better of two ways most often, see `benchmarks/translate.py`;
familiarity least: images can be brought as near as one likes without being understood."""

SLACK = 0.01
"""What each of the three may lose."""

RESAMPLES = 4000

HOME_SOUGHT = 64
"""Home images in which it is counted how often the model finds nothing, and how much of an image it finds at most."""

MEASURED = 16
"""Judged images whose distance to home is told where labels judge: embeddings are not asked for there otherwise."""

_FARTHEST = math.sqrt(2.0)


@dataclass(slots=True)
class Look:
    """What the judge saw of one way.

    Parameters
    ----------
    answers
        To the judged images, after it.
    confidence
        Of each image, ``(N,)``.
    agreement, distances
        With other views, ``(N,)``; to home, as a function of the images' weights. None where labels judge: they are not asked then, and cost most.
    figure
        The task's main figure by labels, as a function of the weights of the labelled images; None without labels.
    seconded
        Agreement of the answers with those of the second network, ``(N,)``: the mean of what it says of the images as they are and as the way gives them. None
        where there is none, and with labels.
    to_home
        KID and FID of what the frozen model sees, by `oteo_translate.measures.home.HomeMeasures`: for people, nothing is chosen by it. Empty of an adapted
        model: figures of two encoders do not compare.
    """

    answers: list[Any]
    confidence: Floats
    agreement: Floats | None
    distances: Distances | None
    figure: Callable[[Floats], Floats] | None
    seconded: Floats | None = None
    to_home: Mapping[str, float] = field(default_factory=dict)

    def criterion(self, weights: Floats) -> Floats:
        """Give the label-free criterion ``(B,)`` for weights of the images ``(B, N)``; 0 to 1."""
        if self.agreement is None or self.distances is None:
            raise ValueError("judged by labels")
        shares = weights / weights.sum(axis=1, keepdims=True)
        familiar = 1.0 - self.distances.score(weights) / _FARTHEST
        return np.asarray(AGREEMENT * (shares @ self.agreement) + CONFIDENCE * (shares @ self.confidence) + FAMILIARITY * familiar)

    def contradiction(self, nothing: Look) -> str:
        """Say which of the three speaks against a way that the criterion likes; empty where none does."""
        mine, theirs = self.figures(), nothing.figures()
        if mine["agreement"] < theirs["agreement"] - SLACK:
            return "the model's answers to other views of an image agree less than without it"
        if mine["confidence"] < theirs["confidence"] - SLACK:
            return "the model is less sure of its answers than without it"
        return "the images are farther from home, as the model sees them, than without it" if self.is_farther(nothing) else ""

    def is_farther(self, nothing: Look) -> bool:
        """Say whether the images are farther from home than without the way, by more than may be."""
        return self.figures()["distance"] > nothing.figures()["distance"] + SLACK

    def disowned(self, nothing: Look) -> str:
        """Say that the second network speaks against a way; empty where it does not, or where there is none."""
        if self.seconded is None or nothing.seconded is None:
            return ""
        mine, theirs = float(self.seconded.mean()), float(nothing.seconded.mean())
        if mine >= theirs:
            return ""
        return f"a second network that was trained on the same images agrees less with the model's answers than without it ({mine:.2f}, without {theirs:.2f})"

    def figures(self) -> dict[str, float]:
        """Give the parts of the criterion, over all images, and the distances to home that are told beside it."""
        found = {"confidence": float(self.confidence.mean()), **self.to_home}
        if self.seconded is not None:
            found["second_agreement"] = float(self.seconded.mean())
        if self.agreement is not None and self.distances is not None:
            ones = np.ones((1, len(self.agreement)))
            found |= {"agreement": float(self.agreement.mean()), "distance": float(self.distances.score(ones)[0])}
        return found


@dataclass(frozen=True, slots=True)
class Gain:
    """What a way gained over doing nothing, on the same images.

    Parameters
    ----------
    score, nothing
        Of the way and of doing nothing.
    score_interval, interval
        Of the score, and of the difference; None where it is not defined often enough.
    p_value
        One-sided, that it is no better than nothing; corrected by Holm for all ways that were tried.
    """

    score: float
    nothing: float
    score_interval: Interval | None
    interval: Interval | None
    p_value: float

    @property
    def value(self) -> float:
        """The difference."""
        return self.score - self.nothing


class Judge:
    """Looks at what ways make of the same shifted images.

    Parameters
    ----------
    model
        Frozen.
    shifted
        The judged images. Where some have truths, they alone are judged on, unless they are fewer than `LEAST_LABELLED`.
    home
        What the model knows; held-out images are best, as it is too sure of those that it was trained on.
    second
        Another network of the same training; None: there is none.
    seed
        Of resamples.
    check
        Raises where the job is to stop.
    """

    LEAST_LABELLED = 4

    def __init__(
        self,
        model: TaskModel,
        shifted: Domain,
        home: Domain,
        *,
        second: TaskModel | None = None,
        seed: int = 0,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.model, self.shifted, self.seed, self._check = model, shifted, seed, check
        labelled = [row for row, truth in enumerate(shifted.truths) if truth is not None]
        self.labelled: Ints = np.array(labelled if len(labelled) >= self.LEAST_LABELLED else [], dtype=np.int64)
        self.groups = encode_groups(shifted.groups, len(shifted))
        known = model.embeddings(home.images)
        self.distance, self.measures = HomeDistance(known), HomeMeasures(known, home.groups, seed=seed)
        self.measured: Ints = np.unique(np.linspace(0, len(shifted) - 1, min(MEASURED, len(shifted))).round().astype(np.int64))
        self.empty_at_home, self.full = 1.0, 1.0
        if not model.task.endswith("classification"):
            answers = model.answers(home.images[:HOME_SOUGHT])
            self.empty_at_home = float((model.counts(answers) == 0).mean())
            self.full = fullest(model.shares(answers))
        self.second = None if self.by_labels else second
        self.second_answers = [] if self.second is None else self.second.answers(shifted.images)
        self.p_same = self.distance.differs(model.embeddings(shifted.images), self.groups, seed=seed)

    @property
    def by_labels(self) -> bool:
        """Whether there are labels enough to judge by."""
        return len(self.labelled) > 0

    def look(self, model: TaskModel, images: NDArray[Any]) -> Look:
        """Look at the judged images after a way.

        Parameters
        ----------
        model
            The frozen one, or an adapted one.
        images
            The judged images, translated or not, ``(N, H, W, C)``.
        """
        self._check()
        answers, sure = model.judge(images)
        figure = None
        if self.by_labels:
            rows = self.labelled.tolist()
            figure = model.figure([self.shifted.truths[row] for row in rows], [answers[row] for row in rows])
            to_home = self._to_home(model.embeddings(images[self.measured]), self.measured) if model is self.model else {}
            return Look(answers, sure, None, None, figure, to_home=to_home)
        self._check()
        steady = model.agreements(images, answers)
        seconded = None
        if self.second is not None:
            seconded = model.alike(answers, self.second_answers)
            if images is not self.shifted.images:
                seconded = (seconded + model.alike(answers, self.second.answers(images))) / 2
        if not model.task.endswith("classification"):
            believed = np.where(model.counts(answers) == 0, self.empty_at_home, 1.0) * (model.shares(answers) <= self.full)
            steady, sure = steady * believed, sure * believed
            seconded = None if seconded is None else seconded * believed
        self._check()
        # Adapted normalisations bring shifted images into the space that home lies in: that is what they are for, and what is measured.
        seen = model.embeddings(images)
        to_home = self._to_home(seen, np.arange(len(images))) if model is self.model else {}
        return Look(answers, sure, steady, self.distance.of(seen), figure, seconded, to_home)

    def _to_home(self, embeddings: NDArray[np.float32], rows: Ints) -> dict[str, float]:
        return self.measures.of(embeddings, [int(number) for number in self.groups[rows]])

    def gains(self, nothing: Look, looks: Sequence[Look]) -> list[Gain]:
        """Compare ways with doing nothing, all on the same resamples of whole groups."""
        if not looks:
            return []
        rows = self.labelled if self.by_labels else np.arange(len(self.shifted))
        everything = [nothing, *looks]
        scores = [look.figure if look.figure is not None else look.criterion for look in everything]

        def together(weights: Floats) -> Floats:
            return np.stack([score(weights) for score in scores], axis=1)

        groups = encode_groups([int(number) for number in self.groups[rows]], len(rows))
        values = together(np.ones((1, len(rows))))[0]
        resamples = affordable(RESAMPLES, len(rows) * len(scores)) if self.by_labels else RESAMPLES
        drawn = bootstrap(together, groups, generator(self.seed, "ladder"), resamples)
        gaps = drawn[:, 1:] - drawn[:, :1]
        raw = [(1.0 + float((gaps[:, place] <= 0).sum())) / (len(gaps) + 1.0) for place in range(len(looks))]
        alone = int(groups.max()) < 1
        return [
            Gain(
                float(values[place + 1]),
                float(values[0]),
                None if alone else percentile_interval(drawn[:, place + 1]),
                None if alone else percentile_interval(gaps[:, place]),
                1.0 if alone else corrected,
            )
            for place, corrected in enumerate(holm(raw))
        ]
