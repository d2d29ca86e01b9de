"""``oteo up``, ``down``, ``status`` and ``logs``: the stack on this machine."""

from __future__ import annotations

import threading
import time
from typing import Annotated, Any

import typer
from rich.markup import escape

from oteo.cli import codes
from oteo.cli.local_parts import local_parts
from oteo.cli.options import Timeout
from oteo.cli.session import Session, command, table
from oteo.cli.show import facts
from oteo.cli.words import duration, size
from oteo.connection import home
from oteo.errors import OteoApiError


def open_stack() -> Any:
    """Give this machine's stack.

    Raises
    ------
    OteoApiError
        FAILED_PRECONDITION, reason STACK_NOT_INSTALLED.
    """
    missing = "the stack of one machine (oteo-local) is not installed here; install it, or name a gateway elsewhere with OTEO_ADDRESS and OTEO_TOKEN"
    with local_parts(missing):
        from oteo_local.stack import Stack
    return Stack(home())


def _stack_error(error: Exception) -> OteoApiError | None:
    """Give the error of the stack in the command's words; None where it is not one of the stack's."""
    if not type(error).__module__.startswith("oteo_local"):
        return None
    reason = {"PortInUse": "PORT_IN_USE", "TritonEnvironmentError": "TRITON_MISSING"}.get(type(error).__name__, "STACK_FAILED")
    return OteoApiError("UNAVAILABLE", str(error), reason=reason)


def start(session: Session, timeout: float | None = None, wait: bool = True) -> dict[str, Any]:
    """Start what does not run, with progress on standard error, and give the endpoints."""
    stack = open_stack()
    lock = threading.Lock()
    began = time.monotonic()

    def tell(name: str, state: str, seconds: float) -> None:
        if state != "starting":
            with lock:
                session.note(f"  {name:<10} {state} after {duration(seconds)}" if seconds > 0.5 else f"  {name:<10} {state}")

    running = stack.is_up()
    if not running:
        session.note(f"starting the stack in {stack.home}")
    try:
        endpoints: dict[str, Any] = stack.up(wait=wait, timeout=timeout, progress=(lambda *_: None) if running else tell)
    except Exception as error:
        known = _stack_error(error)
        if known is None:
            raise
        raise known from None
    if not running:
        session.note(f"the stack is up after {duration(time.monotonic() - began)}" if wait else "the stack is starting")
    return endpoints


def _consoles(endpoints: dict[str, Any]) -> list[tuple[str, str]]:
    metrics = endpoints.get("metrics", {})
    return [
        ("gateway", str(endpoints.get("gateway", ""))),
        ("MLflow", str(endpoints.get("mlflow", ""))),
        ("Ray", str(endpoints.get("ray_dashboard", ""))),
        ("metrics", str(metrics.get("gateway", "")) if isinstance(metrics, dict) else ""),
        ("token", str(home() / "token")),
    ]


def up(
    session: Session,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until all of it is healthy.")] = True,
    timeout: Timeout = None,
) -> None:
    """Start the stack on this machine: Ray, MLflow, Triton and the services."""
    endpoints = start(session, timeout, wait)
    session.show(endpoints, facts(_consoles(endpoints)))


def down(session: Session) -> None:
    """Stop the stack; data stays."""
    stack = open_stack()
    try:
        stack.down()
    except Exception as error:
        known = _stack_error(error)
        if known is None:
            raise
        raise known from None
    session.show({"home": str(stack.home), "state": "down"}, f"the stack in {stack.home} is down; data stays")


def status(session: Session) -> None:
    """Show the stack's processes; exit code 7 where one is not healthy."""
    stack = open_stack()
    states = stack.status()
    made = table("process", "state", "healthy", "pid", "up for", "memory", "address", right=("pid", "up for", "memory"))
    for item in states:
        healthy = "[green]yes[/]" if item.healthy else "[red]no[/]"
        made.add_row(
            item.name,
            item.state,
            healthy,
            str(item.pid or ""),
            duration(item.uptime) if item.pid else "",
            size(item.memory) if item.memory else "",
            escape(item.address),
        )
    documents = [
        {name: getattr(item, name) for name in ("name", "state", "healthy", "pid", "uptime", "memory", "address")} for item in states
    ]
    value = {"home": str(stack.home), "processes": documents, "endpoints": stack.endpoints}
    if states:
        session.show(value, made, "", facts(_consoles(stack.endpoints)))
    else:
        session.show(value, f"no stack was started in {stack.home}; `oteo up` starts one")
    if not states or not all(item.healthy for item in states):
        raise typer.Exit(codes.UNAVAILABLE)


def logs(
    session: Session,
    name: Annotated[str, typer.Argument(help="gateway, augment, automl, translate, ray, mlflow, triton, supervisord.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Lines from the end.")] = 50,
) -> None:
    """Show a process's log."""
    stack = open_stack()
    try:
        found = stack.logs(name, follow=follow, lines=lines)
    except Exception as error:
        known = _stack_error(error)
        if known is None:
            raise
        raise OteoApiError("NOT_FOUND", known.message, reason="LOG_NOT_FOUND", field="name") from None
    if session.as_json:
        session.document({"name": name, "lines": list(found)})
        return
    for line in found:
        session.out.out(line, highlight=False)


def add(root: typer.Typer) -> None:
    """Add the commands."""
    command(root, "up")(up)
    command(root, "down")(down)
    command(root, "status")(status)
    command(root, "logs")(logs)
