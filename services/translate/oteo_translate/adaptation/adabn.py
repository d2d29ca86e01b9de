"""AdaBN: the batch normalisations get the statistics of the shifted images.

Li, Wang, Shi, Liu and Hou, "Revisiting batch normalization for practical domain adaptation", ICLR workshop 2017 (arXiv 1603.04779, 2016). The blend with
the home statistics by a prior that counts as so many images is of Schneider, Rusak, Eck, Bringmann, Brendel and Bethge, "Improving robustness against common
corruptions by covariate shift adaptation", NeurIPS 2020, equation 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from oteo_translate.adaptation.base import (
    BATCH_NORMS,
    NETWORK,
    Adaptation,
    AdaptedModel,
    adaptation,
    images_at_once,
    parts_of,
    publishable,
)
from oteo_translate.domains import Domain
from oteo_translate.methods.base import FitContext, Parameters
from oteo_translate.tasks.model import TaskModel
from oteo_translate.tasks.network import FrozenNetwork, Statistics

MOST_IMAGES = 512
"""Statistics of so many images are as good as those of more."""


@adaptation
class AdaBN(Adaptation):
    """See the module's docstring."""

    name = "adabn"
    summary = (
        "Batch normalisations take the statistics of the shifted images (Li et al. 2016), blended with home's (Schneider et al. 2020)."
    )
    needs: ClassVar[tuple[str, ...]] = (NETWORK, BATCH_NORMS)
    cost = 3.0

    def grid(self) -> tuple[Mapping[str, Any], ...]:
        """Alone, and with home counting as sixteen images."""
        return {"prior": 0}, {"prior": 16}

    def read(self, given: Parameters) -> dict[str, Any]:
        """See `Adaptation`."""
        return {"prior": given.number("prior", 0.0, 0.0, 1e6)}

    def adapt(self, model: TaskModel, shifted: Domain, home: Domain, parameters: Mapping[str, Any], context: FitContext) -> AdaptedModel:
        """Adapt; ``prior``: so many images' weight home's statistics have."""
        network = self.check(model, shifted, home)
        prior: float = self.settings(parameters)["prior"]
        parts = parts_of(shifted.images, images_at_once(model), context, self.name, most=MOST_IMAGES)
        measured = network.measure(parts)
        count = next(iter(measured.values())).count
        adapted = network.with_statistics(blend(network, measured, prior))
        return publishable(model, adapted, shifted, {"prior": prior, "images": count, "weight": count / (count + prior)})


def blend(network: FrozenNetwork, measured: Mapping[str, Statistics], prior: float) -> dict[str, Statistics]:
    """Blend measured statistics with those that the network has: weight N / (N + prior) for those measured on N images."""
    kept = network.kept_statistics()
    blended = {}
    for name, one in measured.items():
        weight = one.count / (one.count + prior) if prior > 0 else 1.0
        blended[name] = Statistics(
            weight * one.mean + (1.0 - weight) * kept[name].mean,
            weight * one.variance + (1.0 - weight) * kept[name].variance,
            one.count,
        )
    return blended
