"""Real engines for tests: a Ray head and a PostgreSQL server, each in a folder of its own and ended by process id."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
from waiting import patient, wait_for

from oteo_local import ray_head
from oteo_local.ports import free_port

TESTS = Path(__file__).resolve().parent


def kill_tree(pid: int, *, grace: float = 5.0) -> None:
    """End a process and its children: SIGTERM, then SIGKILL."""
    try:
        leader = psutil.Process(pid)
        everyone = [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in everyone:
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            continue
    _, left = psutil.wait_procs(everyone, timeout=grace)
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=patient(5))


class RayHead:
    """A Ray head with token, on ports of its own; can be killed and started again on the same ports."""

    def __init__(self, folder: Path, cpus: int = 2) -> None:
        self.folder = folder
        self.cpus = cpus
        self.ports: dict[str, int] = {}
        for name in ray_head.PORTS:
            self.ports[name] = free_port(self.ports.values())
        self.address = f"http://127.0.0.1:{self.ports['ray_dashboard']}"
        self.token_path = folder / "ray-token"
        self.token_path.write_text(secrets.token_hex(32))
        self.token_path.chmod(0o600)
        # Ray puts sockets there, whose paths must be short.
        self.temp = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        """Environment of the head, its jobs and its drivers."""
        return {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_path),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DISABLE_IMPORT_WARNING": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH", "")])),
            "OMP_NUM_THREADS": "1",
            # The machine runs much else during tests.
            "RAY_memory_monitor_refresh_ms": "0",
        }

    def start(self, timeout: float = 90.0, tries: int = 4) -> None:
        """Start and wait until jobs can be submitted and run; again where a starved machine takes longer than Ray's own half minute for a node."""
        for _ in range(tries):
            if self._begin(timeout):
                return
            self.stop()
            self.temp = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        raise RuntimeError(f"Ray's head did not come up:\n{(self.folder / 'ray.log').read_text()[-3000:]}")

    def _begin(self, timeout: float) -> bool:
        command = ray_head.command(self.ports, cpus=self.cpus, object_store_bytes=200 * 1024 * 1024, temp=self.temp)
        with (self.folder / "ray.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self.env, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
            )
        limit = time.monotonic() + timeout
        while time.monotonic() < limit and self._process.poll() is None:
            # The dashboard answers before there is a node that anything could run on.
            if b'"ALIVE"' in self._ask("/nodes?view=summary") and self._ask("/api/jobs/"):
                return True
            time.sleep(0.2)
        return False

    def _ask(self, path: str) -> bytes:
        """Give what the dashboard answers; nothing where it does not."""
        request = urllib.request.Request(f"{self.address}{path}", headers={"Authorization": f"Bearer {self.token_path.read_text()}"})
        try:
            with urllib.request.urlopen(request, timeout=patient(5)) as answer:
                return bytes(answer.read())
        except (OSError, urllib.error.URLError):
            return b""

    def kill(self) -> None:
        """Kill the head's own processes at once, as a machine's failure would; jobs and workers are left to notice."""
        assert self._process is not None
        for process in [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]:
            try:
                line = " ".join(process.cmdline())
                if any(part in line for part in ("gcs_server", "raylet", "dashboard", "ray start", "ray/scripts", "log_monitor", "agent")):
                    process.kill()
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        self._process.wait()

    def processes(self) -> list[psutil.Process]:
        """Give all processes of this head, jobs and workers included."""
        found = []
        for process in psutil.process_iter():
            try:
                if str(self.temp) in " ".join(process.cmdline()) or process.environ().get("RAY_AUTH_TOKEN_PATH") == str(self.token_path):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def stop(self) -> None:
        """End everything."""
        if self._process is not None:
            kill_tree(self._process.pid)
            self._process.wait()
            self._process = None
        # Workers and drivers that outlived a killed head.
        mine = os.getpid()
        for process in self.processes():
            if process.pid != mine:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
        shutil.rmtree(self.temp, ignore_errors=True)


class Postgres:
    """A PostgreSQL server on a free port, with a database of its own for each test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._bin = find_postgres()
        self._user = _server_user()
        self._count = 0

    def start(self) -> None:
        """Make a cluster and start its server."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._user is not None:
            shutil.chown(self.folder, self._user)
            # The server's user must be able to reach its folder.
            for parent in [self.folder, *self.folder.parents]:
                if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
                    parent.chmod(parent.stat().st_mode | 0o011)
        data = self.folder / "data"
        self._run(self._bin / "initdb", "-D", str(data), "-U", "oteo", "--auth=trust", "--no-sync", "--no-locale", "-E", "UTF8")
        self.resume()

    def resume(self) -> None:
        """Start the server on the cluster that is there."""
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off -c max_connections=100"
        )
        data = self.folder / "data"
        self._run(
            self._bin / "pg_ctl", "-D", str(data), "-l", str(self.folder / "log"), "-w", "-t", f"{patient(20):.0f}", "-o", options, "start"
        )

    def new_url(self) -> str:
        """Make an empty database; give its URL."""
        import psycopg

        self._count += 1
        name = f"test{self._count}"
        with psycopg.connect(f"postgresql://oteo@127.0.0.1:{self.port}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://oteo@127.0.0.1:{self.port}/{name}"

    def stop(self) -> None:
        """End the server by its process id."""
        file = self.folder / "data" / "postmaster.pid"
        if file.exists():
            pid = int(file.read_text().splitlines()[0])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
            # Its file goes last; the process itself may stay as a zombie of whoever does not wait for it.
            wait_for(lambda: not file.exists(), 20)

    def _run(self, *command: str | Path) -> None:
        prefix = ["runuser", "-u", self._user, "--"] if self._user is not None else []
        done = subprocess.run(
            [*prefix, *map(str, command)],
            cwd=self.folder,
            stdout=subprocess.PIPE if "initdb" in str(command[0]) else None,
            stderr=subprocess.STDOUT,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {(done.stdout or b'').decode()}")


def find_postgres() -> Path:
    """Give the folder of PostgreSQL's programs.

    Raises
    ------
    RuntimeError
        It is not installed.
    """
    on_path = shutil.which("initdb")
    folders = sorted(path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if on_path:
        return Path(on_path).resolve().parent
    if folders:
        return folders[-1]
    raise RuntimeError(
        "PostgreSQL's server is needed by these tests: `make system` installs it on Debian as root; else install it (Debian: "
        "apt-get install postgresql), or leave those tests out with OTEO_TEST_NO_POSTGRES=1"
    )


def _server_user() -> str | None:
    """Give the user that the server runs as; None for ourselves. PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise RuntimeError("PostgreSQL does not run as root, and there is no user 'postgres' or 'nobody' to run it as")
