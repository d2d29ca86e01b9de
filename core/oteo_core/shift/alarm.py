"""When an alarm goes on and off, so that looks that are repeated all day seldom raise a false one.

Each image brings the same small chance of a false alarm, and a look may spend what the images since the last one brought. Whatever the times and
the number of looks, and however they depend on one another (their windows overlap), the expected number of false alarms over any run of images is
at most the rate times their number: Bonferroni's inequality, as in alpha spending (Lan and DeMets, Biometrika 70, 1983).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from oteo_core.shift.looking import Look

PER_IMAGES = 10_000
"""Images that rates are said for."""

CALM_P = 0.05
CALM_LOOKS = 3
"""So many looks one after the other that find nothing at `CALM_P` end an alarm."""

_MOST_SPENT = 500


def level_of(new_images: int, rate: float) -> float:
    """Give the chance of a false alarm that a look may spend.

    Parameters
    ----------
    new_images
        Images since the last look.
    rate
        False alarms for each `PER_IMAGES` images that are accepted, 0 to 1.
    """
    return rate * min(new_images, _MOST_SPENT) / PER_IMAGES


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm's state.

    Parameters
    ----------
    on
        Whether it rings.
    since
        When it went on, seconds since 1970; 0 while it is off.
    calm
        Looks one after the other, while it rings, that found nothing.
    """

    on: bool = False
    since: float = 0.0
    calm: int = 0

    def after(self, look: Look, level: float, least_effect: float, now: float) -> Alarm:
        """Give the state after a look.

        Parameters
        ----------
        look, level
            What was found, and what might be spent.
        least_effect
            Smaller shifts, however sure, raise no alarm; 0 to 1.
        now
            Seconds since 1970.
        """
        if look.p_value <= level and look.effect >= least_effect:
            return Alarm(True, self.since if self.on else now, 0)
        if not self.on:
            return self
        calm = self.calm + 1 if look.p_value > CALM_P or look.effect < least_effect / 2 else 0
        return Alarm() if calm >= CALM_LOOKS else replace(self, calm=calm)

    def to_dict(self) -> dict[str, Any]:
        """Give JSON values."""
        return {"on": self.on, "since": self.since, "calm": self.calm}
