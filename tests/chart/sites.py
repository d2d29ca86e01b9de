"""Fixtures of what stands in for a cluster: an object store, and sites of rendered objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from charting import Object
from engines import Postgres
from moto.server import ThreadedMotoServer
from running import Site

TOKEN = "a-token-of-the-charts-tests"
METADATA = (("authorization", f"Bearer {TOKEN}"),)


def s3_client(port: int) -> Any:
    """Give a client of the object store."""
    import boto3

    return boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{port}", aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1"
    )


@pytest.fixture(scope="module")
def store() -> Iterator[int]:
    """Give the port of an object store with the bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    s3_client(port).create_bucket(Bucket="oteo")
    try:
        yield port
    finally:
        server.stop()


MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(tmp_path: Path, postgres: Postgres, store: int) -> MakeSite:
    """Make a site of rendered objects."""

    def make(objects: tuple[Object, ...], kind: type[Site] = Site) -> Site:
        # As empty as a new bucket.
        client = s3_client(store)
        for entry in client.list_objects_v2(Bucket="oteo").get("Contents", []):
            client.delete_object(Bucket="oteo", Key=entry["Key"])
        url = postgres.new_url()
        secrets = {
            "oteo-database/url": url,
            "oteo-database/mlflowUrl": postgres.new_url().replace("postgresql://", "postgresql+psycopg://"),
            "oteo-s3/accessKey": "test",
            "oteo-s3/secretKey": "test",
        }
        site = kind(tmp_path, objects, secrets, {("oteo-s3", 7070): store})
        site.write("/etc/oteo/token/token", f"{TOKEN}\n")
        site.write("/etc/oteo/audit/key", "ab" * 32)
        site.write("/etc/oteo/deidentification/key", "cd" * 32)
        site.write("/etc/oteo/ray/auth_token", "ray-token")
        return site

    return make
