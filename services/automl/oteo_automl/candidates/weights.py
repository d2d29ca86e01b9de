"""Pretrained weights: by network name and digest, from a folder, a URI or the hub.

Where weights lie is said in one word: a folder or URI that holds ``NAME.safetensors`` (or .pth, .pt, .bin), or ``hub:`` for what timm's
authors, and for networks that are not timm's their own (`HUB_REPOSITORIES`), publish on the Hugging Face hub. ``#NAME@DIGEST,NAME@DIGEST`` at its end names the networks whose weights are used, and the first
eight or more hexadecimal digits of the SHA-256 that the file must have; a digest may be left out. A name may carry timm's tag
(``resnet18.a1_in1k``), which tells several weights of one network apart.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from oteo_core.artifacts import split_uri
from oteo_core.errors import FailedPrecondition, InvalidArgument

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
HUB = "hub:"
_FIELD = "pretrained_uri"
_CHOICE = re.compile(r"[\w.-]+(@[0-9a-fA-F]{8,64})?(,[\w.-]+(@[0-9a-fA-F]{8,64})?)*")
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")

HUB_REPOSITORIES: dict[str, str] = {}
"""Repositories on the hub of networks that timm does not know, by the names of their weights; a module that defines such a candidate adds it."""


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


@dataclass(frozen=True, slots=True)
class WeightsPlace:
    """Where weights lie: a folder, a URI or `HUB`; and, where only some are to be used, their names with the digests they must have."""

    uri: str
    chosen: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> WeightsPlace:
        """Read a place with what follows its last ``#``, if that is a choice of networks."""
        uri, mark, choice = text.rpartition("#")
        if not mark or not _CHOICE.fullmatch(choice):
            return cls(text)
        pairs = [one.partition("@") for one in choice.split(",")]
        return cls(uri, tuple((name, digest.lower()) for name, _, digest in pairs))

    def pick(self, name: str) -> tuple[str, str] | None:
        """Give the name of the file for a network, and the digest asked for (empty: any); None where it is not among those chosen."""
        if not self.chosen:
            return name, ""
        for known, digest in self.chosen:
            if known == name or known.partition(".")[0] == name:
                return known, digest
        return None


def find_weights(uri: str, name: str) -> Weights | None:
    """Give the weights of a network; None where there are none.

    Parameters
    ----------
    uri
        See the module; empty: none.
    name
        timm's name of the network.

    Raises
    ------
    InvalidArgument
        ``WRONG_DIGEST``: the file is not the one that was asked for.
    FailedPrecondition
        ``HUB_UNREACHABLE``.
    """
    place = WeightsPlace.parse(uri)
    picked = place.pick(name) if place.uri else None
    if picked is None:
        return None
    known, digest = picked
    weights = _from_hub(known) if place.uri == HUB else _from_folder(place.uri, known)
    if weights is not None:
        found = hashlib.sha256(weights.data).hexdigest()
        if not found.startswith(digest):
            raise InvalidArgument(
                f"the weights of {known} at {place.uri} have the digest {found}, and {digest} was asked for: they are another file",
                reason="WRONG_DIGEST",
                field=_FIELD,
            )
    return weights


def has_weights(uri: str, name: str) -> bool:
    """Say whether `find_weights` would find any, without reading them."""
    place = WeightsPlace.parse(uri)
    picked = place.pick(name) if place.uri else None
    if picked is None:
        return False
    if place.uri == HUB:
        return _hub_file(picked[0]) is not None
    store, prefix = split_uri(place.uri)
    return any(store.exists("/".join(part for part in (prefix, f"{picked[0]}{suffix}") if part)) for suffix in SUFFIXES)


def _from_folder(uri: str, name: str) -> Weights | None:
    store, prefix = split_uri(uri)
    for suffix in SUFFIXES:
        path = "/".join(part for part in (prefix, f"{name}{suffix}") if part)
        if store.exists(path):
            return Weights(name, store.read_bytes(path), suffix)
    return None


def _hub_file(name: str) -> tuple[str, str] | None:
    """Give repository and file of a network's weights on the hub; None where nobody that is known of publishes any."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    repository = HUB_REPOSITORIES.get(name, "")
    files: tuple[str, ...] = _HUB_FILES
    if not repository:
        import timm

        config: Any = timm.get_pretrained_cfg(name, allow_unregistered=True)
        if config is None or not config.hf_hub_id:
            return None
        repository = str(config.hf_hub_id)
        files = (str(config.hf_hub_filename), *_HUB_FILES) if config.hf_hub_filename else _HUB_FILES
    for file in files:
        if isinstance(try_to_load_from_cache(repository, file), str):
            return repository, file
    with _reaching_the_hub(name):
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        return next(((repository, file) for file in files if api.file_exists(repository, file)), None)


def _from_hub(name: str) -> Weights | None:
    from huggingface_hub import hf_hub_download

    found = _hub_file(name)
    if found is None:
        return None
    with _reaching_the_hub(name):
        path = Path(hf_hub_download(*found, endpoint=os.environ.get("HF_ENDPOINT")))
    return Weights(name, path.read_bytes(), path.suffix)


@contextmanager
def _reaching_the_hub(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Whatever the hub's client raises: it speaks through several HTTP libraries.
        raise FailedPrecondition(
            f"the hub of pretrained weights cannot be reached for those of {name} ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else ''}): give a folder of weights instead, fill the hub's cache on a machine that reaches it, "
            "or name the networks whose weights are there (hub:#NAME,NAME)",
            reason="HUB_UNREACHABLE",
            field=_FIELD,
        ) from error


def read_state(data: bytes, suffix: str) -> dict[str, torch.Tensor]:
    """Read a state dictionary: safetensors, or PyTorch's own form without any code; what training scripts wrap around it is taken off.

    Raises
    ------
    ValueError
        It is none.
    """
    if suffix == ".safetensors":
        from safetensors.torch import load  # comes with timm

        state: Any = load(data)
    else:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        for key in ("state_dict_ema", "model_ema", "state_dict", "model", "state"):
            if isinstance(state, dict) and isinstance(state.get(key), dict):
                state = state[key]
    if not isinstance(state, dict) or not any(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError("it holds no tensors by name")
    return {str(key).removeprefix("module."): value for key, value in state.items() if isinstance(value, torch.Tensor)}


def load_weights(network: nn.Module, weights: Weights) -> None:
    """Put weights into a network; its last layer, and a first one for other channels, may differ.

    Raises
    ------
    InvalidArgument
        BAD_WEIGHTS: the file is not a state dictionary of this network.
    """
    try:
        state = read_state(weights.data, weights.suffix)
    except Exception as error:
        raise InvalidArgument(
            f"{weights.name}{weights.suffix} cannot be read as weights: {error}", reason="BAD_WEIGHTS", field=_FIELD
        ) from error
    own = network.state_dict()
    fitting = fitting_tensors(own, state)
    parameters = [key for key, value in own.items() if value.dim() > 0]
    missing = [key for key in parameters if key not in fitting]
    if len(missing) > max(4, len(parameters) // 10):
        raise InvalidArgument(
            f"{weights.name}{weights.suffix} fits only {len(fitting)} of {len(parameters)} parts of {weights.name}; is it that network's?",
            reason="BAD_WEIGHTS",
            field=_FIELD,
        )
    network.load_state_dict(fitting, strict=False)


def fitting_tensors(own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give the tensors of a state that a network's own have a place for; a first layer for images of other channels is made to fit."""
    fitting: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if key not in own:
            continue
        if own[key].shape == value.shape:
            fitting[key] = value
        elif own[key].dim() == 4 and own[key].shape[0] == value.shape[0] and own[key].shape[2:] == value.shape[2:]:
            # The first convolution, for images of other channels: the mean over colours, times as many as there were.
            mean = value.float().mean(dim=1, keepdim=True) * (value.shape[1] / own[key].shape[1])
            fitting[key] = mean.expand_as(own[key]).clone()
    return fitting
