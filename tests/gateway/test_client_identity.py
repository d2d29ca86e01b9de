"""The `oteo` command and the client against a real gateway: TLS, certificates, tokens of all kinds."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from access_support import Authority, GatewayProcess, Issuer, gateway_process, issuer_running
from cryptography import x509
from gateway_support import TOKEN
from typer.testing import CliRunner
from waiting import wait_for

import oteo
from oteo.cli import app
from oteo_local import ports


class World:
    def __init__(self, gateway: GatewayProcess, issuer: Issuer, authority: Authority, mutual_port: int) -> None:
        self.gateway, self.issuer, self.authority, self.mutual_port = gateway, issuer, authority, mutual_port


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    authority = Authority(tmp_path_factory.mktemp("ca"))
    certificate, key = authority.issue("localhost")
    mutual_port = ports.free_port()
    with (
        issuer_running() as issuer,
        gateway_process(
            tmp_path_factory.mktemp("client"),
            grpc.ssl_channel_credentials(authority.ca.read_bytes()),
            tls_cert=str(certificate),
            tls_key=str(key),
            certificates_listen=f"127.0.0.1:{mutual_port}",
            certificates_ca=str(authority.ca),
            certificates='{"dns:pacs.hospital.example": ["clinician"]}',
            oidc_issuer=issuer.url,
            oidc_audience="oteo-gateway",
            oidc_roles_claim="realm_access.roles",
            oidc_roles='{"it": ["operator"]}',
        ) as gateway,
    ):
        yield World(gateway, issuer, authority, mutual_port)


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("TOKEN", "TOKEN_FILE", "TOKEN_COMMAND", "CA_FILE", "CERT_FILE", "KEY_FILE", "TLS"):
        # Set and taken away: what the command sets is undone when the test ends.
        monkeypatch.setenv(f"OTEO_{name}", "")
        monkeypatch.delenv(f"OTEO_{name}")
    monkeypatch.setenv("OTEO_HOME", str(world.gateway.home))
    monkeypatch.setenv("OTEO_ADDRESS", f"localhost:{world.gateway.port}")

    def run(*words: str) -> tuple[int, Any]:
        done = CliRunner().invoke(app, list(words))
        return done.exit_code, json.loads(done.stdout) if done.stdout.startswith(("{", "[")) else done.stdout

    return run


def test_a_token_is_made_used_and_revoked(world: World, run: Any, tmp_path: Path) -> None:
    code, made = run("tokens", "create", "dr-ito", "--role", "clinician", "--role", "viewer", "--expires", "30d", "--json")
    assert code == 0
    (tmp_path / "token").write_text(made["token"])
    words = ("--ca", str(world.authority.ca), "--token-file", str(tmp_path / "token"))
    wait_for(lambda: run(*words, "whoami", "--json")[0] == 0)
    code, found = run(*words, "whoami", "--json")
    assert (found["name"], found["roles"], found["kind"]) == ("token:dr-ito", ["clinician", "viewer"], "KIND_TOKEN")
    assert found["expire_time"]
    assert "token:dr-ito" in run(*words, "whoami")[1]
    code, refused = run(*words, "deploy", "delete", "x", "--json")
    assert (code, refused["error"]["reason"]) == (6, "ROLE_MISSING")
    assert run("tokens", "list", "--json")[1][0]["name"] == "dr-ito"
    assert made["token"] not in json.dumps(run("tokens", "list", "--json")[1])
    assert run("tokens", "revoke", "dr-ito")[0] == 0
    wait_for(lambda: run(*words, "whoami", "--json")[1].get("error", {}).get("reason") == "TOKEN_INVALID")
    assert run(*words, "whoami")[0] == 6


def test_a_program_signs_in_for_the_command(world: World, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jwt").write_text(world.issuer.token(realm_access={"roles": ["it"]}))
    monkeypatch.setenv("OTEO_TOKEN_COMMAND", f"cat {tmp_path / 'jwt'}")
    assert run("--ca", str(world.authority.ca), "whoami", "--json")[1]["name"] == "oidc:f3a1-7"
    assert run("--ca", str(world.authority.ca), "deploy", "list")[0] == 0
    monkeypatch.setenv("OTEO_TOKEN_COMMAND", f"{sys.executable} -c 'raise SystemExit(1)'")
    code, refused = run("--ca", str(world.authority.ca), "whoami", "--json")
    assert (code, refused["error"]["reason"]) == (6, "TOKEN_COMMAND_FAILED")


def test_a_certificate_in_the_place_of_a_token(world: World, run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate, key = world.authority.issue("p", sans=[x509.DNSName("pacs.hospital.example")])
    # Not this machine's own stack, whose token would be taken.
    monkeypatch.setenv("OTEO_HOME", str(tmp_path))
    words = ("--ca", str(world.authority.ca), "--cert", str(certificate), "--key", str(key))
    code, found = run(*words, "whoami", "--json", "--address", f"localhost:{world.mutual_port}")
    assert (code, found["name"], found["roles"]) == (0, "cert:dns:pacs.hospital.example", ["clinician"])


def test_without_the_authority_nobody_is_believed(world: World, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEO_TOKEN", TOKEN)
    assert run("whoami")[0] == 7
    assert run("--tls", "whoami")[0] == 7


def test_the_client_in_a_program(world: World) -> None:
    tokens = iter([world.issuer.token(), world.issuer.token(sub="another")])
    endpoint = oteo.Endpoint(f"localhost:{world.gateway.port}", lambda: next(tokens), world.authority.ca)
    with oteo.Client(endpoint=endpoint) as client:
        assert [client.who_am_i().name for _ in range(2)] == ["oidc:f3a1-7", "oidc:another"]
