"""Transforms that know how medical images arise."""

from __future__ import annotations

from oteo_core.augmentation.catalogue.colour import RGB
from oteo_core.augmentation.catalogue.parameters import choice, span, whole_span
from oteo_core.augmentation.catalogue.spec import FEW_CHANNELS, TransformSpec

_OWN = "oteo_core.augmentation.transforms"

MEDICAL = (
    TransformSpec(
        "StainJitter",
        "Makes each stain of a section a little stronger or weaker: haematoxylin, eosin and DAB, taken apart in optical density.",
        {
            "scale": span(0.9, 1.1, "Factor of each stain's density", 0, 5, "times"),
            "shift": span(-0.02, 0.02, "What is added to each stain's density", -1, 1, "optical density to base 10"),
        },
        aliases=("hed",),
        channels=RGB,
        unit_range=True,
        neutral={"scale": (1.0, 1.0), "shift": (0.0, 0.0)},
        factory=f"{_OWN}.stain:StainJitter",
        source="Tellez et al., 2018; Ruifrok and Johnston, 2001",
    ),
    TransformSpec(
        "Vignette",
        "Darkens towards the edge of a microscope's field of view, with the optical axis a little off.",
        {
            "strength": span(0.1, 0.4, "Light lost at the farthest corner", 0, 0.99, "share"),
            "offset": span(-0.1, 0.1, "Distance of the optical axis from the middle", -0.5, 0.5, "share of the side"),
        },
        mixes=True,
        neutral={"strength": (0.0, 0.0)},
        factory=f"{_OWN}.optics:Vignette",
        source="Kingslake, 1983",
    ),
    TransformSpec(
        "HounsfieldGamma",
        "Bends the grey curve of computed tomography within a window of Hounsfield units and leaves what lies outside as it is.",
        {
            "gamma": span(0.8, 1.25, "The power", 0.01, 10),
            "window": choice("soft_tissue", ("brain", "soft_tissue", "liver", "lung", "bone"), "The window"),
        },
        pixel_types=("float32",),
        neutral={"gamma": (1.0, 1.0)},
        factory=f"{_OWN}.hounsfield:HounsfieldGamma",
    ),
    TransformSpec(
        "BiasField",
        "Multiplies by a smooth field, as a magnetic resonance coil of uneven sensitivity does.",
        {"strength": span(0.05, 0.2, "Largest coefficient of the polynomial of third order in the exponent", 0, 2)},
        mixes=True,
        neutral={"strength": (0.0, 0.0)},
        factory=f"{_OWN}.bias_field:BiasField",
        source="Van Leemput et al., 1999; Sudre et al., 2017",
    ),
    TransformSpec(
        "RicianNoise",
        "Adds the noise of magnitude images in magnetic resonance, which brightens the dark background.",
        {"std": span(0.01, 0.04, "Standard deviation in the real and the imaginary part", 0, 1, "share of the full range")},
        channels=FEW_CHANNELS,
        mixes=True,
        neutral={"std": (0.0, 0.0)},
        factory=f"{_OWN}.rician:RicianNoise",
        source="Gudbjartsson and Patz, 1995",
    ),
    TransformSpec(
        "Ghosting",
        "Adds faint copies along the phase axis of magnetic resonance, as pulsation and breath do.",
        {
            "ghosts": whole_span(2, 6, "Number of copies", 2, 32),
            "intensity": span(0.3, 0.7, "By how much the lines of frequencies are weakened", 0, 1),
        },
        mixes=True,
        neutral={"intensity": (0.0, 0.0)},
        factory=f"{_OWN}.kspace:Ghosting",
        source="Axel et al., 1986",
    ),
    TransformSpec(
        "KSpaceSpikes",
        "Adds stripes over the whole image, as sparks while magnetic resonance is recorded do.",
        {
            "count": whole_span(1, 2, "Number of spikes", 1, 20),
            "intensity": span(0.01, 0.03, "Amplitude of the stripes", 0, 1, "share of the full range"),
        },
        mixes=True,
        neutral={"intensity": (0.0, 0.0)},
        factory=f"{_OWN}.kspace:KSpaceSpikes",
        source="Heiland, 2008",
    ),
    TransformSpec(
        "PatientMotion",
        "Motion while magnetic resonance is recorded: ripples and double edges, with shapes at their place.",
        {
            "moves": whole_span(1, 3, "How often the patient moves", 1, 20),
            "shift": span(-2, 2, "Move along each axis", -100, 100, "pixels"),
            "rotate": span(-1.5, 1.5, "Turn", -45, 45, "degrees"),
        },
        mixes=True,
        neutral={"shift": (0.0, 0.0), "rotate": (0.0, 0.0)},
        factory=f"{_OWN}.kspace:PatientMotion",
        source="Shaw et al., 2019",
    ),
)
