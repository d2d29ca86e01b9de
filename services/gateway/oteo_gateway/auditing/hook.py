"""What is written of each call, and when its caller has to wait for it."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from google.protobuf.message import DecodeError
from google.rpc import code_pb2

from oteo_core.auditlog import AuditLog, Event
from oteo_core.auditlog.settings import AuditSettings
from oteo_core.context import CallContext, current
from oteo_core.errors import OteoError, Unavailable, from_status
from oteo_core.refusals import RefusalLimit
from oteo_core.server.hooks import Waiting
from oteo_gateway.auditing.methods import Kind, Method, Methods
from oteo_protos.gateway.v1 import inference_pb2

UNUSUAL = 0.01
"""Share of the training images that lie farther out, below which an image is noted as unusual."""

_REFUSALS = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
_FULL = "RESOURCE_EXHAUSTED"
_ITEM = "oteo.gateway.v1.InferenceService/PredictStream"
_OK = "OK"


class AuditHook:
    """The gateway's `CallHook`: everything that passes, or is refused at, the door.

    Parameters
    ----------
    log
        The log.
    settings
        What may go on without it.
    methods
        What is known of the methods.
    """

    def __init__(self, log: AuditLog, settings: AuditSettings, methods: Methods) -> None:
        self._log = log
        self._reads = settings.audit_reads
        self._answer_without = settings.audit_without == "answer"
        self._sync_predictions = settings.audit_sync_predictions
        self._methods = methods
        # Whoever floods the door with bad tokens must not fill the disk, and whoever asks for more than can be done must not either.
        self._limits = {"UNAUTHENTICATED": RefusalLimit(), _FULL: RefusalLimit()}
        self._refusals, self._overload = self._limits.values()

    async def before(self, call: CallContext, request: Any, context: Any) -> None:
        """Write what is about to be changed, and wait until that is on the disk: a change that no record speaks of cannot be.

        Raises
        ------
        Unavailable
            ``AUDIT_UNAVAILABLE``.
        """
        method = self._methods.get(call.method)
        if method.kind is Kind.PROBE:
            return
        call.notes["audit"] = resources = method.resources(request)
        if method.kind is Kind.CHANGE:
            await self._log.synced(self._log.append(self._event("attempt", method.action, call, context, resources)))

    def after(self, call: CallContext, code: str, reason: str, response: Any, context: Any) -> Waiting | None:
        """Write how it ended.

        Raises
        ------
        Unavailable
            ``AUDIT_UNAVAILABLE``, where the call must not be answered without a record.
        """
        method = self._methods.get(call.method)
        refused = code in _REFUSALS
        if method.kind is Kind.PROBE or (method.kind is Kind.READ and not self._reads and not refused):
            return None
        # Of a change that was begun both ends are written, whatever its answer.
        full = code == _FULL and (method.kind is Kind.PREDICT or "audit" not in call.notes)
        if (refused and not self._refusals.allows()) or (full and not self._overload.allows()):
            return None
        try:
            if refused or full:
                self.tell_counted()
            resource, used = call.notes.get("audit", ("", {}))
            used = {**used, **self._of_response(method, response)}
            seq = self._log.append(self._event("call", method.action, call, context, (resource, used), code, reason))
        except Unavailable:
            if method.kind is Kind.CHANGE or not self._answer_without:
                raise
            self._log.missed()
            return None
        if (method.kind is Kind.CHANGE and not full) or refused or (method.kind is Kind.PREDICT and self._sync_predictions):
            return lambda: self._log.synced(seq)
        return None

    async def item(self, data: bytes, response: inference_pb2.PredictStreamResponse) -> inference_pb2.PredictStreamResponse:
        """Write of one image of a PredictStream, before it is answered; give its answer, or the error that it gets where nothing can be written.

        Parameters
        ----------
        data
            The request's bytes.
        response
            The answer.
        """
        call = current()
        code, reason, resource = _OK, "", response.response.deployment
        used: dict[str, str | int] = {}
        if response.WhichOneof("outcome") == "error":
            error = from_status(response.error)
            code, reason = _code(error), error.reason
            try:
                resource = inference_pb2.PredictStreamRequest.FromString(data).request.deployment
            except DecodeError:
                resource = ""
            if code == _FULL and not self._overload.allows():
                return response
        else:
            used = self._of_prediction(response.response)
        try:
            event = Event("item", _ITEM, actor=call.caller, roles=_roles(call), resource=resource, code=code, reason=reason, used=used)
            seq = self._log.append(event)
            if self._sync_predictions:
                await self._log.synced(seq)
        except Unavailable as failed:
            if not self._answer_without:
                return inference_pb2.PredictStreamResponse(key=response.key, error=failed.to_status())
            self._log.missed()
        return response

    def tell_counted(self) -> None:
        """Write how many refusals were only counted, if any were."""
        for code, limit in self._limits.items():
            counted = limit.counted()
            if not counted:
                continue
            try:
                self._log.append(Event("log", "log.refusals", code=code, reason="MANY_REFUSALS", used={"count": counted}))
            except Unavailable:
                limit.count(counted)
                raise

    @staticmethod
    def _event(
        kind: str,
        action: str,
        call: CallContext,
        context: Any,
        resources: tuple[str, dict[str, str | int]],
        code: str = "",
        reason: str = "",
    ) -> Event:
        return Event(
            kind,
            action,
            actor=call.caller,
            roles=_roles(call),
            source=_address(context.peer()),
            resource=resources[0],
            code=code,
            reason=reason,
            request=call.request_id,
            used=resources[1],
        )

    def _of_response(self, method: Method, response: Any) -> dict[str, str | int]:
        if isinstance(response, inference_pb2.PredictResponse):
            return self._of_prediction(response)
        operation = method.operation(response)
        return {"operation": operation} if operation else {}

    def _of_prediction(self, response: inference_pb2.PredictResponse) -> dict[str, str | int]:
        """Give what a prediction was made with. What it says is not here: the log is about use, not about patients."""
        used: dict[str, str | int] = {"model": response.model, "model_version": response.model_version}
        if response.translator:
            used["translator"] = response.translator
        if response.image.sha256:
            used["image"] = self._log.pseudonym("image", response.image.sha256)
        if response.HasField("shift"):
            used["shift"] = "unusual" if response.shift.p_value < UNUSUAL else "usual"
        return used


def _code(error: OteoError) -> str:
    return str(code_pb2.Code.Name(error.code))


def _roles(call: CallContext) -> tuple[str, ...]:
    """Give the roles that the door found the caller to have."""
    return tuple(sorted(call.identity.roles))


def _address(peer: str) -> str:
    """Give the address of gRPC's ``ipv4:10.0.0.1:5000`` or ``ipv6:[::1]:5000``, percent-encoded or not; empty for others."""
    scheme, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if scheme in ("ipv4", "ipv6") else ""
