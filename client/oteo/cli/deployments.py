"""``oteo deploy``."""

from __future__ import annotations

from typing import Annotated

import typer

from oteo.cli import show_deployments as show
from oteo.cli.options import Adapt, AllowMissing, Limit, RequestId, Timeout, Wait
from oteo.cli.progress import finish
from oteo.cli.session import Session, command
from oteo.cli.words import short
from oteo.deployments import CHALLENGER, deployed
from oteo.names import slug
from oteo_protos.gateway.v1 import deployment_pb2

app = typer.Typer(help="Deployments: models in service.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The deployment.")]
_PART = "MODEL, MODEL=PERCENT, MODEL@ALIAS or MODEL=PERCENT@ALIAS; the shares of several must be 100 together"
Shadow = Annotated[
    list[str] | None,
    typer.Option(
        "--shadow", metavar="MODEL[@ALIAS]", help="A model that gets a copy of the traffic and is only compared; may be repeated."
    ),
]
Variant = Annotated[
    str,
    typer.Option(
        "--variant",
        metavar="bf16|int8|fp16",
        help="The form of the models that answers, where their training kept it; default: the models.",
    ),
]


def _done(session: Session, deployment: deployment_pb2.Deployment) -> None:
    session.show(deployment, *show.deployment(deployment))


@command(app, "create")
def create(
    session: Session,
    models: Annotated[list[str], typer.Argument(metavar="MODEL[=PERCENT][@ALIAS]...", help=f"The models: {_PART}.")],
    name: Annotated[str, typer.Option("--name", help="The deployment's id; default: the first model's.")] = "",
    shadow: Shadow = None,
    adapt: Adapt = "",
    translator: Annotated[str, typer.Option("--translator", help="The translator to use; default: the newest that was accepted.")] = "",
    variant: Variant = "",
    request_id: RequestId = "",
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Put one model into service, or several with shares of the traffic, and wait until every replica answers with each.

    `oteo deploy create cells` · `oteo deploy create cells=90@champion cells-2=10@challenger` · `oteo deploy create cells --shadow cells-2`
    """
    handle = session.client.deployments.create(
        models,
        deployment_id=slug(name) if name else short(deployed(models[0]).model),
        name=name,
        shadows=shadow or (),
        adapt=adapt,
        translator=translator,
        variant=variant,
        request_id=request_id or None,
    )
    finish(session, handle, "deploy", wait, timeout, lambda response: _done(session, response))


@command(app, "update")
def update(
    session: Session,
    name: Name,
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL[=PERCENT][@ALIAS]...]", help=f"All models that there are to be: {_PART}.")
    ] = None,
    shadow: Shadow = None,
    adapt: Adapt = "",
    translator: Annotated[
        str | None, typer.Option("--translator", help='The translator to use; "": the newest that was accepted for the model.')
    ] = None,
    variant: Variant = "",
    request_id: RequestId = "",
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Let a deployment be served by other models, with other shares, or adapt images otherwise. What answers now goes on until then."""
    for given, option in ((shadow, "--shadow"), (variant, "--variant")):
        if given and not models:
            raise typer.BadParameter("name the models that answer, too: an update says all that there are to be", param_hint=option)
    handle = session.client.deployments.update(
        name, models or (), shadows=shadow or (), adapt=adapt, translator=translator, variant=variant, request_id=request_id or None
    )
    finish(session, handle, "deploy", wait, timeout, lambda response: _done(session, response))


@command(app, "promote")
def promote(
    session: Session,
    name: Name,
    alias: Annotated[str, typer.Argument(help="The alias of the model to promote; a shadow's, too.")] = CHALLENGER,
    request_id: RequestId = "",
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Give one model of a deployment all the traffic and the alias "champion"; the others leave, other shadows stay. `rollback` undoes it."""
    handle = session.client.deployments.promote(name, alias, request_id=request_id or None)
    finish(session, handle, "deploy", wait, timeout, lambda response: _done(session, response))


@command(app, "rollback")
def rollback(
    session: Session,
    name: Name,
    to: Annotated[
        int, typer.Option("--to", min=0, metavar="GENERATION", help="The revision, as `oteo deploy show` lists; 0: the newest.")
    ] = 0,
    request_id: RequestId = "",
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Put the models, shares and translator of an earlier revision back; a second time undoes it."""
    handle = session.client.deployments.rollback(name, to, request_id=request_id or None)
    finish(session, handle, "deploy", wait, timeout, lambda response: _done(session, response))


@command(app, "list")
def list_(session: Session, limit: Limit = None) -> None:
    """List deployments, newest first."""
    found = list(session.client.deployments.list(limit))
    session.show(found, show.deployments_table(found) if found else "no deployments yet; `oteo deploy create MODEL` makes one")


@command(app, "show")
def show_one(session: Session, name: Name) -> None:
    """Show one deployment: its models, how its shadows compare, and what it asked for before."""
    _done(session, session.client.deployments.get(name))


@command(app, "delete")
def delete(session: Session, name: Name, allow_missing: AllowMissing = False) -> None:
    """Take a deployment out of service; its models stay."""
    session.client.deployments.delete(name, allow_missing=allow_missing)
    session.show({"deleted": name}, f"{name} is deleted")
