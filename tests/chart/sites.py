"""What stands in for a cluster around rendered parts: an object store, what the chart's Secrets hold, and sites of rendered objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from charting import Object
from engines import Postgres
from moto.server import ThreadedMotoServer
from running import Site

from oteo_core.artifacts import ArtifactStore

TOKEN = "a-token-of-the-charts-tests"
METADATA = (("authorization", f"Bearer {TOKEN}"),)
BUCKET = "oteo"
_KEY, _REGION = "test", "us-east-1"
STORE_SECRETS = {"oteo-s3/accessKey": _KEY, "oteo-s3/secretKey": _KEY}


def s3_client(port: int) -> Any:
    """Give a client of the object store."""
    import boto3

    return boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{port}", aws_access_key_id=_KEY, aws_secret_access_key=_KEY, region_name=_REGION
    )


@contextmanager
def object_store() -> Iterator[int]:
    """Run an object store with the bucket; gives its port."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    s3_client(port).create_bucket(Bucket=BUCKET)
    try:
        yield int(port)
    finally:
        server.stop()


def artifacts_of(port: int) -> ArtifactStore:
    """Give the artifacts as the services see them."""
    options = {"key": _KEY, "secret": _KEY, "endpoint_url": f"http://127.0.0.1:{port}", "client_kwargs": {"region_name": _REGION}}
    return ArtifactStore(f"s3://{BUCKET}/artifacts", **options)


def external_store(port: int) -> list[str]:
    """Give the chart's values for that store, as who has one of their own sets them."""
    return [f's3.endpoint="http://127.0.0.1:{port}"', 's3.mode="external"', 'networkPolicies.s3=[{"cidr": "127.0.0.1/32", "port": 1}]']


def write_secrets(site: Site) -> None:
    """Put the files of the Secrets where the pods' volumes have them."""
    for path, text in (
        ("/etc/oteo/token/token", f"{TOKEN}\n"),
        ("/etc/oteo/audit/key", "ab" * 32),
        ("/etc/oteo/deidentification/key", "cd" * 32),
        ("/etc/oteo/ray/auth_token", "ray-token"),
    ):
        site.write(path, text)


@pytest.fixture(scope="module")
def store() -> Iterator[int]:
    """Give the port of an object store with the bucket."""
    with object_store() as port:
        yield port


MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(tmp_path: Path, postgres: Postgres, store: int) -> MakeSite:
    """Make a site of rendered objects."""

    def make(objects: tuple[Object, ...], kind: type[Site] = Site) -> Site:
        # As empty as a new bucket.
        client = s3_client(store)
        for entry in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            client.delete_object(Bucket=BUCKET, Key=entry["Key"])
        secrets = {
            "oteo-database/url": postgres.new_url(),
            "oteo-database/mlflowUrl": postgres.new_url().replace("postgresql://", "postgresql+psycopg://"),
            **STORE_SECRETS,
        }
        site = kind(tmp_path, objects, secrets, {("oteo-s3", 7070): store})
        write_secrets(site)
        return site

    return make
