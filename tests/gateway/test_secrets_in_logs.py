"""Secrets are in no log: of a gateway's process at its most talkative, and in no dump of settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from access_support import Authority, bearing, gateway_process, issuer_running, known, refusal, who
from gateway_support import TOKEN
from google.longrunning import operations_pb2, operations_pb2_grpc
from waiting import patient, wait_for

from oteo_core.tokens import TokenFile
from oteo_gateway.settings import GatewaySettings


def parts(token: str) -> list[str]:
    """Give what of a token would give it away: all of it, and each of its parts that is long enough to be told from words."""
    return [token, *(part for part in token.split(".") if len(part) > 12)]


@pytest.mark.parametrize("form", ["json", "console"])
def test_tokens_and_keys_are_in_no_log(tmp_path: Path, form: str) -> None:
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("localhost")
    home = tmp_path / "home"
    file = TokenFile(home / "tokens.json")
    with issuer_running() as issuer:
        settings = {
            name: json.dumps(value) if isinstance(value, dict) else ",".join(value) if isinstance(value, list) else value
            for name, value in issuer.settings().items()
        }
        with gateway_process(
            home,
            grpc.ssl_channel_credentials(authority.ca.read_bytes()),
            log_level="debug",
            log_format=form,
            tls_cert=str(certificate),
            tls_key=str(key),
            artifact_options='{"secret": "the-store-s-own-secret"}',
            **settings,
        ) as gateway:
            static, _ = file.create("dr-ito", ["clinician"])
            oidc = issuer.token()
            wrong = {
                "static": "oteo_" + "w" * 43,
                "expired": issuer.token(exp=1_600_000_000),
                "audience": issuer.token(aud="pacs"),
                "forged": issuer.signed_with_public_key(),
                "unsigned": issuer.unsigned(),
                "malformed": "eyJhbGciOiJSUzI1NiJ9.not-base64-at-all.signature-of-nothing",
            }
            with gateway.channel() as channel:
                wait_for(lambda: known(channel, static))
                for token in (static, oidc, TOKEN):
                    assert who(channel, token).name
                    with pytest.raises(grpc.RpcError):
                        operations_pb2_grpc.OperationsStub(channel).GetOperation(
                            operations_pb2.GetOperationRequest(name="operations/augment-x"), metadata=bearing(token), timeout=60
                        )
                for token in wrong.values():
                    assert refusal(channel, token)[0] == "UNAUTHENTICATED"
                issuer.answers["/realms/hospital/certs"] = (200, {}, b"secret-of-a-broken-issuer")
                refusal(channel, issuer.token(kid=None, header={"kid": "unknown"}, key=issuer.keys["first"]))
                # A file that is broken while the gateway runs is told of, and not what is in it.
                file.path.write_text('{"tokens": "plain-secret-in-a-broken-file"}')
                wait_for(lambda: not known(channel, wrong["static"]) and "the file of tokens changed and cannot be read" in gateway.log)
        log = gateway.log
    assert "TOKEN_EXPIRED" in log
    assert "token:dr-ito" in log  # who called is there
    secrets = [part for token in (static, oidc, TOKEN, *wrong.values()) for part in parts(token)]
    secrets += [line for line in key.read_text().splitlines() if not line.startswith("-")]
    secrets += ["the-store-s-own-secret", "secret-of-a-broken-issuer", "plain-secret-in-a-broken-file"]
    assert [secret for secret in secrets if secret in log] == []


SECRETS = {
    "OTEO_TOKEN": "secret-token",
    "OTEO_DATABASE_URL": "postgresql://oteo:secret-password@127.0.0.1:1/oteo",
    "OTEO_ARTIFACT_OPTIONS": '{"key": "secret-key", "secret": "secret-secret"}',
}


def test_settings_that_are_shown_hide_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    settings = GatewaySettings(home=tmp_path)
    for text in (repr(settings), str(settings), f"{settings!r}"):
        assert "secret-" not in text
        assert "oidc_issuer" in text
    with pytest.raises(ValueError) as caught:
        GatewaySettings(home=tmp_path, oidc_issuer="https://login.example", token="secret-token")
    assert "secret-" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [{"OTEO_THREADS": "many"}, {"OTEO_OIDC_ISSUER": "https://login.example"}, {"OTEO_ARTIFACT_OPTIONS": '{"secret": "secret-secret"'}],
)
def test_a_gateway_that_does_not_start_says_why_without_secrets(tmp_path: Path, wrong: dict[str, str]) -> None:
    environment = {**os.environ, "OTEO_HOME": str(tmp_path), **SECRETS, **wrong}
    done = subprocess.run(
        [sys.executable, "-m", "oteo_gateway"], env=environment, capture_output=True, text=True, timeout=patient(20), check=False
    )
    assert done.returncode != 0
    assert "secret-" not in done.stdout + done.stderr
    name = next(iter(wrong)).removeprefix("OTEO_").lower()
    assert name in done.stderr
