"""12-bit images in 16-bit PNGs, from import over augmentation to a model's input."""

from __future__ import annotations

import numpy as np
import pytest
from import_sources import class_folders

from oteo_augment.augmentation import AugmentationPlan, augment_dataset
from oteo_automl.search.data import read_table
from oteo_automl.search.fingerprint import choose_policy, take_fingerprint
from oteo_core.augmentation import default_policy
from oteo_core.datasets import DatasetInfo, DatasetReader
from oteo_core.images import ImageLimits, decode, encode_png, prepare
from oteo_core.jobs.executor import InlineExecutor


class Kept:
    """Checkpoints in memory."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}

    def save(self, name: str, data: bytes) -> None:
        self.data[name] = data

    def load(self, name: str) -> bytes | None:
        return self.data.get(name)

    def check(self) -> None:
        pass


def _slices(root, top):
    """Draw two classes of slices, values of 127 to at most `top`; one image alone reaches it."""
    generator = np.random.default_rng(5)
    rows, columns = np.mgrid[0:48, 0:48]
    for index in range(16):
        phase = generator.uniform(0, 6, 2)
        share = (np.sin(rows / (5 + index % 3) + phase[0]) * np.cos(columns / 6 + phase[1]) + 1) / 2
        highest = top if index == 3 else top * 0.42
        pixels = np.rint(127 + share / share.max() * (highest - 127)).astype(np.uint16)
        path = root / ("bright" if index % 2 else "dark") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(pixels[:, :, None]))
    return root


def test_one_depth_for_the_whole_dataset(tmp_path, import_source):
    made = import_source(_slices(tmp_path / "in", 2145))
    assert made.info.bit_depth == 12
    assert {sample.bit_depth for sample in made.samples.values()} == {10, 12}, "each image's own, by its largest value"
    assert {sample.dtype for sample in made.samples.values()} == {"uint16"}


def test_eight_bit_images_stay_eight(tmp_path, import_source):
    assert import_source(class_folders(tmp_path / "in", {"a": 8, "b": 8})).info.bit_depth == 8


@pytest.mark.parametrize(("top", "bits"), [(2145, 12), (60000, 16)])
def test_copies_and_inputs_keep_the_contrast(top, bits, tmp_path, import_source, store):
    made = import_source(_slices(tmp_path / "in", top))
    augment_dataset(
        store,
        made.info.id,
        AugmentationPlan(default_policy(), copies=6),
        DatasetInfo("more"),
        staging="datasets/more",
        store_options={},
        limits=ImageLimits(),
        executor=InlineExecutor(),
        checkpoints=Kept(),
        progress=lambda done, total: None,
    )
    augmented = DatasetReader(store, "more")
    assert augmented.info.bit_depth == bits
    originals = {s.id: s for s in augmented.samples() if not s.derived_from}
    copies = [s for s in augmented.samples() if s.derived_from]
    assert len(copies) >= 30
    kept = 0
    for copy in copies:
        pixels = decode(augmented.read_media(copy)).pixels
        before = decode(augmented.read_media(originals[copy.derived_from])).pixels
        assert int(pixels.max()) < 1 << bits
        kept += bool(np.ptp(pixels) > np.ptp(before) / 2)
    # The drawn slices are dark, so a strong loss of brightness darkens some more, as it would with 8 bits.
    assert kept > 0.85 * len(copies), f"{len(copies) - kept} of {len(copies)} copies are all but blank"

    data, samples = read_table(made.reader)
    policy = choose_policy(take_fingerprint(data), gpu=False, budget=60)
    assert policy.bit_depth == bits
    seen = max(float(prepare(made.reader.image(sample).pixels, policy).max()) for sample in samples)
    assert seen == pytest.approx(top / ((1 << bits) - 1), abs=0.05)
