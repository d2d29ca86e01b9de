"""Calls to a gateway as any program would make them: generated stubs, a token, an operation awaited."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from waiting import patient, wait_for

# Registers the messages that operations carry.
from oteo_core.operations.model import unpack
from oteo_protos.augment.v1 import augment_pb2_grpc, dataset_pb2_grpc
from oteo_protos.automl.v1 import automl_pb2_grpc
from oteo_protos.gateway.v1 import deployment_pb2_grpc, inference_pb2_grpc, pipeline_pb2_grpc
from oteo_protos.translate.v1 import translate_pb2_grpc

_NO_LIMIT = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]


@dataclass(frozen=True)
class Answer:
    """How a call or its operation ended in an error: what AIP-193 asks for."""

    code: str
    reason: str
    fields: tuple[str, ...]
    message: str
    domain: str

    @classmethod
    def of(cls, status: status_pb2.Status) -> Answer:
        reason = domain = ""
        fields: list[str] = []
        for detail in status.details:
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                reason, domain = info.reason, info.domain
            elif detail.Unpack(bad):
                fields += [violation.field for violation in bad.field_violations]
        return cls(code_pb2.Code.Name(status.code), reason, tuple(fields), status.message, domain)


class _Bearer(
    grpc.UnaryUnaryClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    def __init__(self, token: str) -> None:
        self.token = token

    def _go(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details._replace(metadata=[*(details.metadata or ()), ("authorization", f"Bearer {self.token}")]), request)

    intercept_unary_unary = intercept_stream_unary = intercept_unary_stream = intercept_stream_stream = _go


class Calls:
    """The services behind one address."""

    def __init__(self, address: str, token: str) -> None:
        self.address, self.token = address, token
        channel = grpc.insecure_channel(address, _NO_LIMIT)
        self._channel = channel
        if token:
            channel = grpc.intercept_channel(channel, _Bearer(token))
        self.datasets = dataset_pb2_grpc.DatasetServiceStub(channel)
        self.augment = augment_pb2_grpc.AugmentServiceStub(channel)
        self.automl = automl_pb2_grpc.AutoMLServiceStub(channel)
        self.deployments = deployment_pb2_grpc.DeploymentServiceStub(channel)
        self.inference = inference_pb2_grpc.InferenceServiceStub(channel)
        self.pipelines = pipeline_pb2_grpc.PipelineServiceStub(channel)
        self.translate = translate_pb2_grpc.TranslateServiceStub(channel)
        self.operations = operations_pb2_grpc.OperationsStub(channel)

    def close(self) -> None:
        self._channel.close()

    def wait(self, operation: operations_pb2.Operation, seconds: float = 40.0) -> operations_pb2.Operation:
        """Wait for an operation's end, `seconds` as in `wait_for`."""
        found = operation

        def ended() -> bool:
            nonlocal found
            if not found.done:
                found = self.operations.GetOperation(operations_pb2.GetOperationRequest(name=operation.name), timeout=patient(5))
            return found.done

        wait_for(ended, seconds, said=lambda: f"{operation.name}: {unpack(found.metadata)}", pause=0.2)
        return found

    def result(self, operation: operations_pb2.Operation, seconds: float = 40.0) -> Any:
        """Wait for an operation and give its response; fail the test with its error."""
        done = self.wait(operation, seconds)
        assert not done.HasField("error"), Answer.of(done.error)
        return unpack(done.response)

    def refusal(self, call: Callable[[], Any], seconds: float = 40.0) -> Answer:
        """Make a call that is to end in an error, at once or in its operation; give the error."""
        try:
            result = call()
        except grpc.RpcError as error:
            status = rpc_status.from_call(error)
            if status is None:  # gRPC's own answer, without details
                status = status_pb2.Status(code=error.code().value[0], message=error.details())
            return Answer.of(status)
        assert isinstance(result, operations_pb2.Operation), f"no error, but {result}"
        done = self.wait(result, seconds)
        assert done.HasField("error"), f"no error, but {unpack(done.response)}"
        return Answer.of(done.error)
