from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from local_models import channel_means
from waiting import patient

from oteo_local import triton
from oteo_local.triton_env import TritonEnvironment, default_prefix


@pytest.fixture(scope="session")
def triton_environment() -> TritonEnvironment:
    environment = TritonEnvironment(default_prefix())
    environment.build()
    return environment


@pytest.fixture(scope="module")
def running_triton(triton_environment: TritonEnvironment) -> Iterator[triton.RunningTriton]:
    with triton.start(environment=triton_environment, timeout=patient(30)) as running:
        yield running


CONFIG = """
name: "{name}"
backend: "onnxruntime"
max_batch_size: 16
input [ {{ name: "image" data_type: TYPE_UINT8 dims: [ {side}, {side}, 3 ] }} ]
output [ {{ name: "mean" data_type: TYPE_FP32 dims: [ 3 ] }}, {{ name: "total" data_type: TYPE_FP32 dims: [ 1 ] reshape: {{ shape: [ ] }} }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
dynamic_batching {{ max_queue_delay_microseconds: 2000 }}
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
"""


@pytest.fixture(scope="session")
def put_model() -> Callable[..., Path]:
    """Write a model of channel means into a repository."""

    def put(repository: Path, name: str, *, config: str | None = CONFIG, side: int = 4, **graph: object) -> Path:
        folder = repository / name
        (folder / "1").mkdir(parents=True)
        (folder / "1" / "model.onnx").write_bytes(channel_means(side=side if config == CONFIG else graph.pop("axis", side), **graph))
        if config is not None:
            (folder / "config.pbtxt").write_text(config.format(name=name, side=side))
        return folder

    return put


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
