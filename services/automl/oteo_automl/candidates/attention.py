"""Where in an image the evidence for an answer lies: class activation maps, as part of the graph.

Zhou et al., "Learning deep features for discriminative localization" (CVPR 2016): where the logits are a linear function of the mean of the
last feature map, the map weighted by the class's weights is how much each place adds to the logit. That is exact, not an approximation by
gradients, and costs one small product. Where a rectifier or a layer normalisation comes after the mean, units that are off and the spread that
is divided by are taken as they are at the image's own mean: the places still add up to the logit.

Softmax does not change when the same is added to every class's logit, so raw weights mean nothing by themselves: the mean over the classes is
taken off first, and a map says what speaks for the class rather than for another.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from oteo_automl.candidates.heads import LinearHead, Standardise
from oteo_automl.candidates.modules import Blend, Chain, SavedModule, to_planes
from oteo_automl.candidates.networks import NetworkClassifier
from oteo_automl.candidates.patches import GRID, PatchFeatures

_log = logging.getLogger(__name__)

_KNOWN = "oteo_has_maps"
_EPSILON = 1e-6
_ALIKE = 1e-3


def map_size(module: nn.Module, height: int, width: int, channels: int) -> tuple[int, int] | None:
    """Give the height and width of a module's maps for images of this size; None where it has none.

    Networks of timm that end in a global mean, linear classifiers on frozen features of such or on learnt patches, and blends of which one
    part has maps, have them. Descriptors of a whole image, trees, kernels and neighbours do not say where.
    """
    try:
        if not _attends(module):
            return None
        with torch.no_grad():
            _, maps = class_maps(module, torch.zeros((1, height, width, channels)))
    except Exception as error:  # noqa: BLE001 (networks of any making come here: one that takes another size, or has no such parts, has no maps)
        _log.info("no attention map of %s: %s", type(module).__name__, error)
        return None
    # One cell is no map.
    return None if maps.shape[2] * maps.shape[3] < 4 else (int(maps.shape[2]), int(maps.shape[3]))


def class_maps(module: nn.Module, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Give logits and what each place adds to them.

    Parameters
    ----------
    module
        One that `map_size` gave a size for.
    image
        ``(N, H, W, C)`` as the module takes it.

    Returns
    -------
    logits, maps
        ``(N, K)`` and ``(N, K, h, w)``. Means of the maps over places and the logits differ by a constant of each class.
    """
    if isinstance(module, NetworkClassifier):
        features = module.network.forward_features((to_planes(image) - module.mean) / module.spread)
        return module.network.forward_head(features), _project(_slopes(module.network, features), features)
    if isinstance(module, Blend):
        return _blended(module, image)
    parts = _linear_parts(module)
    if parts is None:
        raise TypeError(f"{type(module).__name__} has no maps")
    extractor, standardise, head = parts
    weight = head.linear.weight / standardise.scale
    if isinstance(extractor, NetworkClassifier):
        features = extractor.network.forward_features((to_planes(image) - extractor.mean) / extractor.spread)
        logits = head(standardise(features.mean(dim=(2, 3))))
        return logits, _project(weight.unsqueeze(0), features)
    values = extractor(image)
    standardised = standardise(values)
    # Features lie kind by kind, each with its grid of cells.
    share = (standardised[:, None, :] * head.linear.weight).unflatten(2, (-1, GRID, GRID)).sum(dim=2)
    return head(standardised), share * float(GRID * GRID)


def attention(logits: torch.Tensor, maps: torch.Tensor, *, several: bool = False) -> torch.Tensor:
    """Give the map of the first class, 0 to 1.

    Parameters
    ----------
    logits
        ``(N, K)``: which class is first.
    maps
        ``(N, K, h, w)``, of `class_maps`.
    several
        True where labels stand alone: nothing is taken off.

    Returns
    -------
    Tensor
        ``(N, h, w)`` float32: what speaks for the first class, as a share of the strongest place; 0 where a place speaks against it.
    """
    if not several:
        maps = maps - maps.mean(dim=1, keepdim=True)
    first = (logits >= logits.amax(dim=1, keepdim=True)).float()
    chosen = (maps * first[:, :, None, None]).sum(dim=1)
    positive = F.relu(chosen)
    most = positive.amax(dim=2).amax(dim=1)
    # Against the size of all there is: a map of rounding errors is no map.
    size = maps.abs().amax(dim=3).amax(dim=2).amax(dim=1)
    return positive / torch.maximum(most, 0.01 * size + _EPSILON)[:, None, None]


def _attends(module: nn.Module) -> bool:
    """Say whether a module has maps; found out once, as it runs networks and must not be part of what is exported."""
    known = module.__dict__.get(_KNOWN)
    if known is None:
        known = module.__dict__[_KNOWN] = _has_maps(module)
    return bool(known)


def _has_maps(module: nn.Module) -> bool:
    if isinstance(module, NetworkClassifier):
        return module.settings["classes"] > 0 and _explains(module)
    if isinstance(module, Blend):
        return any(_attends(part) for part in module.parts)
    parts = _linear_parts(module)
    if parts is None:
        return False
    return isinstance(parts[0], PatchFeatures) or _pools_by_mean(parts[0])


def _linear_parts(module: nn.Module) -> tuple[SavedModule, Standardise, LinearHead] | None:
    """Take a linear classifier on features apart; None for anything else."""
    flat: list[nn.Module] = []

    def unpack(part: nn.Module) -> None:
        if isinstance(part, Chain):
            for inner in part.parts:
                unpack(inner)
        else:
            flat.append(part)

    unpack(module)
    if len(flat) != 3:
        return None
    extractor, standardise, head = flat
    if isinstance(extractor, NetworkClassifier | PatchFeatures) and isinstance(standardise, Standardise) and isinstance(head, LinearHead):
        return extractor, standardise, head
    return None


def _blended(module: Blend, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    settings = module.settings
    total: torch.Tensor | None = None
    maps: list[torch.Tensor] = []
    for part, weight, temperature in zip(module.parts, settings["weights"], settings["temperatures"], strict=True):
        if _attends(part):
            logits, found = class_maps(part, image)
            maps.append(found * (weight / temperature))
        else:
            logits = part(image)
        term = module.mixed(logits, temperature) * weight
        total = term if total is None else total + term
    if total is None or not maps:
        raise TypeError("a blend of parts without maps")
    height, width = max(int(one.shape[2]) for one in maps), max(int(one.shape[3]) for one in maps)
    resized = [
        one if (int(one.shape[2]), int(one.shape[3])) == (height, width) else F.interpolate(one, size=(height, width), mode="bilinear")
        for one in maps
    ]
    return total, torch.stack(resized, dim=0).sum(dim=0)


def _project(slopes: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Weight ``(N, C, h, w)`` by slopes ``(N or 1, K, C)``: ``(N, K, h, w)``."""
    height, width = int(features.shape[2]), int(features.shape[3])
    found: torch.Tensor = torch.matmul(slopes, features.flatten(2))
    return found.reshape(-1, int(slopes.shape[1]), height, width)


def _slopes(network: Any, features: torch.Tensor) -> torch.Tensor:
    """Give how the logits change with the mean features, ``(N or 1, K, C)``."""
    weight: torch.Tensor = network.get_classifier().weight.flatten(1)
    pooled = features.mean(dim=(2, 3))
    norm = getattr(getattr(network, "head", None), "norm", None)
    if isinstance(norm, nn.LayerNorm):
        centred = pooled - pooled.mean(dim=1, keepdim=True)
        spread = torch.sqrt((centred * centred).mean(dim=1, keepdim=True) + norm.eps)
        scaled = weight * norm.weight
        # What all features have in common is taken off by the normalisation.
        slopes: torch.Tensor = (scaled - scaled.mean(dim=1, keepdim=True)).unsqueeze(0) / spread[:, :, None]
        return slopes
    if _late_convolution(network):
        hidden = network.norm_head(network.conv_head(pooled[:, :, None, None])).flatten(1)
        last = network.norm_head
        gain = last.weight / torch.sqrt(last.running_var + last.eps)
        inner = network.conv_head.weight.flatten(1) * gain[:, None]
        return torch.matmul(weight.unsqueeze(0) * (hidden > 0).float()[:, None, :], inner)
    return weight.unsqueeze(0)


def _late_convolution(network: Any) -> bool:
    """Say whether a pointwise convolution with a rectifier comes after the mean, as in MobileNetV4."""
    names = [name for name, _ in network.named_children()]
    if "conv_head" not in names or "global_pool" not in names or names.index("conv_head") < names.index("global_pool"):
        return False
    norm = getattr(network, "norm_head", None)
    return isinstance(norm, nn.BatchNorm2d) and isinstance(getattr(norm, "act", None), nn.ReLU)


def _pools_by_mean(extractor: SavedModule) -> bool:
    """Say whether a network without a head gives the mean of its last feature map."""
    if not isinstance(extractor, NetworkClassifier):
        return False
    side = 64
    with torch.no_grad():
        planes = torch.linspace(-1, 1, side * side).view(1, 1, side, side).expand(1, extractor.settings["channels"], side, side)
        features = extractor.network.forward_features(planes)
        if features.ndim != 4:
            return False
        pooled = extractor.network.forward_head(features)
    mean = features.mean(dim=(2, 3))
    return pooled.shape == mean.shape and bool(torch.allclose(pooled, mean, atol=1e-4, rtol=1e-3))


def _explains(module: NetworkClassifier) -> bool:
    """Say whether the head is of a kind that is known here: by its parts, or by trying that slopes times means give the logits."""
    network, side = module.network, 64
    with torch.no_grad():
        ramp = torch.linspace(-1, 1, side * side).view(1, 1, side, side)
        planes = torch.cat([ramp, ramp.flip(3).sin()]).expand(2, module.settings["channels"], side, side)
        features = network.forward_features(planes)
        if features.ndim != 4 or not isinstance(network.get_classifier(), nn.Linear):
            return False
        if _late_convolution(network):
            return True
        logits, pooled = network.forward_head(features), features.mean(dim=(2, 3))
        if network.get_classifier().weight.shape[1] != pooled.shape[1]:
            return False
        left = logits - torch.matmul(_slopes(network, features), pooled.unsqueeze(2)).squeeze(2)
    # What is left must be the bias, the same for both.
    return float((left[0] - left[1]).abs().max()) <= _ALIKE * (1.0 + float(logits.abs().max()))
