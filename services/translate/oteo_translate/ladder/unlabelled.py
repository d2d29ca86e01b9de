"""What is recommended where no label tells: the criterion of the shifted images, borne out by home images that were given the shifted look.

On shifted images nothing is known to be right: a model may be steadier and surer of wrong answers. On home images it is known what the model finds, and a look
that was imitated by a curve moved nothing, so that every answer that a way brings back is one that was right. What this leaves out is all of a shift that no curve
imitates; so both are asked, and what the imitated look costs the model says how much the second can tell.

Measured on white blood cells of two stains, four trainings, `benchmarks/translate.py`: where the imitated look cost a tenth of the answers or more, 16 ways that brought half
of that back raised the true IoU by 1 to 57 points and one cost 2, leaving out what undoes the imitation by construction (`Method.undoes_imitation`); the criterion alone liked
ways that cost 4 and 9 points, and in one training fell with every way that helped, by up to .07. The limits below were set after looking at these four.
"""

from __future__ import annotations

from dataclasses import dataclass

LEAST_GAIN, LEAST_HEALED_GAIN = 0.08, 0.03
"""What a gain of the criterion has to reach at least; the latter where home images bear the way out."""

HEALED, MOSTLY_HEALED = 0.2, 0.5
"""Share of what the imitated look costs that a way must bring back to be borne out; and that is enough, whatever the criterion says, unless it falls by `MOST_FALL`."""

IMITATED_LOSS, TELLING_LOSS = 0.05, 0.1
"""What the imitated look must cost the model to tell anything; and to tell it against the criterion."""

MOST_FALL = 0.1

ALPHA = 0.05
"""Level of the one-sided tests against doing nothing."""

MASKS_SLACK = 0.02
"""What agreement with the answers at home may lose where the imitated look costs nothing."""

MASKS_WEIGHT = 0.5
"""Of what was brought back at home, beside the criterion's sure gain, among ways that are recommended."""


@dataclass(frozen=True, slots=True)
class AtHome:
    """What a way does on home images that were given the shifted look.

    Attributes
    ----------
    kept, untouched
        Agreement, 0 to 1, of the model's answers to them with those to the images as they are: with the way, and without.
    p_value
        One-sided, that the way brings nothing back. Of this way alone: ways that undo a shift do much the same to the same images, and Holm's correction for twenty of
        them, as if each were another chance, refused one that brought back nine tenths (`benchmarks/translate.py wbc-1-2 --seeds 5`).
    by_construction
        The way undoes the imitation whatever the shift is, so that this tells nothing in its favour.
    """

    kept: float
    untouched: float
    p_value: float
    by_construction: bool = False

    @property
    def gain(self) -> float:
        """What is brought back; 0 where that tells nothing."""
        return 0.0 if self.by_construction else self.kept - self.untouched

    @property
    def mostly_healed(self) -> bool:
        """Whether this alone recommends the way."""
        lost = 1.0 - self.untouched
        return lost >= TELLING_LOSS and self.gain >= MOSTLY_HEALED * lost and self.p_value < ALPHA

    def least_gain(self) -> float | None:
        """Give what the criterion has to gain; None: no gain would do."""
        lost = 1.0 - self.untouched
        if lost < IMITATED_LOSS:
            return LEAST_GAIN if self.kept >= self.untouched - MASKS_SLACK else None
        if self.kept - self.untouched < HEALED * lost:
            return None
        return LEAST_GAIN if self.by_construction else LEAST_HEALED_GAIN


def doubt(home: AtHome, gain: float, sure: bool, *, contradiction: str, farther: bool, told: str) -> str:
    """Say what speaks against a way; empty where it is to be recommended.

    Parameters
    ----------
    home
        On home images.
    gain, sure
        Of the criterion on the shifted images against doing nothing, and whether it is surely above 0.
    contradiction
        Which part of the criterion speaks against it; empty where none does.
    farther
        Whether it brings the images farther from home, as the model sees them.
    told
        The gain in words.
    """
    if home.mostly_healed and gain >= -MOST_FALL and not farther:
        return ""
    if not sure:
        return f"not surely better: {told}"
    least = home.least_gain()
    if least is None:
        return (
            f"on home images given the shifted look the model does not find more of what is there than without it "
            f"({home.kept:.2f}, without {home.untouched:.2f})"
        )
    return f"better by too little: {told}" if gain < least else contradiction
