"""What Predict and PredictStream are asked about: DICOM, stacks, frames; what is said of them, and what is refused before it is decoded."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import resource
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import imagecodecs
import numpy as np
import pydicom
import pytest
import tifffile
from bombs import deflated
from fuzzing.seeds import nested_sequences
from gateway_support import CLASSES, TOKEN, Loop, RunningGateway, details_of, picture, publish_model, running_gateway, settings_for
from google.longrunning import operations_pb2, operations_pb2_grpc
from pydicom import uid
from pydicom.encaps import encapsulate
from sequence_files import clip, dicom, nifti, packed, slices
from waiting import patient, wait_for

from oteo_core.artifacts import ArtifactStore, open_store
from oteo_core.datasets.named_images import ImageStore
from oteo_core.errors import InvalidArgument, from_status
from oteo_core.images import ImageLimits, InputPolicy
from oteo_gateway.prediction.admission import Admission
from oteo_gateway.prediction.fitting import fit_findings
from oteo_gateway.prediction.frames import Frames, Room
from oteo_gateway.prediction.inputs import Inputs, OpenFile, Picture
from oteo_gateway.prediction.predictor import Query
from oteo_local.triton import start
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2, inference_pb2_grpc

NAME = "deployments/colours"
COLOUR = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB"}


@pytest.fixture(scope="module")
def running(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    home = tmp_path_factory.mktemp("inputs")
    with start(home / "model-repository", timeout=patient(30)) as server:
        settings = settings_for(home, triton_urls=[server.address], predict_max_frames=5000, max_image_bytes=64 << 20)
        publish_model(open_store(settings), "colours")
        with running_gateway(loop, settings, log_dir=home / "logs") as running:
            wanted = deployment_pb2.Deployment(models=[deployment_pb2.DeployedModel(model="models/colours")])
            deployments = deployment_pb2_grpc.DeploymentServiceStub(running.channel)
            made = deployments.CreateDeployment(deployment_pb2.CreateDeploymentRequest(deployment=wanted), timeout=60)
            operations = operations_pb2_grpc.OperationsStub(running.channel)
            wait_for(lambda: operations.GetOperation(operations_pb2.GetOperationRequest(name=made.name), timeout=60).done, 40)
            yield running


@pytest.fixture(scope="module")
def stub(running: RunningGateway) -> inference_pb2_grpc.InferenceServiceStub:
    return inference_pb2_grpc.InferenceServiceStub(running.channel)


def ask(stub: inference_pb2_grpc.InferenceServiceStub, content: bytes, **values: object) -> inference_pb2.PredictResponse:
    return stub.Predict(inference_pb2.PredictRequest(deployment=NAME, image={"content": content}, **values), timeout=120)


def refused(stub: inference_pb2_grpc.InferenceServiceStub, content: bytes, **values: object) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        ask(stub, content, **values)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value
    return details_of(caught.value)[0]


def tried(stub: inference_pb2_grpc.InferenceServiceStub, content: bytes) -> tuple[str, str]:
    """Give "answered", or the reason and the words of the refusal."""
    try:
        answer = ask(stub, content, frame=0)
    except grpc.RpcError as error:
        return details_of(error)[0] if error.code() is grpc.StatusCode.INVALID_ARGUMENT else str(error.code()), error.details()
    total = sum(score.probability for score in answer.classification.scores)
    return ("answered", "") if abs(total - 1) < 1e-4 else (f"probabilities of {total}", "")


def item(key: str, content: bytes, **values: object) -> inference_pb2.PredictStreamRequest:
    request = inference_pb2.PredictRequest(deployment=NAME, image={"content": content}, **values)
    return inference_pb2.PredictStreamRequest(key=key, request=request)


def reason_of(answer: inference_pb2.PredictStreamResponse) -> str:
    return from_status(answer.error).reason if answer.HasField("error") else ""


def flat(colours: str, size: int = 16) -> np.ndarray:
    """Frames (N, size, size, 3), each of one colour, by first letters."""
    frames = np.zeros((len(colours), size, size, 3), np.uint8)
    for number, colour in enumerate(colours):
        frames[number, :, :, "rgb".index(colour)] = 250
    return frames


def cine(frames: np.ndarray, broken: int = -1) -> bytes:
    """A DICOM clip of JPEG frames; one may be spoilt."""
    encoded = [bytes(imagecodecs.jpeg_encode(frame, level=95, subsampling="444", outcolorspace="RGB")) for frame in frames]
    if broken >= 0:
        encoded[broken] = encoded[broken][:20] + bytes(len(encoded[broken]) - 20)
    made = pydicom.dcmread(io.BytesIO(packed(frames[:1], uid.JPEGBaseline8Bit, lambda _: encoded[0], **COLOUR)))
    made.NumberOfFrames, made.FrameTime, made.Modality = len(frames), 40, "US"
    made.BurnedInAnnotation = "NO"
    made.PixelData = encapsulate(encoded)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, made)
    return stream.getvalue()


def pages(frames: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, frames, photometric="rgb", **options)
    return stream.getvalue()


def test_a_frame_is_named_and_without_a_name_it_is_the_first_and_said(stub: inference_pb2_grpc.InferenceServiceStub) -> None:
    for data in (pages(flat("rgb")), cine(flat("rgb"))):
        for number, colour in enumerate(CLASSES):
            answer = ask(stub, data, frame=number)
            assert (answer.classification.decision, answer.frame, answer.frame_count) == (colour, number, 3)
            assert not answer.findings
        unnamed = ask(stub, data)
        assert (unnamed.classification.decision, unnamed.frame, [finding.code for finding in unnamed.findings]) == (
            "red",
            0,
            ["SEVERAL_FRAMES"],
        )
        with pytest.raises(grpc.RpcError) as caught:
            ask(stub, data, frame=3)
        assert details_of(caught.value)[0] == "FRAME_NOT_FOUND"
        assert "has 3" in caught.value.details()
    still = ask(stub, picture("green"), frame=0)
    assert (still.frame, still.frame_count, list(still.findings)) == (0, 1, [])
    assert refused(stub, picture("green"), frame=1) == "FRAME_NOT_FOUND"
    assert refused(stub, picture("green"), all_frames=True) == "ALL_FRAMES"


def test_all_frames_are_answered_in_order_and_a_broken_one_with_its_error(stub: inference_pb2_grpc.InferenceServiceStub) -> None:
    colours = "rgbrgbrgbrgb"
    requests = [
        item("clip", cine(flat(colours), broken=5), all_frames=True),
        item("still", picture("blue")),
        item("stack", pages(flat("bg")), all_frames=True),
        item("both", pages(flat("bg")), all_frames=True, frame=1),
        item("one", pages(flat("bg")), frame=1),
    ]
    answers = list(stub.PredictStream(iter(requests), timeout=60))
    assert [answer.key for answer in answers] == ["clip"] * 12 + ["still", "stack", "stack", "both", "one"]
    for number, answer in enumerate(answers[:12]):
        if number == 5:
            assert reason_of(answer) == "UNREADABLE_IMAGE"
            assert "frame 6 of 12" in answer.error.message
        else:
            response = answer.response
            assert (response.classification.decision[0], response.frame, response.frame_count) == (colours[number], number, 12)
            assert len(response.image.sha256) == 64
    assert [answer.response.classification.decision for answer in answers[12:15]] == ["blue", "blue", "green"]
    assert reason_of(answers[15]) == "ALL_FRAMES"
    assert answers[16].response.classification.decision == "green"


def test_a_file_that_ends_too_early_ends_its_answers_and_not_the_stream(stub: inference_pb2_grpc.InferenceServiceStub) -> None:
    short = pydicom.dcmread(io.BytesIO(cine(flat("rg"))))
    short.NumberOfFrames = 4000
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, short)
    plain = dicom(flat("rgb")[..., 0], 0, series="1")[:-200]
    requests = [item("short", stream.getvalue(), all_frames=True), item("cut", plain, all_frames=True), item("next", picture("red"))]
    requests += [item("bad", b"rubbish", all_frames=True)]
    answers = [(answer.key, reason_of(answer)) for answer in stub.PredictStream(iter(requests), timeout=60)]
    assert answers == [
        ("short", ""),
        ("short", ""),
        ("short", "TRUNCATED_IMAGE"),
        ("cut", "TRUNCATED_IMAGE"),
        ("next", ""),
        ("bad", "UNREADABLE_IMAGE"),
    ]
    nowhere = item("x", cine(flat("rgb")), all_frames=True)
    nowhere.request.deployment = "deployments/none"
    (answer,) = stub.PredictStream(iter([nowhere]), timeout=120)
    assert reason_of(answer) == "DEPLOYMENT_NOT_FOUND", "nothing is decoded for a deployment that is not there"


def test_who_reads_slowly_is_waited_for(running: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    original = OpenFile.picture

    def counting(self: OpenFile, decoders: object, number: int, *, told: bool = True) -> Picture:
        decoded.append(number)
        return original(self, decoders, number, told=told)

    monkeypatch.setattr(OpenFile, "picture", counting)
    count = 3000
    requests = iter([item("clip", pages(flat("rgb" * (count // 3), size=8)), all_frames=True)])
    # The transport itself holds little for this reader.
    options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024)]
    channel = grpc.insecure_channel(running.address, options)
    token = (("authorization", f"Bearer {TOKEN}"),)
    answers = inference_pb2_grpc.InferenceServiceStub(channel).PredictStream(requests, timeout=300, metadata=token)
    first = next(answers)
    seen = [-1]

    def still() -> bool:
        seen.append(len(decoded))
        return len(decoded) >= count or (len(seen) > 12 and len(set(seen[-10:])) == 1)

    wait_for(still, 60)
    assert len(decoded) < count, "every frame was decoded before the second answer was taken"
    rest = list(answers)
    assert [answer.response.frame for answer in (first, *rest)] == list(range(count))
    assert decoded == list(range(count))
    channel.close()


def test_no_more_frames_lie_in_memory_than_there_is_room_for(stub: inference_pb2_grpc.InferenceServiceStub) -> None:
    # 160 frames of 2 MiB.
    size, count = 1024, 160
    frame = np.zeros((size, size), np.uint16)
    one = pydicom.dcmread(io.BytesIO(dicom(frame[None], 0, series="1")))
    one.PixelData = encapsulate([bytes(imagecodecs.jpeg2k_encode(frame, level=0, codecformat="j2k", reversible=True))] * count)
    one.NumberOfFrames, one["PixelData"].is_undefined_length, one.file_meta.TransferSyntaxUID = count, True, uid.JPEG2000Lossless
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, one)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answers = list(stub.PredictStream(iter([item("clip", stream.getvalue(), all_frames=True)]), timeout=300))
    assert [answer.response.frame for answer in answers] == list(range(count))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 200, f"{grown:.0f} MiB more than before, of {count * 2} MiB of frames"


class Silent:
    """An observer of nothing."""

    def predicted(self, model: str, times: object) -> None:
        pass

    def refused(self, deployment: str, reason: str) -> None:
        pass


def test_a_stream_waits_until_answered_frames_are_let_go(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def find(name: str) -> None:
            assert name == "colours"

        inputs = Inputs(ImageStore(ArtifactStore(str(tmp_path)), 1 << 20), ImageLimits())
        query = Query("colours", content=pages(flat("rgbrgb")), all_frames=True)
        with ThreadPoolExecutor(1) as pool:
            frames = Frames(find, inputs, Admission(4, 4), pool, Silent()).each(query, Room(2 * 16 * 16 * 3))
            held = [await anext(frames), await anext(frames)]
            third = asyncio.ensure_future(anext(frames))
            done, _ = await asyncio.wait({third}, timeout=0.5)
            assert not done, "there is room for two frames, and a third was decoded"
            held.pop().release()
            held.append(await third)
            for one in held:
                one.release()
            assert len([one.release() async for one in frames]) == 3

    asyncio.run(scenario())


def test_no_frame_is_left_out_where_the_gateway_has_much_to_do(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def find(name: str) -> None:
            pass

        admission = Admission(places=1, queue=0)
        inputs = Inputs(ImageStore(ArtifactStore(str(tmp_path)), 1 << 20), ImageLimits())
        colours = "rgb" * 4
        query = Query("colours", content=pages(flat(colours)), all_frames=True)
        found = ""
        with ThreadPoolExecutor(1) as pool:
            async for one in Frames(find, inputs, admission, pool, Silent()).each(query, Room()):
                assert isinstance(one.outcome, Picture)
                assert one.outcome.frame == len(found)
                found += "rgb"[int(one.outcome.pixels[0, 0].argmax())]
                one.release()

                async def busy() -> None:
                    async with admission.enter():
                        await asyncio.sleep(0.05)

                other = asyncio.create_task(busy())
                await asyncio.sleep(0)
            await other
        assert found == colours

    asyncio.run(scenario())


def test_what_is_no_picture_here_is_refused_with_the_reason(stub: inference_pb2_grpc.InferenceServiceStub, tmp_path: Path) -> None:
    grey = slices(1, 3, size=16)
    assert refused(stub, clip(tmp_path / "clip.avi", grey).read_bytes()) == "UNSUPPORTED_FORMAT"
    volume = ask(stub, nifti(grey), frame=2)
    assert (volume.frame, volume.frame_count) == (2, 3)
    bare = dicom(grey[0], 0, series="1")[132:]
    assert ask(stub, bare).image.width == 16, "DICOM without its mark, as old archives store it"
    no_picture = pydicom.dcmread(io.BytesIO(dicom(grey[0], 0, series="1", Modality="SR")))
    del no_picture.PixelData
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, no_picture)
    assert refused(stub, stream.getvalue()) == "UNSUPPORTED_FORMAT"


def circle() -> bytes:
    """A TIFF whose second directory leads back to the first."""
    data = bytearray(pages(flat("rg"), metadata=None))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        first, second = (page.offset for page in file.pages)
    (entries,) = struct.unpack_from("<H", data, second)
    struct.pack_into("<I", data, second + 2 + 12 * entries, first)
    return bytes(data)


def false_size() -> bytes:
    """A DICOM frame of 16 x 16 whose JPEG declares 65,000 x 65,000."""
    data = cine(flat("r"))
    at = data.index(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", 65000, 65000) + data[at + 9 :]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: nested_sequences(33), "IMAGE_TOO_LARGE"),
        (lambda: nested_sequences(10_000), "IMAGE_TOO_LARGE"),
        (deflated, "IMAGE_TOO_LARGE"),
        (circle, "UNREADABLE_IMAGE"),
        (false_size, "UNREADABLE_IMAGE"),
        (lambda: pages(flat("r" * 5001, size=1)), "IMAGE_TOO_LARGE"),
        (lambda: dicom(slices(1, 1, size=8)[0], 0, series="1", NumberOfFrames=5001), "IMAGE_TOO_LARGE"),
    ],
    ids=["33 sequences", "10,000 sequences", "deflate bomb", "circle of pages", "false size", "too many pages", "too many frames"],
)
def test_what_would_exhaust_a_decoder_is_refused_before_it(
    stub: inference_pb2_grpc.InferenceServiceStub, make: Callable[[], bytes], reason: str
) -> None:
    data = make()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refused(stub, data) == reason
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 300, f"refusing it took {grown:.0f} MiB"
    assert ask(stub, picture("red")).classification.decision == "red"


def test_thirty_two_sequences_are_read(stub: inference_pb2_grpc.InferenceServiceStub) -> None:
    assert ask(stub, nested_sequences(32)).image.height == 8


def test_pixels_of_another_type_than_the_model_s_are_said(stub: inference_pb2_grpc.InferenceServiceStub) -> None:
    deep = slices(2, 1, size=16, dtype="uint16", top=4095)[0]
    answer = ask(stub, dicom(deep, 0, series="1"))
    assert answer.image.bit_depth == 12
    ((code, text),) = [(finding.code, finding.message) for finding in answer.findings]
    assert code == "PIXEL_TYPE_SCALED"
    assert "12 bits" in text
    assert "4095" in text
    hounsfield = ask(stub, dicom(deep, 0, series="1", Modality="CT", RescaleSlope=1, RescaleIntercept=-1024))
    assert [finding.code for finding in hounsfield.findings] == ["PIXEL_TYPE_SCALED"]


def test_findings_of_fit() -> None:
    eight, sixteen = np.full((4, 4, 1), 9, np.uint8), np.full((4, 4, 1), 3000, np.uint16)
    real = np.zeros((4, 4, 1), np.float32)
    bytes_, twelve, floating = InputPolicy(8, 8), InputPolicy(8, 8, dtype="float32", bit_depth=12), InputPolicy(8, 8, dtype="float32")

    def codes(pixels: np.ndarray, policy: InputPolicy) -> list[str]:
        return [finding.code for finding in fit_findings(pixels, policy)]

    assert codes(eight, bytes_) == codes(sixteen, twelve) == codes(real, floating) == []
    assert codes(sixteen, bytes_) == codes(real, bytes_) == codes(eight, twelve) == codes(real, twelve) == ["PIXEL_TYPE_SCALED"]
    assert codes(eight, floating) == codes(sixteen, floating) == ["PIXEL_TYPE_SCALED"]
    assert codes(np.full((4, 4, 1), 5000, np.uint16), twelve) == ["PIXEL_VALUES_CUT"]


_BY_PYDICOM = """
import json, sys, warnings, pydicom
warnings.simplefilter("ignore")
read = []
for name in json.load(sys.stdin):
    try:
        dataset = pydicom.dcmread(name, force=True)
        if dataset.pixel_array.size:
            read.append(name)
    except Exception:
        pass
print(json.dumps(read))
"""

REFUSED = {
    "UNSUPPORTED_FORMAT": "objects without a picture",
    "UNREADABLE_IMAGE": "no DICOM, no picture or a spoilt one",
    "TRUNCATED_IMAGE": "cut",
}


def test_every_real_dicom_file_is_answered_or_refused_with_its_reason(
    stub: inference_pb2_grpc.InferenceServiceStub, real_data: Path, record_property: Callable[[str, object], None]
) -> None:
    files = [path for name in ("dicom_pydicom", "dicom_dicom2nifti") for path in sorted((real_data / name).rglob("*")) if path.is_file()]
    outcomes: dict[str, str] = {}
    for path in files:
        outcome, words = tried(stub, path.read_bytes())
        assert outcome in REFUSED | {"answered": ""}, (path, outcome, words)
        assert outcome == "answered" or len(words) > 20, (path, outcome, words)
        outcomes[str(path)] = outcome
    counts = Counter(outcomes.values())
    record_property("outcomes", dict(counts))
    # pydicom by itself, with decoders of its own: whatever it can read is answered.
    found = subprocess.run(
        [sys.executable, "-c", _BY_PYDICOM], input=json.dumps(list(outcomes)), capture_output=True, text=True, check=True
    )
    readable = json.loads(found.stdout)
    assert len(readable) > 100
    assert [name for name in readable if outcomes[name] != "answered"] == []
    assert counts["answered"] >= 172
    names = {"examples_ybr_color.dcm": 30, "rtdose.dcm": 15}
    streams = [item(path.name, path.read_bytes(), all_frames=True) for path in files if path.name in names]
    for name, answers in itertools.groupby(stub.PredictStream(iter(streams), timeout=120), key=lambda answer: answer.key):
        assert [answer.response.frame for answer in answers] == list(range(names.pop(name)))
    assert not names


def test_errors_name_the_field(tmp_path: Path) -> None:
    inputs = Inputs(ImageStore(ArtifactStore(str(tmp_path)), 1 << 20), ImageLimits())
    with pytest.raises(InvalidArgument) as caught:
        inputs.read(Query("x", content=b"rubbish"))
    assert (caught.value.field, caught.value.reason) == ("image", "UNREADABLE_IMAGE")
    with pytest.raises(InvalidArgument) as caught:
        inputs.read(Query("x", content=picture("red"), frame=4))
    assert (caught.value.field, caught.value.reason) == ("frame", "FRAME_NOT_FOUND")
