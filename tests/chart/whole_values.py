"""Values with everything on, so that every value has something to change and every object is rendered."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from charting import CHART, NAMESPACE, default_values, helm

WHOLE: dict[str, Any] = {
    "nameOverride": "whole",
    "image": {"pullSecrets": ["a-secret"], "registry": "registry.example", "tag": "t"},
    "secrets": {"redis": {"name": "redis-secret"}, "tokens": {"name": "tokens-secret"}},
    "access": {"issuerCaConfigMap": "issuer-ca", "certificates": {"enabled": True, "caConfigMap": "callers-ca"}},
    "gateway": {"settings": {"predict_queue": 111}},
    "augment": {"settings": {"max_upload_files": 112}},
    "automl": {"settings": {"tensorrt": "FP16"}},
    "translate": {"settings": {"threads": 113}},
    "triton": {"autoscaling": {"minReplicas": 0}, "extraArgs": ["--log-info=true"], "traces": {"url": "http://192.0.2.5:4318/v1/traces"}},
    "ray": {"head": {"faultTolerance": {"mode": "redis", "redisAddress": "redis:6379"}}},
    "postgresql": {"mode": "bundled"},
    "s3": {"mode": "bundled"},
    "backup": {"enabled": True},
    "traffic": {
        "hosts": ["oteo.example"],
        "grpcRoute": {"enabled": True, "parentRefs": [{"name": "g", "namespace": "n", "sectionName": "s"}], "backendCaConfigMap": "ca"},
        "ingress": {"enabled": True, "className": "nginx", "annotations": {"a": "b"}, "issuer": {"name": "i"}},
        "tls": {"enabled": True},
    },
    "networkPolicies": {
        "redis": [{"cidr": "192.0.2.1/32", "port": 6379}],
        "kubernetesApi": [{"cidr": "192.0.2.2/32", "port": 6443}],
        "downloads": [{"cidr": "192.0.2.3/32", "port": 443}],
        "issuer": [{"cidr": "192.0.2.4/32", "port": 8443}],
        "collector": [{"cidr": "192.0.2.5/32", "port": 4318}],
    },
    "prePull": {"enabled": True},
    "monitoring": {
        "serviceMonitors": {"enabled": True, "labels": {"x": "y"}},
        "rules": {"enabled": True, "labels": {"x": "y"}},
        "dashboards": {"enabled": True},
    },
}
PLACING: dict[str, Any] = {
    "nodeSelector": {"a-label": "a-node"},
    "tolerations": [{"key": "a-taint", "operator": "Equal", "value": "a-value", "effect": "NoSchedule"}],
}


def merged(base: Any, over: Any) -> Any:
    """Lay values over others as helm does."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: merged(base.get(key), value) for key, value in over.items()}}
    return copy.deepcopy(over)


def whole() -> dict[str, Any]:
    """Give values with everything on."""
    values: dict[str, Any] = merged(default_values(), WHOLE)
    for part in ("gateway", "augment", "automl", "translate", "triton", "mlflow", "prePull"):
        values[part].update(copy.deepcopy(PLACING))
    values["ray"]["head"].update(copy.deepcopy(PLACING))
    for group in values["ray"]["workerGroups"]:
        group.update(copy.deepcopy(PLACING))
        group["gpus"] = 1
    values["networkPolicies"]["callers"][0] = {"namespaceLabels": {"a": "b"}, "podLabels": {"c": "d"}}
    values["networkPolicies"]["monitoring"][0]["podLabels"] = {"e": "f"}
    values["networkPolicies"]["operators"][0]["podLabels"] = {"g": "h"}
    return values


def rendered(values: dict[str, Any], folder: Path) -> str:
    """Render a whole set of values; gives the text."""
    file = folder / "values.yaml"
    # With an end of line: helm takes JSON that fills its buffer of 8192 bytes to the last for nothing at all.
    file.write_text(json.dumps(values) + "\n")
    done = helm("template", "oteo", str(CHART), f"--namespace={NAMESPACE}", f"--values={file}")
    assert done.returncode == 0, done.stderr
    return done.stdout
