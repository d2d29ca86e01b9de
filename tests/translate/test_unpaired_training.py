"""Training unpaired translations: what is learnt, and that nothing that happens to a job changes it."""

from __future__ import annotations

import io
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from translate_domains import smears
from waiting import wait_for

from oteo_core.errors import Internal, InvalidArgument
from oteo_core.graphs.modules import dump_module
from oteo_translate.domains import Domain
from oteo_translate.methods.base import METHODS, FitContext
from oteo_translate.methods.unpaired import CUT, CycleGAN, FastCUT, training
from oteo_translate.methods.unpaired import trainer as training_module
from oteo_translate.methods.unpaired.cycle import CycleObjective
from oteo_translate.methods.unpaired.recipe import Recipe
from oteo_translate.methods.unpaired.structure import edge_correlation

TINY = {"width": 6, "blocks": 1, "critic_width": 6, "patches": 16, "vector": 16, "inspect": 4}
SHORT = {**TINY, "steps": 12, "crop": 16}


class Killed(Exception):
    pass


class Keeper:
    """A job's checkpoints."""

    def __init__(self):
        self.kept = {}

    def save(self, name, data):
        self.kept[name] = data

    def context(self, stop_after=math.inf, **more):
        steps = 0

        def check():
            nonlocal steps
            steps += 1
            if steps > stop_after:
                raise Killed

        return FitContext(seed=3, check=check, save=self.save, load=self.kept.get, **more)


@pytest.fixture
def often(monkeypatch):
    """Keep states and show pictures at every look."""
    monkeypatch.setattr(training_module, "KEEP_SECONDS", 0.0)
    monkeypatch.setattr(training_module, "_KEEPING_SHARE", 1e9)
    monkeypatch.setattr(training, "PICTURE_SECONDS", 0.0)


def planes(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float() / 255


def distance(first, second):
    """Give how far looks are apart: means and spreads of the channels."""

    def look(images):
        return torch.cat([images.mean((0, 2, 3)), images.std((2, 3)).mean(0)])

    return float((look(first) - look(second)).abs().mean())


@pytest.mark.parametrize(
    ("name", "steps", "rate"),
    [
        ("cut", 60, 1e-3),
        ("cyclegan", 60, 2e-3),
        ("fastcut", 90, 1e-3),
        ("sincut", 60, 2e-3),
        pytest.param("dualgan", 100, 2e-3, marks=pytest.mark.slow),
        pytest.param("ganilla", 60, 2e-3, marks=pytest.mark.slow),
    ],
)
def test_a_method_brings_the_look_home_and_leaves_cells_where_they_are(name, steps, rate):
    shifted, home = smears(20, 3, (24, 24))
    found = METHODS[name].fit(shifted, home, {**TINY, "steps": steps, "rate": rate}, FitContext(seed=1))
    before, due = planes(shifted.images), planes(home.images)
    with torch.inference_mode():
        after = found(before)
    assert distance(after, due) < 0.9 * distance(before, due)
    assert edge_correlation(before, after).mean() > 0.85
    assert found.history["step"][-1] == steps
    assert all(len(curve) == len(found.history["step"]) for curve in found.history.values())
    assert {"adversarial", "discriminator"} <= set(found.history)


@pytest.mark.parametrize("name", ["cyclegan", "dualgan", "fastcut"])
def test_a_fit_that_was_killed_ends_as_one_that_was_not(name, often):
    shifted, home = smears(20, 1, (16, 20))
    keeper = Keeper()
    with pytest.raises(Killed):
        METHODS[name].fit(shifted, home, SHORT, keeper.context(stop_after=7))
    assert len(keeper.kept) == 1, "a state after four steps"
    begun = []
    resumed = METHODS[name].fit(shifted, home, SHORT, keeper.context(progress=lambda share, word: begun.append(word)))
    assert begun[0] == "step 8"
    whole = METHODS[name].fit(shifted, home, SHORT, Keeper().context())
    assert dump_module(resumed) == dump_module(whole)


def test_a_state_is_only_taken_up_by_the_fit_that_it_is_of(often):
    shifted, home = smears(20, 1, (16, 20))
    keeper = Keeper()
    with pytest.raises(Killed):
        FastCUT().fit(shifted, home, SHORT, keeper.context(stop_after=7))
    for method, parameters, source in (
        (CUT(), SHORT, shifted),
        (FastCUT(), {**SHORT, "structure": 2.0}, shifted),
        (FastCUT(), SHORT, home),
    ):
        begun = []
        context = keeper.context(stop_after=5, progress=lambda share, word: begun.append(word))  # noqa: B023
        with pytest.raises(Killed):
            method.fit(source, home, parameters, context)
        assert begun == ["step 4"]


_KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from translate_domains import smears
from oteo_translate.methods.base import FitContext
from oteo_translate.methods.unpaired import FastCUT, trainer
trainer.KEEP_SECONDS, trainer._KEEPING_SHARE = 0.0, 1e9
folder = Path({folder!r})
def save(name, data):
    (folder / "new").write_bytes(data)
    (folder / "new").rename(folder / name)
FastCUT().fit(*smears(20, 1, (16, 20)), {parameters!r}, FitContext(seed=3, save=save))
"""


@pytest.mark.slow
def test_a_process_killed_without_a_word_is_gone_on_with(tmp_path, often):
    endless = {**SHORT, "steps": 100_000}
    code = _KILLED.format(tests=str(Path(__file__).parents[1]), folder=str(tmp_path), parameters=endless)
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_for(lambda: process.poll() is not None or list(tmp_path.glob("fastcut-*")), 40)
    finally:
        process.kill()
        process.wait()
    (kept,) = tmp_path.glob("fastcut-*")
    state = torch.load(io.BytesIO(torch.load(io.BytesIO(kept.read_bytes()), weights_only=True)["state"]), weights_only=True)
    at = state["standing"]["step"]
    keeper = Keeper()
    keeper.kept[kept.name] = kept.read_bytes()
    begun = []
    with pytest.raises(Killed):
        FastCUT().fit(*smears(20, 1, (16, 20)), endless, keeper.context(stop_after=5, progress=lambda share, word: begun.append(word)))
    assert begun[0] == f"step {at + 4}"


def test_a_state_made_on_another_device_keeps_its_sizes(often):
    shifted, home = smears(20, 1, (16, 20))
    keeper = Keeper()
    with pytest.raises(Killed):
        FastCUT().fit(shifted, home, {**SHORT, "width": 0, "critic_width": 0, "blocks": 0}, keeper.context(stop_after=7))
    (kept,) = keeper.kept.values()
    recipe, state = training._open(kept, Recipe(), "cuda:0")
    assert (recipe.width, recipe.blocks, recipe.critic_width) == (16, 4, 16)
    content = torch.load(io.BytesIO(state), map_location="meta", weights_only=True)
    assert content["drawing"]["forth.out.weight"].is_meta, "tensors go where they are told"


class Clock:
    """A clock on which everything takes its time, however busy the machine is."""

    def __init__(self):
        self.now = 1000.0

    def time(self):
        self.now += 0.05
        return self.now


def test_the_deadline_ends_a_fit_and_the_rate_falls_to_zero_by_then(monkeypatch):
    ran = []
    run = training_module.Trainer.run

    def watched(self, *arguments, **more):
        run(self, *arguments, **more)
        ran.append(self)

    clock = Clock()
    monkeypatch.setattr(training_module.Trainer, "run", watched)
    monkeypatch.setattr(training_module, "time", clock)
    shifted, home = smears(20, 1, (16, 20))
    found = FastCUT().fit(shifted, home, {**TINY, "crop": 16}, FitContext(deadline=1010.0))
    assert 1009 < clock.now < 1010.3
    trainer = ran[0]
    assert trainer.standing.step > 20
    assert trainer.standing.position > 0.97
    assert trainer._optimisers[0].param_groups[0]["lr"] < 0.06 * Recipe().rate
    assert np.isfinite([value for curve in found.history.values() for value in curve]).all()
    late = FastCUT().fit(shifted, home, TINY, FitContext(deadline=900.0))
    assert ran[1].standing.step == 0
    image = planes(shifted.images)[:1]
    assert (late(image) - image).abs().mean() < 0.12, "untrained, it leaves images nearly as they are"


def test_progress_grows_and_pictures_are_shown(often):
    shifted, home = smears(20, 3, (16, 20))
    shares, sheets = [], []
    FastCUT().fit(shifted, home, SHORT, FitContext(progress=lambda share, word: shares.append(share), picture=sheets.append))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(sheets) == 3
    assert sheets[0].shape == (3 * 16, 4 * 20, 3)
    assert sheets[0].dtype == np.uint8
    assert np.array_equal(sheets[0][:16, :20], shifted.images[0])
    assert np.array_equal(sheets[0][32:, :20], home.images[0])
    assert not np.array_equal(sheets[0][16:32], sheets[-1][16:32])


def test_a_training_that_goes_wrong_is_taken_back_and_says_so(often, monkeypatch):
    shifted, home = smears(20, 1, (16, 20))
    loss = CycleObjective.drawing_loss
    calls = 0

    def broken(self, *arguments):
        nonlocal calls
        calls += 1
        total, parts = loss(self, *arguments)
        return (total * math.nan, {**parts, "adversarial": parts["adversarial"] * math.nan}) if calls == 10 else (total, parts)

    monkeypatch.setattr(CycleObjective, "drawing_loss", broken)
    found = CycleGAN().fit(shifted, home, SHORT, FitContext())
    (note,) = found.settings["notes"]
    assert "taken back to step 8" in note
    assert found.history["step"] == [4, 8, 12]
    assert all(torch.isfinite(value).all() for value in found.state_dict().values())

    def hopeless(self, *arguments):
        total, parts = loss(self, *arguments)
        return total * math.nan, {**parts, "adversarial": parts["adversarial"] * math.nan}

    monkeypatch.setattr(CycleObjective, "drawing_loss", hopeless)
    found = CycleGAN().fit(shifted, home, SHORT, FitContext())
    assert len(found.settings["notes"]) == 3
    assert torch.isfinite(found(planes(shifted.images))).all()


def test_two_processes_train_together(often):
    shifted, home = smears(20, 1, (16, 20))
    alone = CycleGAN().fit(shifted, home, {**SHORT, "steps": 8}, FitContext(seed=2))
    keeper = Keeper()
    together = CycleGAN().fit(shifted, home, {**SHORT, "steps": 8, "processes": 2}, keeper.context())
    assert together.history["step"] == [4, 8]
    assert dump_module(alone) != dump_module(together)
    (kept,) = keeper.kept.values()
    state = torch.load(io.BytesIO(torch.load(io.BytesIO(kept), weights_only=True)["state"]), weights_only=True)
    assert len(state["pools"]) == 2, "both processes' images are kept"
    assert not torch.equal(state["pools"][0][0][0], state["pools"][1][0][0]), "each draws its own batches"


@pytest.mark.slow
def test_two_processes_killed_end_as_two_that_were_not(often):
    shifted, home = smears(20, 1, (16, 20))
    parameters = {**SHORT, "processes": 2}
    keeper = Keeper()
    with pytest.raises(Killed):
        CycleGAN().fit(shifted, home, parameters, keeper.context(stop_after=7))
    resumed = CycleGAN().fit(shifted, home, parameters, keeper.context())
    assert dump_module(resumed) == dump_module(CycleGAN().fit(shifted, home, parameters, Keeper().context()))


@pytest.mark.slow
def test_a_process_that_dies_ends_the_training_with_a_word(often, monkeypatch):
    shifted, home = smears(20, 1, (16, 20))
    monkeypatch.setattr(training, "_work", _dies)
    with pytest.raises(Internal) as caught:
        CycleGAN().fit(shifted, home, {**SHORT, "processes": 2}, FitContext())
    assert caught.value.reason == "TRAINING_PROCESS_DIED"


def _dies(*arguments):
    os._exit(7)


def test_what_cannot_be_trained_on_is_refused():
    shifted, home = smears(20, 1, (16, 20))

    def refused(shifted, home, parameters=None):
        with pytest.raises(InvalidArgument) as caught:
            CUT().fit(shifted, home, {**SHORT, **(parameters or {})}, FitContext())
        return caught.value.reason

    assert refused(shifted.take(np.arange(19)), home) == "TOO_FEW_IMAGES"
    assert refused(shifted, home, {"task": 1.0}) == "BAD_PARAMETER"
    loud = Domain(home.name, home.images.astype(np.float32), home.ids, home.groups)
    assert refused(shifted, loud) == "BAD_IMAGES"
    small = Domain(home.name, home.images[:, :7], home.ids, home.groups)
    assert refused(shifted, small) == "BAD_IMAGES"


def test_one_image_of_each_domain_is_enough_for_sincut():
    shifted, home = smears(1, 3, (16, 20))
    found = METHODS["sincut"].fit(shifted, home, {**TINY, "steps": 3}, FitContext())
    assert found(planes(shifted.images)).shape == (1, 3, 16, 20)


def test_eight_bits_and_floats_train_alike_and_sets_of_two_sizes_are_taken():
    shifted, home = smears(20, 1, (16, 20))
    short = {**SHORT, "steps": 3}
    floats = [Domain(one.name, one.images.astype(np.float32) / np.float32(255), one.ids, one.groups) for one in (shifted, home)]
    ours, theirs = FastCUT().fit(shifted, home, short, FitContext()), FastCUT().fit(*floats, short, FitContext())
    assert dump_module(ours) == dump_module(theirs)
    larger = Domain(home.name, np.repeat(home.images, 2, axis=1), home.ids, home.groups)
    assert FastCUT().fit(shifted, larger, short, FitContext())(planes(shifted.images)).shape == (20, 1, 16, 20)


def test_half_precision_learns_too():
    shifted, home = smears(20, 3, (16, 20))
    found = FastCUT().fit(shifted, home, {**SHORT, "precision": "bfloat16"}, FitContext())
    assert all(value.dtype == torch.float32 for value in found.state_dict().values())
    assert np.isfinite(list(found.history.values())).all()
