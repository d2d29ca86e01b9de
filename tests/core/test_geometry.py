"""Where a point of the original is in the prepared image: checked against what `prepare` really does."""

import numpy as np
import pytest

from oteo_core.images import InputPolicy, prepare
from oteo_core.images.geometry import place


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize(("width", "height"), [(200, 100), (100, 200), (96, 64), (33, 47)])
def test_a_bright_rectangle_is_found_where_the_geometry_says(resize: str, width: int, height: int) -> None:
    policy = InputPolicy(width=128, height=96, channels=1, resize=resize)
    pixels = np.zeros((height, width, 1), np.uint8)
    box = np.array([[width // 4, height // 3, width // 4 + width // 3, height // 3 + height // 2]], np.float32)
    x0, y0, x1, y1 = box[0].astype(int)
    pixels[y0:y1, x0:x1] = 255
    prepared = prepare(pixels, policy)[:, :, 0]
    rows, columns = np.nonzero(prepared >= 128)
    seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32)
    at = place(width, height, policy)
    assert np.abs(at.boxes_in(box)[0] - seen).max() <= 1.0
    assert np.abs(at.boxes_out(at.boxes_in(box)) - box).max() < 1e-3


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_a_mask_goes_in_and_comes_out_in_its_place(resize: str) -> None:
    policy = InputPolicy(width=128, height=96, channels=1, resize=resize)
    plane = np.zeros((70, 90), np.uint8)
    plane[20:50, 30:80] = 3
    at = place(90, 70, policy)
    inside = at.plane_in(plane, policy, outside=255)
    assert inside.shape == (96, 128)
    assert (inside == 255).any() == (resize == "letterbox")
    assert (at.plane_out(inside) == plane).mean() > 0.99
    values = at.values_out((inside == 3).astype(np.float32))
    assert ((values > 0.5) == (plane == 3)).mean() > 0.98
