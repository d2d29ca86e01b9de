"""Which parameters are learnt how fast."""

from __future__ import annotations

from typing import Any

from timm.optim import param_groups_layer_decay
from torch import nn


def parameter_groups(module: nn.Module, decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Give AdamW's groups of parameters.

    Parameters
    ----------
    module
        What is trained; layers are told apart where its ``network`` is one of timm's.
    decay
        Weight decay; not of biases and normalisations.
    layer_decay
        The learning rate of each layer over that of the one above it; 1: all alike.

    Returns
    -------
    list of dict
        ``params``, ``weight_decay`` and, where layers differ, ``lr_scale``.
    """
    network = getattr(module, "network", None)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if layer_decay < 1.0 and isinstance(network, nn.Module) and hasattr(network, "group_matcher"):
        groups: list[dict[str, Any]] = param_groups_layer_decay(network, weight_decay=decay, layer_decay=layer_decay)
        inside = {id(parameter) for parameter in network.parameters()}
        rest = [parameter for parameter in trained if id(parameter) not in inside]
        return [*groups, *_plain(rest, decay)]
    return _plain(trained, decay)


def _plain(trained: list[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
