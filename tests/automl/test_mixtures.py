"""Networks of dense tasks that answer together: one graph of several, chosen only where it is worth its time."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detection_sets import discs
from kept_checkpoints import Kept
from segment_sets import again, exported, write_set
from segment_sets import discs as drawn
from segment_sets import taught as taught_maps
from training_tools import RuntimeParity, write_discs
from waiting import patient

from oteo_automl import completing
from oteo_automl.candidates.modules import SavedModule, build, dump_module, load_module, saved, to_planes
from oteo_automl.candidates.training import Recipe
from oteo_automl.dense.base import DenseCandidate, Mixing, Served, find_task
from oteo_automl.dense.detect.detector import Detector
from oteo_automl.dense.detect.making import CANDIDATES, make_detector
from oteo_automl.dense.detect.mixing import SAME, BoxMixing, FusedDetector, MeanDetector, alike, fuse
from oteo_automl.dense.detect.serving import ServedDetector
from oteo_automl.dense.detect.targets import table_of
from oteo_automl.dense.finish import DenseWinner, finish_dense, graph_outputs
from oteo_automl.dense.mixing import WORTH, Contender, find_mixture, worth
from oteo_automl.dense.pieces import DenseProblem, StoredNetwork
from oteo_automl.dense.result import DenseResult, FittedNetwork
from oteo_automl.dense.segment.mixing import MeanMaps
from oteo_automl.dense.work import DenseWork, choose_candidates, mixing_time
from oteo_automl.exporting.network_file import load_network, network_files
from oteo_automl.search.ensemble import Choice
from oteo_automl.search.pieces import PieceResult, model_name
from oteo_automl.search.result import Plan
from oteo_automl.search.trial import FINISHED, Trial
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader, MaskEncoding
from oteo_core.errors import Internal, InvalidArgument
from oteo_core.graphs.export import export_onnx, run_onnx
from oteo_core.images import InputPolicy, prepare
from oteo_core.packages import MetricValue, TrialRecord, read_model
from oteo_core.packages.answers import ClassMap
from oteo_core.packages.second import as_second

FACTS = {"side": [8.0, 10.0, 12.0, 14.0, 16.0], "short": [8.0], "aspect": [0.8, 0.9, 1.0, 1.1, 1.25], "limit": 20, "input": [64, 64]}


def detector(name: str, seed: int) -> Detector:
    torch.manual_seed(seed)
    found = make_detector(find_task("detection").find(name), 3, 3, [0.5] * 3, [0.25] * 3, FACTS).eval()
    return found


def brute_fusion(boxes, scores, labels, weights):
    """Fuse the boxes of an image one after the other: the likeliest leads, what overlaps a leader most joins it."""

    def iou(a, b):
        low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
        common = np.prod(np.maximum(high - low, 0))
        return common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common)

    order = np.argsort(-scores, kind="stable")
    leaders = []
    for one in order:
        if scores[one] > 0 and not any(labels[one] == labels[two] and iou(boxes[one], boxes[two]) > SAME for two in leaders):
            leaders.append(one)
    members = {one: [one] for one in leaders}
    for one in order:
        if scores[one] > 0 and one not in leaders:
            near = max((two for two in leaders if labels[two] == labels[one]), key=lambda two: iou(boxes[one], boxes[two]))
            members[near].append(one)
    found = []
    for lead, own in members.items():
        share = scores[own] * weights[own]
        found.append((min(share.sum(), scores[lead]), labels[lead], (share[:, None] * boxes[own]).sum(0) / share.sum()))
    return sorted(found, key=lambda one: -one[0])


def test_fused_boxes_are_those_of_a_loop():
    rng = np.random.default_rng(3)
    count = 40
    middle = rng.uniform(10, 90, (12, 2))[rng.integers(0, 12, (2, count))] + rng.normal(0, 1.2, (2, count, 2))
    half = rng.uniform(6, 8, (2, count, 2))
    boxes = np.concatenate([middle - half, middle + half], axis=2).astype(np.float32)
    scores = rng.uniform(0.01, 1, (2, count)).astype(np.float32)
    scores[:, -5:] = 0.0
    labels = rng.integers(0, 2, (2, count))
    weights = np.where(np.arange(count) % 2 == 0, 0.7, 0.3)[None].repeat(2, 0).astype(np.float32)
    fused, sure, kinds = fuse(*(torch.from_numpy(one) for one in (boxes, scores, labels, weights)), limit=count)
    assert (np.diff(sure.numpy(), axis=1) <= 1e-7).all()
    for image in range(2):
        wanted = brute_fusion(boxes[image], scores[image], labels[image], weights[image])
        assert len(wanted) < count - 5
        assert int((sure[image] > 0).sum()) == len(wanted)
        np.testing.assert_allclose(sure[image, : len(wanted)], [one[0] for one in wanted], rtol=1e-5)
        np.testing.assert_allclose(fused[image, : len(wanted)], [one[2] for one in wanted], rtol=1e-4)
        assert kinds[image, : len(wanted)].tolist() == [one[1] for one in wanted]


def test_what_one_detector_alone_finds_is_half_as_sure_and_what_both_find_is_between():
    box = [10.0, 10.0, 20.0, 20.0]
    boxes = torch.tensor([[box, [11.0, 10.0, 21.0, 20.0], [50.0, 50.0, 60.0, 60.0]]])
    fused, sure, _ = fuse(boxes, torch.tensor([[0.9, 0.6, 0.8]]), torch.zeros((1, 3), dtype=torch.int64), torch.full((1, 3), 0.5), 3)
    assert sure[0].tolist() == pytest.approx([0.75, 0.4, 0.0])
    np.testing.assert_allclose(fused[0, 0], [10.4, 10.0, 20.4, 20.0], atol=1e-5)


def test_one_detector_twice_is_that_detector():
    one = detector("centre-resnet18", 0)
    planes = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for wanted, got in zip(one.from_planes(planes), MeanDetector([one, one], [0.4, 0.6]).eval().from_planes(planes), strict=True):
            torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["mean", "fused"])
def test_a_mixture_of_detectors_is_written_down_and_exported_with_any_batch(kind, tmp_path):
    second = "centre-mobilenetv4_conv_small" if kind == "mean" else "fcos-resnet18"
    parts = [detector("centre-resnet18", 0), detector(second, 1)]
    assert alike(parts) == (kind == "mean")
    mixture = (
        MeanDetector(parts, [0.6, 0.4], balance=0.25)
        if kind == "mean"
        else FusedDetector(parts, [0.6, 0.4], [1.1, 0.9], [(0.1, 0.2, 0.3), (0.0,)], 20)
    )
    served = ServedDetector(mixture.eval(), 20, 1.2, (5.0, 5.5, 5.2), mirrored=kind == "mean").eval()
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        wanted = served(torch.from_numpy(images))
        same = load_module(dump_module(served))(torch.from_numpy(images))
    for one, two in zip(wanted, same, strict=True):
        torch.testing.assert_close(one, two)
    outputs = (("boxes", (20, 4), "FP32"), ("scores", (20,), "FP32"), ("classes", (20,), "INT64"))
    said = Served(served, outputs, {}, tolerance={"boxes": 0.01, "scores": 1e-3}, ranked_by="scores")
    # Exporting compares the graph's answers with PyTorch's.
    graph = export_onnx(served, InputPolicy(64, 64, 3), graph_outputs(said), images)
    assert graph.exporter == "torchscript"
    for count in (1, 3):
        assert [one.shape for one in run_onnx(graph.data, images[:count])] == [(count, 20, 4), (count, 20), (count, 20)]


@pytest.mark.parametrize("second", ["centre-mobilenetv4_conv_small", "fcos-resnet18"])
def test_answers_of_a_mixture_are_those_of_its_graph(second):
    images, truths = discs(5, 64, 3, seed=1)
    networks, rows = [detector("centre-resnet18", 0), detector(second, 1)], np.arange(1, 5)
    found = BoxMixing(networks, images, table_of(truths), rows, classes=3, limit=20, check=lambda: None)
    assert [len(one.labels) for one in found.truths] == [len(one.labels) for one in truths[1:]]
    module = found.module([0, 1], [0.3, 0.7])
    with torch.inference_mode():
        planes = to_planes(torch.from_numpy(images[rows]))
        boxes, scores, _ = (one.numpy() for one in module.decode(module.from_planes(planes), 64, 64, 20))
    for place, answer in enumerate(found.answers([0, 1], [0.3, 0.7])):
        kept = scores[place] > 0
        np.testing.assert_allclose(answer.scores, scores[place][kept], atol=1e-6)
        np.testing.assert_allclose(answer.boxes, boxes[place][kept], atol=1e-3)
    # Alone each is read as it is.
    with torch.inference_mode():
        own = networks[0].decode(networks[0].from_planes(planes), 64, 64, 20)[1].numpy()
    np.testing.assert_allclose(np.sort(found.answers([0], [1.0])[0].scores), np.sort(own[0][own[0] > 0]), atol=1e-6)


class Noisy(Mixing):
    """Maps of a network that errs on its own: the truth's logits in noise."""

    def __init__(self, truths, noises):
        self.truths = truths
        self.maps = [
            np.stack([np.eye(3)[one.labels].transpose(2, 0, 1) + rng.normal(0, level, (3, *one.labels.shape)) for one in truths])
            for level, rng in ((level, np.random.default_rng(seed)) for seed, level in noises)
        ]
        self.asked = 0

    def module(self, parts, weights):
        return SimpleNamespace(parts=parts, weights=weights)

    def answers(self, parts, weights):
        self.asked += 1
        return [ClassMap(one.argmax(0).astype(np.uint8)) for one in sum(w * self.maps[p] for p, w in zip(parts, weights, strict=True))]


def looked_for(noises, *, latencies=None, limit=math.inf, seconds=60.0, count=40):
    """Look for a mixture of networks of these noises."""
    rng = np.random.default_rng(0)
    truths = [ClassMap(np.kron(rng.integers(0, 3, (4, 4)), np.ones((6, 6))).astype(np.uint8)) for _ in range(count)]
    mixing = Noisy(truths, noises)
    task = SimpleNamespace(name="semantic_segmentation", mixing=lambda *_args, **_named: (mixing, np.arange(count)))
    times = latencies or [0.01] * len(noises)
    candidate = DenseCandidate("unet-x", "x", "unet")
    contenders = [Contender(Trial(f"t{place}", "unet-x"), candidate, None, time) for place, time in enumerate(times)]
    found = find_mixture(
        task, contenders, np.zeros((count, 1)), None, np.arange(count), [f"{row // 2}" for row in range(count)],
        objective="dice", classes=2, facts={}, seed=0, limit=limit, seconds=seconds,
    )  # fmt: skip
    return found, mixing


def test_networks_that_err_apart_are_mixed():
    found, mixing = looked_for([(1, 0.6), (2, 0.6), (3, 5.0)])
    assert found is not None
    assert [one.trial.id for one in found.contenders] == ["t0", "t1"]
    assert sum(found.weights) == pytest.approx(1.0)
    assert found.gain > 0.02
    assert found.images == 40
    # Answers of a mixture are read once, however many bags ask for them.
    assert mixing.asked < 40


def test_networks_that_err_alike_or_badly_are_not():
    assert looked_for([(1, 0.6), (1, 0.6), (1, 0.6)])[0] is None
    assert looked_for([(1, 0.3), (2, 8.0)])[0] is None


def test_a_mixture_keeps_the_time_for_an_image_and_the_search_its_own():
    assert looked_for([(1, 0.6), (2, 0.6)], latencies=[0.01, 0.02], limit=0.025)[0] is None
    assert looked_for([(1, 0.6), (2, 0.6)], latencies=[0.01, 0.02], limit=0.035)[0] is not None
    assert looked_for([(1, 0.6), (2, 0.6)], seconds=0.0)[0] is None
    assert looked_for([(1, 0.6), (2, 0.6)], count=8)[0] is None


def test_four_times_the_time_must_bring_twice_as_much():
    def choice(gain, latency):
        return Choice((0, 1), (0.5, 0.5), -0.9 - gain, latency, gain / (0.9 + gain))

    assert worth(choice(1.01 * WORTH, 0.02), -0.9, 0.01)
    assert not worth(choice(0.99 * WORTH, 0.02), -0.9, 0.01)
    assert not worth(choice(1.5 * WORTH, 0.04), -0.9, 0.01)
    assert worth(choice(2.01 * WORTH, 0.04), -0.9, 0.01)
    # Better on the images that its weights were found on, and not on others: luck.
    assert not worth(Choice((0, 1), (0.5, 0.5), -0.95, 0.02, 0.0), -0.9, 0.01)


@pytest.mark.slow
def test_two_segmenters_become_one_graph(tmp_path):
    task = find_task("semantic_segmentation")
    drawings = [drawn(index) for index in range(24)]
    reader = write_set(
        tmp_path / "store", drawings, task=task.name, mask=MaskEncoding("class", (1,)), classes=("disc",),
        values=lambda ids: (ids > 0).astype(np.uint8),
    )  # fmt: skip
    made = [
        taught_maps(task, name, reader, drawings, tmp_path / f"targets-{seed}", epochs=1, seed=seed)
        for seed, name in enumerate(("unet-resnet18", "unet-mobilenetv4_conv_small"))
    ]
    first = made[0]
    mixing, rows = task.mixing(
        [one.network for one in made], first.images, first.targets, first.held_out, classes=1, facts=first.facts, check=lambda: None
    )
    module = mixing.module([0, 1], [0.25, 0.75])
    images = torch.from_numpy(first.images[rows])
    with torch.inference_mode():
        wanted = 0.25 * made[0].network(images) + 0.75 * made[1].network(images)
        torch.testing.assert_close(module(images), wanted, atol=1e-4, rtol=1e-4)
        rebuilt = load_module(dump_module(module))
        assert isinstance(rebuilt, MeanMaps)
        torch.testing.assert_close(rebuilt(images), wanted, atol=1e-4, rtol=1e-4)
        for answer, maps in zip(mixing.answers([0, 1], [0.25, 0.75]), wanted, strict=True):
            np.testing.assert_array_equal(answer.labels, maps.argmax(0).numpy())
    # It takes the place of a network: thresholds, mirroring and the graph are found as for one.
    served = task.serve(
        first.candidate, module, first.images, first.targets, first.held_out, policy=first.policy, classes=1, facts=first.facts, seed=0
    )
    session = exported(served, first.policy, tmp_path)
    with torch.inference_mode():
        expected = served.module(images[:3])
        assert torch.equal(again(served)(images[:3])[1], expected[1])
    np.testing.assert_allclose(session.run(None, {"image": images[:3].numpy()})[1], expected[1], atol=2e-3)


def test_every_kind_of_detector_can_be_mixed_and_vectors_of_masks_cannot():
    task = find_task("instance_segmentation")
    assert {task.mixes(one) for one in task.candidates} == {"watershed", ""}
    assert {find_task("detection").mixes(one) for one in CANDIDATES} == {"boxes"}
    with pytest.raises(TypeError):
        FusedDetector([build({"kind": "mean-maps", "settings": {"parts": [], "weights": []}})], [1.0], [1.0], [(0.0,)], 5)


@saved
class Seeing(SavedModule):
    """Says of each pixel what one channel of the image shows of it."""

    kind = "test-seeing"

    def __init__(self, channel: int) -> None:
        super().__init__(channel=channel)

    def forward(self, image):
        return self.from_planes(to_planes(image))

    def from_planes(self, planes):
        seen = planes[:, self.settings["channel"]] - 0.5
        return torch.stack([-seen, seen], dim=1)


def ended(channels, *, mixing_seconds=30.0, limit=math.inf):
    """End a search whose trials see the truth in the noise of a channel each."""
    rng = np.random.default_rng(0)
    count, task = 48, find_task("semantic_segmentation")
    maps = np.kron(rng.integers(0, 2, (count, 4, 4)), np.ones((1, 8, 8))).astype(np.uint8)
    noise = rng.normal(0, 50, (count, 32, 32, 3))
    images = np.clip(128 + 50 * (2.0 * maps[..., None] - 1) + noise, 0, 255).astype(np.uint8)
    kept, rows = Kept(), np.arange(count)
    problem = DenseProblem(task.name, SimpleNamespace(open=lambda: (images, maps)), rows[:16], rows[16:], 1, {}, 0, kept)
    policy = InputPolicy(32, 32, 3)
    work = DenseWork(problem, task, task.candidates[:2], "dice", policy, max_latency=limit, mixing_seconds=mixing_seconds)
    trials = []
    for number, channel in enumerate(channels):
        module = Seeing(channel).eval()
        candidate = task.candidates[number % 2]
        judgement = task.lesson(
            candidate, images, maps, rows[:16], rows[16:], classes=1, facts={}, seed=0
        ).judge(module)  # fmt: skip
        identity = f"t{number:03d}-{candidate.name}"
        kept.save(model_name(identity), StoredNetwork(module, {}).to_bytes())
        result = PieceResult({**judgement.scores, "loss": judgement.loss}, 1.0, 5, latency=0.001, initial_weights="scratch")
        trials.append(Trial(identity, candidate.name, recipe=Recipe(), rungs=[5], state=FINISHED, results=[result]))
    plan = Plan()
    return work.result(trials, plan, 100.0), trials, plan, images, maps


def test_a_search_hands_over_a_mixture_as_a_trial_of_its_own():
    result, trials, plan, images, maps = ended((0, 1))
    blend = trials[-1]
    assert blend.candidate == result.best.candidate.name == "blend"
    assert result.best.trial_id == blend.id
    mixed = blend.results[-1].parameters["parts"]
    assert set(mixed) == {trials[0].id, trials[1].id}
    assert sum(blend.results[-1].parameters["weights"]) == pytest.approx(1.0)
    assert blend.loss("dice") < min(one.loss("dice") for one in trials[:-1]) - WORTH
    assert "on held-out images that its weights were not found on" in blend.message
    assert blend.results[-1].latency > 0
    assert "Chosen: blend" in plan.summary
    assert result.runner_up is not None
    assert result.runner_up.trial_id in mixed
    assert result.baseline.candidate.name == "unet-resnet18"
    # The same as the mean of both, and what is exported of it can be written down.
    with torch.inference_mode():
        batch = torch.from_numpy(images[:4])
        parts = [Seeing(int(name[3]))(batch) for name in mixed]
        weights = blend.results[-1].parameters["weights"]
        torch.testing.assert_close(result.best.module(batch), weights[0] * parts[0] + weights[1] * parts[1])
    task = find_task("semantic_segmentation")
    served = task.serve(
        result.best.candidate, result.best.module, images, maps, np.arange(16, 48), policy=InputPolicy(32, 32, 3), classes=1,
        facts={"areas": [64.0]}, seed=0,
    )  # fmt: skip
    assert "network.pt" in network_files(served.module)


def test_a_search_hands_over_a_network_where_a_mixture_brings_nothing_or_is_not_wanted():
    for made in (ended((0, 0)), ended((0, 1), mixing_seconds=0.0), ended((0,)), ended((0, 1), limit=1e-7)):
        result, trials, plan, _, _ = made
        assert result.best.candidate.name != "blend"
        assert "blend" not in {one.candidate for one in trials}
        assert "Chosen: unet-" in plan.summary


def test_mixtures_are_looked_for_where_there_is_time_for_two_networks_and_they_are_wanted():
    assert mixing_time(100.0, []) == 0.0
    assert mixing_time(600.0, ["unet-resnet18"]) == 0.0
    assert 0.0 < mixing_time(600.0, []) == mixing_time(600.0, ["unet", "blend"]) <= 30.0
    assert mixing_time(1e5, []) <= 60.0
    task = find_task("semantic_segmentation")
    chosen, _ = choose_candidates(task, ["blend"], gpu=False, pretrained={})
    assert [one.name for one in chosen] == ["unet-resnet18", "unet-mobilenetv4_conv_small"]
    with pytest.raises(InvalidArgument, match="blend"):
        choose_candidates(task, ["blond"], gpu=False, pretrained={})


def won(store, folder):
    """Give a winner that is a mixture of two networks, not trained, on a dataset of discs."""
    write_discs(store, "semantic_segmentation", count=40, side=32)
    task, reader = find_task("semantic_segmentation"), DatasetReader(store, "discs")
    data, policy = task.read(reader), InputPolicy(32, 32, 1)
    folder.mkdir()
    task.build_targets(data, policy, folder, lambda: None)
    targets = task.open_targets(folder)
    images = np.stack([prepare(reader.image(sample).pixels, policy) for sample in data.rows])
    train, held_out = data.part("train"), data.part("validation")
    facts = task.facts(targets, train, policy, 2)
    found = []
    for seed, candidate in enumerate(task.candidates[:2]):
        torch.manual_seed(seed)
        network = task.network(candidate, 2, 1, [0.4], [0.2], facts).eval()
        found.append(FittedNetwork(f"t00{seed}", candidate, network, {}, "scratch"))
    blend = replace(found[0].candidate, name="blend")
    parts = [one.trial_id for one in found]
    best = FittedNetwork("t002-blend", blend, MeanMaps([one.module for one in found], [0.4, 0.6]).eval(), {"parts": parts}, "scratch")
    records = []
    for one in (best, *found):
        judged = task.lesson(one.candidate, images, targets, train, held_out, classes=2, facts=facts, seed=0).judge(one.module)
        dice = judged.scores["dice"]
        if one is not best:
            # A mixture's answers lie nowhere.
            store.write_bytes(f"operations/test/checkpoints/{model_name(one.trial_id)}", StoredNetwork(one.module, judged.kept).to_bytes())
        records.append(
            TrialRecord(
                id=one.trial_id, candidate=one.candidate.name, metrics=[MetricValue("dice", dice, split="validation")], objective=dice,
                latency=0.01, parameters=one.parameters,
            )
        )  # fmt: skip
    records[0].message = "better than the best of its models by 0.011 of dice"
    result = DenseResult("dice", best, found[0], found[0], {}, Plan(summary="Chosen: blend."), 1.0, records)
    return DenseWinner("made", "Made", task, data, reader, result, images, targets, held_out, "the validation part", policy, facts)


@pytest.mark.slow
@pytest.mark.parametrize("breaks", [False, True], ids=["whole", "not-exported"])
def test_a_mixture_is_published_as_any_model_or_its_best_part_where_its_graph_is_no_good(breaks, tmp_path, monkeypatch):
    store = ArtifactStore(f"file://{tmp_path}/store")
    winner = won(store, tmp_path / "targets")
    staging = "operations/test/staging"
    context = SimpleNamespace(
        operation_id="test", artifacts=store, staging=staging, check=lambda: None,
        publish=lambda target, manifest, subdir="": store.publish(f"{staging}/{subdir}", target, manifest),
    )  # fmt: skip
    if breaks:
        whole = completing.write_graph

        def failing(package, *args, **named):
            if package.candidate == "blend":
                raise Internal("it answers otherwise", reason="EXPORT_FAILED")
            return whole(package, *args, **named)

        monkeypatch.setattr(completing, "write_graph", failing)
    # On a busy machine the two seconds are soon over.
    monkeypatch.setattr("oteo_automl.dense.finish.SECONDS", patient(20))
    finish_dense(context, winner, RuntimeParity(), deadline=time.time() + 600.0)
    package = read_model(store, "made")
    assert "network.pt" in package.files
    assert package.parity_error < 1e-3
    if breaks:
        assert package.candidate == "unet-resnet18"
        assert package.details["winner_trial"] == "t000"
        assert "unet-resnet18 is published in its place" in package.details["plan"]
        return
    assert package.candidate == "blend"
    assert package.details["parameters"] == {"parts": ["t000", "t001"]}
    assert list(package.details["rivals"]) == ["unet-resnet18 (the runner-up)"]
    second = as_second(package)
    assert (second.candidate, package.details["second_opinion"]["trial"]) == ("unet-resnet18", "t000")
    own, other = (
        run_onnx(store.read_bytes(f"models/made/{path}"), winner.images[:2]) for path in ("triton/made/1/model.onnx", "second.onnx")
    )
    assert [one.shape for one in own] == [one.shape for one in other]
    assert np.abs(own[1] - other[1]).max() > 1e-3
    page = store.read_bytes("models/made/report.html").decode()
    assert "better than the best of its models by 0.011 of dice" in page
    # Every trial's figure has its interval, the mixture's too; what was not compared or measured is said.
    for trial in package.trials:
        told = trial.metrics[0]
        assert told.lower <= told.value <= told.upper, trial.id
        assert (told.lower < told.upper, told.sample_count) == (True, 8)
        assert f"({told.lower:.3f} to {told.upper:.3f})" in page
    assert "The runner-up, unet-resnet18, is also the baseline" in page
    assert "half of the training images" in page
    # The network that is kept is the mixture, and answers as its graph.
    network = load_network(store.read_bytes("models/made/network.pt"))
    batch = winner.images[:2]
    with torch.inference_mode():
        _, chances = network(torch.from_numpy(batch))
    again = run_onnx(store.read_bytes("models/made/triton/made/1/model.onnx"), batch)
    np.testing.assert_allclose(again[1], chances.numpy(), atol=1e-4)
    # Under simulated shifts it stands beside its rival.
    shifted = {trial.id: [one.name for one in trial.metrics] for trial in package.trials}
    assert shifted["t002-blend"] == shifted["t000"] == ["dice", "dice_under_shift"]
    assert "under simulated shifts" in page
