"""Networks that somebody else has trained, as candidates: a file of tensors, the network's name, and the classes of its outputs.

A checkpoint is never trusted with code: safetensors, or PyTorch's own form with tensors alone. What Oteo exports as a PyTorch checkpoint is
read too, and says its network, normalisation and classes by itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

import timm
import torch

from oteo_automl.candidates.bank import IMAGENET_MEAN, IMAGENET_SPREAD
from oteo_automl.candidates.modules import dump_module
from oteo_automl.candidates.networks import NetworkClassifier
from oteo_automl.candidates.weights import SUFFIXES, fitting_tensors, read_state
from oteo_core.artifacts import split_uri
from oteo_core.errors import InvalidArgument, OteoError

PREFIX = "checkpoint-"
"""What the names of such candidates begin with."""

AS_IS = "-as-is"
"""What the name of one ends with that is tried without further training."""

_WRAPPINGS = ("", "network.", "model.", "backbone.", "encoder.", "net.", "network.network.")
"""Prefixes that training programs put before a network's own names."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that is asked for.

    Parameters
    ----------
    uri
        Of the file: a local path or any URI of fsspec; .safetensors, .pth, .pt or .bin.
    architecture
        timm's name of the network; may be empty for what Oteo exported.
    name
        For the candidates ``checkpoint-NAME`` and ``checkpoint-NAME-as-is``; empty: the file's.
    classes
        Of its outputs, in their order; empty: the dataset's in the dataset's order, if there are as many.
    """

    uri: str
    architecture: str = ""
    name: str = ""
    classes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The name, or one made from the file's: lower-case letters, digits and hyphens."""
        plain = re.sub(r"[^a-z0-9]+", "-", (self.name or PurePosixPath(self.uri).stem).lower()).strip("-")
        return plain or "unnamed"


@dataclass(frozen=True, slots=True)
class Given:
    """A checkpoint that was read: its network lies among the training's own checkpoints, ready for its classes.

    Parameters
    ----------
    label
        See `Checkpoint.label`.
    architecture
        timm's name.
    source
        ``checkpoint:LABEL@DIGEST``, for the report.
    fits
        True where its outputs are the dataset's classes, so that it can answer as it is.
    reason
        How its outputs and the classes were matched, in words.
    """

    label: str
    architecture: str
    source: str
    fits: bool
    reason: str

    @property
    def candidate(self) -> str:
        """Name of the candidate that is trained further; also what its speed and settings are remembered by."""
        return f"{PREFIX}{self.label}"

    @property
    def file(self) -> str:
        """Name of the network among the training's checkpoints."""
        return f"given/{self.label}.pt"

    def to_json(self) -> bytes:
        """Write it."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Given:
        """Read what `to_json` wrote."""
        return cls(**json.loads(data))


@dataclass(slots=True)
class _Content:
    state: dict[str, torch.Tensor]
    architecture: str
    mean: tuple[float, ...] | None
    spread: tuple[float, ...] | None


def read_checkpoint(asked: Checkpoint, classes: Sequence[str], channels: int, *, field: str = "checkpoints") -> tuple[Given, bytes]:
    """Read a checkpoint and fit it to a dataset's classes.

    Parameters
    ----------
    asked
        The checkpoint.
    classes
        The dataset's, in the order of its labels.
    channels
        Of the images.
    field
        Of the request, for errors.

    Returns
    -------
    given, network
        What it is, and the network with one output a class as `oteo_automl.candidates.modules.dump_module` writes it: the outputs of the
        checkpoint in the order of the classes where they fit, else a new last layer.

    Raises
    ------
    InvalidArgument
        ``BAD_CHECKPOINT``: no such file, not readable, of another network, or of no known one; ``CHECKPOINT_CLASSES``: its classes are as
        many as are named, and are not.
    """
    data, suffix = _read(asked, field)
    content = _content(asked, data, suffix, field)
    head, outputs = _fitted_head(asked, content, field)
    order, reason = _match(asked, outputs, classes, field)
    mean, spread = content.mean, content.spread
    if mean is None or spread is None or len(mean) != channels:
        config: Any = timm.get_pretrained_cfg(content.architecture, allow_unregistered=True)
        known = (tuple(config.mean), tuple(config.std)) if config is not None else (IMAGENET_MEAN, IMAGENET_SPREAD)
        mean, spread = known if channels == len(known[0]) else ((sum(known[0]) / 3,) * channels, (sum(known[1]) / 3,) * channels)
    state = dict(content.state)
    if order is not None:
        for key in head:
            state[key] = state[key][torch.tensor(order)]
    else:
        for key in head:
            del state[key]
    torch.manual_seed(0)
    network = NetworkClassifier(content.architecture, len(classes), channels, mean, spread)
    _fill(asked, network.network, state, field)
    digest = hashlib.sha256(data).hexdigest()[:16]
    given = Given(asked.label, content.architecture, f"checkpoint:{asked.label}@{digest}", order is not None, reason)
    return given, dump_module(network)


def load_given(data: bytes, drop: float = 0.0) -> NetworkClassifier:
    """Give the network of a checkpoint that was read, with this dropout before its head, ready to be trained."""
    content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    network = NetworkClassifier(**{**content["spec"]["settings"], "drop_rate": drop})
    network.load_state_dict(content["state"])
    return network


def _bad(asked: Checkpoint, why: str, field: str) -> InvalidArgument:
    return InvalidArgument(f"the checkpoint {asked.uri} cannot be used: {why}", reason="BAD_CHECKPOINT", field=field)


def _read(asked: Checkpoint, field: str) -> tuple[bytes, str]:
    suffix = PurePosixPath(asked.uri).suffix.lower()
    if suffix not in SUFFIXES:
        raise _bad(asked, f"its name ends in {suffix or 'nothing'}, and {', '.join(SUFFIXES)} are read", field)
    try:
        store, path = split_uri(asked.uri)
        return store.read_bytes(path), suffix
    except OteoError as error:
        raise _bad(asked, error.message, field) from error


def _content(asked: Checkpoint, data: bytes, suffix: str, field: str) -> _Content:
    try:
        spec = None
        if suffix != ".safetensors":
            whole = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            spec = whole.get("spec") if isinstance(whole, dict) else None
        state = read_state(data, suffix)
    except Exception as error:
        raise _bad(
            asked, f"it is no file of tensors ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})", field
        ) from error
    architecture, mean, spread = asked.architecture, None, None
    while isinstance(spec, dict) and spec.get("kind") != "network":
        spec = spec.get("settings", {}).get("network")
    if isinstance(spec, dict):
        settings = spec["settings"]
        mean, spread = tuple(settings["mean"]), tuple(settings["spread"])
        if architecture and architecture != settings["architecture"]:
            raise _bad(asked, f"it says of itself that it is a {settings['architecture']}, and {architecture} was asked for", field)
        architecture = settings["architecture"]
    if not architecture:
        raise _bad(asked, "it does not say which network it is: name timm's architecture", field)
    if not timm.is_model(architecture.partition(".")[0]):
        near = ", ".join(timm.list_models(f"*{architecture.partition('_')[0]}*")[:5])
        raise _bad(asked, f"timm has no network {architecture!r}" + (f"; it has {near}" if near else ""), field)
    return _Content(_unwrapped(state, architecture), architecture, mean, spread)


def _unwrapped(state: dict[str, torch.Tensor], architecture: str) -> dict[str, torch.Tensor]:
    """Take off the prefix under which most of the network's own names are found."""
    with torch.device("meta"):
        own = set(timm.create_model(architecture, pretrained=False).state_dict())
    found = {prefix: sum(f"{prefix}{key}" in state for key in own) for prefix in _WRAPPINGS}
    best = max(found, key=lambda prefix: found[prefix])
    return {key.removeprefix(best): value for key, value in state.items() if key.startswith(best)}


def _fitted_head(asked: Checkpoint, content: _Content, field: str) -> tuple[list[str], int]:
    """Give the names of the last layer's tensors in the file, and how many outputs it has; no names where it has no last layer."""
    with torch.device("meta"):
        made = timm.create_model(content.architecture, pretrained=False, num_classes=7)
    classifier = made.default_cfg.get("classifier") or "fc"
    names = [classifier] if isinstance(classifier, str) else list(classifier)
    if len(names) != 1:
        raise _bad(asked, f"{content.architecture} has {len(names)} last layers ({', '.join(names)}); networks with one are taken", field)
    head = [key for key in (f"{names[0]}.weight", f"{names[0]}.bias") if key in content.state]
    return head, int(content.state[head[0]].shape[0]) if head else 0


def _match(asked: Checkpoint, outputs: int, classes: Sequence[str], field: str) -> tuple[list[int] | None, str]:
    """Give the output of each class, or None where a new last layer is due; and why, in words."""
    if outputs == 0:
        return None, "it has no last layer: one is learnt"
    if asked.classes:
        if len(asked.classes) != outputs:
            raise InvalidArgument(
                f"the checkpoint {asked.uri} has {outputs} outputs, and {len(asked.classes)} classes are named for them",
                reason="CHECKPOINT_CLASSES",
                field=field,
            )
        places = {_plain(name): index for index, name in enumerate(asked.classes)}
        missing = [name for name in classes if _plain(name) not in places]
        if missing:
            return None, f"it knows no {', '.join(missing)}: its last layer is learnt anew"
        return [places[_plain(name)] for name in classes], "its outputs are matched with the classes by name"
    if outputs == len(classes):
        return list(range(outputs)), "its outputs are taken for the classes in their order, since it does not name them"
    return None, f"it has {outputs} outputs and the dataset {len(classes)} classes: its last layer is learnt anew"


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name)).strip().casefold()


def _fill(asked: Checkpoint, network: torch.nn.Module, state: dict[str, torch.Tensor], field: str) -> None:
    """Load the tensors; a first layer for other channels is averaged over colours, and only a last layer may be missing."""
    own = network.state_dict()
    fitting = fitting_tensors(own, state)
    settings: Any = network.default_cfg
    last = settings.get("classifier")
    missing = [key for key, value in own.items() if value.dim() > 0 and key not in fitting and not key.startswith(f"{last}.")]
    if missing:
        wrong = next((key for key in missing if key in state), "")
        detail = f"; {wrong} has another shape, as of another input size or width" if wrong else f", among them {missing[0]}"
        raise _bad(asked, f"{len(missing)} of the {len(own)} tensors of {asked.architecture or 'its network'} are not in it{detail}", field)
    network.load_state_dict(fitting, strict=False)
