"""What the examples in other languages are run against: a gateway's process behind TLS with a Triton and one deployment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from access_support import Authority, GatewayProcess, bearing, gateway_process
from gateway_support import TOKEN, deploy_model, publish_model, settings_for
from waiting import patient

from oteo_core.artifacts import open_store
from oteo_local.triton import start


@contextmanager
def hospital_gateway(folder: Path) -> Iterator[dict[str, str]]:
    """Serve the deployment ``colours`` behind TLS; gives the variables that a caller reads."""
    authority = Authority(folder / "ca")
    certificate, key = authority.issue("localhost")
    home = folder / "home"
    publish_model(open_store(settings_for(home)), "colours")
    credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes())
    with (
        start(home / "model-repository", timeout=patient(30)) as triton,
        gateway_process(home, credentials, tls_cert=str(certificate), tls_key=str(key), triton_urls=triton.address) as gateway,
        gateway.channel() as channel,
    ):
        deploy_model(channel, "colours", bearing(TOKEN))
        yield caller(gateway, authority)


def caller(gateway: GatewayProcess, authority: Authority) -> dict[str, str]:
    """Give a caller's environment."""
    given = {"OTEO_ADDRESS": f"localhost:{gateway.port}", "OTEO_TOKEN": TOKEN, "OTEO_CA_FILE": str(authority.ca)}
    return {**os.environ, **given}


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run an example to its end."""
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=patient(40), check=False)
