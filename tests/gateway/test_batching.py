"""Images of several callers share a batch in Triton, and the metrics show it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway_support import CLASSES, Loop, deploy_model, picture, publish_model, running_gateway, settings_for
from prometheus_client import REGISTRY
from waiting import patient, wait_for

from oteo_core.artifacts import open_store
from oteo_local.triton import start
from oteo_protos.gateway.v1 import inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2

MODEL = "batched"
CALLERS = 8


def _value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"model": MODEL, **labels}) or 0.0


def test_callers_at_the_same_time_share_a_batch_and_it_is_counted(loop: Loop, tmp_path: Path) -> None:
    with start(tmp_path / "model-repository", timeout=patient(30)) as triton:
        settings = settings_for(tmp_path, triton_urls=[triton.address], statistics_seconds=0.1)
        # Long enough that all of a round wait for each other, however slow the machine.
        publish_model(open_store(settings), MODEL, batching=f"preferred_batch_size: [ {CALLERS} ] max_queue_delay_microseconds: 500000")
        with running_gateway(loop, settings, log_dir=tmp_path / "logs") as running:
            deploy_model(running.channel, MODEL)
            stub = inference_pb2_grpc.InferenceServiceStub(running.channel)

            def predict(number: int) -> str:
                image = image_pb2.ImageSource(content=picture(CLASSES[number % 3]))
                request = inference_pb2.PredictRequest(deployment=f"deployments/{MODEL}", image=image)
                return stub.Predict(request, timeout=120).classification.decision

            # The first reading is where counting begins: the deployment's own probe comes before it.
            wait_for(lambda: _value("oteo_model_inferences_total") > 0 or predict(0) is None)
            with ThreadPoolExecutor(CALLERS) as callers:
                for _ in range(3):
                    assert list(callers.map(predict, range(CALLERS))) == [CLASSES[number % 3] for number in range(CALLERS)]
            wait_for(lambda: _value("oteo_model_inferences_total") >= 3 * CALLERS)
            shared = sum(_value("oteo_model_executions_total", batch=str(size)) for size in range(2, CALLERS + 1))
            assert shared > 0
            alone = _value("oteo_model_executions_total", batch="1")
            assert alone + shared < _value("oteo_model_inferences_total"), "fewer runs than images"
            assert _value("oteo_model_seconds_total", stage="queue") > 0
            assert _value("oteo_predict_shift_p_value_count") >= 3 * CALLERS
