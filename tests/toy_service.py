"""The toy's side of a service: operations whose jobs are those of `toy_job`."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import psutil
from google.longrunning import operations_pb2
from google.protobuf import struct_pb2
from toy_job import request
from waiting import wait_for

from oteo_core.artifacts import open_store
from oteo_core.errors import OteoError, from_status
from oteo_core.jobs import JobRunner
from oteo_core.operations import OperationManager, OperationStore
from oteo_core.settings import CoreSettings
from oteo_protos.augment.v1 import dataset_pb2


class Toy:
    """A manager of toy operations, its log and what a test asks about them."""

    def __init__(self, settings: CoreSettings, runner: JobRunner, *, reconcile: bool = True) -> None:
        self.settings = settings
        self.runner = runner
        self.store = OperationStore(settings.database_url)
        self.artifacts = open_store(settings)
        self.manager = OperationManager(settings, "toy", self.store, self.artifacts, runner, job_module="toy_job")
        self.log = Path(settings.home) / "toy.log"
        if reconcile:
            self.manager.start_reconciler()

    @property
    def any_manager(self) -> OperationManager:
        """The manager that the next call is made of."""
        return self.manager

    def start(self, method: str, /, request_id: str = "", resource: str = "", **fields: Any) -> str:
        """Begin an operation; give its name."""
        options = {name: fields.pop(name) for name in ("deadline", "on_cleanup") if name in fields}
        message = request(log=str(self.log), **fields)
        operation = self.any_manager.start(
            method, message, metadata=dataset_pb2.ImportDatasetMetadata(), request_id=request_id, resource=resource, **options
        )
        return str(operation.name)

    def get(self, name: str) -> operations_pb2.Operation:
        """Give the operation."""
        return self.any_manager.get(name)

    def cancel(self, name: str) -> None:
        """Ask the operation to stop."""
        self.any_manager.cancel(name)

    def give_up_after(self, seconds: float) -> None:
        """Take a silent job for dead after so long."""
        self.manager.reconciler.heartbeat_timeout = seconds

    def progress(self, name: str) -> Any:
        """Give the operation's progress."""
        metadata = dataset_pb2.ImportDatasetMetadata()
        assert self.get(name).metadata.Unpack(metadata)
        return metadata.progress

    def wait(self, name: str, timeout: float = 60.0) -> operations_pb2.Operation:
        """Wait until it has ended, `timeout` as in `wait_for`."""

        def ended() -> operations_pb2.Operation | None:
            operation = self.get(name)
            return operation if operation.done else None

        return wait_for(
            ended, timeout, said=lambda: f"{self.store.get(name.removeprefix('operations/'))}\n{self.lines()}\n{self.logs(name)}"
        )

    def value(self, name: str, timeout: float = 60.0) -> dict[str, Any]:
        """Wait for the operation's response."""
        operation = self.wait(name, timeout)
        assert operation.WhichOneof("result") == "response", f"{operation.error}\n{self.logs(name)}"
        response = struct_pb2.Struct()
        assert operation.response.Unpack(response)
        return dict(response.items())

    def error(self, name: str, timeout: float = 60.0) -> OteoError:
        """Wait for the operation's error."""
        operation = self.wait(name, timeout)
        assert operation.WhichOneof("result") == "error"
        return from_status(operation.error)

    def logs(self, name: str) -> str:
        """Give the logs of all attempts."""
        row = self.store.get(name.removeprefix("operations/"))
        try:
            return "\n".join(self.runner.logs(row.id, attempt) for attempt in range(1, row.attempt + 1))
        except OteoError as error:
            return str(error)

    def lines(self, word: str = "") -> list[str]:
        """Give the lines of the toy's own log that begin with a word."""
        return [line for line in self.log.read_text().splitlines() if line.startswith(word)] if self.log.exists() else []

    def wait_line(self, word: str, timeout: float = 60.0) -> list[str]:
        """Wait for a line that begins with a word; give its parts."""
        return wait_for(lambda: self.lines(word), timeout, said=self.lines, pause=0.02)[-1].split()

    def driver(self, attempt: int = 1) -> int:
        """Wait for an attempt of a lone operation; give its process's id."""
        return int(self.wait_line(f"attempt {attempt} ")[2])

    def files(self, name: str) -> list[str]:
        """Give the files of an operation."""
        return [entry.path for entry in self.artifacts.iter(name)]

    def close(self) -> None:
        """End the manager."""
        self.manager.close()
        self.store.close()


class TwoToys(Toy):
    """Two replicas on one database, both reconciling; calls go to one and the other in turn."""

    def __init__(self, settings: CoreSettings, runner: JobRunner, other: JobRunner) -> None:
        super().__init__(settings, runner)
        self.second = Toy(settings, other)
        self._managers = itertools.cycle((self.manager, self.second.manager))

    @property
    def any_manager(self) -> OperationManager:
        """The manager whose turn it is."""
        return next(self._managers)

    def give_up_after(self, seconds: float) -> None:
        """Have both take a silent job for dead after so long."""
        super().give_up_after(seconds)
        self.second.give_up_after(seconds)

    def close(self) -> None:
        """End both."""
        self.second.close()
        super().close()


def alive(pid: int) -> bool:
    """Say whether a process runs."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_gone(pid: int, timeout: float) -> float:
    """Wait until a process is gone, `timeout` as in `wait_for`; give the seconds that it took."""
    begin = time.monotonic()
    wait_for(lambda: not alive(pid), timeout, said=lambda: f"process {pid} still runs", pause=0.02)
    return time.monotonic() - begin
