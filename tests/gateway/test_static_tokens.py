"""Static tokens: the file, and a gateway that follows it."""

from __future__ import annotations

import json
import stat
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from access_support import known, refusal, who
from gateway_support import Loop, RunningGateway, running_gateway, settings_for
from waiting import wait_for

from oteo_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from oteo_core.tokens import PREFIX, TokenFile, digest_of
from oteo_gateway.access.static_tokens import StaticTokens


def test_a_token_is_shown_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "new" / "tokens.json")
    assert file.read() == []
    token, record = file.create("dr-ito", ["clinician", "viewer", "clinician"], timedelta(days=30))
    assert token.startswith(PREFIX)
    assert len(token) > 40
    assert token.removeprefix(PREFIX) not in file.path.read_text()
    assert file.read() == [record]
    assert (record.name, record.roles, record.sha256) == ("dr-ito", ("clinician", "viewer"), digest_of(token))
    assert record.expires is not None
    assert record.expires - record.created == timedelta(days=30)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    file.path.chmod(0o644)
    file.create("another", ["viewer"])
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o644


def test_names_are_unique_until_they_end(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    file.create("a", ["viewer"])
    with pytest.raises(AlreadyExists):
        file.create("a", ["viewer"])
    file.revoke("a")
    with pytest.raises(NotFound):
        file.revoke("a")
    file.create("a", ["viewer"], timedelta(seconds=-1))
    file.create("a", ["admin"])
    assert [record.roles for record in file.read()] == [("admin",)]


@pytest.mark.parametrize(("name", "roles"), [("A", ["viewer"]), ("", ["viewer"]), ("a b", ["viewer"]), ("a", []), ("a", ["surgeon"])])
def test_bad_names_and_roles(tmp_path: Path, name: str, roles: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        TokenFile(tmp_path / "tokens.json").create(name, roles)
    assert not (tmp_path / "tokens.json").exists()


def test_several_programs_may_write_at_a_time(tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=TokenFile(tmp_path / "tokens.json").create, args=(f"caller-{number}", ["viewer"])) for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(TokenFile(tmp_path / "tokens.json").read()) == 20


GOOD = {"name": "a", "sha256": "0" * 64, "roles": ["viewer"]}
BROKEN = {
    "no JSON": "{",
    "a list": "[]",
    "no tokens": "{}",
    "no entry": '{"tokens": [7]}',
    "no name": json.dumps({"tokens": [{"sha256": "0" * 64, "roles": ["viewer"]}]}),
    "a role that is none": json.dumps({"tokens": [{**GOOD, "roles": ["root"]}]}),
    "roles no list": json.dumps({"tokens": [{**GOOD, "roles": "viewer"}]}),
    "the token itself": json.dumps({"tokens": [{**GOOD, "sha256": "a-secret-token"}]}),
    "a misspelt key": json.dumps({"tokens": [{**GOOD, "expire": "2020-01-01T00:00:00Z"}]}),
    "a time without zone": json.dumps({"tokens": [{**GOOD, "expires": "2020-01-01T00:00:00"}]}),
    "no time": json.dumps({"tokens": [{**GOOD, "expires": "tomorrow"}]}),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_file_that_is_none_is_told_without_what_is_in_it(tmp_path: Path, what: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(BROKEN[what])
    with pytest.raises(FailedPrecondition) as caught:
        StaticTokens(path)
    assert caught.value.reason == "TOKENS_UNREADABLE"
    assert "a-secret-token" not in caught.value.message


def test_an_expiry_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    end = datetime(2030, 1, 1, tzinfo=UTC)
    path.write_text(json.dumps({"tokens": [{**GOOD, "sha256": digest_of("t"), "expires": "2030-01-01T00:00:00Z"}]}))
    assert StaticTokens(path, now=lambda: end.timestamp() - 1).find("t").roles == {"viewer"}  # type: ignore[union-attr]
    with pytest.raises(Exception, match="expired"):
        StaticTokens(path, now=lambda: end.timestamp()).find("t")


@pytest.fixture
def gateway(loop: Loop, tmp_path: Path) -> Iterator[RunningGateway]:
    with running_gateway(loop, settings_for(tmp_path / "home"), log_dir=tmp_path / "logs") as running:
        yield running


def test_the_gateway_follows_the_file(gateway: RunningGateway) -> None:
    file = TokenFile(gateway.settings.home / "tokens.json")
    with grpc.insecure_channel(gateway.address) as channel:
        assert refusal(channel, "oteo_made-up") == ("UNAUTHENTICATED", "TOKEN_INVALID")
        token, _ = file.create("dr-ito", ["clinician"])
        wait_for(lambda: known(channel, token))
        assert who(channel, token).name == "token:dr-ito"
        ended, _ = file.create("guest", ["viewer"], timedelta(seconds=-1))
        wait_for(lambda: refusal(channel, ended)[1] == "TOKEN_EXPIRED")
        # Half a file, as an editor may leave it for a moment, changes nothing.
        whole = file.path.read_text()
        file.path.write_text(whole[: len(whole) // 2])
        stays_known(channel, token)
        file.path.write_text(whole)
        file.revoke("dr-ito")
        wait_for(lambda: not known(channel, token))
        again, _ = file.create("dr-ito", ["viewer"])
        wait_for(lambda: known(channel, again))
        file.path.unlink()
        wait_for(lambda: not known(channel, again))


def stays_known(channel: grpc.Channel, token: str) -> None:
    """Check that a token is known for as long as two looks at the file take."""
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        assert known(channel, token)
        time.sleep(0.05)
