"""Several models to a deployment on real Tritons: shares, aliases, changes under load, shadows, roll-back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import cv2
import grpc
import numpy as np
import onnx
import pytest
from deployment_site import DEGRADED, READY, Replicas, Site
from gateway_support import Loop, colour_model, details_of, publish_model, running_gateway, settings_for
from prometheus_client import REGISTRY
from waiting import patient, wait_for

from oteo_core.artifacts import open_store
from oteo_core.packages import delete_model
from oteo_protos.gateway.v1 import deployment_pb2, inference_pb2
from oteo_protos.type.v1 import image_pb2

Part = deployment_pb2.DeployedModel


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    found = Replicas(tmp_path_factory.mktemp("repository"))
    found.up(0)
    found.up(1)
    yield found
    found.close()


@pytest.fixture(scope="module")
def site(loop: Loop, replicas: Replicas, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("traffic")
    settings = settings_for(
        home, triton_urls=replicas.addresses, model_repository=f"file://{replicas.repository}", shadow_write_seconds=0.2, lease_seconds=1.5
    )
    artifacts = open_store(settings)
    with running_gateway(loop, settings, log_dir=home / "logs") as running:
        found = Site(running, replicas, artifacts)
        publish_model(artifacts, "one", sharpness=8)
        publish_model(artifacts, "two", sharpness=4)
        publish_model(artifacts, "three", sharpness=2)
        yield found


def contrary() -> bytes:
    """ONNX: the colour model, which calls the weakest colour the class."""
    model = onnx.load_from_string(colour_model())
    for tensor in model.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(tensor), tensor.name))
    return bytes(model.SerializeToString())


def shade(number: int) -> bytes:
    """PNG: an image like no other; green is always strongest."""
    pixels = np.zeros((24, 24, 3), dtype=np.uint8)
    pixels[:] = number % 100, 200, number // 100
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def ask(site: Site, name: str, number: int, **values: object) -> inference_pb2.PredictResponse:
    image = image_pb2.ImageSource(content=shade(number))
    return site.inference.Predict(inference_pb2.PredictRequest(deployment=f"deployments/{name}", image=image, **values), timeout=120)


def refusal(call: object, *args: object, **values: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **values)
    return caught.value.code(), details_of(caught.value)[0]


def test_shares_and_aliases_decide_who_answers(site: Site) -> None:
    made = site.serve(
        "split",
        Part(model="models/one", traffic_percent=60, alias="champion"),
        Part(model="models/two", traffic_percent=40, alias="challenger"),
        Part(model="models/three", alias="reserve"),
    )
    assert [(m.model, m.traffic_percent, m.alias, m.triton_model, m.triton_version) for m in made.models] == [
        ("models/one", 60, "champion", "one", "1"),
        ("models/two", 40, "challenger", "two", "1"),
        ("models/three", 0, "reserve", "three", "1"),
    ]
    assert made.state == READY
    first = [ask(site, "split", number) for number in range(60)]
    assert {(answer.model, answer.alias) for answer in first} == {("models/one", "champion"), ("models/two", "challenger")}
    assert 20 <= sum(answer.model == "models/one" for answer in first) <= 52
    assert [ask(site, "split", number).model for number in range(60)] == [answer.model for answer in first]
    for alias, model in (("champion", "models/one"), ("challenger", "models/two"), ("reserve", "models/three")):
        assert {ask(site, "split", number, alias=alias).model for number in range(5)} == {model}
    assert refusal(ask, site, "split", 1, alias="nobody") == (grpc.StatusCode.INVALID_ARGUMENT, "ALIAS_NOT_FOUND")
    # A larger share takes images from the one that shrinks, and from nobody else.
    site.result(
        site.update("split", "models", models=[Part(model="models/one", traffic_percent=20), Part(model="models/two", traffic_percent=80)])
    )
    wait_for(lambda: ask(site, "split", 0).alias == "")
    for before, number in zip(first, range(60), strict=True):
        assert ask(site, "split", number).model == "models/two" or before.model == "models/one"
    site.delete("split")


def test_models_come_and_go_under_load_and_no_request_is_lost(site: Site) -> None:
    site.serve("busy", Part(model="models/one"))
    errors: list[str] = []
    seen: set[str] = set()
    answered = [0]
    stop = threading.Event()

    def load(start: int) -> None:
        number = start
        while not stop.is_set():
            number += 4
            try:
                answer = ask(site, "busy", number % 9000)
                assert answer.classification.scores[0].class_name == "green"
                seen.add(answer.model)
                answered[0] += 1
            except grpc.RpcError as error:
                errors.append(f"{error.code()}: {error.details()}")

    threads = [threading.Thread(target=load, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    try:
        steps = [
            [Part(model="models/one", traffic_percent=50), Part(model="models/two", traffic_percent=50)],
            [Part(model="models/two"), Part(model="models/three", shadow=True)],
            [Part(model="models/three")],
            [Part(model="models/one", traffic_percent=30), Part(model="models/three", traffic_percent=70)],
        ]
        for models in steps:
            site.result(site.update("busy", "models", models=models))
            # What is not wanted any more is unloaded while calls go on.
            names = {model.model.removeprefix("models/") for model in models}
            wait_for(lambda names=names: all(set(site.index(number)) == names for number in (0, 1)))
        site.result(site.rollback("busy"))
        count = answered[0]
        wait_for(lambda: answered[0] > count + 20)
    finally:
        stop.set()
        for thread in threads:
            thread.join(patient(30))
    assert not errors
    assert seen == {"models/one", "models/two", "models/three"}
    site.delete("busy")


def test_a_model_that_does_not_load_changes_nothing_for_callers(site: Site) -> None:
    publish_model(site.artifacts, "faulty", graph=b"this is no ONNX graph")
    site.serve("careful", Part(model="models/one", alias="champion"))
    for part in (Part(model="models/faulty", traffic_percent=10), Part(model="models/faulty", shadow=True)):
        share = 90 if part.traffic_percent else 100
        done = site.done(site.update("careful", "models", models=[Part(model="models/one", traffic_percent=share), part]), 60)
        assert done.error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
        assert "models/faulty" in done.error.message
        assert site.get("careful").state == DEGRADED
        assert {ask(site, "careful", number).model for number in range(30)} == {"models/one"}
    # Back to what answered; three revisions down.
    assert [revision.generation for revision in site.get("careful").revisions] == [2, 1]
    assert site.result(site.rollback("careful", 1)).state == READY
    site.delete("careful")
    delete_model(site.artifacts, "faulty")


def test_a_deleted_model_of_a_split_leaves_its_images_to_the_others(site: Site) -> None:
    publish_model(site.artifacts, "fleeting", sharpness=3)
    site.serve("pair", Part(model="models/one", traffic_percent=50), Part(model="models/fleeting", traffic_percent=50, alias="other"))
    assert {ask(site, "pair", number).model for number in range(30)} == {"models/one", "models/fleeting"}
    delete_model(site.artifacts, "fleeting")
    assert "models/fleeting" in wait_for(lambda: (found := site.get("pair")).state == DEGRADED and found.message)

    def moved() -> bool:
        answers = [ask(site, "pair", number) for number in range(30)]
        return {answer.model for answer in answers} == {"models/one"} and any(
            finding.code == "MODEL_AWAY" for answer in answers for finding in answer.findings
        )

    wait_for(moved)
    wait_for(lambda: not any("fleeting" in site.index(number) for number in (0, 1)))
    assert refusal(ask, site, "pair", 1, alias="other")[0] is grpc.StatusCode.UNAVAILABLE
    site.delete("pair")


def test_shadows_are_compared_and_change_no_answer(site: Site) -> None:
    publish_model(site.artifacts, "contrary", graph=contrary())
    site.serve(
        "watched",
        Part(model="models/one", alias="champion"),
        Part(model="models/two", shadow=True, alias="next"),
        Part(model="models/contrary", shadow=True),
    )
    for number in range(25):
        answer = ask(site, "watched", number, operating_point="" if number else "red/specificity>=0.99")
        assert (answer.model, answer.alias) == ("models/one", "champion")
        assert answer.classification.decision == "green"

    def compared() -> list[deployment_pb2.ShadowComparison]:
        found = list(site.get("watched").comparisons)
        return found if sum(one.image_count + one.missed_count for one in found) == 50 else []

    contrary_one, two = wait_for(compared)
    assert (contrary_one.model, two.model) == ("models/contrary", "models/two")
    assert (two.image_count, two.missed_count, two.agreement) == (25, 0, 1.0)
    assert 0.8 < two.agreement_lower < 1.0 == two.agreement_upper
    assert (contrary_one.agreement, contrary_one.agreement_lower) == (0.0, 0.0)
    assert 0.0 < contrary_one.agreement_upper < 0.2
    assert two.latency_ratio > 0
    assert REGISTRY.get_sample_value("oteo_shadow_agreement_count", {"deployment": "watched", "model": "two"}) == 25
    assert REGISTRY.get_sample_value("oteo_shadow_agreement_sum", {"deployment": "watched", "model": "contrary"}) == 0
    assert refusal(ask, site, "watched", 1, alias="next") == (grpc.StatusCode.INVALID_ARGUMENT, "ALIAS_NOT_FOUND")
    # A change of words keeps the figures; a change of models begins anew.
    site.result(site.update("watched", "display_name", display_name="watched over"))
    assert len(site.get("watched").comparisons) == 2
    site.result(site.update("watched", "models", models=[Part(model="models/one"), Part(model="models/contrary", shadow=True)]))
    wait_for(lambda: not site.get("watched").comparisons)
    site.delete("watched")


def test_roll_back_puts_models_shares_and_aliases_back(site: Site) -> None:
    before = [
        Part(model="models/one", traffic_percent=90, alias="champion"),
        Part(model="models/two", traffic_percent=10, alias="challenger"),
    ]
    made = site.serve("back", *before)
    assert refusal(site.rollback, "back") == (grpc.StatusCode.FAILED_PRECONDITION, "NO_REVISION")
    changed = site.result(site.update("back", "models", etag=made.etag, models=[Part(model="models/two", alias="champion")]))
    assert refusal(site.update, "back", "models", etag=made.etag, models=before) == (grpc.StatusCode.FAILED_PRECONDITION, "ETAG_MISMATCH")
    (revision,) = changed.revisions
    assert (revision.generation, [(m.model, m.traffic_percent, m.alias) for m in revision.models]) == (
        1,
        [("models/one", 90, "champion"), ("models/two", 10, "challenger")],
    )
    assert revision.create_time.seconds > time.time() - 600
    assert refusal(site.rollback, "back", 7) == (grpc.StatusCode.NOT_FOUND, "REVISION_NOT_FOUND")
    put_back = site.result(site.rollback("back"))
    assert (put_back.generation, list(put_back.models)) == (3, list(made.models))
    assert [one.generation for one in put_back.revisions] == [2, 1]
    # Another roll-back undoes it.
    assert site.result(site.rollback("back")).models[0].model == "models/two"
    site.delete("back")


def test_models_that_answer_other_questions_are_refused(site: Site) -> None:
    publish_model(site.artifacts, "renamed", classes=["rot", "gruen", "blau"])

    def create(*parts: Part) -> tuple[grpc.StatusCode, str]:
        return refusal(site.serve, "mixed", *parts)

    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert create(Part(model="models/one", traffic_percent=50), Part(model="models/renamed", traffic_percent=50)) == (
        invalid,
        "MODELS_DIFFER",
    )
    assert create(Part(model="models/one"), Part(model="models/renamed", shadow=True)) == (invalid, "MODELS_DIFFER")
    assert create(Part(model="models/one", traffic_percent=50), Part(model="models/two", traffic_percent=40)) == (invalid, "BAD_TRAFFIC")
    site.serve("kept", Part(model="models/one"))
    assert refusal(
        site.update, "kept", "models", models=[Part(model="models/one", alias="a"), Part(model="models/two", alias="a", shadow=True)]
    ) == (
        invalid,
        "DUPLICATE_ALIAS",
    )
    site.delete("kept")
