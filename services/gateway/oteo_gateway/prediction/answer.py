"""From a model's probabilities to an answer: classes, prediction set, decision, whether a human should look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oteo_core.errors import Internal, InvalidArgument
from oteo_core.packages import ModelPackage, OperatingPoint


@dataclass(frozen=True, slots=True)
class ClassAnswer:
    """An answer for one image.

    Attributes
    ----------
    scores
        Classes with calibrated probabilities (0 to 1), the likeliest first, at most as many as asked for.
    prediction_set
        Classes of the conformal prediction set; empty where the package has no conformal threshold.
    coverage
        Share of cases whose set holds the true class, 0 to 1; 0 without a threshold.
    decision
        The class decided on.
    refer
        True where the prediction set does not hold exactly one class; with several labels, where it holds another class than is decided on.
    decisions
        With several labels: the classes that are there, the likeliest first.
    point
        The operating point that decided; None where the likeliest class is the decision, and with several labels.
    """

    scores: tuple[tuple[str, float], ...]
    prediction_set: tuple[str, ...]
    coverage: float
    decision: str
    refer: bool
    decisions: tuple[str, ...] = ()
    point: OperatingPoint | None = None


def operating_point(package: ModelPackage, name: str) -> OperatingPoint | None:
    """Find the operating point to decide by.

    Parameters
    ----------
    package
        The model's package.
    name
        A criterion as in the package (``youden``, ``sensitivity>=0.95``), or ``class/criterion`` where several classes have it. Empty:
        with two classes the package's first; none where there are more, because one class's threshold does not decide among them.

    Raises
    ------
    InvalidArgument
        ``OPERATING_POINT_NOT_FOUND``: the package has none of that name, or more than one.
    """
    if not name:
        return package.operating_points[0] if package.operating_points and len(package.classes) == 2 else None
    found = [p for p in package.operating_points if name in (p.criterion, f"{p.class_name}/{p.criterion}")]
    if len(found) != 1:
        names = ", ".join(f"{p.class_name}/{p.criterion}" for p in package.operating_points) or "none"
        raise InvalidArgument(
            f"{package.name} has {len(found) or 'no'} operating points named {name!r}; it has: {names}.",
            reason="OPERATING_POINT_NOT_FOUND",
            field="operating_point",
        )
    return found[0]


def decide(probabilities: dict[str, float], point: OperatingPoint | None) -> str:
    """Give the class decided on: by the point's threshold where there is one, else the likeliest.

    Below its threshold the point's class is out, and the likeliest of the others is taken.
    """
    if point is None:
        return max(probabilities, key=lambda name: probabilities[name])
    if probabilities[point.class_name] >= point.threshold:
        return point.class_name
    others = {name: value for name, value in probabilities.items() if name != point.class_name}
    return max(others, key=lambda name: others[name])


def classify(values: NDArray[np.float64], package: ModelPackage, *, top_k: int = 0, point_name: str = "") -> ClassAnswer:
    """Make the answer for one image.

    Parameters
    ----------
    values
        Calibrated probabilities of the classes, ``(K,)``.
    package
        The model's package.
    top_k
        Classes to give; 0: all.
    point_name
        The operating point; see `operating_point`.

    Raises
    ------
    Internal
        ``BAD_MODEL_OUTPUT``: not as many values as classes, or values that are no probabilities.
    """
    if values.shape != (len(package.classes),) or not np.isfinite(values).all():
        raise Internal(f"The model gave {values!r} for {len(package.classes)} classes.", reason="BAD_MODEL_OUTPUT")
    point = operating_point(package, point_name)
    probabilities = dict(zip(package.classes, np.clip(values, 0.0, 1.0).tolist(), strict=True))
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])
    conformal = package.conformal
    members = tuple(conformal.prediction_set(probabilities)) if conformal is not None else ()
    return ClassAnswer(
        scores=tuple(ranked[: top_k or None]),
        prediction_set=members,
        coverage=conformal.coverage if conformal is not None else 0.0,
        decision=decide(probabilities, point),
        refer=conformal is not None and len(members) != 1,
        point=point,
    )


def label(values: NDArray[np.float64], package: ModelPackage, *, top_k: int = 0, point_name: str = "") -> ClassAnswer:
    """Make the answer for one image that may have several classes, or none.

    Parameters
    ----------
    values
        Calibrated probability of each class, ``(K,)``, each on its own.
    package
        The model's package; its ``decoding`` says from which probability a class counts as present (``score_threshold``), and from which it is
        in the set that misses few (``set_threshold``).
    top_k
        Classes to give; 0: all.
    point_name
        An operating point, whose threshold counts for its class; see `operating_point`. A criterion that several classes have (``youden``)
        counts for each of them.

    Raises
    ------
    Internal
        ``BAD_MODEL_OUTPUT``.
    InvalidArgument
        ``OPERATING_POINT_NOT_FOUND``.
    """
    if values.shape != (len(package.classes),) or not np.isfinite(values).all():
        raise Internal(f"The model gave {values!r} for {len(package.classes)} classes.", reason="BAD_MODEL_OUTPUT")
    thresholds = dict(zip(package.classes, _by_class(package, "score_threshold", 0.5), strict=True))
    if point_name:
        same = [point for point in package.operating_points if point.criterion == point_name]
        one = None if same else operating_point(package, point_name)
        for point in same or ([one] if one else []):
            thresholds[point.class_name] = point.threshold
    probabilities = dict(zip(package.classes, np.clip(values, 0.0, 1.0).tolist(), strict=True))
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])
    present = tuple(name for name, value in ranked if value >= thresholds[name])
    members: tuple[str, ...] = ()
    if "set_threshold" in package.decoding:
        limits = dict(zip(package.classes, _by_class(package, "set_threshold", 0.0), strict=True))
        members = tuple(name for name, value in ranked if value >= limits[name])
    return ClassAnswer(
        scores=tuple(ranked[: top_k or None]),
        prediction_set=members,
        coverage=float(package.decoding.get("set_coverage", 0.0)) if "set_threshold" in package.decoding else 0.0,
        decision="",
        refer=not set(members) <= set(present),
        decisions=present,
    )


def _by_class(package: ModelPackage, key: str, usual: float) -> list[float]:
    given = np.atleast_1d(np.asarray(package.decoding.get(key, usual), dtype=np.float64))
    values: list[float] = np.broadcast_to(given, (len(package.classes),)).tolist()
    return values
