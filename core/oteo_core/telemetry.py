"""Logs and metrics: one JSON object a line, and Prometheus' text over HTTP."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Any

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from oteo_core.settings import CoreSettings

HANDLED = Counter("oteo_rpc_handled_total", "Calls that were answered, by method and canonical code.", ["method", "code"])
SECONDS = Histogram(
    "oteo_rpc_seconds",
    "Time from the call's arrival to its answer, seconds.",
    ["method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
# Each gauge says how those of several processes make one: see prometheus_client, "multiprocess mode".
IN_FLIGHT = Gauge("oteo_rpc_in_flight", "Calls that are being answered.", ["method"], multiprocess_mode="livesum")

_MOST_METHODS = 1000
_MADE_UP = "other"


class MethodFigures:
    """The metrics of one method's calls, found once: looking labels up costs more than counting.

    Parameters
    ----------
    method
        Full method.
    """

    __slots__ = ("_handled", "_method", "_seconds", "in_flight")

    def __init__(self, method: str) -> None:
        self._method = method
        self._handled: dict[str, Counter] = {}
        self._seconds = SECONDS.labels(method)
        self.in_flight = IN_FLIGHT.labels(method)
        """Calls that are being answered."""

    def ended(self, code: str, seconds: float) -> None:
        """Count a call that ended with a code after so many seconds."""
        handled = self._handled.get(code)
        if handled is None:
            handled = self._handled[code] = HANDLED.labels(self._method, code)
        handled.inc()
        self._seconds.observe(seconds)


_METHODS: dict[str, MethodFigures] = {}


def figures_of(method: str) -> MethodFigures:
    """Give the metrics of a method. Beyond a thousand of them a name is made up by somebody, and all such share one."""
    found = _METHODS.get(method)
    if found is None:
        name = method if len(_METHODS) < _MOST_METHODS else _MADE_UP
        found = _METHODS.get(name) or _METHODS.setdefault(name, MethodFigures(name))
    return found


AUDIT_RECORDS = Counter("oteo_audit_records_total", "Records of the audit log that were written, by kind.", ["kind"])
AUDIT_FAILURES = Counter("oteo_audit_failures_total", "Records of the audit log that could not be written.")

UNFINISHED = Gauge(
    "oteo_operations_unfinished",
    "Operations that are not done and this replica's to bring forward, by service and state.",
    ["service", "state"],
    multiprocess_mode="livesum",
)
SILENT = Gauge(
    "oteo_operations_silent_seconds",
    "Time since the last news of that operation which has been silent for longest, seconds; 0 where all are done.",
    ["service"],
    multiprocess_mode="livemax",
)


class _Lines:
    """Writes lines to standard error, whatever that is at the moment. A line that cannot be written is lost, and nothing else with it."""

    def __init__(self, *_: Any) -> None:
        """Take the logger's name, which the line has or has not."""

    def msg(self, line: str) -> None:
        """Write a line in one piece; the stream is line-buffered."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{line}\n")

    debug = info = warning = error = critical = exception = msg


def configure_logging(settings: CoreSettings, service: str) -> None:
    """Send the logs of structlog and of the standard library to standard error, in one form, with the service's name."""
    level = getattr(logging, settings.log_level.upper())

    def name_service(_logger: Any, _method: str, event: Any) -> Any:
        event["service"] = service
        return event

    # Not as a context variable: threads begin without any.
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        name_service,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = structlog.processors.JSONRenderer() if settings.log_format == "json" else structlog.dev.ConsoleRenderer(colors=False)
    # Ours are written without the standard library's records, which cost more than the lines: each call has one.
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Lines,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer], foreign_pre_chain=shared
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # Chatty libraries say nothing below a warning.
    for name in ("grpc", "urllib3", "asyncio", "botocore", "aiobotocore", "s3fs", "fsspec", "opentelemetry"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def logger(name: str) -> Any:
    """Give a structured logger."""
    return structlog.get_logger(name)


def serve_metrics(port: int, address: str = "127.0.0.1", registry: CollectorRegistry = REGISTRY) -> None:
    """Serve Prometheus' metrics over HTTP in a thread of its own; port 0: not at all."""
    if port:
        start_http_server(port, addr=address, registry=registry)
