"""What may be published beside a proven graph: variants, and TensorRT in Triton's configuration; the same for every task."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from oteo_automl.packaging.bfloat16 import serve_bf16
from oteo_automl.packaging.tensorrt import accelerated
from oteo_automl.packaging.variants import Served, VariantRequest, make_variants
from oteo_automl.publishing import RESERVE_SECONDS, FinishContext, prove, serving_parameters
from oteo_core.graphs.config import PREFERRED_BATCHES, bf16_config_pbtxt
from oteo_core.graphs.outputs import Output
from oteo_core.graphs.parity import BATCH, Parity, ParityClient, parity_name
from oteo_core.packages import ModelPackage


@dataclass(slots=True)
class Proof:
    """A graph that a Triton has answered rightly with, and by what.

    Parameters
    ----------
    config, files
        Triton's configuration, and the files by path below the model's folder.
    images, outputs, expected
        Prepared images ``(N, H, W, C)``, the graph's outputs and what PyTorch gives for them, in the outputs' order.
    batch
        Images in a request.
    """

    config: str
    files: Mapping[str, bytes]
    images: NDArray[Any]
    outputs: Sequence[Output]
    expected: Sequence[NDArray[Any]]
    batch: int = BATCH


def add_extras(
    ctx: FinishContext,
    client: ParityClient,
    package: ModelPackage,
    proof: Proof,
    variants: VariantRequest | None,
    tensorrt: str,
    *,
    deadline: float,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, bytes]:
    """Make what is asked for beside the graph, and say in the manifest's details what was kept.

    Parameters
    ----------
    ctx, client
        The job, and a Triton.
    package
        Its ``details`` get ``variants`` and ``tensorrt``, where they are asked for.
    proof
        What was proven; its configuration is changed where TensorRT answers rightly.
    variants, tensorrt
        What is asked for; None and empty: nothing.
    deadline
        Of everything, seconds since 1970; time is left for the report.
    sleep
        How to wait.

    Returns
    -------
    dict
        Files by path inside the package.
    """
    if tensorrt:
        given = dict(zip([one.name for one in proof.outputs], proof.expected, strict=True))

        def proven(tried: str, wanted: Sequence[Output]) -> Parity:
            theirs = [given[one.name] for one in wanted]
            return prove(ctx, client, tried, proof.files, proof.images, wanted, theirs, deadline=deadline, sleep=sleep, batch=proof.batch)

        proof.config, package.details["tensorrt"] = accelerated(proven, proof.config, proof.outputs, tensorrt)
    ctx.check()
    warm = (1, min(PREFERRED_BATCHES[0], proof.batch))
    bfloat16 = bf16_config_pbtxt(package.triton_model, package.input, proof.outputs, parameters=serving_parameters(package), warm=warm)

    def server(images: NDArray[Any]) -> Served:
        name = parity_name(ctx.operation_id.removeprefix("operations/"))
        return serve_bf16(client, name, proof.config, bfloat16, proof.files, proof.outputs, images, batch=proof.batch, check=ctx.check)

    made = make_variants(variants, proof.files["1/model.onnx"], proof.outputs, deadline=deadline - 0.3 * RESERVE_SECONDS, server=server)
    if made.details:
        package.details["variants"] = made.details
    return made.files
