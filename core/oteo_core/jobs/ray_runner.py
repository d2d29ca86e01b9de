"""Jobs on Ray, through its Jobs API."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import structlog

from oteo_core.errors import Unavailable
from oteo_core.jobs.resources import Resources
from oteo_core.jobs.runner import NOTHING, JobRunner, JobState

_T = TypeVar("_T")
_TIMEOUT = 10.0
_MOST_NODES = 10_000
_LOG = structlog.get_logger(__name__)


class RayJobRunner(JobRunner):
    """One Ray job per attempt, with ``{operation id}-{attempt}`` as its submission id.

    A driver that takes nothing runs on the head, whatever CPUs that has: what takes some are the tasks that it starts. One that
    takes something is placed as a task is, on a node that has it free. The connection is made with the first call and again after
    a failure, so a head that is down or comes back under way is no matter.

    Parameters
    ----------
    address
        URL of Ray's dashboard.
    token_path
        File of Ray's token; None for a head without one.
    workers
        ``(CPUs, GPUs)`` of each kind of worker that can come beside the nodes that are there: an autoscaler's groups.
    """

    def __init__(self, address: str, token_path: Path | None = None, workers: Sequence[tuple[float, int]] = ()) -> None:
        self._address = address
        self._token_path = token_path
        self._workers = [Resources(float(cpus), int(gpus)) for cpus, gpus in workers]
        self._lock = threading.Lock()
        self._client: Any = None

    def submit(
        self, operation_id: str, attempt: int, entrypoint: Sequence[str], env: Mapping[str, str], resources: Resources = NOTHING
    ) -> None:
        """Submit the job; a second time is no error."""
        name = _submission_id(operation_id, attempt)
        variables = dict(env)
        if self._token_path is not None:
            variables.setdefault("RAY_AUTH_MODE", "token")
            variables.setdefault("RAY_AUTH_TOKEN_PATH", str(self._token_path))

        def submit(client: Any) -> None:
            try:
                client.submit_job(
                    # exec: the job is the process itself, not a child of a shell.
                    entrypoint="exec " + shlex.join(entrypoint),
                    submission_id=name,
                    runtime_env={"env_vars": variables},
                    metadata={"oteo_operation": operation_id, "oteo_attempt": str(attempt)},
                    entrypoint_num_cpus=resources.cpus,
                    entrypoint_num_gpus=resources.gpus,
                )
            except RuntimeError:
                # Refused; the usual cause is that it was there already.
                if self._look(client, name) is JobState.UNKNOWN:
                    raise

        self._call(submit)

    def nodes(self) -> Sequence[Resources]:
        """Ask Ray for its nodes; the kinds of workers that can come are added."""
        return [*self._call(_ask_nodes), *self._workers]

    def status(self, operation_id: str, attempt: int) -> JobState:
        """Ask Ray."""
        return self._call(lambda client: self._look(client, _submission_id(operation_id, attempt)))

    def stop(self, operation_id: str, attempt: int) -> None:
        """Ask Ray to stop the job, unless it has ended."""
        name = _submission_id(operation_id, attempt)

        def stop(client: Any) -> None:
            if self._look(client, name) in (JobState.PENDING, JobState.RUNNING):
                client.stop_job(name)

        self._call(stop)

    def logs(self, operation_id: str, attempt: int) -> str:
        """Ask Ray for the driver's output."""
        name = _submission_id(operation_id, attempt)

        def logs(client: Any) -> str:
            return str(client.get_job_logs(name)) if self._look(client, name) is not JobState.UNKNOWN else ""

        return self._call(logs)

    def _look(self, client: Any, name: str) -> JobState:
        try:
            status = client.get_job_status(name)
        except RuntimeError as error:
            if getattr(error, "status_code", None) == 404:
                return JobState.UNKNOWN
            raise
        return JobState[str(getattr(status, "value", status))]

    def _call(self, call: Callable[[Any], _T]) -> _T:
        # Imported here: it takes a quarter of a second, and who only mentions this class does not need Ray.
        import requests
        from ray.exceptions import AuthenticationError

        try:
            return call(self._connection())
        except (ConnectionError, requests.exceptions.RequestException, RuntimeError, AuthenticationError, OSError) as error:
            with self._lock:
                self._client = None
            raise Unavailable(f"Ray at {self._address} does not answer: {error}", reason="JOB_RUNNER_UNAVAILABLE") from error

    def _connection(self) -> Any:
        with self._lock:
            if self._client is None:
                headers = {}
                if self._token_path is not None:
                    headers["Authorization"] = f"Bearer {self._token_path.read_text().strip()}"
                self._client = _client_class()(self._address, headers=headers)
            return self._client


def _submission_id(operation_id: str, attempt: int) -> str:
    return f"{operation_id}-{attempt}"


def _ask_nodes(client: Any) -> list[Resources]:
    # Ray's state API, asked with the jobs' client: that one has the token and the time limit.
    answer = client._do_request("GET", f"/api/v0/nodes?limit={_MOST_NODES}")
    if answer.status_code != 200:
        client._raise_error(answer)
    rows = answer.json()["data"]["result"]["result"]
    totals = [row["resources_total"] for row in rows if row["state"] == "ALIVE"]
    return [Resources(float(total.get("CPU", 0.0)), int(total.get("GPU", 0.0))) for total in totals]


def _client_class() -> Any:
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):  # type: ignore[misc, unused-ignore]
        """Ray's client with a time limit on every call and the status of a refusal."""

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            options.setdefault("timeout", _TIMEOUT)
            return super()._do_request(method, endpoint, **options)

        def _raise_error(self, r: Any) -> None:
            error = RuntimeError(f"HTTP status {r.status_code}: {r.text}")
            error.status_code = r.status_code  # type: ignore[attr-defined]
            raise error

    return Client
