"""The stack starts once, says why it cannot, restarts what is killed and leaves nothing behind.

The processes here are small servers that stand for the real ones, so that each test takes a second or two; `test_whole_stack.py` runs the real ones.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import psutil
import pytest
from waiting import patient, wait_for

from oteo_local import health, processes
from oteo_local.endpoints import PortInUse
from oteo_local.layout import Layout
from oteo_local.programs import Program
from oteo_local.settings import LocalSettings
from oteo_local.stack import Stack, StackError

# A server with a child that outlives it, as Ray, Triton and MLflow have.
SERVER = """
import http.server, subprocess, sys, os
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(os.environ.get("OTEO_SAID", "").encode())
    def log_message(self, *_): pass
print("listening, 100 % sure", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def server(name: str, port: int) -> Program:
    url = f"http://127.0.0.1:{port}"
    return Program(
        name, [sys.executable, "-c", SERVER, str(port)], url, partial(health.http_ok, url), {"OTEO_SAID": 'a "quoted", 50 % word'}
    )


def two_servers(_: LocalSettings, __: Layout, ports: Mapping[str, int]) -> list[Program]:
    return [server("gateway", ports["gateway"]), server("mlflow", ports["mlflow"])]


@pytest.fixture
def make_stack(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    made: list[Stack] = []

    def make(home: Path | None = None, **options: object) -> Stack:
        programs = options.pop("programs", two_servers)
        made.append(Stack(settings=LocalSettings(home=home or tmp_path / "home", stop_grace=3, **options), programs=programs))
        return made[-1]

    yield make
    for stack in made:
        stack.down()


def child_of(stack: Stack, name: str) -> psutil.Process:
    return wait_for(psutil.Process(stack.pid(name)).children, 5)[0]


def test_up_reports_each_process_and_down_leaves_none(make_stack):
    stack = make_stack()
    told: list[tuple[str, str]] = []
    endpoints = stack.up(timeout=90, progress=lambda name, state, _: told.append((name, state)))

    assert {("gateway", "healthy"), ("mlflow", "healthy")} <= set(told)
    assert endpoints["gateway"] == f"127.0.0.1:{endpoints['ports']['gateway']}"
    assert [(status.name, status.state in ("running", "starting"), status.healthy) for status in stack.status()] == [
        ("gateway", True, True),
        ("mlflow", True, True),
    ]
    assert all(status.memory > 2**20 and status.uptime >= 0 for status in stack.status())
    running = [*stack.processes(), child_of(stack, "gateway")]
    assert len(running) >= 5

    stack.down()

    assert not any(processes.is_alive(process) for process in running)
    assert stack.processes() == []
    assert not stack.is_up()
    assert [status.state for status in stack.status()] == ["stopped", "stopped"]
    assert not stack.layout.socket.exists()
    assert not stack.layout.run.is_symlink()


def test_up_twice_is_harmless(make_stack):
    stack = make_stack()
    first = stack.up(timeout=90)
    pids = {name: stack.pid(name) for name in ("gateway", "mlflow")}
    started = time.monotonic()
    assert Stack(settings=stack.settings, programs=two_servers).up(timeout=90) == first
    assert time.monotonic() - started < patient(5)
    assert {name: stack.pid(name) for name in ("gateway", "mlflow")} == pids


def test_two_at_once_start_one_stack(make_stack):
    stacks = [make_stack() for _ in range(2)]
    threads = [threading.Thread(target=stack.up, kwargs={"timeout": 90}) for stack in stacks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    supervisors = 0
    for process in stacks[0].processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            supervisors += "supervisor.supervisord" in process.cmdline()
    assert supervisors == 1


def test_down_when_nothing_runs_or_ever_ran(make_stack, tmp_path):
    make_stack(tmp_path / "never").down()
    assert not (tmp_path / "never").exists()
    stack = make_stack()
    stack.up(timeout=90)
    stack.down()
    stack.down()


def test_ports_are_kept_across_restarts(make_stack):
    stack = make_stack()
    first = stack.up(timeout=90)
    stack.down()
    assert stack.up(timeout=90) == first


def test_a_remembered_port_that_another_program_took_is_replaced(make_stack):
    stack = make_stack()
    first = stack.up(timeout=90)["ports"]["gateway"]
    stack.down()
    with socket.create_server(("127.0.0.1", first)):
        second = stack.up(timeout=90)["ports"]["gateway"]
    assert second != first


def test_a_port_that_is_asked_for_and_taken_is_named_with_what_to_do(make_stack):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        stack = make_stack(gateway_port=port)
        with pytest.raises(PortInUse, match=rf"port {port} for gateway is in use.*OTEO_GATEWAY_PORT"):
            stack.up(timeout=90)
        assert stack.processes() == []


def test_ports_and_home_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("OTEO_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("OTEO_GATEWAY_PORT", "27001")
    settings = LocalSettings()
    assert settings.home == tmp_path / "elsewhere"
    assert settings.fixed_ports() == {"gateway": 27001}
    with pytest.raises(ValueError, match="10002-19999"):
        LocalSettings(ray_port=12000)


def test_a_process_that_cannot_start_is_named_with_the_end_of_its_log(make_stack):
    def broken(settings: LocalSettings, layout: Layout, ports: Mapping[str, int]) -> list[Program]:
        command = [sys.executable, "-c", "raise SystemExit('no such database: 50 % of it')"]
        return [server("gateway", ports["gateway"]), Program("automl", command, "127.0.0.1:1", lambda: False)]

    stack = make_stack(programs=broken)
    with pytest.raises(StackError, match=r"(?s)automl cannot start.*ended 3 times.*no such database: 50 % of it"):
        stack.up(timeout=90)


def test_a_process_that_never_gets_healthy_is_named(make_stack):
    def deaf(settings: LocalSettings, layout: Layout, ports: Mapping[str, int]) -> list[Program]:
        command = [sys.executable, "-c", "import time; print('still thinking', flush=True); time.sleep(600)"]
        return [server("gateway", ports["gateway"]), Program("translate", command, "127.0.0.1:1", lambda: False)]

    stack = make_stack(programs=deaf)
    with pytest.raises(StackError, match=r"(?s)not healthy after 12 s: translate\n.*still thinking"):
        stack.up(timeout=12)


def test_a_killed_process_is_started_again_and_its_orphans_are_ended(make_stack):
    stack = make_stack()
    stack.up(timeout=90)
    before, orphan = stack.pid("gateway"), child_of(stack, "gateway")
    untouched = stack.pid("mlflow")

    os.kill(before, signal.SIGKILL)
    wait_for(lambda: stack.pid("gateway") not in (0, before), 10)
    stack.wait_healthy(patient(20))

    assert stack.pid("gateway") not in (0, before)
    assert not processes.is_alive(orphan)
    assert stack.pid("mlflow") == untouched


def test_up_after_supervisord_was_killed_takes_over(make_stack):
    stack = make_stack()
    first = stack.up(timeout=90)
    strays = stack.processes()
    os.kill(int(stack.layout.pid_file.read_text()), signal.SIGKILL)
    wait_for(lambda: not stack.is_up(), 5)
    assert any(processes.is_alive(process) for process in strays)

    assert stack.up(timeout=90) == first

    assert not any(processes.is_alive(process) for process in strays)
    assert all(status.healthy for status in stack.status())


def test_down_after_supervisord_was_killed_leaves_nothing(make_stack):
    stack = make_stack()
    stack.up(timeout=90)
    os.kill(int(stack.layout.pid_file.read_text()), signal.SIGKILL)
    stack.down()
    assert stack.processes() == []


def test_a_stale_pid_file_of_a_crash_does_no_harm(make_stack):
    stack = make_stack()
    stack.up(timeout=90)
    stack.down()
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        stack.layout.pid_file.write_text(f"{bystander.pid}\n")
        stack.up(timeout=90)
        stack.down()
        assert bystander.poll() is None, "a process that only has the old number was ended"
    finally:
        bystander.kill()
        bystander.wait()


def test_a_moved_home_starts_elsewhere(make_stack, tmp_path):
    stack = make_stack()
    stack.up(timeout=90)
    token = stack.token
    stack.down()
    shutil.move(stack.home, tmp_path / "moved")
    moved = make_stack(tmp_path / "moved")
    moved.up(timeout=90)
    assert moved.token == token
    assert psutil.Process(moved.pid("gateway")).environ()["OTEO_HOME"] == str(tmp_path / "moved")
    assert str(stack.home) not in moved.layout.config.read_text() + moved.layout.processes.read_text()


def test_a_long_home_with_odd_characters_works(make_stack, tmp_path):
    home = tmp_path / ("a long folder, 100 % äöü " * 4).strip()
    stack = make_stack(home)
    stack.up(timeout=90)
    assert len(os.fsencode(stack.layout.socket)) < 108
    assert all(status.healthy for status in stack.status())


def test_only_the_owner_reads_what_is_secret(make_stack):
    stack = make_stack()
    stack.up(timeout=90)
    for file in (stack.layout.token, stack.layout.ray_token, stack.layout.config, stack.layout.processes, stack.layout.endpoints):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE((stack.home / "run").stat().st_mode) == 0o700
    assert len(stack.token) >= 32
    assert stack.token not in stack.layout.config.read_text() + stack.layout.processes.read_text()
    assert stack.token not in json.dumps(stack.endpoints)


def test_the_callers_own_token_and_address_do_not_reach_the_services(make_stack, monkeypatch):
    monkeypatch.setenv("OTEO_TOKEN", "of-another-stack")
    monkeypatch.setenv("OTEO_ADDRESS", "10.0.0.1:1")
    monkeypatch.setenv("OTEO_LOG_LEVEL", "debug")
    stack = make_stack()
    stack.up(timeout=90)
    environment = psutil.Process(stack.pid("gateway")).environ()
    assert "OTEO_TOKEN" not in environment
    assert "OTEO_ADDRESS" not in environment
    assert environment["OTEO_LOG_LEVEL"] == "debug"
    assert environment["OTEO_SAID"] == 'a "quoted", 50 % word'
    assert environment["OTEO_HOME"] == str(stack.home)


def test_logs_are_read_and_followed_until_the_stack_is_down(make_stack):
    stack = make_stack()
    stack.up(timeout=90)
    assert "listening, 100 % sure" in list(stack.logs("gateway"))
    with pytest.raises(StackError, match="no process 'nobody' has a log"):
        stack.logs("nobody")
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.extend(stack.logs("gateway", follow=True, lines=0)))
    reader.start()
    time.sleep(2.0)
    os.kill(stack.pid("gateway"), signal.SIGKILL)
    wait_for(lambda: "listening, 100 % sure" in seen, 15)
    stack.down()
    reader.join(patient(10))
    assert not reader.is_alive()


def test_down_removes_shared_memory_of_its_processes_and_no_data(make_stack, tmp_path):
    code = (
        "import mmap, sys, time; files = [open(name, 'r+b') for name in sys.argv[2:]]; maps = [mmap.mmap(file.fileno(), 0) for file in files]; "
        + (
            "import http.server; http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()"
        )
    )
    segment = processes.SHARED_MEMORY / f"sem.mp-oteotest{os.getpid()}"
    data = processes.SHARED_MEMORY / f"oteo-data-{os.getpid()}"

    def mapping(_: LocalSettings, __: Layout, ports: Mapping[str, int]) -> list[Program]:
        url = f"http://127.0.0.1:{ports['gateway']}"
        return [
            Program(
                "gateway", [sys.executable, "-c", code, str(ports["gateway"]), str(segment), str(data)], url, partial(health.http_ok, url)
            )
        ]

    try:
        for file in (segment, data):
            file.write_bytes(bytes(4096))
        stack = make_stack(programs=mapping)
        stack.up(timeout=90)
        stack.down()
        assert not segment.exists()
        assert data.exists()
    finally:
        for file in (segment, data):
            file.unlink(missing_ok=True)
