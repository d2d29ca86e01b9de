"""The audit log at the gateway: what is written of calls, predictions, refusals and operations, and that nothing is done without it."""

from __future__ import annotations

import io
import json
import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from gateway_support import Backend, Loop, RunningGateway, details_of, picture, publish_model, running_gateway, settings_for
from google.longrunning import operations_pb2, operations_pb2_grpc
from PIL import Image
from waiting import patient, wait_for

from oteo_core.access import Identity
from oteo_core.artifacts import ArtifactStore, open_store
from oteo_core.auditlog import HeadStore, load_keys, verify
from oteo_core.auditlog.segments import chains_of, segments_of
from oteo_core.context import CallContext
from oteo_core.errors import FailedPrecondition
from oteo_core.refusals import RefusalLimit
from oteo_core.tokens import TokenFile
from oteo_gateway.auditing.methods import Kind, Methods
from oteo_gateway.service import _all_services
from oteo_local.triton import start
from oteo_protos.augment.v1 import dataset_pb2, dataset_pb2_grpc
from oteo_protos.automl.v1 import automl_pb2, automl_pb2_grpc
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2

AUTOML = "/oteo.automl.v1.AutoMLService"
DATASETS = "/oteo.augment.v1.DatasetService"
CANARY = "CANARY-Jane-Doe-Born1957"


def records(home: Path, *, own: bool = False) -> list[dict[str, Any]]:
    """Give what the log holds, without its own records, or these alone."""
    found = [
        json.loads(line)
        for chain in chains_of(home / "audit")
        for path in segments_of(home / "audit" / chain)
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")
    ]
    return [record for record in found if (record["kind"] == "log") is own]


def of(home: Path, method: str) -> list[dict[str, Any]]:
    return [record for record in records(home) if record["action"].endswith(f"/{method}")]


@dataclass
class Door:
    """A gateway with an automl and an augment of the tests' own."""

    running: RunningGateway
    home: Path
    automl: Backend
    augment: Backend
    asked: list[str] = field(default_factory=list)

    def answer(self, method: str, response: Any, error: FailedPrecondition | None = None) -> None:
        async def answered(request: bytes, context: Any) -> bytes:
            self.asked.append(method)
            if error is not None:
                status = error.to_status()
                await context.abort(
                    grpc.StatusCode.FAILED_PRECONDITION, status.message, (("grpc-status-details-bin", status.SerializeToString()),)
                )
            return bytes(response.SerializeToString())

        self.automl.methods[f"{AUTOML}/{method}"] = grpc.unary_unary_rpc_method_handler(answered)


@pytest.fixture
def backends(loop: Loop) -> Iterator[tuple[Backend, Backend]]:
    automl, augment = Backend(), Backend()
    loop.run(automl.start())
    loop.run(augment.start())
    yield automl, augment
    loop.run(automl.stop())
    loop.run(augment.stop())


@pytest.fixture
def door(loop: Loop, backends: tuple[Backend, Backend], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Door]:
    automl, augment = backends
    settings = settings_for(
        tmp_path,
        automl_address=f"127.0.0.1:{automl.port}",
        augment_address=f"127.0.0.1:{augment.port}",
        audit_instance="door",
        **getattr(request, "param", {}),
    )
    with running_gateway(loop, settings, log_dir=tmp_path / "logs") as running:
        yield Door(running, tmp_path, automl, augment)


def test_a_refusal_at_the_door_is_written_with_who_was_refused(door: Door) -> None:
    token, _ = TokenFile(door.home / "tokens.json").create("vic", ["viewer"])
    with grpc.insecure_channel(door.running.address) as channel:
        stub = automl_pb2_grpc.AutoMLServiceStub(channel)
        for bearer in ("made-up", token):
            wait_for(lambda bearer=bearer: _refused(stub, bearer) == ("TOKEN_INVALID" if bearer == "made-up" else "ROLE_MISSING"))
    found = of(door.home, "DeleteModel")
    # Nothing was begun, and nothing that was shown is written.
    assert {record["kind"] for record in found} == {"call"}
    refused = found[-1]
    assert "ROLE_MISSING" in json.dumps(refused)
    assert "token:vic" in json.dumps(refused)
    assert token not in json.dumps(found)


def _refused(stub: automl_pb2_grpc.AutoMLServiceStub, bearer: str) -> str:
    try:
        stub.DeleteModel(automl_pb2.DeleteModelRequest(name="models/x"), metadata=(("authorization", f"Bearer {bearer}"),), timeout=60)
    except grpc.RpcError as error:
        return details_of(error)[0]
    return ""


def test_a_forwarded_change_is_written_before_it_is_carried_out_and_after(door: Door) -> None:
    seen: list[list[str]] = []

    async def train(request: bytes, context: Any) -> bytes:
        seen.append([record["kind"] for record in of(door.home, "TrainModel")])
        return operations_pb2.Operation(name="operations/automl-abcdefghijklmnopqrst").SerializeToString()

    door.automl.methods[f"{AUTOML}/TrainModel"] = grpc.unary_unary_rpc_method_handler(train)
    request_id = str(uuid.uuid4())
    automl_pb2_grpc.AutoMLServiceStub(door.running.channel).TrainModel(
        automl_pb2.TrainModelRequest(dataset="datasets/skin", model_id="lesions", display_name=CANARY),
        metadata=(("x-request-id", request_id),),
    )
    assert seen == [["attempt"]]
    attempt, call = of(door.home, "TrainModel")
    assert (attempt["resource"], attempt["used"]) == ("models/lesions", {"dataset": "datasets/skin"})
    assert call["used"] == {"dataset": "datasets/skin", "operation": "operations/automl-abcdefghijklmnopqrst"}
    assert (call["kind"], call["code"], call["actor"], call["source"]) == ("call", "OK", "local", "127.0.0.1")
    assert attempt["request"] == call["request"] == request_id


def test_the_error_of_a_service_is_written_with_its_reason(door: Door) -> None:
    door.answer("DeleteModel", None, FailedPrecondition("it is in use", reason="MODEL_DEPLOYED"))
    with pytest.raises(grpc.RpcError):
        automl_pb2_grpc.AutoMLServiceStub(door.running.channel).DeleteModel(automl_pb2.DeleteModelRequest(name="models/lesions"))
    _, call = of(door.home, "DeleteModel")
    assert (call["resource"], call["code"], call["reason"]) == ("models/lesions", "FAILED_PRECONDITION", "MODEL_DEPLOYED")


def test_own_calls_and_refused_ones_are_written(door: Door) -> None:
    stub = deployment_pb2_grpc.DeploymentServiceStub(door.running.channel)
    with pytest.raises(grpc.RpcError):
        stub.GetDeployment(deployment_pb2.GetDeploymentRequest(name="deployments/none"))
    with pytest.raises(grpc.RpcError):
        stub.CreateDeployment(
            deployment_pb2.CreateDeploymentRequest(
                deployment_id="skin", deployment=deployment_pb2.Deployment(models=[deployment_pb2.DeployedModel(model="models/none")])
            )
        )
    (read,) = of(door.home, "GetDeployment")
    assert (read["resource"], read["code"], read["reason"]) == ("deployments/none", "NOT_FOUND", "DEPLOYMENT_NOT_FOUND")
    _, create = of(door.home, "CreateDeployment")
    assert (create["resource"], create["used"]["model"], create["reason"]) == ("deployments/skin", "models/none", "MODEL_NOT_FOUND")
    with grpc.insecure_channel(door.running.address) as stranger, pytest.raises(grpc.RpcError):
        deployment_pb2_grpc.DeploymentServiceStub(stranger).DeleteDeployment(
            deployment_pb2.DeleteDeploymentRequest(name="deployments/skin")
        )
    (refused,) = of(door.home, "DeleteDeployment")
    assert (refused["kind"], refused["code"], refused["reason"]) == ("call", "UNAUTHENTICATED", "TOKEN_MISSING")
    assert "actor" not in refused


def test_a_method_that_nobody_knows_does_not_bring_its_name_into_the_log(door: Door) -> None:
    for path in (f"{AUTOML}/{CANARY.replace('-', '')}", f"/{CANARY.replace('-', '.')}/Get"):
        with pytest.raises(grpc.RpcError):
            door.running.channel.unary_unary(path)(b"", timeout=60)
    assert {record["action"] for record in records(door.home)} == {"oteo.automl.v1.AutoMLService/unknown"}


def test_ends_of_operations_are_written_once(door: Door, loop: Loop) -> None:
    manager = door.running.gateway.operations
    request = deployment_pb2.CreateDeploymentRequest(deployment_id="skin")
    names = [
        manager.start_external(
            "CreateDeployment", request, metadata=deployment_pb2.DeploymentMetadata(), request_id=str(uuid.uuid4()), resource=resource
        ).name
        for resource in ("models/lesions", "deployments/other")
    ]
    publish_model(open_store(door.running.settings), "lesions")
    manager.succeed(names[0], deployment_pb2.Deployment())
    manager.fail(names[1], FailedPrecondition(CANARY, reason="GAVE_UP"))
    ends = wait_for(lambda: found if len(found := [one for one in records(door.home) if one["kind"] == "operation"]) == 2 else [])
    by_name = {one["used"]["operation"]: one for one in ends}
    done, failed = by_name[names[0]], by_name[names[1]]
    assert (done["resource"], done["code"], done["used"]["state"], done["used"]["method"]) == (
        "models/lesions",
        "OK",
        "SUCCEEDED",
        "CreateDeployment",
    )
    assert done["used"]["dataset"] == "datasets/colours"
    assert done["used"]["dataset_digest"] == "0" * 64
    assert (failed["code"], failed["reason"], failed["used"]["state"]) == ("FAILED_PRECONDITION", "GAVE_UP", "FAILED")
    time.sleep(1.0)
    assert len([one for one in records(door.home) if one["kind"] == "operation"]) == 2


def test_while_the_log_cannot_be_written_nothing_is_changed_or_told_and_then_all_goes_on(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    door.answer("DeleteModel", automl_pb2.Model())
    door.answer("GetModel", automl_pb2.Model(name="models/lesions"))
    stub = automl_pb2_grpc.AutoMLServiceStub(door.running.channel)
    audit = door.running.gateway.audit
    assert audit is not None
    writer = audit._writer
    assert writer is not None
    full = open("/dev/full", "wb")  # noqa: SIM115 - a real descriptor that takes nothing
    monkeypatch.setattr(writer, "_file", full.fileno())
    for call in (
        lambda: stub.DeleteModel(automl_pb2.DeleteModelRequest(name="models/lesions")),
        lambda: stub.GetModel(automl_pb2.GetModelRequest(name="models/lesions")),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert details_of(caught.value)[0] == "AUDIT_UNAVAILABLE"
    assert door.asked == ["GetModel"], "the change was not carried out"
    monkeypatch.undo()
    full.close()
    stub.DeleteModel(automl_pb2.DeleteModelRequest(name="models/lesions"))
    assert [record["kind"] for record in of(door.home, "DeleteModel")] == ["attempt", "call"]


@pytest.mark.parametrize("door", [{"audit_without": "answer"}], indirect=True)
def test_where_the_settings_say_so_reading_goes_on_without_a_log_and_is_counted(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    door.answer("GetModel", automl_pb2.Model(name="models/lesions"))
    stub = automl_pb2_grpc.AutoMLServiceStub(door.running.channel)
    audit = door.running.gateway.audit
    assert audit is not None
    with open("/dev/full", "wb") as full, monkeypatch.context() as patch:
        patch.setattr(audit._writer, "_file", full.fileno())
        for _ in range(3):
            assert stub.GetModel(automl_pb2.GetModelRequest(name="models/lesions")).name == "models/lesions"
    stub.GetModel(automl_pb2.GetModelRequest(name="models/lesions"))
    lines = [json.loads(line) for line in segments_of(door.home / "audit/door")[-1].read_bytes().splitlines()]
    assert [one["used"]["count"] for one in lines if one["action"] == "log.gap"] == [3]
    assert len(of(door.home, "GetModel")) == 1


@pytest.mark.parametrize("door", [{"audit_log": False}], indirect=True)
def test_no_log_is_written_where_the_settings_say_so(door: Door) -> None:
    door.answer("DeleteModel", automl_pb2.Model())
    automl_pb2_grpc.AutoMLServiceStub(door.running.channel).DeleteModel(automl_pb2.DeleteModelRequest(name="models/lesions"))
    assert not (door.home / "audit").exists()


class _Peer:
    """What of gRPC's context the hook asks for."""

    def peer(self) -> str:
        return "ipv6:%5B::1%5D:4711"


def test_the_roles_and_the_address_of_a_caller_are_written(door: Door) -> None:
    hook = door.running.gateway.hook
    assert hook is not None
    call = CallContext(
        method=f"{AUTOML}/GetModel", caller="jo", identity=Identity("jo", "oidc", frozenset({"operator", "reader"})), request_id="0" * 32
    )
    assert hook.after(call, "PERMISSION_DENIED", "ROLE_MISSING", None, _Peer()) is not None
    (refused,) = of(door.home, "GetModel")
    assert (refused["actor"], refused["roles"], refused["source"]) == ("jo", ["operator", "reader"], "::1")


def test_a_flood_of_refusals_is_counted() -> None:
    now = [0.0]
    limit = RefusalLimit(burst=3, rate=1, clock=lambda: now[0])
    assert [limit.allows() for _ in range(5)] == [True, True, True, False, False]
    assert (limit.counted(), limit.counted()) == (2, 0)
    now[0] = 1.0
    assert [limit.allows() for _ in range(2)] == [True, False]


def test_a_flood_of_predictions_that_there_is_no_room_for_is_summed_and_a_change_is_not(door: Door) -> None:
    hook = door.running.gateway.hook
    assert hook is not None
    hook._limits["RESOURCE_EXHAUSTED"] = hook._overload = RefusalLimit(burst=2, rate=0.001)
    before = len(of(door.home, "Predict"))
    for _ in range(5):
        assert (
            hook.after(
                CallContext(method="/oteo.gateway.v1.InferenceService/Predict", caller="jo"),
                "RESOURCE_EXHAUSTED",
                "TOO_MANY_REQUESTS",
                None,
                _Peer(),
            )
            is None
        )
    assert len(of(door.home, "Predict")) == before + 2
    hook.tell_counted()
    summed = [record for record in records(door.home, own=True) if record["action"] == "log.refusals"][-1]
    assert (summed["code"], summed["used"]) == ("RESOURCE_EXHAUSTED", {"count": 3})
    # What was begun has its end written, whatever it is.
    begun = CallContext(method=f"{AUTOML}/TrainModel", caller="jo", notes={"audit": ("", {})})
    assert hook.after(begun, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", None, _Peer()) is not None
    assert of(door.home, "TrainModel")[-1]["reason"] == "QUOTA_EXCEEDED"


def test_every_method_of_the_contract_that_changes_something_is_one_that_waits_for_the_disk() -> None:
    methods = Methods(_all_services())
    kinds = {path.rpartition("/")[2]: methods.get(path).kind for path in methods._known}
    changing = {name for name, kind in kinds.items() if kind is Kind.CHANGE}
    assert changing >= {
        *(
            "TrainModel",
            "DeleteModel",
            "ExportModel",
            "ImportDataset",
            "UploadDataset",
            "DeleteDataset",
            "ExportDataset",
            "SubmitCorrection",
        ),
        *(
            "CreateDeployment",
            "UpdateDeployment",
            "RollbackDeployment",
            "DeleteDeployment",
            "RunPipeline",
            "CancelOperation",
            "DeleteOperation",
        ),
        *("TrainTranslator", "DeleteTranslator"),
    }
    assert not [name for name in changing if name.startswith(("Get", "List", "Server"))]
    assert {name for name, kind in kinds.items() if kind is Kind.PREDICT} >= {"Predict", "PredictStream", "ModelInfer"}


@dataclass
class Ward:
    """A gateway with a real Triton and a deployed model."""

    running: RunningGateway
    home: Path


@pytest.fixture(scope="module")
def ward(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ward]:
    home = tmp_path_factory.mktemp("ward")
    with start(home / "model-repository", timeout=patient(30)) as server:
        settings = settings_for(home, triton_urls=[server.address], audit_instance="ward")
        publish_model(open_store(settings), "colours")
        with running_gateway(loop, settings, log_dir=home / "logs") as running:
            stub = deployment_pb2_grpc.DeploymentServiceStub(running.channel)
            operation = stub.CreateDeployment(
                deployment_pb2.CreateDeploymentRequest(
                    deployment=deployment_pb2.Deployment(
                        display_name=CANARY, labels={CANARY: CANARY}, models=[deployment_pb2.DeployedModel(model="models/colours")]
                    )
                )
            )
            operations = operations_pb2_grpc.OperationsStub(running.channel)
            wait_for(lambda: operations.GetOperation(operations_pb2.GetOperationRequest(name=operation.name), timeout=60).done, 40)
            yield Ward(running, home)


def _request(content: bytes, deployment: str = "deployments/colours") -> inference_pb2.PredictRequest:
    return inference_pb2.PredictRequest(deployment=deployment, image=image_pb2.ImageSource(content=content))


def test_a_prediction_is_written_with_what_made_it_and_not_with_what_it_says(ward: Ward) -> None:
    before = len(of(ward.home, "Predict"))
    response = inference_pb2_grpc.InferenceServiceStub(ward.running.channel).Predict(_request(picture("red")), timeout=60)
    call = of(ward.home, "Predict")[before]
    assert (call["kind"], call["resource"], call["code"]) == ("call", "deployments/colours", "OK")
    used = call["used"]
    assert (used["model"], used["model_version"]) == ("models/colours", "1")
    assert used["shift"] in ("usual", "unusual")
    key = load_keys(ward.home / "audit-key").signing
    assert used["image"] == key.pseudonym("image", response.image.sha256)
    text = json.dumps(call)
    assert response.image.sha256 not in text
    assert '"red"' not in text
    (end,) = wait_for(lambda: [one for one in records(ward.home) if one["kind"] == "operation"])
    assert (end["resource"], end["code"], end["used"]["method"]) == ("deployments/colours", "OK", "CreateDeployment")


def test_each_image_of_a_stream_is_written_by_itself(ward: Ward) -> None:
    before = len(of(ward.home, "PredictStream"))
    requests = [
        inference_pb2.PredictStreamRequest(key=f"{CANARY}-{number}", request=_request(content))
        for number, content in enumerate((picture("red"), b"no image", picture("blue")))
    ]
    answers = list(inference_pb2_grpc.InferenceServiceStub(ward.running.channel).PredictStream(iter(requests), timeout=120))
    assert [answer.WhichOneof("outcome") for answer in answers] == ["response", "error", "response"]
    written = of(ward.home, "PredictStream")[before:]
    assert [one["kind"] for one in written] == ["item", "item", "item", "call"]
    assert sorted(one["code"] for one in written) == ["INVALID_ARGUMENT", "OK", "OK", "OK"]
    assert {one["resource"] for one in written[:3]} == {"deployments/colours"}


def test_what_is_said_of_patients_anywhere_in_a_call_is_nowhere_in_the_log(ward: Ward) -> None:
    channel = ward.running.channel
    metadata = ((("x-request-id"), CANARY), ("x-patient", CANARY), ("user-agent", CANARY), ("x-oteo-caller", f"{CANARY} {CANARY}"))
    image = io.BytesIO()
    Image.fromarray(np.zeros((24, 24, 3), np.uint8)).save(image, "png", description=CANARY)
    infer = inference_pb2_grpc.InferenceServiceStub(channel)

    def tolerant(call: Any) -> None:
        try:
            result = call()
            if hasattr(result, "__next__"):
                list(result)
        except grpc.RpcError:
            logging.getLogger(__name__).debug("refused, as many of these are")

    calls = [
        lambda: infer.Predict(_request(image.getvalue()), metadata=metadata),
        lambda: infer.Predict(_request(CANARY.encode()), metadata=metadata),
        lambda: infer.Predict(_request(b"x", f"deployments/{CANARY}"), metadata=metadata),
        lambda: infer.Predict(
            inference_pb2.PredictRequest(
                deployment="deployments/colours", image=image_pb2.ImageSource(uri=f"uploads/{CANARY}.png"), operating_point=CANARY
            ),
            metadata=metadata,
        ),
        lambda: infer.PredictStream(
            iter([inference_pb2.PredictStreamRequest(key=CANARY, request=_request(CANARY.encode()))]), metadata=metadata
        ),
        lambda: dataset_pb2_grpc.DatasetServiceStub(channel).ImportDataset(
            dataset_pb2.ImportDatasetRequest(
                display_name=CANARY, source_uri=f"file:///{CANARY}", domain=CANARY, classes=[CANARY], labels={CANARY: CANARY}
            ),
            metadata=metadata,
        ),
        lambda: dataset_pb2_grpc.DatasetServiceStub(channel).ListSamples(
            dataset_pb2.ListSamplesRequest(parent=f"datasets/{CANARY}", class_name=CANARY), metadata=metadata
        ),
        lambda: dataset_pb2_grpc.DatasetServiceStub(channel).GetDataset(
            dataset_pb2.GetDatasetRequest(name=f"datasets/skin/samples/{CANARY}"), metadata=metadata
        ),
        lambda: automl_pb2_grpc.AutoMLServiceStub(channel).TrainModel(
            automl_pb2.TrainModelRequest(dataset=f"datasets/{CANARY}", model_id=CANARY, display_name=CANARY, candidates=[CANARY]),
            metadata=metadata,
        ),
        lambda: deployment_pb2_grpc.DeploymentServiceStub(channel).UpdateDeployment(
            deployment_pb2.UpdateDeploymentRequest(
                deployment=deployment_pb2.Deployment(name="deployments/colours", display_name=CANARY, labels={"patient": CANARY})
            ),
            metadata=metadata,
        ),
    ]
    before = len(records(ward.home))
    for call in calls:
        tolerant(call)
    with grpc.insecure_channel(ward.running.address) as stranger:
        tolerant(
            lambda: inference_pb2_grpc.InferenceServiceStub(stranger).Predict(
                _request(b""), metadata=(("authorization", f"Bearer {CANARY}"), ("x-oteo-caller", CANARY))
            )
        )
    assert len(records(ward.home)) - before >= len(calls) + 1
    names = CANARY.lower().split("-")
    for path in (ward.home / "audit").rglob("*"):
        text = str(path).lower() + (path.read_bytes().decode("latin-1").lower() if path.is_file() else "")
        assert not any(name in text for name in names), path
    assert "a-token-for-tests" not in "".join(json.dumps(record) for record in records(ward.home))


def test_a_gateway_s_log_is_intact_when_it_has_ended(loop: Loop, tmp_path: Path) -> None:
    for _ in range(2):
        settings = settings_for(tmp_path, audit_instance="door")
        with running_gateway(loop, settings, log_dir=tmp_path / "logs") as running, pytest.raises(grpc.RpcError):
            automl_pb2_grpc.AutoMLServiceStub(running.channel).GetModel(automl_pb2.GetModelRequest(name="models/m"))
    keys = load_keys(tmp_path / "audit-key")
    report = verify([tmp_path / "audit"], keys, HeadStore(ArtifactStore(f"file://{tmp_path}/artifacts/audit"), "", keys).all())
    assert report.intact
    assert [(one.chain, one.records) for one in report.chains] == [("door", 6)]
    assert not report.findings
