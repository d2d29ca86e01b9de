"""Translators as graphs: alone and before the model, in ONNX Runtime and on a real Triton."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from translate_domains import encoder_network, smears
from tritonclient.grpc import model_config_pb2
from waiting import patient

from oteo_core.errors import FailedPrecondition
from oteo_core.graphs.config import config_pbtxt
from oteo_core.graphs.export import export_onnx, run_onnx
from oteo_core.graphs.outputs import Output
from oteo_core.graphs.running import run_torch
from oteo_core.graphs.triton import TritonParityClient
from oteo_core.images import InputPolicy
from oteo_translate.methods.base import FitContext
from oteo_translate.methods.graphs import (
    ServedTranslation,
    ensemble_pbtxt,
    export_any_size,
    export_translation,
    translated_output,
    translator_pbtxt,
)
from oteo_translate.methods.registry import METHODS

PROBABILITIES = (Output("probabilities", (2,)),)


def policy(dtype="uint8", channels=3):
    return InputPolicy(width=40, height=32, channels=channels, dtype=dtype, resize="stretch", interpolation="area")


def fit(name, channels=3, **parameters):
    return METHODS[name].fit(*smears(6, channels), parameters, FitContext(network=encoder_network(channels)))


@pytest.mark.parametrize("name", ["moments", "fda"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_graph_takes_and_gives_what_the_model_takes(name, channels, dtype):
    translation = fit(name, channels)
    images = smears(5, channels)[0].images
    prepared = images if dtype == "uint8" else images.astype(np.float32) / 255
    exported = export_translation(translation, policy(dtype, channels), prepared, {"oteo_digest": "d"})
    found = run_onnx(exported.data, prepared)[0]
    assert found.dtype == prepared.dtype
    assert found.shape == prepared.shape
    for one, image in zip(found, prepared, strict=True):
        due = translation.apply_to(image, 255 if dtype == "uint8" else 1.0)
        assert np.abs(one.astype(float) - due.astype(float)).max() <= (1 if dtype == "uint8" else 1e-4)


def test_what_optimises_each_image_has_no_graph():
    translation = fit("gatys", steps=1)
    for export in (lambda: export_translation(translation, policy(), smears(3, 3)[0].images), lambda: export_any_size(translation, 3)):
        with pytest.raises(FailedPrecondition) as caught:
            export()
        assert caught.value.reason == "NOT_EXPORTABLE"


def test_the_ensemble_looks_as_the_model_does():
    text = ensemble_pbtxt("cells-adapted", "cells-translator", "cells", policy(), PROBABILITIES, parameters={"oteo_digest": 'd"'})
    parsed = text_format.Parse(text, model_config_pb2.ModelConfig())
    model = text_format.Parse(config_pbtxt("cells", policy(), PROBABILITIES, parameters={}), model_config_pb2.ModelConfig())
    assert parsed.platform == "ensemble"
    assert list(parsed.input) == list(model.input)
    assert [(one.name, one.data_type, list(one.dims)) for one in parsed.output] == [
        (one.name, one.data_type, list(one.dims)) for one in model.output
    ]
    assert parsed.max_batch_size == model.max_batch_size
    assert [step.model_name for step in parsed.ensemble_scheduling.step] == ["cells-translator", "cells"]
    assert parsed.parameters["oteo_digest"].string_value == 'd"'


@pytest.fixture(scope="module")
def triton(tmp_path_factory):
    """Give a Triton's repository and address."""
    from oteo_local.triton import start
    from oteo_local.triton_env import TritonEnvironmentError

    repository = tmp_path_factory.mktemp("models")
    try:
        with start(repository, timeout=patient(30)) as running:
            yield repository, running.address
    except TritonEnvironmentError as error:
        pytest.skip(f"the embedded Triton is not built: {error}")


def lay_down(repository, name, config, graph=b""):
    folder = repository / name / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "config.pbtxt").write_text(config)
    if graph:
        (folder / "model.onnx").write_bytes(graph)


@pytest.mark.parametrize("name", ["macenko", "adain"])
def test_a_real_triton_serves_it_alone_and_before_the_model(triton, name):
    few = {"steps": 2} if name == "adain" else {}
    translation = fit(name, **few)
    images = smears(6, 3)[0].images
    served = ServedTranslation(translation)
    network = encoder_network(3).served()
    graph = export_translation(translation, policy(), images).data
    model = export_onnx(network, policy(), PROBABILITIES, images).data
    (due,) = run_torch(served, images)
    (answers,) = run_torch(network, due)
    (untranslated,) = run_torch(network, images)
    # Triton reads the parts of an ensemble from its repository, where deployments put them; uploaded ones it does not find.
    repository, address = triton
    lay_down(repository, "t", translator_pbtxt("t", policy(), {}), graph)
    lay_down(repository, "m", config_pbtxt("m", policy(), PROBABILITIES, parameters={}), model)
    lay_down(repository, "both", ensemble_pbtxt("both", "t", "m", policy(), PROBABILITIES, parameters={}))
    client = TritonParityClient(address, timeout=patient(40))
    try:
        client._client.load_model("both", client_timeout=patient(40))
        (found,) = client.infer("t", images, [translated_output(policy()).name])
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - due.astype(int)).max() <= 1
        (together,) = client.infer("both", images, ["probabilities"])
        assert np.abs(together - answers).max() < 2e-3
        # Two steps of training leave an image nearly as it was, so that this one cannot tell.
        if name == "macenko":
            assert np.abs(together - untranslated).max() > 10 * np.abs(together - answers).max()
        assert client.infer("both", images[2:3], ["probabilities"])[0].shape == (1, 2)
    finally:
        for loaded in ("both", "t", "m"):
            client.unload(loaded)
        client.close()


def test_rounding_is_numpys():
    class Same(torch.nn.Module):
        def forward(self, planes):
            return planes

    image = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    assert torch.equal(ServedTranslation(Same())(image)[0], image)
