"""Which model answers for an image, and when a translator is put before it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from gateway_support import publish_model

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import Severity
from oteo_core.errors import InvalidArgument
from oteo_core.packages import ModelPackage, ReferenceStatistics, image_statistics, statistic_names
from oteo_gateway.deployments.parts import check_alike, check_shares
from oteo_gateway.deployments.records import ModelPart
from oteo_gateway.prediction.routing import AUTO, OFF, SUGGEST, Answering, Route, RoutedModel, Routes, adapt
from oteo_gateway.prediction.tensors import InferTemplate

IMAGES = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(20_000)]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return publish_model(ArtifactStore(f"file://{tmp_path_factory.mktemp('routing')}"), "m")


def model(package: ModelPackage, name: str, percent: int, **values: object) -> RoutedModel:
    plain = Answering(replace(package, id=name), InferTemplate(name, "", package.input))
    return RoutedModel(**{"plain": plain, "alias": "", "percent": percent, "shadow": False, "available": True, **values})


def shares(package: ModelPackage, **percents: int) -> list[str]:
    routes = Routes("deployments/d", "uid", "mark", tuple(model(package, name, percent) for name, percent in percents.items()))
    return [routes.choose(image).package.id for image in IMAGES]


@pytest.mark.parametrize("percents", [{"a": 90, "b": 10}, {"a": 1, "b": 99}, {"a": 34, "b": 33, "c": 33}, {"a": 70, "b": 30, "c": 0}])
def test_shares_are_kept_and_an_image_keeps_its_model(package: ModelPackage, percents: dict[str, int]) -> None:
    found = shares(package, **percents)
    assert found == shares(package, **percents)
    for name, percent in percents.items():
        share = percent / 100
        # Four standard errors of a share of so many images.
        assert found.count(name) / len(found) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / len(found)))


def test_growing_a_share_moves_only_what_it_grows_by(package: ModelPackage) -> None:
    before, after = shares(package, a=90, b=10), shares(package, a=75, b=25)
    moved = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
    assert set(moved) == {("a", "b")}
    assert len(moved) / len(before) == pytest.approx(0.15, abs=0.01)


def test_only_the_images_of_a_model_that_is_away_move(package: ModelPackage) -> None:
    models = tuple(model(package, name, percent) for name, percent in (("a", 50), ("b", 30), ("c", 20), ("d", 0)))
    whole = Routes("deployments/d", "uid", "mark", models)
    broken = replace(whole, models=(models[0], replace(models[1], available=False), *models[2:]))
    for image in IMAGES[:3000]:
        one, other = whole.choose(image), broken.choose(image)
        assert other.package.id in ("a", "c")
        if one.package.id != "b":
            assert other == one
        else:
            assert [note.code for note in other.notes] == ["MODEL_AWAY"]
    away = replace(whole, models=tuple(replace(one, available=False) for one in models))
    assert [away.choose(image).package.id for image in IMAGES[:200]] == [whole.choose(image).package.id for image in IMAGES[:200]]


def test_two_deployments_of_the_same_models_split_differently(package: ModelPackage) -> None:
    models = (model(package, "a", 50), model(package, "b", 50))
    one, other = (Routes("deployments/d", uid, "mark", models) for uid in ("one", "other"))
    same = sum(one.choose(image).package.id == other.choose(image).package.id for image in IMAGES[:5000])
    assert same / 5000 == pytest.approx(0.5, abs=0.03)


def test_alias_names_the_model_that_must_answer(package: ModelPackage) -> None:
    routes = Routes(
        "deployments/d",
        "uid",
        "mark",
        (
            model(package, "a", 100, alias="champion"),
            model(package, "b", 0, alias="challenger"),
            model(package, "c", 0, alias="next", shadow=True),
        ),
    )
    assert {routes.choose(image).package.id for image in IMAGES[:50]} == {"a"}
    assert {routes.choose(image, "challenger").package.id for image in IMAGES[:50]} == {"b"}
    for alias, words in (("next", "a shadow"), ("none", "champion, challenger")):
        with pytest.raises(InvalidArgument, match=words) as caught:
            routes.choose(IMAGES[0], alias)
        assert (caught.value.reason, caught.value.field) == ("ALIAS_NOT_FOUND", "alias")


def test_translated_is_what_looks_unlike_the_training_images(package: ModelPackage) -> None:
    adapted = Answering(package, InferTemplate("m_t", "", package.input))
    with_it = model(package, "m", 100, translator="translators/t", adapted=adapted)
    usual, shifted, unknown = (1.0, 0.4), (9.0, 0.01), None

    def go(chosen: RoutedModel, shift: tuple[float, float] | None, mode: int) -> tuple[str, str, str, list[str]]:
        route = adapt(Route("deployments/d", chosen, chosen.plain), shift, mode, 0.05)
        return route.template.model, route.translator, route.suggested, [note.code for note in route.notes]

    assert go(with_it, shifted, AUTO) == ("m_t", "translators/t", "", ["TRANSLATED"])
    assert go(with_it, usual, AUTO) == ("m", "", "", ["NOT_TRANSLATED"])
    assert go(with_it, (2.0, 0.05), AUTO) == ("m", "", "", ["NOT_TRANSLATED"])
    assert go(with_it, unknown, AUTO) == ("m", "", "", ["SHIFT_UNKNOWN"])
    assert go(with_it, shifted, SUGGEST) == ("m", "", "translators/t", ["TRANSLATOR_SUGGESTED"])
    assert go(with_it, usual, SUGGEST) == ("m", "", "", [])
    assert go(with_it, shifted, OFF) == ("m", "", "", [])
    assert go(replace(with_it, adapted=None), shifted, AUTO) == ("m", "", "", ["TRANSLATOR_AWAY"])
    route = adapt(Route("deployments/d", with_it, with_it.plain), shifted, AUTO, 0.05, tiled=True)
    assert (route.template.model, route.translator, [(note.code, note.severity is Severity.WARNING) for note in route.notes]) == (
        "m",
        "",
        [("NOT_TRANSLATED", True)],
    )
    # One that looks unlike the translator's own images, too, is from a third source.
    dim = np.full((16, 16, 3), 60, dtype=np.uint8)
    rows = np.stack(
        [image_statistics(dim + np.random.default_rng(number).integers(0, 20, dim.shape, dtype=np.uint8)) for number in range(40)]
    )
    known = replace(with_it, source=ReferenceStatistics.fit(rows, statistic_names(3)))
    seen = dim + np.random.default_rng(99).integers(0, 20, dim.shape, dtype=np.uint8)
    route = Route("deployments/d", known, known.plain)
    assert adapt(route, shifted, AUTO, 0.05, prepared=seen).translator == "translators/t"
    for mode in (AUTO, SUGGEST):
        third = adapt(route, shifted, mode, 0.05, prepared=np.full_like(dim, 240))
        assert (third.translator, third.suggested, third.notes[0].code, third.notes[0].severity is Severity.WARNING) == (
            "",
            "",
            "NOT_TRANSLATED",
            True,
        )
        assert "third source" in third.notes[0].message
    assert go(model(package, "m", 100), shifted, AUTO) == ("m", "", "", ["NO_TRANSLATOR"])


@pytest.mark.parametrize(
    ("parts", "reason", "field", "words"),
    [
        ([], "NO_MODEL", "deployment.models", "needs a model"),
        ([ModelPart("a", percent=0, shadow=True)], "NO_MODEL", "deployment.models", "shadows alone"),
        ([ModelPart("a", percent=60), ModelPart("b", percent=30)], "BAD_TRAFFIC", "deployment.models[0].traffic_percent", "60 \\+ 30 = 90"),
        ([ModelPart("a", percent=0), ModelPart("b", percent=0)], "BAD_TRAFFIC", "deployment.models[0].traffic_percent", "= 0"),
        ([ModelPart("a", percent=30)], "BAD_TRAFFIC", "deployment.models[0].traffic_percent", "not 30"),
        (
            [ModelPart("a"), ModelPart("b", percent=10, shadow=True)],
            "BAD_TRAFFIC",
            "deployment.models[1].traffic_percent",
            "is a shadow",
        ),
        ([ModelPart("a", percent=50), ModelPart("a", percent=50)], "DUPLICATE_MODEL", "deployment.models[1].model", "named twice"),
        ([ModelPart("a", "x", 50), ModelPart("b", "x", 50)], "DUPLICATE_ALIAS", "deployment.models[1].alias", "'x'"),
    ],
)
def test_bad_shares_are_refused_with_their_field(parts: list[ModelPart], reason: str, field: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words) as caught:
        check_shares(parts)
    assert (caught.value.reason, caught.value.field) == (reason, field)


def test_one_model_alone_needs_no_share(package: ModelPackage) -> None:
    parts = check_shares([ModelPart("s", percent=0, shadow=True), ModelPart("a", percent=0)])
    assert [part.percent for part in parts] == [0, 100]
    for other in (replace(package, id="b", task="detection"), replace(package, id="b", classes=["green", "red", "blue"])):
        with pytest.raises(InvalidArgument) as caught:
            check_alike([package, package, other])
        assert (caught.value.reason, caught.value.field) == ("MODELS_DIFFER", "deployment.models[2].model")
    check_alike([package, replace(package, id="b")])
