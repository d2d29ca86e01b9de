"""The SDK against small servicers of the contract."""

from __future__ import annotations

import uuid

import pytest
from PIL import Image
from waiting import patient

import oteo
from oteo.connection import Endpoint, find_endpoint
from oteo_protos.augment.v1 import dataset_pb2
from oteo_protos.type.v1 import task_pb2


@pytest.fixture
def image(tmp_path):
    """Give an image's path."""
    path = tmp_path / "image.png"
    Image.new("RGB", (20, 10), (10, 200, 10)).save(path)
    return path


def test_an_import_gives_a_typed_result_and_tells_its_progress(client, world, tmp_path):
    seen = []
    handle = client.datasets.import_(tmp_path, name="Cells", task="classification")
    dataset = handle.wait(patient(20), on_progress=lambda handle: seen.append(handle.progress.fraction)).dataset
    assert dataset.name == "datasets/cells"
    assert seen[-1] == 1.0
    assert isinstance(handle.metadata, dataset_pb2.ImportDatasetMetadata)
    assert world.asked[0].task == task_pb2.TASK_CLASSIFICATION
    assert world.asked[0].source_uri == str(tmp_path)
    uuid.UUID(world.asked[0].request_id)


def test_the_same_request_id_gives_the_same_operation(client, tmp_path):
    request_id = str(uuid.uuid4())
    assert len({client.datasets.import_(tmp_path, request_id=request_id).name for _ in range(3)}) == 1


def test_a_call_that_is_refused_says_reason_and_field(client):
    with pytest.raises(oteo.OteoApiError) as caught:
        client.datasets.import_("/empty")
    error = caught.value
    assert (error.code, error.reason, error.field) == ("INVALID_ARGUMENT", "EMPTY_SOURCE", "source_uri")
    assert "no images" in str(error)


def test_an_operation_that_fails_says_reason_and_name(client):
    handle = client.datasets.import_("/broken")
    with pytest.raises(oteo.OperationFailed) as caught:
        handle.wait(patient(20))
    assert (caught.value.code, caught.value.reason, caught.value.operation) == ("FAILED_PRECONDITION", "JOB_LOST", handle.name)


def test_a_cancelled_operation_ends_with_cancelled(client):
    handle = client.datasets.import_("/slow")
    handle.cancel()
    with pytest.raises(oteo.OperationFailed) as caught:
        handle.wait(patient(20))
    assert caught.value.code == "CANCELLED"


def test_waiting_ends_after_the_timeout_and_the_operation_goes_on(client):
    handle = client.datasets.import_("/slow")
    with pytest.raises(oteo.OteoApiError) as caught:
        handle.wait(0.3)
    assert (caught.value.code, caught.value.reason) == ("DEADLINE_EXCEEDED", "WAIT_TIMEOUT")
    assert not client.operations.get(handle.name).done
    handle.cancel()


def test_an_operation_is_taken_up_by_name_with_its_type(client, tmp_path):
    name = client.datasets.import_(tmp_path).name
    result = client.operations.get(name).wait(patient(20))
    assert isinstance(result, dataset_pb2.ImportDatasetResponse)
    assert [handle.name for handle in client.operations.list(done=True)] == [name]


def test_a_service_that_is_away_for_a_moment_is_asked_again(client, world, tmp_path):
    client.datasets.import_(tmp_path).wait(patient(20))
    world.unavailable = 2
    assert client.datasets.get("cells").name == "datasets/cells"


def test_an_upload_sends_every_file_with_its_path(client, world, tmp_path):
    source = tmp_path / "images"
    for name in ("a/1.png", "b/2.png"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(name.encode() * 200_000)
    (source / ".hidden").write_bytes(b"no")
    sent = []
    client.upload(source, lambda done, total: sent.append((done, total))).wait(patient(20))
    assert world.uploaded == {name: name.encode() * 200_000 for name in ("a/1.png", "b/2.png")}
    assert sent[-1] == (2_800_000, 2_800_000)


@pytest.mark.parametrize(("make", "reason"), [(None, "SOURCE_NOT_FOUND"), ("empty", "EMPTY_SOURCE"), ("link", "UNSAFE_LINK")])
def test_what_cannot_be_uploaded_is_refused_here(client, tmp_path, make, reason):
    source = tmp_path / "source"
    if make:
        source.mkdir()
    if make == "link":
        (tmp_path / "secret").write_text("x")
        (source / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(oteo.OteoApiError) as caught:
        client.upload(source)
    assert caught.value.reason == reason


def test_all_pages_of_a_list_are_given(client, world, tmp_path):
    for number in range(5):
        world.datasets[f"datasets/d{number}"] = dataset_pb2.Dataset(name=f"datasets/d{number}")
    assert [dataset.name for dataset in client.datasets.list()] == [f"datasets/d{number}" for number in range(5)]
    assert len(list(client.datasets.list(limit=3))) == 3


def test_from_images_to_a_prediction(client, tmp_path, image):
    result = client.run_pipeline(tmp_path, budget=60, name="Lesions 2").wait(patient(20))
    assert (result.model.name, result.deployment.name) == ("models/lesions-2", "deployments/lesions-2")
    answer = client.predict("lesions-2", image, top_k=2)
    assert answer.classification.scores[0].class_name == "round"
    assert client.predict("deployments/lesions-2", image.read_bytes()).model == "models/cells"


def test_training_and_deploying(client, world):
    model = client.train("cells", budget=90.5).wait(patient(20)).model
    assert world.asked[-1].budget.ToNanoseconds() == 90_500_000_000
    assert client.deployments.create(model.name, deployment_id="mine").wait(patient(20)).name == "deployments/mine"
    with pytest.raises(oteo.OteoApiError) as caught:
        client.deployments.create(model.name, deployment_id="mine")
    assert caught.value.code == "ALREADY_EXISTS"


def test_a_wrong_token_is_said(world, client):
    with oteo.Client(client.endpoint.address, token="wrong") as other, pytest.raises(oteo.OteoApiError) as caught:
        other.datasets.get("cells")
    assert (caught.value.code, caught.value.reason) == ("UNAUTHENTICATED", "TOKEN_INVALID")


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda client: client.datasets.import_("/x", task="guessing"), "task"),
        (lambda client: client.datasets.import_("/x", format="paper"), "format"),
        (lambda client: client.datasets.export("x", format=""), None),
        (lambda client: client.predict("x", "/no/such/image.png"), "image"),
    ],
)
def test_wrong_words_are_refused(client, call, field):
    with pytest.raises(oteo.OteoApiError) as caught:
        call(client)
    assert caught.value.code in ("INVALID_ARGUMENT", "NOT_FOUND")
    if field:
        assert caught.value.field == field


def test_the_gateway_is_found_where_the_stack_wrote_it(tmp_path, monkeypatch):
    for name in ("OTEO_ADDRESS", "OTEO_TOKEN", "OTEO_CA_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEO_HOME", str(tmp_path))
    with pytest.raises(oteo.OteoApiError) as caught:
        find_endpoint()
    assert caught.value.reason == "NO_STACK"
    (tmp_path / "endpoints.json").write_text('{"gateway": "127.0.0.1:4711"}')
    (tmp_path / "token").write_text("secret\n")
    assert find_endpoint() == Endpoint("127.0.0.1:4711", "secret", None)
    assert find_endpoint("localhost:1").token == "secret"
    assert find_endpoint("oteo.example:443").token is None, "this machine's token is not for others"
