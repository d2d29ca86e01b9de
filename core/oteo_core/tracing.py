"""Traces across callers, gateway, services, jobs and Triton.

A call's place in a trace comes and goes as W3C trace context (``traceparent``), whether or not this process records anything, so that a trace does not break
at one that does not. Where the settings name an OTLP collector, spans of what is done here are sent to it. It is done by hand where calls are answered and
made: OpenTelemetry's own interceptors for grpc.aio cost more than a hop does. Without a collector nothing of OpenTelemetry is even imported.

What a span says is never of a patient: methods, codes, reasons, models and operations, no free text of a caller and no name of an image.

Source: W3C Trace Context, Recommendation of 23 November 2021; OpenTelemetry semantic conventions for RPC.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from oteo_core.settings import CoreSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanKind, Tracer

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
VARIABLE = "TRACEPARENT"
"""Environment variable that carries a trace to a job."""

_FORM = re.compile(r"^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?$")
_LONGEST = 128
_LONGEST_STATE = 512
_EXPORT_SECONDS = 5
_FLUSH_MILLISECONDS = 3000
_SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a trace.

    Attributes
    ----------
    traceparent, tracestate
        As W3C writes them.
    span
        The span of this process that it is; None where it came from outside.
    """

    traceparent: str
    tracestate: str = ""
    span: Span | None = None

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return self.traceparent[3:35]

    @property
    def sampled(self) -> bool:
        """Whether the trace is recorded."""
        return bool(int(self.traceparent[53:55], 16) & 1)

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Give the metadata that carries the place on."""
        own = (TRACEPARENT, self.traceparent)
        return (own, (TRACESTATE, self.tracestate)) if self.tracestate else (own,)


_PLACE: ContextVar[Place | None] = ContextVar("oteo_trace", default=None)


class _Recorder:
    """What records spans; none until it is configured."""

    provider: TracerProvider | None = None
    tracer: Tracer | None = None


def configure_tracing(settings: CoreSettings, service: str) -> None:
    """Record spans and send them where the settings say; without an address, do not."""
    if not settings.otlp_endpoint:
        return
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    exporter = OTLPSpanExporter(
        endpoint=settings.otlp_endpoint,
        insecure=not settings.otlp_endpoint.startswith("https://"),
        timeout=_EXPORT_SECONDS,
        channel_options=(("grpc.enable_http_proxy", "0"),),
    )
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.trace_ratio)),
        resource=Resource({"service.namespace": "oteo", "service.name": f"oteo-{service}", "service.instance.id": str(os.getpid())}),
        shutdown_on_exit=False,
    )
    # Beyond its bounded queue spans are lost, not memory.
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _Recorder.provider, _Recorder.tracer = provider, provider.get_tracer("oteo")


def end_tracing() -> None:
    """Send what is recorded, within seconds, and record no more."""
    provider, _Recorder.provider, _Recorder.tracer = _Recorder.provider, None, None
    if provider is not None:
        provider.force_flush(_FLUSH_MILLISECONDS)
        provider.shutdown()


def arrived(headers: Mapping[str, str]) -> Place | None:
    """Give the place in a trace that a call or a job came with; None where it has none, or a broken one."""
    text = headers.get(TRACEPARENT)
    if text is None or len(text) > _LONGEST or not _FORM.match(text):
        return None
    state = headers.get(TRACESTATE, "")
    # What a later version of the standard adds is not ours to pass on.
    return Place(f"00-{text[3:55]}", state if len(state) <= _LONGEST_STATE else "")


def place() -> Place | None:
    """Give the place in a trace of what is being done."""
    return _PLACE.get()


def headers() -> tuple[tuple[str, str], ...]:
    """Give the metadata that a call from here bears."""
    here = _PLACE.get()
    return () if here is None else here.headers()


def traceparent() -> str:
    """Give the present place as a row of the database keeps it; empty where there is none."""
    here = _PLACE.get()
    return "" if here is None else here.traceparent[:_LONGEST]


class Entry:
    """A piece of work in the trace, entered and left: ``with``."""

    __slots__ = ("_before", "_judged", "_name", "_role", "_values", "here")

    def __init__(self, name: str, role: str, here: Place | None, values: Mapping[str, str | int]) -> None:
        self._name = name
        self._role = role
        self._values = values
        self._judged = False
        self.here = here
        """The place of the work; before it is entered, that of whatever caused it."""

    def __enter__(self) -> Entry:
        # Where whoever began the trace does not record it, nobody after does: OpenTelemetry need not be asked.
        if _Recorder.tracer is not None and (self.here is None or self.here.sampled):
            self.here = _begin(_Recorder.tracer, self._name, self._role, self.here, self._values)
        self._before = _PLACE.set(self.here)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        _PLACE.reset(self._before)
        span = None if self.here is None else self.here.span
        if span is not None:
            if error is not None and not self._judged:
                _fail(span, type(error).__name__)
            span.end()

    def ended(self, code: str, reason: str) -> None:
        """Write down how a call ended: its code, and the reason where it failed."""
        self._judged = True
        span = None if self.here is None else self.here.span
        if span is None or not span.is_recording():
            return
        span.set_attribute("rpc.response.status_code", code)
        if code in _SERVER_FAULTS:
            _fail(span, reason or code)
        elif reason:
            span.set_attribute("oteo.reason", reason)


def answering(method: str, metadata: Mapping[str, str]) -> Entry:
    """Enter the answering of a call.

    Parameters
    ----------
    method
        Full method.
    metadata
        The call's, keys in lower case.
    """
    return Entry(method[1:], "SERVER", arrived(metadata), {"rpc.system.name": "grpc", "rpc.method": method[1:]})


def calling(method: str, values: Mapping[str, str | int]) -> Entry:
    """Enter a call to another server."""
    return Entry(method[1:], "CLIENT", _PLACE.get(), {"rpc.system.name": "grpc", "rpc.method": method[1:], **values})


def working(name: str, environment: Mapping[str, str], values: Mapping[str, str | int]) -> Entry:
    """Enter a job, whose environment says what began it."""
    return Entry(name, "CONSUMER", arrived({TRACEPARENT: environment.get(VARIABLE, "")}), values)


def past(name: str, seconds: float) -> None:
    """Record a piece of the present work that ends now and took so long."""
    here, tracer = _PLACE.get(), _Recorder.tracer
    if tracer is None or here is None or here.span is None or not here.sampled:
        return
    end = time.time_ns()
    from opentelemetry.trace import set_span_in_context

    tracer.start_span(name, set_span_in_context(here.span), start_time=end - int(seconds * 1e9)).end(end)


def job_variables(traceparent: str) -> dict[str, str]:
    """Give the environment variables that carry a trace to a job."""
    return {VARIABLE: traceparent} if traceparent else {}


def _begin(tracer: Tracer, name: str, role: str, cause: Place | None, values: Mapping[str, str | int]) -> Place:
    from opentelemetry.trace import SpanKind

    kind: SpanKind = SpanKind[role]
    span = tracer.start_span(name, _context(cause), kind=kind, attributes=dict(values))
    made = span.get_span_context()
    return Place(
        f"00-{made.trace_id:032x}-{made.span_id:016x}-{int(made.trace_flags):02x}", "" if cause is None else cause.tracestate, span
    )


def _context(cause: Place | None) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

    # An empty context: OpenTelemetry's own idea of the present span is not used.
    if cause is None:
        return Context()
    if cause.span is not None:
        return set_span_in_context(cause.span, Context())
    text = cause.traceparent
    remote = SpanContext(
        int(cause.trace_id, 16),
        int(text[36:52], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(text[53:55], 16) & TraceFlags.SAMPLED),
        trace_state=TraceState.from_header([cause.tracestate]) if cause.tracestate else None,
    )
    return set_span_in_context(NonRecordingSpan(remote), Context())


def _fail(span: Span, kind: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))
