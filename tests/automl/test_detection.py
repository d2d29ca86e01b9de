"""Detection: from annotations to boxes, a detector that learns, and a graph that answers as the network does."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from detection_sets import discs
from waiting import patient

from oteo_automl.candidates.augmenting import STRENGTHS
from oteo_automl.candidates.modules import dump_module, load_module
from oteo_automl.candidates.training import Recipe, Trainer
from oteo_automl.dense.base import DenseCandidate, Served, find_task
from oteo_automl.dense.detect.augmentation import BoxStrength, augment, box_strength, has_up
from oteo_automl.dense.detect.calibration import Platt, best_thresholds, calibrate, judge_answers, log_odds
from oteo_automl.dense.detect.centre import aims
from oteo_automl.dense.detect.targets import batch_boxes, table_of
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetInfo, DatasetReader, DatasetWriter, Sample
from oteo_core.datasets.annotations import Box, Polygons, Rle
from oteo_core.errors import InvalidArgument
from oteo_core.images import InputPolicy, encode_png, prepare
from oteo_core.packages import Detections, TrueBoxes
from oteo_core.packages.decoding.detection import confident, decode_detections, suppress

TASK = find_task("detection")
TINY = DenseCandidate("centre-tiny", "resnet10t", "centre", rate=2e-3)
POLICY = InputPolicy(width=64, height=64)


def boxes(*rows: tuple[float, ...], labels: tuple[int, ...] = (), crowd: tuple[bool, ...] = ()) -> TrueBoxes:
    count = len(rows)
    return TrueBoxes(
        np.array(rows, np.float32).reshape(-1, 4),
        np.array(labels or (0,) * count, np.int64),
        np.array(crowd or (False,) * count, np.bool_),
    )


def write_dataset(tmp_path: Path, samples: list[Sample], classes: tuple[str, ...]) -> DatasetReader:
    store = ArtifactStore(str(tmp_path))
    with DatasetWriter(store, "datasets/d", DatasetInfo(id="d", display_name="d", task="detection", classes=classes)) as writer:
        media = writer.add_media("a.png", encode_png(np.zeros((40, 60, 3), np.uint8)))
        for sample in samples:
            sample.path, sample.width, sample.height, sample.channels, sample.dtype = media, 60, 40, 3, "uint8"
            writer.add(sample)
        writer.finish()
    return DatasetReader(store, "d")


def test_objects_of_every_kind_become_boxes_and_odd_ones_are_named(tmp_path):
    mask = np.zeros((40, 60), np.uint8)
    mask[5:9, 10:20] = 1
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = tuple(int(n) for n in np.diff(np.r_[0, edges, flat.size]))
    reader = write_dataset(
        tmp_path,
        [
            Sample("a", split="train", group="g", boxes=(Box("cell", 2, 3, 10, 12), Box("cell", 5, 5, 0, 4), Box("cell", 50, 30, 30, 30))),
            Sample("b", split="train"),
            Sample("c", split="train", polygons=(Polygons("blob", ((1.0, 2.0, 9.0, 2.0, 9.0, 8.0),)),), rle=(Rle("blob", 40, 60, counts),)),
            Sample("d", split="test", boxes=(Box("rare", 1, 1, 5, 5), Box("cell", 1, 1, 5, 5, crowd=True))),
            Sample("e", boxes=(Box("cell", 1, 1, 5, 5),)),
            Sample("f", split="train", labels=("cell",)),
        ],
        ("cell", "blob", "rare"),
    )
    data = TASK.read(reader)
    assert data.classes == ("cell", "blob")
    assert data.samples == ["a", "b", "c", "d"]
    assert data.groups == ["g", "b", "c", "d"]
    # The box without area is gone, the one that sticks out is cut off.
    assert data.truths(0).boxes.tolist() == [[2, 3, 12, 15], [50, 30, 60, 40]]
    assert len(data.truths(1).labels) == 0
    assert data.truths(2).boxes.tolist() == [[1, 2, 9, 8], [10, 5, 20, 9]]
    assert data.truths(2).labels.tolist() == [1, 1]
    assert data.truths(3).crowd.tolist() == [True]
    assert data.left_out == {
        "in no part": 1,
        "with a class for the whole image and no object": 1,
        "objects of a class without training objects": 1,
    }


def test_a_dataset_without_training_objects_is_refused(tmp_path):
    reader = write_dataset(tmp_path, [Sample("a", split="train"), Sample("b", split="test", boxes=(Box("cell", 1, 1, 5, 5),))], ("cell",))
    with pytest.raises(InvalidArgument, match="no training image with a box") as caught:
        TASK.read(reader)
    assert caught.value.reason == "NO_OBJECTS"


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_boxes_lie_around_the_same_pixels_after_preparation_and_come_back(tmp_path, resize):
    policy = InputPolicy(width=96, height=64, resize=resize)
    original = np.zeros((80, 60, 3), np.uint8)
    original[20:40, 10:40] = 255
    rows = [Sample("a", split="train", width=60, height=80, boxes=(Box("cell", 10, 20, 30, 20),))]
    data = TASK.read(write_dataset(tmp_path / "d", [Sample("a", split="train", boxes=(Box("cell", 10, 20, 30, 20),))], ("cell",)))
    data.rows, data.sizes = rows, np.array([[60, 80]])
    folder = tmp_path / "targets"
    folder.mkdir()
    TASK.build_targets(data, policy, folder, lambda: None)
    found = TASK.open_targets(folder).of(0).boxes[0]
    ys, xs = np.nonzero(prepare(original, policy)[:, :, 0] > 127)
    assert np.abs(found - [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).max() <= 1.0
    outputs = {"boxes": found[None, None], "scores": np.ones((1, 1), np.float32), "classes": np.zeros((1, 1), np.int64)}
    back = TASK.answers(outputs, [(60, 80)], policy, {})[0]
    assert np.allclose(back.boxes, [[10, 20, 40, 40]], atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(96, 128), (112, 112)])
def test_augmentation_moves_boxes_with_their_pixels(height, width):
    rng = np.random.default_rng(0)
    planes, truths = torch.zeros(32, 3, height, width), []
    for index in range(32):
        x, y = rng.integers(20, 80), rng.integers(20, 60)
        planes[index, :, y : y + 16, x : x + 24] = 1.0
        truths.append(boxes((x, y, x + 24, y + 16)))
    strength = BoxStrength(upright=False, scale=0.4, aspect=0.2, shift=0.2)
    moved, targets = augment(planes, batch_boxes(truths), strength, torch.Generator().manual_seed(1))
    sides = []
    for index in range(32):
        if targets.labels[index, 0] < 0:
            continue
        # Outside comes in as the mean, far below half.
        ys, xs = np.nonzero(moved[index, 0].numpy() > 0.5)
        seen = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        assert np.abs(targets.boxes[index, 0].numpy() - seen).max() <= 1.0
        sides.append(seen[2] - seen[0])
    assert len(sides) >= 28
    assert min(sides) < 20
    assert max(sides) > 28
    tall = sum(bool(box[3] - box[1] > box[2] - box[0]) for box in targets.boxes[:, 0])
    # Square images also with rows and columns exchanged; of others a few are cut off at a side.
    assert tall > 8 if height == width else tall < 5


def test_what_is_moved_out_of_the_picture_is_ignored_and_no_change_is_the_identity():
    truth = [boxes((0, 0, 4, 4), (20, 20, 30, 30))]
    planes = torch.rand(1, 3, 32, 32)
    same, kept = augment(planes, batch_boxes(truth), box_strength("none"), torch.Generator().manual_seed(0))
    assert torch.allclose(same, planes, atol=1e-5)
    assert kept.labels.tolist() == [[0, 0]]
    grown = BoxStrength(mirror=False, scale=1.0, aspect=0.0, shift=0.3)
    gone = 0
    for seed in range(40):
        _, targets = augment(planes, batch_boxes(truth), grown, torch.Generator().manual_seed(seed))
        width = (targets.boxes[0, :, 2] - targets.boxes[0, :, 0]).clamp(min=0)
        for number in range(2):
            if targets.labels[0, number] < 0:
                gone += 1
                if width[number] > 0:
                    fragment = targets.boxes[0, number]
                    assert any(torch.allclose(fragment, other) for other in targets.ignored[0])
    assert gone > 5


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_every_strength_of_a_recipe_changes_pixels_and_keeps_their_range(channels):
    planes = torch.rand(4, channels, 32, 48, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
    targets = batch_boxes([boxes((10, 10, 20, 20))] * 4)
    for name in STRENGTHS:
        changed, moved = augment(planes, targets, box_strength(name, upright=False), torch.Generator().manual_seed(1))
        assert changed.shape == planes.shape
        assert moved.boxes.shape == targets.boxes.shape
        assert changed.min() >= 0
        assert changed.max() <= 1 + 1e-4
        assert (name == "none") == torch.allclose(changed, planes, atol=1e-4)


def test_up_is_seen_in_images_that_have_one():
    images, _ = discs(40, 32)
    rows = np.arange(40)
    assert not has_up(images, rows)
    # A lamp that is brighter above is no up.
    lit = (images + np.linspace(30.0, 0.0, 32)[:, None, None]).clip(0, 255).astype(np.uint8)
    assert not has_up(lit, rows)
    sky = images.copy()
    sky[:, :12] = 90
    assert has_up(sky, rows)
    assert not has_up(sky.transpose(0, 2, 1, 3), rows)
    assert has_up(sky.astype(np.float32) / 255, rows)


def test_heatmaps_are_one_at_centres_and_crowds_count_for_nothing():
    truth = [boxes((8, 8, 24, 24), (40, 8, 60, 48), (0, 32, 32, 64), labels=(0, 1, 0), crowd=(False, False, True)), boxes()]
    found = aims(batch_boxes(truth), 2, 64, 64, 4)
    assert found.heat.shape == (2, 2, 16, 16)
    assert (found.heat == 1).sum() == 2
    assert found.heat[0, 0, 4, 4] == 1
    assert found.heat[0, 1, 7, 12] == 1
    # Taller than wide: the Gaussian as well.
    assert found.heat[0, 1, 9, 12] > found.heat[0, 1, 7, 14]
    assert found.counts[0, 0, 8:, :8].sum() == 0
    assert found.counts[0].sum() == 256 - 64
    assert found.counts[1].sum() == 256
    assert torch.isclose(found.weight.sum(), torch.tensor(2.0))


@pytest.fixture(scope="module")
def learnt():
    torch.set_num_threads(1)
    images, truths = discs(96)
    table, train, held_out = table_of(truths), np.arange(72), np.arange(72, 96)
    facts = TASK.facts(table, train, POLICY, 1)
    torch.manual_seed(0)
    network = TASK.network(TINY, 1, 3, [0.3] * 3, [0.2] * 3, facts)
    lesson = TASK.lesson(TINY, images, table, train, held_out, classes=1, facts=facts, seed=0)
    trainer = Trainer(network, lesson, TASK.recipe(TINY, train_count=72, pretrained=False, gpu=False), seed=0)
    outcome = trainer.run(12, 12, time.time() + patient(200), judge_every=12)
    served = TASK.serve(TINY, trainer.result(), images, table, held_out, policy=POLICY, classes=1, facts=facts, seed=0)
    return images, table, held_out, facts, outcome, trainer.result(), served


def test_discs_are_learnt(learnt):
    _, _, held_out, facts, outcome, _, _ = learnt
    assert facts["empty_images"] > 0
    assert facts["by_class"] == [facts["objects"]]
    assert 10 < facts["side"][2] < 20
    assert outcome.judgement.scores["map50"] > 0.9
    assert outcome.judgement.scores["map50_95"] > 0.5
    assert set(TASK.objectives) <= set(outcome.judgement.scores)
    assert outcome.judgement.message == ""
    assert outcome.judgement.kept["rows"].tolist() == held_out.tolist()


def export(served: Served, example: torch.Tensor, path: Path) -> onnxruntime.InferenceSession:
    names = [name for name, _, _ in served.outputs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {name: {0: "batch"} for name in ("image", *names)}
        torch.onnx.export(
            served.module, (example,), path, dynamo=False, opset_version=17, input_names=["image"], output_names=names, dynamic_axes=axes
        )
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def assert_same(served: Served, session: onnxruntime.InferenceSession, images: np.ndarray) -> None:
    for count in (1, 3):
        with torch.no_grad():
            expected = [out.numpy() for out in served.module(torch.from_numpy(images[:count]))]
        answers = session.run(None, {"image": images[:count]})
        for (_, shape, _), answer in zip(served.outputs, answers, strict=True):
            assert answer.shape == (count, *shape)
        assert np.abs(answers[1] - expected[1]).max() < 1e-4
        assert (np.diff(answers[1], axis=1) <= 0).all()
        sure = expected[1] > 0.05
        assert np.abs(answers[0] - expected[0])[sure].max(initial=0.0) < 1e-2
        assert (answers[2] == expected[2])[sure].all()


def test_the_graph_answers_as_the_network_at_any_batch(learnt, tmp_path):
    images, _, held_out, _, _, _, served = learnt
    session = export(served, torch.zeros((2, 64, 64, 3), dtype=torch.uint8), tmp_path / "a.onnx")
    assert [(o.name, o.shape[1:]) for o in session.get_outputs()] == [(name, list(shape)) for name, shape, _ in served.outputs]
    assert_same(served, session, images[held_out])


def test_served_answers_find_the_objects_and_mean_what_they_say(learnt):
    images, table, held_out, _, _, _, served = learnt
    with torch.no_grad():
        outputs = {n: t.numpy() for (n, _, _), t in zip(served.outputs, served.module(torch.from_numpy(images[held_out])), strict=True)}
    found = [confident(one, served.decoding) for one in TASK.answers(outputs, [(64, 64)] * len(held_out), POLICY, served.decoding)]
    truths = list(table.rows(held_out))
    metrics = {m.name: m.value for m in TASK.evaluate(truths, found, ["disc"], groups=[str(i) for i in held_out], split="test", seed=0)}
    assert metrics["map50"] > 0.9
    wrong = sum(abs(len(a.scores) - len(t.labels)) for a, t in zip(found, truths, strict=True))
    assert wrong <= 3
    assert served.calibration["ece_after"] <= served.calibration["ece_before"] + 0.02
    assert 0 < served.decoding["score_threshold"][0] < 1


def test_suppression_is_served_where_it_pays(learnt):
    images, table, held_out, facts, _, network, served = learnt
    # One peak an object: nothing to suppress.
    assert served.decoding["nms_iou"] == 0

    class Stuttering(type(network)):
        """Says everything twice, a pixel apart."""

        def decode(self, raw, height, width, limit):
            found, scores, labels = super().decode(raw, height, width, limit)
            return torch.cat([found, found + 1.0], dim=1), torch.cat([scores, scores * 0.99], dim=1), torch.cat([labels, labels], dim=1)

    stuttering = Stuttering(**network.settings)
    stuttering.load_state_dict(network.state_dict())
    again = TASK.serve(TINY, stuttering, images, table, held_out, policy=POLICY, classes=1, facts=facts, seed=0)
    assert again.decoding["nms_iou"] > 0


def test_a_detector_is_written_down_and_read_again(learnt):
    images, _, held_out, _, _, network, _ = learnt
    again = load_module(dump_module(network))
    x = torch.from_numpy(images[held_out[:2]])
    with torch.no_grad():
        for one, two in zip(network.eval()(x), again(x), strict=True):
            assert torch.allclose(one, two, atol=1e-6)


def test_a_mirrored_image_gives_mirrored_heads(learnt):
    images, _, held_out, _, _, network, _ = learnt
    # Strides shift a mirrored image by parts of a cell: peaks stay where they are to a cell.
    planes = torch.from_numpy(images[held_out[:4]]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        first = network.decode(network.from_planes(planes), 64, 64, 3)
        second = network.decode(network.mirror_raw(network.from_planes(planes.flip(3))), 64, 64, 3)
    compared = 0
    for image in range(4):
        for box in first[0][image][first[1][image] > 0.4]:
            assert (second[0][image] - box).abs().amax(dim=1).min() < 4.0
            compared += 1
    assert compared >= 3


@pytest.mark.parametrize(("channels", "size"), [(1, 32), (6, 64)])
def test_other_channels_and_sizes_and_images_without_objects(channels, size, tmp_path):
    torch.set_num_threads(1)
    images = np.random.default_rng(0).integers(0, 255, (12, size, size, channels)).astype(np.uint8)
    table, rows = table_of([boxes() for _ in range(11)] + [boxes((4, 4, 12, 12))]), np.arange(12)
    policy = InputPolicy(width=size, height=size, channels=channels)
    facts = TASK.facts(table, rows, policy, 2)
    network = TASK.network(TINY, 2, channels, [0.5] * channels, [0.3] * channels, facts)
    lesson = TASK.lesson(TINY, images, table, rows[:11], rows, classes=2, facts=facts, seed=0)
    trainer = Trainer(network, lesson, Recipe(rate=1e-3, batch=4), seed=0)
    outcome = trainer.run(1, 1, time.time() + patient(100))
    assert np.isfinite(outcome.judgement.loss)
    served = TASK.serve(TINY, trainer.result(), images, table, rows, policy=policy, classes=2, facts=facts, seed=0)
    assert served.decoding["score_threshold"] == [0.5, 0.5] or all(0 < t < 1 for t in served.decoding["score_threshold"])
    session = export(served, torch.zeros((2, size, size, channels), dtype=torch.uint8), tmp_path / "a.onnx")
    assert_same(served, session, images)


def test_equal_seeds_give_equal_networks():
    torch.set_num_threads(1)
    images, truths = discs(8, 32)
    table, rows = table_of(truths), np.arange(8)
    facts = TASK.facts(table, rows, InputPolicy(width=32, height=32), 1)
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        network = TASK.network(TINY, 1, 3, [0.3] * 3, [0.2] * 3, facts)
        lesson = TASK.lesson(TINY, images, table, rows, rows, classes=1, facts=facts, seed=3)
        losses.append(Trainer(network, lesson, Recipe(batch=4), seed=3).run(1, 1, time.time() + patient(100)).judgement.loss)
    assert losses[0] == losses[1]


def test_decoding_suppresses_drops_padding_and_keeps_classes_apart():
    outputs = {
        "boxes": np.array([[[0, 0, 10, 10], [1, 0, 11, 10], [1, 0, 11, 10], [0, 20, 5, 25], [0, 0, 0, 0]]], np.float32),
        "scores": np.array([[0.9, 0.8, 0.7, 0.4, 0.0]], np.float32),
        "classes": np.array([[0, 0, 1, 1, 0]], np.int64),
    }
    policy = InputPolicy(width=32, height=32)
    plain = decode_detections(outputs, [(64, 32)], policy, {})[0]
    assert len(plain.scores) == 4
    assert plain.boxes[0].tolist() == [0, 0, 20, 10]
    fewer = decode_detections(outputs, [(64, 32)], policy, {"nms_iou": 0.5})[0]
    assert fewer.scores.tolist() == pytest.approx([0.9, 0.7, 0.4])
    shown = confident(fewer, {"score_threshold": [0.5, 0.6]})
    assert shown.labels.tolist() == [0, 1]
    assert suppress(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), 0.5).shape == (0,)


def test_what_lies_in_the_padding_of_a_letterbox_is_no_object():
    outputs = {
        "boxes": np.array([[[0, 0, 8, 30], [10, 2, 30, 30]]], np.float32),
        "scores": np.array([[0.9, 0.8]], np.float32),
        "classes": np.zeros((1, 2), np.int64),
    }
    found = decode_detections(outputs, [(20, 40)], InputPolicy(width=40, height=40, resize="letterbox"), {})[0]
    assert found.boxes.tolist() == [[0, 2, 20, 30]]


def test_calibration_mends_boasting_scores_and_thresholds_give_the_best_f1():
    rng = np.random.default_rng(0)
    truths, found = [], []
    for _ in range(200):
        scores = rng.uniform(0.05, 0.99, 8)
        odds = 2.0 * np.log(scores / (1 - scores)) - 1.5
        right = rng.random(8) < 1 / (1 + np.exp(-odds))
        corners = np.array([[20 * i, 0, 20 * i + 10, 10] for i in range(8)], np.float32)
        truths.append(TrueBoxes(corners[right], np.zeros(right.sum(), np.int64), np.zeros(right.sum(), np.bool_)))
        order = np.argsort(-scores)
        found.append(Detections(corners[order], scores[order].astype(np.float32), np.zeros(8, np.int64)))
    answers = judge_answers(truths, found)
    platt, figures = calibrate(answers, 1, seed=0)
    assert figures["ece_before"] > 0.1
    assert figures["ece_after"] < 0.05
    answers.scores[:] = platt.apply(answers.scores, answers.labels)
    threshold = best_thresholds(answers, truths, 1)[0]
    objects = sum(len(t.labels) for t in truths)

    def f1(at: float) -> float:
        shown = answers.scores >= at
        return 2 * answers.right[shown].sum() / (shown.sum() + objects)

    assert f1(threshold) == pytest.approx(max(f1(at) for at in np.unique(answers.scores)), abs=1e-6)


def test_the_input_is_as_large_as_images_objects_and_time_ask_for(tmp_path):
    def policy(width: int, height: int, side: float, budget: float, count: int = 200, largest: int = 0) -> InputPolicy:
        rows = [Sample(f"s{i}", split="train", boxes=(Box("cell", 1, 1, side, side),)) for i in range(3)]
        data = TASK.read(write_dataset(tmp_path / f"{width}-{side}-{budget}-{count}-{largest}", rows, ("cell",)))
        data.sizes = np.array([[width, height]] * count)
        data.parts = np.array(["train"] * count)
        return TASK.policy(_longer(data), gpu=False, budget=budget, channels=3, largest=largest)

    def _longer(data):
        first = data.truths
        data.truths = lambda index: first(index % 3)
        return data

    roomy = policy(640, 480, 25, 20_000)
    assert (roomy.width, roomy.height, roomy.resize) == (640, 480, "stretch")
    hurried = policy(640, 480, 25, 100)
    assert hurried.width < 300
    assert hurried.width % 32 == hurried.height % 32 == 0
    tiny = policy(64, 64, 8, 20_000)
    assert tiny.width == 96
    assert policy(640, 480, 25, 20_000, largest=320).width == 320


def test_a_rounding_error_of_a_near_certain_score_stays_a_rounding_error():
    scores = np.array([0.5, 0.99, 0.9999, 0.999999, 1.0, 1e-7])
    platt = Platt(3.7, (-20.0,))
    labels = np.zeros(len(scores), np.int64)
    moved = platt.apply(np.clip(scores + 1e-7, 0, 1), labels) - platt.apply(scores, labels)
    assert np.abs(moved).max() < 1e-4
    sure = np.linspace(0.0, 1.0, 5001)
    assert (np.diff(log_odds(sure)) > 0).all()
