"""Secrets, the database, the object store and copies of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from chart_models.common import KeyName, Name, Resources, SecretKey, Values, Volume


class S3Secret(Values):
    """The Secret of the object store's credentials."""

    name: Name
    accessKey: KeyName
    secretKey: KeyName


class DatabaseSecret(Values):
    """The Secret of the databases' URLs."""

    name: Name
    url: KeyName
    mlflowUrl: KeyName
    password: KeyName


class RedisSecret(Values):
    """The Secret of Redis' password; no name: none is needed."""

    name: str = Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")
    key: KeyName


class TokensSecret(Values):
    """The Secret of the file of static tokens; no name: there are none."""

    name: str = Field(pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")
    key: KeyName


class Secrets(Values):
    """Secrets that are there before the chart is installed."""

    token: SecretKey
    audit: SecretKey
    deidentification: SecretKey
    ray: SecretKey
    database: DatabaseSecret
    s3: S3Secret
    redis: RedisSecret
    tokens: TokensSecret


class Migrations(Values):
    """The Job that raises the databases."""

    enabled: bool
    patienceSeconds: int = Field(ge=10, le=7200)
    resources: Resources


class Postgresql(Values):
    """The database."""

    mode: Literal["external", "bundled"]
    volume: Volume
    resources: Resources


class S3(Values):
    """The object store."""

    mode: Literal["external", "bundled"]
    endpoint: str = Field(pattern=r"^(https?://[^\s/]+)?$")
    region: str = Field(min_length=1)
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][-a-z0-9.]{1,61}[a-z0-9]$")]
    artifactPrefix: str = Field(pattern=r"^[-a-zA-Z0-9_]+$")
    repositoryPrefix: str = Field(pattern=r"^[-a-zA-Z0-9_]+$")
    credentials: Literal["secret", "workloadIdentity"]
    volume: Volume
    resources: Resources


class Backup(Values):
    """Copies of the databases."""

    enabled: bool
    schedule: str = Field(pattern=r"^(\S+\s+){4}\S+$")
    keep: int = Field(ge=1, le=1000)
    volume: Volume
    resources: Resources
