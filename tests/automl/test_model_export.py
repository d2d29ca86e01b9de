"""Models in other forms, each used as its user would: in a fresh process, by the means that its README names."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_packages import CLASSES, POLICY, modules, network, publish
from waiting import patient

from oteo_automl.export_job import EXPORT
from oteo_automl.exporting.standalone import predict
from oteo_automl.packaging.variants import Variant, half
from oteo_automl.settings import AutoMLSettings
from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import OteoError
from oteo_core.graphs.export import run_onnx
from oteo_core.images import InputPolicy, decode, encode_png, prepare
from oteo_core.jobs.testing import run_handler
from oteo_core.packages import PackageFile, delete_model, read_model
from oteo_protos.automl.v1 import automl_pb2 as pb


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ArtifactStore:
    """A store with a package of each kind of network."""
    store = ArtifactStore(f"file://{tmp_path_factory.mktemp('store')}")
    for name, module in modules().items():
        publish(store, name, module)
    publish(store, "old", network(), keep=False)
    return store


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> Path:
    """A picture with soft and hard edges, larger than the input and of other proportions."""
    rng = np.random.default_rng(3)
    pixels = cv2.resize(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8), (90, 130), interpolation=cv2.INTER_CUBIC)
    pixels[20:40, 30:60] = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    path.write_bytes(encode_png(pixels))
    return path


@pytest.fixture
def export(store, tmp_path):
    """Run the job; give the folder that it wrote."""

    def run(model: str, form: str, to: Path | str | None = None, fields=None, **options) -> str:
        goal = tmp_path / f"{model}-{form}" if to is None else to
        request = pb.ExportModelRequest(
            name=f"models/{model}", format=pb.ModelFormat.Value(f"MODEL_FORMAT_{form.upper()}"), destination_uri=str(goal), **(fields or {})
        )
        response = pb.ExportModelResponse()
        settings = AutoMLSettings(home=tmp_path / "home", allow_anonymous=True)
        assert run_handler(EXPORT, request, settings=settings, artifacts=store, **options).Unpack(response)
        return response.uri

    return run


def expected(store, model: str, picture: Path) -> np.ndarray:
    """Give what the package's own graph answers for the picture, through Oteo's own preprocessing."""
    batch = prepare(decode(picture.read_bytes()).pixels, POLICY)[None]
    return run_onnx(store.read_bytes(f"models/{model}/triton/{model}/1/model.onnx"), batch)[0][0]


def outside(folder: str, *command: str, path: str = "") -> str:
    """Run a program in a folder, without Oteo on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONPATH": path}
    ran = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=patient(40), check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


NO_OTEO = "import sys\nfor name in ('oteo_core', 'oteo_automl', 'oteo_protos'):\n    sys.modules[name] = None\n"


@pytest.mark.parametrize(
    ("model", "form"), [("network", "onnx"), ("blend", "onnx"), pytest.param("blend", "torchscript", marks=pytest.mark.slow)]
)
def test_its_script_answers_as_the_model_without_oteo(store, export, picture, model, form):
    folder = export(model, form)
    code = f"{NO_OTEO}import runpy\nsys.argv = ['predict.py', {str(picture)!r}]\nrunpy.run_path('predict.py', run_name='__main__')"
    answer = json.loads(outside(folder, "-c", code))
    wanted = expected(store, model, picture)
    assert wanted.max() - wanted.min() > 0.05
    assert list(answer["probabilities"]) == list(CLASSES)
    np.testing.assert_allclose(list(answer["probabilities"].values()), wanted, atol=2e-5)
    assert answer["prediction_set"] == read_model(store, model).conformal.prediction_set(answer["probabilities"])


def test_torchscript_is_the_network_for_any_batch(store, export):
    folder = export("network", "torchscript")
    batch = np.random.default_rng(1).integers(0, 256, (5, 32, 40, 3), dtype=np.uint8)
    np.save(Path(folder) / "batch.npy", batch)
    code = (
        f"{NO_OTEO}sys.modules['timm'] = None\nimport numpy as np, torch\nmodel = torch.jit.load('model.torchscript.pt').eval()\n"
        "batch = torch.from_numpy(np.load('batch.npy'))\nwith torch.inference_mode():\n"
        "    np.save('one.npy', model(batch[:1])[0]); np.save('all.npy', model(batch)[0])"
    )
    outside(folder, "-c", code)
    wanted = run_onnx(store.read_bytes("models/network/triton/network/1/model.onnx"), batch)[0]
    np.testing.assert_allclose(np.load(Path(folder) / "all.npy"), wanted, atol=1e-5)
    np.testing.assert_allclose(np.load(Path(folder) / "one.npy"), wanted[:1], atol=1e-5)


def test_a_checkpoint_loads_with_torch_and_timm_alone(store, export, picture):
    folder = export("network", "pytorch")
    readme = (Path(folder) / "README.md").read_text()
    [by_timm] = [line for line in readme.splitlines() if "timm.create_model" in line]
    code = (
        f"{NO_OTEO}import json, timm, torch\nfrom load import load\nfrom predict import Model, prepare, read\n"
        f"model = Model('.')\nbatch = torch.from_numpy(prepare(read({str(picture)!r}), model.policy)[None])\n"
        f"{by_timm}\nspec = json.load(open('spec.json'))['settings']\nnet = spec['network']['settings']\n"
        "planes = (batch.permute(0, 3, 1, 2) / 255 - torch.tensor(net['mean']).view(-1, 1, 1)) / torch.tensor(net['spread']).view(-1, 1, 1)\n"
        "with torch.inference_mode():\n"
        "    print(json.dumps([load('.')(batch)[0][0].tolist(), "
        "(network.eval()(planes) / spec['temperature']).softmax(1)[0].tolist()]))"
    )
    loaded, plain = json.loads(outside(folder, "-c", code))
    wanted = expected(store, "network", picture)
    np.testing.assert_allclose(loaded, wanted, atol=2e-5)
    np.testing.assert_allclose(plain, wanted, atol=2e-5)


@pytest.mark.slow
def test_a_checkpoint_of_other_modules_needs_oteo_and_says_so(store, export, picture):
    folder = export("blend", "pytorch")
    assert (Path(folder) / "timm.safetensors").is_file()
    code = (
        f"{NO_OTEO}import json\nfrom load import load\ntry:\n    load('.')\nexcept ImportError as error:\n    said = str(error)\n"
        "for name in ('oteo_core', 'oteo_automl', 'oteo_protos'):\n    del sys.modules[name]\n"
        f"from predict import Model, read\nprint(json.dumps([said, Model('.').answer(read({str(picture)!r}))]))"
    )
    said, answer = json.loads(outside(folder, "-c", code, path=os.environ.get("PYTHONPATH", "")))
    assert "install oteo-automl, or export the model as TorchScript" in said
    np.testing.assert_allclose(list(answer["probabilities"].values()), expected(store, "blend", picture), atol=2e-5)


def test_mlflow_gives_the_same_probabilities(store, export, picture):
    folder = export("network", "mlflow")
    code = (
        f"{NO_OTEO}import json, mlflow\nfrom predict import prepare, read\nmodel = mlflow.pyfunc.load_model('.')\n"
        "policy = model.metadata.metadata['oteo']['input']\n"
        f"batch = prepare(read({str(picture)!r}), policy)[None]\n"
        "print(json.dumps([model.predict({'image': batch})['probabilities'][0].tolist(),"
        "model.metadata.get_input_schema().to_dict(), model.input_example['image'].shape if model.input_example else None]))"
    )
    probabilities, schema, example = json.loads(outside(folder, "-c", code).splitlines()[-1])
    np.testing.assert_allclose(probabilities, expected(store, "network", picture), atol=1e-6)
    assert (schema[0]["name"], schema[0]["tensor-spec"]) == ("image", {"dtype": "uint8", "shape": [-1, 32, 40, 3]})
    assert example == [1, 32, 40, 3]


def test_triton_starts_on_the_repository(store, export, picture):
    import tritonclient.grpc as tc

    from oteo_local.triton import start
    from oteo_local.triton_env import TritonEnvironmentError

    folder = export("network", "triton")
    try:
        with start(Path(folder), load=("network",), timeout=patient(30)) as running:
            batch = prepare(decode(picture.read_bytes()).pixels, POLICY)[None]
            tensor = tc.InferInput("image", list(batch.shape), "UINT8")
            tensor.set_data_from_numpy(batch)
            answer = tc.InferenceServerClient(running.address).infer("network", [tensor]).as_numpy("probabilities")[0]
    except TritonEnvironmentError as error:
        pytest.skip(f"the embedded Triton is not built: {error}")
    np.testing.assert_allclose(answer, expected(store, "network", picture), atol=1e-5)


def test_every_form_says_how_its_images_are_prepared(export):
    for form in ("onnx", "torchscript", "pytorch", "triton", "mlflow"):
        folder = Path(export("network", form))
        text = (folder / "README.md").read_text()
        for words in (
            "fits into 40 x 32 pixels",
            "uint8",
            "in the middle of a black image",
            "sensitivity>=0.95",
            "ünusual",
            "[N, 32, 40, 3]",
        ):
            assert words in text, (form, words)
        for line in text.splitlines():
            if line.startswith("- `") and "/`" not in line:
                name = line.split("`")[1]
                assert (folder / name).exists() or name in ("probabilities", "logits"), (form, name)


policies = st.builds(
    InputPolicy,
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    dtype=st.sampled_from(["uint8", "float32"]),
    resize=st.sampled_from(["stretch", "letterbox"]),
    interpolation=st.sampled_from(["area", "linear"]),
    bit_depth=st.sampled_from([0, 12, 16]),
)


@settings(max_examples=150, deadline=None)
@given(
    policies,
    st.integers(1, 50),
    st.integers(1, 50),
    st.sampled_from([1, 3, 4]),
    st.sampled_from(["uint8", "uint16", "float32"]),
    st.randoms(),
)
def test_the_script_prepares_to_the_bit_as_training_does(policy, width, height, channels, dtype, random):
    rng = np.random.default_rng(random.getrandbits(32))
    top = {"uint8": 255, "uint16": random.choice([200, 4095, 65535]), "float32": 1}[dtype]
    pixels = rng.random((height, width, channels)) * top
    pixels = pixels.astype(np.float32) if dtype == "float32" else np.rint(pixels).astype(dtype)
    ours, theirs = prepare(pixels, policy), predict.prepare(pixels, policy.to_dict())
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_script_reads_as_oteo_does(tmp_path, channels):
    rng = np.random.default_rng(channels)
    for dtype in (np.uint8, np.uint16):
        pixels = rng.integers(0, np.iinfo(dtype).max, (9, 7, channels)).astype(dtype)
        path = tmp_path / f"{channels}.png"
        path.write_bytes(encode_png(pixels))
        np.testing.assert_array_equal(predict.read(path), decode(path.read_bytes()).pixels)


def test_a_package_without_its_network_is_refused_for_two_forms(export):
    for form in ("torchscript", "pytorch"):
        with pytest.raises(OteoError) as caught:
            export("old", form)
        assert (caught.value.reason, caught.value.field) == ("NO_NETWORK_FILE", "format")
        assert "train it again" in caught.value.message
    assert (Path(export("old", "onnx")) / "model.onnx").is_file()


def test_a_variant_stands_in_the_models_place_and_tensorrt_in_tritons_configuration(store, export):
    package = publish(store, "varied", network())
    data = half(store.read_bytes("models/varied/triton/varied/1/model.onnx"))
    package.files["variants/fp16.onnx"] = PackageFile(hashlib.sha256(data).hexdigest(), len(data))
    reason = "not kept: it loses 0.2 of accuracy, more than 0.01"
    fp16 = Variant("fp16", True, "kept: 50% of the size", "variants/fp16.onnx", len(data), 0.01, "accuracy", 0.9, 0.004, 0.001, 60)
    package.details["variants"] = [asdict(fp16), asdict(Variant("int8", False, reason))]
    store.write_bytes("models/varied/variants/fp16.onnx", data)
    store.write_bytes("models/varied/package.json", package.to_json())
    figures = read_model(store, "varied").to_proto().variants
    assert [(one.variant, one.kept, one.HasField("loss")) for one in figures] == [
        (pb.MODEL_VARIANT_FP16, True, True),
        (pb.MODEL_VARIANT_INT8, False, False),
    ]
    folder = Path(export("varied", "onnx", fields={"variant": pb.MODEL_VARIANT_FP16}))
    assert (folder / "model.onnx").read_bytes() == data
    assert "it loses 0.004 of accuracy on 60 held-out images" in (folder / "README.md").read_text()
    assert json.loads((folder / "model.json").read_text())["variant"] == "fp16"
    folder = Path(export("varied", "triton", fields={"tensorrt": True, "variant": pb.MODEL_VARIANT_FP16}))
    assert 'name: "tensorrt"' in (folder / "varied" / "config.pbtxt").read_text()
    for form, fields, reason_code, words in (
        ("onnx", {"variant": pb.MODEL_VARIANT_INT8}, "NO_VARIANT", reason),
        ("pytorch", {"variant": pb.MODEL_VARIANT_FP16}, "VARIANT_NOT_FOR_FORM", "onnx, triton or mlflow"),
        ("onnx", {"tensorrt": True}, "TENSORRT_NOT_FOR_FORM", "Triton"),
    ):
        with pytest.raises(OteoError) as caught:
            export("varied", form, f"{folder}-{reason_code}", fields)
        assert caught.value.reason == reason_code
        assert words in caught.value.message


def test_bfloat16_is_the_models_own_graph_under_another_configuration_of_triton(store, export):
    package = publish(store, "rounded", network())
    config = b'backend: "openvino"'
    package.files["variants/bf16.pbtxt"] = PackageFile(hashlib.sha256(config).hexdigest(), len(config))
    store.write_bytes("models/rounded/variants/bf16.pbtxt", config)
    store.write_bytes("models/rounded/package.json", package.to_json())
    folder = Path(export("rounded", "triton", fields={"variant": pb.MODEL_VARIANT_BF16}))
    assert (folder / "rounded" / "config.pbtxt").read_bytes() == config
    assert (folder / "rounded" / "1" / "model.onnx").read_bytes() == store.read_bytes("models/rounded/triton/rounded/1/model.onnx")
    assert "`openvino` backend in bfloat16" in (folder / "README.md").read_text()
    for form, fields in (("onnx", {}), ("mlflow", {}), ("triton", {"tensorrt": True})):
        with pytest.raises(OteoError) as caught:
            export("rounded", form, f"{folder}-{form}", {"variant": pb.MODEL_VARIANT_BF16, **fields})
        assert caught.value.reason == "VARIANT_NOT_FOR_FORM"


def test_a_damaged_package_is_not_given_out(store, export, tmp_path):
    publish(store, "damaged", network())
    path = "models/damaged/triton/damaged/1/model.onnx"
    store.write_bytes(path, store.read_bytes(path)[:-1] + b"!")
    with pytest.raises(OteoError) as caught:
        export("damaged", "onnx")
    assert caught.value.reason == "BROKEN_PACKAGE"
    assert not (tmp_path / "damaged-onnx").exists()


def test_killed_and_run_again_it_is_written_once_and_never_in_half(store, export, tmp_path, monkeypatch):
    from oteo_automl.exporting import forms

    def killed(*_):
        raise RuntimeError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(forms, "readme", killed)
        with pytest.raises(RuntimeError, match="without a result"):
            export("network", "onnx", operation_id="automl-e1")
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == []
    folder = export("network", "onnx", operation_id="automl-e1", attempt=2)
    first = {path.name: path.stat().st_mtime_ns for path in Path(folder).iterdir()}
    assert export("network", "onnx", operation_id="automl-e1", attempt=3) == folder
    assert {path.name: path.stat().st_mtime_ns for path in Path(folder).iterdir()} == first
    with pytest.raises(OteoError) as caught:
        export("network", "onnx", to=folder)
    assert caught.value.reason == "DESTINATION_NOT_EMPTY"


def test_without_a_destination_it_lies_in_the_store(store, export):
    uri = export("network", "onnx", to="", operation_id="automl-e2")
    assert uri == store.uri("exports/automl-e2")
    manifest = json.loads(store.read_bytes("exports/automl-e2/oteo-export.json"))
    assert (manifest["model"], manifest["format"]) == ("models/network", "onnx")
    assert manifest["digest"] == read_model(store, "network").digest
    assert export("network", "onnx", to="", operation_id="automl-e2", attempt=2) == uri


def test_a_model_that_is_gone_is_said(store, export):
    publish(store, "gone", network())
    delete_model(store, "gone")
    with pytest.raises(OteoError) as caught:
        export("gone", "onnx")
    assert caught.value.reason == "MODEL_NOT_FOUND"
