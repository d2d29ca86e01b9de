"""Pretrained weights: by network name, from a folder or a URI, with their digest."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import torch
from torch import nn

from oteo_core.artifacts import split_uri
from oteo_core.errors import InvalidArgument

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True, slots=True)
class Weights:
    """A file of weights: the network's name, the file's bytes and format, and where it came from as ``pretrained:NAME@DIGEST``."""

    name: str
    data: bytes
    suffix: str

    @property
    def source(self) -> str:
        """Name and digest, for the report."""
        return f"pretrained:{self.name}@{hashlib.sha256(self.data).hexdigest()[:16]}"


def find_weights(uri: str, name: str) -> Weights | None:
    """Give the weights of a network from a folder or URI that holds ``NAME.safetensors`` (or .pth, .pt, .bin); None where there are none."""
    if not uri:
        return None
    store, prefix = split_uri(uri)
    for suffix in SUFFIXES:
        path = "/".join(part for part in (prefix, f"{name}{suffix}") if part)
        if store.exists(path):
            return Weights(name, store.read_bytes(path), suffix)
    return None


def has_weights(uri: str, name: str) -> bool:
    """Say whether `find_weights` would find any, without reading them."""
    if not uri:
        return False
    store, prefix = split_uri(uri)
    return any(store.exists("/".join(part for part in (prefix, f"{name}{suffix}") if part)) for suffix in SUFFIXES)


def load_weights(network: nn.Module, weights: Weights) -> None:
    """Put weights into a network; its last layer, and a first one for other channels, may differ.

    Raises
    ------
    InvalidArgument
        BAD_WEIGHTS: the file is not a state dictionary of this network.
    """
    try:
        if weights.suffix == ".safetensors":
            from safetensors.torch import load  # comes with timm

            state = load(weights.data)
        else:
            state = torch.load(io.BytesIO(weights.data), map_location="cpu", weights_only=True)
            for key in ("state_dict_ema", "state_dict", "model"):
                state = state.get(key, state)
    except Exception as error:
        raise InvalidArgument(
            f"{weights.name}{weights.suffix} cannot be read as weights: {error}", reason="BAD_WEIGHTS", field="pretrained_uri"
        ) from error
    own = network.state_dict()
    fitting = {}
    for key, value in state.items():
        key = key.removeprefix("module.")
        if key not in own:
            continue
        if own[key].shape == value.shape:
            fitting[key] = value
        elif own[key].dim() == 4 and own[key].shape[0] == value.shape[0] and own[key].shape[2:] == value.shape[2:]:
            # The first convolution, for images of other channels: the mean over colours, times as many as there were.
            mean = value.float().mean(dim=1, keepdim=True) * (value.shape[1] / own[key].shape[1])
            fitting[key] = mean.expand_as(own[key]).clone()
    parameters = [key for key, value in own.items() if value.dim() > 0]
    missing = [key for key in parameters if key not in fitting]
    if len(missing) > max(4, len(parameters) // 10):
        raise InvalidArgument(
            f"{weights.name}{weights.suffix} fits only {len(fitting)} of {len(parameters)} parts of {weights.name}; is it that network's?",
            reason="BAD_WEIGHTS",
            field="pretrained_uri",
        )
    network.load_state_dict(fitting, strict=False)
