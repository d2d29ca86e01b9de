"""``network.pt2``: what is served as a program that loads with torch alone."""

from __future__ import annotations

import io
import logging
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from model_packages import CLASSES, POLICY, classical, network, publish, publish_served

from oteo_automl.dense.base import find_task
from oteo_automl.dense.segment.serving import ServedSemantic
from oteo_automl.exporting.program_file import program_files
from oteo_automl.packaging.served import ServedClassifier
from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import DataLoss
from oteo_core.graphs.export import run_onnx
from oteo_core.graphs.outputs import Output
from oteo_core.graphs.programs import load_program
from oteo_core.images import InputPolicy

SMALL = InputPolicy(width=32, height=32, channels=3)

ALONE = """
import io, sys, numpy, torch
program = torch.export.load(sys.argv[1])
images = numpy.load(sys.argv[2])
with torch.no_grad():
    found = program.module()(torch.from_numpy(images))
numpy.savez(sys.argv[3], *[one.numpy() for one in found])
assert not any(name.startswith("oteo") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return ArtifactStore(f"file://{tmp_path_factory.mktemp('programs')}")


def unet() -> ServedSemantic:
    torch.manual_seed(3)
    task = find_task("semantic_segmentation")
    made = task.network(task.candidates[1], 2, 3, [0.5] * 3, [0.25] * 3, {}).eval()
    return ServedSemantic(made, "left-right", 1.4).eval()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classifier", "U-Net"])
def test_a_program_loads_with_torch_alone_and_answers_as_the_graph(store, tmp_path, kind):
    if kind == "classifier":
        policy, package = POLICY, publish(store, "cells", network(), program=True)
    else:
        outputs = (Output("label_map", (32, 32), "UINT8", tolerance=0, spare=0.01), Output("probabilities", (3, 32, 32), tolerance=1e-3))
        policy = SMALL
        package = publish_served(store, "maps", unet(), outputs, policy, task="semantic_segmentation", program=True)
    data = store.read_bytes(f"models/{package.id}/network.pt2")
    assert package.files["network.pt2"].size == len(data)
    images = np.random.default_rng(1).integers(0, 256, (3, policy.height, policy.width, 3), dtype=np.uint8)
    (tmp_path / "network.pt2").write_bytes(data)
    np.save(tmp_path / "images.npy", images)
    paths = [str(tmp_path / name) for name in ("network.pt2", "images.npy", "found.npz")]
    done = subprocess.run([sys.executable, "-I", "-c", ALONE, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = list(np.load(tmp_path / "found.npz").values())
    expected = run_onnx(store.read_bytes(f"models/{package.id}/triton/{package.id}/1/model.onnx"), images)
    assert len(found) == len(expected) == 2
    for one, other in zip(found, expected, strict=True):
        assert np.mean(np.abs(one.astype(np.float64) - other) > 1e-4) < 0.001


def test_a_program_is_left_out_where_time_is_short_or_there_is_no_network_or_it_cannot_be_written(caplog):
    assert program_files(ServedClassifier(network(), 1.0).eval(), POLICY, ["probabilities", "logits"], 1.0) == {}
    assert program_files(ServedClassifier(classical(), 1.0).eval(), POLICY, ["probabilities", "logits"], 600.0) == {}

    class Looking(torch.nn.Module):
        """Decides by what it sees, which no list of operators can say."""

        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(3, 2, 3)

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
            found = self.first(image.permute(0, 3, 1, 2).float()).mean((2, 3))
            return (found if float(found.sum()) > 0 else -found,)

    with caplog.at_level(logging.WARNING):
        assert program_files(Looking().eval(), POLICY, ["probabilities"], 600.0) == {}
    assert "torch.export failed" in caplog.text


def test_the_same_network_gives_the_same_bytes_and_names_no_folder():
    served = ServedClassifier(network(), 1.0).eval()
    first, again = (program_files(served, POLICY, ["probabilities", "logits"], 600.0)["network.pt2"] for _ in range(2))
    assert first == again
    assert b"/oteo_" not in first
    assert load_program(first)[1] == ("probabilities", "logits")
    assert len(CLASSES) == 3


def test_archives_that_would_run_code_are_refused():
    class Shout:
        def __reduce__(self):
            return (print, ("run",))

    good = program_files(ServedClassifier(network(), 1.0).eval(), POLICY, ["probabilities", "logits"], 600.0)["network.pt2"]

    def changed(name: str, content: bytes) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(out, "w") as new:
            root = old.namelist()[0].split("/", 1)[0]
            for one in old.namelist():
                if one != f"{root}/{name}":
                    new.writestr(one, old.read(one))
            new.writestr(f"{root}/{name}", content)
        return out.getvalue()

    shout = pickle.dumps(Shout())
    config = b'{"config": {"x": {"path_name": "opaque_obj_0", "is_param": false, "use_pickle": true, "tensor_meta": null}}}'
    for name, content in (
        ("data/weights/model.pt", shout),
        ("data/sample_inputs/model.pt", shout),
        ("data/constants/model_constants_config.json", config),
        ("models/model.json", b'{"nodes": [{"target": "os.system", "inputs": []}]}'),
    ):
        with pytest.raises(DataLoss) as refused:
            load_program(changed(name, content))
        assert refused.value.reason == "BROKEN_PACKAGE"
    with pytest.raises(DataLoss):
        load_program(b"nothing")
