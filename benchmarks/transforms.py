"""Throughput of single transforms on one core, against plain albumentations, torchvision v2 and kornia where each has the same.

    python benchmarks/transforms.py [--seconds 0.4] [--repeats 5]

An RGB image of 512 x 512, uint8, one thread for all libraries, an image at a time. Oteo: `augment_image`, which draws from a hash of sample and copy and
never changes its input. albumentations: the transform called with an array. torchvision: `transforms.v2` on a uint8 tensor (C, H, W). kornia: on a
float32 tensor (1, C, H, W), the only one it takes; it is made for batches on a GPU, which this is not. All draw anew for each image, within the same
ranges where the libraries' parameters allow it. Turns are taken; medians are printed, and ours' spread and ratios turn by turn.
"""

from __future__ import annotations

import os

# Before numpy and torch load: they read these once.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import argparse  # noqa: E402
import itertools  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from typing import Any  # noqa: E402

import albumentations  # noqa: E402
import augment_sources  # noqa: E402
import cv2  # noqa: E402
import kornia.augmentation as kornia  # noqa: E402
import torch  # noqa: E402
from augment_pool import FIXED  # noqa: E402
from measuring import ratio, spread  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

from oteo_core.augmentation import AugmentationKey, Policy, Step, augment_image  # noqa: E402

SIZE = 512


@dataclass(frozen=True)
class Row:
    """A transform of ours, and the same of the others; None where a library has none."""

    name: str
    given: dict[str, Any]
    torchvision: Any = None
    kornia: Any = None


def rows() -> list[Row]:
    """Give what is compared."""
    always = {"p": 1.0, "keepdim": False}
    degrees = {"degrees": (-10.0, 10.0), "translate": (0.05, 0.05), "scale": (0.9, 1.1)}
    return [
        Row("HorizontalFlip", {}, v2.RandomHorizontalFlip(1.0), kornia.RandomHorizontalFlip(**always)),
        Row("VerticalFlip", {}, v2.RandomVerticalFlip(1.0), kornia.RandomVerticalFlip(**always)),
        Row("RandomRotate90", {}, None, kornia.RandomRotation90((0, 3), **always)),
        Row(
            "Affine", {"rotate": (-10, 10), "scale": (0.9, 1.1), "translate_percent": (-0.05, 0.05)},
            v2.RandomAffine(**degrees, interpolation=v2.InterpolationMode.BILINEAR), kornia.RandomAffine(**degrees, **always),
        ),
        Row("Perspective", {"scale": (0.02, 0.06)}, v2.RandomPerspective(0.1, 1.0), kornia.RandomPerspective(0.1, **always)),
        Row("ElasticTransform", {}, v2.ElasticTransform(50.0, 9.0), kornia.RandomElasticTransform(sigma=(9.0, 9.0), alpha=(0.2, 0.2), **always)),
        Row(
            "RandomResizedCrop", {"height": 224, "width": 224, "area": (0.6, 1.0), "ratio": (0.85, 1.18)},
            v2.RandomResizedCrop(224, (0.6, 1.0), (0.85, 1.18)), kornia.RandomResizedCrop((224, 224), (0.6, 1.0), (0.85, 1.18), **always),
        ),
        Row(
            "RandomBrightnessContrast", {"brightness_limit": (-0.2, 0.2), "contrast_limit": (-0.2, 0.2)}, v2.ColorJitter(0.2, 0.2),
            kornia.ColorJitter(0.2, 0.2, **always),
        ),
        Row("RandomGamma", {"gamma_limit": (80, 120)}, None, kornia.RandomGamma((0.8, 1.2), **always)),
        Row(
            "ColorJitter", {"brightness": (1, 1), "contrast": (1, 1), "saturation": (0.8, 1.2), "hue": (-0.03, 0.03)},
            v2.ColorJitter(0, 0, 0.2, 0.03), kornia.ColorJitter(0.0, 0.0, 0.2, 0.03, **always),
        ),
        Row("Equalize", {}, v2.RandomEqualize(1.0), kornia.RandomEqualize(**always)),
        Row("CLAHE", {"clip_limit": (1, 2)}, None, kornia.RandomClahe((1.0, 2.0), **always)),
        Row("InvertImg", {}, v2.RandomInvert(1.0), kornia.RandomInvert(**always)),
        Row("ToGray", {}, v2.RandomGrayscale(1.0), kornia.RandomGrayscale(**always)),
        Row("GaussianBlur", {"sigma_limit": (0.3, 1.2)}, v2.GaussianBlur(9, (0.3, 1.2)), kornia.RandomGaussianBlur((9, 9), (0.3, 1.2), **always)),
        Row("MedianBlur", {}, None, kornia.RandomMedianBlur((5, 5), **always)),
        Row("MotionBlur", {"blur_limit": (3, 5)}, None, kornia.RandomMotionBlur((3, 5), 35.0, 0.5, **always)),
        Row("Sharpen", {"alpha": (0.05, 0.15)}, v2.RandomAdjustSharpness(1.5, 1.0), kornia.RandomSharpness(0.5, **always)),
        Row("GaussNoise", {"std_range": (0.02, 0.02)}, None, kornia.RandomGaussianNoise(0.0, 0.02, **always)),
        Row("SaltAndPepper", {"amount": (0.001, 0.01)}, None, kornia.RandomSaltAndPepperNoise((0.001, 0.01), **always)),
        Row("ImageCompression", {"quality_range": (50, 90)}, v2.JPEG((50, 90)), kornia.RandomJPEG((50.0, 90.0), **always)),
        Row("Erasing", {"scale": (0.01, 0.08), "ratio": (0.5, 2.0)}, v2.RandomErasing(1.0, (0.01, 0.08), (0.5, 2.0)),
            kornia.RandomErasing((0.01, 0.08), (0.5, 2.0), **always)),
        Row("StainJitter", {}),
        Row("BiasField", {}),
        Row("RicianNoise", {}),
        Row("LowDose", {}),
    ]  # fmt: skip


def plain(row: Row) -> Any:
    """Build albumentations' transform of the same name and parameters; None where it has none that takes them."""
    made = getattr(albumentations, row.name, None)
    renamed = {"Equalize": {}, "ElasticTransform": {"alpha": 50, "sigma": 9}, "MedianBlur": {"blur_limit": (3, 5)}}
    given = renamed.get(row.name, row.given)
    if row.name == "RandomResizedCrop":
        given = {"size": (224, 224), "scale": (0.6, 1.0), "ratio": (0.85, 1.18)}
    return None if made is None else made(**given, **FIXED.get(row.name, {}), p=1.0)


def rate(call: Callable[[], object], seconds: float) -> float:
    """Give calls for each second of processor time, which company on the machine disturbs less than the clock."""
    count, begin = 0, time.process_time()
    while (used := time.process_time() - begin) < seconds or count < 3:
        call()
        count += 1
    return count / used


def contenders(row: Row) -> dict[str, Callable[[], object]]:
    """Give each library's call for one image."""
    pixels = augment_sources.picture(1, SIZE, SIZE)
    whole = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    floating = (whole.float() / 255)[None]
    policy = Policy((Step(row.name, row.given, 1.0),))
    numbers = itertools.count()
    calls: dict[str, Callable[[], object]] = {"oteo": lambda: augment_image(pixels, policy, AugmentationKey("bench", next(numbers)))}
    alone = plain(row)
    if alone is not None:
        calls["albumentations"] = lambda: alone(image=pixels)
    if row.torchvision is not None:
        calls["torchvision"] = lambda: row.torchvision(whole)
    if row.kornia is not None:
        calls["kornia"] = lambda: row.kornia(floating)
    return calls


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.3, help="of each library, transform and repeat")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    libraries = ("albumentations", "torchvision", "kornia")
    print(f"load average before: {os.getloadavg()[0]:.1f}; images for each second of one core, {SIZE} x {SIZE} RGB\n")
    print("| transform | Oteo | " + " | ".join(f"{name} (Oteo is)" for name in libraries) + " |")
    print("|---" * (2 + len(libraries)) + "|")
    for row in rows():
        calls = contenders(row)
        found: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            call()
        for _ in range(given.repeats):
            for name, call in calls.items():
                found[name].append(rate(call, given.seconds))
        cells = [
            f"{sorted(found[name])[len(found[name]) // 2]:.0f} ({ratio(found['oteo'], found[name]):.2f}x)" if name in found else "-"
            for name in libraries
        ]
        print(f"| {row.name} | {spread(found['oteo'], 0)} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
