"""``oteo whoami``."""

from __future__ import annotations

import typer

from oteo.cli import show
from oteo.cli.session import Session, command, table
from oteo.cli.words import moment
from oteo_protos.gateway.v1 import identity_pb2


def whoami(session: Session) -> None:
    """Show whom the gateway takes you for, your roles, and what you may ask."""
    found = session.client.who_am_i()
    kind = identity_pb2.WhoAmIResponse.Kind.Name(found.kind).removeprefix("KIND_").lower()
    rows = [
        ("name", found.name),
        ("told by", {"part": "the shared token", "token": "a static token", "oidc": "the issuer's token"}.get(kind, kind)),
        ("roles", ", ".join(found.roles) or ("all (the shared token has none)" if kind == "part" else "none")),
        ("until", moment(found.expire_time) if found.HasField("expire_time") else ""),
        ("methods", f"{len(found.methods)} (--json lists them)"),
    ]
    limits = table("limit", "most", "used", right=("most", "used"))
    for allowance in found.allowances:
        limits.add_row(
            allowance.name.replace("_", " "), str(allowance.limit or "no limit"), str(allowance.used) if allowance.HasField("used") else ""
        )
    session.show(found, show.facts(rows), "", limits)


def add(root: typer.Typer) -> None:
    """Add ``oteo whoami``."""
    command(root, "whoami")(whoami)
