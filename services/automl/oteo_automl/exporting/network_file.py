"""``network.pt``: the network of a package as PyTorch has it, calibration included, without pickled code.

A package is served from its ONNX graph; TorchScript and checkpoints are made from this file. It holds ``format``, ``spec`` (kind and
settings of every module, JSON values) and ``state`` (the tensors by name), and `torch.load` reads it with ``weights_only=True``.
"""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import nn

from oteo_automl.exporting.catalogue import NETWORK
from oteo_automl.exporting.wrappings import describe, rebuild
from oteo_core.errors import DataLoss

FORMAT = 1


def network_files(served: nn.Module) -> dict[str, bytes]:
    """Give the files by which a package keeps its network: ``network.pt``.

    Parameters
    ----------
    served
        What is exported: a network in the wrappings of `oteo_automl.exporting.wrappings`.

    Returns
    -------
    dict
        Contents by name; empty where the module is of a kind that cannot be written down as settings and tensors: such a package is
        exported as ONNX, Triton repository and MLflow model alone.
    """
    spec = describe(served)
    if spec is None:
        return {}
    buffer = io.BytesIO()
    state = {name: value.detach().cpu().contiguous() for name, value in served.state_dict().items()}
    torch.save({"format": FORMAT, "spec": spec, "state": state}, buffer)
    return {NETWORK: buffer.getvalue()}


def read_network(data: bytes) -> dict[str, Any]:
    """Read ``network.pt``: ``format``, ``spec`` and ``state``; runs nothing of what it holds.

    Raises
    ------
    DataLoss
        ``BROKEN_PACKAGE``: it cannot be read, or is of a newer form.
    """
    try:
        content: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        form = content["format"]
    except Exception as error:
        raise DataLoss(f"{NETWORK} of the package cannot be read: {error}", reason="BROKEN_PACKAGE") from error
    if form != FORMAT:
        raise DataLoss(f"{NETWORK} is of form {form}, and this program reads form {FORMAT}", reason="BROKEN_PACKAGE")
    return content


def load_network(data: bytes) -> nn.Module:
    """Build the served module of ``network.pt``, in evaluation mode, on the processor.

    Raises
    ------
    DataLoss
        ``BROKEN_PACKAGE``: it cannot be read, is of a kind that this version does not know, or its tensors do not fit.
    """
    content = read_network(data)
    try:
        served = rebuild(content["spec"])
        served.load_state_dict(content["state"])
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DataLoss(f"the network of {NETWORK} cannot be built by this version: {error}", reason="BROKEN_PACKAGE") from error
    return served.eval()
