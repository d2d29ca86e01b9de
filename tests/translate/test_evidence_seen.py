"""What people see of a climb: distances to home beside the verdict, and how trainings went."""

from __future__ import annotations

import base64
import dataclasses
import html
import re
from datetime import UTC, datetime

import numpy as np
import pytest
from frozen_models import domain, frozen

from oteo_core.images import InputPolicy
from oteo_core.packages.translators import TranslatorPackage
from oteo_translate.adaptation.registry import ADAPTATIONS
from oteo_translate.domains import Domain
from oteo_translate.ladder.ladder import climb
from oteo_translate.ladder.result import LABEL_FREE, WITH_LABELS, Candidate
from oteo_translate.measures.home import HomeMeasures
from oteo_translate.methods.base import FitContext
from oteo_translate.methods.registry import METHODS
from oteo_translate.proto import record_to_proto
from oteo_translate.publishing.page import Training, trainings_of, write_page

TASK = "semantic_segmentation"
SHORT = {"width": 6, "blocks": 1, "critic_width": 6, "patches": 16, "vector": 16, "inspect": 4, "steps": 12, "crop": 16}
WAYS = {name: METHODS[name] for name in ("gamma", "fda")}


def darkened(one: Domain) -> Domain:
    table = np.rint(255 * (np.arange(256) / 255.0) ** 2.2).astype(np.uint8)
    return dataclasses.replace(one, name="datasets/dark", images=table[one.images])


@pytest.fixture(scope="module")
def model():
    return frozen(TASK)


@pytest.fixture(scope="module")
def home():
    return domain(TASK, 40, 1)


def climbed(model, home, *, labelled=False):
    dark = darkened(domain(TASK, 32, 2, name="dark", labelled=labelled))
    adaptations = {"adabn": ADAPTATIONS["adabn"]}
    return climb(model, dark, home, methods=WAYS, adaptations=adaptations, context=FitContext(seed=3))


@pytest.fixture(scope="module")
def found(model, home):
    return climbed(model, home)


def page_of(result, trainings=()) -> str:
    best = result.best
    package = TranslatorPackage(
        id="dark-home", display_name="dark to home", uid="0" * 32, model="models/judge", model_digest="0" * 64, home_dataset="datasets/home",
        shifted_dataset="datasets/dark", method=best.candidate.name, accepted=result.accepted, reason=result.reason,
        input=InputPolicy(width=48, height=48, channels=3), create_time=datetime.now(UTC),
    )  # fmt: skip
    return write_page(package, result, b"a sheet", [], "today", trainings).decode()


def shown(page: str) -> str:
    """Give what is read on a page: no tags and no pictures."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page)))


def test_a_translation_that_brings_images_home_is_seen_to_and_doing_nothing_is_not(found):
    assert found.criterion == LABEL_FREE
    distances = {one.candidate.label: {each.name: each for each in one.distances} for one in found.evidence}
    nothing = distances["nothing"]
    assert set(nothing) == {"kid", "fid"}, "four figures, and more images than that"
    assert nothing["kid"].lower > 0
    assert nothing["kid"].sample_count == 32
    translated = [one for one in found.evidence if one.candidate.method and not one.candidate.adaptation]
    nearest = min((distances[one.candidate.label] for one in translated), key=lambda one: one["kid"].value)
    assert nearest["kid"].upper < 0.1 * nothing["kid"].lower
    assert nearest["fid"].upper < 0.1 * nothing["fid"].lower


def test_adapted_models_have_no_distance_as_their_figures_are_others(found):
    adapted = [one for one in found.evidence if one.candidate.adaptation and one.tried]
    assert adapted
    assert not any(one.distances for one in adapted)


def test_nothing_is_chosen_by_the_distances(model, home, found, monkeypatch):
    monkeypatch.setattr(HomeMeasures, "of", lambda self, embeddings, groups=None: {})
    without = climbed(model, home)
    assert not any(one.distances for one in without.evidence)

    def told(result):
        return [(one.candidate.label, one.accepted, one.reason, one.score, one.gain) for one in result.evidence]

    assert told(without) == told(found)
    assert without.choice.candidate == found.choice.candidate


def test_where_labels_judge_a_few_images_are_measured_all_the_same(model, home):
    result = climbed(model, home, labelled=True)
    assert result.criterion == WITH_LABELS
    by_name = {one.candidate.name: one for one in result.evidence}
    (kid, *_) = by_name["nothing"].distances
    assert kid.sample_count == 16
    assert by_name["gamma"].distances[0].upper < kid.lower
    assert by_name["adabn"].distances == []


def test_the_contract_gives_the_distances_with_their_intervals(found):
    nothing = next(one for one in found.evidence if one.candidate.name == "nothing")
    message = record_to_proto(nothing.record())
    assert [one.name for one in message.distances] == ["kid", "fid"]
    assert message.distances[0].value == nothing.figures["kid"]
    assert message.distances[0].lower == nothing.figures["kid_lower"]
    assert message.distances[0].confidence_level == 0.95


def test_the_page_says_how_far_images_are_from_home_before_and_after(found):
    assert "as they are; what is recommended changes the model's own figures" in shown(page_of(found))
    nothing, gamma = (next(one for one in found.evidence if one.candidate.name == name) for name in ("nothing", "gamma"))
    page = shown(page_of(dataclasses.replace(found, choice=gamma)))
    before, after = (f"{one.distances[0].value:.3g} (" for one in (nothing, gamma))
    assert re.search(rf"KID\) of the images to home.*{re.escape(before)}.* as they are, {re.escape(after)}.*with what is recommended", page)
    assert "KID to home" in page
    assert "FID to home" in page
    assert "Nothing is chosen by it" in page
    wide = {**nothing.figures, "embedding_dimensions": 960.0}
    few = {name: value for name, value in wide.items() if not name.startswith("fid")}
    told = [dataclasses.replace(one, figures=few) if one.distances else one for one in found.evidence]
    page = shown(page_of(dataclasses.replace(found, evidence=told)))
    assert "FID to home" not in page
    assert "(FID) is left out: it takes more images of either set than the 960 figures" in page


def test_the_page_of_a_training_shows_its_losses_and_what_happened(model, home):
    translations = {}

    def seen(evidence, translation, adapted):
        translations[id(evidence)] = translation

    result = climb(
        model, darkened(domain(TASK, 20, 2, name="dark", labelled=False)), home, methods={"fastcut": METHODS["fastcut"]}, adaptations={},
        candidates=[Candidate("fastcut", dict(SHORT))], context=FitContext(seed=3), seen=seen,
    )  # fmt: skip
    (training,) = trainings_of(result, translations)
    assert training.history["step"] == [4, 8, 12]
    noted = dataclasses.replace(training, notes=["step 8: even areas; taken back to step 4"])
    page = page_of(result, [noted])
    assert "How the trainings went" in page
    assert "even areas; taken back to step 4" in page
    losses = len(training.history) - 1
    pictures = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)" alt="Losses', page)
    assert len(pictures) == -(-losses // 3)
    drawn = b"".join(base64.b64decode(one) for one in pictures).decode()
    assert all(f"{name} loss" in drawn for name in training.history if name != "step")
    plain = page_of(result)
    assert "How the trainings went" not in plain
    short = page_of(result, [Training("fastcut", {"step": [4.0], "adversarial": [0.5]}, [])])
    assert "before its losses were noted twice" in short
