"""``oteo deploy``."""

from __future__ import annotations

from typing import Annotated

import typer

from oteo.cli import show
from oteo.cli.options import AllowMissing, Limit, RequestId, Timeout, Wait
from oteo.cli.progress import finish
from oteo.cli.session import Session, command
from oteo.cli.words import short
from oteo.names import slug
from oteo_protos.gateway.v1 import deployment_pb2

app = typer.Typer(help="Deployments: models in service.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The deployment.")]
Model = Annotated[str, typer.Argument(help="The model.")]


def _done(session: Session, deployment: deployment_pb2.Deployment) -> None:
    session.show(deployment, show.deployment_facts(deployment))


@command(app, "create")
def create(
    session: Session,
    model: Model,
    name: Annotated[str, typer.Option("--name", help="The deployment's id; default: the model's.")] = "",
    request_id: RequestId = "",
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Put a model into service and wait until it answers."""
    deployment = slug(name) if name else short(model)
    handle = session.client.deployments.create(model, deployment_id=deployment, name=name, request_id=request_id or None)
    finish(session, handle, "deploy", wait, timeout, lambda response: _done(session, response))


@command(app, "update")
def update(session: Session, name: Name, model: Model, request_id: RequestId = "", wait: Wait = True, timeout: Timeout = None) -> None:
    """Let a deployment serve another model."""
    handle = session.client.deployments.update(name, model, request_id=request_id or None)
    finish(session, handle, "deploy", wait, timeout, lambda response: _done(session, response))


@command(app, "list")
def list_(session: Session, limit: Limit = None) -> None:
    """List deployments, newest first."""
    found = list(session.client.deployments.list(limit))
    session.show(found, show.deployments_table(found) if found else "no deployments yet; `oteo deploy create MODEL` makes one")


@command(app, "show")
def show_one(session: Session, name: Name) -> None:
    """Show one deployment."""
    deployment = session.client.deployments.get(name)
    session.show(deployment, show.deployment_facts(deployment))


@command(app, "delete")
def delete(session: Session, name: Name, allow_missing: AllowMissing = False) -> None:
    """Take a deployment out of service; its models stay."""
    session.client.deployments.delete(name, allow_missing=allow_missing)
    session.show({"deleted": name}, f"{name} is deleted")
