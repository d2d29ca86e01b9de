"""Huang and Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization", ICCV 2017."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from oteo_core.graphs.modules import Spec, build, saved
from oteo_translate.domains import Domain
from oteo_translate.methods.base import STYLE, FitContext, Method, Parameters, Translation, method
from oteo_translate.methods.style.encoder import Encoder, encoder_for
from oteo_translate.methods.style.guided import carried
from oteo_translate.methods.style.optimising import style_images

STEPS = 300
_BATCH = 4
_RATE = 3e-3
_WIDTH = 64
_NARROWEST = 16
_STYLE, _IDENTITY = 3.0, 10.0
_KEEP_EVERY = 50
_IMAGES = 100
_COARSEST = 3


def figures(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Give mean and spread of each channel of ``(N, c, h, w)``: twice ``(N, c, 1, 1)``."""
    mean = features.mean((2, 3), keepdim=True)
    return mean, ((features - mean).square().mean((2, 3), keepdim=True) + 1e-5).sqrt()


def adapted(content: torch.Tensor, mean: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """Give features this mean and spread (the paper's equation 8)."""
    own_mean, own_spread = figures(content)
    return (content - own_mean) / own_spread * spread + mean


class Decoder(nn.Module):
    """Turn features ``(N, c, h, w)`` back into an image ``(N, C, H, W)``: convolutions, and a doubling while the size is too small by half."""

    def __init__(self, width: int, channels: int, doublings: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_convolution(width, _WIDTH), nn.ReLU()]
        before = _WIDTH
        for _ in range(doublings):
            # Half as many channels at twice the size, or the finest layer takes nearly all the time.
            after = max(_NARROWEST, before // 2)
            blocks += [nn.Upsample(scale_factor=2, mode="nearest"), _convolution(before, after), nn.ReLU()]
            before = after
        self.blocks = nn.Sequential(*blocks, _convolution(before, channels))

    def forward(self, features: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Give an image of this size, of about 0 to 1."""
        return functional.interpolate(self.blocks(features), size, mode="bilinear", align_corners=False)


def _convolution(before: int, after: int) -> nn.Conv2d:
    # Borders are mirrored, or a frame appears.
    return nn.Conv2d(before, after, 3, padding=1, padding_mode="reflect")


@saved
class AdainTranslation(Translation):
    """Give each image's features home's mean and spread, decode them, and carry the change over to the image at its own size.

    Parameters
    ----------
    channels
        Of the images.
    encoder
        `Encoder.spec`.
    width
        Channels of the features that are changed.
    level
        Their resolution, from the finest.
    doublings
        Of the decoder.
    """

    kind = "translation-adain"
    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, channels: int, encoder: Spec, width: int, level: int, doublings: int) -> None:
        super().__init__(channels=channels, encoder=encoder, width=width, level=level, doublings=doublings)
        found = build(encoder)
        assert isinstance(found, Encoder)
        self.encoder = found
        self.level = level
        self.decoder = Decoder(width, channels, doublings)
        self.register_buffer("mean", torch.zeros(1, width, 1, 1))
        self.register_buffer("spread", torch.ones(1, width, 1, 1))

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """See `Translation`."""
        size = (self.encoder.height, self.encoder.width)
        small = functional.interpolate(planes, size, mode="bilinear", align_corners=False)
        features = self.encoder.seen(small)[self.level]
        own = self.decoder(features, size)
        changed = self.decoder(adapted(features, self.mean, self.spread), size)
        # What the decoder cannot draw is in both, and falls out of their difference.
        return carried(planes, small, small + changed - own)


@method
class Adain(Method):
    """Adaptive instance normalisation."""

    name = "adain"
    kind = STYLE
    summary = (
        "Features are given home's mean and spread and decoded by a small network trained on both domains (AdaIN, Huang and Belongie 2017)."
    )
    cost = 60.0
    per_image = 0.05

    def read(self, given: Parameters) -> dict[str, Any]:
        """See `Method`."""
        return {"steps": given.count("steps", STEPS, 1, 100_000)}

    def fit(self, shifted: Domain, home: Domain, parameters: Mapping[str, Any], context: FitContext) -> Translation:
        """See `Method`; ``steps`` of training the decoder."""
        self.check(shifted, home)
        steps: int = self.settings(parameters)["steps"]
        encoder = encoder_for(context, home.channels).to(context.device)
        with torch.no_grad():
            homes = torch.cat(list(style_images(home, encoder, context, _IMAGES))).to(context.device)
            others = torch.cat(list(style_images(shifted, encoder, context, _IMAGES))).to(context.device)
            levels = encoder.seen(homes[:1])
        level = min(_COARSEST, len(levels)) - 1
        doublings = max(0, round(encoder.height / levels[level].shape[2]).bit_length() - 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            found = AdainTranslation(home.channels, encoder.spec(), int(levels[level].shape[1]), level, doublings)
        found.encoder = encoder
        found.to(context.device)
        self._train(found, homes, others, steps, context)
        with torch.no_grad():
            means, spreads = zip(*(figures(encoder.seen(one[None])[level]) for one in homes), strict=True)
            found.mean, found.spread = torch.cat(means).mean(0, keepdim=True), torch.cat(spreads).mean(0, keepdim=True)
        return found.cpu().eval()

    @staticmethod
    def _train(found: AdainTranslation, homes: torch.Tensor, others: torch.Tensor, steps: int, context: FitContext) -> None:
        decoder, encoder, level = found.decoder, found.encoder, found.level
        size = (encoder.height, encoder.width)
        descent = torch.optim.Adam(decoder.parameters(), lr=_RATE)
        first = 0
        kept = context.load("adain")
        if kept is not None:
            state = torch.load(io.BytesIO(kept), map_location=context.device, weights_only=True)
            decoder.load_state_dict(state["decoder"])
            descent.load_state_dict(state["descent"])
            first = int(state["step"])
        for step in range(first, steps):
            context.check()
            if time.time() > context.deadline:
                break
            # Keyed by the step: a fit that goes on after a kill draws what it would have drawn.
            draws = torch.Generator().manual_seed(context.seed * 1_000_003 + step)
            style = homes[torch.randint(len(homes), (_BATCH,), generator=draws).to(homes.device)]
            half = others[torch.randint(len(others), (_BATCH // 2,), generator=draws).to(homes.device)]
            content = torch.cat([half, style[: _BATCH // 2]])
            with torch.no_grad():
                seen = encoder.seen(content)[level]
                wanted = [figures(one) for one in encoder.seen(style)]
                target = adapted(seen, *wanted[level])
            made = encoder.seen(decoder(target, size))
            loss = (made[level] - target).square().mean() / target.square().mean().clamp(min=1e-6)
            for one, (mean, spread) in zip(made, wanted, strict=True):
                now_mean, now_spread = figures(one)
                unit = spread.square().mean().clamp(min=1e-6)
                loss = loss + _STYLE / len(made) * ((now_mean - mean).square().mean() + (now_spread - spread).square().mean()) / unit
            loss = loss + _IDENTITY * (decoder(seen, size) - content).square().mean() / content.var().clamp(min=1e-3)
            descent.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(decoder.parameters(), 5.0)
            descent.step()
            context.progress((step + 1) / steps, "training the decoder")
            if (step + 1) % _KEEP_EVERY == 0:
                buffer = io.BytesIO()
                torch.save({"decoder": decoder.state_dict(), "descent": descent.state_dict(), "step": step + 1}, buffer)
                context.save("adain", buffer.getvalue())
