"""Published translators on stored images: size, depth and channels stay, annotations stay, and what cannot be translated is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from published_translators import cells, publish

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import Box, DatasetInfo, DatasetReader, DatasetWriter, Sample
from oteo_core.errors import FailedPrecondition, InvalidArgument, NotFound
from oteo_core.images import ImageLimits, encode_png, pixel_digest
from oteo_core.jobs.executor import InlineExecutor
from oteo_core.packages import MetricValue
from oteo_core.packages.translators import MODEL, MethodRecord, TranslatorPackage, delete_translator, list_translators, read_translator
from oteo_translate.translating.dataset import translate_dataset
from oteo_translate.translating.translator import open_translator


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(f"file://{tmp_path}")


class Keeper:
    """Checkpoints in memory; stops after so many."""

    def __init__(self, most: int = 1000) -> None:
        self.kept: dict[str, bytes] = {}
        self.most = most

    def save(self, name: str, data: bytes) -> None:
        if len(self.kept) >= self.most:
            raise KeyboardInterrupt
        self.kept[name] = data

    def load(self, name: str) -> bytes | None:
        return self.kept.get(name)

    def check(self) -> None:
        pass


def test_an_image_is_as_light_as_home_again_whatever_its_size_and_depth(store):
    publish(store)
    translator = open_translator(store, "translators/lighter")
    dark = np.rint(cells(1, size=61, first=200)[0] * 0.6)[:57]
    light = cells(1, size=61, first=200)[0][:57]
    found = translator.apply(dark.astype(np.uint8))
    assert found.shape == light.shape
    assert found.dtype == np.uint8
    assert abs(float(found.mean()) - float(light.mean())) < 6
    deep = translator.apply((dark * 16).astype(np.uint16), bit_depth=12)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 16.0 - found).max() <= 1.5
    floats = translator.apply((dark / 255).astype(np.float32))
    assert floats.dtype == np.float32
    assert np.abs(floats * 255 - found).max() <= 0.51


def test_grey_and_transparent_images_stay_what_they_are(store):
    publish(store)
    translator = open_translator(store, "lighter")
    dark = cells(1, gain=0.6)[0]
    grey = translator.apply(dark[:, :, :1])
    assert grey.shape == (48, 48, 1)
    assert grey.mean() > dark[:, :, :1].mean() + 10
    veil = np.arange(48 * 48, dtype=np.uint8).reshape(48, 48, 1)
    clear = translator.apply(np.concatenate([dark, veil], axis=2))
    assert np.array_equal(clear[:, :, 3:], veil)
    assert np.array_equal(clear[:, :, :3], translator.apply(dark))


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.zeros((20, 20, 5), np.uint8), "CHANNELS_MISMATCH"),
        (np.full((20, 20, 3), np.nan, np.float32), "NOT_FINITE"),
    ],
)
def test_images_that_it_was_not_made_for_are_refused(store, pixels, reason):
    publish(store)
    with pytest.raises(InvalidArgument) as refused:
        open_translator(store, "lighter").apply(pixels)
    assert refused.value.reason == reason


def test_what_was_rejected_is_used_by_those_alone_who_ask_for_it(store):
    publish(store, accepted=False)
    with pytest.raises(FailedPrecondition, match="no better"):
        open_translator(store, "lighter")
    assert open_translator(store, "lighter", allow_rejected=True).package.method == "moments"
    publish(store, "model-side", changes=MODEL)
    with pytest.raises(FailedPrecondition, match="leaves images as they are"):
        open_translator(store, "model-side", allow_rejected=True)


def test_a_manifest_is_read_as_it_was_written(store):
    gain = MetricValue("gain", 0.1, 0.05, 0.15, 0.95)
    record = MethodRecord("moments", {"scope": "domain"}, score=MetricValue("iou", 0.7), gain=gain, accepted=True, reason="good")
    package = publish(store, evidence=[record])
    assert replace(read_translator(store, "lighter"), package_uri="") == package
    publish(store, "another")
    assert [one.id for one in list_translators(store)] == ["another", "lighter"]
    assert delete_translator(store, "lighter")
    with pytest.raises(NotFound):
        read_translator(store, "translators/lighter")
    assert TranslatorPackage.from_json(package.to_json()) == package


@pytest.fixture
def dark(store: ArtifactStore) -> str:
    """A dataset of dark cells with boxes; one has five channels' worth of nonsense in a broken file, one is left out already."""
    with DatasetWriter(store, "datasets/dark", DatasetInfo("dark", task="detection", classes=("cell",), domain="north")) as writer:
        for index, pixels in enumerate(cells(70, gain=0.6)):
            content = encode_png(pixels)
            path = writer.add_media(f"{index}.png", content[:200] if index == 5 else content)
            sample = Sample(f"s{index}", path=path, pixel_digest=pixel_digest(pixels), width=48, height=48, channels=3, dtype="uint8")
            box = Box("cell", 10.0, 12.0, 20.0, 18.0)
            writer.add(replace(sample, split="test" if index % 5 == 0 else "train", group=f"g{index // 2}", boxes=(box,)))
        writer.add(Sample("gone", excluded=True))
        writer.finish()
    return "dark"


def made(store: ArtifactStore, source: str, staging: str, keeper: Keeper) -> DatasetReader:
    package = read_translator(store, "lighter")
    info = DatasetInfo("bright", uid="1", create_time="2026-01-01T00:00:00Z")
    translate_dataset(
        store,
        source,
        package,
        info,
        staging=staging,
        store_options={},
        limits=ImageLimits(),
        executor=InlineExecutor(),
        checkpoints=keeper,
        progress=lambda done, total: None,
    )
    return DatasetReader(store, "bright", prefix=staging)


def test_a_dataset_keeps_all_but_its_look(store, dark):
    publish(store)
    reader = made(store, dark, "staging/a", Keeper())
    before = {sample.id: sample for sample in DatasetReader(store, dark).samples(include_excluded=True)}
    after = {sample.id: sample for sample in reader.samples(include_excluded=True)}
    assert after.keys() == before.keys()
    assert {name for name, sample in after.items() if sample.excluded} == {"s5", "gone"}
    assert any("not translated" in finding.message for finding in after["s5"].findings)
    for name, sample in after.items():
        was = before[name]
        assert (sample.boxes, sample.split, sample.group) == (was.boxes, was.split, was.group)
        if not sample.excluded:
            assert reader.image(sample).pixels.mean() > DatasetReader(store, dark).image(was).pixels.mean() + 10
            assert json.loads(sample.provenance)["translator"] == "translators/lighter"
    assert reader.info.provenance["translator"]["accepted"] is True
    assert (reader.info.task, reader.info.sample_count) == ("detection", 69)


def test_killed_in_the_middle_it_ends_with_the_same_bytes(store, dark):
    publish(store)
    whole = made(store, dark, "staging/a", Keeper())
    keeper = Keeper(most=1)
    with pytest.raises(KeyboardInterrupt):
        made(store, dark, "staging/b", keeper)
    keeper.most = 1000
    again = made(store, dark, "staging/b", keeper)
    assert again.info.digest == whole.info.digest
    assert {entry.path.split("/", 2)[2] for entry in store.iter("staging/a")} == {e.path.split("/", 2)[2] for e in store.iter("staging/b")}
