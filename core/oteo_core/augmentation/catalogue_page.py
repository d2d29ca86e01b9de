"""Writes the catalogue's page, with a picture of every transform: ``python -m oteo_core.augmentation.catalogue_page docs``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.applying import augment
from oteo_core.augmentation.catalogue import CATALOGUE, PIXEL_TYPES, TransformSpec
from oteo_core.augmentation.catalogue.agreement import KINDS, Bound
from oteo_core.augmentation.catalogue.parameters import Parameter
from oteo_core.augmentation.keys import AugmentationKey
from oteo_core.augmentation.moving import Annotations
from oteo_core.augmentation.policy import Policy, Step
from oteo_core.datasets.annotations import Polygons
from oteo_core.sampledata import draw_cell

PAGE = "transforms.md"
FOLDER = "transforms"
SIDE = 112
"""Side of a picture in pixels."""
_DRAWS = 2
_QUALITY = 78
_GROUP = "Microscopes, computed tomography and magnetic resonance"
_SMALLER = {"RandomCrop": 80, "CenterCrop": 80, "RandomResizedCrop": 112, "Resize": 80, "LongestMaxSize": 80, "SmallestMaxSize": 80}
"""Sizes for the pictures, whose original is smaller than the defaults."""

_HEAD = """# The transforms

<!-- Written by `python -m oteo_core.augmentation.catalogue_page docs`; change the catalogue, not this page. -->

A policy's steps name these transforms. `oteo augment transforms` lists them, `oteo augment transforms NAME` shows one, and `ListTransforms` gives them
with a JSON schema of their parameters. A range `[lowest, highest]` is what each image's own value is drawn from; the defaults are chosen so that a person still
gives every image its old label. A value outside what is allowed is refused before the work begins.

Every transform keeps the type of the pixels and the number of channels. One that is not defined for an image's pixels is refused with the
reason, or left out where the step is optional: none casts to 8 bits in silence. "finite" are floating-point pixels of any finite values, "0 to 1" floating-point pixels
within that range.

In the pictures the drawn original stands on the left, and two draws with the defaults beside it.

"""

_TAIL = """
## What is not here, and why

- **Background replacement** of CLoDSA: it needs to know what is background, and a wrong guess makes a wrong picture with a right label. All other
  30 techniques of CLoDSA are here under its own names (as aliases, or as transforms of their own).
- **albumentations' distortions** `GridDistortion`, `PiecewiseAffine`, `ThinPlateSpline`, `GridElasticDeform` and `RandomGridShuffle`: their points and masks lie up to two
  pixels and more beside the image. Oteo's own `ElasticTransform` and `OpticalDistortion` invert their field instead, so that all three agree.
- **albumentations' `SafeRotate`** changes the image at an angle of 0; `ShiftScaleRotate` is `Affine`; `RandomSizedCrop`, `CropAndPad`, `Pad` and `PadIfNeeded` take masks half a pixel off or
  make up a frame that a model would learn.
- **Cast to 8 bits**: albumentations' `HueSaturationValue`, `Posterize`, `AutoContrast`, `Equalize`, `CLAHE`, `MedianBlur`, `Downscale`, `Superpixels`, `RandomShadow` and `RandomFog` compute in
  8 bits whatever comes in. Where the effect is wanted, Oteo has its own for all depths under the same or a plainer name.
- **`PlasmaShadow` and `PlasmaBrightnessContrast`** change neighbouring pixels apart, like noise, instead of in clouds.
- **No image of a clinic or a laboratory**: rain, snow, sun flares, gravel, fog, spatter, text, sepia, solarising, embossing, shuffled channels, frosted glass.
- **`FancyPCA`** has no colours of its own to go by in an image of one colour, and fails; `ColorShift` does without.
- **`HEStain`**: `StainJitter` does the same from the literature's model, and is the identity at no strength.
"""


def page() -> str:
    """Give the page's text."""
    parts = [_HEAD, "| transform | other names | moves pixels | pixels | channels | second engine |\n|---|---|---|---|---|---|\n"]
    for spec in CATALOGUE.values():
        moved = "mirrors" if spec.mirrors else "moves" if spec.geometric else ""
        parts.append(
            f"| [`{spec.name}`](#{spec.name.lower()}) | {', '.join(f'`{alias}`' for alias in spec.aliases)} | {moved}"
            f" | {_pixels(spec)} | {_channels(spec)} | {spec.agreement.name if spec.agreement else ''} |\n"
        )
    parts.append(_engines())
    group = ""
    for spec in CATALOGUE.values():
        if spec.group != group:
            group = spec.group
            parts.append(f"\n## {group}\n")
        parts.append(_section(spec))
    return "".join(parts) + _TAIL


def picture(spec: TransformSpec) -> NDArray[np.uint8]:
    """Draw an original and, beside it, what a transform makes of it.

    Returns
    -------
    numpy.ndarray
        ``(SIDE, 3 * SIDE, 3)``, uint8, BGR.
    """
    original: NDArray[Any] = draw_cell(4, size=SIDE)[0][:, :, ::-1]
    hounsfield = spec.pixel_types == ("float32",)
    if spec.group == _GROUP and spec.channels != frozenset({3}) and spec.name != "Vignette":
        original = original[:, :, 1:2]
    if hounsfield:
        original = original.astype(np.float32) / 255 * 400 - 160
    given = {name: _SMALLER[spec.name] for name in ("height", "width", "max_size") if name in spec.options}
    policy = Policy((Step(spec.name, given),))
    # The cell is the object, for what needs one.
    middle = Annotations(polygons=(Polygons("cell", (_outline(original),)),)) if spec.needs_objects else None
    copies = (augment(np.ascontiguousarray(original), policy, AugmentationKey("page", copy), middle) for copy in range(_DRAWS))
    tiles = [original, *(copy.pixels for copy in copies)]
    return np.concatenate([_tile(tile, hounsfield) for tile in tiles], axis=1)


def _outline(original: NDArray[Any]) -> tuple[float, ...]:
    """Give the outline of the largest dark patch of a drawn cell."""
    dark = cv2.threshold(np.ascontiguousarray(original[:, :, 1]), 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)[1]
    largest = max(cv2.findContours(dark, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0], key=cv2.contourArea)
    return tuple(float(value) + 0.5 for value in largest.ravel())


def write(docs: Path) -> None:
    """Write page and pictures into the folder of the documents."""
    folder = docs / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for spec in CATALOGUE.values():
        stored = cv2.imencode(".jpg", picture(spec), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1])[1]
        (folder / f"{spec.name}.jpg").write_bytes(stored.tobytes())
    for stale in set(folder.glob("*.jpg")) - {folder / f"{name}.jpg" for name in CATALOGUE}:
        stale.unlink()
    (docs / PAGE).write_text(page(), encoding="utf-8")


def _tile(pixels: NDArray[Any], hounsfield: bool) -> NDArray[np.uint8]:
    if hounsfield:
        pixels = np.clip(np.rint((pixels + 160) / 400 * 255), 0, 255).astype(np.uint8)
    height, width = (min(side, SIDE) for side in pixels.shape[:2])
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    tile = np.full((SIDE, SIDE, 3), 255, np.uint8)
    # A result that is larger than the tile is shown by its middle.
    y, x = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    tile[top : top + height, left : left + width] = pixels[y : y + height, x : x + width, ::-1]
    return tile


def _engines() -> str:
    lines = [
        "\nThe first engine, on the processor, has all of them. Where the last column has a word the second one, for batches on a graphics processor, has it too: it gets "
        "the same draws, moves annotations alike, and its pixels differ by at most this, in 255ths of the full range (255ths are grey levels of 8 bits):\n\n"
        "| word | 8 bits | 16 bits and floating point | why |\n|---|---|---|---|\n"
    ]
    lines += [f"| {kind.name} | {_bound(kind.eight)} | {_bound(kind.deep)} | {kind.reason} |\n" for kind in KINDS]
    return "".join(lines)


def _bound(bound: Bound) -> str:
    if bound.far == 0:
        return "0"
    beyond = f", {bound.share:.1%} of the values more" if bound.share else ""
    return f"mean {bound.mean:g}, each {bound.far:g}{beyond}"


def _section(spec: TransformSpec) -> str:
    lines = [f"\n### {spec.name}\n\n{spec.summary}"]
    if spec.source:
        lines.append(f" ({spec.source})")
    lines.append(f"\n\n![{spec.name}: the original and two draws]({FOLDER}/{spec.name}.jpg)\n")
    if spec.options:
        lines.append("\n| parameter | default | allowed | what it is |\n|---|---|---|---|\n")
        lines += [_row(name, parameter) for name, parameter in spec.options.items()]
    return "".join(lines)


def _row(name: str, parameter: Parameter) -> str:
    unit = f" ({parameter.unit})" if parameter.unit else ""
    allowed = ", ".join(f"`{word}`" for word in parameter.choices) or parameter.allowed
    return f"| `{name}` | {shown(parameter.default)} | {allowed} | {parameter.description}{unit} |\n"


def shown(value: Any) -> str:
    """Give a default as it is written in a policy."""
    if isinstance(value, tuple):
        return f"[{', '.join(shown(item) for item in value)}]"
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _pixels(spec: TransformSpec) -> str:
    if spec.pixel_types != PIXEL_TYPES:
        return ", ".join({"uint8": "8 bits", "uint16": "16 bits", "float32": "floating point"}[name] for name in spec.pixel_types)
    return "8 and 16 bits, 0 to 1" if spec.unit_range else "8 and 16 bits, finite" if spec.mixes else "all"


def _channels(spec: TransformSpec) -> str:
    return ", ".join(map(str, sorted(spec.channels))) or "any"


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
