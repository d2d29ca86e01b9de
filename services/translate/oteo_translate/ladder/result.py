"""What a climb of the ladder found: evidence of every way that was tried, and the choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from oteo_core.packages import MetricValue
from oteo_core.packages.translators import IMAGE, MODEL, MethodRecord
from oteo_translate.adaptation.base import AdaptedModel
from oteo_translate.measures.home import distances_of
from oteo_translate.methods.base import Translation

NOTHING = "nothing"
"""The frozen model on the images as they are."""

WITH_LABELS, LABEL_FREE = "labels", "label-free"
"""What a verdict stands on."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to try: a translation, an adaptation, or an adaptation to translated images.

    Parameters
    ----------
    method, parameters
        Of `METHODS`; empty: images stay as they are.
    adaptation, settings
        Of `ADAPTATIONS`; empty: the model stays as it is.
    """

    method: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    adaptation: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``"fda"``, ``"adabn"``, ``"adabn+fda"`` or ``"nothing"``."""
        return "+".join(part for part in (self.adaptation, self.method) if part) or NOTHING

    @property
    def all_parameters(self) -> dict[str, Any]:
        """Those of both; an adaptation's after its name and a point where there is a translation too."""
        if not self.method or not self.adaptation:
            return dict(self.settings or self.parameters)
        return dict(self.parameters) | {f"{self.adaptation}.{name}": value for name, value in self.settings.items()}

    @property
    def label(self) -> str:
        """Name and parameters, for people."""
        words = ", ".join(f"{name} {value}" for name, value in self.all_parameters.items())
        return f"{self.name} ({words})" if words else self.name

    def to_dict(self) -> dict[str, Any]:
        """Give JSON values."""
        return {"name": self.name, "method": self.method, "parameters": dict(self.parameters), "adaptation": self.adaptation,
                "settings": dict(self.settings)}  # fmt: skip


@dataclass(slots=True)
class Evidence:
    """How one way did.

    Parameters
    ----------
    candidate
        What was tried.
    score
        The criterion after it, 0 to 1: the task's main figure where there are labels, else the label-free one; None where it was not judged.
    gain
        Its difference to doing nothing, with the interval of the paired bootstrap by group.
    structure
        Share of the images' structure that is kept, with the interval's lower end; None for what leaves images as they are.
    accepted
        Whether it may be used: it kept structure, and it beat doing nothing with confidence.
    reason
        A sentence.
    figures
        More numbers, by name; see `oteo_translate.ladder.judging` and, of distances to home, `oteo_translate.measures.home`.
    seconds
        What fitting and judging took.
    tried
        False where there was no time, or it could not be fitted.
    """

    candidate: Candidate
    score: MetricValue | None = None
    gain: MetricValue | None = None
    structure: MetricValue | None = None
    accepted: bool = False
    reason: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    tried: bool = True

    @property
    def changes(self) -> str:
        """`IMAGE` where images are translated, else `MODEL`."""
        return IMAGE if self.candidate.method else MODEL

    @property
    def distances(self) -> list[MetricValue]:
        """KID and FID to home of what the frozen model sees, after it; empty where it was not judged, or where the model is adapted."""
        return distances_of(self.figures)

    def record(self) -> MethodRecord:
        """Give it as a translator's manifest keeps it."""
        candidate = self.candidate
        return MethodRecord(candidate.name, candidate.all_parameters, self.score, self.gain, self.structure, self.accepted, self.reason,
                            dict(self.figures), self.seconds)  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Give JSON values."""
        values: dict[str, Any] = {"candidate": self.candidate.to_dict(), "changes": self.changes}
        for name in ("score", "gain", "structure"):
            figure: MetricValue | None = getattr(self, name)
            values[name] = None if figure is None else asdict(figure)
        for name in ("accepted", "reason", "figures", "seconds", "tried"):
            values[name] = getattr(self, name)
        return values


@dataclass(slots=True)
class LadderResult:
    """The end of a climb.

    Parameters
    ----------
    evidence
        Of all ways, the best first; doing nothing is among them.
    choice
        The evidence of what is recommended; None: nothing is.
    reason
        Why it is, or why nothing is; for people.
    criterion
        `WITH_LABELS` or `LABEL_FREE`.
    judged
        Shifted images that were judged on, and their groups.
    details
        More numbers: how far the shifted images are from home, what home's own figures are.
    translation, adapted
        Of the choice, ready to be packed; None where there is none. Not in `to_dict`.
    """

    evidence: list[Evidence]
    choice: Evidence | None
    reason: str
    criterion: str
    judged: tuple[int, int]
    details: dict[str, float] = field(default_factory=dict)
    translation: Translation | None = None
    adapted: AdaptedModel | None = None

    @property
    def accepted(self) -> bool:
        """Whether something is recommended."""
        return self.choice is not None

    @property
    def best(self) -> Evidence:
        """The best that was tried, accepted or not; what is packed where nothing is recommended."""
        return self.choice or self.evidence[0]

    def to_dict(self) -> dict[str, Any]:
        """Give JSON values."""
        return {
            "accepted": self.accepted,
            "reason": self.reason,
            "criterion": self.criterion,
            "judged_images": self.judged[0],
            "judged_groups": self.judged[1],
            "details": self.details,
            "choice": self.choice.to_dict() if self.choice else None,
            "evidence": [one.to_dict() for one in self.evidence],
        }
