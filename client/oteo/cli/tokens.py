"""``oteo tokens``: static tokens, for small sites and for systems that cannot sign in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from google.rpc import code_pb2

from oteo.cli.local_parts import local_parts
from oteo.cli.session import Session, command, table
from oteo.cli.words import parse_duration
from oteo.connection import home
from oteo.errors import OteoApiError

T = TypeVar("T")

app = typer.Typer(help="Static tokens of the gateway: made, listed, revoked.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Whose: lower-case letters, digits and . _ @ -")]
File = Annotated[
    str,
    typer.Option("--file", metavar="FILE", help="File of tokens; default: tokens.json of this machine's stack, which its gateway follows."),
]


def _open(path: str) -> Any:
    """Give the file of tokens."""
    with local_parts(
        "oteo-local, which writes files of tokens, is not installed here; install it, or make the token where the gateway runs"
    ):
        from oteo_local.static_tokens import open_tokens
    return open_tokens(home(), Path(path) if path else None)


def _done(work: Callable[[], T]) -> T:
    """Do something with the file, with its errors in the command's words."""
    from oteo_local.static_tokens import OteoError

    try:
        return work()
    except OteoError as error:
        raise OteoApiError(code_pb2.Code.Name(error.code), error.message, reason=error.reason, field=error.field or "") from None


@command(app, "create")
def create(
    session: Session,
    name: Name,
    role: Annotated[list[str], typer.Option("--role", help="viewer, clinician, trainer, operator or admin; several times for several.")],
    expires: Annotated[
        float | None,
        typer.Option("--expires", parser=parse_duration, metavar="TIME", help="How long it is valid; default: until it is revoked."),
    ] = None,
    file: File = "",
) -> None:
    """Make a token and show it, this once. Only its hash is kept; the gateway takes it within a second or two."""
    tokens = _open(file)
    token, record = _done(lambda: tokens.create(name, role, timedelta(seconds=expires) if expires is not None else None))
    shown = {"name": record.name, "roles": list(record.roles), "expires": _time(record.expires), "token": token, "file": str(tokens.path)}
    session.note(f"{record.name} ({', '.join(record.roles)}), written to {tokens.path}; the token is shown only now:")
    session.show(shown, token)


@command(app, "list")
def list_(session: Session, file: File = "") -> None:
    """List tokens, without the tokens themselves."""
    tokens = _open(file)
    found = _done(tokens.read)
    now = datetime.now().timestamp()
    rows = table("name", "roles", "made", "until")
    for record in found:
        until = _time(record.expires) or "revoked"
        rows.add_row(record.name, ", ".join(record.roles), _time(record.created), until if record.valid(now) else f"{until} (over)")
    shown = [{"name": r.name, "roles": list(r.roles), "created": _time(r.created), "expires": _time(r.expires)} for r in found]
    session.show(shown, rows if found else f"no tokens in {tokens.path}")


@command(app, "revoke")
def revoke(session: Session, name: Name, file: File = "") -> None:
    """Take a token out; the gateway refuses it within a second or two."""
    tokens = _open(file)
    _done(lambda: tokens.revoke(name))
    session.show({"revoked": name}, f"{name} is revoked")


def _time(value: datetime | None) -> str:
    return value.astimezone().isoformat(sep=" ", timespec="minutes") if value is not None else ""
