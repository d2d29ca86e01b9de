"""The whole of Oteo on one machine, under supervisord."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from oteo_local import endpoints, launch, logs, processes
from oteo_local.launch import PROCESS, STACK
from oteo_local.layout import Layout
from oteo_local.programs import Program, shared_environment, standard_programs
from oteo_local.settings import LocalSettings
from oteo_local.supervision import ProcessState, Supervisor, SupervisorError, render

Programs = Callable[[LocalSettings, Layout, Mapping[str, int]], list[Program]]
Progress = Callable[[str, str, float], None]

GIVE_UP_AFTER = 3  # ends in a row, each before the process was healthy


class StackError(RuntimeError):
    """The stack cannot be started or stopped; the message says why and what to do."""


@dataclass(frozen=True)
class ProcessStatus:
    """One process of the stack.

    Parameters
    ----------
    name : str
        ``ray mlflow triton augment automl translate gateway``.
    state : str
        supervisord's word for it, lower case: ``running``, ``starting``, ``backoff``, ``exited``, ``stopped``, ``fatal``.
    pid : int
        Process id; 0 if it does not run.
    uptime : float
        Seconds since it was started; 0 if it does not run.
    address : str
        Where it answers.
    healthy : bool
        It answers and says that it is ready.
    memory : int
        Bytes of memory that it and its children hold, pages shared with others counted in equal parts; 0 if it does not run.
    """

    name: str
    state: str
    pid: int
    uptime: float
    address: str
    healthy: bool
    memory: int


class Stack:
    """Ray, MLflow, Triton and the services of one home.

    Parameters
    ----------
    home : Path or str, optional
        Folder of all state; default ``OTEO_HOME``, else ``~/.oteo``.
    settings : LocalSettings, optional
        Default: read from the environment.
    programs : callable, optional
        Gives the processes; default: all of them.
    """

    def __init__(
        self, home: Path | str | None = None, *, settings: LocalSettings | None = None, programs: Programs = standard_programs
    ) -> None:
        settings = settings or LocalSettings()
        if home is not None:
            settings = LocalSettings.model_validate({**settings.model_dump(), "home": Path(home)})
        self.settings = settings
        self.layout = Layout(settings.home)
        self._make_programs = programs
        self._supervisor = Supervisor(self.layout)

    @property
    def home(self) -> Path:
        """Folder of all state."""
        return self.settings.home

    @property
    def endpoints(self) -> dict[str, Any]:
        """What ``endpoints.json`` says; empty before the first start."""
        return endpoints.read(self.layout.endpoints)

    @property
    def token(self) -> str:
        """The token that calls must bear; empty before the first start."""
        return self.layout.token.read_text().strip() if self.layout.token.is_file() else ""

    def is_up(self) -> bool:
        """Say whether supervisord of this home runs."""
        return self._supervisor.alive()

    def up(self, wait: bool = True, timeout: float | None = None, progress: Progress = lambda name, state, seconds: None) -> dict[str, Any]:
        """Start what does not run, and wait until all of it is healthy.

        Parameters
        ----------
        wait : bool
            False returns as soon as the processes are being started.
        timeout : float, optional
            Seconds; default from the settings.
        progress : callable
            Called from several threads with a process's name, ``"starting"``, ``"healthy"`` or ``"restarting"``, and the seconds since the call.

        Returns
        -------
        dict
            The endpoints.

        Raises
        ------
        StackError
            A process cannot start (with the end of its log), or is not healthy in time.
        PortInUse
            A port that the settings ask for is taken.
        TritonEnvironmentError
            The embedded Triton is not built.
        """
        with self._locked():
            programs = self._start()
        if wait:
            self._wait_healthy(programs, self.settings.start_timeout if timeout is None else timeout, progress)
        return self.endpoints

    def wait_healthy(self, timeout: float | None = None, progress: Progress = lambda name, state, seconds: None) -> None:
        """Wait until every process of a running stack is healthy, as after one was killed.

        Raises
        ------
        StackError
            The stack is down, a process cannot start, or one is not healthy in time.
        """
        if not self.is_up():
            raise StackError(f"the stack of {self.home} is down")
        programs = self._make_programs(self.settings, self.layout, self.endpoints["ports"])
        self._wait_healthy(programs, self.settings.start_timeout if timeout is None else timeout, progress)

    def pid(self, name: str) -> int:
        """Give the process id of a part; 0 while it does not run.

        Raises
        ------
        StackError
            No process has that name, or the stack is down.
        """
        try:
            states = self._supervisor.states()
        except SupervisorError as error:
            raise StackError(str(error)) from error
        if name not in states:
            raise StackError(f"no process '{name}'; there are {', '.join(states)}")
        return states[name].pid

    def processes(self, name: str = "") -> list[psutil.Process]:
        """Give all processes that the stack has started, however far down and whoever is their parent now.

        Parameters
        ----------
        name : str, optional
            Only those of one part: ``ray`` has its daemons, workers and jobs, ``triton`` its stubs.
        """
        return [process for process in self._members() if not name or processes.variable(process, PROCESS) == name]

    def down(self) -> None:
        """Stop everything; nothing that the stack has started runs afterwards. Data stays.

        Raises
        ------
        StackError
            A process cannot be ended.
        """
        if not self.home.is_dir():
            return
        with self._locked():
            self._stop()

    def status(self) -> list[ProcessStatus]:
        """Give the state of every process, in the order in which they are started; all ``stopped`` where the stack is down."""
        ports = self.endpoints.get("ports")
        if not ports:
            return []
        programs = self._make_programs(self.settings, self.layout, ports)
        try:
            states = self._supervisor.states()
        except SupervisorError:
            states = {}
        with ThreadPoolExecutor(max_workers=max(1, len(programs))) as pool:
            return list(pool.map(lambda program: self._status(program, states.get(program.name)), programs))

    def logs(self, name: str, follow: bool = False, lines: int = 50) -> Iterator[str]:
        """Give the last lines of a process's log, and with ``follow`` all that come, until the stack is down.

        Raises
        ------
        StackError
            No process has that name.
        """
        file = self.layout.logs / f"{name}.log"
        known = sorted(path.stem for path in self.layout.logs.glob("*.log"))
        if name not in known:
            raise StackError(f"no process '{name}' has a log; there are {', '.join(known) or 'none'}")
        if follow:
            return logs.follow(file, lines=lines, ended=lambda: not self.is_up())
        return iter(logs.tail(file, lines))

    def _start(self) -> list[Program]:
        """Start supervisord, or the processes that it holds stopped."""
        self.layout.create()
        if self._supervisor.alive():
            ports = self.endpoints["ports"]
            programs = self._make_programs(self.settings, self.layout, ports)
            for name, state in self._supervisor.states().items():
                if state.state in ("STOPPED", "EXITED", "FATAL"):
                    self._supervisor.call("startProcess", name, False)
            return programs
        # No supervisord: whatever still bears this stack's mark was left by one that was killed, and holds the ports.
        memory = processes.shared_memory_of(self._members())
        self._end_strays(grace=0)
        processes.remove_shared_memory(memory)
        ports = endpoints.choose_ports(self.settings.fixed_ports(), self.endpoints.get("ports", {}))
        programs = self._make_programs(self.settings, self.layout, ports)
        config = render(self.settings, self.layout, programs)
        launch.write(self.layout.processes, programs, shared_environment(self.settings, self.layout, ports))
        endpoints.write(self.layout.endpoints, endpoints.describe(ports))
        self._supervisor.start(config, os.environ)
        return programs

    def _stop(self) -> None:
        memory = processes.shared_memory_of(self._members())
        if self._supervisor.alive():
            # All at once: `shutdown` alone would end one after the other.
            with contextlib.suppress(SupervisorError):  # one that is already stopping is refused
                self._supervisor.call("stopAllProcesses", True)
            with contextlib.suppress(SupervisorError):  # it may be gone before it has answered
                self._supervisor.call("shutdown")
            deadline = time.monotonic() + 5.0
            while self._supervisor.alive() and time.monotonic() < deadline:
                time.sleep(0.05)
        self._end_strays(grace=2.0)
        processes.remove_shared_memory(memory)
        for file in (self.layout.socket, self.layout.pid_file):
            file.unlink(missing_ok=True)
        self.layout.remove_link()

    def _members(self) -> list[psutil.Process]:
        return processes.with_marker(STACK, self.layout.stack_id)

    def _end_strays(self, *, grace: float) -> None:
        # What is being ended may start something in its last moment: look again until there is nothing.
        for attempt in range(5):
            strays = self._members()
            if not strays:
                return
            processes.end(strays, grace=grace if attempt == 0 else 0)
        raise StackError(f"these processes cannot be ended: {[(process.pid, process.name()) for process in self._members()]}")

    def _status(self, program: Program, state: ProcessState | None) -> ProcessStatus:
        if state is None or not state.pid:
            return ProcessStatus(program.name, "stopped" if state is None else state.state.lower(), 0, 0.0, program.address, False, 0)
        memory = sum(processes.memory(process) for process in processes.tree(state.pid))
        return ProcessStatus(
            program.name, state.state.lower(), state.pid, max(0.0, time.time() - state.started), program.address, program.check(), memory
        )

    def _wait_healthy(self, programs: list[Program], timeout: float, progress: Progress) -> None:
        started = time.monotonic()
        stop = threading.Event()

        def wait_for(program: Program) -> None:
            progress(program.name, "starting", 0.0)
            while not stop.is_set():
                if program.check():
                    progress(program.name, "healthy", time.monotonic() - started)
                    return
                stop.wait(0.1)

        with ThreadPoolExecutor(max_workers=max(1, len(programs))) as pool:
            waiting = {program.name: pool.submit(wait_for, program) for program in programs}
            try:
                starts: dict[str, set[float]] = {}
                while pending := [name for name, future in waiting.items() if not future.done()]:
                    self._look(pending, starts, progress, started)
                    if time.monotonic() - started > timeout:
                        raise StackError(f"not healthy after {timeout:g} s: {', '.join(pending)}\n{self._tails(pending)}")
                    time.sleep(0.1)
                for future in waiting.values():
                    future.result()
            finally:
                stop.set()

    def _look(self, pending: list[str], starts: dict[str, set[float]], progress: Progress, since: float) -> None:
        """Raise if supervisord is gone or a process ends again and again before it is healthy."""
        try:
            states = self._supervisor.states()
        except SupervisorError as error:
            raise StackError(f"supervisord ended meanwhile: {error}\n{self._tails(['supervisord'])}") from error
        for name in pending:
            state = states[name]
            if state.state not in ("BACKOFF", "EXITED", "FATAL"):
                continue
            seen = starts.setdefault(name, set())
            if state.started not in seen:
                seen.add(state.started)
                progress(name, "restarting", time.monotonic() - since)
            if state.state == "FATAL" or len(seen) >= GIVE_UP_AFTER:
                raise StackError(f"{name} cannot start (it ended {len(seen)} times):\n{self._tails([name])}")

    def _tails(self, names: list[str], lines: int = 15) -> str:
        parts = []
        for name in names:
            file = self.layout.logs / f"{name}.log"
            parts += [f"--- {file}", *logs.of_last_start(logs.tail(file, lines))]
        return "\n".join(parts)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one `up` or `down` of this home run at a time."""
        self.home.mkdir(parents=True, exist_ok=True)
        with open(self.layout.lock, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
