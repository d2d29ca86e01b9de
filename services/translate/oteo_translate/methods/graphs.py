"""Translations as they are served: an ONNX graph from image to image, alone on Triton and in an ensemble before the model."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from oteo_core.errors import FailedPrecondition, Internal
from oteo_core.graphs.config import INPUT_TYPES, MAX_BATCH, OUTPUT_TYPES, config_pbtxt, parameter_lines
from oteo_core.graphs.export import IR_VERSION, Exported, export_onnx, run_onnx
from oteo_core.graphs.modules import to_planes
from oteo_core.graphs.outputs import Output
from oteo_core.graphs.running import run_torch
from oteo_core.images import InputPolicy
from oteo_core.packages.translators import TRANSLATED
from oteo_translate.methods.base import Translation

_CHECKED_SIZES = ((1, 17, 24), (2, 40, 9))
_FREE_TOLERANCE = 2e-3


class ServedTranslation(torch.nn.Module):
    """A translation from prepared image to prepared image.

    Parameters
    ----------
    translation
        What is served.
    """

    def __init__(self, translation: Translation) -> None:
        super().__init__()
        self.translation = translation

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        """Translate ``(N, H, W, C)`` uint8, or float32 of 0 to 1; the answer is of the same type and shape."""
        found = self.translation(to_planes(image)).permute(0, 2, 3, 1)
        if image.dtype == torch.uint8:
            return ((found * 255.0).round().to(torch.uint8),)
        return (found.contiguous(),)


def translated_output(policy: InputPolicy) -> Output:
    """Give the output of a translation for a model with this input; one grey level of 8 bits counts as rounding."""
    shape = (policy.height, policy.width, policy.channels)
    if policy.dtype == "uint8":
        return Output(TRANSLATED, shape, "UINT8", tolerance=1.0)
    return Output(TRANSLATED, shape, "FP32", tolerance=1.0 / 255)


def export_translation(
    translation: Translation, policy: InputPolicy, check_images: NDArray[Any], metadata: Mapping[str, str] | None = None
) -> Exported:
    """Write a translation as a graph that takes what the model takes.

    Parameters
    ----------
    translation
        What is written.
    policy
        The model's input.
    check_images
        Prepared images ``(N, H, W, C)`` on which PyTorch and ONNX Runtime are compared, N >= 1.
    metadata
        Words to keep in the file.

    Returns
    -------
    Exported
        Input ``image`` ``[N, H, W, C]``, N free; output ``translated`` of the same type and shape.

    Raises
    ------
    FailedPrecondition
        ``NOT_EXPORTABLE``: the method optimises each image and has no graph.
    Internal
        ``EXPORT_FAILED``.
    """
    _refuse(translation)
    return export_onnx(ServedTranslation(translation), policy, [translated_output(policy)], check_images, metadata=metadata)


def export_any_size(translation: Translation, channels: int) -> bytes:
    """Write a translation as a graph for images of any size.

    Returns
    -------
    bytes
        ONNX; input ``image`` ``[N, H, W, C]`` float32 of 0 to 1, N, H and W free (H and W of 8 at least); output ``translated``.

    Raises
    ------
    FailedPrecondition
        ``NOT_EXPORTABLE``.
    Internal
        ``EXPORT_FAILED``: the graph does not answer as PyTorch does at other sizes than it was traced with.
    """
    _refuse(translation)
    served = ServedTranslation(translation).cpu().eval()
    free = {0: "batch", 1: "height", 2: "width"}
    with warnings.catch_warnings(), torch.inference_mode(), tempfile.TemporaryDirectory(prefix="oteo-export-") as folder:
        warnings.simplefilter("ignore")
        path = Path(folder) / "translator.onnx"
        torch.onnx.export(
            served,
            (torch.rand(2, 32, 48, channels, generator=torch.Generator().manual_seed(0)),),
            path,
            dynamo=False,
            opset_version=17,
            input_names=["image"],
            output_names=[TRANSLATED],
            dynamic_axes={"image": free, TRANSLATED: free},
        )
        model = onnx.load(path)
    model.ir_version = min(model.ir_version, IR_VERSION)
    model.producer_name, model.producer_version, model.doc_string = "oteo", "", ""
    onnx.checker.check_model(model, full_check=True)
    data = bytes(model.SerializeToString())
    draws = np.random.Generator(np.random.Philox(0))
    for count, height, width in _CHECKED_SIZES:
        images = draws.random((count, height, width, channels), dtype=np.float32)
        error = float(np.abs(run_onnx(data, images)[0] - run_torch(served, images)[0]).max())
        if not error <= _FREE_TOLERANCE:
            raise Internal(
                f"the graph of {translation.kind} is off by {error:.3g} on an image of {height} x {width}", reason="EXPORT_FAILED"
            )
    return data


def _refuse(translation: Translation) -> None:
    if not translation.exportable:
        raise FailedPrecondition(
            f"{translation.kind} optimises each image and cannot be written as a graph; it translates datasets, and is not served",
            reason="NOT_EXPORTABLE",
        )


def translator_pbtxt(name: str, policy: InputPolicy, parameters: Mapping[str, str]) -> str:
    """Write Triton's configuration of a translator alone."""
    return config_pbtxt(name, policy, [translated_output(policy)], parameters=parameters)


def ensemble_pbtxt(
    name: str,
    translator: str,
    model: str,
    policy: InputPolicy,
    outputs: Sequence[Output],
    *,
    parameters: Mapping[str, str],
    max_batch: int = MAX_BATCH,
) -> str:
    """Write Triton's configuration of an ensemble: the translator, then the model. To its callers it looks as the model does.

    Parameters
    ----------
    name
        Of the ensemble.
    translator, model
        Triton's names of the two, which have to be loaded before it.
    policy
        What the model takes, and therefore the ensemble.
    outputs
        What the model gives, and therefore the ensemble.
    parameters
        Words for the gateway.
    max_batch
        No more than either of the two takes.

    Returns
    -------
    str
        The text of ``config.pbtxt``.
    """
    dims = f"[ {policy.height}, {policy.width}, {policy.channels} ]"
    given = "".join(
        f'output {{\n  name: "{output.name}"\n  data_type: {OUTPUT_TYPES[output.datatype]}\n  dims: [ {", ".join(map(str, output.shape))} ]\n}}\n'
        for output in outputs
    )
    words = parameter_lines(parameters)
    # Within the ensemble the model's outputs keep their names; the picture in between takes one that no output has.
    between = "oteo_translated_image"
    first = _step(translator, {"image": "image"}, {TRANSLATED: between})
    second = _step(model, {"image": between}, {output.name: output.name for output in outputs})
    return (
        f"name: {json.dumps(name)}\n"
        'platform: "ensemble"\n'
        f"max_batch_size: {max_batch}\n"
        f'input {{\n  name: "image"\n  data_type: {INPUT_TYPES[policy.dtype]}\n  dims: {dims}\n}}\n'
        f"{given}"
        "version_policy { specific { versions: [ 1 ] } }\n"
        f"ensemble_scheduling {{\n{first}{second}}}\n"
        f"{words}"
    )


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    maps = "".join(f'    input_map {{ key: "{key}" value: "{value}" }}\n' for key, value in inputs.items())
    maps += "".join(f'    output_map {{ key: "{key}" value: "{value}" }}\n' for key, value in outputs.items())
    return f"  step {{\n    model_name: {json.dumps(model)}\n    model_version: -1\n{maps}  }}\n"
