"""Pictures for the benchmarks of augmentation, as files that Oteo, CLoDSA and a hand-written loop all read.

Real ones (BCCD, DSB 2018) from the folder that OTEO_TEST_DATA names; drawn ones of the same sizes where it is absent.
"""

from __future__ import annotations

import os
import random
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Source:
    """A folder of images with annotations.

    Attributes
    ----------
    title
        What it is.
    folder
        Detection: PNG with a Pascal VOC file beside each. Segmentation: `images` and `labels`, PNG, nucleus 255.
    count
        Images.
    """

    title: str
    folder: Path
    count: int


def picture(index: int, height: int, width: int) -> NDArray[np.uint8]:
    """Draw a coloured, slightly noisy image (height, width, 3)."""
    rng = np.random.default_rng(index)
    coarse = rng.integers(40, 216, (12, 12, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


def _real(name: str) -> Path | None:
    folder = Path(os.environ.get("OTEO_TEST_DATA", "../shared/data")) / name
    return folder if folder.is_dir() else None


def _png(path: Path, bgr: NDArray[Any]) -> None:
    if not cv2.imwrite(str(path), bgr, [cv2.IMWRITE_PNG_COMPRESSION, 3]):
        raise SystemExit(f"{path} cannot be written")


def detection(folder: Path, count: int) -> Source:
    """Write blood smears of 640 x 480 pixels with boxes of their cells."""
    folder.mkdir(parents=True)
    real = _real("bccd")
    if real is None:
        for index in range(count):
            draw = random.Random(index)
            corners = [(draw.randint(0, 540), draw.randint(0, 380)) for _ in range(13)]
            _png(folder / f"{index:05}.png", picture(index, 480, 640))
            _voc(folder / f"{index:05}.xml", [("RBC", x, y, x + 90, y + 90) for x, y in corners])
        return Source(f"detection, {count} drawn images of 640 x 480 with 13 boxes each", folder, count)
    written = boxes = 0
    for path in sorted((real / "JPEGImages").glob("*.jpg")):
        found = []
        for item in ET.parse(real / "Annotations" / f"{path.stem}.xml").getroot().iter("object"):
            name, place = item.findtext("name", ""), item.find("bndbox")
            left, top, right, bottom = (int(place.findtext(k, "0")) for k in ("xmin", "ymin", "xmax", "ymax"))
            # An object of no area is Oteo's to report and CLoDSA's to draw as a line: left out for both.
            if right > left and bottom > top:
                found.append((name, left, top, right, bottom))
        pixels = cv2.imread(str(path))
        if not found or pixels.shape != (480, 640, 3):
            continue
        _png(folder / f"{path.stem}.png", pixels)
        _voc(folder / f"{path.stem}.xml", found)
        boxes += len(found)
        written += 1
        if written == count:
            break
    return Source(f"detection, {written} BCCD blood smears of 640 x 480 with {boxes / written:.0f} boxes each on average", folder, written)


def _voc(path: Path, objects: list[tuple[str, int, int, int, int]]) -> None:
    top = ET.Element("annotation")
    ET.SubElement(top, "filename").text = f"{path.stem}.png"
    size = ET.SubElement(top, "size")
    for name, value in (("width", 640), ("height", 480), ("depth", 3)):
        ET.SubElement(size, name).text = str(value)
    for name, *corners in objects:
        item = ET.SubElement(top, "object")
        ET.SubElement(item, "name").text = name
        box = ET.SubElement(item, "bndbox")
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
            ET.SubElement(box, key).text = str(value)
    path.write_bytes(ET.tostring(top))


def segmentation(folder: Path, count: int) -> Source:
    """Write stained nuclei of 256 x 320 pixels with masks, 0 and 255."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    (folder / "classes.txt").write_text("255 nucleus\n")
    real = _real("dsb2018_nuclei_compact/color_HE")
    if real is None:
        for index in range(count):
            draw = random.Random(index)
            mask = np.zeros((256, 320), np.uint8)
            for _ in range(25):
                cv2.circle(mask, (draw.randint(0, 319), draw.randint(0, 255)), draw.randint(5, 12), 255, -1)
            _png(folder / "images" / f"{index:05}.png", picture(index, 256, 320))
            _png(folder / "labels" / f"{index:05}.png", mask)
        return Source(f"segmentation, {count} drawn images of 320 x 256", folder, count)
    written = 0
    for path in sorted((real / "images").glob("*.png")):
        labels = cv2.imread(str(real / "labels" / path.name), cv2.IMREAD_UNCHANGED)
        pixels = cv2.imread(str(path))
        if labels is None or pixels.shape != (256, 320, 3):
            continue
        _png(folder / "images" / path.name, pixels)
        # Classes, not nuclei: CLoDSA reads masks as 8-bit colours, which would make 0 of every label under 256.
        _png(folder / "labels" / path.name, np.where(labels > 0, 255, 0).astype(np.uint8))
        written += 1
        if written == count:
            break
    return Source(f"segmentation, {written} DSB 2018 stained nuclei of 320 x 256", folder, written)
