"""Translators from the command line: what is asked for reaches the service, and what it answers is readable."""

from __future__ import annotations

import json

from oteo.cli import codes
from oteo_protos.translate.v1 import translate_pb2 as pb


def test_every_option_of_a_training_reaches_the_service(command, world):
    ran = command(
        "translate", "train", "home", "north", "--model", "cells", "--budget", "10m", "--name", "North Wing", "--method", "fda", "--method", "adabn",
        "--label-free", "--seed", "3",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    asked = world.asked[-1]
    assert (asked.home_dataset, asked.shifted_dataset, asked.model) == ("datasets/home", "datasets/north", "models/cells")
    assert (asked.budget.seconds, asked.seed, asked.label_free, list(asked.methods)) == (600, 3, True, ["fda", "adabn"])
    assert asked.translator_id == "north-wing"
    assert all(word in ran.out for word in ("accepted", "better", "fda", "nothing", "/store/translators/north/sheet.png"))
    assert "0.110" in ran.out


def test_a_dataset_is_translated_and_a_rejected_translator_refused(command, world):
    ran = command("translate", "apply", "north", "cells", "--name", "Brought Home")
    assert ran.code == 0, ran.err
    assert "3 images translated in datasets/brought-home" in ran.out
    refused = command("translate", "apply", "rejected", "cells")
    assert refused.code == codes.BY_CODE["FAILED_PRECONDITION"]
    assert "it is no better" in refused.err
    assert command("translate", "apply", "rejected", "cells", "--allow-rejected").code == 0
    assert world.asked[-1].allow_rejected


def test_files_are_translated_into_a_folder_and_a_bad_one_is_named(command, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.png").write_bytes(b"1")
    (tmp_path / "a" / "two.jpg").write_bytes(b"no picture")
    (tmp_path / "one.png").write_bytes(b"3")
    target = tmp_path / "out"
    ran = command("translate", "apply", "north", str(tmp_path / "a"), str(tmp_path / "one.png"), "-o", str(target))
    assert ran.code == codes.FAILED
    assert "two.jpg: this is no image" in ran.err
    assert "2 of 3 images translated" in ran.out
    assert sorted(path.name for path in target.iterdir()) == ["one-0.png", "one-2.png"]
    assert (target / "one-2.png").read_bytes() == b"translated 3"


def test_what_there_is_is_listed_shown_compared_and_deleted(command, world):
    assert "north" in command("translate", "list").out
    assert "fda" in command("translate", "show", "north").out
    compared = command("translate", "compare", "north", "south")
    assert compared.out.count("translators/") >= 2
    assert command("translate", "delete", "north").code == 0
    assert isinstance(world.asked[-1], pb.DeleteTranslatorRequest)
    assert command("translate", "show", "none").code == codes.BY_CODE["NOT_FOUND"]


def test_json(command):
    shown = json.loads(command("translate", "show", "north", "--json").out)
    assert shown["verdict"] == "VERDICT_ACCEPTED"
    assert shown["evidence"][0]["method"] == "fda"
