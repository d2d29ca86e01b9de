"""New settings around a leader: within their bounds, the same for the same past, and of those fields alone that a task's lessons read."""

from __future__ import annotations

from dataclasses import asdict

from oteo_automl.candidates.training import Recipe
from oteo_automl.search.proposals import Proposals

BASE = Recipe(rate=2e-3, batch=8, smoothing=0.0)


def asked(searched, count=6):
    proposals = Proposals(7, ("light", "robust"), searched)
    found = []
    for number in range(count):
        recipe = proposals.ask("network", BASE, 1e-3)
        proposals.tell("network", recipe, 1.0 + 0.1 * number, 1e-3)
        found.append(recipe)
    return found


def test_what_is_not_searched_stays_as_the_leader_has_it():
    for recipe in asked(("rate", "strength")):
        changed = {name for name, value in asdict(recipe).items() if value != getattr(BASE, name)}
        assert changed <= {"rate", "strength"}
        assert 1e-3 / 4 <= recipe.rate <= 4e-3
        assert recipe.strength in ("light", "robust")


def test_the_same_past_gives_the_same_settings_and_they_differ_from_each_other():
    first, again = asked(("rate", "decay", "mix")), asked(("rate", "decay", "mix"))
    assert first == again
    assert len({recipe.rate for recipe in first}) == len(first)
    assert {recipe.batch for recipe in first} == {8}
