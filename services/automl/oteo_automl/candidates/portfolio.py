"""What may be tried, by name alone: the service reads it without torch, timm or scikit-learn, whose imports cost seconds and most of a gigabyte."""

from __future__ import annotations

from dataclasses import dataclass

FAMILIES = ("logistic", "svm", "trees", "perceptron", "neighbours", "forest", "boosting")
"""Classifiers on fixed features; `oteo_automl.candidates.classical` fits them: logistic regression, support-vector machines, extremely
randomised trees, a perceptron, nearest neighbours, a random forest, gradient boosting."""

DESCRIPTOR_SETS = ("classical", "lbp", "hog", "haralick", "lab", "hsv")
"""Descriptors that are computed, not learnt: all together, and each of FrImCla's alone."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network of the portfolio.

    Parameters
    ----------
    name
        timm's name.
    scratch
        True where it learns well without pretrained weights, on few images.
    large
        True where it wants a GPU.
    half
        True where bfloat16 is faster on a processor that has it (measured: plain convolutions gain, depthwise ones lose).
    rate
        Learning rate from scratch at a batch of 32, AdamW.
    """

    name: str
    scratch: bool = True
    large: bool = False
    half: bool = False
    rate: float = 1e-3


PORTFOLIO: tuple[Architecture, ...] = (
    Architecture("resnet18", half=True),
    Architecture("mobilenetv4_conv_small", rate=2e-3),
    Architecture("resnet10t", half=True),
    Architecture("efficientnet_lite0", scratch=False),
    Architecture("regnety_004", scratch=False),
    Architecture("resnet50d", large=True),
    Architecture("convnextv2_nano", large=True, scratch=False, rate=5e-4),
    Architecture("efficientnetv2_rw_s", large=True),
)
"""The first are tried first."""


def find_architecture(name: str) -> Architecture:
    """Give an architecture of the portfolio.

    Raises
    ------
    KeyError
        It is not in the portfolio.
    """
    for architecture in PORTFOLIO:
        if architecture.name == name:
            return architecture
    raise KeyError(name)
