"""An OTLP collector that keeps what it is sent: over gRPC, as our own parts send it, and over HTTP as JSON, as Triton does."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True)
class Span:
    """A span as the collector has it; identifiers in hexadecimal."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    failed: bool
    begin: int
    end: int


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps spans, and all bytes that came.

    Attributes
    ----------
    spans
        What was sent, in the order in which it came.
    sent
        Bytes of the messages.
    endpoint
        Address for OTLP over gRPC.
    url
        Address for OTLP over HTTP.
    """

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.sent: list[bytes] = []
        self.endpoint = self.url = ""
        self._lock = threading.Lock()

    def Export(self, request: Any, context: Any) -> Any:
        """Take what comes over gRPC."""
        with self._lock:
            self.sent += [request.SerializeToString(), str(request).encode()]
            for resource in request.resource_spans:
                service = next(one.value.string_value for one in resource.resource.attributes if one.key == "service.name")
                for scope in resource.scope_spans:
                    self.spans.extend(_span(service, span) for span in scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()

    def take_json(self, data: bytes) -> None:
        """Take what comes over HTTP."""
        with self._lock:
            self.sent.append(data)
            for resource in json.loads(data)["resourceSpans"]:
                service = _json_values(resource["resource"]["attributes"])["service.name"]
                for scope in resource["scopeSpans"]:
                    self.spans.extend(_json_span(service, span) for span in scope["spans"])

    def of(self, trace: str) -> list[Span]:
        """Give a trace's spans."""
        with self._lock:
            return [span for span in self.spans if span.trace == trace]


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector on loopback."""
    collector = Collector()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.take_json(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    receiver = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, receiver)
    collector.endpoint = f"http://127.0.0.1:{receiver.add_insecure_port('127.0.0.1:0')}"
    receiver.start()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        receiver.stop(0)
        server.shutdown()
        server.server_close()
        thread.join()


def triton_arguments(url: str, rate: int = 0) -> list[str]:
    """Give what has Triton send its part of traces to a collector: as the chart does."""
    settings = (
        *("mode=opentelemetry", "level=TIMESTAMPS", f"rate={rate}"),
        *(f"opentelemetry,url={url}", "opentelemetry,resource=service.namespace=oteo", "opentelemetry,resource=service.name=oteo-triton"),
    )
    return [f"--trace-config={setting}" for setting in settings]


def _span(service: str, span: Any) -> Span:
    attributes = {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}
    return Span(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        attributes,
        span.status.code == 2,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
    )


def _json_values(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values())) for one in attributes}


def _json_span(service: str, span: dict[str, Any]) -> Span:
    return Span(
        service,
        span["name"],
        span["traceId"],
        span["spanId"],
        span.get("parentSpanId", ""),
        _json_values(span.get("attributes", [])),
        span.get("status", {}).get("code") == 2,
        int(span["startTimeUnixNano"]),
        int(span["endTimeUnixNano"]),
    )
