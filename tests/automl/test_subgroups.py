"""Parts that images fall into."""

from __future__ import annotations

from oteo_automl.judging.subgroups import divide
from oteo_core.datasets import Box, Sample


def _samples(count: int = 30, **fields) -> list[Sample]:
    def value(given, index):
        return given(index) if callable(given) else given

    usual = {"width": 100, "height": 100, "channels": 3, "dtype": "uint8", "split": "test", "labels": ("a",)}
    return [Sample(id=f"s{index}", **{name: value(given, index) for name, given in {**usual, **fields}.items()}) for index in range(count)]


def _parts(samples: list[Sample], asked: tuple[str, ...] = (), task: str = "detection") -> dict[tuple[str, str], int]:
    return {(part.kind, part.value): len(part.rows) for part in divide(samples, task, asked)[0]}


def test_images_that_are_all_alike_are_not_divided() -> None:
    assert _parts(_samples()) == {}
    assert _parts(_samples(), ("image_size", "sequence")) == {}
    _, remarks = divide(_samples(), "detection", ("image_size", "sequence"))
    assert len(remarks) == 2


def test_folders_begin_where_paths_differ() -> None:
    samples = _samples(source_path=lambda i: f"data/{('siteA', 'siteB')[i % 2]}/{i % 3}/{i}.png")
    assert _parts(samples)["source_folder", "data/siteA"] == 15
    assert _parts(_samples(source_path=lambda i: f"all/{i}.png")) == {}


def test_sizes_are_thirds_that_name_their_bounds() -> None:
    parts = _parts(_samples(width=lambda i: 1000 + 100 * i, height=1000))
    assert parts == {
        ("image_size", "up to 1.9 megapixels"): 10,
        ("image_size", "over 1.9 to 2.9 megapixels"): 10,
        ("image_size", "over 2.9 megapixels"): 10,
    }
    # Two sizes only: two parts, nothing in between.
    assert len(_parts(_samples(width=lambda i: 100 if i < 25 else 900))) == 2


def test_objects_are_counted_and_classes_may_share_an_image() -> None:
    box = Box("a", 0, 0, 5, 5), Box("b", 9, 9, 5, 5)
    samples = _samples(boxes=lambda i: box[: 1 + i % 2] * (1 + i // 10))
    parts = _parts(samples, ("class", "object_count"))
    assert parts["class", "a"] == 30
    assert parts["class", "b"] == 15
    assert sum(count for (kind, _), count in parts.items() if kind == "object_count") == 30


def test_too_many_parts_are_left_alone_unless_asked_for() -> None:
    samples = _samples(120, group=lambda i: f"patient{i % 60:02d}")
    assert _parts(samples) == {}
    parts, remarks = divide(samples, "classification", ("group",))
    assert len(parts) == 50
    assert "60 parts" in remarks[0]


def test_pixel_types() -> None:
    samples = _samples(dtype=lambda i: ("uint8", "uint16")[i % 2], channels=lambda i: (3, 1)[i % 2], bit_depth=lambda i: (0, 12)[i % 2])
    assert _parts(samples) == {("pixel_type", "colour, 8 bit"): 15, ("pixel_type", "grey, 12 bit"): 15}
