"""The detector of text: print of several fonts and sizes is found where it stands, and pictures without print are left alone."""

from __future__ import annotations

from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from oteo_core.deidentification.text_in_pictures import find_text, find_text_in_frames

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
TEXTS = ("DOE^JANE 1970-01-31", "Müller, Hans", "ID 4711-0815")


def ground(kind: str, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "black":
        made = np.zeros((400, 400), np.uint8)
        cv2.circle(made, (200, 220), 120, 110, -1)
        return made
    if kind == "ramp":
        return np.add.outer(np.linspace(0, 80, 400), np.linspace(0, 80, 400)).astype(np.uint8)
    smooth = cv2.GaussianBlur(rng.normal(90, 60, (400, 400)).astype(np.float32), (0, 0), 3)
    return np.clip(smooth + rng.normal(0, 6, (400, 400)), 0, 200).astype(np.uint8)


def drawn(picture: np.ndarray, text: str, font: str, size: int, place: tuple[int, int] = (12, 14)) -> tuple[np.ndarray, tuple[int, ...]]:
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    letters = ImageFont.truetype(str(FONTS / font), size)
    draw.text(place, text, fill=255, font=letters)
    return np.array(image), tuple(int(v) for v in draw.textbbox(place, text, font=letters))


@pytest.mark.parametrize("size", [10, 12, 16, 24, 36, 48])
@pytest.mark.parametrize("kind", ["black", "ramp", "tissue"])
def test_print_is_found_where_it_stands(kind, size):
    for font in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSerif.ttf"):
        for text in TEXTS:
            picture, (left, upper, right, lower) = drawn(ground(kind), text, font, size)
            forms = (picture, 255 - picture, picture.astype(np.uint16) * 16, picture.astype(np.float32) - 1000)
            for shown in forms if (font, text) == ("DejaVuSans.ttf", TEXTS[0]) else forms[:1]:
                rows = [row for row in find_text(shown) if row.place.y < lower and row.place.x < min(right, 400)]
                assert rows, (font, text)
                covered = max(min(min(right, 400), row.place.x + row.place.width) - max(left, row.place.x) for row in rows)
                assert covered > 0.3 * (min(right, 400) - left), (font, text)
                assert all(row.place.y >= upper - size and row.letters >= 4 for row in rows), (font, text)


def test_print_of_stroked_fonts_and_in_colour():
    for font in (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_DUPLEX):
        picture = np.zeros((300, 400, 3), np.uint8)
        cv2.putText(picture, "PAT: DOE JANE", (20, 280), font, 1.0, (0, 220, 255), 1)
        assert [row for row in find_text(picture) if row.place.y > 240], font


def test_pictures_without_print_are_left_alone():
    for seed in range(6):
        for kind in ("black", "ramp", "tissue"):
            assert find_text(ground(kind, seed)) == ()
        rng = np.random.default_rng(seed)
        cells = np.full((300, 300), 200, np.uint8)
        for x, y, radius in rng.integers((0, 0, 5), (300, 300, 16), (60, 3)):
            cv2.circle(cells, (int(x), int(y)), int(radius), 40, -1)
        row = np.full((300, 300), 200, np.uint8)
        for x in range(20, 280, 24):
            cv2.circle(row, (x, 40), 7, 20, -1)
        assert find_text(cells) == ()
        assert find_text(row) == ()
        assert find_text(rng.integers(0, 255, (300, 300), dtype=np.uint8)) == ()


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (3, 900), (64, 64, 1), (64, 64, 5)])
def test_odd_shapes_and_values_are_borne(shape):
    assert find_text(np.zeros(shape, np.uint8)) == ()
    assert find_text(np.full(shape, np.nan, np.float32)) == ()


def test_of_several_frames_the_first_the_middle_and_the_last_count():
    stack = np.stack([ground("black")] * 9)
    assert find_text_in_frames(stack) == ()
    stack[8] = drawn(stack[8], TEXTS[0], "DejaVuSans.ttf", 20)[0]
    assert find_text_in_frames(stack)
    assert find_text_in_frames(stack[:0]) == ()


def test_real_pictures_without_print_are_left_alone(real_data):
    files = [path for name in ("bccd", "dsb2018_nuclei_compact", "isbi2012_em") for path in sorted((real_data / name).rglob("*"))]
    pictures = [path for path in files if path.suffix in (".png", ".jpg") and "label" not in str(path) and "mask" not in str(path)]
    chosen = pictures[:: max(1, len(pictures) // 60)]
    flagged = [path.name for path in chosen if find_text(np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))]
    assert len(chosen) >= 30
    assert flagged == []
