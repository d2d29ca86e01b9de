"""Triton's configuration of a package, as NVIDIA's ``onnxruntime`` backend reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from oteo_core.graphs.outputs import Output
from oteo_core.images import InputPolicy

MAX_BATCH = 32
PREFERRED_BATCHES = (4, 8, 16)
QUEUE_DELAY_MICROSECONDS = 50
"""Longest wait for others to share a batch, which a lone request waits in vain; requests that come while the model works share the next batch without it.

Measured by ``benchmarks/predict_delay.py``: with 500 a lone request is answered half a millisecond later, and many callers are not answered faster beyond doubt.
"""

OUTPUT_TYPES = {"FP32": "TYPE_FP32", "INT64": "TYPE_INT64", "UINT8": "TYPE_UINT8"}
INPUT_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}


def parameter_lines(parameters: Mapping[str, str]) -> str:
    """Write a configuration's parameters, in the order of their names."""
    return "".join(
        f"parameters {{\n  key: {json.dumps(key)}\n  value: {{ string_value: {json.dumps(value)} }}\n}}\n"
        for key, value in sorted(parameters.items())
    )


def config_pbtxt(
    name: str,
    policy: InputPolicy,
    outputs: Sequence[Output],
    *,
    parameters: Mapping[str, str],
    max_batch: int = MAX_BATCH,
    preferred: Sequence[int] = PREFERRED_BATCHES,
    queue_delay: int = QUEUE_DELAY_MICROSECONDS,
) -> str:
    """Write ``config.pbtxt``.

    Parameters
    ----------
    name
        Triton's name of the model.
    policy
        What it takes.
    outputs
        What the graph gives.
    parameters
        Words for the gateway; ``oteo_digest`` is the package's digest.
    max_batch, preferred, queue_delay
        Dynamic batching; the delay in microseconds.

    Returns
    -------
    str
        One instance on a GPU where Triton has one, else on the processor (``KIND_AUTO``), warmed up with one image and with a batch
        before it is called ready. FP32 throughout.
    """
    sizes = [size for size in preferred if 1 < size <= max_batch]
    batching = (
        f"  preferred_batch_size: [ {', '.join(map(str, sizes))} ]\n" if sizes else ""
    ) + f"  max_queue_delay_microseconds: {queue_delay}\n"
    warmups = "".join(_warmup(policy, size, f"batch_size: {size}", "") for size in sorted({1, *sizes[:1]}))
    return (
        f"name: {json.dumps(name)}\n"
        'backend: "onnxruntime"\n'
        f"max_batch_size: {max_batch}\n"
        f"{_tensors(policy, outputs, '')}"
        "version_policy { specific { versions: [ 1 ] } }\n"
        "instance_group {\n  count: 1\n  kind: KIND_AUTO\n}\n"
        f"dynamic_batching {{\n{batching}}}\n"
        f"{parameter_lines(parameters)}{warmups}"
    )


def bf16_config_pbtxt(
    name: str,
    policy: InputPolicy,
    outputs: Sequence[Output],
    *,
    parameters: Mapping[str, str],
    warm: Sequence[int] = (1, PREFERRED_BATCHES[0]),
) -> str:
    """Write ``config.pbtxt`` of the same graph run in bfloat16 on the processor, by Triton's ``openvino`` backend.

    Parameters
    ----------
    name, policy, outputs, parameters
        As of `config_pbtxt`.
    warm
        Batches of these sizes are run before it is called ready.

    Notes
    -----
    The batch is the first axis of the tensors, of any length, and ``max_batch_size`` is 0: NVIDIA's backend makes a model with a
    ``max_batch_size`` for batches of just that size and fills smaller ones up. So requests share no batch, which costs little: a processor
    that multiplies matrices is busy with one image. Instances are ``KIND_CPU``, which that backend asks for, also where there is a GPU. Names of
    parameters: Triton's OpenVINO backend, "Parameters".
    """
    warmups = "".join(_warmup(policy, size, "batch_size: 1", f"{size}, ") for size in sorted(set(warm)))
    return (
        f"name: {json.dumps(name)}\n"
        'backend: "openvino"\n'
        'default_model_filename: "model.onnx"\n'
        "max_batch_size: 0\n"
        f"{_tensors(policy, outputs, '-1, ')}"
        "version_policy { specific { versions: [ 1 ] } }\n"
        "instance_group {\n  count: 1\n  kind: KIND_CPU\n}\n"
        f"{parameter_lines({**parameters, 'HINT_BF16': 'YES', 'PERFORMANCE_HINT': 'LATENCY'})}{warmups}"
    )


def _dims(policy: InputPolicy, lead: str) -> str:
    return f"[ {lead}{policy.height}, {policy.width}, {policy.channels} ]"


def _tensors(policy: InputPolicy, outputs: Sequence[Output], lead: str) -> str:
    """Write inputs and outputs; `lead` is the batch's axis where it is one of theirs."""
    given = "".join(
        f'output {{\n  name: "{output.name}"\n  data_type: {OUTPUT_TYPES[output.datatype]}\n  dims: [ {lead}{", ".join(map(str, output.shape))} ]\n'
        + (f'  label_filename: "{LABELS}"\n' if output.labelled else "")
        + "}\n"
        for output in outputs
    )
    return f'input {{\n  name: "image"\n  data_type: {INPUT_TYPES[policy.dtype]}\n  dims: {_dims(policy, lead)}\n}}\n{given}'


def _warmup(policy: InputPolicy, size: int, batch: str, lead: str) -> str:
    return (
        f'model_warmup {{\n  name: {json.dumps(f"batch of {size}")}\n  {batch}\n  inputs {{\n    key: "image"\n'
        f"    value: {{ data_type: {INPUT_TYPES[policy.dtype]} dims: {_dims(policy, lead)} zero_data: true }}\n  }}\n}}\n"
    )


LABELS = "labels.txt"
"""File beside ``config.pbtxt`` with a class a line, for Triton's classification extension."""


def labels_txt(classes: Sequence[str]) -> str:
    """Write the class names, one a line; a line break inside a name becomes a blank."""
    return "".join(" ".join(name.split("\n")) + "\n" for name in classes)
