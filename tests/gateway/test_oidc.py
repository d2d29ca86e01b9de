"""Tokens of a real OpenID Connect issuer: which are taken, which are not, and what happens when its keys turn or it is away."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from access_support import Issuer, issuer_running, packed, refusal, rsa_key, who
from gateway_support import Backend, Loop, details_of, running_gateway, settings_for
from joserfc.jwk import ECKey, RSAKey

from oteo_core.access import Identity, Role
from oteo_core.errors import OteoError
from oteo_gateway.access.issuer_keys import IssuerKeys
from oteo_gateway.access.oidc import OidcRules, OidcTokens, claim_at
from oteo_gateway.access.settings import AccessSettings
from oteo_protos.augment.v1 import dataset_pb2, dataset_pb2_grpc

ALGORITHMS = ["RS256", "PS256", "ES256", "ES384"]


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuer_running() as running:
        yield running


class Clock:
    """Time that a test moves: seconds that never fall, and seconds since 1970."""

    def __init__(self) -> None:
        self.moved = 0.0

    def monotonic(self) -> float:
        return 1000.0 + self.moved

    def time(self) -> float:
        return time.time() + self.moved


class Checker:
    """The issuer's tokens as the gateway checks them, without a gateway."""

    def __init__(self, loop: Loop, issuer: Issuer, clock: Clock | None = None, keys: dict[str, Any] | None = None, **rules: Any) -> None:
        self._loop = loop
        clock = clock or Clock()
        self.keys = IssuerKeys(issuer.url, clock=clock.monotonic, timeout=20.0, **(keys or {}))
        given = {
            "issuer": issuer.url,
            "audience": ["oteo-gateway"],
            "algorithms": ALGORITHMS,
            "roles_claim": "realm_access.roles",
            "roles": {"radiology": [Role.CLINICIAN], "it": [Role.OPERATOR]},
            **rules,
        }
        self.tokens = OidcTokens(OidcRules(**given), self.keys, now=clock.time)

    def find(self, token: str) -> Identity:
        return self._loop.run(self.tokens.find(token))

    def refused(self, token: str) -> tuple[str, dict[str, str]]:
        with pytest.raises(OteoError) as caught:
            self.find(token)
        # What is said of a token holds nothing of it.
        assert not any(part and part in caught.value.message for part in token.split("."))
        return caught.value.reason, caught.value.metadata


def test_a_good_token_gives_name_roles_and_end(loop: Loop, issuer: Issuer) -> None:
    checker = Checker(loop, issuer)
    found = checker.find(issuer.token(exp=2_000_000_000))
    assert (found.name, found.kind, found.roles) == ("oidc:f3a1-7", "oidc", {"clinician"})
    assert found.expires == 2_000_000_060
    assert issuer.requests == ["/realms/hospital/.well-known/openid-configuration", "/realms/hospital/certs"]


@pytest.mark.parametrize(("algorithm", "kind"), [("PS256", "RSA"), ("ES256", "P-256"), ("ES384", "P-384")])
def test_other_signatures_with_public_keys(loop: Loop, issuer: Issuer, algorithm: str, kind: str) -> None:
    issuer.add_key("other", kind)
    assert Checker(loop, issuer).find(issuer.token(kid="other", algorithm=algorithm)).roles == {"clinician"}


def test_a_token_that_names_no_key_is_tried_with_those_of_its_kind(loop: Loop, issuer: Issuer) -> None:
    issuer.add_key("second")
    issuer.add_key("curve", "P-256")
    assert Checker(loop, issuer).find(issuer.token(kid=None, key=issuer.keys["second"])).name == "oidc:f3a1-7"


def _changed_payload(issuer: Issuer) -> str:
    head, payload, signature = issuer.token().split(".")
    said = json.loads(base64.urlsafe_b64decode(payload + "=="))
    said["realm_access"]["roles"] = ["it"]
    return ".".join([head, packed(said), signature])


def _own_key_in_header(issuer: Issuer) -> str:
    own = rsa_key(7)
    return issuer.token(key=own, header={"jwk": own.as_dict(private=False)})


def _own_key_behind_address(issuer: Issuer) -> str:
    own = rsa_key(7, kid="first")
    issuer.answers["/evil"] = (200, {}, json.dumps({"keys": [own.as_dict(private=False)]}).encode())
    return issuer.token(key=own, header={"jku": f"http://127.0.0.1:{issuer.port}/evil"})


def _wrong_curve(issuer: Issuer) -> str:
    return issuer.token(algorithm="ES256", key=ECKey.generate_key("P-256"))


FORGED: dict[str, Callable[[Issuer], str]] = {
    "none": lambda issuer: issuer.unsigned(),
    "none with a signature": lambda issuer: issuer.unsigned() + issuer.token().split(".")[2],
    "public key as the secret": lambda issuer: issuer.signed_with_public_key(),
    "changed": _changed_payload,
    "key in the header": _own_key_in_header,
    "key behind an address in the header": _own_key_behind_address,
    "another's key under the same name": lambda issuer: issuer.token(key=rsa_key(7)),
    "signature cut": lambda issuer: issuer.token()[:-20],
    "for logging out": lambda issuer: issuer.token(header={"typ": "logout+jwt"}),
    "critical extension": lambda issuer: issuer.token(header={"crit": ["b64"], "b64": True}),
    "no JSON": lambda issuer: "eyJ.eyJ.eyJ",
    "empty parts": lambda issuer: "ey..",
    "very long": lambda issuer: issuer.token(padding="x" * 20_000),
    "nested deeply": lambda issuer: ".".join(["eyJhbGciOiJSUzI1NiJ9", packed(b"[" * 9000), "AAAA"]),
}


@pytest.mark.parametrize("how", FORGED)
def test_forged_tokens_are_refused(loop: Loop, issuer: Issuer, how: str) -> None:
    token = FORGED[how](issuer)
    assert Checker(loop, issuer).refused(token)[0] == "TOKEN_INVALID"
    assert "/evil" not in issuer.requests


def test_a_key_of_another_curve_signs_nothing(loop: Loop, issuer: Issuer) -> None:
    issuer.add_key("first", "P-384")
    assert Checker(loop, issuer).refused(_wrong_curve(issuer))[0] == "TOKEN_INVALID"


@pytest.mark.parametrize("kid", ["../../dev/null", "first' OR '1'='1", "http://evil.example/keys", "", "second", "f" * 300])
def test_made_up_names_of_keys_find_none_and_cost_the_issuer_one_fetch(loop: Loop, issuer: Issuer, kid: str) -> None:
    checker = Checker(loop, issuer)
    checker.find(issuer.token())
    for _ in range(5):
        assert checker.refused(issuer.token(kid=None, key=rsa_key(7), header={"kid": kid}))[0] == "TOKEN_KEY_UNKNOWN"
    assert issuer.requests.count("/realms/hospital/certs") == 1  # within the ten seconds of the first


CLAIMS: dict[str, tuple[dict[str, Any], str, str]] = {
    "another issuer": ({"iss": "https://evil.example"}, "TOKEN_CLAIM", "iss"),
    "an issuer that begins alike": ({"iss": "http://127.0.0.1/realms/hospital/"}, "TOKEN_CLAIM", "iss"),
    "another audience": ({"aud": "pacs"}, "TOKEN_CLAIM", "aud"),
    "audience no text": ({"aud": {"oteo-gateway": 1}}, "TOKEN_CLAIM", "aud"),
    "no audience": ({"without": "aud"}, "TOKEN_CLAIM", "aud"),
    "no end": ({"without": "exp"}, "TOKEN_CLAIM", "exp"),
    "end no number": ({"exp": "4000000000"}, "TOKEN_CLAIM", "exp"),
    "end no time": ({"exp": 10**400}, "TOKEN_CLAIM", "exp"),
    "ended": ({"exp": 1_600_000_000}, "TOKEN_EXPIRED", ""),
    "not yet": ({"nbf": 4_000_000_000}, "TOKEN_CLAIM", "nbf"),
    "made in the future": ({"iat": 4_000_000_000}, "TOKEN_CLAIM", "iat"),
    "no name": ({"without": "sub"}, "TOKEN_CLAIM", "sub"),
    "name no text": ({"sub": ["a"]}, "TOKEN_CLAIM", "sub"),
    "name too long": ({"sub": "x" * 300}, "TOKEN_CLAIM", "sub"),
}


@pytest.mark.parametrize("what", CLAIMS)
def test_claims_that_do_not_fit(loop: Loop, issuer: Issuer, what: str) -> None:
    claims, reason, claim = CLAIMS[what]
    found, metadata = Checker(loop, issuer).refused(issuer.token(**claims))
    assert (found, metadata.get("claim", "")) == (reason, claim)
    assert issuer.requests == []  # no key was needed to tell


def test_clocks_may_differ_by_the_skew_and_no_more(loop: Loop, issuer: Issuer) -> None:
    checker, now = Checker(loop, issuer, skew=30.0), int(time.time())
    for good in ({"exp": now - 20}, {"nbf": now + 20}, {"iat": now + 20}):
        assert checker.find(issuer.token(**good)).name == "oidc:f3a1-7"
    for bad, reason in (({"exp": now - 40}, "TOKEN_EXPIRED"), ({"nbf": now + 45}, "TOKEN_CLAIM"), ({"iat": now + 45}, "TOKEN_CLAIM")):
        assert checker.refused(issuer.token(**bad))[0] == reason


def test_authorized_parties(loop: Loop, issuer: Issuer) -> None:
    checker = Checker(loop, issuer, authorized_parties=["pacs"])
    assert checker.find(issuer.token(azp="pacs")).name == "oidc:f3a1-7"
    assert checker.refused(issuer.token(azp="shop")) == ("TOKEN_CLAIM", {"claim": "azp"})
    assert checker.refused(issuer.token())[0] == "TOKEN_CLAIM"


@pytest.mark.parametrize(
    ("rules", "claims", "roles"),
    [
        ({"roles": {}}, {"realm_access": {"roles": ["trainer", "admins", "viewer"]}}, {"trainer", "viewer"}),
        ({"roles_claim": "scope", "roles": {}}, {"scope": "openid operator"}, {"operator"}),
        ({"roles_claim": "/https:~1~1hospital.example~1groups/0"}, {"https://hospital.example/groups": ["it"]}, set()),
        ({"roles_claim": "/https:~1~1hospital.example~1groups"}, {"https://hospital.example/groups": ["it", 7]}, {"operator"}),
        ({}, {"realm_access": {"roles": ["unknown"]}}, set()),
        ({}, {"realm_access": "roles"}, set()),
        ({}, {"realm_access": {"roles": {"radiology": True}}}, set()),
    ],
)
def test_roles_come_from_the_claim_that_the_site_names(
    loop: Loop, issuer: Issuer, rules: dict[str, Any], claims: dict[str, Any], roles: set[str]
) -> None:
    assert Checker(loop, issuer, **rules).find(issuer.token(**claims)).roles == roles


def test_names_are_fit_for_metadata(loop: Loop, issuer: Issuer) -> None:
    found = Checker(loop, issuer, name_claim="name").find(issuer.token(name="Zoë \n Ångström %41"))
    assert found.name == "oidc:Zo%C3%AB %0A %C3%85ngstr%C3%B6m %2541"
    assert claim_at({"a": {"b~/c": 1}}, "/a/b~0~1c") == 1


def test_keys_that_turn_are_found_and_keys_that_are_taken_away_end_their_tokens(loop: Loop, issuer: Issuer) -> None:
    clock = Clock()
    checker = Checker(loop, issuer, clock)
    old = issuer.token()
    assert checker.find(old).name == "oidc:f3a1-7"
    del issuer.keys["first"]
    issuer.add_key("second")
    new = issuer.token(kid="second")
    # Within the least time between two fetches nobody looks.
    assert checker.refused(new)[0] == "TOKEN_KEY_UNKNOWN"
    clock.moved = 11.0
    assert checker.find(new).name == "oidc:f3a1-7"
    # The token was good and was kept; with the other keys it is checked again.
    assert checker.refused(old)[0] == "TOKEN_KEY_UNKNOWN"


def test_a_kept_token_ends_with_its_time(loop: Loop, issuer: Issuer) -> None:
    clock = Clock()
    checker, token = Checker(loop, issuer, clock), issuer.token(exp=int(time.time()) + 100)
    assert checker.find(token).name == "oidc:f3a1-7"
    clock.moved = 150.0
    assert checker.find(token).name == "oidc:f3a1-7"
    clock.moved = 165.0
    assert checker.refused(token)[0] == "TOKEN_EXPIRED"


def test_while_the_issuer_is_away_its_old_keys_serve_for_a_while(loop: Loop, issuer: Issuer) -> None:
    clock = Clock()
    checker = Checker(loop, issuer, clock, keys={"keep": 50.0, "stale": 500.0})
    assert checker.find(issuer.token()).name == "oidc:f3a1-7"
    issuer.down()
    try:
        clock.moved = 400.0
        now = int(clock.time())
        fresh = issuer.token(iat=now, exp=now + 300)
        assert checker.find(fresh).name == "oidc:f3a1-7"
        # A key that it may have made meanwhile: nobody can tell.
        clock.moved = 420.0
        assert checker.refused(issuer.token(kid=None, key=rsa_key(7), header={"kid": "new"}, iat=now, exp=now + 300))[0] == (
            "ISSUER_UNAVAILABLE"
        )
        clock.moved = 600.0
        assert checker.refused(fresh)[0] == "ISSUER_UNAVAILABLE"
    finally:
        issuer.up()
    clock.moved = 620.0
    assert checker.find(fresh).name == "oidc:f3a1-7"


BAD_ANSWERS: dict[str, tuple[str, tuple[int, dict[str, str], bytes]]] = {
    "another's discovery": (
        ".well-known/openid-configuration",
        (200, {}, b'{"issuer": "https://evil.example", "jwks_uri": "https://evil.example/k"}'),
    ),
    "keys without https": (".well-known/openid-configuration", (200, {}, b'{"issuer": "ISSUER", "jwks_uri": "http://evil.example/keys"}')),
    "no JSON": ("certs", (200, {}, b"<html>")),
    "no keys": ("certs", (200, {}, b'{"keys": []}')),
    "a symmetric key": ("certs", (200, {}, b'{"keys": [{"kty": "oct", "k": "AAAA", "kid": "first"}]}')),
    "too large": ("certs", (200, {}, b'{"keys": [' + b" " * 600_000 + b"]}")),
    "elsewhere": ("certs", (302, {"Location": "http://evil.example/keys"}, b"")),
    "an error": ("certs", (503, {}, b"")),
}


@pytest.mark.parametrize("how", BAD_ANSWERS)
def test_an_issuer_that_answers_nonsense_is_away(loop: Loop, issuer: Issuer, how: str) -> None:
    path, (status, headers, body) = BAD_ANSWERS[how]
    issuer.answers[f"/realms/hospital/{path}"] = (status, headers, body.replace(b"ISSUER", issuer.url.encode()))
    assert Checker(loop, issuer).refused(issuer.token())[0] == "ISSUER_UNAVAILABLE"


def test_small_and_private_and_encryption_keys_are_left_out(loop: Loop, issuer: Issuer) -> None:
    encryption = rsa_key(7, kid="enc", use="enc")
    published_privately = rsa_key(8, kid="private")
    issuer.jwks_extra = [encryption.as_dict(private=False), published_privately.as_dict(private=True), {"kty": "RSA"}, {"kty": 7}]
    checker = Checker(loop, issuer)
    assert checker.find(issuer.token()).name == "oidc:f3a1-7"
    for key in (encryption, published_privately):
        assert checker.refused(
            issuer.token(kid=None, header={"kid": key.kid}, key=RSAKey.import_key({**key.as_dict(private=True), "use": "sig"}))
        )[0] == ("TOKEN_KEY_UNKNOWN")


@pytest.mark.parametrize(
    "values",
    [
        {"oidc_issuer": "http://login.hospital.example/realms/x", "oidc_audience": ["a"]},
        {"oidc_issuer": "https://login.hospital.example/realms/x"},
        {"oidc_issuer": "https://login.example", "oidc_audience": ["a"], "oidc_algorithms": ["HS256"]},
        {"oidc_issuer": "https://login.example", "oidc_audience": ["a"], "oidc_algorithms": ["none"]},
        {"oidc_issuer": "https://login.example", "oidc_audience": ["a"], "oidc_jwks_url": "ftp://login.example/keys"},
        {"oidc_roles": {"radiology": ["surgeon"]}},
        {"certificates": {"pacs.example": ["viewer"]}},
        {"certificates_listen": "0.0.0.0:7443"},
        {"callers_listen": "0.0.0.0:7443"},
        {"certificates_listen": "0.0.0.0:7443", "callers_cert": "a.pem", "callers_key": "b.pem"},
        {"limits": {"viewer": {"requests": 7}}},
    ],
)
def test_settings_that_would_let_too_many_in_are_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        AccessSettings(home=tmp_path, **values)


def test_settings_as_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEO_OIDC_ISSUER", "https://login.example")
    monkeypatch.setenv("OTEO_OIDC_AUDIENCE", "oteo, other")
    monkeypatch.setenv("OTEO_OIDC_ALGORITHMS", '["ES256"]')
    monkeypatch.setenv("OTEO_OIDC_ROLES", '{"radiology": ["clinician", "viewer"]}')
    monkeypatch.setenv("OTEO_LIMITS", '{"viewer": {"requests_per_minute": 7}}')
    found = AccessSettings(home=tmp_path)
    assert (found.oidc_audience, found.oidc_algorithms) == (["oteo", "other"], ["ES256"])
    assert found.oidc_roles == {"radiology": [Role.CLINICIAN, Role.VIEWER]}
    assert (found.limits[Role.VIEWER].requests_per_minute, found.limits[Role.CLINICIAN].requests_per_minute) == (7, 1200)


def test_through_the_gateway_the_service_behind_learns_who_calls(loop: Loop, issuer: Issuer, tmp_path: Path) -> None:
    backend = Backend()
    loop.run(backend.start())

    async def get(request: dataset_pb2.GetDatasetRequest, context: Any) -> dataset_pb2.Dataset:
        return dataset_pb2.Dataset(name=request.name)

    backend.methods["/oteo.augment.v1.DatasetService/GetDataset"] = grpc.unary_unary_rpc_method_handler(
        get, dataset_pb2.GetDatasetRequest.FromString, dataset_pb2.Dataset.SerializeToString
    )
    settings = settings_for(tmp_path / "home", augment_address=f"127.0.0.1:{backend.port}", **issuer.settings())
    with running_gateway(loop, settings, log_dir=tmp_path / "logs") as running, grpc.insecure_channel(running.address) as channel:
        token = issuer.token()
        found = who(channel, token)
        assert (found.name, list(found.roles), found.kind) == ("oidc:f3a1-7", ["clinician"], found.KIND_OIDC)
        assert abs(found.expire_time.seconds - time.time() - 360) < 30
        dataset_pb2_grpc.DatasetServiceStub(channel).GetDataset(
            dataset_pb2.GetDatasetRequest(name="datasets/blood"),
            metadata=(("authorization", f"Bearer {token}"), ("x-oteo-caller", "local"), ("x-oteo-more", "1"), ("x-custom", "kept")),
            timeout=60,
        )
        assert backend.metadata["x-oteo-caller"] == "oidc:f3a1-7"
        assert backend.metadata["x-custom"] == "kept"
        assert "x-oteo-more" not in backend.metadata
        # The caller's own token goes no further than this.
        assert token not in str(backend.metadata)
        assert refusal(channel, issuer.token(aud="pacs")) == ("UNAUTHENTICATED", "TOKEN_CLAIM")
        # Many groups make a long token; what is longer than any is ended by gRPC itself.
        assert who(channel, issuer.token(groups="g" * 9_000)).name == "oidc:f3a1-7"
        assert refusal(channel, issuer.token(groups="g" * 30_000)) == ("RESOURCE_EXHAUSTED", "")
        assert refusal(channel) == ("UNAUTHENTICATED", "TOKEN_MISSING")
    loop.run(backend.stop())


def test_a_gateway_that_never_reached_the_issuer_says_that_it_is_away(loop: Loop, issuer: Issuer, tmp_path: Path) -> None:
    token = issuer.token()
    issuer.down()
    try:
        settings = settings_for(tmp_path / "home", **issuer.settings())
        with running_gateway(loop, settings, log_dir=tmp_path / "logs") as running, grpc.insecure_channel(running.address) as channel:
            with pytest.raises(grpc.RpcError) as caught:
                who(channel, token)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            reason, _, delay = details_of(caught.value)
            assert (reason, delay) == ("ISSUER_UNAVAILABLE", 10.0)
            # The other ways in are not the issuer's affair.
            assert who(running.channel).name == "local"
    finally:
        issuer.up()
