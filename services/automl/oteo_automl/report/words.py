"""What the figures mean, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from oteo_automl.report.data import ClassificationPart, ReportData
from oteo_core.packages.manifest import MetricValue, ModelPackage

METRICS = {
    "accuracy": ("Accuracy", "share of images named rightly"),
    "balanced_accuracy": ("Balanced accuracy", "mean share found over the classes, so that a rare class counts as much as a common one"),
    "f1": ("F1 (macro)", "balance of finding and not crying wolf, mean over the classes"),
    "auroc": ("AUROC", "chance that an image of a class gets a higher probability for it than one of another class; 0.5 is guessing"),
    "auprc": ("AUPRC", "mean precision over all thresholds, mean over the classes"),
    "log_loss": ("Log-loss", "how badly the probabilities miss the truth, nats; 0 is perfect"),
    "brier": ("Brier score", "mean squared miss of the probabilities, 0 to 2; 0 is perfect"),
    "mcc": ("Matthews correlation", "correlation of answer and truth, −1 to 1; 0 is guessing"),
    "kappa": ("Cohen's kappa", "agreement beyond chance, up to 1; 0 is guessing"),
    "ece": ("Calibration error (ECE)", "mean gap between how sure and how often right, 15 bins of equal width"),
    "ece_equal_mass": ("Calibration error, equal mass", "the same with bins of equal count"),
}
"""Name and meaning of each figure of the whole."""

UNBOUNDED = {"log_loss", "brier", "mcc", "kappa", "ece", "ece_equal_mass", "auroc", "auprc"}
"""Figures that are written as plain numbers; the others are percentages."""

FEW = 30
"""Test images of a class under which its figures are called rough."""


class Verdict(NamedTuple):
    """A headline, whether it is good news, and the sentences below it."""

    headline: str
    good: bool
    sentences: list[str]


def percent(share: float, digits: int = 1) -> str:
    """Write 0.8235 as "82.4 %", with a blank that does not break."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def figure(metric: MetricValue) -> str:
    """Write a figure the way its kind is read."""
    return f"{metric.value:.3f}" if metric.name in UNBOUNDED else percent(metric.value)


def span(metric: MetricValue) -> str:
    """Write a figure's interval; a dash where there is none."""
    if metric.lower is None or metric.upper is None:
        return "–"
    if metric.name in UNBOUNDED:
        return f"{metric.lower:.3f} to {metric.upper:.3f}"
    return f"{100 * metric.lower:.1f} to {percent(metric.upper)}"


def duration(seconds: float) -> str:
    """Write seconds for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def column(name: str) -> str:
    """Give a figure's name as a column's head: "accuracy", "AUROC"."""
    title = METRICS[name][0] if name in METRICS else name
    return title if title[1:2].isupper() else title[:1].lower() + title[1:]


def listing(names: Sequence[str], limit: int = 12) -> str:
    """Write "a, b and c"; of more than `limit` names the first ones and how many others."""
    if len(names) > limit:
        return f"{', '.join(names[:limit])} and {len(names) - limit} others"
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def plural(count: int, one: str, many: str | None = None) -> str:
    """Write "1 image", "2 images"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _needed(package: ModelPackage, name: str) -> MetricValue:
    metric = package.metric(name)
    if metric is None:
        raise ValueError(f"a package without {name}")
    return metric


def classification(data: ReportData) -> ClassificationPart:
    """Give the part of a classifier's report."""
    if not isinstance(data.part, ClassificationPart):
        raise TypeError(f"a report on a classifier was asked for, and this one has a {type(data.part).__name__}")
    return data.part


def majority(data: ReportData) -> tuple[str, float]:
    """Give the most common class in training, and how often answering nothing else would be right on the test part."""
    index = int(np.argmax(data.training_counts))
    return data.package.classes[index], float((classification(data).labels == index).mean())


def verdict(data: ReportData) -> Verdict:
    """Say what the model is worth, in a headline and a few sentences."""
    package, count, part = data.package, data.count, classification(data)
    accuracy, balanced = _needed(package, "accuracy"), _needed(package, "balanced_accuracy")
    present = len(set(part.labels.tolist()))
    guess = 1 / max(present, 1)
    better = present > 1 and balanced.lower is not None and balanced.lower > guess
    sentences = [
        f"On {plural(count, 'test image')}{_of_groups(data)} that took no part in training or in any choice, the model named the right class "
        f"for {part.correct} ({percent(accuracy.value)}; 95\N{NO-BREAK SPACE}% interval {span(accuracy)})."
    ]
    name, share = majority(data)
    sentences.append(f"Always answering “{name}”, the most common class, would be right for {percent(share)}.")
    roc = package.metric("auroc")
    if roc is not None:
        sentences.append(
            f"It ranks cases {'well' if (roc.lower or 0) > 0.8 else 'usefully' if (roc.lower or 0) > 0.6 else 'poorly or not reliably'}: "
            f"AUROC {figure(roc)} ({span(roc)})."
        )
    sentences.append(_on_calibration(data))
    sentences.append(_on_sets(data))
    if not better:
        headline = "Not shown to be better than guessing"
        sentences.append("Do not use it as it is: more images, or a question that the images can answer, are needed.")
    elif (balanced.lower or 0) > 0.9 and count >= 100:
        headline = "Works very well on images like those it was given"
    elif (balanced.lower or 0) > (1 + guess) / 2:
        headline = "Works well on images like those it was given"
    else:
        headline = "Better than guessing, with clear limits"
    return Verdict(headline, better, sentences)


def _of_groups(data: ReportData) -> str:
    count = data.count
    return f" from {plural(data.group_count, 'group')} (patients, slides or copies)" if data.group_count < count else ""


def _on_calibration(data: ReportData) -> str:
    error = _needed(data.package, "ece")
    points = 100 * error.value
    found = f"on average they are off by {points:.1f} percentage points (ECE {figure(error)}; 95\N{NO-BREAK SPACE}% interval {span(error)})"
    if points < 5:
        return f"Its probabilities can be taken at their word: {found}."
    if points < 12:
        return f"Its probabilities are a fair guide: {found}."
    return f"Its probabilities are a rough guide only: {found}."


def _on_sets(data: ReportData) -> str:
    conformal, check = data.package.conformal, classification(data).conformal
    if conformal is None:
        return ""
    held = round(check.coverage * check.count)
    asked = percent(conformal.coverage, 0)
    return (
        f"Its sets of classes, made to hold the truth in {asked} of cases, held it in {held} of {check.count} "
        f"({percent(check.coverage)}), with {check.mean_size:.2f} classes a set on average."
    )


def limits(data: ReportData) -> list[str]:
    """Say where the model must not be trusted, from the figures at hand."""
    package, part = data.package, classification(data)
    sentences = [
        "It knows only what it was shown: images of another scanner, stain, magnification, population or file treatment may be answered "
        "wrongly and surely. The gateway gives with every answer how usual the image is (a p-value against the training images); small "
        "values ask for a person.",
        "It must answer with one of its classes, also for an image that shows none of them.",
        "It is no medical device and was not tested in use. Let a person decide, and check it on images of your own site first.",
    ]
    rare = [
        f"“{name}” ({count})"
        for name, count in zip(package.classes, _counts(part.labels.tolist(), len(package.classes)), strict=True)
        if count < FEW
    ]
    if rare:
        sentences.append(
            f"Few test images: {', '.join(rare)}. Figures of these classes are rough; look at the intervals, not at the values."
        )
    counts = list(data.training_counts)
    if min(counts) * 5 < max(counts):
        sentences.append(
            f"Classes are uneven in training ({', '.join(f'{name}: {count}' for name, count in zip(package.classes, counts, strict=True))}). "
            "Its probabilities assume the same mix in use; where the mix differs, set the threshold anew."
        )
    else:
        sentences.append("Its probabilities assume that the classes come in the same mix as in the data given.")
    conformal, check = package.conformal, part.conformal
    if conformal is not None and conformal.quantile >= 1:
        sentences.append(
            f"{plural(conformal.calibration_count, 'calibration image')} are too few for sets of {percent(conformal.coverage, 0)}: every set holds every class."
        )
    if conformal is not None and check.interval is not None and check.interval.upper < conformal.coverage:
        sentences.append(
            f"Its prediction sets hold the truth less often than asked ({percent(check.coverage)} instead of {percent(conformal.coverage, 0)}): "
            "the test part differs from the part that they were found on."
        )
    if data.group_count == data.count and not data.dataset.exact_duplicate_groups:
        sentences.append(
            "No groups (patients, slides) were given. If several images come from one patient, the figures are too good and the intervals too narrow: "
            "import again with a group column."
        )
    others = int(package.details.get("test_images_of_other_classes", 0))
    if others:
        sentences.append(f"{plural(others, 'test image')} of classes without training images were left out; it cannot name those classes.")
    if package.calibration.get("at_limit"):
        sentences.append(
            "Its temperature lies at the limit of what is sought: the calibration part is too easy or too small to tell how sure it should be."
        )
    return sentences


def _counts(labels: Sequence[int], class_count: int) -> list[int]:
    return [sum(1 for label in labels if label == index) for index in range(class_count)]
