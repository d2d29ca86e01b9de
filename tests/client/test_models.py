"""Models from the command line and from Python: what is asked for reaches the service, and what it answers is readable."""

from __future__ import annotations

import pytest
from waiting import patient

from oteo.errors import OteoApiError
from oteo_protos.automl.v1 import automl_pb2 as pb


def test_every_option_of_a_training_reaches_the_service(command, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {
        "--budget": ["10m"],
        "--task": ["classification"],
        "--objective": ["auroc"],
        "--candidate": ["classical", "timm-resnet18"],
        "--pretrained": ["s3://weights#resnet18@0123abcd"],
        "--checkpoint": [
            "theirs.pth,architecture=resnet18,name=theirs,classes=long;round",
            "s3://bucket/other.safetensors,architecture=resnet50",
        ],
        "--max-latency": ["20ms"],
        "--coverage": ["0.95"],
        "--point": ["round:sensitivity=0.95", "a:b:specificity=0.9"],
        "--unlabelled": ["more"],
        "--variant": ["fp16", "int8"],
        "--max-variant-loss": ["0.02"],
        "--label": ["site=north"],
        "--seed": ["7"],
    }
    ran = command("train", "cells", *(word for name, values in options.items() for value in values for word in (name, value)))
    assert ran.code == 0, ran.err
    asked = world.asked[-1]
    assert asked.budget.seconds == 600
    assert (asked.objective, asked.seed, asked.conformal_coverage) == ("auroc", 7, 0.95)
    assert list(asked.candidates) == ["classical", "timm-resnet18"]
    assert asked.pretrained_uri == "s3://weights#resnet18@0123abcd"
    first, second = asked.checkpoints
    assert (first.uri, first.architecture, first.name, list(first.classes)) == (
        str(tmp_path / "theirs.pth"),
        "resnet18",
        "theirs",
        ["long", "round"],
    )
    assert (second.uri, second.architecture) == ("s3://bucket/other.safetensors", "resnet50")
    assert asked.max_latency.ToMilliseconds() == 20
    assert [(one.class_name, one.WhichOneof("target")) for one in asked.operating_points] == [
        ("round", "sensitivity"),
        ("a:b", "specificity"),
    ]
    assert asked.unlabelled_dataset == "datasets/more"
    assert list(asked.variants) == [pb.MODEL_VARIANT_FP16, pb.MODEL_VARIANT_INT8]
    assert asked.max_variant_loss == 0.02
    assert dict(asked.labels) == {"site": "north"}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--point", "round"),
        ("--point", "round:recall=0.9"),
        ("--point", "round:sensitivity=much"),
        ("--checkpoint", "a.pth,colour=red"),
        ("--label", "north"),
        ("--max-latency", "soon"),
    ],
)
def test_what_cannot_be_read_is_said_before_anything_is_asked(command, world, option, value):
    ran = command("train", "cells", "--budget", "60", option, value)
    assert ran.code == 2
    assert option in ran.err
    assert world.asked == []


def test_a_dry_run_shows_a_readable_plan(command, world):
    ran = command("train", "cells", "--budget", "10m", "--dry-run")
    assert ran.code == 0
    assert world.asked[-1].validate_only
    for words in (
        "Cheap classifiers come first.",
        "train 70, test 15",
        "5 folds",
        "timm-resnet18",
        "128 px",
        "2.5 s",
        "timm-resnet50d: too slow",
    ):
        assert words in ran.out, words
    assert "left out: " not in ran.out
    document = command("train", "cells", "--budget", "10m", "--dry-run", "--json").json
    assert document["plan"]["candidates"][1]["epochs"] == 20


def test_an_export_tells_where_it_is_and_why_not(command, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = command("models", "export", "cells", "out", "--format", "triton", "--variant", "int8", "--tensorrt")
    assert ran.code == 0
    assert ran.out.strip() == str(tmp_path / "out")
    asked = world.asked[-1]
    assert (asked.name, asked.format, asked.variant, asked.tensorrt) == (
        "models/cells",
        pb.MODEL_FORMAT_TRITON,
        pb.MODEL_VARIANT_INT8,
        True,
    )
    assert command("models", "export", "cells").out.strip() == "/store/exports/1"
    assert command("models", "export", "cells", "--json").json["uri"] == "file:///store/exports/1"
    ran = command("models", "export", "cells", "--format", "pytorch")
    assert ran.code != 0
    assert "holds no PyTorch network" in ran.err
    ran = command("models", "export", "cells", "--format", "caffe")
    assert "onnx, torchscript, pytorch, triton, mlflow" in ran.err


def test_models_are_shown_with_their_figures_and_variants_and_deleted(command, world):
    command("train", "cells", "--budget", "60")
    model = world.models["models/cells"]
    model.metrics.add(name="dice", value=0.871, split="test")
    made = model.variants.add(variant=pb.MODEL_VARIANT_INT8, kept=True, reason="kept: 27% of the size", size_bytes=3_000_000)
    made.latency.FromMilliseconds(12)
    shown = command("models", "show", "cells").out
    for words in ("0.912 (0.870 to 0.950)", "Dice", "0.871", "variant int8", "3.0 MB, 12 ms an image; kept: 27% of the size"):
        assert words in shown, words
    assert "accuracy 0.912" in command("models", "list").out
    tried = command("models", "trials", "cells").out
    assert tried.count("resnet18") == 1
    assert "0.3100 (0.220 to 0.450)" in tried
    assert "cells is deleted" in command("models", "delete", "cells").out
    assert command("models", "delete", "cells").code == 4
    assert command("models", "delete", "cells", "--allow-missing").code == 0


def test_the_same_from_python(client, world):
    handle = client.train(
        "cells",
        budget=60,
        checkpoints=[{"uri": "s3://b/a.pth", "architecture": "resnet18", "classes": ["a", "b"]}],
        operating_points=[{"class_name": "round", "sensitivity": 0.9}],
        variants=["int8"],
        max_latency=0.05,
    )
    assert handle.wait(patient(20)).model.name == "models/cells"
    asked = world.asked[-1]
    assert asked.checkpoints[0].classes == ["a", "b"]
    assert asked.max_latency.ToMilliseconds() == 50
    assert client.models.export("cells", format="onnx", destination="s3://b/out").wait(patient(20)).uri == "s3://b/out"
    with pytest.raises(OteoApiError) as caught:
        client.train("cells", budget=60, variants=["int4"])
    assert "fp16, int8" in caught.value.message


def test_evaluations_are_listed_with_their_first_figure(command):
    ran = command("models", "evaluations", "cells")
    assert ran.code == 0, ran.err
    assert all(word in ran.out for word in ("cells", "27", "accuracy", "0.875"))
