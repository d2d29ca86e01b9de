"""Bad pictures and annotations through the whole chain: import, audit, augment, preview, export. Each is told, and the rest is done."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from google.protobuf.json_format import ParseDict
from import_sources import picture, write_json
from PIL import Image

from oteo_augment.auditing import AuditPlan, audit_dataset
from oteo_augment.augmentation import AugmentationPlan, augment_dataset
from oteo_augment.augmentation.preview import preview_sheet
from oteo_augment.augmentation.requests import policy_from_proto
from oteo_augment.exporting import export_dataset
from oteo_augment.importing import SplitOptions
from oteo_core.artifacts import ArtifactStore
from oteo_core.augmentation import Policy, Step, check_policy, default_policy
from oteo_core.datasets import DatasetInfo, DatasetReader
from oteo_core.errors import InvalidArgument
from oteo_core.exports import FolderSink
from oteo_core.images import ImageLimits, encode_png
from oteo_core.jobs.executor import InlineExecutor
from oteo_protos.augment.v1 import augment_pb2

GOOD = 8
NO_SPLIT = SplitOptions(train=1.0, validation=0.0, test=0.0)
Object = dict[str, Any]


def box(x: float = 10, y: float = 8, width: float = 20, height: float = 16, **more: Any) -> Object:
    return {"bbox": [x, y, width, height], "area": width * height, "category_id": 1, **more}


def outline(*points: float) -> Object:
    return {**box(), "segmentation": [list(points)]}


def pillow(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def rgb(seed: int = 77) -> Image.Image:
    return Image.fromarray(picture(seed))


def turned() -> bytes:
    """Give a JPEG of 64 x 48 that EXIF turns to 48 x 64."""
    mark = Image.Exif()
    mark[0x0112] = 6
    return pillow(rgb(), "JPEG", exif=mark, quality=95)


def tiff(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, photometric="minisblack")
    return stream.getvalue()


def broken_float(value: float) -> bytes:
    pixels = picture(77)[:, :, 0].astype(np.float32) / 255
    pixels[20, 30] = value
    return tiff(pixels)


def palette() -> bytes:
    return pillow(rgb().quantize(16), "PNG")


FILES: dict[str, tuple[str, Callable[[], bytes], tuple[int, int, int] | str]] = {
    "1 pixel": ("x.png", lambda: encode_png(np.full((1, 1, 3), 90, np.uint8)), (1, 1, 3)),
    "4 channels": ("x.png", lambda: pillow(Image.fromarray(picture(77, channels=4), "RGBA"), "PNG"), (64, 48, 4)),
    "CMYK": ("x.jpg", lambda: pillow(rgb().convert("CMYK"), "JPEG"), (64, 48, 3)),
    "palette": ("x.png", palette, (64, 48, 3)),
    "EXIF": ("x.jpg", turned, (48, 64, 3)),
    "grey with alpha": ("x.png", lambda: pillow(rgb().convert("LA"), "PNG"), (64, 48, 2)),
    "NaN": ("x.tif", lambda: broken_float(np.nan), (64, 48, 1)),
    "infinite": ("x.tif", lambda: broken_float(np.inf), (64, 48, 1)),
    "truncated PNG": ("x.png", lambda: encode_png(picture(77))[:-900], "TRUNCATED_IMAGE"),
    "truncated JPEG": ("x.jpg", lambda: pillow(rgb(), "JPEG")[:900], "TRUNCATED_IMAGE"),
}
"""Name, content, and width, height, channels as they are read, or the reason why the image is left out."""

OBJECTS: dict[str, tuple[Object, list[str], int]] = {
    "outside": (box(200, 200), ["BOX_OUT_OF_IMAGE"], 0),
    "partly outside": (box(50, 8, 40, 16), ["BOX_OUT_OF_IMAGE"], 1),
    "two points": (outline(10, 8, 30, 24), ["BAD_ANNOTATION"], 1),
    "no area": (box(10, 8, 0, 16), ["ZERO_AREA_BOX"], 0),
    "self-crossing": (outline(10, 8, 30, 24, 30, 8, 10, 24), ["SELF_CROSSING_OUTLINE"], 1),
    "mask of another size": (
        {**box(), "segmentation": {"size": [10, 10], "counts": [20, 30, 50]}, "iscrowd": 0}, ["BAD_ANNOTATION"], 1,
    ),
}  # fmt: skip
"""The object, the findings of its sample, and how many objects are kept: a bad outline leaves the box that its file gives."""


def source(root: Path, name: str, data: bytes, size: tuple[int, int], objects: list[Object]) -> Path:
    """Write a COCO folder of good pictures and one more."""
    images, annotations = [], []
    for index in range(GOOD):
        (root / f"good{index}.png").parent.mkdir(parents=True, exist_ok=True)
        (root / f"good{index}.png").write_bytes(encode_png(picture(index)))
        images.append({"id": index, "file_name": f"good{index}.png", "width": 64, "height": 48})
        good = [outline(10, 8, 30, 8, 30, 24, 10, 24)] if any("segmentation" in thing for thing in objects) else [box()]
        annotations += [{**thing, "image_id": index} for thing in good]
    (root / name).write_bytes(data)
    images.append({"id": GOOD, "file_name": name, "width": size[0], "height": size[1]})
    annotations += [{**thing, "image_id": GOOD} for thing in objects]
    for number, thing in enumerate(annotations, start=1):
        thing.update(id=number, iscrowd=thing.get("iscrowd", 0))
    write_json(root / "coco.json", {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]})
    return root


class Kept(dict[str, bytes]):
    def save(self, name: str, data: bytes) -> None:
        self[name] = data

    def load(self, name: str) -> bytes | None:
        return self.get(name)

    def check(self) -> None:
        pass


def through_the_chain(store: ArtifactStore, folder: Path, policy: Policy) -> tuple[DatasetReader, int]:
    """Audit, augment and export the dataset `made`; give the augmented one and the samples that were exported."""
    outcome = audit_dataset(store, AuditPlan("made"), limits=ImageLimits())
    assert all(finding.message for finding in outcome.findings)
    reader = DatasetReader(store, "made")
    # A picture that cannot be shown leaves cells that say why; alone, it is refused by its name.
    assert preview_sheet(reader, policy, samples=GOOD + 1, copies=2, seed=0, limits=ImageLimits()).std() > 1
    augment_dataset(
        store,
        "made",
        AugmentationPlan(policy, copies=2),
        DatasetInfo("more", uid="u", create_time="2026-01-01T00:00:00+00:00"),
        staging="datasets/more",
        store_options={},
        limits=ImageLimits(),
        executor=InlineExecutor(),
        checkpoints=Kept(),
        progress=lambda done, total: None,
    )
    with FolderSink(folder / "out") as sink:
        exported = export_dataset(store, "more", "coco", sink, folder)
    return DatasetReader(store, "more"), exported.sample_count


@pytest.mark.parametrize("name", FILES)
def test_a_picture(name: str, tmp_path: Path, store, import_source) -> None:
    file, content, expected = FILES[name]
    size = (64, 48) if isinstance(expected, str) else expected[:2]
    objects = [box(0, 0, 1, 1)] if size == (1, 1) else [box()]
    (tmp_path / "s").mkdir()
    made = import_source(source(tmp_path / "s", file, content(), size, objects), split=NO_SPLIT)
    sample = made.samples[file]
    assert all(not other.excluded and not other.findings for path, other in made.samples.items() if path != file)
    if isinstance(expected, str):
        assert sample.excluded
        assert [f.code for f in sample.findings] == [expected]
        assert file in sample.findings[0].path
    else:
        assert not sample.excluded
        assert (sample.width, sample.height, sample.channels) == expected
        assert sample.boxes[0].x == objects[0]["bbox"][0], "annotations are made on the upright picture"
    refused = "TRANSFORM_NOT_DEFINED" if name in ("NaN", "infinite") else ""
    more, exported = through_the_chain(store, tmp_path, default_policy("detection"))
    copies = [row for row in more.samples() if row.derived_from]
    assert {row.derived_from for row in copies} >= {other.id for path, other in made.samples.items() if path != file}
    original = next(row for row in more.samples(include_excluded=True) if row.source_path == file and not row.derived_from)
    if not isinstance(expected, str):
        mine = [row for row in copies if row.derived_from == sample.id]
        assert [f.code for f in original.findings] == ([refused] if refused else [])
        assert len(mine) == (0 if refused else 2), "neither augmented nor said why"
        for row in mine:
            assert (row.channels, row.dtype) == (sample.channels, sample.dtype)
            assert more.image(row).pixels.shape == (row.height, row.width, row.channels)
    assert exported == more.info.sample_count


@pytest.mark.parametrize("name", OBJECTS)
def test_an_annotation(name: str, tmp_path: Path, store, import_source) -> None:
    thing, codes, kept = OBJECTS[name]
    (tmp_path / "s").mkdir()
    made = import_source(source(tmp_path / "s", "x.png", encode_png(picture(77)), (64, 48), [thing]), split=NO_SPLIT)
    assert all(not other.excluded and not other.findings for path, other in made.samples.items() if path != "x.png")
    sample = made.samples["x.png"]
    assert [f.code for f in sample.findings] == codes
    assert all(f.message and f.path for f in sample.findings)
    assert max(len(sample.boxes), len(sample.polygons), len(sample.rle)) == kept
    more, exported = through_the_chain(store, tmp_path, default_policy(made.info.task))
    assert exported == more.info.sample_count >= 3 * GOOD
    for row in more.samples():
        for found in row.boxes:
            assert found.x >= 0
            assert found.x + found.width <= row.width + 1e-6
            assert found.width > 0
            assert found.height > 0


POLICIES: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown transform": ({"steps": [{"transform": "HorizontalFlop"}]}, "UNKNOWN_TRANSFORM", "policy.steps[0].transform"),
    "unknown parameter": (
        {"steps": [{"transform": "GaussNoise", "parameters": {"strenght": 2}}]}, "BAD_PARAMETER", "policy.steps[0].parameters.strenght",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy(name: str) -> None:
    message, reason, field = POLICIES[name]
    with pytest.raises(InvalidArgument) as caught:
        policy_from_proto(ParseDict(message, augment_pb2.AugmentationPolicy()), "classification")
    assert (caught.value.reason, caught.value.field) == (reason, field)


OUT_OF_RANGE = {"GaussianBlur": {"sigma_limit": [-3, -1]}, "RandomBrightnessContrast": {"brightness_limit": "much"}}


@pytest.mark.parametrize("transform", OUT_OF_RANGE)
def test_a_parameter_out_of_range(transform: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_policy(Policy((Step("HorizontalFlip"), Step(transform, OUT_OF_RANGE[transform]))))
    assert caught.value.reason == "BAD_PARAMETER"
    assert (caught.value.field or "").startswith("policy.steps[1].parameters")


@pytest.mark.parametrize(
    ("pixels", "words"),
    [(picture(77, channels=4), "channels"), (picture(77).astype(np.uint16) * 257, "uint16")],
    ids=["channels", "depth"],
)
def test_a_transform_that_is_not_defined_for_one_picture(pixels: np.ndarray, words: str, tmp_path: Path, store, import_source) -> None:
    """That picture stays as it is and says why; the others are augmented."""
    (tmp_path / "s").mkdir()
    made = import_source(source(tmp_path / "s", "x.png", encode_png(pixels), (64, 48), [box()]), split=NO_SPLIT)
    more, exported = through_the_chain(store, tmp_path, Policy((Step("ChromaticAberration"),)))
    mine = [row for row in more.samples() if row.source_path == "x.png"]
    assert [row.id for row in mine] == [made.samples["x.png"].id]
    assert words in mine[0].findings[-1].message
    assert len([row for row in more.samples() if row.derived_from]) == 2 * GOOD
    assert exported == 3 * GOOD + 1


@pytest.mark.parametrize("name", ["NaN", "infinite"])
def test_numbers_that_are_none_are_named_by_the_audit(name: str, tmp_path: Path, store, import_source) -> None:
    file, content, _ = FILES[name]
    (tmp_path / "s").mkdir()
    made = import_source(source(tmp_path / "s", file, content(), (64, 48), [box()]), split=NO_SPLIT)
    found = audit_dataset(store, AuditPlan("made"), limits=ImageLimits()).findings
    told = [finding for finding in found if finding.code == "NOT_FINITE"]
    assert [finding.sample for finding in told] == [made.samples[file].id]
    assert "1 pixel" in told[0].message
