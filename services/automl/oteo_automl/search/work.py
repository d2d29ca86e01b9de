"""What a search does, as its loop sees it: entries that can be tried, and pieces that run in workers. One implementation a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from oteo_automl.candidates.training import Recipe
from oteo_automl.search.checkpoints import Checkpoints
from oteo_automl.search.pieces import PieceResult
from oteo_automl.search.probe import Probe
from oteo_automl.search.proposals import SEARCHED
from oteo_automl.search.result import Plan
from oteo_automl.search.trial import Trial
from oteo_core.jobs.executor import Executor, Task

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Entry:
    """A candidate of a search.

    Parameters
    ----------
    name
        As users and reports call it.
    cheap
        True where it is fitted at once; False where it is trained by epochs.
    shares
        For cheap ones: name of what several have in common and only the first computes, such as features.
    model
        For networks: what learning rates and speeds are remembered by.
    """

    name: str
    cheap: bool = False
    shares: str = ""
    model: str = ""


class Work(ABC, Generic[R]):
    """A task's part in a search. Used in the process of the loop alone; what it submits runs in workers.

    Pieces are idempotent: a piece whose result lies among the checkpoints gives it at once. They are submitted without retries: the loop itself
    decides what a death means (Ray would try one that its memory watch killed for ever).

    Attributes
    ----------
    entries
        What may be tried, the baseline first.
    objective
        A name of `PieceResult.scores`, by which trials are compared.
    checkpoints
        Where pieces leave what they have done.
    seed
        Of every draw.
    train_count, held_out_count
        Samples that are learnt from and compared on.
    images_wanted
        Images that a network from scratch sees before more of the same hardly helps.
    most_epochs
        Whatever the time.
    whole_share
        Part of the budget that one network trained to its end may take.
    partners
        Networks beside the best that are worth training to their end, because they may be mixed with it.
    other_folds
        Numbers of the folds beside the first on which the best network is trained too where time is left; empty: none.
    gpu_share
        Part of a GPU that a training takes; 0: none.
    strengths
        Augmentations that proposals choose from, by name.
    searched
        Fields of recipes that proposals vary: those that this task's lessons read.
    """

    entries: Sequence[Entry]
    objective: str
    checkpoints: Checkpoints
    seed: int
    train_count: int
    held_out_count: int
    images_wanted: int = 12_000
    most_epochs: int = 80
    whole_share: float = 0.5
    partners: int = 0
    other_folds: Sequence[int] = ()
    gpu_share: float = 0.0
    strengths: tuple[str, ...] = ("light", "strong", "turned")
    searched: tuple[str, ...] = SEARCHED

    def entry(self, name: str) -> Entry:
        """Give an entry by name.

        Raises
        ------
        KeyError
            There is none.
        """
        for one in self.entries:
            if one.name == name:
                return one
        raise KeyError(name)

    def fit(self, executor: Executor, trial: str, entry: Entry, seconds: float, deadline: float) -> Task[PieceResult]:
        """Begin a cheap entry's only piece; it searches for so many `seconds` and ends by `deadline`, seconds since 1970, as nearly as it can."""
        raise LookupError(f"{entry.name} is not fitted at once")

    @abstractmethod
    def train(
        self, executor: Executor, trial: str, rung: int, entry: Entry, recipe: Recipe, target: int, total: int, deadline: float
    ) -> Task[PieceResult]:
        """Begin a training up to epoch `target` of `total`; it goes on from the trial's last state and ends by `deadline`."""

    def train_fold(
        self, executor: Executor, trial: str, fold: int, entry: Entry, recipe: Recipe, epochs: int, deadline: float
    ) -> Task[PieceResult]:
        """Begin a whole training that holds out another fold than the first; the trial's name is not that of another fold's."""
        raise LookupError(f"{entry.name} is not trained on other folds")

    def probe(self, executor: Executor, entry: Entry, recipe: Recipe, deadline: float) -> Task[Probe] | None:
        """Begin to measure steps of a network's training by `oteo_automl.search.probe.measure`; None: it cannot be measured."""
        return None

    @abstractmethod
    def pretrained(self, entry: Entry) -> bool:
        """Say whether there are weights for it to begin from."""

    @abstractmethod
    def recipe(self, entry: Entry) -> Recipe:
        """Give the recipe that is tried first."""

    @abstractmethod
    def base_rate(self, entry: Entry) -> float:
        """Give the learning rate that proposals vary."""

    @abstractmethod
    def cost(self, entry: Entry) -> float:
        """Guess seconds of an epoch on this machine; what counts are ratios once anything was measured."""

    @abstractmethod
    def result(self, trials: list[Trial], plan: Plan, seconds: float) -> R:
        """Choose the winner and load what is handed over; a trial that is made here (a blend) is added to `trials`."""
