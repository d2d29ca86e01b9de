"""The README that lies beside an exported model: what it is, what it takes, what it answers, how to run it."""

from __future__ import annotations

from collections.abc import Sequence

from oteo_automl.exporting.source import Source
from oteo_core.images import InputPolicy

_TASKS = {
    "classification": "classification: one class of each image",
    "multi_label_classification": "classification: any number of classes of each image",
    "detection": "detection: objects with boxes",
    "semantic_segmentation": "semantic segmentation: a class for each pixel",
    "instance_segmentation": "instance segmentation: objects with masks",
}

_OUTPUTS = {
    "probabilities": "`[N, K]` float32: calibrated probabilities of the classes",
    "logits": "`[N, K]` float32: what the probabilities are made of",
    "attention": "`[N, h, w]` float32, 0 to 1: where in the image the answer comes from",
    "boxes": "`[N, M, 4]` float32: left, top, right, bottom in pixels of the prepared image",
    "scores": "`[N, M]` float32, falling; 0 where there is no further object",
    "classes": "`[N, M]` int64: class numbers, places in `labels.txt`, from 0",
    "heights": "`[N, H, W]` float32, 0 to 1: high in the middle of an object, for a watershed",
    "masks": "`[N, M, h, w]` uint8: where each object is, for the `scores` and `classes` of the same place",
    "label_map": "`[N, H, W]` uint8: 0 background, k + 1 class number k",
}


def preparation(policy: InputPolicy) -> list[str]:
    """Say in sentences, one a step, how an image becomes the model's input."""
    steps = ["Decode the image; colours are red, green, blue in this order; what is transparent lies on black."]
    if policy.channels == 1:
        steps.append("Colour becomes grey: 0.299 R + 0.587 G + 0.114 B, rounded.")
    elif policy.channels == 3:
        steps.append("Grey becomes colour: the same value three times.")
    else:
        steps.append(f"All {policy.channels} channels stay as they are.")
    kind = (
        "averaging over areas where a side shrinks (OpenCV's INTER_AREA), linear where it grows (INTER_LINEAR), the shrinking first"
        if policy.interpolation == "area"
        else "linear (OpenCV's INTER_LINEAR)"
    )
    if policy.resize == "stretch":
        steps.append(f"Resize to {policy.width} x {policy.height} pixels (width x height), proportions not kept: {kind}.")
    else:
        steps.append(
            f"Resize so that it fits into {policy.width} x {policy.height} pixels with its proportions kept (sides rounded to whole pixels): {kind}; "
            "put it in the middle of a black image of that size (the odd pixel to the right and below)."
        )
    bits = (
        f"for 16-bit images {2**policy.bit_depth - 1} ({policy.bit_depth} bits; what is brighter is white)"
        if policy.bit_depth
        else "for 16-bit images the largest value of 8, 10, 12, 14 or 16 bits, the least that holds the brightest pixel before the resizing"
    )
    if policy.dtype == "uint8":
        steps.append(
            f"Values are uint8, 0 to 255. 8-bit images stay as they are; others are scaled so that white becomes 255. White is {bits}."
        )
    else:
        steps.append(f"Values are float32, 0 to 1: divided by white. White is 255 for 8-bit images, 1 for floats, {bits}.")
    steps.append(
        f"The batch is `[N, {policy.height}, {policy.width}, {policy.channels}]` {policy.dtype}, channels last, no further normalisation."
    )
    return steps


def _output(name: str, task: str) -> str:
    if name == "probabilities" and task.endswith("_segmentation"):
        return "`[N, K + 1, H, W]` float32: of each pixel of the prepared image, background first"
    return _OUTPUTS.get(name, "see `decoding` in `model.json`")


def _variant(source: Source) -> list[str]:
    if not source.variant:
        return []
    figures = next((one for one in source.package.details.get("variants", []) if one["kind"] == source.variant), None)
    said = (
        f": {figures['reason']}; it loses {figures['loss']:.3g} of {figures['figure_name']} on {figures['images']} held-out images"
        if figures
        else ""
    )
    return [f"This is the {source.variant} variant{said}."]


def readme(source: Source, title: str, use: str, files: Sequence[tuple[str, str]]) -> bytes:
    """Write ``README.md``.

    Parameters
    ----------
    source
        The package.
    title
        The form, for the heading: ``"ONNX"``.
    use
        How to run it: Markdown.
    files
        Names and what they are.
    """
    package = source.package
    lines = [
        f"# {package.display_name or package.id}: {title}",
        "",
        f"`{package.name}`, trained on {package.dataset_name or package.dataset} (`{package.dataset}`), published {package.create_time:%Y-%m-%d}; "
        f"the winning candidate is {package.candidate}.",
        f"Task: {_TASKS.get(package.task, package.task)}. Classes, in the order of the outputs: {', '.join(package.classes)}.",
        *_variant(source),
        "What it is worth and where its limits are is said in the model's report and card; this file says how to run it.",
        "",
        "## Files",
        "",
        *(f"- `{name}`: {what}" for name, what in files),
        "",
        "## What it takes",
        "",
        *(f"{number}. {step}" for number, step in enumerate(preparation(package.input), start=1)),
        "",
        "## What it answers",
        "",
        *(f"- `{name}`: {_output(name, package.task)}" for name in source.outputs),
        "",
    ]
    if package.conformal is not None:
        quantile = package.conformal.quantile
        lines += [
            f"The classes with a probability of at least {max(0.0, 1 - quantile):.4g}, and always the likeliest, hold the true class in "
            f"{100 * package.conformal.coverage:.0f} % of cases like those it was calibrated on.",
            "",
        ]
    for point in package.operating_points:
        lines.append(
            f"- {point.class_name} from a probability of {point.threshold:.4g} on ({point.criterion}): sensitivity {point.sensitivity:.3f}, "
            f"specificity {point.specificity:.3f} on the validation part."
        )
    if package.operating_points:
        lines.append("")
    lines += ["## How to run it", "", use.strip("\n"), ""]
    return "\n".join(lines).encode()
