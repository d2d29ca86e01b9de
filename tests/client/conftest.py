"""A fake gateway and a client of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import structlog
from client_fakes import World, register
from live_server import live_server
from typer.testing import CliRunner

import oteo
from oteo.cli import app
from oteo_core.settings import CoreSettings

TOKEN = "the-token-of-the-tests"


@pytest.fixture
def quiet() -> Iterator[None]:
    """Keep the server's log, which is in this process, off the command's standard output."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture
def world(tmp_path, monkeypatch, quiet):
    """Give what the fakes know; the environment names their server."""
    world = World(tmp_path / "store")
    monkeypatch.setenv("OTEO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OTEO_TOKEN", TOKEN)
    with live_server(CoreSettings(home=tmp_path, token=TOKEN, threads=16), partial(register, world)) as server:
        monkeypatch.setenv("OTEO_ADDRESS", server.address)
        yield world


@pytest.fixture
def client(world):
    """Give a client of the fakes."""
    with oteo.Client() as opened:
        yield opened


@dataclass
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The document on standard output."""
        return json.loads(self.out)


@pytest.fixture
def command(world):
    """Run the command; give how it ended."""

    def run(*arguments: str) -> Ran:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    return run
