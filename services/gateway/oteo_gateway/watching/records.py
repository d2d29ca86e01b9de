"""How a watch stands: the last look and the alarm, as they are kept in the database."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from oteo_core.shift.alarm import Alarm
from oteo_core.shift.looking import Look


@dataclass(frozen=True, slots=True)
class WatchState:
    """A watch's state.

    Parameters
    ----------
    images
        Different images since the deployment last changed.
    window
        Of these, in the window.
    last
        Number of the last batch that was counted.
    unseen
        Images since the last look.
    looked
        When the test last ran, seconds since 1970; 0: never.
    level
        Chance of a false alarm that the last look had.
    summary
        True where the package has no sample of its training images, so that only distances were compared.
    look
        The last look; None: never.
    alarm
        Whether it rings.
    ringing
        The look that raised the alarm, or the last one that confirmed it; None while it is off.
    """

    images: int = 0
    window: int = 0
    last: int = 0
    unseen: int = 0
    looked: float = 0.0
    level: float = 0.0
    summary: bool = False
    look: Look | None = None
    alarm: Alarm = field(default_factory=Alarm)
    ringing: Look | None = None

    @property
    def shown(self) -> Look | None:
        """The look to tell of: while an alarm rings, the one that it is for."""
        return self.ringing or self.look

    def to_dict(self) -> dict[str, Any]:
        """Give JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> WatchState:
        """Read what `to_dict` gave."""
        values = dict(data)
        values["alarm"] = Alarm(**values["alarm"])
        for name in ("look", "ringing"):
            values[name] = Look(**values[name]) if values[name] else None
        return cls(**values)
