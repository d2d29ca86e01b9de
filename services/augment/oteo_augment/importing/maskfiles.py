"""Masks that are not a label image yet: colours that a list explains, and a folder of files with an object each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_augment.importing.colors import numbers_of_colors
from oteo_augment.importing.scanned import Scanned
from oteo_augment.importing.source import is_image_name
from oteo_augment.importing.targets import ScanPlan
from oteo_core.errors import InvalidArgument, OteoError
from oteo_core.images import decode, decode_labels

_MOST_OBJECTS = 65535


def made_of(plan: ScanPlan, path: str) -> bool:
    """Tell whether a mask is to be made of what its path names."""
    return path.endswith("/") or bool(plan.mask_colors)


def numbers_of(plan: ScanPlan, row: Scanned, data: bytes) -> NDArray[Any]:
    """Give a mask's numbers (H, W); what somebody should look at goes into the row's note.

    Raises
    ------
    InvalidArgument
        What decoding raises; MASK_SIZE_MISMATCH where files of one folder differ, MASK_NOT_LABELS where there are too many.
    """
    if row.path.endswith("/"):
        return _objects(plan, row)
    numbers, unknown = numbers_of_colors(decode(data, plan.limits).pixels, plan.mask_colors)
    if unknown:
        shown = ", ".join(f"{color} ({count} pixels)" for color, count in unknown.items())
        row.note_code, row.note = "UNKNOWN_COLOR", f"no class has the colour {shown}; those pixels are left aside"
    return numbers


def _objects(plan: ScanPlan, row: Scanned) -> NDArray[Any]:
    """Number the objects of a folder by the order of their files; a pixel of several belongs to the smallest."""
    names = [name for name in plan.source.names(row.path) if is_image_name(name)]
    if len(names) > _MOST_OBJECTS:
        raise InvalidArgument(f"the folder has {len(names)} files; up to {_MOST_OBJECTS} are read", reason="MASK_NOT_LABELS")
    labels: NDArray[np.uint16] | None = None
    areas = np.zeros(len(names) + 1, np.int64)
    shared, empty = 0, []
    number = 0
    for name in names:
        inside = _inside(plan, row.path + name)
        if labels is None:
            labels = np.zeros(inside.shape, np.uint16)
        if inside.shape != labels.shape:
            raise InvalidArgument(
                f"{name} has {inside.shape[1]} x {inside.shape[0]} pixels, {names[0]} has {labels.shape[1]} x {labels.shape[0]}",
                reason="MASK_SIZE_MISMATCH",
            )
        area = int(inside.sum())
        if not area:
            empty.append(name)
            continue
        number += 1
        areas[number] = area
        under = labels[inside]
        shared += int((under != 0).sum())
        labels[inside] = np.where((under == 0) | (areas[under] > area), number, under)
    if labels is None:
        raise InvalidArgument("the folder has no image", reason="UNREADABLE_FILE")
    notes = []
    if shared:
        notes.append(f"{shared} pixels belong to several objects; each is given to the smallest of them")
    # One empty file alone is how an image without objects is written.
    if empty and len(names) > 1:
        notes.append(f"{len(empty)} of {len(names)} files mark no pixel: {', '.join(empty[:3])}")
    covered = number - len(np.unique(labels[labels != 0]))
    if covered:
        notes.append(f"{covered} objects are covered by smaller ones wholly and are lost")
    if notes:
        row.note_code, row.note = ("OVERLAP" if shared else "EMPTY_MASK"), "; ".join(notes)
    return labels


def _inside(plan: ScanPlan, path: str) -> NDArray[np.bool_]:
    try:
        pixels = decode_labels(plan.source.read(path, plan.limits.max_bytes), plan.limits)
    except OteoError as exc:
        raise InvalidArgument(f"{path.rpartition('/')[2]}: {exc.message}", reason=exc.reason) from exc
    except OSError as exc:
        raise InvalidArgument(f"{path.rpartition('/')[2]} cannot be read: {exc}", reason="UNREADABLE_FILE") from exc
    if pixels.ndim == 3:  # an alpha channel is full everywhere
        pixels = pixels[:, :, :3] if pixels.shape[2] > 2 else pixels[:, :, :1]
        return np.asarray((pixels != 0).any(axis=2))
    return np.asarray(pixels != 0)
