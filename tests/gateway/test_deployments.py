"""Deployments on real Tritons: served on every replica, and again after whatever is killed."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from deployment_site import DEGRADED, FAILED, READY, Replicas, Site
from gateway_support import Loop, details_of, publish_model, running_gateway, settings_for
from google.longrunning import operations_pb2
from google.protobuf import field_mask_pb2
from tritonclient.grpc import service_pb2, service_pb2_grpc
from waiting import wait_for

from oteo_core.artifacts import open_store
from oteo_core.packages import delete_model
from oteo_gateway.settings import GatewaySettings
from oteo_protos.gateway.v1 import deployment_pb2


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    found = Replicas(tmp_path_factory.mktemp("repository"))
    found.up(0)
    found.up(1)
    yield found
    found.close()


@pytest.fixture(scope="module")
def settings(replicas: Replicas, tmp_path_factory: pytest.TempPathFactory) -> GatewaySettings:
    home = tmp_path_factory.mktemp("deployments")
    return settings_for(home, triton_urls=replicas.addresses, model_repository=f"file://{replicas.repository}", lease_seconds=1.5)


@pytest.fixture(scope="module")
def site(loop: Loop, replicas: Replicas, settings: GatewaySettings) -> Iterator[Site]:
    artifacts = open_store(settings)
    with running_gateway(loop, settings, log_dir=settings.home / "logs") as running:
        yield Site(running, replicas, artifacts)


def test_deployment_is_served_by_every_replica_and_taken_out_again(site: Site) -> None:
    publish_model(site.artifacts, "plain")
    deployment = site.deploy("plain")
    assert (deployment.name, deployment.state, deployment.generation) == ("deployments/plain", READY, 1)
    assert [replica.ready for replica in deployment.replicas] == [True, True]
    for number in (0, 1):
        assert site.index(number)["plain"] == "READY"
    for colour in ("red", "green", "blue"):
        assert site.predict("plain", colour).classification.scores[0].class_name == colour
    site.delete("plain")
    wait_for(lambda: not any("plain" in site.index(number) for number in (0, 1)))
    assert not (site.replicas.repository / "plain").exists()
    with pytest.raises(grpc.RpcError) as caught:
        site.predict("plain")
    assert (caught.value.code(), details_of(caught.value)[0]) == (grpc.StatusCode.NOT_FOUND, "DEPLOYMENT_NOT_FOUND")


def test_killed_triton_serves_again_with_no_call_by_anyone(site: Site) -> None:
    publish_model(site.artifacts, "survivor")
    site.deploy("survivor")
    site.replicas.kill(1)
    state = wait_for(lambda: (found := site.get("survivor")).state == DEGRADED and found)
    assert [replica.ready for replica in state.replicas] == [True, False]
    assert state.message
    # The replica that is left answers everything.
    for _ in range(6):
        assert site.predict("survivor").classification.decision == "red"
    site.replicas.up(1)
    wait_for(lambda: site.get("survivor").state == READY)
    assert site.index(1)["survivor"] == "READY"
    site.delete("survivor")


def test_both_replicas_away_is_said_and_mended(site: Site) -> None:
    publish_model(site.artifacts, "lonely")
    site.deploy("lonely")
    site.replicas.kill(0)
    site.replicas.kill(1)
    wait_for(lambda: site.get("lonely").state == FAILED)
    with pytest.raises(grpc.RpcError) as caught:
        site.predict("lonely")
    reason, _, delay = details_of(caught.value)
    assert (caught.value.code(), reason) == (grpc.StatusCode.UNAVAILABLE, "DEPLOYMENT_NOT_READY")
    assert delay is not None
    site.replicas.up(0)
    site.replicas.up(1)
    wait_for(lambda: site.get("lonely").state == READY)
    assert site.predict("lonely").classification.decision == "red"
    site.delete("lonely")


def test_dead_stub_is_found_by_a_probe_and_mended(site: Site) -> None:
    publish_model(site.artifacts, "stubborn")
    site.deploy("stubborn")
    assert site.replicas.kill_stubs(0) >= 1

    # Triton goes on saying READY; only an inference tells. No prediction is lost for it: the other replica answers.
    for _ in range(10):
        assert site.predict("stubborn").classification.decision == "red"

    def mended() -> bool:
        with grpc.insecure_channel(site.replicas.addresses[0]) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            request = service_pb2.ModelInferRequest(model_name="stubborn", raw_input_contents=[b"\0" * 768])
            request.inputs.add(name="image", datatype="UINT8", shape=[1, 16, 16, 3])
            try:
                stub.ModelInfer(request, timeout=10)
            except grpc.RpcError:
                return False
            return True

    wait_for(mended, 30)
    wait_for(lambda: site.get("stubborn").state == READY)
    site.delete("stubborn")


def test_restarted_gateway_goes_on_with_no_call(loop: Loop, site: Site, settings: GatewaySettings, tmp_path: Path) -> None:
    publish_model(site.artifacts, "lasting")
    home = tmp_path / "other"
    own = settings_for(
        home,
        triton_urls=site.replicas.addresses,
        model_repository=settings.model_repository,
        artifacts=settings.artifacts,
        database_url=settings.database_url,
    )
    site.deploy("lasting")
    # A second gateway on the same database reads the same state, and answers too.
    with running_gateway(loop, own, log_dir=tmp_path) as second:
        other = Site(second, site.replicas, site.artifacts)
        assert other.get("lasting").state == READY
        assert other.predict("lasting").classification.decision == "red"
        # A replica loses the model behind everybody's back.
        with grpc.insecure_channel(site.replicas.addresses[0]) as channel:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).RepositoryModelUnload(
                service_pb2.RepositoryModelUnloadRequest(model_name="lasting"), timeout=60
            )
        wait_for(lambda: site.index(0)["lasting"] == "READY" and other.get("lasting").state == READY)
    site.delete("lasting")


def test_models_of_others_are_left_alone(site: Site) -> None:
    publish_model(site.artifacts, "ours")
    site.deploy("ours")
    for name in ("oteo-parity-abc", "somebody-else"):
        folder = site.replicas.repository / name
        shutil.copytree(site.replicas.repository / "ours", folder)
        config = (folder / "config.pbtxt").read_text().replace('"ours"', f'"{name}"')
        if name == "somebody-else":
            config = config.replace("oteo_digest", "their_digest")
        (folder / "config.pbtxt").write_text(config)
        with grpc.insecure_channel(site.replicas.addresses[0]) as channel:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).RepositoryModelLoad(
                service_pb2.RepositoryModelLoadRequest(model_name=name), timeout=120
            )
    site.delete("ours")
    wait_for(lambda: "ours" not in site.index(0))
    assert site.index(0) == {"oteo-parity-abc": "READY", "somebody-else": "READY"}


def test_same_request_id_gives_one_operation_and_another_request_is_refused(site: Site) -> None:
    publish_model(site.artifacts, "once")
    publish_model(site.artifacts, "twice")
    request_id = str(uuid.uuid4())
    first = site.create("once", request_id=request_id)
    assert site.create("once", request_id=request_id).name == first.name
    with pytest.raises(grpc.RpcError) as caught:
        site.create("twice", request_id=request_id)
    assert (caught.value.code(), details_of(caught.value)[0]) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert site.done(first).response.type_url.endswith("Deployment")
    with pytest.raises(grpc.RpcError) as caught:
        site.create("once", request_id=str(uuid.uuid4()))
    assert details_of(caught.value)[0] == "DEPLOYMENT_EXISTS"
    site.delete("once")
    # A replay of the creation does not bring it back.
    assert site.create("once", request_id=request_id).name == first.name
    with pytest.raises(grpc.RpcError) as caught:
        site.get("once")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_update_changes_the_model_while_the_old_one_answers(site: Site) -> None:
    publish_model(site.artifacts, "first", sharpness=8)
    publish_model(site.artifacts, "second", sharpness=1)
    before = site.deploy("first")
    change = deployment_pb2.Deployment(
        name="deployments/first", etag=before.etag, models=[deployment_pb2.DeployedModel(model="models/second")], display_name="ignored"
    )
    request = deployment_pb2.UpdateDeploymentRequest(deployment=change, update_mask=field_mask_pb2.FieldMask(paths=["models"]))
    operation = site.deployments.UpdateDeployment(request, timeout=60)
    answered = set()
    while not site.operations.GetOperation(operations_pb2.GetOperationRequest(name=operation.name), timeout=60).done:
        answered.add(site.predict("first").model)
    after = site.get("first")
    assert (after.models[0].model, after.generation, after.display_name, after.state) == ("models/second", 2, "", READY)
    assert after.etag != before.etag
    wait_for(lambda: site.predict("first").model == "models/second")
    assert answered <= {"models/first", "models/second"}
    wait_for(lambda: "first" not in site.index(0))
    with pytest.raises(grpc.RpcError) as caught:
        site.deployments.UpdateDeployment(request, timeout=60)
    assert details_of(caught.value)[0] == "ETAG_MISMATCH"
    site.delete("first")


def test_model_made_anew_under_its_name_is_loaded_anew(site: Site) -> None:
    publish_model(site.artifacts, "renewed", sharpness=8)
    site.deploy("renewed")
    sharp = site.predict("renewed").classification.scores[0].probability
    delete_model(site.artifacts, "renewed")
    publish_model(site.artifacts, "renewed", sharpness=1)

    def softer() -> bool:
        try:
            return site.predict("renewed").classification.scores[0].probability < sharp - 0.2
        except grpc.RpcError:
            return False

    wait_for(softer)
    site.delete("renewed")


def test_deleted_model_of_a_deployment_is_said_clearly(site: Site) -> None:
    publish_model(site.artifacts, "fleeting")
    site.deploy("fleeting")
    delete_model(site.artifacts, "fleeting")
    state = wait_for(lambda: (found := site.get("fleeting")).state == FAILED and found)
    assert "models/fleeting" in state.message

    def refused() -> str:
        with pytest.raises(grpc.RpcError) as caught:
            site.predict("fleeting")
        return details_of(caught.value)[0]

    wait_for(lambda: refused() == "MODEL_NOT_FOUND")
    site.delete("fleeting")


def test_broken_model_fails_its_operation_and_cancelling_takes_a_deployment_back(site: Site) -> None:
    publish_model(site.artifacts, "broken", graph=b"this is no ONNX graph")
    operation = site.create("broken")
    done = site.done(operation, 60)
    assert done.error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert "models/broken" in done.error.message
    assert site.get("broken").state == FAILED
    site.delete("broken")
    publish_model(site.artifacts, "unwanted", graph=b"this neither")
    operation = site.create("unwanted")
    site.operations.CancelOperation(operations_pb2.CancelOperationRequest(name=operation.name), timeout=60)
    assert site.done(operation, 5).error.code == grpc.StatusCode.CANCELLED.value[0]
    with pytest.raises(grpc.RpcError) as caught:
        site.get("unwanted")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_bad_requests_name_the_field(site: Site) -> None:
    publish_model(site.artifacts, "fine")
    model = deployment_pb2.DeployedModel
    cases = [
        ([model(model="models/none")], grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
        ([model(model="models/fine"), model(model="models/fine")], grpc.StatusCode.INVALID_ARGUMENT, "DUPLICATE_MODEL"),
        ([model(model="models/fine", shadow=True)], grpc.StatusCode.INVALID_ARGUMENT, "NO_MODEL"),
        ([model(model="models/fine", traffic_percent=30)], grpc.StatusCode.INVALID_ARGUMENT, "BAD_TRAFFIC"),
        ([], grpc.StatusCode.INVALID_ARGUMENT, "NO_MODEL"),
    ]
    for models, code, reason in cases:
        request = deployment_pb2.CreateDeploymentRequest(deployment=deployment_pb2.Deployment(models=models), deployment_id="case")
        with pytest.raises(grpc.RpcError) as caught:
            site.deployments.CreateDeployment(request, timeout=60)
        assert (caught.value.code(), details_of(caught.value)[0]) == (code, reason)
    checked = site.create("fine", validate_only=True)
    assert checked.done
    with pytest.raises(grpc.RpcError):
        site.get("fine")


def test_list_gives_pages_newest_first(site: Site) -> None:
    for old in site.deployments.ListDeployments(deployment_pb2.ListDeploymentsRequest(), timeout=60).deployments:
        site.delete(old.name.removeprefix("deployments/"))
    for number in range(5):
        publish_model(site.artifacts, f"page{number}")
        site.create(f"page{number}")
    found: list[str] = []
    token = ""
    while True:
        page = site.deployments.ListDeployments(deployment_pb2.ListDeploymentsRequest(page_size=2, page_token=token), timeout=60)
        found += [deployment.name for deployment in page.deployments]
        token = page.next_page_token
        if not token:
            break
    assert found == [f"deployments/page{number}" for number in (4, 3, 2, 1, 0)]
    for number in range(5):
        site.delete(f"page{number}")
