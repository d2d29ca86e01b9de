"""Semantic segmentation: masks become targets, networks learn drawn discs, graphs answer as PyTorch does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from segment_sets import again, discs, exported, taught, write_set

from oteo_automl.candidates.augmenting import STRENGTHS
from oteo_automl.dense.base import DenseData, find_task
from oteo_automl.dense.segment.augmenting import LOOKS, Look, change_look, move
from oteo_automl.dense.segment.losses import cross_entropy_and_dice
from oteo_automl.dense.segment.networks import standardised
from oteo_automl.dense.segment.patches import Points
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetInfo, DatasetReader, DatasetWriter, MaskEncoding, Polygons, Rle, Sample
from oteo_core.datasets.runs import runs_from_mask
from oteo_core.errors import InvalidArgument
from oteo_core.images import InputPolicy
from oteo_core.packages.answers import IGNORED
from oteo_core.packages.decoding.semantic import clean_map, decode_class_maps

TASK = find_task("semantic_segmentation")


def two_classes(ids: np.ndarray) -> np.ndarray:
    """Bright discs 100, dark ones 200."""
    return np.where(ids == 0, 0, np.where(ids % 2 == 1, 100, 200)).astype(np.uint8)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("semantic")
    drawings = [discs(index, empty=index % 8 == 5) for index in range(32)]
    reader = write_set(
        folder / "store",
        drawings,
        task="semantic_segmentation",
        mask=MaskEncoding("class", (100, 200)),
        classes=("bright", "dark"),
        values=two_classes,
    )
    return taught(TASK, "unet-resnet18", reader, drawings, folder / "targets", epochs=9), folder


def test_discs_are_learnt(learnt):
    made, _ = learnt
    assert made.policy.width == made.policy.height == 64
    assert made.outcome.judgement.scores["dice"] > 0.9
    assert made.outcome.judgement.scores["iou"] > 0.8


def test_the_graph_answers_as_pytorch_and_in_original_pixels(learnt):
    made, folder = learnt
    session = exported(made.served, made.policy, folder)
    images = np.ascontiguousarray(made.images[made.held_out])
    with torch.inference_mode():
        expected = made.served.module(torch.from_numpy(images))
        assert torch.equal(again(made.served)(torch.from_numpy(images))[1], expected[1])
    for count in (1, 3):
        label_map, probabilities = session.run(None, {"image": images[:count]})
        assert label_map.dtype == np.uint8
        assert label_map.shape == (count, *made.served.outputs[0][1])
        assert probabilities.shape == (count, *made.served.outputs[1][1])
        assert np.abs(probabilities - expected[1][:count].numpy()).max() < 1e-4
        assert (label_map == expected[0][:count].numpy()).mean() > 0.999
    answers = TASK.answers({"probabilities": expected[1].numpy()}, [(64, 64)] * len(images), made.policy, made.served.decoding)
    truths = [made.data.truths(row) for row in made.held_out.tolist()]
    figures = {
        one.name: one
        for one in TASK.evaluate(truths, answers, ["bright", "dark"], groups=made.data.samples[: len(truths)], split="validation", seed=1)
        if not one.class_name
    }
    assert figures["dice"].value > 0.9
    assert figures["dice"].lower < figures["dice"].value
    assert made.served.calibration["ece_after"] <= max(0.02, made.served.calibration["ece_before"])


@pytest.mark.slow
def test_equal_seeds_give_equal_networks(learnt, tmp_path):
    drawings = [discs(index) for index in range(8)]
    reader = write_set(
        tmp_path / "store",
        drawings,
        task="semantic_segmentation",
        mask=MaskEncoding("class", (100, 200)),
        classes=("bright", "dark"),
        values=two_classes,
    )
    one, two = (taught(TASK, "unet-mobilenetv4_conv_small", reader, drawings, tmp_path / f"t{n}", epochs=1, seed=4) for n in range(2))
    pairs = zip(one.network.state_dict().values(), two.network.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("channels", [1, 6])
def test_other_channels_are_learnt_from(tmp_path, channels):
    drawings = [discs(index, channels=channels, side=32, count=2) for index in range(8)]
    reader = write_set(
        tmp_path / "store",
        drawings,
        task="semantic_segmentation",
        mask=MaskEncoding("class", (1,)),
        classes=("disc",),
        values=lambda ids: (ids > 0).astype(np.uint8),
    )
    made = taught(TASK, "unet-mobilenetv4_conv_small", reader, drawings, tmp_path / "targets", epochs=1)
    assert np.isfinite(made.outcome.judgement.loss)
    assert made.served.module(torch.from_numpy(made.images[:2]))[1].shape == (2, 2, 64, 64)


def test_numbers_of_masks_become_classes_and_what_nobody_knows_is_left_aside(tmp_path):
    store = ArtifactStore(str(tmp_path))
    numbers = np.zeros((20, 30, 1), np.uint8)
    numbers[2:8, 2:8], numbers[10:15, 2:8], numbers[10:15, 20:25], numbers[2:4, 20:22] = 7, 9, 255, 33
    info = DatasetInfo("m", task="semantic_segmentation", classes=("a", "never", "b"), mask=MaskEncoding("class", (7, 8, 9), (255,)))
    with DatasetWriter(store, "datasets/m", info) as writer:
        from oteo_core.images import encode_png

        mask = writer.add_media("m.png", encode_png(numbers))
        writer.add(
            Sample(
                "s", path=mask, sha256="1", width=30, height=20, channels=1, dtype="uint8", split="train", labels=("a", "b"), mask_path=mask
            )
        )
        writer.finish()
    data = TASK.read(DatasetReader(store, "m"))
    assert data.classes == ("a", "b")
    assert any("never" in why for why in data.left_out)
    truth = data.truths(0).labels
    assert {(int(truth[y, x])) for y, x in ((3, 3), (12, 3), (12, 22), (2, 20), (0, 0))} == {1, 2, IGNORED, 0}
    assert truth[12, 22] == truth[2, 20] == IGNORED
    policy = InputPolicy(64, 64, 1, resize="letterbox")
    (tmp_path / "t").mkdir()
    TASK.build_targets(data, policy, tmp_path / "t", lambda: None)
    prepared = TASK.open_targets(tmp_path / "t")[0]
    assert (prepared[:8] == IGNORED).all()
    probabilities = (np.arange(3)[:, None, None] == np.where(prepared == IGNORED, 0, prepared)).astype(np.float32)[None]
    answer = decode_class_maps({"probabilities": probabilities}, [(30, 20)], policy, {})[0].labels
    counted = truth != IGNORED
    assert answer.shape == truth.shape
    assert (answer[counted] == truth[counted]).mean() > 0.97


def test_outlines_and_runs_are_drawn_as_they_lie(tmp_path):
    store = ArtifactStore(str(tmp_path))
    runs = np.zeros((20, 30), np.uint8)
    runs[12:18, 5:10] = 1
    sample = Sample(
        "s",
        path="x",
        sha256="1",
        width=30,
        height=20,
        channels=1,
        dtype="uint8",
        split="train",
        polygons=(Polygons("a", ((2.0, 2.0, 12.0, 2.0, 12.0, 8.0, 2.0, 8.0),)),),
        rle=(Rle("b", 20, 30, runs_from_mask(runs)),),
    )
    bare = Sample("t", path="y", sha256="2", width=30, height=20, channels=1, dtype="uint8", split="train")
    with DatasetWriter(store, "datasets/p", DatasetInfo("p", task="instance_segmentation", classes=("a", "b"))) as writer:
        writer.add(sample)
        writer.add(bare)
        writer.finish()
    data = TASK.read(DatasetReader(store, "p"))
    labels = data.truths(0).labels
    assert (labels[2:8, 2:12] == 1).all()
    assert int((labels == 1).sum()) == 60
    assert (labels == 2).sum() == 30
    assert not data.truths(1).labels.any()
    objects = find_task("instance_segmentation").read(DatasetReader(store, "p")).truths(0)
    assert sorted(objects.labels.tolist()) == [0, 1]


def test_what_cannot_be_learnt_from_is_refused(tmp_path):
    store = ArtifactStore(str(tmp_path))
    boxes = Sample("s", path="x", sha256="1", width=30, height=20, channels=1, dtype="uint8", split="train", labels=("a",))
    with DatasetWriter(store, "datasets/b", DatasetInfo("b", task="classification", classes=("a",))) as writer:
        writer.add(boxes)
        writer.finish()
    with pytest.raises(InvalidArgument) as refusal:
        TASK.read(DatasetReader(store, "b"))
    assert refusal.value.reason == "WRONG_TASK"
    drawings = [discs(index, empty=True) for index in range(4)]
    reader = write_set(
        tmp_path / "e",
        drawings,
        task="semantic_segmentation",
        mask=MaskEncoding("class", (1,)),
        classes=("disc",),
        values=lambda ids: np.minimum(ids, 1).astype(np.uint8),
    )
    drawings[3] = discs(3)
    only_held_out = write_set(
        tmp_path / "f",
        drawings,
        task="semantic_segmentation",
        mask=MaskEncoding("class", (1,)),
        classes=("disc",),
        values=lambda ids: np.minimum(ids, 1).astype(np.uint8),
    )
    with pytest.raises(InvalidArgument) as refusal:
        TASK.read(only_held_out)
    assert refusal.value.reason == "NO_OBJECTS"
    del reader


def test_masks_move_with_pixels():
    generator = torch.Generator().manual_seed(1)
    pixels, ids = discs(2, side=64)
    planes = torch.from_numpy(np.stack([pixels] * 6)).permute(0, 3, 1, 2).float() / 255.0
    maps = torch.from_numpy(np.stack([ids.astype(np.int64)] * 6))
    # The image of the mask itself must lie where the mask is moved to.
    marked = torch.cat([planes, (maps > 0).float()[:, None]], dim=1)
    for look in (LOOKS["strong"], LOOKS["robust"]):
        moved, moved_maps, _ = move(marked, maps, look, generator)
        assert ((moved[:, 3] > 0.5) == (moved_maps > 0)).float().mean() > 0.99
        assert not torch.equal(moved_maps, maps)
        patch, patch_maps, _ = move(
            marked, maps, look, generator, patch=(32, 48), centres=torch.rand(6, 2, generator=generator), outside=-1
        )
        assert patch.shape[2:] == (32, 48)
        inside = patch_maps >= 0
        assert ((patch[:, 3] > 0.5) == (patch_maps > 0))[inside].float().mean() > 0.98


def test_no_change_is_the_identity_and_changes_stay_in_range():
    generator = torch.Generator().manual_seed(1)
    assert set(STRENGTHS) <= set(LOOKS)
    for channels in (1, 3, 6):
        planes = torch.rand(4, channels, 32, 32)
        maps = torch.randint(0, 3, (4, 32, 32))
        assert all(torch.equal(a, b) for a, b in zip(move(planes, maps, LOOKS["none"], generator)[:2], (planes, maps), strict=True))
        assert torch.equal(change_look(planes, LOOKS["none"], generator), planes)
        changed = change_look(planes, LOOKS["robust"], generator)
        assert changed.shape == planes.shape
        assert float(changed.min()) >= 0.0
        assert float(changed.max()) <= 1.0
        turned = move(planes, maps, Look(upright=False, degrees=0.0, scale=0.0), generator)
        # Quarter turns and mirrors only: every pixel value is still there.
        assert torch.allclose(turned[0].flatten(2).sort().values, planes.flatten(2).sort().values, atol=1e-4)


@pytest.mark.parametrize("name", sorted(LOOKS))
@pytest.mark.parametrize("channels", [1, 3])
def test_what_a_dim_image_shows_is_still_there_after_every_change_of_the_look(name, channels):
    # Fluorescence: a background of 2 % of the range and nuclei of 5 %.
    _, ids = discs(2, side=64)
    inside = torch.from_numpy(ids > 0)
    planes = torch.where(inside, 0.05, 0.02).float().expand(64, channels, 64, 64)
    changed = change_look(planes, LOOKS[name], torch.Generator().manual_seed(3)).mean(dim=1)
    contrast = changed[:, inside].mean(dim=1) - changed[:, ~inside].mean(dim=1)
    assert float(contrast.min()) > 0.3 * 0.03
    assert float(changed[:, inside].mean(dim=1).max()) < 0.25


def test_ignored_pixels_have_no_gradient():
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    maps = torch.randint(0, 3, (2, 8, 8))
    maps[:, :4] = IGNORED
    cross_entropy_and_dice(logits, maps).backward()
    assert not logits.grad[:, :, :4].any()
    assert logits.grad[:, :, 4:].any()
    logits.grad = None
    cross_entropy_and_dice(logits, torch.full_like(maps, IGNORED)).backward()
    assert not logits.grad.any()


def test_a_third_of_the_patches_hold_foreground_and_rare_classes_come_often():
    maps = np.zeros((30, 64, 64), np.uint8)
    maps[3, 60, 60] = 1
    rows = np.arange(30)
    points = Points(maps, rows)
    order = points.order(rows, 4, 0, 0)
    assert 0.2 < (order == 3).mean() < 0.5
    assert np.array_equal(order, points.order(rows, 4, 0, 0))
    centres = points.centres(np.full(300, 3), torch.Generator().manual_seed(0))
    on_it = (torch.abs(centres - torch.tensor([60.5 / 64, 60.5 / 64])) < 1e-4).all(dim=1).float().mean()
    assert 0.25 < float(on_it) < 0.42


def test_cleaning_keeps_the_largest_fills_holes_and_drops_specks():
    labels = np.zeros((40, 40), np.uint8)
    labels[5:25, 5:25] = 1
    labels[10:14, 10:14] = 0
    labels[16:20, 16:20] = 2
    labels[30:33, 30:33] = 1
    filled = clean_map(labels, {"fill_holes": [True, False]})
    assert (filled[10:14, 10:14] == 1).all()
    assert (filled[16:20, 16:20] == 2).all()
    assert not clean_map(labels, {"largest": [True, False]})[30:33, 30:33].any()
    assert not clean_map(labels, {"smallest": [10, 0]})[30:33, 30:33].any()
    # Twice as many original pixels along each side: the same speck has four times the area.
    assert clean_map(labels, {"smallest": [10, 0]}, scale=4.0)[30:33, 30:33].all()
    assert clean_map(labels, {"largest_foreground": True})[17, 17] == 2
    assert np.array_equal(clean_map(labels, {}), labels)


def test_large_images_are_learnt_from_patches_and_at_three_resolutions():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (2, 352, 352, 1), dtype=np.uint8)
    maps = (images[..., 0] > 128).astype(np.uint8)
    facts = TASK.facts(maps, np.arange(2), InputPolicy(352, 352, 1), 1)
    network = TASK.network(TASK.find("unet-mobilenetv4_conv_small"), 1, 1, [0.5], [0.2], facts).train()
    assert [tuple(one.shape) for one in network.levels(torch.zeros(1, 1, 64, 96))] == [(1, 2, 64, 96), (1, 2, 32, 48), (1, 2, 16, 24)]
    assert len(network.eval().levels(torch.zeros(1, 1, 64, 96))) == 1
    lesson = TASK.lesson(TASK.find("unet-resnet18"), images, maps, np.arange(2), np.arange(2), classes=1, facts=facts, seed=0)
    lesson.place(torch.device("cpu"))
    seen = []

    class Looking(torch.nn.Module):
        def levels(self, planes):
            seen.append(planes.shape)
            return network.train().levels(planes)

    recipe = TASK.recipe(TASK.find("unet-resnet18"), train_count=2, pretrained=False, gpu=False)
    loss = lesson.loss(Looking(), lesson.batch(np.arange(2)), recipe, torch.Generator().manual_seed(0))
    loss.backward()
    assert seen == [(2, 1, 256, 256)]
    assert all(parameter.grad is not None for parameter in network.deep_heads.parameters())
    assert len(lesson.order(0)) >= 64


def test_another_lamp_or_white_balance_changes_nothing_that_the_network_sees():
    generator = torch.Generator().manual_seed(0)
    planes = torch.rand((2, 3, 32, 48), generator=generator) * 0.5 + 0.2
    gain, offset = torch.tensor([0.6, 0.9, 1.1]).view(1, 3, 1, 1), torch.tensor([0.1, 0.0, -0.05]).view(1, 3, 1, 1)
    seen = standardised(planes)
    assert torch.allclose(standardised(planes * gain + offset), seen, atol=0.1)
    assert not torch.allclose(planes * gain + offset, planes, atol=0.1)
    # The bars of letterboxing do not count, and an image of one colour is no division by zero.
    boxed = torch.nn.functional.pad(planes, (0, 0, 8, 8))
    assert torch.allclose(standardised(boxed)[:, :, 8:-8], seen, atol=1e-4)
    for level in (0.0, 0.7):
        assert standardised(torch.full((1, 3, 32, 32), level)).abs().max() < 1e-3


def test_levels_that_may_be_measured_are_kept():
    maps = np.zeros((4, 32, 32), np.uint8)
    maps[:, 8:20, 8:20] = 1
    for dtype, channels, relative in (("uint8", 1, True), ("float32", 1, False), ("uint8", 3, False)):
        facts = TASK.facts(maps, np.arange(4), InputPolicy(32, 32, channels, dtype=dtype), 1)
        network = TASK.network(TASK.candidates[0], 1, channels, [0.3] * channels, [0.1] * channels, facts).eval()
        image = np.random.default_rng(0).uniform(60, 120, (1, 32, 32, channels)).astype(np.uint8)
        brighter = torch.from_numpy(image + 40)
        with torch.inference_mode():
            same = torch.allclose(network(torch.from_numpy(image)), network(brighter), atol=1e-3)
        assert same == relative


@pytest.mark.parametrize(
    ("sizes", "shape", "resize"),
    [
        ([(256, 256)] * 8 + [(520, 696)] * 2, 1.0, "letterbox"),
        ([(640, 480)] * 7 + [(480, 480)] * 3, 4 / 3, "letterbox"),
        ([(640, 480)] * 10, 4 / 3, "stretch"),
    ],
)
def test_images_of_several_shapes_get_an_input_that_most_of_them_fill(sizes, shape, resize):
    names = [str(index) for index in range(len(sizes))]
    data = DenseData(names, [], ("thing",), np.array(["train"] * len(sizes)), names, np.array(sizes), lambda _index: None)
    policy = TASK.policy(data, gpu=False, budget=3000.0, channels=1)
    assert policy.resize == resize
    assert policy.width / policy.height == pytest.approx(shape, rel=0.12)
