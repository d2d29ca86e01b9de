"""Translators before models on a real Triton: as translate publishes them, against translating and predicting by hand."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import numpy as np
import pytest
from deployment_site import DEGRADED, READY, Replicas, Site
from gateway_support import Loop, details_of, running_gateway, settings_for
from judged_models import POLICY, publish
from waiting import wait_for

from oteo_core.artifacts import ArtifactStore, open_store
from oteo_core.graphs.export import run_onnx
from oteo_core.graphs.modules import dump_module
from oteo_core.graphs.parity import parity_name
from oteo_core.graphs.triton import TritonParityClient
from oteo_core.images import ImageLimits, decode, encode_png, prepare
from oteo_core.packages import ModelPackage, ReferenceStatistics, image_statistics, statistic_names
from oteo_core.packages.translators import (
    ADAPTED_MODEL,
    ENSEMBLE,
    IMAGE,
    MODEL,
    TRANSLATION,
    TRANSLATOR_MANIFEST,
    TranslatorPackage,
    delete_translator,
    triton_name,
)
from oteo_protos.gateway.v1 import deployment_pb2, inference_pb2
from oteo_protos.type.v1 import image_pb2
from oteo_translate.domains import Domain
from oteo_translate.methods.base import FitContext
from oteo_translate.methods.registry import METHODS
from oteo_translate.publishing.contents import Proof, named, translation_files
from oteo_translate.tasks.model import open_task_model

Part = deployment_pb2.DeployedModel
SUGGEST, AUTO, OFF = inference_pb2.ADAPT_MODE_SUGGEST, inference_pb2.ADAPT_MODE_AUTO, inference_pb2.ADAPT_MODE_OFF
HOME, SHIFTED = 0.8, 0.45
"""Light of the two sources; the model calls the first light, the second middle."""


def picture(index: int, level: float, size: tuple[int, int] = (40, 56)) -> np.ndarray:
    """An uneven picture ``(height, width, 3)`` of a mean light, larger than the model's input and of another shape."""
    rng = np.random.default_rng(index)
    slope = np.linspace(-0.08, 0.08, size[1])[None, :, None]
    return np.clip(255 * (level + slope) + rng.normal(0, 8, (*size, 3)), 0, 255).astype(np.uint8)


def prepared(pixels: np.ndarray) -> np.ndarray:
    image = decode(encode_png(pixels), ImageLimits(max_bytes=1 << 24, max_pixels=1 << 22))
    return np.asarray(prepare(image.pixels, POLICY, image.header.bit_depth))


def reference() -> ReferenceStatistics:
    """Statistics of what the model was trained on."""
    rows = np.stack([image_statistics(prepared(picture(index, HOME + 0.02 * np.sin(index)))) for index in range(60)])
    return ReferenceStatistics.fit(rows, statistic_names(3))


def write(store: ArtifactStore, package: TranslatorPackage, files: dict[str, bytes]) -> TranslatorPackage:
    for name, content in files.items():
        store.write_bytes(f"{package.name}/{name}", content)
    package.files = named(files)
    store.write_bytes(f"{package.name}/{TRANSLATOR_MANIFEST}", package.to_json())
    return package


def manifest(name: str, model: ModelPackage, **changes: object) -> TranslatorPackage:
    values: dict[str, object] = {
        "id": name,
        "display_name": name,
        "uid": name,
        "model": model.name,
        "model_digest": model.digest,
        "home_dataset": "datasets/home",
        "shifted_dataset": "datasets/dim",
        "method": "moments",
        "accepted": True,
        "reason": "the model is right again",
        "input": model.input,
        "create_time": datetime.now(UTC),
        "digest": hashlib.sha256(name.encode()).hexdigest(),
        **changes,
    }
    return TranslatorPackage(**values)


def publish_translator(
    store: ArtifactStore, address: str, name: str, model: ModelPackage, served_by: ModelPackage, **changes: object
) -> TranslatorPackage:
    """Publish what translate's job would: fitted from dim to home, proved on this Triton."""
    shifted = np.stack([prepared(picture(100 + index, SHIFTED)) for index in range(8)])
    home = np.stack([prepared(picture(200 + index, HOME)) for index in range(8)])
    domains = [
        Domain(f"datasets/{word}", images, [f"{word}{i}" for i in range(8)], [f"{word}{i}" for i in range(8)])
        for word, images in (("dim", shifted), ("home", home))
    ]
    translation = METHODS["moments"].fit(domains[0], domains[1], {"scope": "domain"}, FitContext())
    written = dump_module(translation)
    digest = hashlib.sha256(written + served_by.digest.encode()).hexdigest()
    client = TritonParityClient(address)
    try:
        proof = Proof(client, parity_name(name), lambda: 60.0, time.sleep)
        files, parity, _ = translation_files(
            translation, written, name, open_task_model(store, model), served_by, shifted[:3], digest, proof
        )
    finally:
        client.close()
    assert parity is not None
    details = {ADAPTED_MODEL: served_by.name} if served_by is not model else {}
    rows = np.stack([image_statistics(prepared(picture(400 + index, SHIFTED + 0.02 * np.sin(index)))) for index in range(40)])
    judged = ReferenceStatistics.fit(rows, statistic_names(3))
    return write(
        store, manifest(name, model, digest=digest, changes=IMAGE, details=details, **{"shifted_reference": judged, **changes}), files
    )


@pytest.fixture(scope="module")
def site(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("adapted")
    replicas = Replicas(home / "model-repository")
    replicas.up(0)
    replicas.up(1)
    settings = settings_for(home, triton_urls=replicas.addresses, model_repository=f"file://{replicas.repository}")
    artifacts = open_store(settings)
    try:
        with running_gateway(loop, settings, log_dir=home / "logs") as running:
            yield Site(running, replicas, artifacts)
    finally:
        replicas.close()


@pytest.fixture(scope="module")
def frozen(site: Site) -> ModelPackage:
    return publish(site.artifacts, "classification", "shades", reference=reference())


@pytest.fixture(scope="module")
def lighter(site: Site, frozen: ModelPackage) -> TranslatorPackage:
    return publish_translator(site.artifacts, site.replicas.addresses[0], "lighter", frozen, frozen)


def ask(site: Site, name: str, pixels: np.ndarray, **values: object) -> inference_pb2.PredictResponse:
    image = image_pb2.ImageSource(content=encode_png(pixels))
    return site.inference.Predict(inference_pb2.PredictRequest(deployment=f"deployments/{name}", image=image, **values), timeout=120)


def probabilities(answer: inference_pb2.PredictResponse) -> list[float]:
    found = {score.class_name: score.probability for score in answer.classification.scores}
    return [found[name] for name in ("dark", "middle", "light")]


def codes(answer: inference_pb2.PredictResponse) -> list[str]:
    return [finding.code for finding in answer.findings]


def graph(site: Site, path: str) -> bytes:
    return site.artifacts.read_bytes(path)


def test_auto_answers_as_translating_and_predicting_by_hand(site: Site, frozen: ModelPackage, lighter: TranslatorPackage) -> None:
    made = site.serve("dim", Part(model="models/shades"), adapt=AUTO)
    assert (made.state, made.adapt) == (READY, AUTO)
    for number in (0, 1):
        assert {"shades", triton_name("lighter"), "shades_lighter"} <= {
            name for name, state in site.index(number).items() if state == "READY"
        }
    translator, model = (
        graph(site, "translators/lighter/triton/translator_lighter/1/model.onnx"),
        graph(site, "models/shades/triton/shades/1/model.onnx"),
    )
    for index in range(4):
        shifted = picture(300 + index, SHIFTED)
        answer = ask(site, "dim", shifted)
        by_hand = run_onnx(model, run_onnx(translator, prepared(shifted)[None])[0])[0][0]
        assert probabilities(answer) == pytest.approx(by_hand.tolist(), abs=1e-4)
        assert (answer.model, answer.translator, answer.suggested_translator, codes(answer)) == (
            "models/shades",
            "translators/lighter",
            "",
            ["TRANSLATED"],
        )
        assert answer.classification.scores[0].class_name == "light"
        assert answer.shift.p_value < 0.05
        # Untranslated it is another answer, so the translator did it.
        plain = ask(site, "dim", shifted, adapt=OFF)
        assert probabilities(plain) == pytest.approx(run_onnx(model, prepared(shifted)[None])[0][0].tolist(), abs=1e-4)
        assert (plain.classification.scores[0].class_name, plain.translator, codes(plain)) == ("middle", "", [])
    # What looks as at home is left as it is, and said.
    usual = ask(site, "dim", picture(7, HOME))
    assert (usual.translator, codes(usual), usual.shift.p_value > 0.05) == ("", ["NOT_TRANSLATED"], True)
    assert probabilities(usual) == pytest.approx(run_onnx(model, prepared(picture(7, HOME))[None])[0][0].tolist(), abs=1e-4)
    # So is what looks like neither source.
    strange = ask(site, "dim", picture(8, 0.15))
    assert (strange.translator, codes(strange)) == ("", ["NOT_TRANSLATED"])
    assert "third source" in strange.findings[0].message
    suggested = ask(site, "dim", picture(300, SHIFTED), adapt=SUGGEST)
    assert (suggested.translator, suggested.suggested_translator, codes(suggested)) == ("", "translators/lighter", ["TRANSLATOR_SUGGESTED"])
    # Triton's own protocol reaches the ensemble by its name, too.
    site.delete("dim")
    wait_for(lambda: not any({"shades_lighter", triton_name("lighter"), "shades"} & set(site.index(number)) for number in (0, 1)))
    assert not (site.replicas.repository / "shades_lighter").exists()


def test_boxes_found_on_a_translated_image_lie_where_they_are_in_the_original(site: Site) -> None:
    model = publish(site.artifacts, "detection", "squares", decoding={"score_threshold": 0.5}, reference=reference())
    shifted = picture(1, 0.2, (64, 128))
    # A square of a light that the model only sees once the picture is as light as at home.
    shifted[16:32, 32:64] = (100, 60, 60)
    # A translator that was published before its images were described: nothing is held against them.
    publish_translator(site.artifacts, site.replicas.addresses[0], "square-light", model, model, shifted_reference=None)
    site.serve("squares", Part(model="models/squares"), adapt=AUTO, translator="translators/square-light")
    answer = ask(site, "squares", shifted)
    assert answer.translator == "translators/square-light"
    by_hand = run_onnx(
        graph(site, "models/squares/triton/squares/1/model.onnx"),
        run_onnx(graph(site, "translators/square-light/triton/translator_square-light/1/model.onnx"), prepared(shifted)[None])[0],
    )
    left, top, right, bottom = (float(value) for value in by_hand[0][0, 0] * np.array([4, 2, 4, 2]))
    (found,) = answer.detection.objects
    assert (found.box.x, found.box.y, found.box.width, found.box.height) == pytest.approx((left, top, right - left, bottom - top))
    assert not ask(site, "squares", shifted, adapt=OFF).detection.objects
    site.delete("squares")


def test_deployment_off_translates_nothing_and_says_what_is_missing(site: Site, lighter: TranslatorPackage) -> None:
    site.serve("plain", Part(model="models/shades"))
    assert "shades_lighter" not in site.index(0)
    answer = ask(site, "plain", picture(300, SHIFTED), adapt=AUTO)
    assert (answer.translator, codes(answer)) == ("", ["NO_TRANSLATOR"])
    assert codes(ask(site, "plain", picture(300, SHIFTED))) == []
    # Asked for by an update, it comes without a gap.
    site.result(site.update("plain", "adapt", adapt=SUGGEST))
    wait_for(lambda: ask(site, "plain", picture(300, SHIFTED)).suggested_translator == "translators/lighter")
    assert ask(site, "plain", picture(300, SHIFTED)).translator == ""
    assert [one.generation for one in site.get("plain").revisions] == [1]
    site.result(site.rollback("plain"))
    wait_for(lambda: codes(ask(site, "plain", picture(300, SHIFTED))) == [])
    site.delete("plain")


def test_newest_accepted_translator_of_this_very_model_is_taken(site: Site, frozen: ModelPackage, lighter: TranslatorPackage) -> None:
    address = site.replicas.addresses[0]
    now = lighter.create_time
    publish_translator(site.artifacts, address, "rejected", frozen, frozen, accepted=False, create_time=now + timedelta(days=3))
    other = replace(lighter, id="elsewhere", model_digest="f" * 64, create_time=now + timedelta(days=2))
    site.artifacts.write_bytes("translators/elsewhere/translator.json", other.to_json())
    site.serve("chosen", Part(model="models/shades"), adapt=AUTO)
    assert ask(site, "chosen", picture(300, SHIFTED)).translator == "translators/lighter"
    # One that passes its gate later comes in by itself.
    publish_translator(site.artifacts, address, "newer", frozen, frozen, create_time=now + timedelta(days=1))
    wait_for(lambda: ask(site, "chosen", picture(300, SHIFTED)).translator == "translators/newer")
    for name in ("rejected", "elsewhere", "newer"):
        delete_translator(site.artifacts, name)
    wait_for(lambda: ask(site, "chosen", picture(300, SHIFTED)).translator == "translators/lighter")
    site.delete("chosen")


def test_adapted_model_answers_in_the_models_place(site: Site, frozen: ModelPackage) -> None:
    adapted = publish(
        site.artifacts, "classification", "adabn-shades", labels={"adapted_from": "models/shades"}, decoding={"adapted": True}
    )
    package = manifest("adabn-shades", frozen, method="adabn", changes=MODEL, details={ADAPTED_MODEL: adapted.name})
    write(site.artifacts, package, {"report.html": b"<p>"})
    site.serve("by-model", Part(model="models/shades", alias="champion"), adapt=AUTO, translator="adabn-shades")
    answer = ask(site, "by-model", picture(300, SHIFTED))
    assert (answer.model, answer.translator, answer.alias) == ("models/adabn-shades", "translators/adabn-shades", "champion")
    assert answer.shift.p_value < 0.05
    assert ask(site, "by-model", picture(7, HOME)).model == "models/shades"
    site.delete("by-model")
    # Translation and adapted model together.
    publish_translator(site.artifacts, site.replicas.addresses[0], "both", frozen, adapted)
    site.serve("both-ways", Part(model="models/shades"), adapt=AUTO, translator="translators/both")
    answer = ask(site, "both-ways", picture(300, SHIFTED))
    assert (answer.model, answer.translator) == ("models/adabn-shades", "translators/both")
    assert "adabn-shades_both" in site.index(0)
    assert answer.classification.scores[0].class_name == "light"
    site.delete("both-ways")
    delete_translator(site.artifacts, "both")
    delete_translator(site.artifacts, "adabn-shades")


def test_translators_that_may_not_be_used_are_refused_with_their_reason(
    site: Site, frozen: ModelPackage, lighter: TranslatorPackage
) -> None:
    store = site.artifacts
    publish(store, "classification", "others")
    write(store, manifest("failed", frozen, accepted=False, reason="it moves nuclei"), {TRANSLATION: b"x", ENSEMBLE: b"x"})
    write(
        store,
        manifest("slow", frozen, method="gatys", details={"notes": ["The method optimises each image by itself."]}),
        {TRANSLATION: b"x"},
    )
    write(store, manifest("idle", frozen, method="nothing"), {})

    def refused(translator: str, model: str = "models/shades") -> tuple[grpc.StatusCode, str, str]:
        with pytest.raises(grpc.RpcError) as caught:
            site.serve("refused", Part(model=model), adapt=AUTO, translator=translator)
        return caught.value.code(), details_of(caught.value)[0], caught.value.details()

    failed = grpc.StatusCode.FAILED_PRECONDITION
    assert refused("translators/failed")[:2] == (failed, "TRANSLATOR_NOT_ACCEPTED")
    assert "moves nuclei" in refused("translators/failed")[2]
    assert refused("translators/slow")[:2] == (failed, "TRANSLATOR_NOT_SERVED")
    assert "optimises each image" in refused("translators/slow")[2]
    assert refused("translators/idle")[:2] == (failed, "TRANSLATOR_NOT_SERVED")
    assert refused("translators/lighter", "models/others")[:2] == (failed, "TRANSLATOR_OTHER_MODEL")
    assert refused("translators/none")[:2] == (grpc.StatusCode.NOT_FOUND, "TRANSLATOR_NOT_FOUND")
    # With AUTO and no name none of them is taken, and the deployment answers as the model does.
    site.serve("others", Part(model="models/others"), adapt=AUTO)
    assert codes(ask(site, "others", picture(300, SHIFTED))) == ["SHIFT_UNKNOWN"]
    site.delete("others")
    for name in ("failed", "slow", "idle"):
        delete_translator(store, name)


def test_deleted_translator_is_said_and_the_model_goes_on(site: Site, frozen: ModelPackage) -> None:
    publish_translator(site.artifacts, site.replicas.addresses[0], "brief", frozen, frozen)
    site.serve("left", Part(model="models/shades"), adapt=AUTO, translator="translators/brief")
    assert ask(site, "left", picture(300, SHIFTED)).translator == "translators/brief"
    delete_translator(site.artifacts, "brief")
    assert "translators/brief" in wait_for(lambda: (found := site.get("left")).state == DEGRADED and found.message)
    wait_for(lambda: codes(ask(site, "left", picture(300, SHIFTED))) == ["NO_TRANSLATOR"])
    site.result(site.update("left", "adapt", "translator", adapt=OFF))
    assert site.get("left").state == READY
    site.delete("left")


def test_killed_triton_serves_translator_and_model_again(site: Site, lighter: TranslatorPackage) -> None:
    site.serve("again", Part(model="models/shades"), adapt=AUTO, translator="translators/lighter")
    site.replicas.kill(1)
    wait_for(lambda: site.get("again").state == DEGRADED)
    assert ask(site, "again", picture(300, SHIFTED)).translator == "translators/lighter"
    site.replicas.up(1)
    wait_for(lambda: site.get("again").state == READY)
    assert site.replicas.kill_stubs(0) >= 1
    for _ in range(8):
        assert ask(site, "again", picture(300, SHIFTED)).classification.scores[0].class_name == "light"
    site.delete("again")
