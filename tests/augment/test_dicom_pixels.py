"""A model is asked about the pixels that it was trained on: what an import makes of a DICOM file, and what a prediction makes of the same bytes."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from pydicom import uid
from sequence_files import dicom, packed, slices, write

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets.named_images import ImageStore
from oteo_core.errors import InvalidArgument
from oteo_core.images import ImageLimits, InputPolicy, prepare
from oteo_gateway.prediction.inputs import Inputs
from oteo_gateway.prediction.predictor import Query

POLICIES = (InputPolicy(40, 32, 3), InputPolicy(24, 24, 1, "float32", "letterbox"), InputPolicy(24, 24, 1, "float32", bit_depth=12))


def drawn(folder: Path) -> Path:
    """Files of every meaning that stored values may have."""
    deep, signed = slices(2, 3, dtype="uint16", top=1000), slices(3, 1, dtype="int16", top=900)[0] - np.int16(300)
    colour = np.stack([slices(4, 1)[0]] * 3, axis=2)
    colour[:, :, 1] //= 2
    files = {
        "twelve bits of which ten are filled": dicom(deep[0], 0, series="1"),
        "three frames": dicom(deep, 0, series="2", RescaleSlope=1, RescaleIntercept=0),
        "inverse": dicom(deep[0], 0, series="3", PhotometricInterpretation="MONOCHROME1"),
        "hounsfield": dicom(signed, 0, series="4", Modality="CT", RescaleSlope=2, RescaleIntercept=-10),
        "signed": dicom(signed, 0, series="5"),
        "windowed": dicom(deep[1], 0, series="6", WindowCenter=100, WindowWidth=50),
        "jpeg": packed(slices(5, 2), uid.JPEGBaseline8Bit, imagecodecs.jpeg_encode),
        "colour": dicom(
            slices(4, 1)[0],
            0,
            series="8",
            PixelData=colour.tobytes(),
            SamplesPerPixel=3,
            PlanarConfiguration=0,
            PhotometricInterpretation="RGB",
        ),
    }
    for number, data in enumerate(files.values()):
        write(folder / ("ab"[number % 2]) / f"{number}.dcm", data)
    stream = io.BytesIO()
    tifffile.imwrite(stream, deep, photometric="minisblack", resolution=(200, 400), resolutionunit="CENTIMETER")
    write(folder / "a" / "stack.tif", stream.getvalue())
    tifffile.imwrite(stream := io.BytesIO(), deep[0], photometric="minisblack", resolution=(200, 400), resolutionunit="CENTIMETER")
    write(folder / "b" / "still.tif", stream.getvalue())
    return folder


def real(folder: Path, data: Path) -> Path:
    """The real DICOM files, under names that say what they are."""
    files = [path for name in ("dicom_pydicom", "dicom_dicom2nifti") for path in sorted((data / name).rglob("*")) if path.is_file()]
    for number, path in enumerate(files):
        content = path.read_bytes()
        if content[128:132] == b"DICM":
            write(folder / ("ab"[number % 2]) / f"{number:03}.dcm", content)
    return folder


@pytest.mark.parametrize("which", ["drawn", "real"])
def test_import_and_prediction_see_the_same_pixels(which, tmp_path, store: ArtifactStore, import_source, request) -> None:
    folder = tmp_path / "scans"
    source = drawn(folder) if which == "drawn" else real(folder, request.getfixturevalue("real_data"))
    made = import_source(source)
    inputs = Inputs(ImageStore(store, 1 << 30), ImageLimits())
    samples = list(made.reader.samples(include_excluded=True))
    frames = Counter(sample.source_path for sample in samples)
    compared = 0
    for sample in samples:
        data = (source / sample.source_path).read_bytes()
        # In a series `frame` is a place among files; in a file of frames the frame itself.
        number = sample.frame if frames[sample.source_path] > 1 else 0
        if sample.excluded:
            with pytest.raises(InvalidArgument) as refused:
                inputs.read(Query("x", content=data, frame=number))
            assert refused.value.reason == sample.findings[0].code, sample.source_path
            continue
        trained = made.reader.image(sample)
        sent = inputs.read(Query("x", content=data, frame=number))
        named = inputs.read(Query("x", sample=f"datasets/made/samples/{sample.id}"))
        for asked in (sent, named):
            assert asked.pixels.dtype == trained.pixels.dtype, sample.source_path
            np.testing.assert_array_equal(asked.pixels, trained.pixels)
            assert asked.spacing == (tuple(sample.spacing[:2]) or None)
            for policy in POLICIES:
                if policy.channels == 3 or trained.pixels.shape[2] in (1, 3):
                    theirs = prepare(trained.pixels, policy, trained.header.bit_depth)
                    np.testing.assert_array_equal(prepare(asked.pixels, policy, asked.header.bit_depth), theirs)
        compared += 1
    assert compared == (15 if which == "drawn" else made.info.sample_count)
    assert compared >= (15 if which == "drawn" else 220)
