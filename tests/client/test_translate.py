"""Translators from the command line: what is asked for reaches the service, and what it answers is readable."""

from __future__ import annotations

import json

import pytest

from oteo.cli import codes
from oteo.cli.pictures import Preview
from oteo.cli.session import Session
from oteo_protos.translate.v1 import translate_pb2 as pb


def test_every_option_of_a_training_reaches_the_service(command, world):
    ran = command(
        "translate", "train", "home", "north", "--model", "cells", "--budget", "10m", "--name", "North Wing", "--method", "fda", "--method", "adabn",
        "--label-free", "--seed", "3", "--set", "fda.beta=0.05", "--set", "fda.name=a word", "--set", "adabn.prior=16", "--set", "adabn.flag=true",
        "--encoder", "s3://weights",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    asked = world.asked[-1]
    assert (asked.home_dataset, asked.shifted_dataset, asked.model) == ("datasets/home", "datasets/north", "models/cells")
    assert (asked.budget.seconds, asked.seed, asked.label_free, list(asked.methods)) == (600, 3, True, ["fda", "adabn"])
    assert asked.translator_id == "north-wing"
    assert {name: dict(given.items()) for name, given in asked.parameters.items()} == {
        "fda": {"beta": 0.05, "name": "a word"},
        "adabn": {"prior": 16, "flag": True},
    }
    assert asked.encoder_uri == "s3://weights"
    assert all(word in ran.out for word in ("accepted", "better", "fda", "nothing", "/store/translators/north/sheet.png"))
    assert "0.110" in ran.out


@pytest.mark.parametrize("text", ["steps=500", "fastcut.steps", "fastcut.=3", ".steps=3", "fastcut.steps="])
def test_a_parameter_that_says_nothing_is_refused_before_the_call(command, world, text):
    before = len(world.asked)
    ran = command("translate", "train", "home", "north", "--model", "cells", "--budget", "10m", "--set", text)
    assert ran.code == codes.BY_CODE["INVALID_ARGUMENT"]
    assert text in ran.err
    assert len(world.asked) == before


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


def test_the_distance_to_home_is_told_before_and_after_and_what_is_missing(command):
    for words in (("show", "north"), ("compare", "north")):
        out = command("translate", *words).out
        assert "KID to home" in out
        assert "0.0123 (-0.0021 to 0.0278)" in out
        assert "1.88 (1.52 to 2.25)" in out
        assert "FID to home" not in out
        assert "FID takes more images" in out
        assert "KID_INCEPTION" not in out.upper(), "no column for two figures"
        assert "KID 0.789 (0.7 to 0.8) as they are, 0.0456 (0.04 to 0.05) with fda" in " ".join(out.split())


def test_contact_sheets_are_written_where_they_are_asked_for(command, world, tmp_path):
    for name in ("north", "south"):
        sheet = world.folder / "translators" / f"{name}.png"
        sheet.parent.mkdir(parents=True, exist_ok=True)
        sheet.write_bytes(f"the sheet of {name}".encode())
    target = tmp_path / "new" / "sheet.png"
    ran = command("translate", "compare", "north", "--sheet", str(target))
    assert ran.code == 0, ran.err
    assert target.read_bytes() == b"the sheet of north"
    assert str(target) in ran.err
    both = tmp_path / "both"
    ran = command("translate", "compare", "north", "south", "--sheet", str(both), "--json")
    assert [one["name"] for one in json.loads(ran.out)] == ["translators/north", "translators/south"]
    assert {one.name: one.read_bytes() for one in both.iterdir()} == {
        "north.png": b"the sheet of north",
        "south.png": b"the sheet of south",
    }


def test_a_sheet_that_cannot_be_had_or_written_is_told(command, world, tmp_path):
    ran = command("translate", "compare", "elsewhere", "--sheet", str(tmp_path / "sheet.png"))
    assert ran.code == codes.BY_CODE["NOT_FOUND"]
    assert "/store/translators/north/sheet.png" in ran.err
    assert not (tmp_path / "sheet.png").exists()
    (world.folder / "translators").mkdir(parents=True, exist_ok=True)
    (world.folder / "translators" / "north.png").write_bytes(b"a sheet")
    (tmp_path / "file").write_bytes(b"")
    ran = command("translate", "compare", "north", "--sheet", str(tmp_path / "file" / "sheet.png"))
    assert ran.code == codes.BY_CODE["INVALID_ARGUMENT"]
    assert "cannot be written" in ran.err


def test_the_newest_picture_of_a_training_lies_in_the_file(command, world, tmp_path):
    target = tmp_path / "pictures" / "now.png"
    asked = ["translate", "train", "home", "north", "--model", "cells", "--budget", "10m", "--preview"]
    ran = command(*asked, str(target))
    assert ran.code == 0, ran.err
    assert target.read_bytes() == b"a picture"
    assert [one.name for one in target.parent.iterdir()] == ["now.png"], "nothing half-written stays behind"
    assert ran.err.count(str(target)) == 1
    before = len(world.asked)
    (tmp_path / "file").write_bytes(b"")
    assert command(*asked, str(tmp_path / "file" / "now.png")).code == codes.BY_CODE["INVALID_ARGUMENT"]
    assert command(*asked, str(target), "--no-wait").code == codes.USAGE
    assert len(world.asked) == before, "nothing is begun that cannot show its pictures"


def test_a_picture_is_replaced_by_a_newer_one_and_trouble_with_it_stops_nothing(tmp_path, capsys):
    class Seen:
        def __init__(self, content: bytes) -> None:
            self.metadata = pb.TrainTranslatorMetadata()
            self.metadata.preview.content = content

    target = tmp_path / "now" / "now.png"
    keep = Preview(Session(as_json=False, address=""), target)
    keep(Seen(b""))
    assert not target.exists()
    for content in (b"first", b"second"):
        keep(Seen(content))
        assert target.read_bytes() == content
    target.unlink()
    keep(Seen(b"second"))
    assert not target.exists(), "what was shown is not written again"
    target.mkdir()
    keep(Seen(b"third"))
    keep(Seen(b"fourth"))
    assert capsys.readouterr().err.count("cannot be written") == 1
