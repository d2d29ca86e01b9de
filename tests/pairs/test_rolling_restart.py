"""All pods replaced one after the other, as an upgrade does, while callers call: nothing is lost."""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack
from pathlib import Path

import pytest
from callers import Augmenting, Streaming, User, answered, ask_augment, listed, predict
from cluster import SERVICES
from pair_site import Pair, begun_once, ended
from steady_load import SteadyLoad

from oteo_core.sampledata import draw_cells
from oteo_protos.augment.v1 import dataset_pb2

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_rolling_restart_under_load_loses_nothing(pair: Pair, colours: str, tmp_path: Path) -> None:
    cells = draw_cells(tmp_path / "cells", count=48, size=48, flaws=False).folder
    before = {pod.name: pod.process.pid for pod in pair.cluster.pods.values()}
    calls = pair.calls()
    operations = []
    with ExitStack() as stack:
        stack.callback(calls.close)
        bare = {
            "Predict": stack.enter_context(SteadyLoad(pair.cluster.address, predict, callers=2, pause=0.1)),
            "ListTransforms": stack.enter_context(SteadyLoad(pair.cluster.address, ask_augment, callers=1, pause=0.1)),
        }
        users = {"Predict": User(pair.cluster.address, answered), "List": User(pair.cluster.address, listed)}
        stream, augmenting = Streaming(pair.cluster.address), Augmenting(pair.cluster.address)
        for caller in (*users.values(), stream, augmenting):
            stack.callback(caller.stop)
        for load in bare.values():
            load.wait_good(10)
        for part in (*SERVICES, "gateway"):
            if part in ("augment", "gateway"):
                # It runs while those who look after it, and then the gateways before them, are replaced.
                request = dataset_pb2.ImportDatasetRequest(
                    source_uri=str(cells), dataset_id=f"rolling-{uuid.uuid4().hex[:8]}", request_id=str(uuid.uuid4())
                )
                name = calls.datasets.ImportDataset(request, timeout=120).name
                pair.driver(name)
                operations.append((name, request))
            begin = time.monotonic()
            pair.cluster.roll(part)
            print(f"{part} replaced in {time.monotonic() - begin:.0f} s")
        for load in bare.values():
            load.wait_good(10)
        for name, request in operations:
            operation = ended(pair, calls, name)
            assert not operation.HasField("error"), operation.error
            begun_once(pair, name)
            assert calls.datasets.ImportDataset(request, timeout=120).name == name
            found = calls.datasets.GetDataset(dataset_pb2.GetDatasetRequest(name=f"datasets/{request.dataset_id}"), timeout=120)
            assert found.sample_count == 48
        counts = {what: user.end() for what, user in users.items()}
        print(f"the SDK's users: {counts}, {stream.end()} images by PredictStream")
        print(f"a program of one's own: {augmenting.end()} images by AugmentImages, whose streams ended {dict(augmenting.ends)}")
    for what, load in bare.items():
        load.check()
        print(f"without retries, {what}: {dict(load.codes())}")
        # A call that no retry would mend is one that is lost.
        assert set(load.codes()) <= {"OK", "UNAVAILABLE"}
    assert min(*counts.values(), stream.answered, len(augmenting.answered)) > 10
    # Each stream to a pod that went was told so by the one status that says: again.
    assert augmenting.ends["UNAVAILABLE"] >= 2
    after = {pod.name: pod.process.pid for pod in pair.cluster.pods.values()}
    assert len(after) == len(before)
    assert not set(after.values()) & set(before.values())
