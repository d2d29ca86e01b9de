"""What `benchmarks/predict.py` compares Predict with is given the pixels that Predict gives the model, DICOM too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gateway_support import picture
from sequence_files import dicom, slices, tiff

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets.named_images import ImageStore
from oteo_core.images import ImageLimits, InputPolicy, prepare
from oteo_gateway.prediction.inputs import Inputs
from oteo_gateway.prediction.predictor import Query

STACK = slices(0, 2, 96, "uint16", 4000)
FILES = {
    "PNG": picture("red", 40),
    "DICOM": dicom(STACK[0], 0.0, series="1.2"),
    "DICOM, rescaled": dicom(STACK[0], 0.0, series="1.2", RescaleSlope=0.5, RescaleIntercept=-100),
    "TIFF of 16 bits": tiff(STACK[0]),
    "TIFF of pages": tiff(STACK),
}


@pytest.mark.parametrize("name", FILES)
def test_a_peer_of_the_benchmark_sees_what_predict_sees(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    from peer_model import prepared

    policy = InputPolicy(width=64, height=48)
    read = Inputs(ImageStore(ArtifactStore(str(tmp_path)), 1 << 20), ImageLimits()).read(Query("x", content=FILES[name], frame=0))
    seen = prepared(FILES[name], policy)
    assert seen.shape == (48, 64, 3)
    assert np.array_equal(seen, prepare(read.pixels, policy, read.header.bit_depth))
