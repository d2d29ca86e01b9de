"""Transforms that blur, sharpen and take resolution away."""

from __future__ import annotations

from oteo_core.augmentation.catalogue.parameters import span, whole, whole_span
from oteo_core.augmentation.catalogue.spec import TransformSpec

_OWN = "oteo_core.augmentation.transforms"

BLUR = (
    TransformSpec(
        "GaussianBlur",
        "Blurs by a Gaussian, as a lens a little out of focus does.",
        {"sigma_limit": span(0.3, 1.2, "Standard deviation of the Gaussian", 0, 50, "pixels")},
        {"blur_limit": 0},
        aliases=("gaussian_blur",),
        mixes=True,
    ),
    TransformSpec(
        "Blur",
        "Gives each pixel the mean of its neighbourhood.",
        {"blur_limit": whole_span(3, 5, "Side of the neighbourhood", 3, 99, "pixels", odd=True)},
        aliases=("average_blurring", "blurring"),
        mixes=True,
    ),
    TransformSpec(
        "MedianBlur",
        "Gives each pixel the median of its neighbourhood.",
        {"kernel": whole_span(3, 5, "Side of the neighbourhood; 1 changes nothing", 1, 5, "pixels", odd=True)},
        aliases=("median_blur",),
        mixes=True,
        neutral={"kernel": (1, 1)},
        factory=f"{_OWN}.filters:MedianBlur",
    ),
    TransformSpec(
        "BilateralBlur",
        "Blurs what is alike and keeps edges.",
        {
            "sigma_color": span(0.05, 0.15, "Difference up to which pixels count as alike", 0.001, 1, "share of the full range"),
            "sigma_space": span(1, 2, "Standard deviation of the blur", 0.1, 20, "pixels"),
        },
        aliases=("bilateral_blurring",),
        mixes=True,
        factory=f"{_OWN}.filters:BilateralBlur",
        source="Tomasi and Manduchi, 1998",
    ),
    TransformSpec(
        "MotionBlur",
        "Blurs along a line, as a stage or a camera that moves does.",
        {"blur_limit": whole_span(3, 5, "Length of the line", 3, 99, "pixels", odd=True)},
        {"allow_shifted": False},
        mixes=True,
    ),
    TransformSpec(
        "ZoomBlur",
        "Blurs outwards from the middle, as an endoscope that is pulled does.",
        {"max_factor": span(1.02, 1.08, "Largest enlargement", 1.01, 2, "times")},
        {"step_factor": (0.01, 0.015)},
        mixes=True,
    ),
    TransformSpec(
        "AdvancedBlur",
        "Blurs by a Gaussian that is wider one way than the other, with an uneven kernel.",
        {
            "sigma_x_limit": span(0.3, 1.2, "Standard deviation along one axis", 0.05, 50, "pixels"),
            "sigma_y_limit": span(0.3, 1.2, "Standard deviation along the other axis", 0.05, 50, "pixels"),
        },
        {"blur_limit": (5, 7), "beta_limit": (0.8, 1.5)},
        mixes=True,
        source="Wang et al., 2021",
    ),
    TransformSpec(
        "MicroscopeDefocus",
        "Out of focus: every point becomes an even disc.",
        {"radius": span(0.7, 2, "Radius of the disc", 0, 50, "pixels")},
        aliases=("defocus",),
        mixes=True,
        neutral={"radius": (0.0, 0.0)},
        factory=f"{_OWN}.optics:MicroscopeDefocus",
        source="Stokseth, 1969",
    ),
    TransformSpec(
        "LowResolution",
        "Makes the image smaller and as large again, as of an objective or a scanner with fewer pixels.",
        {"scale": span(0.5, 0.9, "Scale of the small image", 0.05, 1, "times")},
        mixes=True,
        neutral={"scale": (1.0, 1.0)},
        factory=f"{_OWN}.filters:LowResolution",
    ),
    TransformSpec(
        "Sharpen",
        "Sharpens by a kernel of three pixels.",
        {"alpha": span(0.05, 0.15, "Share of the sharpened image", 0, 1)},
        {"lightness": (1.0, 1.0)},
        aliases=("sharpen",),
        unit_range=True,
        neutral={"alpha": (0.0, 0.0)},
    ),
    TransformSpec(
        "UnsharpMask",
        "Adds what a Gaussian blur takes away, where that is more than a threshold.",
        {
            "sigma_limit": span(0.5, 1.5, "Standard deviation of the Gaussian", 0.1, 20, "pixels"),
            "alpha": span(0.2, 0.5, "Share of it that is added", 0, 1),
            "threshold": whole(5, "Difference below which nothing is added", 0, 255, "of 255"),
        },
        {"blur_limit": (7, 7)},
        unit_range=True,
    ),
    TransformSpec(
        "RingingOvershoot",
        "Adds ripples beside edges, as frequencies that are cut off do (Gibbs).",
        {"cutoff": span(1.6, 2.6, "Highest frequency that is kept", 0.1, 3.14, "radians a pixel")},
        {"blur_limit": (7, 15)},
        unit_range=True,
    ),
)
