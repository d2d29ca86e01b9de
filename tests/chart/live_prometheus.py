"""The real Prometheus on what the chart renders: its monitors say what is scraped, its rules what is alerted, its triggers what is asked.

Time may run faster than in a cluster. `Faster` then divides every duration that the chart renders by one factor: the interval of scrapes and of rules, windows in
brackets, and the time for which an alert must hold. The expressions stay the chart's own, and so does the number of samples in each window. Rates are for each
second of the clock on the wall in both; what the chart makes of them (shares, and requests inside by Little's law) has no unit of time.
"""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import yaml
from charting import NAMESPACE, Object, of_kind, selects, tool
from waiting import patient

from oteo_local import ports

_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = r"(?:\d+(?:ms|s|m|h|d))+"
_EVALUATION = "30s"
"""How often the Prometheus operator's Prometheus looks at rules that name no interval."""
_LOOKBACK = "5m"
"""Prometheus' own: so old may a sample be that stands for now."""


def milliseconds(duration: str) -> int:
    """Read a duration of Prometheus, such as ``1h30m``."""
    assert re.fullmatch(_DURATION, duration), duration
    return sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"(\d+)(ms|s|m|h|d)", duration))


@dataclass(frozen=True)
class Faster:
    """Time that runs faster by a factor."""

    factor: int

    def duration(self, duration: str) -> str:
        """Shorten a duration."""
        return f"{milliseconds(duration) // self.factor}ms"

    def query(self, query: str) -> str:
        """Shorten the windows of a query, and nothing else."""
        return re.sub(rf"\[({_DURATION})\]", lambda found: f"[{self.duration(found[1])}]", query)

    def rules(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Shorten the windows and patience of a PrometheusRule's groups."""
        groups = []
        for group in spec["groups"]:
            rules = [{**rule, "expr": self.query(rule["expr"])} for rule in group["rules"]]
            groups.append({**group, "rules": [{**rule, "for": self.duration(rule["for"])} if "for" in rule else rule for rule in rules]})
        return {"groups": groups}


@dataclass(frozen=True)
class Scraped:
    """One target: what the Prometheus operator would make of an endpoint of a Service that a ServiceMonitor selects."""

    service: str
    pod: str
    address: str


class Prometheus:
    """A Prometheus that scrapes what the rendered ServiceMonitors select, and evaluates the rendered rules; ``with``.

    Parameters
    ----------
    objects
        What the chart rendered.
    folder
        Of its files.
    time
        How fast time runs.
    """

    def __init__(self, objects: Sequence[Object], folder: Path, time: Faster) -> None:
        self._folder, self._time = folder, time
        self._services: dict[str, str] = {}
        jobs = []
        for monitor in of_kind(objects, "ServiceMonitor"):
            name = monitor["metadata"]["name"]
            (endpoint,) = monitor["spec"]["endpoints"]
            for service in of_kind(objects, "Service"):
                if not selects(monitor["spec"]["selector"], service["metadata"]["labels"]):
                    continue
                assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}, "a port that the Service does not have"
                self._services[service["metadata"]["name"]] = name
            jobs.append(
                {
                    "job_name": name,
                    "scrape_interval": time.duration(endpoint["interval"]),
                    "scrape_timeout": time.duration(endpoint["interval"]),
                    "file_sd_configs": [{"files": [str(self._targets(name))]}],
                }
            )
            self._targets(name).write_text("[]")
        configuration = {
            "global": {"evaluation_interval": time.duration(_EVALUATION)},
            "scrape_configs": jobs,
            "rule_files": ["rules.yaml"],
        }
        (rules,) = of_kind(objects, "PrometheusRule")
        (folder / "rules.yaml").write_text(yaml.safe_dump(time.rules(rules["spec"])))
        (folder / "prometheus.yaml").write_text(json.dumps(configuration))
        self.log = folder / "prometheus.log"
        self._port = ports.free_port()

    def _targets(self, job: str) -> Path:
        return self._folder / f"targets-{job}.json"

    def scrape(self, targets: Sequence[Scraped]) -> None:
        """Scrape these from now on; Prometheus sees the files change."""
        for job in sorted(set(self._services.values())):
            groups = [
                {
                    "targets": [target.address],
                    # The labels that the operator puts on; `oteo/part` and others beside are in no query.
                    "labels": {"namespace": NAMESPACE, "service": target.service, "pod": target.pod},
                }
                for target in targets
                if self._services[target.service] == job
            ]
            file = self._targets(job)
            fresh = file.with_suffix(".new")
            fresh.write_text(json.dumps(groups))
            fresh.rename(file)

    def __enter__(self) -> Prometheus:
        command = [
            tool("prometheus"),
            f"--config.file={self._folder}/prometheus.yaml",
            f"--storage.tsdb.path={self._folder}/tsdb",
            f"--web.listen-address=127.0.0.1:{self._port}",
            f"--query.lookback-delta={self._time.duration(_LOOKBACK)}",
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(patient(20))

    def _get(self, path: str, **parameters: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/api/v1/{path}?{urlencode(parameters)}", timeout=60) as answer:
            return json.load(answer)["data"]

    def is_up(self) -> bool:
        """Tell whether it answers."""
        assert self._process.poll() is None, self.log.read_text()[-2000:]
        try:
            self._get("query", query="vector(1)")
        except OSError:
            return False
        return True

    def vector(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Evaluate a rendered query, at the pace of time here; gives labels and values."""
        found = self._get("query", query=self._time.query(query))["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    def value(self, query: str) -> float:
        """Evaluate a query as KEDA does: one number, 0 where there is nothing."""
        found = self.vector(query)
        assert len(found) < 2, f"KEDA takes one number: {query}"
        return found[0][1] if found else 0.0

    def alerts(self) -> list[dict[str, Any]]:
        """Give the alerts that are pending or firing: labels, annotations, state."""
        found: list[dict[str, Any]] = self._get("alerts")["alerts"]
        return found
