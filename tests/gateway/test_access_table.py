"""The table of access: complete for what a gateway serves, and heeded by it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from access_support import GatewayProcess, bearing, gateway_process, known, who
from gateway_support import TOKEN, details_of
from google.longrunning import operations_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import service_pb2
from waiting import wait_for

import oteo_protos
from oteo_core.access import Identity, Role
from oteo_core.errors import PermissionDenied
from oteo_core.tokens import TokenFile
from oteo_gateway.access.named_images import image_names
from oteo_gateway.access.table import OPEN, TABLE
from oteo_gateway.access.table_page import put_in
from oteo_gateway.wire import record
from oteo_protos.gateway.v1 import inference_pb2
from oteo_protos.translate.v1 import translate_pb2
from oteo_protos.type.v1 import image_pb2


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with gateway_process(tmp_path_factory.mktemp("table")) as running:
        yield running


@pytest.fixture(scope="module")
def tokens(gateway: GatewayProcess) -> dict[str, str]:
    """A token of each role, made while the gateway runs; the file is looked at every second."""
    file = TokenFile(gateway.home / "tokens.json")
    made = {role.value: file.create(f"a-{role.value}", [role])[0] for role in Role}
    with gateway.channel() as channel:
        wait_for(lambda: all(known(channel, token) for token in made.values()))
    return made


def reflected(channel: grpc.Channel) -> dict[str, tuple[bool, bool]]:
    """Give every method that the server's reflection names, with whether requests and answers are streams."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    def ask(**request: str) -> reflection_pb2.ServerReflectionResponse:
        return next(iter(stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**request)]), metadata=bearing(TOKEN))))

    methods = {}
    for service in ask(list_services="").list_services_response.service:
        found = ask(file_containing_symbol=service.name).file_descriptor_response.file_descriptor_proto
        for data in found:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            for described in file.service:
                if f"{file.package}.{described.name}" == service.name:
                    for method in described.method:
                        methods[f"/{service.name}/{method.name}"] = (method.client_streaming, method.server_streaming)
    return methods


def contract() -> set[str]:
    """Give every method of the contract, whether this release serves it or not."""
    names = [module.name for module in pkgutil.walk_packages(oteo_protos.__path__, "oteo_protos.") if module.name.endswith("_pb2")]
    files = [importlib.import_module(name).DESCRIPTOR for name in names]
    files += [operations_pb2.DESCRIPTOR, service_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR]
    return {
        f"/{service.full_name}/{method.name}" for file in files for service in file.services_by_name.values() for method in service.methods
    }


def test_every_method_that_is_served_is_in_the_table(gateway: GatewayProcess) -> None:
    with gateway.channel() as channel:
        served = set(reflected(channel))
    assert "/oteo.gateway.v1.IdentityService/WhoAmI" in served
    assert served - set(TABLE) - OPEN == set()


def test_the_table_names_no_method_that_does_not_exist() -> None:
    known = contract()
    assert len(known) > 60
    assert set(TABLE) - known == set()
    assert not set(TABLE) & OPEN


def test_the_page_shows_the_table() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/security.md").read_text()
    assert put_in(page) == page, "run: python -m oteo_gateway.access.table_page docs/security.md"


def code_of(channel: grpc.Channel, method: str, token: str | None) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Call a method with an empty message, as streams, which on the wire every call is."""
    try:
        list(
            channel.stream_stream(method)(
                iter([b""]), metadata=bearing(token) if token is not None else (), timeout=2 if method.endswith("WaitOperation") else 10
            )
        )
    except grpc.RpcError as error:
        reason, metadata, _ = details_of(error)
        return error.code(), reason, metadata
    return grpc.StatusCode.OK, "", {}


@pytest.mark.parametrize("role", list(Role))
def test_each_role_may_call_what_the_table_says_and_nothing_else(gateway: GatewayProcess, tokens: dict[str, str], role: Role) -> None:
    with gateway.channel() as channel:
        for method in reflected(channel):
            if method in OPEN:
                continue
            row = TABLE[method]
            code, reason, metadata = code_of(channel, method, tokens[role])
            if row.roles is None or role in row.roles:
                # What lies behind the door is away, or finds an empty request wrong: the door let it pass.
                assert reason not in ("ROLE_MISSING", "TOKEN_INVALID", "TOKEN_MISSING"), (method, code, reason)
            else:
                assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING"), (method, code, reason)
                assert metadata["roles"] == ",".join(sorted(row.roles))


def test_roles_are_no_ladder() -> None:
    # Whoever runs the machines judges no answers, and whoever reads them deploys nothing.
    correct, deploy = (
        TABLE["/oteo.gateway.v1.FeedbackService/SubmitCorrection"],
        TABLE["/oteo.gateway.v1.DeploymentService/CreateDeployment"],
    )
    assert {Role.OPERATOR, Role.CLINICIAN} & correct.roles == {Role.CLINICIAN}
    assert {Role.OPERATOR, Role.CLINICIAN} & deploy.roles == {Role.OPERATOR}
    assert all(row.roles is None or not row.roles or Role.ADMIN in row.roles for row in TABLE.values())


def test_what_is_in_no_table_is_refused_to_everyone_but_parts(gateway: GatewayProcess, tokens: dict[str, str]) -> None:
    method = "/oteo.augment.v1.DatasetService/OfALaterRelease"
    with gateway.channel() as channel:
        code, reason, metadata = code_of(channel, method, tokens["admin"])
        assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING")
        assert metadata == {"method": method, "roles": ""}
        # A part's call goes on to the service, which is away here.
        assert code_of(channel, method, TOKEN)[:2] == (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE")


NAMED = (image_pb2.ImageSource(sample="datasets/cells/samples/a"), image_pb2.ImageSource(uri="datasets/cells/media/a.png"))
SENT = image_pb2.ImageSource(content=b"x")


def asked_about(image: image_pb2.ImageSource) -> dict[str, Message]:
    """Give, for each of the gateway's own methods that clinicians may call and that takes images, a message about this image."""
    predict = inference_pb2.PredictRequest(deployment="deployments/none", image=image)
    return {
        "/oteo.gateway.v1.InferenceService/Predict": predict,
        "/oteo.gateway.v1.InferenceService/PredictStream": inference_pb2.PredictStreamRequest(key="1", request=predict),
    }


def reason_of(channel: grpc.Channel, method: str, token: str, message: Message) -> str:
    try:
        list(channel.stream_stream(method)(iter([message.SerializeToString()]), metadata=bearing(token), timeout=60))
    except grpc.RpcError as error:
        return details_of(error)[0]
    return ""


@pytest.mark.parametrize("image", NAMED, ids=["sample", "uri"])
def test_who_may_not_list_samples_sends_images_and_names_none(
    gateway: GatewayProcess, tokens: dict[str, str], image: image_pb2.ImageSource
) -> None:
    with gateway.channel() as channel:
        for method, message in asked_about(image).items():
            assert reason_of(channel, method, tokens["clinician"], message) == "ROLE_MISSING", method
            assert reason_of(channel, method, tokens["trainer"], message) != "ROLE_MISSING", method
        for method, message in asked_about(SENT).items():
            assert reason_of(channel, method, tokens["clinician"], message) != "ROLE_MISSING", method


def test_nor_names_them_to_services_behind_the_gateway() -> None:
    method, caller = "/oteo.translate.v1.TranslateService/TranslateImages", Identity("dr-ito", "token", frozenset({Role.CLINICIAN}))
    names = image_names(method, caller)
    assert names is not None
    settings = translate_pb2.TranslateImagesRequest(settings={"translator": "translators/none"})
    sent = translate_pb2.TranslateImagesRequest(item={"key": "1", "image": SENT})
    for message in (settings, sent):
        names.check(message.SerializeToString())
    # On the wire a message may stand twice and is merged: the name in the first stays where the second is empty.
    first = translate_pb2.TranslateImagesRequest.Item(image=NAMED[0]).SerializeToString()
    for hidden in (record(2, first), record(2, first) + record(2, b""), record(2, first + record(2, b""))):
        with pytest.raises(PermissionDenied) as caught:
            names.check(hidden)
        assert caught.value.reason == "ROLE_MISSING"
    assert image_names(method, Identity("b", "token", frozenset({Role.TRAINER}))) is None
    assert image_names("/inference.GRPCInferenceService/ModelInfer", caller) is None


def test_who_am_i_says_what_a_caller_may(gateway: GatewayProcess, tokens: dict[str, str]) -> None:
    with gateway.channel() as channel:
        clinician, part = who(channel, tokens["clinician"]), who(channel, TOKEN)
    assert (clinician.name, list(clinician.roles)) == ("token:a-clinician", ["clinician"])
    assert "oteo.gateway.v1.InferenceService.Predict" in clinician.methods
    assert "oteo.gateway.v1.DeploymentService.CreateDeployment" not in clinician.methods
    allowances = {allowance.name: allowance for allowance in clinician.allowances}
    assert allowances["requests_per_minute"].limit == 1200
    assert (allowances["concurrent_calls"].limit, allowances["concurrent_calls"].used) == (32, 1)
    assert (part.name, part.kind, list(part.roles)) == ("local", part.KIND_PART, [])
    assert all(allowance.limit == 0 for allowance in part.allowances)


def test_a_caller_from_outside_cannot_say_that_it_is_another(gateway: GatewayProcess, tokens: dict[str, str]) -> None:
    with gateway.channel() as channel:
        assert who(channel, tokens["viewer"], ("x-oteo-caller", "token:a-admin")).name == "token:a-viewer"
        assert who(channel, TOKEN, ("x-oteo-caller", "oidc:someone")).name == "oidc:someone"
