"""TENT: the affine parameters of the normalisations are taught to make answers on shifted images certain, without any truth.

Wang, Shelhamer, Liu, Olshausen and Darrell, "Tent: fully test-time adaptation by entropy minimization", ICLR 2021: batch statistics of the shifted images,
entropy of the answers as the loss, Adam on scale and shift alone. There it goes on as images come; here it is done over the given images, and what is
served is a model that stands still: after the last episode the statistics are measured once more over all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from oteo_translate.adaptation.adabn import MOST_IMAGES
from oteo_translate.adaptation.base import (
    BATCH_NORMS,
    NETWORK,
    Adaptation,
    AdaptedModel,
    adaptation,
    images_at_once,
    late,
    parts_of,
    publishable,
)
from oteo_translate.domains import Domain
from oteo_translate.methods.base import FitContext, Parameters
from oteo_translate.tasks.model import TaskModel

_PART = 16
"""Images of a step: smaller parts make better use of few images, larger ones have steadier statistics."""

_TINY = 1e-6
_SEVERAL = ("multi_label_classification", "detection")


@adaptation
class Tent(Adaptation):
    """See the module's docstring."""

    name = "tent"
    summary = "Scale and shift of the normalisations are trained to make answers on the shifted images certain (Wang et al. 2021)."
    least = 8
    needs: ClassVar[tuple[str, ...]] = (NETWORK, BATCH_NORMS)
    cost = 15.0

    def grid(self) -> tuple[Mapping[str, Any], ...]:
        """Once over the images, with the paper's step."""
        return ({"rate": 0.001, "episodes": 2},)

    def read(self, given: Parameters) -> dict[str, Any]:
        """See `Adaptation`."""
        return {"rate": given.number("rate", 0.001, 0.0, 1.0), "episodes": given.count("episodes", 2, 0, 1000)}

    def adapt(self, model: TaskModel, shifted: Domain, home: Domain, parameters: Mapping[str, Any], context: FitContext) -> AdaptedModel:
        """Adapt; ``rate``: Adam's step; ``episodes``: so many times over the images."""
        network = self.check(model, shifted, home)
        settings = self.settings(parameters)
        state = {name: value.requires_grad_() for name, value in network.affine().items()}
        optimiser = torch.optim.Adam(list(state.values()), lr=settings["rate"], betas=(0.9, 0.999))
        size = min(_PART, images_at_once(model))
        curve: list[float] = []
        for episode in range(settings["episodes"]):
            if late(context):
                break
            for planes in parts_of(shifted.images, size, context, f"{self.name}-{episode}", most=MOST_IMAGES):
                if late(context):
                    break
                loss = entropy(model.task, network.run(planes, state=state, batch_norms="batch"))
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                if all(torch.isfinite(value.grad).all() for value in state.values() if value.grad is not None):
                    optimiser.step()
                curve.append(float(loss.detach()))
                context.progress(len(curve) / max(1.0, settings["episodes"] * math.ceil(len(shifted) / size)), "entropy")
        found = {name: value.detach() for name, value in state.items()}
        parts = parts_of(shifted.images, images_at_once(model), context, self.name, most=MOST_IMAGES)
        measured = network.measure(parts, found)
        adapted = network.with_tensors(found).with_statistics(measured)
        words = {"steps": len(curve), "entropy_before": curve[0] if curve else None, "entropy_after": curve[-1] if curve else None}
        return publishable(model, adapted, shifted, settings | words)


def entropy(task: str, outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Give the mean entropy of answers, as a share of the largest there can be, 0 to 1.

    Of a class or of each pixel's class that of ``probabilities`` along their second axis; of labels and of boxes' scores that of yes and no. Boxes count by
    how likely they are: of the hundreds that a detector lists most are nothing, surely.
    """
    if task in _SEVERAL:
        chances = outputs["scores" if task == "detection" else "probabilities"].clamp(_TINY, 1.0 - _TINY)
        both = -(chances * chances.log() + (1.0 - chances) * (1.0 - chances).log()) / math.log(2.0)
        if task == "detection":
            weights = chances.detach()
            return (weights * both).sum() / weights.sum()
        return both.mean()
    chances = outputs["probabilities"].clamp_min(_TINY)
    return -(chances * chances.log()).sum(dim=1).mean() / math.log(chances.shape[1])
