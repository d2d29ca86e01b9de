"""Alerts fire when they should and not when they should not; every metric that is asked for exists."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import oteo_metrics
import pytest
import typer.core
import typer.main
import yaml
from charting import CHART, ROOT, named, of_kind, render, tool

from oteo.cli import app

PREDICT = '{namespace="oteo-system",service="oteo-gateway-headless",method="/oteo.gateway.v1.InferenceService/Predict"'


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the rules as a file that Prometheus reads."""
    file = tmp_path_factory.mktemp("rules") / "rules.yaml"
    (found,) = of_kind(render("production"), "PrometheusRule")
    file.write_text(yaml.safe_dump(found["spec"]))
    return file


def promtool(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tool("promtool"), *arguments], capture_output=True, text=True, check=False, cwd=cwd)


def test_promtool_reads_the_rules(rules: Path) -> None:
    done = promtool("check", "rules", str(rules))
    assert done.returncode == 0, done.stdout + done.stderr
    count = sum(len(group["rules"]) for group in yaml.safe_load(rules.read_text())["groups"])
    assert f"{count} rules found" in done.stdout, done.stdout


def series(bad: float, slow: float, *, until: int = 0) -> list[dict[str, str]]:
    """Give ten predictions a second for eight hours, of which shares fail or are slow; `until`: minutes after which all is well."""

    def line(per_minute: float) -> str:
        if not until:
            return f"0+{per_minute}x480"
        return f"0+{per_minute}x{until} {per_minute * until}+0x{480 - until}"

    good = f"0+{600 * (1 - bad)}x480"
    return [
        {"series": f'oteo_rpc_handled_total{PREDICT},code="OK"}}', "values": good},
        {"series": f'oteo_rpc_handled_total{PREDICT},code="UNAVAILABLE"}}', "values": line(600 * bad)},
        # What the caller did wrong burns nobody's budget.
        {"series": f'oteo_rpc_handled_total{PREDICT},code="INVALID_ARGUMENT"}}', "values": "0+60x480"},
        {"series": f'oteo_rpc_seconds_bucket{PREDICT},le="1.0"}}', "values": f"0+{600 * (1 - slow)}x480"},
        {"series": f"oteo_rpc_seconds_count{PREDICT}}}", "values": "0+600x480"},
        *({"series": f'up{{namespace="oteo-system",service="oteo-{part}",pod="p"}}', "values": "1x480"} for part in UP),
    ]


UP = ("gateway-headless", "augment", "automl", "translate")
OK = series(0.0, 0.0)
SERVING = 'namespace="oteo-system"'

CASES: dict[str, tuple[list[dict[str, str]], str, dict[str, set[str]]]] = {
    "all is well": (OK, "6h", {}),
    "one in two thousand fails: within the budget": (series(0.0005, 0.0), "6h", {}),
    "two in a hundred fail: at once": (series(0.02, 0.0), "1h10m", {"OteoPredictErrors": {"page", "ticket"}}),
    "one in a hundred fails: a ticket, and no page": (series(0.01, 0.0), "7h", {"OteoPredictErrors": {"ticket"}}),
    "it is over: nobody is woken": (series(0.05, 0.0, until=60), "1h20m", {"OteoPredictErrors": {"ticket"}}),
    "a fifth is slow": (series(0.0, 0.2), "2h", {"OteoPredictSlow": {"page", "ticket"}}),
    "eight in a hundred are slow: a ticket": (series(0.0, 0.08), "7h", {"OteoPredictSlow": {"ticket"}}),
    "an operation is silent": (
        [
            *OK,
            {
                "series": f'oteo_operations_silent_seconds{{{SERVING},service="oteo-automl",exported_service="automl"}}',
                "values": "0+60x480",
            },
        ],
        "1h10m",
        {"OteoOperationSilent": {"ticket"}},
    ),
    "an operation has news every ten minutes": (
        [*OK, {"series": f'oteo_operations_silent_seconds{{{SERVING},exported_service="automl"}}', "values": "600x480"}],
        "6h",
        {},
    ),
    "a service is away": (
        [one for one in OK if 'service="oteo-automl"' not in one["series"]],
        "20m",
        {"OteoServiceAbsent": {"page"}},
    ),
    "one of two replicas is away": (
        [*OK, {"series": 'up{namespace="oteo-system",service="oteo-automl",pod="q"}', "values": "0x480"}],
        "1h",
        {},
    ),
    "a GPU is full": (
        [
            *OK,
            {"series": f'nv_gpu_memory_used_bytes{{{SERVING},gpu_uuid="g"}}', "values": "78x480"},
            {"series": f'nv_gpu_memory_total_bytes{{{SERVING},gpu_uuid="g"}}', "values": "80x480"},
        ],
        "30m",
        {"OteoGpuMemory": {"ticket"}},
    ),
    "a model fails in Triton": (
        [
            *OK,
            {"series": f'nv_inference_request_success{{{SERVING},model="m"}}', "values": "0+40x480"},
            {"series": f'nv_inference_request_failure{{{SERVING},model="m"}}', "values": "0+20x480"},
        ],
        "1h",
        {"OteoTritonModelFails": {"ticket"}},
    ),
    "the audit log of one of two gateways cannot be written, and a caller noticed once": (
        [
            *OK,
            {"series": f'oteo_audit_failures_total{{{SERVING},service="oteo-gateway-headless",pod="p"}}', "values": "0x64 1x416"},
            {"series": f'oteo_audit_failures_total{{{SERVING},service="oteo-gateway-headless",pod="q"}}', "values": "0x480"},
        ],
        "1h6m",
        {"OteoAuditLogFails": {"page"}},
    ),
    "the audit log could not be written an hour ago": (
        [*OK, {"series": f'oteo_audit_failures_total{{{SERVING},service="oteo-gateway-headless",pod="p"}}', "values": "0x10 9x470"}],
        "1h20m",
        {},
    ),
    "the images of a deployment shift, as one of two gateways says": (
        [
            *OK,
            {"series": f'oteo_shift_alarm{{{SERVING},deployment="cells",pod="a"}}', "values": "0x480"},
            {"series": f'oteo_shift_alarm{{{SERVING},deployment="cells",pod="b"}}', "values": "0x30 1x450"},
        ],
        "1h",
        {"OteoShift": {"ticket"}},
    ),
    "an alarm of a shift that ended at once": (
        [*OK, {"series": f'oteo_shift_alarm{{{SERVING},deployment="cells",pod="a"}}', "values": "0x30 1x2 0x448"}],
        "1h",
        {},
    ),
    "a certificate ends in ten days": (
        [*OK, {"series": f'certmanager_certificate_expiration_timestamp_seconds{{{SERVING},name="oteo-gateway"}}', "values": "864000x480"}],
        "2h",
        {"OteoCertificateEnds": {"ticket"}},
    ),
    "a certificate ends in twenty days": (
        [
            *OK,
            {"series": f'certmanager_certificate_expiration_timestamp_seconds{{{SERVING},name="oteo-gateway"}}', "values": "1728000x480"},
        ],
        "2h",
        {},
    ),
}


def alerts(rules: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for group in yaml.safe_load(rules.read_text())["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                found.setdefault(rule["alert"], []).append(rule)
    return found


def test_alerts_fire_when_they_should(rules: Path, tmp_path: Path) -> None:
    """Prometheus' own unit tests, asked only which alerts fire with which severity."""
    tests = []
    for name, (input_series, at, _) in CASES.items():
        # promtool wants every label and text of an alert: the expressions that it evaluates say the same of those alone that matter.
        expected = CASES[name][2]
        checks = [
            {
                "expr": f'count by (alertname, severity) (ALERTS{{alertname="{alert}",alertstate="firing"}}) * 0 + 1',
                "eval_time": at,
                "exp_samples": [
                    {"labels": f'{{alertname="{alert}",severity="{severity}"}}', "value": 1}
                    for severity in sorted(expected.get(alert, set()))
                ],
            }
            for alert in alerts(rules)
        ]
        tests.append({"name": name, "interval": "1m", "input_series": input_series, "promql_expr_test": checks})
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests}))
    done = promtool("test", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    fired = {alert for _, _, expected in CASES.values() for alert in expected}
    assert fired == set(alerts(rules)), "an alert that no case fires"


def test_each_alert_says_what_it_is_and_what_to_do(rules: Path) -> None:
    for found in alerts(rules).values():
        for rule in found:
            assert rule["labels"]["severity"] in ("page", "ticket")
            assert len(rule["annotations"]["summary"]) > 20
            assert len(rule["annotations"]["description"]) > 20


def unknown(text: str) -> list[str]:
    """Give the commands in a text that ``oteo`` does not have; words after a command are the text's own or its arguments, options must be there."""
    found = []
    # Not the package `oteo_core`, the chart `deploy/k8s/oteo` or helm's release: a command begins a text, a code or a sentence's part.
    for words in re.findall(r"(?<![\w./-])oteo((?: (?!oteo )[a-zA-Z-]+\b(?!/))+)", text):
        node: Any = typer.main.get_command(app)
        said = words.split()
        while isinstance(node, typer.core.TyperGroup) and said:
            child = node.commands.get(said[0])
            if child is None and not node.invoke_without_command:
                found.append(f"oteo{words}")
            if child is None:
                break
            node = child
            said.pop(0)
        if node.context_settings.get("ignore_unknown_options"):
            # It hands its words on to another program.
            continue
        known = {option for parameter in node.params for option in parameter.opts}
        found += [f"oteo{words}: {word}" for word in said if word.startswith("--") and word not in known]
    return found


def test_what_is_taken_for_a_command() -> None:
    assert unknown("See oteo operations list, and the pods; (oteo deploy list).") == []
    assert unknown("so say oteo shift and oteo translate.") == []
    assert unknown("oteo shift and oteo translation") == ["oteo translation"]
    assert unknown("See oteo deployments list.") == ["oteo deployments list"]
    assert unknown("oteo deploy lists") == ["oteo deploy lists"]
    assert unknown("oteo deploy show skin --revision") == ["oteo deploy show skin --revision: --revision"]
    assert unknown("in oteo_core, deploy/k8s/oteo here") == []


def test_commands_that_are_named_exist(rules: Path) -> None:
    said = [text for found in alerts(rules).values() for rule in found for text in rule["annotations"].values()]
    assert sum("oteo " in text for text in said) >= 6
    assert [one for text in said for one in unknown(text)] == []
    notes = (CHART / "templates/NOTES.txt").read_text()
    pages = [(ROOT / page).read_text() for page in ("docs/operations.md", "docs/security.md", "deploy/k8s/README.md")]
    # In pages only what is set as code: a line of its own, or between backticks.
    codes = [code for page in pages for code in re.findall(r"^    (oteo .*)$|`(oteo [^`]+)`", page, re.MULTILINE)]
    assert len(codes) >= 8
    assert [one for text in [notes, *(first or second for first, second in codes)] for one in unknown(text)] == []


def queries() -> dict[str, str]:
    """Give every query of the chart, by where it is."""
    objects = render("production")
    found = {
        f"rule {rule.get('alert') or rule.get('record')} {number}": rule["expr"]
        for group in of_kind(objects, "PrometheusRule")[0]["spec"]["groups"]
        for number, rule in enumerate(group["rules"])
    }
    for trigger in of_kind(objects, "ScaledObject")[0]["spec"]["triggers"]:
        found[f"trigger {trigger['name']}"] = trigger["metadata"]["query"]
    rule = yaml.safe_load(named(render("mig"), "ConfigMap", "oteo-prometheus-adapter-rule")["data"]["rule.yaml"])
    found["prometheus-adapter"] = rule["metricsQuery"].replace("<<.LabelMatchers>>", 'namespace="n"').replace("<<.GroupBy>>", "pod")
    for path in (CHART / "dashboards").glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                found[f"{path.stem}: {panel['title']} {target['refId']}"] = target["expr"].replace("$namespace", "n")
    return found


def metrics_of(query: str) -> set[str]:
    """Give the names of metrics in a query: words before a selector."""
    return set(re.findall(r"\b([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{", query))


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    groups = [{"name": "all", "rules": [{"record": f"q:{number}", "expr": query} for number, query in enumerate(queries().values())]}]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": groups}))
    done = promtool("check", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(queries()) > 45


def test_every_metric_that_is_asked_for_exists() -> None:
    ours = oteo_metrics.ours()
    recorded = {
        rule["record"]
        for group in of_kind(render("production"), "PrometheusRule")[0]["spec"]["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    known = ours | recorded | oteo_metrics.TRITON | oteo_metrics.TRITON_ON_GPUS | oteo_metrics.RAY | oteo_metrics.OTHERS
    used: set[str] = set()
    for place, query in queries().items():
        names = metrics_of(query)
        assert names, place
        assert names <= known, (place, names - known)
        used |= names
    # What Oteo counts is looked at by somebody.
    assert {
        "oteo_rpc_handled_total",
        "oteo_predict_waiting",
        "oteo_predict_refused_total",
        "oteo_operations_silent_seconds",
        "oteo_shift_alarm",
        "oteo_live_accuracy",
    } <= used


def test_dashboards_are_whole() -> None:
    found = [found for found in of_kind(render("production"), "ConfigMap") if "grafana_dashboard" in found["metadata"]["labels"]]
    assert len(found) == 2
    identities = set()
    for one in found:
        ((name, text),) = one["data"].items()
        assert name.endswith(".json")
        board = json.loads(text)
        identities.add(board["uid"])
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
        assert len(places) == len(set(places))
        assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in board["panels"])
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) >= 8
    assert len(identities) == 2
