"""Nothing that identifies comes out of predictions and corrections for DICOM: marked files, whole and broken, are sent, and all that is said, traced and left is searched."""

from __future__ import annotations

import hashlib
import logging

import grpc
import prometheus_client
from canaries import MARK, canaries, forms, found_in, search
from gateway_support import Loop, publish_model, running_gateway, settings_for
from google.longrunning import operations_pb2, operations_pb2_grpc
from trace_collector import collecting
from waiting import patient, wait_for

from oteo_core import tracing
from oteo_core.artifacts import ArtifactStore, open_store
from oteo_core.datasets import DatasetReader
from oteo_core.errors import NotFound
from oteo_core.telemetry import configure_logging
from oteo_local.triton import start
from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, feedback_pb2, feedback_pb2_grpc, inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import annotation_pb2, image_pb2


def correct(channel: grpc.Channel, files: list[bytes], said: list[bytes]) -> set[str]:
    """Correct an answer for each file, with a marked group and with consent; note what is said, and give the samples that were kept."""
    stub = feedback_pb2_grpc.FeedbackServiceStub(channel)
    kept, codes = set(), []
    for number, data in enumerate(files):
        answer = inference_pb2.PredictResponse(deployment="deployments/colours", model="models/colours")
        answer.image.width, answer.image.height, answer.image.sha256 = 48, 48, hashlib.sha256(data).hexdigest()
        answer.classification.decision = "red"
        request = feedback_pb2.SubmitCorrectionRequest(
            parent="deployments/colours",
            answer=answer,
            annotations=[annotation_pb2.Annotation(class_name="green")],
            consent=True,
            image=image_pb2.ImageSource(content=data),
            group=f"{MARK} patient {number}",
        )
        try:
            made = stub.SubmitCorrection(request, timeout=120)
            codes.append(grpc.StatusCode.OK)
            kept.add(made.sample.rpartition("/")[2])
            said += [str(made).encode(), made.SerializeToString()]
        except grpc.RpcError as error:
            codes.append(error.code())
            said.append(repr((error.details(), error.trailing_metadata())).encode())
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}
    assert codes.count(grpc.StatusCode.INVALID_ARGUMENT) >= 6
    listed = stub.ListCorrections(feedback_pb2.ListCorrectionsRequest(parent="deployments/colours", page_size=1000), timeout=60)
    assert len(listed.corrections) == codes.count(grpc.StatusCode.OK)
    said += [str(listed).encode(), listed.SerializeToString()]
    return kept


def gathered(store: ArtifactStore) -> set[str]:
    """Give the samples of the dataset of corrections."""
    try:
        return {sample.id for sample in DatasetReader(store, "colours-corrections").samples()}
    except NotFound:
        return set()


def test_predictions_tell_log_and_keep_nothing_that_identifies(loop: Loop, tmp_path, capfd) -> None:
    made = canaries(4)
    wanted = forms(made.identities)
    files = [data for name, data in made.files.items() if name.endswith(".dcm")]
    said: list[bytes] = []
    home = tmp_path / "home"
    (tmp_path / "logs").mkdir()
    lines = logging.FileHandler(tmp_path / "logs" / "gateway.log")
    with collecting() as collector, start(tmp_path / "triton" / "model-repository", timeout=patient(30)) as server:
        repository = f"file://{tmp_path / 'triton' / 'model-repository'}"
        settings = settings_for(
            home, triton_urls=[server.address], model_repository=repository, log_level="debug", otlp_endpoint=collector.endpoint
        )
        publish_model(open_store(settings), "colours")
        configure_logging(settings, "gateway")
        tracing.configure_tracing(settings, "gateway")
        logging.getLogger().addHandler(lines)
        with running_gateway(loop, settings, log_dir=home / "logs") as running:
            deployment = deployment_pb2.Deployment(models=[deployment_pb2.DeployedModel(model="models/colours")])
            deployments = deployment_pb2_grpc.DeploymentServiceStub(running.channel)
            operation = deployments.CreateDeployment(deployment_pb2.CreateDeploymentRequest(deployment=deployment), timeout=60)
            operations = operations_pb2_grpc.OperationsStub(running.channel)
            wait_for(lambda: operations.GetOperation(operations_pb2.GetOperationRequest(name=operation.name), timeout=60).done, 40)
            stub = inference_pb2_grpc.InferenceServiceStub(running.channel)
            requests = [
                inference_pb2.PredictRequest(deployment="deployments/colours", image=image_pb2.ImageSource(content=data)) for data in files
            ]
            # An answer, or an error that says why: for each of them one of both.
            codes = []
            for request in requests:
                try:
                    response = stub.Predict(request, timeout=120)
                    codes.append(grpc.StatusCode.OK)
                    said += [str(response).encode(), response.SerializeToString()]
                except grpc.RpcError as error:
                    codes.append(error.code())
                    said.append(repr((error.details(), error.trailing_metadata())).encode())
            assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}
            assert codes.count(grpc.StatusCode.INVALID_ARGUMENT) >= 6
            streamed = [inference_pb2.PredictStreamRequest(key=str(number), request=request) for number, request in enumerate(requests)]
            answers = list(stub.PredictStream(iter(streamed), timeout=120))
            assert {answer.key for answer in answers} == {item.key for item in streamed}
            said += [part for answer in answers for part in (str(answer).encode(), answer.SerializeToString())]
            kept = correct(running.channel, files, said)
            wait_for(lambda: gathered(open_store(settings)) >= kept)
        # What is recorded is sent before this returns.
        tracing.end_tracing()
        traced = {span.name for span in collector.spans}
        assert {"oteo.gateway.v1.InferenceService/Predict", "decode", "oteo.gateway.v1.FeedbackService/SubmitCorrection"} <= traced
        said += collector.sent
    logging.getLogger().removeHandler(lines)
    lines.close()
    said.append(prometheus_client.generate_latest())
    told = capfd.readouterr()
    said += [told.out.encode(), told.err.encode()]
    assert {name for data in said for name in found_in(data, wanted)} == set()
    assert search([home, tmp_path / "logs", tmp_path / "triton"], wanted) == {}
    assert all(found_in(data, wanted) for data in files)
