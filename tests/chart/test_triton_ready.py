"""A new replica is ready once it serves every deployment, stays so, and is not kept out for ever by a model that does not load."""

from __future__ import annotations

import http.server
import importlib.util
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from charting import ROOT


@pytest.fixture(scope="module")
def ready() -> ModuleType:
    """Give the script of the Triton image as a module."""
    spec = importlib.util.spec_from_file_location("oteo_triton_ready", ROOT / "deploy/k8s/images/triton/oteo_triton_ready.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Triton(http.server.ThreadingHTTPServer):
    """Two of Triton's HTTP calls."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models: dict[str, str] = {}
        self.alive = True
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Triton

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        # A model that is not loaded has no state at all, one that failed has a version and a reason.
        self._answer(
            json.dumps(
                [{"name": name, **({"version": "1", "state": state} if state else {})} for name, state in self.server.models.items()]
            ).encode()
        )

    def _answer(self, content: bytes) -> None:
        self.send_response(200 if self.server.alive else 503)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def triton() -> Iterator[Triton]:
    server = Triton()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_replica_is_ready_when_every_deployed_model_is(ready: ModuleType, triton: Triton, tmp_path: Path) -> None:
    triton.models = {"a": "READY", "b": "", "c": "LOADING"}
    assert not ready.is_ready(triton.url, 600, tmp_path)
    triton.models = {"a": "READY", "b": "READY", "c": "READY", "oteo-parity-1": ""}
    assert ready.is_ready(triton.url, 600, tmp_path)
    # A deployment that comes later does not take those out that serve the others.
    triton.models["d"] = ""
    assert ready.is_ready(triton.url, 600, tmp_path)
    triton.alive = False
    assert not ready.is_ready(triton.url, 600, tmp_path)


def test_without_deployments_a_replica_is_ready_at_once(ready: ModuleType, triton: Triton, tmp_path: Path) -> None:
    assert ready.is_ready(triton.url, 600, tmp_path)


def test_a_model_that_never_loads_keeps_a_replica_out_for_a_time_only(ready: ModuleType, triton: Triton, tmp_path: Path) -> None:
    triton.models = {"broken": "UNAVAILABLE", "good": "READY"}
    assert ready.missing(triton.url) == ["broken"]
    assert not ready.is_ready(triton.url, 600, tmp_path)
    assert ready.is_ready(triton.url, 0, tmp_path)


def test_a_server_that_is_not_there_is_not_ready_however_long_it_takes(ready: ModuleType, tmp_path: Path) -> None:
    assert not ready.is_ready("http://127.0.0.1:1", 0, tmp_path)
