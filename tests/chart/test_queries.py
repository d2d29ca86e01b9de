"""What the autoscaler's queries make of figures, by Prometheus' own unit tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from charting import of_kind, render, tool

TRITON = 'namespace="oteo-system",service="oteo-triton"'
GATEWAY = 'namespace="oteo-system",service="oteo-gateway-headless"'
AUTOML = 'namespace="oteo-system",service="oteo-automl"'
OIP = "/inference.GRPCInferenceService"
# A probe of 30 ms every 5 s, as the gateway makes them of every model on every replica: nobody has asked for anything.
PROBES = {
    f'nv_inference_request_duration_us{{{TRITON},pod="a",model="m"}}': "0+90000x40",
    f'nv_inference_pending_request_count{{{TRITON},pod="a",model="m"}}': "0x40",
}

CASES: dict[str, tuple[dict[str, str], dict[str, float]]] = {
    "there is nothing at all": ({}, {"inside": 0.0, "wake": 0.0, "needed": 0.0}),
    "a replica that is only probed": (PROBES, {"inside": 0.006, "wake": 0.0, "needed": 0.0}),
    "ten predictions a second of half a second each, on two replicas": (
        {
            **{f'nv_inference_request_duration_us{{{TRITON},pod="{pod}",model="m"}}': "0+37500000x40" for pod in "ab"},
            f'nv_inference_pending_request_count{{{TRITON},pod="a",model="m"}}': "1x40",
            f'oteo_predict_stage_seconds_count{{{GATEWAY},model="m",stage="total"}}': "0+150x40",
            f'oteo_predict_stage_seconds_count{{{GATEWAY},model="m",stage="queue"}}': "0+150x40",
        },
        {"inside": 5.0, "wake": 0.0, "needed": 1200.0},
    ),
    "forty arrived at once, and none is done": (
        {**PROBES, f'nv_inference_pending_request_count{{{TRITON},pod="b",model="m"}}': "0x30 40x10"},
        {"inside": 40.0, "wake": 0.0, "needed": 0.0},
    ),
    "predictions wait at two gateways": (
        {f'oteo_predict_waiting{{{GATEWAY},pod="{pod}"}}': "3x40" for pod in "ab"},
        {"inside": 0.0, "wake": 6.0, "needed": 0.0},
    ),
    "one prediction found nobody": (
        {f'oteo_predict_refused_total{{{GATEWAY},deployment="d",reason="DEPLOYMENT_NOT_READY"}}': "0x38 1x2"},
        {"wake": 1.0, "needed": 0.0},
    ),
    "a prediction was refused for a bad image": (
        {f'oteo_predict_refused_total{{{GATEWAY},deployment="d",reason="BAD_IMAGE"}}': "0x38 1x2"},
        {"wake": 0.0, "needed": 0.0},
    ),
    "a caller of the Open Inference Protocol found nobody": (
        {
            f'oteo_predict_refused_total{{{GATEWAY},deployment="",reason="NO_REPLICA"}}': "0x38 1x2",
            f'oteo_rpc_handled_total{{{GATEWAY},method="{OIP}/ModelInfer",code="UNAVAILABLE"}}': "0x38 1x2",
        },
        {"wake": 1.0, "needed": 0.0},
    ),
    "one deployment waits, and both gateways say so": (
        {f'oteo_deployments_waiting{{{GATEWAY},pod="{pod}"}}': "0x20 1x20" for pod in "ab"},
        {"wake": 0.0, "needed": 1.0},
    ),
    "a training runs, another waits": (
        {
            f'oteo_operations_unfinished{{{AUTOML},exported_service="automl",state="RUNNING"}}': "1x40",
            f'oteo_operations_unfinished{{{AUTOML},exported_service="automl",state="QUEUED"}}': "1x40",
        },
        {"wake": 0.0, "needed": 1.0},
    ),
    "a call of the Open Inference Protocol was answered": (
        {f'oteo_rpc_handled_total{{{GATEWAY},method="{OIP}/ModelInfer",code="OK"}}': "5x38 6x2"},
        {"wake": 0.0, "needed": 1.0},
    ),
    "somebody reads what is deployed": (
        {
            f'oteo_rpc_handled_total{{{GATEWAY},method="{OIP}/ModelReady",code="OK"}}': "0+1x40",
            f'oteo_rpc_handled_total{{{GATEWAY},method="/oteo.gateway.v1.DeploymentService/ListDeployments",code="OK"}}': "0+1x40",
        },
        {"wake": 0.0, "needed": 0.0},
    ),
    "a stream is open": (
        {f'oteo_rpc_in_flight{{{GATEWAY},method="{OIP}/ModelStreamInfer"}}': "1x40"},
        {"wake": 0.0, "needed": 1.0},
    ),
}


@pytest.fixture(scope="module")
def queries() -> dict[str, str]:
    (scaler,) = of_kind(render("production"), "ScaledObject")
    return {trigger["name"]: trigger["metadata"]["query"] for trigger in scaler["spec"]["triggers"]}


def test_queries_count_what_callers_want_and_nothing_else(queries: dict[str, str], tmp_path: Path) -> None:
    tests = []
    for name, (series, wanted) in CASES.items():
        checks = [
            {
                # KEDA takes nothing for 0. A thousandth's exactness: rates are extrapolated.
                "expr": f"round(({queries[trigger]}) or vector(0), 0.001)",
                "eval_time": "10m",
                "exp_samples": [{"labels": "{}", "value": value}],
            }
            for trigger, value in wanted.items()
        ]
        given = [{"series": one, "values": values} for one, values in series.items()]
        tests.append({"name": name, "interval": "15s", "input_series": given, "promql_expr_test": checks})
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "15s", "tests": tests}))
    done = subprocess.run([tool("promtool"), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_tells_how_many_never_tells_whether_any() -> None:
    """A Triton that is only probed is let go, and a first one comes for callers alone."""
    (scaler,) = of_kind(render("production"), "ScaledObject")
    triggers = {trigger["name"]: trigger["metadata"] for trigger in scaler["spec"]["triggers"]}
    assert float(triggers["inside"]["activationThreshold"]) > 1000 * scaler["spec"]["maxReplicaCount"]
    for name in ("wake", "needed"):
        assert float(triggers[name]["activationThreshold"]) == 0
        assert float(triggers[name]["threshold"]) >= 1_000_000, "it must not ask for a second one"
    # With a replica at least, KEDA asks one question.
    (kept,) = of_kind(render("production", "triton.autoscaling.minReplicas=1"), "ScaledObject")
    (only,) = kept["spec"]["triggers"]
    assert "activationThreshold" not in only["metadata"]
