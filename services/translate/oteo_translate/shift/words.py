"""What a measurement says, in sentences."""

from __future__ import annotations

from oteo_translate.shift.kinds import BOTH, COVARIATE, NONE, PREVALENCE
from oteo_translate.shift.loss import SECOND, Estimate
from oteo_translate.shift.measure import C2ST, KS, MMD, SHARES, MovedStatistic, Shift
from oteo_translate.shift.study import Study

TESTS = {
    MMD: ("Kernel test", "mean discrepancy; 0: alike"),
    KS: ("Figure by figure", "largest distance of the distributions, 0 to 1"),
    C2ST: ("Telling apart", "AUROC of a classifier that tells the sets apart; 0.5: it cannot"),
    SHARES: ("Class shares", "part of the images that changed class, 0 to 1"),
}
"""A test's name for people, and what its effect is."""

FEATURES = {
    "intensity": "image statistics",
    "output": "the model's outputs",
    "embedding": "what the model sees",
    "labels": "annotations",
    "answers": "the model's answers",
}
_STATISTICS = {
    "p05": "darkest twentieth",
    "median": "middle brightness",
    "p95": "brightest twentieth",
    "dark": "share of black pixels",
    "bright": "share of white pixels",
    "log_detail": "detail and focus (logarithm)",
    "log_noise": "noise (logarithm)",
}
_COLOURS = ("red", "green", "blue")


def statistic_words(name: str, channels: int) -> str:
    """Give an image statistic's name for people."""
    what, _, channel = name.rpartition("_")
    if what in ("mean", "std"):
        head = "brightness" if what == "mean" else "contrast"
        if channels == 1:
            return head
        place = int(channel)
        return f"{head} of {_COLOURS[place] if channels == 3 else f'channel {place + 1}'}"
    return _STATISTICS.get(name, name)


def verdict(study: Study) -> str:
    """Give the verdict in a sentence."""
    shift, counts = study.shift, study.shift.images
    if shift.kind == NONE:
        return f"No shift was found between {counts[0]} images of {study.home_name} and {counts[1]} of {study.shifted_name}."
    if shift.kind == COVARIATE:
        return f"The images of {study.shifted_name} look different from those of {study.home_name}."
    if shift.kind == PREVALENCE:
        return f"In {study.shifted_name} the classes come in other shares than in {study.home_name}; images of one class look as they did."
    return f"The images of {study.shifted_name} look different from those of {study.home_name}, and the classes come in other shares."


def because(study: Study) -> list[str]:
    """Say what the verdict stands on."""
    shift = study.shift
    strongest = min(shift.tests, key=lambda test: (test.p_value, -test.effect))
    said = []
    if shift.kind == NONE:
        said.append(
            f"None of {len(shift.tests)} tests rings once they are corrected for their number: the strongest has p = {strongest.p_value:.3f}, and "
            f"{shift.alpha:g} is the limit."
        )
        said.append(could_have_seen(shift))
        return said
    ringing = sum(test.p_value <= shift.alpha for test in shift.tests)
    said.append(f"{ringing} of {len(shift.tests)} tests ring at a false alarm rate of {shift.alpha:g} for all of them together.")
    told = [test for test in shift.tests if test.test == C2ST]
    best = max(told, key=lambda test: test.effect)
    if best.p_value <= shift.alpha:
        said.append(f"A simple classifier tells the two sets apart with {100 * best.accuracy:.0f} % right by {FEATURES[best.feature]}.")
    moved = moved_statistics(shift)
    if moved and shift.kind in (COVARIATE, BOTH):
        said.append(f"What moved most: {'; '.join(_moved(one, study.policy.channels) for one in moved[:3])}.")
    said += shares_words(shift)
    return said


def could_have_seen(shift: Shift) -> str:
    """Say what so many images would have shown."""
    return (
        f"So many images would have shown a change of one image statistic by {shift.detectable_difference:.2f} standard deviations in four cases of five; "
        "smaller changes may be there."
    )


def shares_words(shift: Shift) -> list[str]:
    """Say what is known of class shares."""
    if shift.prevalence is None:
        return (
            ["The classes of both sets are not known, or do not vary: a change of class shares was not looked for."]
            if shift.kind != NONE
            else []
        )
    source = "annotations" if shift.prevalence.source == "labels" else "the model's answers"
    said = [f"Class shares by {source}: p = {shift.prevalence.p_value:.3f} by themselves."]
    if shift.remainder is not None:
        left = "something is" if shift.remainder.p_value <= shift.alpha else "nothing that could be shown is"
        said.append(f"With home brought to the same class shares {left} left of the difference (p = {shift.remainder.p_value:.3f}).")
        if shift.kind == COVARIATE and shift.prevalence.source == "answers":
            said.append(
                "Whether class shares changed as well cannot be told without labels: a model's answers about images that look different prove nothing."
            )
    elif shift.kind != NONE:
        said.append("Too few images of the same classes are on both sides to tell looks from class shares.")
    return said


def loss_words(study: Study) -> list[str]:
    """Say what the model is expected to lose."""
    loss = study.loss
    if loss is None:
        return []
    said = [
        f"Expected loss of {study.model}: {_span(loss.expected)} of a mean {loss.metric} of {loss.home:.3f} at home, by {loss.expected.method}; "
        f"{100 * loss.level:.0f} % interval, without labels.",
        *(f"By {other.method}: {_span(other)}." for other in loss.others),
    ]
    if loss.measured is not None:
        said.append(f"The images have annotations: measured on them the loss is {_points(loss.measured)}.")
    elif loss.expected.method == SECOND:
        said.append(
            "The first holds as far as the two networks are wrong in different places, the others believe the model's confidence. Two networks can be wrong "
            "alike on images that look different, and sure of it: label some thirty and judge the model."
        )
    else:
        said.append(
            "All believe the model's confidence. A model can be confidently wrong on images that look different: label some thirty and judge it."
        )
    return said


def advice(study: Study) -> list[str]:
    """Say what to do."""
    kind, model = study.shift.kind, study.model
    if kind == NONE:
        return [
            "Go on as before.",
            "Measure again with more images, or from more patients, if a small change would matter.",
        ]
    if kind == PREVALENCE:
        return [
            "Translating images would not help: images of a class look as they did.",
            "Thresholds and probabilities that were right for the old shares are not right for the new ones: correct them for the new shares, or choose "
            "operating points anew on recent labelled images.",
        ]
    said = [
        f"Do not trust {model or 'a model of the old images'} on these images before it is judged on some that are labelled (“oteo models evaluate”).",
        "“oteo translate train” looks for a translation that brings the images back, and proves on the model that it helps, or says that none does.",
        "Training on images of both sets together, where labels can be had, is the surest cure.",
    ]
    if kind == BOTH:
        said.append("Class shares changed too: probabilities stay wrong after a translation until they are corrected for the new shares.")
    return said


def moved_statistics(shift: Shift) -> list[MovedStatistic]:
    """Give the image statistics that moved for sure, largest effect first."""
    return [one for one in shift.statistics if one.p_value <= shift.alpha]


def _moved(one: MovedStatistic, channels: int) -> str:
    return f"{statistic_words(one.name, channels)} {one.home:.2f} to {one.shifted:.2f} ({one.effect:+.1f} standard deviations)".replace(
        "-", "\N{MINUS SIGN}"
    )


def _span(estimate: Estimate) -> str:
    return f"{_points(estimate.value)} ({_points(estimate.lower)} to {_points(estimate.upper)})"


def _points(value: float) -> str:
    return f"{100 * value:+.1f} points".replace("-", "\N{MINUS SIGN}")
