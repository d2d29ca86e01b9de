"""What a watch's state means, in a sentence for a person."""

from __future__ import annotations

from oteo_core.shift.alarm import PER_IMAGES
from oteo_core.shift.looking import LOOKS, SHARES, WINDOWS
from oteo_gateway.watching.records import WatchState

NO_REFERENCE = "The model's package has no statistics of its training images, so that a shift cannot be seen; train the model anew."
NOTHING_YET = f"No image was seen yet; the test begins with {WINDOWS[0]}."
_WORDS = {
    "p05": "the darkest parts",
    "median": "the median brightness",
    "p95": "the brightest parts",
    "dark": "the share of black pixels",
    "bright": "the share of white pixels",
    "log_detail": "detail (contrast, focus)",
    "log_noise": "noise",
    "distance": "the distance from the training images",
}


def figure_words(name: str) -> str:
    """Give a statistic's name for people."""
    what, _, channel = name.rpartition("_")
    if what in ("mean", "std") and channel.isdigit():
        return f"{'mean' if what == 'mean' else 'spread'} of channel {int(channel) + 1}"
    return _WORDS.get(name, name)


def test_words(state: WatchState) -> str:
    """Name the test that the shown figures are of."""
    if state.shown is not None and state.shown.of_class:
        return "fisher of class shares"
    return "ks of distances from the training images" if state.summary else "ks of image statistics"


def message(state: WatchState, rate: float, deployment: str) -> str:
    """Say how a watch stands and what to do.

    Parameters
    ----------
    state
        The state.
    rate
        False alarms for each `PER_IMAGES` images that are accepted.
    deployment
        The deployment's id.
    """
    look = state.shown
    if look is None:
        missing = WINDOWS[0] - state.window
        return f"{missing} more different images are needed before the test can begin." if missing > 0 else "The test runs in a moment."
    older = (
        " The package is of an earlier release and keeps no sample of its training images; changes of single figures are not seen."
        * state.summary
    )
    if not state.alarm.on:
        alone = f" They are worth {look.independent:.0f} independent ones." if look.independent < 0.7 * look.images else ""
        return (
            f"No shift in the latest {look.images} images.{alone} A change of {look.detectable:.2f} (distance of distributions) "
            f"would be found nine times in ten; false alarms: at most {rate:g} in {PER_IMAGES} images.{older}"
        )
    calm = f" The latest {state.alarm.calm} looks found nothing." if state.alarm.calm else ""
    return f"{_found(state)} {_advice(look.kind, deployment)}{calm}{older}"


def _found(state: WatchState) -> str:
    look = state.shown
    if look is None:
        return ""
    if look.kind == SHARES:
        what = f"Classes come in other shares ({look.where}: {look.moved:+.0%})" if look.of_class else "Classes come in other shares"
        return f"{what}; images of a class look as they did."
    if look.of_class:
        what = f"images of {look.where} by {look.moved:+.0%}"
    else:
        what = f"{figure_words(look.where)} by {look.moved:+.1f} standard deviations"
    if look.kind == LOOKS:
        return f"The images look different from the training images: {what}."
    return f"The images or their classes have changed ({what}); the model's answers alone do not tell which."


def _advice(kind: str, deployment: str) -> str:
    if kind == SHARES:
        return f"Ask whether other patients come than before; thresholds may no longer fit. Check accuracy with `oteo correct {deployment} IMAGE`."
    return (
        "Ask whether a scanner, stain or protocol was changed. Import some of the images and run `oteo shift MODEL DATASET`; "
        "a translator may undo it (`oteo translate train`). Answers are less sure until then."
    )
