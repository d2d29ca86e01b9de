"""Teaching the mask head: centres, and a mask for each object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from oteo_automl.candidates.lesson import Judgement
from oteo_automl.dense.segment.losses import cross_entropy_and_dice
from oteo_automl.dense.segment.masks import MASK_STRIDE, STRIDE, Heads, ServedMasks, mask_logits
from oteo_automl.dense.segment.objects import ObjectLesson, judged, looked_up, prepared_truth
from oteo_core.images import InputPolicy
from oteo_core.packages.answers import IGNORED
from oteo_core.packages.decoding.instances import decode_instances

if TYPE_CHECKING:
    from oteo_automl.candidates.training import Recipe

_MASKS_AT_ONCE = 24
_MOST = 256
OUTPUTS = ("probabilities", "masks", "scores", "classes")


def most_objects(facts_largest: int) -> int:
    """Give how many objects of an image the graph answers with: a third more than any training image has, a multiple of 16."""
    return int(np.clip(-(-int(1.33 * facts_largest + 4) // 16) * 16, 16, _MOST))


class MaskLesson(ObjectLesson):
    """Centres, masks and classes of pixels; `most` is how many objects are answered with."""

    most = 64

    def loss(self, model: Any, batch: Any, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
        """Give the sum of the losses of centres, masks and classes."""
        planes, ids, _, maps = self.augmented(batch, recipe, generator)
        heads = model.from_planes(planes)
        with torch.autocast(self.device.type, enabled=False):
            return mask_loss(heads, ids, maps, self.classes)

    @torch.no_grad()
    def judge(self, model: Any) -> Judgement:
        """Find objects in held-out images by usual thresholds and compare."""
        rows = self.judged_rows()
        truths, found = [], []
        total = 0.0
        height, width = self.images.shape[1:3]
        policy = InputPolicy(int(width), int(height), 3)
        served = ServedMasks(model, self.most)
        size = self.pictures.at_once(8 * 256 * 256)
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            planes, ids, _, numbers, _ = self.batch(chosen)
            heads = model.from_planes(planes)
            total += len(chosen) * float(mask_loss(heads, ids, looked_up(ids, numbers), self.classes))
            outputs = dict(zip(OUTPUTS, (one.cpu().numpy() for one in served.from_heads(heads)), strict=True))
            found += decode_instances(outputs, [(int(width), int(height))] * len(chosen), policy, {"method": "masks"})
            truths += [prepared_truth(self.targets, row) for row in chosen.tolist()]
        return judged(rows, truths, found, self.classes, total / max(1, len(rows)))


def mask_loss(heads: Heads, ids: torch.Tensor, maps: torch.Tensor, classes: int) -> torch.Tensor:
    """Give focal loss of centres, Dice and cross-entropy of masks, and cross-entropy and Dice of pixels' classes.

    Parameters
    ----------
    heads
        Raw maps.
    ids, maps
        ``(N, H, W)`` int64: objects' numbers (-1 ignored) and classes of pixels.
    classes
        K.
    """
    classes_map, centres, vectors, features = (one.float() for one in heads)
    half = MASK_STRIDE // 2
    small_ids, small_maps = ids[:, half::MASK_STRIDE, half::MASK_STRIDE], maps[:, half::MASK_STRIDE, half::MASK_STRIDE]
    total = cross_entropy_and_dice(classes_map, small_maps)
    heat = torch.zeros_like(centres)
    chosen_vectors, places, truths, counted = [], [], [], []
    for number in range(len(ids)):
        objects = _objects(small_ids[number], small_maps[number])
        if objects is None:
            continue
        labels, middles, radii, numbers = objects
        cells = _draw_centres(heat[number], labels, middles, radii)
        # Spread over the image where there are many: neighbours are what must be told apart.
        few = torch.arange(len(numbers), device=ids.device)
        if len(numbers) > _MASKS_AT_ONCE:
            few = torch.linspace(0, len(numbers) - 1, _MASKS_AT_ONCE, device=ids.device).long()
        own = vectors[number].flatten(1).t()[cells[few]]
        truth = small_ids[number][None] == numbers[few][:, None, None]
        centre = _cell_places(cells[few], centres.shape[2], centres.shape[3])
        logits = mask_logits(own[None], centre[None], features[number : number + 1])[0]
        chosen_vectors.append(logits.flatten(1))
        places.append(radii[few])
        truths.append(truth.flatten(1).float())
        counted.append((small_ids[number] >= 0).flatten()[None].expand(len(few), -1))
    ignored = F.max_pool2d((ids < 0).float()[:, None], STRIDE, STRIDE) > 0
    total = total + focal_loss(centres, heat, ~ignored)
    if chosen_vectors:
        total = total + 2.0 * _mask_terms(torch.cat(chosen_vectors), torch.cat(truths), torch.cat(counted).float())
    return total


def focal_loss(logits: torch.Tensor, heat: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Give CenterNet's focal loss, divided by the number of centres; `heat` is 1 at them and falls off around."""
    chance = torch.sigmoid(logits).clamp(1e-4, 1 - 1e-4)
    centre = heat >= 0.999
    hit = -torch.log(chance) * (1 - chance) ** 2 * centre
    miss = -torch.log(1 - chance) * chance**2 * (1 - heat) ** 4 * ~centre
    return ((hit + miss) * counted).sum() / centre.sum().clamp_min(1)


def _mask_terms(logits: torch.Tensor, truth: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Give Dice and balanced cross-entropy, means over objects; all are ``(objects, pixels)``."""
    chance = torch.sigmoid(logits) * counted
    dice = 1.0 - (2 * (chance * truth).sum(1) + 1.0) / (chance.sum(1) + truth.sum(1) + 1.0)
    each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * counted
    area = truth.sum(1).clamp_min(1.0)
    # Beside the object, as much ground as four of it weighs as much as itself.
    ground = torch.minimum(((1 - truth) * counted).sum(1).clamp_min(1.0), 4.0 * area)
    entropy = (each * truth).sum(1) / area + (each * (1 - truth)).sum(1) / ground
    return (dice + 0.25 * entropy).mean()


def _objects(ids: torch.Tensor, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """Give the objects of an image: class, middle (y, x, pixels of the map), radius, and number; None where there is none."""
    flat = ids.flatten().clamp_min(0)
    areas = torch.bincount(flat)
    numbers = torch.nonzero(areas >= 2).flatten()
    numbers = numbers[numbers > 0]
    if not len(numbers):
        return None
    height, width = ids.shape
    rows = torch.arange(height, device=ids.device, dtype=torch.float32).repeat_interleave(width)
    columns = torch.arange(width, device=ids.device, dtype=torch.float32).repeat(height)
    size = len(areas)
    y = torch.bincount(flat, rows + 0.5, minlength=size)[numbers] / areas[numbers]
    x = torch.bincount(flat, columns + 0.5, minlength=size)[numbers] / areas[numbers]
    # All pixels of an object are of one class, so that its mean is it.
    known = torch.where(maps == IGNORED, torch.zeros_like(maps), maps).flatten().float()
    labels = torch.bincount(flat, known, minlength=size)[numbers] / areas[numbers]
    return labels.round().long() - 1, torch.stack([y, x], dim=1).float(), torch.sqrt(areas[numbers] / torch.pi), numbers


def _draw_centres(heat: torch.Tensor, labels: torch.Tensor, middles: torch.Tensor, radii: torch.Tensor) -> torch.Tensor:
    """Draw a bell around each object's middle into ``(K, h, w)``; give the cells ``(M,)`` of the middles."""
    height, width = heat.shape[1:]
    share = MASK_STRIDE / STRIDE
    cell_y = (middles[:, 0] * share).floor().clamp(0, height - 1)
    cell_x = (middles[:, 1] * share).floor().clamp(0, width - 1)
    spread = (0.25 * radii * share).clamp_min(0.5)
    rows = torch.arange(height, device=heat.device)[None, :, None] - cell_y[:, None, None]
    columns = torch.arange(width, device=heat.device)[None, None, :] - cell_x[:, None, None]
    bells = torch.exp(-(rows**2 + columns**2) / (2 * spread[:, None, None] ** 2))
    for label in torch.unique(labels[labels >= 0]).tolist():
        heat[label] = torch.maximum(heat[label], bells[labels == label].amax(dim=0))
    return (cell_y * width + cell_x).long()


def _cell_places(cells: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Give y and x of cells' middles, in pixels of the masks from the middle of the map."""
    share = STRIDE / MASK_STRIDE
    y = (torch.div(cells, width, rounding_mode="floor").float() + 0.5 - height / 2) * share
    x = ((cells % width).float() + 0.5 - width / 2) * share
    return torch.stack([y, x], dim=1)
