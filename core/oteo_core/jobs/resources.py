"""What a job's own process takes of a node, and where it can have it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

AUTO: Final = "auto"
"""As many GPUs as the work is known to profit from without being told: one, where any node has one."""

VARIABLE = "OTEO_JOB_PLACING"
"""Environment variable by which a job is told its `Placing`."""


@dataclass(frozen=True, slots=True)
class Resources:
    """CPUs and GPUs: of a node, or taken of one.

    Parameters
    ----------
    cpus, gpus
        How many; 0 or more.
    """

    cpus: float = 0.0
    gpus: int = 0

    def __str__(self) -> str:
        """Say them in words, such as ``1 CPU and 2 GPUs``."""
        parts = [f"{count:g} {kind}{'' if count == 1 else 's'}" for count, kind in ((self.cpus, "CPU"), (self.gpus, "GPU")) if count]
        return " and ".join(parts) or "nothing"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a method's jobs ask for.

    Parameters
    ----------
    cpus
        CPUs that the process itself works with, beside the tasks that it starts.
    gpus
        GPUs of one node; `AUTO`.
    """

    cpus: float = 0.0
    gpus: int | Literal["auto"] = 0


@dataclass(frozen=True, slots=True)
class Placing:
    """What a job was submitted with.

    Parameters
    ----------
    resources
        What its process takes.
    note
        Why that is less than what was asked for; empty where it is not.
    """

    resources: Resources
    note: str = ""

    def environment(self) -> dict[str, str]:
        """Give the variables by which the job is told."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> Placing | None:
        """Read what this process was submitted with; None where nobody asked for anything."""
        if VARIABLE not in variables:
            return None
        told = json.loads(variables[VARIABLE])
        return cls(Resources(**told["resources"]), told["note"])


def place(wanted: Wanted, nodes: Sequence[Resources]) -> Placing:
    """Choose what a job can have on one node, so that it waits for its turn at most, and never for what no node has.

    Parameters
    ----------
    wanted
        What is asked for.
    nodes
        All that each node has, whether it is free or not, and those that can still come.

    Returns
    -------
    Placing
        As asked for where one node has it; else the CPUs with as many GPUs as a node has beside them; without CPUs where no node gives any to jobs.
    """
    gpus = 1 if wanted.gpus == AUTO else wanted.gpus
    roomy = [node for node in nodes if node.cpus >= wanted.cpus]
    most = max((node.gpus for node in roomy or nodes), default=0)
    notes = []
    if not roomy:
        notes.append(f"no node has {Resources(wanted.cpus)} for jobs")
    if most < gpus and wanted.gpus != AUTO:
        notes.append(f"{Resources(gpus=gpus)} of one node asked for, and none has more than {most}")
    return Placing(Resources(wanted.cpus if roomy else 0.0, min(gpus, most)), "; ".join(notes))
