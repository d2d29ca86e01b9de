"""Networks whose features say what an image shows and how it looks."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import nn

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import InvalidArgument
from oteo_core.graphs.modules import SavedModule, saved
from oteo_core.images import InputPolicy
from oteo_translate.methods.base import FitContext
from oteo_translate.tasks.network import FrozenNetwork
from oteo_translate.weights import find_weights_file, read_tensors

LEVELS = 4
"""Resolutions at most: from stride 1 or 2 to stride 8 or 16, where style is."""

WORKING_SIDE = 128
"""Pixels of the longer side at which images are looked at, at most: cost grows with its square, and style is coarse."""


class Encoder(SavedModule):
    """A frozen network with features at several resolutions.

    Attributes
    ----------
    height, width
        Pixels at which it looks at images; those of another size are brought to it.
    source
        Where pretrained weights came from, as ``pretrained:FILE@DIGEST`` with the first 16 digits of the SHA-256; empty: they are no pretrained ones.
    """

    height: int
    width: int
    source: str = ""

    def features(self, planes: torch.Tensor) -> list[torch.Tensor]:
        """Give the features of ``(N, C, H, W)`` float32 of 0 to 1: ``(N, c, h, w)`` each, fine to coarse, differentiably."""
        size = (self.height, self.width)
        return self.seen(torch.nn.functional.interpolate(planes, size, mode="bilinear", align_corners=False))

    def seen(self, planes: torch.Tensor) -> list[torch.Tensor]:
        """Give the features of planes of its own size."""
        raise NotImplementedError


@saved
class NetworkEncoder(Encoder):
    """The frozen task model's own encoder, carried along as its program.

    Parameters
    ----------
    policy
        The model's input, as JSON.
    count
        Bytes of the program.
    height, width
        See `Encoder`.
    """

    kind = "encoder-network"
    program: torch.Tensor

    def __init__(self, policy: str, count: int, height: int, width: int) -> None:
        super().__init__(policy=policy, count=count, height=height, width=width)
        self.height, self.width = height, width
        self.register_buffer("program", torch.zeros(count, dtype=torch.uint8))
        self._network: FrozenNetwork | None = None

    @classmethod
    def of(cls, network: FrozenNetwork) -> NetworkEncoder | None:
        """Make one; None where the network has no features."""
        if not network.depths():
            return None
        data = network.to_bytes()
        policy = network.policy
        for height, width in (_smaller(policy.height, policy.width), (policy.height, policy.width)):
            made = cls(policy.to_json(), len(data), height, width)
            made.program = torch.from_numpy(np.frombuffer(data, np.uint8).copy())
            made._network = network
            try:
                made.features(torch.zeros(1, policy.channels, height, width))
            except RuntimeError:
                # A program may have its input's size written into it.
                continue
            return made
        return None

    def seen(self, planes: torch.Tensor) -> list[torch.Tensor]:
        """See `Encoder`."""
        if self._network is None:
            policy = InputPolicy.from_json(self.settings["policy"])
            self._network = FrozenNetwork.from_bytes(self.program.cpu().numpy().tobytes(), policy)
        return self._network.features(planes, self._network.depths()[:LEVELS])


def _smaller(height: int, width: int) -> tuple[int, int]:
    share = min(1.0, WORKING_SIDE / max(height, width))
    # Multiples of 32: what halves five times stays whole.
    return tuple(max(32, round(side * share / 32) * 32) if share < 1 else side for side in (height, width))  # type: ignore[return-value]


_PLANS = {16: (2, 2, 3, 3), 19: (2, 2, 4, 4)}
_WIDTHS = (64, 128, 256, 512)


@saved
class VggEncoder(Encoder):
    """VGG (Simonyan and Zisserman, ICLR 2015) up to its fourth resolution: the network of the style papers.

    Parameters
    ----------
    depth
        16 or 19.
    """

    kind = "encoder-vgg"
    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, depth: int) -> None:
        super().__init__(depth=depth)
        self.height = self.width = WORKING_SIDE
        layers: list[nn.Module] = []
        self._kept: list[int] = []
        before = 3
        for level, (count, width) in enumerate(zip(_PLANS[depth], _WIDTHS, strict=True)):
            if level:
                layers.append(nn.MaxPool2d(2))
            for place in range(count):
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
                if place == 0:
                    self._kept.append(len(layers) - 1)
        # Numbers of the layers, and thereby names of the weights, are torchvision's.
        self.layers = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406))[None, :, None, None], persistent=False)
        self.register_buffer("spread", torch.tensor((0.229, 0.224, 0.225))[None, :, None, None], persistent=False)
        self.requires_grad_(False)

    def seen(self, planes: torch.Tensor) -> list[torch.Tensor]:
        """See `Encoder`; what has not three channels is taken for grey."""
        coloured = planes if planes.shape[1] == 3 else planes.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        value = (coloured - self.mean) / self.spread
        found = []
        for place, layer in enumerate(self.layers[: self._kept[-1] + 1]):
            value = layer(value)
            if place in self._kept:
                found.append(value)
        return found


def open_encoder(uri: str) -> Encoder:
    """Read pretrained weights of VGG-16 or VGG-19.

    Parameters
    ----------
    uri
        A file, or a folder that holds one whose name begins with ``vgg16`` or ``vgg19``: ``.pth`` as torchvision publishes it, or
        ``.safetensors`` with the same names. A local path, or anything that fsspec opens.

    Raises
    ------
    InvalidArgument
        ``NO_ENCODER_WEIGHTS``: no such file; ``BAD_ENCODER_WEIGHTS``: it holds other tensors. No pickled code is run.
    """
    store, path = find_weights(uri)
    name = path.rsplit("/", 1)[-1]
    encoder = VggEncoder(19 if name.startswith("vgg19") else 16)
    data = store.read_bytes(path)
    try:
        tensors = read_tensors(name, data)
        wanted = encoder.layers.state_dict()
        encoder.layers.load_state_dict({key: tensors[f"features.{key}"].float() for key in wanted})
    except Exception as error:
        raise InvalidArgument(f"{name} does not hold the weights of its name: {error}", reason="BAD_ENCODER_WEIGHTS") from error
    encoder.source = f"pretrained:{name}@{hashlib.sha256(data).hexdigest()[:16]}"
    return encoder.eval()


def find_weights(uri: str) -> tuple[ArtifactStore, str]:
    """Find the file that `open_encoder` reads, without reading it; the store that it lies in, and its path there.

    Raises
    ------
    InvalidArgument
        ``NO_ENCODER_WEIGHTS``.
    """
    return find_weights_file(uri, ("vgg16", "vgg19"), "NO_ENCODER_WEIGHTS")


def encoder_for(context: FitContext, channels: int) -> Encoder:
    """Give the pretrained encoder where there is one, else the frozen model's own.

    Raises
    ------
    InvalidArgument
        ``NO_ENCODER``: there is neither.
    """
    if context.encoder is not None:
        return context.encoder
    network = context.network
    if network is not None and network.policy.channels != channels:
        raise InvalidArgument(f"the model takes {network.policy.channels} channels, the images have {channels}", reason="CHANNELS_MISMATCH")
    found = NetworkEncoder.of(network) if network is not None else None
    if found is None:
        raise InvalidArgument(
            "style needs a network to see with: neither are pretrained weights given, nor has the model a network of convolutions",
            reason="NO_ENCODER",
        )
    return found
