"""The gate before publishing: what a Triton must answer, and what happens where it does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from waiting import patient

from oteo_automl.packaging.served import ServedClassifier
from oteo_core.errors import DeadlineExceeded, FailedPrecondition
from oteo_core.graphs import export
from oteo_core.graphs.config import config_pbtxt, labels_txt
from oteo_core.graphs.outputs import Output, classification_outputs, compare_outputs
from oteo_core.graphs.parity import TritonAway, check_parity, parity_name
from oteo_core.graphs.running import run_torch
from oteo_core.graphs.triton import TritonParityClient
from oteo_core.images import InputPolicy

POLICY = InputPolicy(width=32, height=24, channels=3, dtype="uint8", resize="stretch", interpolation="area")
OUTPUTS = (Output("probabilities", (3,)),)


class FakeTriton:
    """Answers with given probabilities; can be away for some calls, refuse a model, or answer wrongly."""

    def __init__(self, answers, away=0, refuse="", shift=0.0):
        self.answers, self.away, self.refuse, self.shift = answers, away, refuse, shift
        self.loaded, self.sizes, self.calls = set(), [], []

    def _arrive(self, call):
        self.calls.append(call)
        if self.away:
            self.away -= 1
            raise TritonAway("nobody listens")

    def load(self, name, config, files):
        self._arrive("load")
        if self.refuse:
            raise ValueError(self.refuse)
        self.loaded.add(name)

    def infer(self, name, images, outputs):
        self._arrive("infer")
        assert name in self.loaded
        self.sizes.append(len(images))
        places = images[:, 0, 0, 0].astype(int)
        return [self.answers[places] + self.shift]

    def unload(self, name):
        self._arrive("unload")
        self.loaded.discard(name)


def ask(client, count=20, seconds=5.0, expected=None):
    images = np.zeros((count, 24, 32, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    clock = [seconds]

    def sleep(pause):
        clock[0] -= pause

    return check_parity(
        client,
        parity_name("automl-x"),
        "",
        {"1/model.onnx": b""},
        images,
        OUTPUTS,
        [client.answers[:count] if expected is None else expected],
        remaining=lambda: clock[0],
        sleep=sleep,
    )


def answers(count=20):
    values = np.random.default_rng(0).random((count, 3)).astype(np.float32)
    return values / values.sum(axis=1, keepdims=True)


def test_equal_answers_pass_alone_and_in_batches_and_nothing_stays_loaded():
    client = FakeTriton(answers())
    found = ask(client)
    assert (found.error, found.count) == (0.0, 20)
    assert client.sizes == [1, 1, 1, 1, 16, 4]
    assert client.loaded == set()
    assert parity_name("automl-x") == "oteo-parity-automl-x"


@pytest.mark.parametrize(("shift", "passes"), [(5e-5, True), (5e-4, False), (float("nan"), False)])
def test_a_difference_over_the_limit_is_refused_and_unloaded(shift, passes):
    client = FakeTriton(answers(), shift=np.float32(shift))
    if passes:
        assert ask(client).error == pytest.approx(shift, rel=1e-2)
    else:
        with pytest.raises(FailedPrecondition) as caught:
            ask(client)
        assert caught.value.reason == "PARITY_FAILED"
    assert client.loaded == set()


def test_a_model_that_triton_refuses_is_not_tried_again():
    client = FakeTriton(answers(), refuse="no such operator")
    with pytest.raises(FailedPrecondition, match="no such operator") as caught:
        ask(client)
    assert caught.value.reason == "PARITY_FAILED"
    assert client.calls.count("load") == 1


def test_wrong_number_of_classes_is_refused():
    client = FakeTriton(answers())
    with pytest.raises(FailedPrecondition, match="shape"):
        ask(client, expected=client.answers[:, :2])


def test_waits_for_a_triton_that_comes_back():
    client = FakeTriton(answers(), away=4)
    assert ask(client).error == 0.0


def test_gives_up_when_the_time_is_up():
    client = FakeTriton(answers(), away=10_000)
    with pytest.raises(DeadlineExceeded) as caught:
        ask(client)
    assert caught.value.reason == "TRITON_UNAVAILABLE"
    assert len(client.calls) < 40


def test_a_stopped_job_does_not_wait():
    class Stopped(Exception):
        pass

    def sleep(_seconds):
        raise Stopped

    client = FakeTriton(answers(), away=10_000)
    images = np.zeros((1, 24, 32, 3), np.uint8)
    with pytest.raises(Stopped):
        check_parity(client, "n", "", {}, images, OUTPUTS, [client.answers[:1]], remaining=lambda: 100.0, sleep=sleep)


def test_nobody_listening_is_away_and_not_a_refusal():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        client = TritonParityClient(f"127.0.0.1:{free.getsockname()[1]}", timeout=2)
        with pytest.raises(TritonAway):
            client.unload("x")
        client.close()


@pytest.fixture(scope="module")
def triton():
    from oteo_local.triton import start
    from oteo_local.triton_env import TritonEnvironmentError

    try:
        with start(timeout=patient(30)) as running:
            yield running.address
    except TritonEnvironmentError as error:
        pytest.skip(f"the embedded Triton is not built: {error}")


def graph():
    torch.manual_seed(0)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = torch.nn.Sequential(
                torch.nn.Conv2d(3, 8, 3, 2), torch.nn.SiLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 3)
            )

        def forward(self, image):
            return 20 * self.body(image.permute(0, 3, 1, 2).float() / 255)

    served = ServedClassifier(Network(), 1.5).eval()
    images = np.random.default_rng(1).integers(0, 256, (20, 24, 32, 3), dtype=np.uint8)
    data = export.finalise(
        export._export_torchscript(served, torch.zeros((2, 24, 32, 3), dtype=torch.uint8), ["probabilities", "logits"]),
        POLICY,
        classification_outputs(3),
        {},
    )
    return data, images, run_torch(served, images)


def test_real_triton_serves_the_package_as_it_is(triton):
    data, images, expected = graph()
    config = config_pbtxt("cells", POLICY, classification_outputs(3), parameters={"oteo_digest": "d"})
    files = {"1/model.onnx": data, "labels.txt": labels_txt(["a", "b", "c"]).encode()}
    client = TritonParityClient(triton)
    try:
        for _ in range(2):  # A rerun after a crash loads under the same name again.
            found = check_parity(
                client,
                "oteo-parity-real",
                config,
                files,
                images,
                classification_outputs(3),
                expected,
                remaining=lambda: 30.0,
                sleep=lambda _: None,
            )
            assert found.error < 1e-5
        index = client._client.get_model_repository_index()
        assert not [model for model in index.models if model.state == "READY"]
        with pytest.raises(FailedPrecondition) as caught:
            check_parity(
                client,
                "oteo-parity-real",
                config,
                files,
                images,
                classification_outputs(3),
                [one[::-1] for one in expected],
                remaining=lambda: 30.0,
                sleep=lambda _: None,
            )
        assert caught.value.reason == "PARITY_FAILED"
        broken = {**files, "1/model.onnx": data[: len(data) // 2]}
        with pytest.raises(FailedPrecondition) as caught:
            check_parity(
                client,
                "oteo-parity-real",
                config,
                broken,
                images,
                classification_outputs(3),
                expected,
                remaining=lambda: 30.0,
                sleep=lambda _: None,
            )
        assert caught.value.reason == "PARITY_FAILED"
    finally:
        client.close()


def test_a_few_decisions_may_fall_the_other_way_and_no_more():
    output = Output("label_map", (10, 10), "UINT8", tolerance=0.0, spare=0.02)
    expected = np.zeros((1, 10, 10), np.uint8)
    near, far = expected.copy(), expected.copy()
    near[0, 0, :2] = 1
    far[0, 0, :3] = 1
    assert compare_outputs([output], [near], [expected])[1] == ""
    assert "label_map differs" in compare_outputs([output], [far], [expected])[1]
    assert "shape" in compare_outputs([output], [near[:, :5]], [expected])[1]


def test_rows_of_nearly_equal_score_may_change_places_and_clear_ones_may_not():
    outputs = (Output("scores", (4,)), Output("boxes", (4, 2), tolerance=0.01, ranked_by="scores"))
    scores = np.array([[0.9, 0.5, 0.1, 0.09999]], np.float32)
    boxes = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    assert compare_outputs(outputs, [scores, boxes[:, [0, 1, 3, 2]]], [scores, boxes])[1] == ""
    assert "boxes differs" in compare_outputs(outputs, [scores, boxes[:, [1, 0, 2, 3]]], [scores, boxes])[1]


def test_an_object_that_one_runtime_alone_finds_moves_those_behind_it_and_is_no_difference_of_the_graph():
    outputs = (Output("scores", (50,), tolerance=1e-3), Output("boxes", (50, 4), tolerance=0.01, ranked_by="scores"))
    generator = np.random.default_rng(0)
    scores = np.sort(generator.uniform(0.01, 0.9, (2, 51)).astype(np.float32))[:, ::-1]
    boxes = generator.uniform(0, 64, (2, 51, 4)).astype(np.float32)
    expected = [scores[:, :50], boxes[:, :50]]
    found = [np.delete(scores, 7, axis=1), np.delete(boxes, 7, axis=1)]
    assert compare_outputs(outputs, found, expected)[1] == ""
    # Boxes that are others are told all the same, and so is a list of which much is missing.
    assert "boxes differs" in compare_outputs(outputs, [found[0], found[1] + 1.0], expected)[1]
    short = [np.delete(scores, range(6, 12), axis=1), np.delete(boxes, range(6, 12), axis=1)]
    longer = [scores[:, :45], boxes[:, :45]]
    fewer = (Output("scores", (45,), tolerance=1e-3), Output("boxes", (45, 4), tolerance=0.01, ranked_by="scores"))
    assert "scores differs" in compare_outputs(fewer, short, longer)[1]
    assert "scores differs" in compare_outputs(outputs, [expected[0] - 0.02, expected[1]], expected)[1]


@pytest.mark.parametrize("ranks", [1, 4, 40])
def test_scores_that_are_others_are_told_however_short_the_list(ranks):
    outputs = (Output("scores", (ranks,), tolerance=1e-3), Output("boxes", (ranks, 4), tolerance=0.01, ranked_by="scores"))
    expected = [np.linspace(0.9, 0.5, ranks, dtype=np.float32)[None], np.zeros((1, ranks, 4), np.float32)]
    one_other = expected[0].copy()
    one_other[0, -1] -= 0.3
    assert "scores differs" in compare_outputs(outputs, [one_other, expected[1]], expected)[1]


def test_a_score_that_is_no_number_is_told_in_a_long_list_too():
    outputs = (Output("scores", (100,), tolerance=1e-3), Output("boxes", (100, 4), tolerance=0.01, ranked_by="scores"))
    expected = [np.linspace(0.9, 0.1, 100, dtype=np.float32)[None], np.zeros((1, 100, 4), np.float32)]
    broken = expected[0].copy()
    broken[0, 50] = np.nan
    assert "not finite" in compare_outputs(outputs, [broken, expected[1]], expected)[1]
    # A list of another shape is a complaint and no exception.
    assert "shape" in compare_outputs(outputs, [expected[0][0], expected[1]], expected)[1]
