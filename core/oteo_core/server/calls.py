"""What every call goes through: identity, request id, validation, deadline, errors, metrics, log.

One interceptor wraps handlers; what the steps do is in modules of their own. Handlers may be coroutines or plain functions, which run in a thread of
the pool. A call that the server's door does not let in, or that there is no room for, is answered before its first message is read, and with as little work
as a flood of such calls demands.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import structlog
from google.rpc import code_pb2, status_pb2

from oteo_core import telemetry, tracing
from oteo_core.access import Admission, Crowd, Door, Identity
from oteo_core.context import CallContext, enter
from oteo_core.errors import Cancelled, DeadlineExceeded, Internal, OteoError, ResourceExhausted, Unimplemented, from_exception
from oteo_core.refusals import RefusalLines
from oteo_core.security import OPEN_METHODS
from oteo_core.server.hooks import CallHook, Ending
from oteo_core.server.validation import validate

LOG = telemetry.logger("oteo.rpc")
CODES = {code.value[0]: code for code in grpc.StatusCode}
# Calls as long as a client likes to watch: a deadline there is the client's own affair.
_QUIET = OPEN_METHODS
_LONGEST_MESSAGE = 2000


def _to_thread(pool: ThreadPoolExecutor, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
    context = contextvars.copy_context()
    return asyncio.get_running_loop().run_in_executor(pool, lambda: context.run(function, *args))


class _ThreadIterator:
    """An asynchronous stream of requests as a plain iterator, for a handler in a thread."""

    def __init__(self, source: AsyncIterator[Any], call: CallContext) -> None:
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._call = call

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._call.check()
        future = asyncio.run_coroutine_threadsafe(anext(self._source, None), self._loop)
        item = future.result()
        if item is None:
            # A stream that broke off ends like one that is complete; the call's own state tells them apart.
            self._call.check()
            raise StopIteration
        return item


def _time_left(context: Any) -> float | None:
    """Give the seconds until a call's deadline: gRPC gives a number beyond all time where the caller set none."""
    left: float | None = context.time_remaining()
    return None if left is None or left > 10 * 365 * 86400 else left


def _request_id(metadata: dict[str, str]) -> str:
    return metadata.get("x-request-id", "")[:128] or uuid.uuid4().hex


def _texts(metadata: Any) -> dict[str, str]:
    return {key.lower(): value for key, value in metadata or () if isinstance(value, str)}


async def _checked(source: AsyncIterator[Any], admission: Admission) -> AsyncIterator[Any]:
    async for request in source:
        if admission.metered:
            await admission.took(request)
        validate(request)
        yield request


def _trailing(status: status_pb2.Status, call: CallContext) -> tuple[tuple[str, str | bytes], ...]:
    return (("grpc-status-details-bin", status.SerializeToString()), ("x-request-id", call.request_id))


def _name(code: Any) -> str:
    """Give a status code's name, however grpc.aio keeps it."""
    known = CODES.get(code, code)
    return known.name if isinstance(known, grpc.StatusCode) else "UNKNOWN"


_END = object()
_MAKERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wrap every handler of a server.

    Parameters
    ----------
    door
        Decides who is answered.
    pool
        Threads for handlers that are plain functions.
    hook
        Told of every call; None: nobody is.
    crowd
        Knows what there is no room for; None: there is always room.
    """

    def __init__(self, door: Door, pool: ThreadPoolExecutor, hook: CallHook | None = None, crowd: Crowd | None = None) -> None:
        self._door = door
        self._hook = hook
        self._pool = pool
        self._crowd = crowd
        self._lines = RefusalLines(LOG)

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Give the wrapped handler of a call; unknown methods are left to gRPC."""
        method: str = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        metadata = _texts(handler_call_details.invocation_metadata)
        if self._door.waits_for_certificate(method, metadata):
            return self._late(handler, method, metadata)
        admission = await self._admit(method, metadata, {})
        if admission.error is not None:
            return self._refusal(method, metadata, admission.identity, admission.error)
        if self._crowd is not None and self._crowd.waits(method):
            return self._late(handler, method, metadata, admission)
        return self._wrap(handler, method, admission)

    async def _admit(self, method: str, metadata: dict[str, str], certificate: Any) -> Admission:
        try:
            return await self._door.admit(method, metadata, certificate)
        except OteoError as refused:
            return Admission(error=refused)
        except Exception as unexpected:  # noqa: BLE001 - a door that fails stays shut
            return Admission(error=self._unexpected(unexpected, method))

    def _refusal(self, method: str, metadata: dict[str, str], identity: Identity, error: OteoError) -> Any:
        """Give a handler that reads nothing of a call and answers with an error."""

        async def answer(request: Any, context: Any) -> None:
            await self._refuse(method, metadata, context, identity, error)

        return grpc.stream_stream_rpc_method_handler(answer)

    async def _refuse(self, method: str, metadata: dict[str, str], context: Any, identity: Identity, error: OteoError) -> None:
        """Answer a call with an error, and nothing else: what `_run` does of a call that comes to no handler. Of a handler of streams."""
        began = time.perf_counter()
        call = CallContext(method=method, request_id=_request_id(metadata), caller=identity.name, identity=identity)
        enter(call)
        code = code_pb2.Code.Name(error.code)
        with tracing.answering(method, metadata) as entry:
            await self._told(Ending(self._hook, call, context), code, error)
            entry.ended(code, error.reason)
            seconds = time.perf_counter() - began
            telemetry.figures_of(method).ended(code, seconds)
            self._tell_refused(call, code, error, seconds, entry)
        status = error.to_status()
        # As `abort` does, without the exception that it raises: a third of a refusal's cost.
        context.set_code(CODES.get(status.code, grpc.StatusCode.UNKNOWN))
        context.set_details(status.message[:_LONGEST_MESSAGE])
        context.set_trailing_metadata(_trailing(status, call))

    def _tell_refused(self, call: CallContext, code: str, error: OteoError, seconds: float, entry: tracing.Entry) -> None:
        if self._lines.allow(call.method, code, error.reason):
            trace = {"trace_id": entry.here.trace_id} if entry.here is not None else {}
            LOG.info(
                "call",
                method=call.method,
                code=code,
                reason=error.reason,
                ms=round(seconds * 1000, 2),
                caller=call.caller,
                request_id=call.request_id,
                **trace,
            )

    def _late(self, handler: Any, method: str, metadata: dict[str, str], admitted: Admission | None = None) -> Any:
        """Give a handler that decides about a call before it reads the first message, if there is to be one.

        It asks for the caller's certificate, unless the caller is `admitted` already, and whether there is room.
        """

        async def answer(requests: Any, context: Any) -> None:
            admission = admitted or await self._admit(method, metadata, context.auth_context())
            error = admission.error or self._no_room(method, admission.identity.name, context)
            if error is not None:
                await self._refuse(method, metadata, context, admission.identity, error)
                return
            given = requests
            if not handler.request_streaming:
                given = await anext(requests, None)
                if given is None:
                    await self._refuse(method, metadata, context, admission.identity, Cancelled("the caller has gone"))
                    return
            wrapped = self._wrap(handler, method, admission)
            if wrapped.response_streaming:
                await (wrapped.stream_stream or wrapped.unary_stream)(given, context)
                return
            await context.write(await (wrapped.stream_unary or wrapped.unary_unary)(given, context))

        return grpc.stream_stream_rpc_method_handler(
            answer, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
        )

    def _no_room(self, method: str, caller: str, context: Any) -> OteoError | None:
        if self._crowd is None or not self._crowd.waits(method):
            return None
        try:
            self._crowd.check(method, caller, _time_left(context))
        except ResourceExhausted as full:
            return full
        return None

    def _wrap(self, handler: Any, method: str, admission: Admission) -> Any:
        function = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        streaming = handler.request_streaming

        async def unary(request: Any, context: Any) -> Any:
            asked = None if streaming else request
            return await self._answer(
                method, context, admission, lambda call: self._one(function, request, context, call, streaming, admission), asked
            )

        async def stream(request: Any, context: Any) -> None:
            async def run(call: CallContext) -> None:
                async for response in self._many(function, request, context, call, streaming, admission):
                    await context.write(response)

            await self._answer(method, context, admission, run, None if streaming else request)

        return _MAKERS[streaming, handler.response_streaming](
            stream if handler.response_streaming else unary,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    async def _given(self, request: Any, streaming: bool, admission: Admission) -> Any:
        """Give the request as handlers take it: checked and counted, a stream as its messages come."""
        if streaming:
            return _checked(request, admission)
        if admission.metered:
            await admission.took(request)
        validate(request)
        return request

    async def _one(self, function: Any, request: Any, context: Any, call: CallContext, streaming: bool, admission: Admission) -> Any:
        request = await self._given(request, streaming, admission)
        if inspect.iscoroutinefunction(function):
            return await function(request, context)
        result = await _to_thread(self._pool, function, _ThreadIterator(request, call) if streaming else request, context)
        return await result if inspect.isawaitable(result) else result

    async def _many(
        self, function: Any, request: Any, context: Any, call: CallContext, streaming: bool, admission: Admission
    ) -> AsyncIterator[Any]:
        request = await self._given(request, streaming, admission)
        if inspect.isasyncgenfunction(function):
            async for response in function(request, context):
                yield response
            return
        if inspect.iscoroutinefunction(function):
            # The handler writes through the context itself.
            await function(request, context)
            return
        responses = await _to_thread(self._pool, function, _ThreadIterator(request, call) if streaming else request, context)
        if hasattr(responses, "__aiter__"):
            async for response in responses:
                yield response
            return
        iterator = iter(responses)
        while (response := await _to_thread(self._pool, next, iterator, _END)) is not _END:
            yield response

    async def _answer(self, method: str, context: Any, admission: Admission, run: Callable[[CallContext], Any], request: Any = None) -> Any:
        """Answer a call in its place of a trace."""
        metadata = _texts(context.invocation_metadata())
        if method in _QUIET:
            return await self._run(method, metadata, context, admission, run, request, None)
        with tracing.answering(method, metadata) as entry:
            return await self._run(method, metadata, context, admission, run, request, entry)

    async def _run(
        self,
        method: str,
        metadata: dict[str, str],
        context: Any,
        admission: Admission,
        run: Callable[[CallContext], Any],
        request: Any,
        entry: tracing.Entry | None,
    ) -> Any:
        """Run a handler; log and count how it ended, and turn errors into status with details."""
        began = time.perf_counter()
        left = _time_left(context)
        call = CallContext(
            method=method,
            request_id=_request_id(metadata),
            deadline=None if left is None else time.monotonic() + left,
            caller=admission.identity.name,
            identity=admission.identity,
        )
        enter(call)
        structlog.contextvars.bind_contextvars(request_id=call.request_id)
        if entry is not None and entry.here is not None:
            structlog.contextvars.bind_contextvars(trace_id=entry.here.trace_id)
        # A handler that sets trailing metadata of its own, such as one that forwards, replaces it.
        context.set_trailing_metadata((("x-request-id", call.request_id),))
        error: OteoError | None = None
        code = "OK"
        ending = Ending(self._hook, call, context)
        figures = telemetry.figures_of(method)
        figures.in_flight.inc()
        begun = False
        try:
            admission.begin()
            begun = True
            async with asyncio.timeout(call.remaining()):
                await ending.begin(request)
                response = await run(call)
                await ending.settle("OK", "", response)
                return response
        except asyncio.CancelledError:
            call.cancelled.set()
            overdue = call.deadline is not None and time.monotonic() >= call.deadline
            error = DeadlineExceeded("the call's deadline has passed") if overdue else Cancelled("the caller has gone")
            raise
        except TimeoutError as timeout:
            overdue = call.deadline is not None and time.monotonic() >= call.deadline - 0.05
            call.cancelled.set()
            error = DeadlineExceeded("the call's deadline has passed") if overdue else self._unexpected(timeout, method)
        except OteoError as known:
            error = known
        except NotImplementedError:
            # What the generated servicer raises for a method that a service has not filled in.
            name = method.rsplit("/", 1)[-1]
            error = Unimplemented(f"{name} is in the contract and not yet in this release of Oteo", metadata={"method": method})
        except grpc.aio.AbortError:
            # A handler that passes on another server's status has set it.
            code = _name(context.code())
            raise
        except Exception as unexpected:  # noqa: BLE001 - whatever a handler raises must become a status
            error = self._unexpected(unexpected, method)
        finally:
            if begun:
                admission.end()
            seconds = time.perf_counter() - began
            if error is not None:
                code = code_pb2.Code.Name(error.code)
            figures.in_flight.dec()
            figures.ended(code, seconds)
            await self._told(ending, code, error)
            if entry is not None:
                entry.ended(code, error.reason if error else "")
            if entry is not None and (not isinstance(error, ResourceExhausted) or self._lines.allow(method, code, error.reason)):
                LOG.info(
                    "call",
                    method=method,
                    code=code,
                    reason=error.reason if error else None,
                    ms=round(seconds * 1000, 2),
                    caller=call.caller,
                )
        status = error.to_status()
        await context.abort(
            CODES.get(status.code, grpc.StatusCode.UNKNOWN),
            status.message[:_LONGEST_MESSAGE],
            _trailing(status, call),
        )
        return None

    @staticmethod
    async def _told(ending: Ending, code: str, error: OteoError | None) -> None:
        """Tell the hook of a call that ended without an answer; its error stays what it is."""
        try:
            waiting = ending.tell(code, error.reason if error else "")
            # Somebody who has gone is not kept waiting for.
            if waiting is not None and not isinstance(error, Cancelled):
                await waiting()
        except OteoError as failed:
            LOG.error("a call's end was not taken notice of", code=code, error=str(failed))  # noqa: TRY400 - the sentence says it

    @staticmethod
    def _unexpected(error: BaseException, method: str) -> OteoError:
        known = from_exception(error)
        if not isinstance(known, Internal):
            return known
        incident = uuid.uuid4().hex[:12]
        LOG.error("unexpected error", method=method, incident=incident, exc_info=error)
        return Internal(
            f"an unexpected {type(error).__name__}; the service's log has it as incident {incident}",
            reason="UNEXPECTED_ERROR",
            metadata={"incident": incident, **known.metadata},
        )
