"""The metrics that exist: our own as the running code declares them, others' as recorded from running ones."""

from __future__ import annotations

from prometheus_client import REGISTRY

import oteo_core.telemetry
import oteo_gateway.metrics

TRITON = {
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_request_duration_us",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_pending_request_count",
}
"""Of Triton; `test_processes.py` asks a running one that serves a model."""

TRITON_ON_GPUS = {"nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes"}
"""Of Triton on a machine with a GPU (its documentation, "Metrics", "GPU Metrics")."""

RAY = {"ray_node_cpu_utilization", "ray_scheduler_tasks", "ray_object_store_used_memory", "ray_object_store_available_memory"}
"""Of Ray 2.60, recorded from a head that ran here."""

OTHERS = {
    "up",  # Prometheus itself
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "certmanager_certificate_expiration_timestamp_seconds",  # cert-manager, "Prometheus Metrics"
}


def ours() -> set[str]:
    """Give the names under which Prometheus sees what the services count."""
    assert oteo_core.telemetry
    assert oteo_gateway.metrics
    found: set[str] = set()
    for metric in REGISTRY.collect():
        if not metric.name.startswith("oteo_"):
            continue
        found |= {
            "counter": {f"{metric.name}_total"},
            "gauge": {metric.name},
            "histogram": {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")},
        }[metric.type]
    return found
