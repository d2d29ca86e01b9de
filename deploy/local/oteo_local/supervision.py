"""supervisord: its configuration, and the calls that it answers."""

from __future__ import annotations

import http.client
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from oteo_local.layout import Layout, write_private
from oteo_local.programs import DROPPED, Program
from oteo_local.settings import LocalSettings

# Times that a process may fail to stay up before supervisord gives up on it: each waits a second longer than the one before, so this is half an hour of trying.
START_RETRIES = 60


class SupervisorError(RuntimeError):
    """supervisord cannot be started or does not answer."""


@dataclass(frozen=True)
class ProcessState:
    """What supervisord says of a process.

    Parameters
    ----------
    name : str
        The program's name.
    state : str
        ``STARTING RUNNING BACKOFF STOPPING STOPPED EXITED FATAL UNKNOWN``.
    pid : int
        Process id; 0 if it does not run.
    started : float
        Unix time of the last start; 0 if it never was.
    """

    name: str
    state: str
    pid: int
    started: float


def render(settings: LocalSettings, layout: Layout, programs: Sequence[Program]) -> str:
    """Write supervisord's configuration.

    Parameters
    ----------
    settings : LocalSettings
        Sizes of logs and times.
    layout : Layout
        Where things lie.
    programs : sequence of Program
        The processes; what each one runs is in ``processes.json``, since a line of this file takes no line break and gives some characters a meaning.
    """
    # Paths are relative: supervisord runs in the home, and expands some of these values twice, which no percent sign in an absolute path would outlive.
    lines = [
        "; Written by `oteo up` at every start: changes are lost.",
        "[unix_http_server]",
        f"file={_plain(layout.socket)}",
        "chmod=0600",
        "[supervisord]",
        "logfile=logs/supervisord.log",
        f"logfile_maxbytes={settings.log_bytes}",
        f"logfile_backups={settings.log_backups}",
        "pidfile=run/supervisord.pid",
        "childlogdir=logs",
        f"identifier=oteo-{layout.stack_id}",
        "umask=077",
        "minfds=4096",
        "strip_ansi=true",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
    ]
    for program in programs:
        name = program.name
        command = shlex.join([sys.executable, "-m", "oteo_local.launch", layout.processes.name, name])
        lines += [
            f"[program:{name}]",
            f"command={_plain(command)}",
            "autostart=true",
            "autorestart=true",
            "startsecs=5",
            f"startretries={START_RETRIES}",
            f"stopsignal={program.stop_signal}",
            f"stopwaitsecs={max(1, round(settings.stop_grace))}",
            # The signal to end goes to the process alone, which ends its children in order; a kill goes to all.
            "stopasgroup=false",
            "killasgroup=true",
            "redirect_stderr=true",
            f"stdout_logfile=logs/{name}.log",
            f"stdout_logfile_maxbytes={settings.log_bytes}",
            f"stdout_logfile_backups={settings.log_backups}",
        ]
    return "\n".join(lines) + "\n"


def _plain(value: Path | str) -> str:
    """Write a path or a command as the configuration file wants it."""
    text = str(value)
    if any(character in text for character in "\n\r;"):
        raise SupervisorError(f"supervisord cannot work with {text!r}: choose an OTEO_HOME without line breaks and semicolons")
    return text.replace("%", "%%")


class Supervisor:
    """supervisord of one home.

    Parameters
    ----------
    layout : Layout
        Where it listens.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of supervisord.

        Raises
        ------
        SupervisorError
            It does not answer, or refuses.
        """
        transport = SupervisorTransport(None, None, f"unix://{self._layout.socket}")
        server = xmlrpc.client.ServerProxy("http://localhost", transport=transport)
        try:
            return getattr(server.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as error:
            raise SupervisorError(f"supervisord: {method}{arguments}: {error.faultString}") from error
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as error:
            raise SupervisorError(f"supervisord does not answer at {self._layout.socket}: {error}") from error
        finally:
            transport.close()

    def alive(self) -> bool:
        """Say whether it runs, answers and is not about to end."""
        try:
            return bool(self.call("getState")["statename"] == "RUNNING")
        except SupervisorError:
            return False

    def start(self, config: str, environment: Mapping[str, str], timeout: float = 20.0) -> None:
        """Start supervisord, which starts all processes.

        Parameters
        ----------
        config : str
            From `render`.
        environment : mapping
            Variables that it and all processes inherit.
        timeout : float
            Seconds to wait until it answers.

        Raises
        ------
        SupervisorError
            It ended or did not answer.
        """
        write_private(self._layout.config, config)
        inherited = {name: value for name, value in environment.items() if name not in DROPPED and not name.startswith("SUPERVISOR_")}
        inherited["OTEO_STACK_ID"] = self._layout.stack_id
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._layout.config)],
            env=inherited,
            cwd=self._layout.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        deadline = time.monotonic() + timeout
        while not self.alive():
            if done.returncode or time.monotonic() > deadline:
                raise SupervisorError(f"supervisord did not start: {(done.stderr or done.stdout).strip() or self._tail()}")
            time.sleep(0.05)

    def states(self) -> dict[str, ProcessState]:
        """Give the state of every process by name."""
        return {
            item["name"]: ProcessState(item["name"], item["statename"], item["pid"], float(item["start"]))
            for item in self.call("getAllProcessInfo")
        }

    def _tail(self) -> str:
        log = self._layout.logs / "supervisord.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-5:]) if log.is_file() else "it wrote nothing"
