"""What starts jobs and knows how they fare."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from oteo_core.jobs.resources import Resources

NOTHING = Resources()
"""What a job takes that only waits for its tasks."""


class JobState(enum.Enum):
    """How a job fares, as far as the runner knows."""

    UNKNOWN = "unknown"
    """The runner has no record of it: it never came, or the record was lost with the runner."""
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    """The process ended with status 0."""
    FAILED = "failed"
    """The process ended otherwise, or was lost."""
    STOPPED = "stopped"
    """It was stopped on request."""

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED)


class JobRunner(ABC):
    """Starts one process per attempt of an operation.

    An attempt is named by the operation's id and the attempt's number. A runner may lose its memory at any time: its
    answers are hints, the operation's row and its files are the truth. Methods may be called from several threads. Each
    raises `Unavailable` (``JOB_RUNNER_UNAVAILABLE``) within some ten seconds where whatever runs the jobs does not answer.
    """

    @abstractmethod
    def submit(
        self, operation_id: str, attempt: int, entrypoint: Sequence[str], env: Mapping[str, str], resources: Resources = NOTHING
    ) -> None:
        """Start an attempt's process; nothing happens where this attempt was submitted before.

        Parameters
        ----------
        operation_id, attempt
            Which.
        entrypoint
            The command and its arguments.
        env
            Added to the environment that jobs have there.
        resources
            What the process itself takes of one node; it waits until so much is free, and for ever where no node has it (`place`).
        """

    @abstractmethod
    def nodes(self) -> Sequence[Resources]:
        """Give what each node has for jobs in all, whether it is free or not, those among them that come when they are wanted."""

    @abstractmethod
    def status(self, operation_id: str, attempt: int) -> JobState:
        """Say how an attempt fares; `JobState.UNKNOWN` where there is no record of it."""

    @abstractmethod
    def stop(self, operation_id: str, attempt: int) -> None:
        """Ask for an attempt's end: SIGTERM, then SIGKILL to the process and its children; does not wait.

        Nothing happens where it has ended or is not known.
        """

    @abstractmethod
    def logs(self, operation_id: str, attempt: int) -> str:
        """Give what an attempt has written to its standard output and error; empty where there is no record."""
