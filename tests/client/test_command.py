"""The oteo command against small servicers of the contract: output, JSON, exit codes."""

from __future__ import annotations

import base64
import io
import json
import os
import shlex
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest
import typer
from PIL import Image
from waiting import patient

import oteo
from oteo.cli import words
from oteo.cli.codes import exit_code
from oteo.cli.run import how_to_call
from oteo.errors import OperationFailed
from oteo_protos.augment.v1 import dataset_pb2
from oteo_protos.type.v1 import task_pb2


@pytest.fixture
def image(tmp_path):
    """Give an image's path."""
    path = tmp_path / "image.png"
    Image.new("RGB", (20, 10), (10, 200, 10)).save(path)
    return path


@pytest.fixture
def images(tmp_path):
    """Give a folder of images."""
    folder = tmp_path / "My Cells"
    for name in ("round", "long"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / name / "1.png")
    return folder


def test_an_import_shows_the_dataset_and_names_each_finding(command, images):
    ran = command("datasets", "import", images)
    assert ran.code == 0
    assert "datasets/cells" in ran.out
    assert "22 groups of exact" in ran.out
    assert "UNREADABLE_IMAGE" in ran.out
    assert "round/bad.png" in ran.out
    assert "import: succeeded 100%" in ran.err


def test_json_is_one_document_and_nothing_else_on_standard_output(command, images):
    ran = command("datasets", "import", images, "--json")
    assert ran.code == 0
    assert ran.json["dataset"]["name"] == "datasets/cells"
    assert ran.json["findings"][0]["code"] == "UNREADABLE_IMAGE"
    assert "import: succeeded" in ran.err


def test_not_waiting_gives_the_operation_and_waiting_takes_it_up(command, images):
    name = command("datasets", "import", images, "--no-wait", "--json").json["name"]
    ran = command("operations", "wait", name, "--json")
    assert ran.code == 0
    assert ran.json["response"]["dataset"]["name"] == "datasets/cells"
    shown = command("operations", "show", name)
    assert "ImportDataset" in shown.out
    assert "succeeded" in shown.out


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("datasets", "import", "/empty"), 3, "EMPTY_SOURCE"),
        (("datasets", "import", "/x", "--format", "paper"), 3, "UNKNOWN_VALUE"),
        (("datasets", "show", "nothing"), 4, "DATASET_NOT_FOUND"),
        (("datasets", "upload", "/no/such/folder"), 4, "SOURCE_NOT_FOUND"),
        (("models", "show", "nothing"), 4, "MODEL_NOT_FOUND"),
        (("operations", "show", "automl-none"), 4, "OPERATION_NOT_FOUND"),
        (("predict", "nothing", "datasets/x/samples/y"), 4, "DEPLOYMENT_NOT_FOUND"),
        (("datasets", "audit", "cells", "--check", "spelling"), 3, "UNKNOWN_CHECK"),
        (("datasets", "audit", "cells", "--fixed-id", "taken"), 5, "DATASET_EXISTS"),
        (("datasets", "list", "--address", "127.0.0.1:1"), 7, ""),
        (("datasets", "import", "/slow", "--timeout", "0.3s"), 8, "WAIT_TIMEOUT"),
        (("datasets", "import", "/broken"), 10, "JOB_LOST"),
    ],
)
def test_exit_codes_and_errors(command, arguments, code, reason):
    ran = command(*arguments, "--json")
    assert ran.code == code
    error = ran.json["error"]
    assert (error["reason"], error["exit_code"]) == (reason, code)
    assert error["message"]
    plain = command(*arguments)
    assert plain.code == code
    assert (reason or error["code"]) in plain.err


def test_a_wrong_token_is_exit_code_6_and_says_what_to_do(command, monkeypatch):
    monkeypatch.setenv("OTEO_TOKEN", "wrong")
    ran = command("datasets", "list")
    assert ran.code == 6
    assert "OTEO_TOKEN" in ran.err


def test_without_a_stack_the_command_says_how_to_start_one(command, monkeypatch):
    monkeypatch.delenv("OTEO_ADDRESS")
    ran = command("models", "list")
    assert ran.code == 7
    assert "oteo up" in ran.err


@pytest.mark.parametrize("arguments", [("run",), ("run", "x", "--budget", "soon"), ("datasets",), ("nothing",), ("train", "x")])
def test_wrong_usage_is_exit_code_2(command, arguments):
    assert command(*arguments).code == 2


def test_a_cancelled_operation_is_exit_code_9(command, world, images):
    slow = command("datasets", "import", "/slow", "--no-wait", "--json").json["name"]
    assert command("operations", "cancel", slow).code == 0
    assert command("operations", "wait", slow).code == 9
    assert slow.removeprefix("operations/") in command("operations", "list").out


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("INVALID_ARGUMENT", 3),
        ("UNIMPLEMENTED", 5),
        ("PERMISSION_DENIED", 6),
        ("RESOURCE_EXHAUSTED", 7),
        ("DEADLINE_EXCEEDED", 8),
        ("INTERNAL", 1),
        ("DATA_LOSS", 1),
    ],
)
def test_every_code_has_its_exit_code(code, wanted):
    assert exit_code(oteo.OteoApiError(code, "x")) == wanted
    assert exit_code(OperationFailed(code, "x")) == 10


def test_interrupting_says_how_to_go_on_and_how_to_cancel(command, monkeypatch):
    def interrupted(self, *_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(oteo.OperationHandle, "wait", interrupted)
    ran = command("datasets", "import", "/slow")
    assert ran.code == 130
    assert "oteo operations wait operations/" in ran.err
    assert "oteo operations cancel operations/" in ran.err


def test_datasets_are_listed_shown_sampled_and_deleted(command, images):
    command("datasets", "import", images)
    assert "cells" in command("datasets", "list").out
    assert command("datasets", "list", "--json").json[0]["name"] == "datasets/cells"
    assert "round 2, long 1" in command("datasets", "show", "cells").out
    assert "round/0.png" in command("datasets", "samples", "cells").out
    assert "cannot be read" in command("datasets", "samples", "cells", "--findings").out
    assert command("augment", "cells", "--copies", "2").code == 0
    assert command("datasets", "delete", "cells").code == 0
    assert command("datasets", "delete", "cells").code == 4
    assert command("datasets", "delete", "cells", "--allow-missing").code == 0
    assert "no datasets yet" in command("datasets", "list").out


def test_an_export_says_where_it_lies_and_what_was_lost(command, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = command("datasets", "export", "cells", "--format", "pascal-voc", "--to", "out.zip", "--split", "train", "--split", "test")
    assert ran.code == 0
    assert f"3 samples in {tmp_path / 'out.zip'}" in ran.out
    assert "OUTLINE_LOST" in ran.out
    assert "7 in 3 samples" in ran.out
    assert "export: succeeded 100%" in ran.err
    asked = world.asked[-1]
    assert (asked.name, asked.format) == ("datasets/cells", dataset_pb2.DATASET_FORMAT_PASCAL_VOC)
    assert list(asked.splits) == [task_pb2.SPLIT_TRAIN, task_pb2.SPLIT_TEST]
    told = command("datasets", "export", "cells", "--format", "coco", "--to", "memory://x/y", "--json").json
    assert told["uri"] == "memory://x/y"
    assert told["losses"][0]["code"] == "OUTLINE_LOST"
    assert "3 samples in file:///store/exports/1" in command("datasets", "export", "cells", "--format", "csv").out
    assert command("datasets", "export", "cells", "--format", "dicom").code == 3
    assert command("datasets", "export", "cells").code == 2


def test_an_audit_ends_with_its_findings_and_the_path_of_the_report(command, world):
    world.step = 0.3
    ran = command("datasets", "audit", "cells", "--check", "leaks", "--check", "duplicates", "--fix")
    assert ran.code == 0
    assert "2 checks done, 2 findings" in ran.err
    for words_ in (
        "1 CONFLICTING_LABELS, 1 MIXED_SIZES",
        "/store/audits/1/report.html",
        "datasets/cells-cleaned",
        "2 findings",
        "a/0.png",
        "two labels",
    ):
        assert words_ in ran.out, words_
    assert "file://" not in ran.out
    assert (list(world.asked[-1].checks), world.asked[-1].fix) == (["leaks", "duplicates"], True)
    document = command("datasets", "audit", "cells", "--fixed-id", "mine", "--json").json
    assert document["fixed_dataset"] == "datasets/mine"
    assert document["findings"][0]["code"] == "CONFLICTING_LABELS"
    assert (world.asked[-1].fix, world.asked[-1].fixed_dataset_id) == (True, "mine")


def test_an_upload_goes_through_the_connection(command, world, images):
    ran = command("datasets", "upload", images, "--name", "cells")
    assert ran.code == 0
    assert set(world.uploaded) == {"round/1.png", "long/1.png"}


def test_training_tells_of_trials_and_ends_with_the_model(command, world):
    world.step = 0.3
    ran = command("train", "cells", "--budget", "1m30s", "--name", "My Model")
    assert ran.code == 0
    assert "best so far resnet18 accuracy 0.875" in ran.err
    assert "5 trials done, 2 running" in ran.err
    assert "models/my-model" in ran.out
    assert "0.912 (0.870 to 0.950)" in ran.out
    assert world.asked[-1].budget.seconds == 90
    assert "resnet18" in command("models", "trials", "my-model").out
    assert "my-model" in command("models", "list").out


def test_deploying_and_predicting_with_a_picture(command, image, tmp_path):
    command("train", "cells", "--budget", "60")
    assert "ready" in command("deploy", "create", "cells").out
    assert command("deploy", "create", "cells").code == 5
    assert command("deploy", "update", "cells", "other").code == 0
    assert "cells" in command("deploy", "list").out
    picture = tmp_path / "answer.png"
    ran = command("predict", "cells", image, "--save", picture)
    assert ran.code == 0
    assert "round" in ran.out
    assert "0.830" in ran.out
    with Image.open(picture) as drawn:
        assert drawn.width > 600
        blue = (31, 119, 180)
        bar = sum(count for count, colour in drawn.getcolors(1 << 20) if colour == blue)
        # What the gateway drew stands on the left.
        assert drawn.getpixel((60, 60)) == (200, 40, 40)
    # The likeliest class's bar is as long as its probability: 83 % of 360 pixels, 7 high.
    assert abs(bar - 0.83 * 360 * 7) < 30
    document = command("predict", "cells", image, "--json").json
    assert document["response"]["classification"]["scores"][0] == {"class_name": "round", "probability": 0.83}


def test_several_models_are_deployed_promoted_and_rolled_back(command, world):
    ran = command("deploy", "create", "cells=90@champion", "cells-2=10@challenger", "--shadow", "cells-3@next", "--name", "Cells")
    assert "cells 90 % (champion), cells-2 10 % (challenger), cells-3 shadow (next)" in ran.out
    asked = [(m.model, m.traffic_percent, m.alias, m.shadow) for m in world.deployments["deployments/cells"].models]
    assert asked == [
        ("models/cells", 90, "champion", False),
        ("models/cells-2", 10, "challenger", False),
        ("models/cells-3", 0, "next", True),
    ]
    shown = command("deploy", "show", "cells").out
    for figure in ("cells-3", "40", "0.925", "0.800 to 0.970", "1.50"):
        assert figure in shown
    assert "cells-2 100 % (champion), cells-3 shadow (next)" in command("deploy", "promote", "cells").out
    assert world.asked[-1].deployment.etag == "etag-1"
    assert list(world.asked[-1].update_mask.paths) == ["models"]
    shown = command("deploy", "show", "cells")
    assert "revision" in shown.out
    assert "cells 90 % (champion)" in command("deploy", "rollback", "cells", "--to", "1").out
    assert (world.asked[-1].name, world.asked[-1].generation) == ("deployments/cells", 1)
    assert command("deploy", "promote", "cells", "nobody").code == 4
    assert command("deploy", "create", "cells=ninety").code == 3
    assert command("deploy", "update", "cells").code == 3
    assert command("deploy", "update", "cells", "--shadow", "x").code == 2


def test_a_variant_is_deployed_shown_and_kept_when_it_is_promoted(command, world):
    assert "cells in bf16" in command("deploy", "create", "cells", "--variant", "bf16").out
    command("deploy", "update", "cells", "cells=90@champion", "cells-2=10@challenger", "--variant", "int8")
    assert "cells-2 in int8 100 % (champion)" in command("deploy", "promote", "cells").out
    assert command("deploy", "update", "cells", "--variant", "bf16").code == 2
    ran = command("deploy", "create", "others", "--variant", "bf8")
    assert ran.code == 3
    assert "bf16" in ran.err


def test_images_are_adapted_where_it_is_asked_for(command, image, world):
    ran = command("deploy", "create", "cells", "--adapt", "auto", "--translator", "lighter")
    assert "auto, translators/lighter" in ran.out
    assert command("deploy", "update", "cells", "--adapt", "off", "--translator", "").code == 0
    assert list(world.asked[-1].update_mask.paths) == ["adapt", "translator"]
    assert not world.asked[-1].deployment.models
    assert command("deploy", "create", "others", "--adapt", "always").code == 3
    ran = command("predict", "cells", image, "--adapt", "auto", "--alias", "champion")
    assert "answered with translators/lighter" in ran.out
    assert (world.predicted[-1].alias, world.predicted[-1].adapt) == ("champion", 3)


def test_how_an_image_is_looked_at_can_be_said(command, image, tmp_path):
    command("deploy", "create", "cells")
    ran = command("predict", "cells", image, "--tiles", "--masks", "polygons", "--threshold", "0.4", "--explain")
    assert ran.code == 0
    assert "Looked at in 6 tiles." in ran.out
    wrong = command("predict", "cells", image, "--masks", "circles")
    assert wrong.code != 0
    assert "run-lengths, polygons, none" in wrong.err + wrong.out
    assert command("predict", "cells", "datasets/x/samples/y", "--save", tmp_path / "sample.png").code == 0
    assert (tmp_path / "sample.png").is_file()


def test_one_bad_image_does_not_stop_the_others(command, image, tmp_path):
    command("deploy", "create", "cells")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    ran = command("predict", "cells", image, bad, tmp_path / "missing.png")
    assert ran.code == 3
    assert "0.830" in ran.out
    assert "UNREADABLE_IMAGE" in ran.out
    assert "FILE_NOT_FOUND" in ran.out


def test_a_run_ends_with_everything_that_one_needs(command, images, tmp_path):
    ran = command("run", images, "--budget", "4m")
    assert ran.code == 0, ran.err
    for words_ in (
        "3 samples (train 2, test 1)",
        "22 groups of exact",
        "UNREADABLE_IMAGE",
        "classical/logistic",
        "0.912 (0.870 to 0.950)",
        "0.041 (0.020 to 0.070)",
        "3 min 20 s of 4 min",
        "/store/models/cells/report.html",
        "oteo predict my-cells",
        "oteo.Client(",
        "grpcurl",
    ):
        assert words_ in ran.out, words_
    picture = tmp_path / "home" / "runs" / "my-cells" / "prediction.png"
    assert str(picture) in ran.out
    with Image.open(picture) as drawn:
        assert drawn.height > 300


def test_what_is_shown_to_copy_bears_spaces_and_quotes(monkeypatch, tmp_path):
    monkeypatch.delenv("OTEO_ADDRESS", raising=False)
    monkeypatch.setenv("OTEO_HOME", str(tmp_path / "my home"))
    session = SimpleNamespace(client=SimpleNamespace(endpoint=SimpleNamespace(address="127.0.0.1:7000")), address="")
    image = tmp_path / "it's one.png"
    pixels = bytes(range(256)) * 1024
    image.write_bytes(pixels)
    (tmp_path / "my home").mkdir()
    (tmp_path / "my home" / "token").write_text("secret")
    calls = dict(how_to_call(session, "cells", image))
    assert shlex.split(calls["command line"]) == ["oteo", "predict", "cells", str(image)]
    compile(textwrap.dedent(calls["Python"]), "shown", "exec")
    assert repr(str(image)) in calls["Python"]
    # A shell runs it as it is, with a grpcurl that tells its arguments and what it reads.
    grpcurl = tmp_path / "grpcurl"
    grpcurl.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\ncat\n')
    grpcurl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    told = subprocess.run(["bash", "-c", calls["grpcurl"]], capture_output=True, text=True, check=True).stdout.splitlines()
    assert "authorization: Bearer secret" in told
    assert told[told.index("-d") + 1] == "@"
    document = json.loads(told[-1])
    assert document["deployment"] == "deployments/cells"
    assert base64.b64decode(document["image"]["content"]) == pixels


def test_a_run_as_json(command, images):
    document = command("run", images, "--json").json
    assert document["deployment"]["name"] == "deployments/my-cells"
    assert document["prediction"]["truth"] == "round"
    assert document["report"] == "/store/models/cells/report.html"


def test_the_same_run_again_is_taken_up_and_another_begins_under_another_name(command, world, images):
    first = command("run", images, "--json").json
    again = command("run", images, "--json")
    assert again.json["operation"] == first["operation"]
    assert "done already" in again.err
    other = command("run", images, "--budget", "20m", "--json").json
    assert other["deployment"]["name"] == "deployments/my-cells-2"
    Image.new("RGB", (9, 9)).save(images / "round" / "2.png")
    changed = command("run", images, "--json").json
    assert changed["operation"] not in (first["operation"], other["operation"]), "other images are another run"
    assert command("run", images, "--new", "--json").json["deployment"]["name"] not in (
        first["deployment"]["name"],
        changed["deployment"]["name"],
    )


def test_a_name_that_was_given_is_never_exchanged(command, images):
    assert command("run", images, "--name", "mine").code == 0
    ran = command("run", images, "--name", "mine", "--budget", "20m")
    assert ran.code == 5
    assert "MODEL_EXISTS" in ran.err
    assert "--name" in ran.err


def test_a_run_that_failed_begins_anew(command, images):
    failing = images.with_name("fails")
    images.rename(failing)
    assert command("run", failing, "--name", "mine").code == 10
    assert command("run", failing, "--name", "mine").code == 0


def test_a_gateway_elsewhere_is_sent_the_images(command, world, images, monkeypatch):
    from oteo.connection import Endpoint

    monkeypatch.setattr(Endpoint, "is_local", property(lambda self: False))
    assert command("run", images, "--name", "far").code == 0
    assert set(world.uploaded) == {"round/1.png", "long/1.png"}
    assert world.asked[-1].dataset == "datasets/cells"


def test_the_sample_is_drawn_once(command, tmp_path, monkeypatch):
    draw = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda arguments, **options: draw([*arguments, "--count", "12", "--size", "48"], **options))
    ran = command("run", "--sample")
    assert ran.code == 0, ran.err
    folder = tmp_path / "home" / "sample" / "cells"
    before = sorted(folder.rglob("*.png"))
    assert before
    assert "deployments/cells" in command("run", "--sample", "--json").out
    assert sorted(folder.rglob("*.png")) == before


def test_the_stack_commands_say_what_is_missing(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "oteo_local.stack", None)
    monkeypatch.setitem(sys.modules, "oteo_local", None)
    ran = command("status")
    assert ran.code == 5
    assert "oteo-local" in ran.err


def test_the_status_of_no_stack(command):
    ran = command("status", "--json")
    assert ran.code == 7
    assert ran.json["processes"] == []


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30s", 30), ("4m", 240), ("1h30m", 5400), ("2d", 172800), ("0", 0), ("1.5m", 90)]
)
def test_times_are_read(text, seconds):
    assert words.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5", "4 minutes", "m", "5x"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(typer.BadParameter):
        words.parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.2 s"), (45, "45 s"), (60, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (59.7, "1 min")]
)
def test_times_are_written(seconds, text):
    assert words.duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(12, "12 bytes"), (1500, "1.5 kB"), (12_345_678, "12.3 MB"), (9e15, "9000.0 TB")])
def test_sizes_are_written(count, text):
    assert words.size(count) == text


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16", "P", "F"])
def test_every_kind_of_image_is_drawn(mode):

    import numpy as np

    from oteo.drawing import draw_prediction

    if mode == "I;16":
        picture = Image.fromarray((np.arange(400, dtype=np.uint16) * 160).reshape(20, 20))
    elif mode == "F":
        picture = Image.fromarray(np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20))
    else:
        picture = Image.new("RGB", (20, 20), (120, 30, 30)).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF" if mode == "F" else "PNG")
    drawn = draw_prediction(buffer.getvalue(), [("a class with a name that is far too long for the picture's panel", 0.9)], title="t" * 200)
    left = np.asarray(drawn)[20:330, 20:330]
    assert drawn.mode == "RGB"
    if mode in ("I;16", "F"):
        assert left.max() > 240
        assert left.min() < 15, "deep images are stretched, not cut off"


def test_a_terminal_is_shown_a_bar_for_each_step_and_the_best_trial(client, world, images):

    from rich.console import Console

    from oteo.cli.progress import ProgressView
    from oteo.cli.session import Session

    world.step = 0.2
    session = Session(False, "")
    session.err = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    training = client.train("cells", budget=60)
    with ProgressView(session, "train") as view:
        training.wait(patient(20), on_progress=view)
    pipeline = client.run_pipeline(images, budget=60, name="mine")
    with ProgressView(session) as view:
        pipeline.wait(patient(20), on_progress=view)
    session.close()
    text = session.err.file.getvalue()
    assert "best so far resnet18 accuracy 0.875 · 5 trials done, 2 running" in text
    for step in ("✓  import", "›  train", "·  deploy"):
        assert step in text
    assert "━" in text
