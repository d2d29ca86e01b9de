"""What a comparison of models says."""

from __future__ import annotations

from dataclasses import dataclass, field

from oteo_core.packages import MetricValue


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """A model's figures: on the images that all models have answered, or its package's own where there are none."""

    model: str
    display_name: str
    candidate: str
    metrics: tuple[MetricValue, ...]


@dataclass(frozen=True, slots=True)
class ModelDifference:
    """Two models compared.

    Parameters
    ----------
    first, second
        Their names; the first has the better figure.
    metric
        What was compared.
    difference, lower, upper, level
        First minus second, and its interval; ends are None where there is none.
    p_value, adjusted_p
        None where the models were not measured on the same images.
    tests
        Further tests by name, with p-values: McNemar's, DeLong's.
    shown
        Whether the difference is more than chance, as far as was measured.
    sentence
        All of it in words.
    """

    first: str
    second: str
    metric: str
    difference: float
    lower: float | None
    upper: float | None
    level: float
    p_value: float | None
    adjusted_p: float | None
    tests: tuple[tuple[str, float], ...]
    shown: bool
    sentence: str


@dataclass(slots=True)
class Comparison:
    """Models compared.

    Parameters
    ----------
    metric
        What decides.
    paired
        Whether they were measured on the same images.
    reason
        Why (not).
    images, groups
        Shared test images and their groups; 0 where not paired.
    models
        Best first.
    differences
        Each pair, the best model's first.
    overall_p
        Of Friedman's test, for three models and more; None where it was not made.
    sentences
        What to tell people.
    """

    metric: str
    paired: bool
    reason: str
    images: int = 0
    groups: int = 0
    models: list[ModelFigures] = field(default_factory=list)
    differences: list[ModelDifference] = field(default_factory=list)
    overall_p: float | None = None
    sentences: list[str] = field(default_factory=list)
