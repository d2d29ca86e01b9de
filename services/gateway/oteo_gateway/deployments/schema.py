"""The gateway's tables, made once and raised version by version."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from oteo_core.operations.raising import raise_tables

VERSION = 2
"""Version of the tables that this code reads and writes. 1 had one model to a deployment, and wrote no version down."""

PART = "deployments"

metadata = sa.MetaData()
deployments = sa.Table(
    "deployments",
    metadata,
    sa.Column("id", sa.String(63), primary_key=True),
    sa.Column("uid", sa.String(64), nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("operation", sa.String(80), nullable=False, default=""),
    sa.Column("create_time", sa.Float, nullable=False, index=True),
    sa.Column("update_time", sa.Float, nullable=False),
    sa.Column("revisions", sa.Text, nullable=False, server_default="[]"),
)
# What a request_id did, so that the same one twice does it once; kept after the deployment is gone.
requests = sa.Table(
    "deployment_requests",
    metadata,
    sa.Column("method", sa.String(40), primary_key=True),
    sa.Column("request_id", sa.String(64), primary_key=True),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("deployment", sa.String(63), nullable=False),
    sa.Column("create_time", sa.Float, nullable=False),
)
leases = sa.Table(
    "gateway_leases",
    metadata,
    sa.Column("name", sa.String(40), primary_key=True),
    sa.Column("owner", sa.String(80), nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
)
# Sums over the images that a shadow was asked, by what served then (`Serving.mark`): every gateway adds its own.
shadows = sa.Table(
    "deployment_shadows",
    metadata,
    sa.Column("uid", sa.String(64), primary_key=True),
    sa.Column("mark", sa.String(16), primary_key=True),
    sa.Column("model", sa.String(63), primary_key=True),
    sa.Column("images", sa.BigInteger, nullable=False),
    sa.Column("missed", sa.BigInteger, nullable=False),
    sa.Column("agreed", sa.Float, nullable=False),
    sa.Column("agreed_squares", sa.Float, nullable=False),
    sa.Column("ratios", sa.Text, nullable=False),
)


def create(engine: sa.Engine) -> None:
    """Make or raise the tables; several processes may do so at once.

    Raises
    ------
    RuntimeError
        The tables are newer than this code.
    """
    raise_tables(engine, PART, VERSION, make=metadata.create_all, steps={2: _several_models}, unversioned=_unversioned)


def _unversioned(connection: sa.Connection) -> int | None:
    return 1 if sa.inspect(connection).has_table("deployments") else None


def _several_models(connection: sa.Connection) -> None:
    """From one model to several: shares, shadows and revisions; what serves and what answers by name."""
    connection.execute(sa.text("ALTER TABLE deployments ADD COLUMN revisions TEXT NOT NULL DEFAULT '[]'"))
    shadows.create(connection)
    rows = connection.execute(sa.select(deployments.c.id, deployments.c.spec, deployments.c.status)).all()
    for key, spec, status in rows:
        values = {"spec": json.dumps(_raised_spec(json.loads(spec))), "status": json.dumps(_raised_status(json.loads(status)))}
        connection.execute(sa.update(deployments).where(deployments.c.id == key).values(values))


def _raised_spec(spec: dict[str, Any]) -> dict[str, Any]:
    return {**spec, "models": [_part(part["model_id"], part["alias"]) for part in spec["models"]]}


def _raised_status(status: dict[str, Any]) -> dict[str, Any]:
    before = status["serving"]
    serving = None
    if before is not None:
        model = {"part": _part(before["model_id"], ""), "digest": before["digest"], "bridge": None}
        serving = {"models": [model], "generation": before["generation"]}
    served = [before["model_id"]] if before is not None else []
    replicas = [{**replica, "answers": served if replica.get("answers") else []} for replica in status["replicas"]]
    return {**status, "serving": serving, "replicas": replicas}


def _part(model_id: str, alias: str) -> dict[str, Any]:
    return {"model_id": model_id, "alias": alias, "percent": 100, "shadow": False}
