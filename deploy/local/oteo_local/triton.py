"""Run the embedded Triton.

``python -m oteo_local.triton --repository DIR --grpc-port N`` serves a model repository in the foreground, until a signal; `start` does it for a test and cleans up.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import grpc

from oteo_local import ports, processes
from oteo_local.triton_env import TritonEnvironment, TritonEnvironmentError, default_prefix

HEALTH = "/inference.GRPCInferenceService/ServerReady"


class TritonFailed(RuntimeError):
    """tritonserver ended or did not become ready; the message has the end of its log."""


@dataclass(frozen=True)
class TritonServer:
    """How one tritonserver is started.

    Parameters
    ----------
    repository : str
        Model repository: a local path, a ``file://`` URI or what Triton takes itself (``s3://host:port/bucket/prefix``).
    grpc_port : int
        Port of the inference protocol.
    http_port, metrics_port : int
        Ports of HTTP inference and of Prometheus metrics; 0 is off.
    host : str
        Address to listen on.
    load : tuple of str
        Models to load at the start; none of the others is, before somebody asks for it.
    threads : int
        Threads of a model instance whose configuration names none; 0 is one a core.
    verbose : int
        Triton's verbose log level.
    arguments : tuple of str
        More arguments of tritonserver.
    environment : TritonEnvironment
        Where the programs are.
    """

    repository: str
    grpc_port: int
    http_port: int = 0
    metrics_port: int = 0
    host: str = "127.0.0.1"
    load: tuple[str, ...] = ()
    threads: int = 0
    verbose: int = 0
    arguments: tuple[str, ...] = ()
    environment: TritonEnvironment = field(default_factory=lambda: TritonEnvironment(default_prefix()))

    @property
    def repository_path(self) -> str:
        """The repository as Triton's command line takes it."""
        if self.repository.startswith("file://"):
            return url2pathname(urlsplit(self.repository).path)
        return self.repository

    def command(self) -> list[str]:
        """Give the command line of tritonserver."""
        command = [
            str(self.environment.server),
            f"--model-repository={self.repository_path}",
            "--model-control-mode=explicit",
            f"--backend-directory={self.environment.backends}",
            f"--cache-directory={self.environment.caches}",
            f"--grpc-address={self.host}",
            f"--grpc-port={self.grpc_port}",
            f"--allow-http={'true' if self.http_port else 'false'}",
            f"--allow-metrics={'true' if self.metrics_port else 'false'}",
            "--allow-gpu-metrics=true",
            f"--log-verbose={self.verbose}",
            "--exit-timeout-secs=5",
            # One broken model must not keep the others from being served.
            "--exit-on-error=false",
            "--strict-readiness=false",
        ]
        if self.http_port:
            command += [f"--http-address={self.host}", f"--http-port={self.http_port}"]
        if self.metrics_port:
            command += [f"--metrics-address={self.host}", f"--metrics-port={self.metrics_port}"]
        return [*command, *(f"--load-model={name}" for name in self.load), *self.arguments]

    def process_environment(self) -> dict[str, str]:
        """Give the variables that tritonserver and its stubs need beside the present ones."""
        inherited = os.environ.get("LD_LIBRARY_PATH", "")
        libraries = [str(folder) for folder in self.environment.libraries]
        variables = {
            # The stub embeds Python and ignores PYTHONPATH: it takes the environment whose interpreter comes first on PATH.
            "PATH": os.pathsep.join([str(self.environment.prefix / "bin"), os.environ.get("PATH", os.defpath)]),
            "LD_LIBRARY_PATH": os.pathsep.join([*libraries, inherited] if inherited else libraries),
            "VIRTUAL_ENV": str(self.environment.prefix),
            "PYTHONNOUSERSITE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        if self.threads:
            variables["OTEO_TRITON_THREADS"] = str(self.threads)
        return variables

    def prepare(self) -> None:
        """Check that it can start, make a local repository's folder, clear what a killed Triton left in shared memory.

        Raises
        ------
        TritonEnvironmentError
            The embedded Triton is not built.
        TritonFailed
            A port is in use.
        """
        self.environment.require()
        if "://" not in self.repository_path:
            Path(self.repository_path).mkdir(parents=True, exist_ok=True)
        for name, port in (("gRPC", self.grpc_port), ("HTTP", self.http_port), ("metrics", self.metrics_port)):
            if port and not ports.is_free(port, self.host):
                raise TritonFailed(f"{name} port {port} on {self.host} is in use")
        processes.remove_unused_triton_segments()

    def run(self) -> None:
        """Become tritonserver: does not return."""
        self.prepare()
        environment = {**os.environ, **self.process_environment()}
        for name in ("PYTHONPATH", "PYTHONHOME"):
            environment.pop(name, None)
        command = self.command()
        os.execve(command[0], command, environment)


def is_ready(address: str, timeout: float = 0.5) -> bool:
    """Ask a Triton over gRPC whether it is ready.

    The two messages are so small that they are written here as bytes: an import of the protocol's generated code would collide with `tritonclient`'s own.

    Parameters
    ----------
    address : str
        Host and port.
    timeout : float
        Seconds.
    """
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(HEALTH, request_serializer=bytes, response_deserializer=bytes)
        try:
            return bool(call(b"", timeout=timeout) == b"\x08\x01")
        except grpc.RpcError:
            return False


@dataclass(frozen=True)
class RunningTriton:
    """A tritonserver that `start` has started.

    Parameters
    ----------
    server : TritonServer
        How it was started.
    process : subprocess.Popen
        The process.
    log : Path
        What it wrote.
    """

    server: TritonServer
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def address(self) -> str:
        """Host and port of the inference protocol."""
        return f"{self.server.host}:{self.server.grpc_port}"

    @property
    def repository(self) -> Path:
        """The model repository."""
        return Path(self.server.repository_path)

    def tail(self, lines: int = 20) -> str:
        """Give the end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def wait_ready(self, timeout: float) -> None:
        """Wait until it answers.

        Raises
        ------
        TritonFailed
            It ended, or ``timeout`` seconds have passed.
        """
        deadline = time.monotonic() + timeout
        while not is_ready(self.address):
            if self.process.poll() is not None:
                raise TritonFailed(f"tritonserver ended with {self.process.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise TritonFailed(f"tritonserver is not ready after {timeout:g} s:\n{self.tail()}")
            time.sleep(0.05)

    def stop(self, grace: float = 8.0) -> None:
        """End the server and its stubs, and remove their shared memory."""
        members = processes.tree(self.process.pid)
        memory = processes.shared_memory_of(members)
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(grace)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        processes.end(members, grace=0)
        processes.remove_shared_memory(memory)


@contextlib.contextmanager
def start(
    repository: Path | str | None = None,
    *,
    grpc_port: int = 0,
    http_port: int = 0,
    metrics_port: int = 0,
    load: tuple[str, ...] = (),
    threads: int = 1,
    arguments: tuple[str, ...] = (),
    timeout: float = 30.0,
    environment: TritonEnvironment | None = None,
) -> Iterator[RunningTriton]:
    """Run a Triton for as long as the ``with`` block lasts.

    Parameters
    ----------
    repository : Path or str, optional
        Model repository; an empty temporary one if none is given.
    grpc_port, http_port, metrics_port : int
        Ports; a free one for gRPC if 0, the other two are off at 0.
    load : tuple of str
        Models to load at the start.
    threads : int
        Threads of a model instance whose configuration names none.
    arguments : tuple of str
        More arguments of tritonserver.
    timeout : float
        Seconds to wait until it is ready.
    environment : TritonEnvironment, optional
        Default: the repository's.

    Raises
    ------
    TritonEnvironmentError
        The embedded Triton is not built.
    TritonFailed
        It did not become ready.
    """
    folder = Path(tempfile.mkdtemp(prefix="oteo-triton-"))
    try:
        server = TritonServer(
            repository=str(repository) if repository is not None else str(folder / "models"),
            grpc_port=grpc_port or ports.free_port(),
            http_port=http_port,
            metrics_port=metrics_port,
            load=load,
            threads=threads,
            arguments=arguments,
            environment=environment or TritonEnvironment(default_prefix()),
        )
        server.prepare()
        log = folder / "triton.log"
        with open(log, "wb") as output:
            process = subprocess.Popen(
                server.command(),
                env={**os.environ, **server.process_environment()},
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        running = RunningTriton(server, process, log)
        try:
            running.wait_ready(timeout)
            yield running
        finally:
            running.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: list[str] | None = None) -> int:
    """Run tritonserver in the foreground."""
    parser = argparse.ArgumentParser(
        prog="python -m oteo_local.triton", description="Serve a model repository with the embedded Triton, in the foreground."
    )
    parser.add_argument("--repository", required=True, help="model repository: a folder or a URI")
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--http-port", type=int, default=0, help="0: off")
    parser.add_argument("--metrics-port", type=int, default=0, help="0: off")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--load", action="append", default=[], metavar="MODEL", help="model to load at the start")
    parser.add_argument("--threads", type=int, default=0, help="threads of a model instance whose configuration names none (0: one a core)")
    parser.add_argument("--verbose", type=int, default=0, help="Triton's verbose log level")
    parser.add_argument("--prefix", type=Path, default=None, help="environment made by oteo_local.triton_env")
    options = parser.parse_args(arguments)
    server = TritonServer(
        repository=options.repository,
        grpc_port=options.grpc_port,
        http_port=options.http_port,
        metrics_port=options.metrics_port,
        host=options.host,
        load=tuple(options.load),
        threads=options.threads,
        verbose=options.verbose,
        environment=TritonEnvironment((options.prefix or default_prefix()).expanduser().absolute()),
    )
    try:
        server.run()
    except (TritonEnvironmentError, TritonFailed) as error:
        print(f"oteo: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
