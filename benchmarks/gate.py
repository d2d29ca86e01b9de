"""How rare a spoiling the gate sees: honest translations of real images, spoilt on purpose in some of them.

    python benchmarks/gate.py wbc-1-2 wbc-2-1 dsb --side 128

Images come from the folder that `OTEO_TEST_DATA` names. Methods without training translate them; then a cell is erased (painted over by its surroundings), a
cell of another image is added, or the image is mirrored. Structure is compared once for each image; a draw of images of which a share is spoilt is then
accepted or rejected as `oteo_translate.ladder.rare` does. The peer is the gate without it: rejected where more than a tenth of the images have a bad place.
"""

from __future__ import annotations

import argparse
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from translate import PAIRS, _truth

from oteo_core.images import InputPolicy, prepare
from oteo_translate.domains import Domain
from oteo_translate.ladder.anatomy import MOST_SPOILT, WORST_PLACE, translate
from oteo_translate.ladder.rare import RUINED_PLACE, allowed, needed
from oteo_translate.ladder.structure import compare_structure
from oteo_translate.methods.base import TRAINING_FREE, FitContext
from oteo_translate.methods.registry import METHODS

SHARES = (0.02, 0.05, 0.10, 1.0)
COUNTS = (32, 64, 236, 400)
DRAWS = 500
LEAST_AREA = 25


def _objects(mask: NDArray[Any]) -> tuple[NDArray[Any], list[int]]:
    numbers, _ = ndimage.label(mask > 0)
    sizes = np.bincount(numbers.ravel())
    return numbers, [place for place in range(1, len(sizes)) if sizes[place] >= LEAST_AREA]


def erase(image: NDArray[Any], mask: NDArray[Any], rng: np.random.Generator) -> NDArray[Any] | None:
    """Paint one cell over by what surrounds it, with the noise of a camera."""
    numbers, found = _objects(mask)
    if not found:
        return None
    gone = ndimage.binary_dilation(numbers == rng.choice(found), iterations=3)
    painted = cv2.inpaint(np.ascontiguousarray(image), gone.astype(np.uint8), 5, cv2.INPAINT_TELEA)
    return np.clip(painted + rng.normal(0, 2, painted.shape) * gone[..., None], 0, 255).astype(np.uint8)


def add(
    image: NDArray[Any], mask: NDArray[Any], donors: list[tuple[NDArray[Any], NDArray[Any]]], rng: np.random.Generator
) -> NDArray[Any] | None:
    """Put a cell of another image where none is, with a soft border."""
    for _ in range(20):
        other, others = donors[int(rng.integers(len(donors)))]
        numbers, found = _objects(others)
        if not found:
            continue
        shape = ndimage.binary_dilation(numbers == rng.choice(found), iterations=2)
        rows, columns = np.nonzero(shape)
        cut = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
        height, width = shape[cut].shape
        top, left = int(rng.integers(0, image.shape[0] - height + 1)), int(rng.integers(0, image.shape[1] - width + 1))
        place = slice(top, top + height), slice(left, left + width)
        if (mask[place] > 0)[shape[cut]].mean() > 0.3:
            continue
        weight = cv2.GaussianBlur(shape.astype(np.float32), (0, 0), 1)[cut][..., None]
        made = image.astype(np.float32)
        made[place] = made[place] * (1 - weight) + other[cut] * weight
        return made.astype(np.uint8)
    return None


def measure(pair: str, side: int, count: int) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """Give the worst place of each image: of honest methods by name, and of spoilt translations by what was done."""
    policy = InputPolicy(width=side, height=side, channels=3, resize="letterbox")
    images = PAIRS[pair](0)
    rng = np.random.default_rng(1)
    rows = [np.sort(rng.permutation(np.flatnonzero(images.parts == part))[:count]) for part in ("shifted", "train")]
    shifted, home = (
        Domain(
            name, np.stack([prepare(images.pixels[row], policy) for row in some]), [str(row) for row in some], [str(row) for row in some]
        )
        for name, some in zip(("shifted", "home"), rows, strict=True)
    )
    masks = [(_truth(images, int(row), policy).labels == 1).astype(np.uint8) for row in rows[0]]
    honest: dict[str, NDArray[np.float64]] = {}
    spoilt: dict[str, list[float]] = {}
    for name, method in METHODS.items():
        if method.kind != TRAINING_FREE:
            continue
        for setting in method.grid():
            after = translate(method.fit(shifted, home, setting, FitContext(seed=0)).eval(), shifted.images)
            honest[f"{name} {setting}"] = compare_structure(shifted.images, after).worst
            if name not in ("moments", "fda") or setting != method.grid()[0]:
                continue
            donors = list(zip(after, masks, strict=True))
            for what in ("erased", "added", "mirrored"):
                made = [
                    image[:, ::-1] if what == "mirrored" else erase(image, mask, rng) if what == "erased" else add(image, mask, donors, rng)
                    for image, mask in donors
                ]
                kept = [place for place, one in enumerate(made) if one is not None]
                if kept:
                    worst = compare_structure(shifted.images[kept], np.stack([made[place] for place in kept])).worst
                    spoilt.setdefault(what, []).extend(worst.tolist())
    return honest, {what: np.array(values) for what, values in spoilt.items()}


def rejected(
    honest: NDArray[np.float64], spoilt: NDArray[np.float64], share: float, count: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Give the share of draws that are rejected, now and without the test for rare spoiling; a draw without any spoilt image does not count."""
    now = before = draws = 0
    while draws < DRAWS:
        struck = rng.random(count) < share
        if not struck.any():
            continue
        draws += 1
        worst = np.where(struck, rng.choice(spoilt, count), rng.choice(honest, count))
        common = (worst > WORST_PLACE).mean() > MOST_SPOILT
        before += common
        now += common or (worst > RUINED_PLACE).sum() > allowed(count)
    return now / DRAWS, before / DRAWS


def main() -> None:
    """Read the command line and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", choices=sorted(PAIRS))
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--count", type=int, default=60, help="images of each domain")
    arguments = parser.parse_args()
    print("images needed, to reject with .95: " + ", ".join(f"{share:.0%}: {needed(share)}" for share in SHARES))
    for pair in arguments.pairs:
        honest, spoilt = measure(pair, arguments.side, arguments.count)
        print(
            f"\n{pair}: honest ways, worst place (median, largest), share of images beyond {RUINED_PLACE:g}, passes the gate's share of bad places"
        )
        for name, worst in honest.items():
            passes = (worst > WORST_PLACE).mean() <= MOST_SPOILT
            print(f"| {name} | {np.median(worst):.2f} | {worst.max():.2f} | {(worst > RUINED_PLACE).mean():.3f} | {passes} |", flush=True)
        usual = next(iter(honest.values()))
        rng = np.random.default_rng(0)
        print("| spoilt | worst place, least | seen | share | " + " | ".join(f"{count} images (before)" for count in COUNTS) + " |")
        for what, worst in spoilt.items():
            for share in SHARES:
                cells = " | ".join("{:.2f} ({:.2f})".format(*rejected(usual, worst, share, count, rng)) for count in COUNTS)
                print(f"| {what} | {worst.min():.2f} | {(worst > RUINED_PLACE).mean():.2f} | {share:.0%} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
