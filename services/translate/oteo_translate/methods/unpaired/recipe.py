"""How an unpaired translation is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from oteo_core.errors import InvalidArgument
from oteo_translate.methods.base import Parameters
from oteo_translate.methods.unpaired.discriminators import layers_for

GENERATORS = ("resnet", "unet", "ganilla")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
ADVERSARIALS = ("least-squares", "wasserstein")

LARGEST_CROP = 256
"""Side of crops at most, as in the papers."""

UNBOUNDED_STEPS = 2000
"""Steps of a training that has neither a number of steps nor a deadline."""

MOST_STEPS = 400_000
"""Steps of a training with a deadline at most: the papers' 400 epochs of some thousand images."""

_WORDS = {"generator": GENERATORS, "precision": PRECISIONS, "adversarial": ADVERSARIALS}
_RANGES = {
    "steps": (0, MOST_STEPS),
    "rate": (1e-7, 0.1),
    "batch": (0, 64),
    "crop": (0, 1024),
    "zoom": (0, 1),
    "width": (0, 256),
    "blocks": (0, 16),
    "critic_width": (0, 256),
    "critic_layers": (0, 3),
    "critic_rounds": (1, 20),
    "patches": (1, 4096),
    "vector": (1, 2048),
    "pool": (0, 1000),
    "average": (0, 0.99999),
    "clip": (1e-3, 1e6),
    "inspect": (1, 100_000),
    "processes": (0, 16),
}
_WEIGHTS = (0, 1000)
"""Bounds of what is not among `_RANGES`: weights of losses."""

_LEAST_CROP = 8


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an unpaired translation is trained; JSON values. What is 0 and marked so is chosen by device and size of the images.

    Parameters
    ----------
    steps
        Batches trained on; 0: as many as the deadline allows.
    rate
        Learning rate until half-time; from there it falls to zero.
    batch
        Images of each domain in a batch of each process; 0: 1, as in the papers, or 2 for crops under 128 pixels.
    crop
        Side of random crops; 0: the images' own, at most `LARGEST_CROP`.
    zoom
        Crops are of sides between ``crop * exp(-zoom)`` and ``crop * exp(zoom)`` and brought to `crop`.
    vertical
        Flip upside down too.
    generator
        One of `GENERATORS`.
    width
        Channels of the generator's first layer; 0: 64 on a GPU, 16 on a processor.
    blocks
        Residual blocks of the ResNet generator; 0: on a GPU 9, or 6 for crops up to 128 pixels; 4 on a processor.
    residual
        See `oteo_translate.methods.unpaired.generators.Generator`.
    critic_width
        Channels of the discriminator's first layer; 0: 64 on a GPU, 16 on a processor.
    critic_layers
        1, 2 or 3; 0: by the crop.
    critic_norm
        Instance norm in the discriminator, as in the papers. It hides how bright and of what colour a patch is, but for the borders: measured on drawn
        cells, CycleGAN's and DualGAN's looks move home in half the steps without it, while CUT's wander.
    critic_rounds
        Steps of the discriminator for each of the generator.
    adversarial
        A key of `oteo_translate.methods.unpaired.losses.ADVERSARIAL`.
    cycle
        Weight of the way there and back.
    identity
        Weight of home's images being left as they are; in CUT, FastCUT and SinCUT of their patches, else in shares of `cycle`.
    pixels
        Weight of home's images being left as they are, pixel by pixel (SinCUT).
    contrast
        Weight of PatchNCE.
    patches
        Places compared by PatchNCE.
    vector
        Length of the vectors that it compares.
    equivariance
        Half the batches are shown in a mirror, and must be translated alike (FastCUT).
    penalty
        Weight of the discriminator's gradient at real images (Mescheder et al., ICML 2018), taken every 16 steps.
    structure
        Weight of edges staying where they are.
    task
        Weight of the frozen task model's self-similarities staying as they are; needs the model as a network.
    pool
        Drawn images kept for the discriminator; 0: none.
    average
        Share of the generator's moving average that is kept at each step at most.
    clip
        Gradients longer than this are shortened.
    inspect
        Steps between looks at whether the training is still of use; points of the curves, pictures and states come with them.
    precision
        One of `PRECISIONS`. auto: on a GPU bfloat16, or float16 where it has no bfloat16; on a processor float32 with `steps`, else whichever of
        float32 and bfloat16 is measured to be faster.
    processes
        Processes, each with a device of its own; 0: as many as GPUs where the device is ``"cuda"``, else 1.
    """

    steps: int = 0
    rate: float = 2e-4
    batch: int = 0
    crop: int = 0
    zoom: float = 0.0
    vertical: bool = True
    generator: str = "resnet"
    width: int = 0
    blocks: int = 0
    residual: bool = True
    critic_width: int = 0
    critic_layers: int = 0
    critic_norm: bool = False
    critic_rounds: int = 1
    adversarial: str = "least-squares"
    cycle: float = 10.0
    identity: float = 0.5
    pixels: float = 0.0
    contrast: float = 1.0
    patches: int = 256
    vector: int = 256
    equivariance: bool = False
    penalty: float = 0.0
    structure: float = 1.0
    task: float = 0.0
    pool: int = 50
    average: float = 0.999
    clip: float = 10.0
    inspect: int = 25
    precision: str = "auto"
    processes: int = 0

    def changed(self, parameters: Mapping[str, Any], name: str) -> Recipe:
        """Give the recipe with some parameters changed.

        Raises
        ------
        InvalidArgument
            ``BAD_PARAMETER``: unknown, of another type, or out of range.
        """
        made = replace(self, **Parameters(name, parameters).all(self._read))
        if 0 < made.crop < _LEAST_CROP:
            raise InvalidArgument(
                f"crop of {name} is {made.crop}; it has to be 0 or at least {_LEAST_CROP}",
                reason="BAD_PARAMETER",
                field=f"parameters.{name}.crop",
            )
        return made

    def _read(self, given: Parameters) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for field in fields(self):
            usual, (least, most) = getattr(self, field.name), _RANGES.get(field.name, _WEIGHTS)
            if isinstance(usual, bool):
                found[field.name] = given.flag(field.name, usual)
            elif isinstance(usual, str):
                found[field.name] = given.choice(field.name, usual, *(word for word in _WORDS[field.name] if word != usual))
            elif isinstance(usual, int):
                found[field.name] = given.count(field.name, usual, int(least), int(most))
            else:
                found[field.name] = given.number(field.name, usual, least, most)
        return found

    def settled(self, height: int, width: int, device: str, gpus: int) -> Recipe:
        """Choose what is left to device and size; of images `height` x `width`."""
        gpu = device.startswith("cuda")
        crop = self.crop or min(height, width, LARGEST_CROP)
        return replace(
            self,
            crop=crop,
            batch=self.batch or (2 if crop < 128 else 1),
            width=self.width or (64 if gpu else 16),
            blocks=self.blocks or ((6 if crop <= 128 else 9) if gpu else 4),
            critic_width=self.critic_width or (64 if gpu else 16),
            critic_layers=self.critic_layers or layers_for(crop),
            processes=self.processes or (max(1, gpus) if device == "cuda" else 1),
        )
