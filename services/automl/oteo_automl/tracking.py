"""Trials in MLflow: every one, with settings and curves; an MLflow that is away never stops a training."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from typing import Any

import structlog

from oteo_automl.search.result import EpochRecord
from oteo_core.packages import TrialRecord

LOG = structlog.get_logger(__name__)
_STATES = {"finished": "FINISHED", "pruned": "FINISHED", "stopped": "KILLED", "failed": "FAILED", "running": "RUNNING"}
_RETRY_SECONDS = 15.0
_MOST_METRICS = 900


class MLflowTracker:
    """Writes trials as runs of one experiment; runs are found again by the trial's tag, so that a rerun of the job adds to them.

    What cannot be sent is kept, the newest state of each trial, and sent with a later call or by `flush`.

    Parameters
    ----------
    uri
        Of the tracking server.
    experiment
        Its experiment.
    operation
        The training's operation, a tag of every run.
    model, dataset
        Tags too.
    timeout
        Seconds after which a request is given up.
    """

    def __init__(self, uri: str, experiment: str, operation: str, model: str, dataset: str, timeout: float = 10.0) -> None:
        # MLflow reads these when it is first used; its own patience would be minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(max(1, round(timeout))))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
        self._uri = uri
        self._experiment = experiment
        self._tags = {"oteo.operation": operation, "oteo.model": model, "oteo.dataset": dataset}
        self._operation = operation
        self._client: Any = None
        self._experiment_id = ""
        self._runs: dict[str, str] = {}
        self._sent: dict[str, int] = {}
        self._parameters_sent: set[str] = set()
        self._waiting: dict[str, tuple[TrialRecord, list[EpochRecord]]] = {}
        self._away_until = 0.0

    def trial(self, record: TrialRecord, curve: Sequence[EpochRecord]) -> str:
        """Take a trial's present state; give its run's id, empty where MLflow is away."""
        self._waiting[record.id] = (record, list(curve))
        self._send()
        return self._runs.get(record.id, "")

    def flush(self, seconds: float) -> None:
        """Send what waits, trying for so many seconds at most."""
        end = time.monotonic() + seconds
        while self._waiting and time.monotonic() < end:
            self._away_until = 0.0
            self._send()
            if self._waiting:
                time.sleep(min(1.0, max(0.0, end - time.monotonic())))
        if self._waiting:
            LOG.warning("MLflow did not answer; these trials are in the package alone", trials=sorted(self._waiting))

    def _send(self) -> None:
        if time.monotonic() < self._away_until:
            return
        for key, (record, curve) in list(self._waiting.items()):
            try:
                self._write(record, curve)
            except Exception as error:  # noqa: BLE001 - whatever the tracking server or its client raises, the training goes on
                LOG.warning("MLflow does not take a trial; it is kept for later", trial=key, error=f"{type(error).__name__}: {error}"[:300])
                self._away_until = time.monotonic() + _RETRY_SECONDS
                return
            self._waiting.pop(key, None)

    def _connect(self) -> Any:
        if self._client is None:
            from mlflow.tracking import MlflowClient

            client = MlflowClient(tracking_uri=self._uri)
            found = client.get_experiment_by_name(self._experiment)
            self._experiment_id = found.experiment_id if found else client.create_experiment(self._experiment)
            self._client = client
        return self._client

    def _run(self, client: Any, record: TrialRecord) -> str:
        if record.id not in self._runs:
            query = f"tags.`oteo.operation` = '{self._operation}' and tags.`oteo.trial` = '{record.id}'"
            found = client.search_runs([self._experiment_id], query, max_results=1)
            if found:
                self._runs[record.id] = found[0].info.run_id
            else:
                tags = {
                    **self._tags,
                    "oteo.trial": record.id,
                    "oteo.candidate": record.candidate,
                    "mlflow.runName": f"{self._tags['oteo.model']} {record.id}",
                }
                self._runs[record.id] = client.create_run(self._experiment_id, tags=tags).info.run_id
        return self._runs[record.id]

    def _write(self, record: TrialRecord, curve: Sequence[EpochRecord]) -> None:
        from mlflow.entities import Metric, Param

        client = self._connect()
        run = self._run(client, record)
        now = int(time.time() * 1000)
        parameters = []
        # MLflow refuses to change a parameter; what is settled late is written once, at the end.
        if record.state != "running" and record.id not in self._parameters_sent:
            values = {"candidate": record.candidate, **record.parameters}
            parameters = [
                Param(str(key)[:250], (value if isinstance(value, str) else json.dumps(value))[:500]) for key, value in values.items()
            ]
        metrics = [Metric(f"validation.{metric.name}", metric.value, now, len(curve)) for metric in record.metrics]
        metrics.append(Metric("seconds", record.duration, now, len(curve)))
        start = self._sent.get(record.id, 0)
        for epoch in curve[start:]:
            for name, value in (
                ("train_loss", epoch.train_loss),
                ("validation_loss", epoch.validation_loss),
                ("validation_score", epoch.validation_score),
                ("learning_rate", epoch.learning_rate),
            ):
                if value == value:  # NaN: not measured
                    metrics.append(Metric(name, value, now, epoch.epoch))
        for place in range(0, len(metrics), _MOST_METRICS):
            client.log_batch(run, metrics=metrics[place : place + _MOST_METRICS], params=parameters if place == 0 else [])
        self._sent[record.id] = len(curve)
        if parameters:
            self._parameters_sent.add(record.id)
        if record.message:
            client.set_tag(run, "oteo.message", record.message[:4000])
        if record.state != "running":
            client.set_terminated(run, status=_STATES.get(record.state, "FINISHED"))
