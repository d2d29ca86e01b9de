"""What the numbers in mask images mean."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median

from oteo_augment.importing.scanned import Scanned
from oteo_core.datasets import MaskEncoding, Task
from oteo_core.errors import InvalidArgument

_VOID = 255
_STRAY_SHARE = 0.002
_MOST_CLASSES = 64


def looks_like_instances(masks: Sequence[Scanned]) -> bool:
    """Tell whether masks number objects: 1 to n in each, without gaps, and n differs between masks and exceeds a handful."""
    tops = []
    for mask in masks:
        values = [value for value in mask.values if value]
        if values and values != list(range(1, len(values) + 1)):
            return False
        tops.append(len(values))
    return bool(tops) and max(tops) > 5 and len(set(tops)) > 1


def encoding_of(
    masks: Sequence[Scanned], task: str, given: Sequence[str], declared: Sequence[tuple[int, str]] = ()
) -> tuple[str, MaskEncoding, tuple[str, ...]]:
    """Work out task, meaning of numbers and classes from all masks together.

    A number is a class unless it is stray: it covers less than 0.2 % of the masks that have it (by the median) and there is a number that does
    not. Interpolated edges and brush strokes leave such numbers; they are set aside and reported.

    Parameters
    ----------
    masks
        All readable masks.
    task
        "semantic_segmentation", "instance_segmentation", or "" to find out.
    given
        Classes that the caller names, in the order of their numbers; empty for none.
    declared
        Numbers and classes that the source itself names (`Reading.mask_numbers`); the caller's word goes before it.

    Returns
    -------
    tuple
        The task, the encoding and the classes.

    Raises
    ------
    InvalidArgument
        UNKNOWN_CLASS where the caller names another number of classes than there are, UNSUPPORTED_MASKS where there are too many numbers.
    """
    if declared and not given:
        numbered = [value for value, _ in declared] == [-1]
        if numbered and task != Task.SEMANTIC:
            return Task.INSTANCE, MaskEncoding("instance"), (declared[0][1],)
        if not numbered and task != Task.INSTANCE:
            known = tuple(value for value, _ in declared)
            others = {value for mask in masks for value in mask.values if value} - set(known)
            return Task.SEMANTIC, MaskEncoding("class", known, tuple(sorted(others))), tuple(name for _, name in declared)
    if task == Task.INSTANCE or (not task and looks_like_instances(masks)):
        if len(given) > 1:
            raise InvalidArgument(
                "masks that number objects are of one class; give one class or none", reason="UNKNOWN_CLASS", field="classes"
            )
        return Task.INSTANCE, MaskEncoding("instance"), tuple(given) or ("object",)
    shares: defaultdict[int, list[float]] = defaultdict(list)
    for mask in masks:
        total = sum(mask.counts)
        for value, count in zip(mask.values, mask.counts, strict=True):
            if value:
                shares[value].append(count / total)
    often = Counter({value: len(found) for value, found in shares.items()})
    firm = [value for value, found in shares.items() if median(found) >= _STRAY_SHARE]
    values = sorted(firm or often)
    ignore = sorted(set(shares) - set(values))
    if given and len(values) == len(given) + 1 and _VOID in values:
        # Pascal VOC draws borders with 255: no class, if the others account for all that the caller names.
        values.remove(_VOID)
        ignore.append(_VOID)
    if len(values) > _MOST_CLASSES:
        raise InvalidArgument(
            f"the masks hold {len(values)} different numbers: too many for classes. If they number objects, ask for instance segmentation.",
            reason="UNSUPPORTED_MASKS",
            field="task",
        )
    if given and len(given) != len(values):
        raise InvalidArgument(
            f"{len(given)} classes were given, and the masks hold {len(values)} numbers beside the background: {values}",
            reason="UNKNOWN_CLASS",
            field="classes",
        )
    invented = ("foreground",) if len(values) == 1 else tuple(f"value_{value}" for value in values)
    return Task.SEMANTIC, MaskEncoding("class", tuple(values), tuple(sorted(ignore))), tuple(given) or invented
