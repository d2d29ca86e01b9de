"""What the figures of detectors, segmenters and multi-label classifiers mean, in sentences."""

from __future__ import annotations

import numpy as np

from oteo_automl.report import words
from oteo_automl.report.data import DetectionPart, InstancePart, MultiLabelPart, ReportData, SemanticPart
from oteo_automl.report.saying import Verdict, lower_end, needed, of_groups
from oteo_core.packages.manifest import MetricValue

_ENOUGH_IMAGES = 20


def detection_verdict(data: ReportData, part: DetectionPart) -> Verdict:
    """Say what a detector is worth."""
    package = data.package
    at_half, exact = needed(package, "map50"), package.metric("map50_95")
    chosen = next((row for row in part.thresholds if row.chosen), None)
    objects = sum(part.object_counts)
    sentences = []
    if chosen is not None:
        sentences.append(
            f"On {words.plural(data.count, 'test image')}{of_groups(data)} that took no part in training or in any choice, with {words.plural(objects, 'object')}, "
            f"it finds {words.percent(chosen.recall)} of the objects, and {words.percent(chosen.precision)} of what it reports is right: "
            f"{chosen.false_per_image:.2f} false alarms an image (score threshold {chosen.threshold:.2f}, half an overlap being enough)."
        )
    sentences.append(f"Over all thresholds: {_told(at_half, data)}" + (f"; {_told(exact, data)}." if exact else "."))
    strict = package.metric("map75")
    if strict is not None and at_half.value > 0.3 and strict.value < 0.5 * at_half.value:
        sentences.append("It finds the places, but draws its boxes roughly: few of them overlap the truth by three quarters.")
    sentences.append(_on_scores(part.calibration.error if part.calibration else None))
    sentences.append(_weakest_class(data, "map50"))
    headline, good = _rated(
        lower_end(at_half),
        (
            (0.9, "Finds nearly everything on images like those it was given"),
            (0.7, "Finds most objects on images like those it was given"),
            (0.4, "Finds many objects, with clear limits"),
        ),
        data.count,
    )
    return Verdict(headline, good, sentences)


def semantic_verdict(data: ReportData, part: SemanticPart) -> Verdict:
    """Say what a semantic segmenter is worth."""
    package = data.package
    dice, iou = needed(package, "dice"), package.metric("iou")
    values = part.images.values[np.isfinite(part.images.values)]
    sentences = [
        f"On {words.plural(data.count, 'test image')}{of_groups(data)} that took no part in training or in any choice, its outlines overlap the truth with "
        f"{_told(dice, data)}" + (f" ({_told(iou, data)})." if iou else ".")
    ]
    if len(values):
        tenth = float(np.quantile(values, 0.1))
        sentences.append(f"Nine in ten images reach a Dice of {tenth:.2f} or more; the worst has {float(values.min()):.2f}.")
    distance = package.metric("hausdorff95")
    if distance is not None:
        sentences.append(
            f"Where it finds a class that is there, outlines are {words.figure(distance)} apart at their worst but for 5 % ({words.span(distance)})."
        )
    sentences.append(_on_scores(part.calibration.error if part.calibration else None))
    sentences.append(_weakest_class(data, "dice"))
    headline, good = _rated(
        lower_end(dice),
        (
            (0.9, "Outlines very well on images like those it was given"),
            (0.75, "Outlines well on images like those it was given"),
            (0.5, "Finds the right places, with rough outlines"),
        ),
        data.count,
    )
    return Verdict(headline, good, sentences)


def instance_verdict(data: ReportData, part: InstancePart) -> Verdict:
    """Say what an instance segmenter is worth."""
    package = data.package
    quality = needed(package, "pq")
    found, right = package.metric("recall"), package.metric("precision")
    sentences = [
        f"On {words.plural(data.count, 'test image')}{of_groups(data)} that took no part in training or in any choice, with "
        f"{words.plural(sum(part.object_counts), 'object')}: {_told(quality, data)}."
    ]
    if found is not None and right is not None:
        sentences.append(
            f"It finds {words.figure(found)} of the objects, and {words.figure(right)} of its objects are right (half an overlap being enough)."
        )
    if len(part.true_counts):
        off = np.abs(part.true_counts - part.found_counts)
        sentences.append(
            f"Counting: {part.true_counts.mean():.1f} objects an image are there and it finds {part.found_counts.mean():.1f}; "
            f"in a single image it is off by {off.mean():.1f} on average and by {int(off.max())} at most."
        )
    sentences.append(_on_scores(part.calibration.error if part.calibration else None))
    sentences.append(_weakest_class(data, "pq"))
    headline, good = _rated(
        lower_end(quality),
        (
            (0.75, "Tells objects apart very well on images like those it was given"),
            (0.55, "Tells most objects apart on images like those it was given"),
            (0.3, "Finds objects, with clear limits in telling them apart"),
        ),
        data.count,
    )
    return Verdict(headline, good, sentences)


def label_verdict(data: ReportData, part: MultiLabelPart) -> Verdict:
    """Say what a multi-label classifier is worth."""
    package = data.package
    precision, roc, exact = needed(package, "mean_average_precision"), package.metric("auroc"), package.metric("subset_accuracy")
    seen = part.labels.any(axis=0)
    chance = float(part.labels[:, seen].mean()) if seen.any() else 0.0
    said = part.probabilities >= part.thresholds
    there, hits, named = int(part.labels.sum()), int((said & part.labels).sum()), int(said.sum())
    sentences = [
        f"On {words.plural(data.count, 'test image')}{of_groups(data)} that took no part in training or in any choice, it names {hits} of {there} labels that are "
        f"there, and {hits} of the {named} labels that it names are right."
    ]
    if exact is not None:
        sentences.append(f"All labels of an image are right for {words.figure(exact)} of the images ({words.span(exact)}).")
    sentences.append(f"{_told(precision, data)}, where guessing gives {chance:.3f}" + (f"; {_told(roc, data)}." if roc else "."))
    error = package.metric("ece")
    if error is not None:
        sentences.append(f"Its probabilities are off by {100 * error.value:.1f} percentage points on average (ECE {words.figure(error)}).")
    sentences.append(_weakest_class(data, "average_precision"))
    low = lower_end(precision)
    if low <= chance:
        return Verdict("Not shown to be better than guessing", False, [*sentences, _ADVICE])
    headline, good = _rated(
        (low - chance) / max(1 - chance, 1e-9),
        (
            (0.85, "Names labels very well on images like those it was given"),
            (0.6, "Names most labels well on images like those it was given"),
            (0.0, "Better than guessing, with clear limits"),
        ),
        data.count,
    )
    return Verdict(headline, good, sentences)


_ADVICE = "Do not use it as it is: more images, or a question that the images can answer, are needed."


def dense_limits(data: ReportData) -> list[str]:
    """Say where a detector, segmenter or multi-label classifier must not be trusted, beyond what holds for every model."""
    package, part = data.package, data.part
    sentences = []
    thing = "objects"
    counts: list[int]
    if isinstance(part, DetectionPart | InstancePart):
        counts = [int(count) for count in part.object_counts]
    elif isinstance(part, MultiLabelPart):
        counts, thing = part.labels.sum(axis=0).tolist(), "images"
    else:
        counts = []
    rare = [f"“{name}” ({count})" for name, count in zip(package.classes, counts, strict=False) if count < words.FEW]
    if rare:
        sentences.append(
            f"Few test {thing}: {words.listing(rare)}. Figures of these classes are rough; look at the intervals, not at the values."
        )
    learned = list(data.training_counts)
    if len(learned) > 1 and min(learned) * 5 < max(learned):
        listed = ", ".join(f"{name}: {count:,}" for name, count in zip(package.classes, learned, strict=True))
        sentences.append(f"Classes are uneven in training ({listed}); the rare ones are learned worse.")
    if data.count < _ENOUGH_IMAGES:
        sentences.append(f"Only {words.plural(data.count, 'test image')}: the intervals say how little that tells.")
    small, large = package.metric(f"{_MAIN.get(package.task, '')}_small"), package.metric(f"{_MAIN.get(package.task, '')}_large")
    if small is not None and large is not None and small.value < 0.7 * large.value:
        sentences.append(
            f"Small objects (below 32 × 32 pixels) are found much worse than large ones: {words.figure(small)} and {words.figure(large)} in mAP."
        )
    if isinstance(part, DetectionPart | InstancePart | SemanticPart):
        sentences.append(
            "Truths are what somebody drew: where people disagree on borders or on what counts as an object, no figure here can be better than their agreement."
        )
    return sentences


_MAIN = {"detection": "map50", "instance_segmentation": "map50"}


def _told(metric: MetricValue, data: ReportData) -> str:
    name = words.column(metric.name, data.package.task)
    interval = "" if metric.lower is None else f" (95\N{NO-BREAK SPACE}% interval {words.span(metric)})"
    return f"{name} {words.figure(metric)}{interval}"


def _rated(figure: float, steps: tuple[tuple[float, str], ...], count: int) -> tuple[str, bool]:
    """Choose the headline by the lower end of the interval; with few images never the best one."""
    for place, (least, headline) in enumerate(steps):
        if figure >= least and (place or count >= _ENOUGH_IMAGES):
            return headline, True
    return "Not shown to be of use", False


def _on_scores(error: float | None) -> str:
    if error is None:
        return ""
    points = f"on average they are off by {100 * error:.1f} percentage points"
    if error < 0.05:
        return f"Its scores can be read as probabilities: {points}."
    if error < 0.15:
        return f"Its scores are a fair guide to how likely it is right: {points}."
    return f"Its scores rank what it finds, and are no probabilities: {points}."


def _weakest_class(data: ReportData, name: str) -> str:
    found = [metric for metric in data.package.metrics if metric.name == name and metric.class_name and metric.split == "test"]
    if len(found) < 2:
        return ""
    worst, best = min(found, key=lambda metric: metric.value), max(found, key=lambda metric: metric.value)
    if best.value - worst.value < 0.05:
        return "Its classes are about equally good."
    title = words.column(name, data.package.task)
    return f"Weakest on “{worst.class_name}” ({title} {words.figure(worst)}), best on “{best.class_name}” ({words.figure(best)})."
