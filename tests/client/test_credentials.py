"""Where the client's token comes from."""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from pathlib import Path

import pytest

from oteo.connection import Endpoint, find_endpoint, open_channel
from oteo.credentials import CommandToken, FileToken, end_of, from_environment
from oteo.errors import OteoApiError


def signed(**claims: object) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJSUzI1NiJ9.{body}.c2lnbmF0dXJl"


def counting(tmp_path: Path, output: str) -> str:
    """Give a command that writes what `output`, an expression of `count`, says."""
    script = tmp_path / "sign in.py"
    script.write_text(
        "import pathlib, sys, time\n"
        f"file = pathlib.Path({str(tmp_path / 'count')!r})\n"
        "count = int(file.read_text()) + 1 if file.exists() else 1\n"
        "file.write_text(str(count))\n"
        f"print({output})\n"
    )
    return f"{sys.executable} '{script}'"


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "token"
    source = FileToken(path)
    with pytest.raises(OteoApiError) as caught:
        source()
    assert (caught.value.code, caught.value.reason) == ("UNAUTHENTICATED", "TOKEN_FILE_UNREADABLE")
    path.write_text(" first\n")
    assert source() == "first"
    new = tmp_path / "new"
    new.write_text("second")
    os.replace(new, path)
    assert source() == "second"


def test_a_program_is_asked_once_while_its_token_lasts(tmp_path: Path) -> None:
    source = CommandToken(counting(tmp_path, f"{signed(exp=time.time() + 600)!r}"))
    assert source() == source() == source()
    assert (tmp_path / "count").read_text() == "1"


def test_a_program_is_asked_again_before_its_token_ends(tmp_path: Path) -> None:
    source = CommandToken(counting(tmp_path, f"{signed(exp=time.time() + 20)!r}"))
    source()
    source()
    assert (tmp_path / "count").read_text() == "2"


def test_a_token_that_does_not_say_when_it_ends_is_kept(tmp_path: Path) -> None:
    source = CommandToken(counting(tmp_path, "f'opaque-{count}'"))
    assert [source(), source()] == ["opaque-1", "opaque-1"]


@pytest.mark.parametrize(
    "command",
    ["/no/such/program --password hunter2", "", f"{sys.executable} -c 'import sys; sys.exit(3)' hunter2", "echo two words", "true", "'"],
)
def test_a_program_that_gives_no_token(command: str) -> None:
    with pytest.raises((OteoApiError, ValueError)) as caught:
        CommandToken(command)()
    assert "hunter2" not in str(caught.value)
    if isinstance(caught.value, OteoApiError):
        assert caught.value.reason == "TOKEN_COMMAND_FAILED"


@pytest.mark.parametrize("token", ["", "a.b", "a.b.c", "a.!!!.c", signed(), signed(exp="soon"), signed(exp=None)])
def test_tokens_that_do_not_say_when_they_end(token: str) -> None:
    assert end_of(token) is None


def test_the_first_variable_counts(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of the file")
    variables = {"OTEO_TOKEN": "itself", "OTEO_TOKEN_FILE": str(tmp_path / "token"), "OTEO_TOKEN_COMMAND": "echo of-the-program"}
    assert from_environment(variables) == "itself"
    del variables["OTEO_TOKEN"]
    assert _asked(variables) == "of the file"
    del variables["OTEO_TOKEN_FILE"]
    assert _asked(variables) == "of-the-program"
    assert from_environment({}) is None


def _asked(variables: dict[str, str]) -> str:
    source = from_environment(variables)
    assert callable(source)
    return source()


def test_an_endpoint_shows_no_token_and_wants_a_key_with_its_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.pem").write_text("x")
    monkeypatch.setenv("OTEO_CERT_FILE", str(tmp_path / "c.pem"))
    monkeypatch.setenv("OTEO_TOKEN", "hunter2")
    endpoint = find_endpoint("oteo.example:443")
    assert "hunter2" not in repr(endpoint)
    assert endpoint.cert_file == tmp_path / "c.pem"
    with pytest.raises(OteoApiError) as caught:
        open_channel(endpoint)
    assert caught.value.reason == "CERTIFICATE_UNREADABLE"
    with pytest.raises(OteoApiError) as caught:
        open_channel(Endpoint("oteo.example:443", ca_file=tmp_path / "missing"))
    assert caught.value.reason == "CERTIFICATE_UNREADABLE"
