"""What a classifier's figures mean, in sentences."""

from __future__ import annotations

import numpy as np

from oteo_automl.report import words
from oteo_automl.report.data import ClassificationPart, ReportData
from oteo_automl.report.saying import Verdict, needed, of_groups


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
    accuracy, balanced = needed(package, "accuracy"), needed(package, "balanced_accuracy")
    present = len(set(part.labels.tolist()))
    guess = 1 / max(present, 1)
    better = present > 1 and balanced.lower is not None and balanced.lower > guess
    sentences = [
        f"On {words.plural(count, 'test image')}{of_groups(data)} that took no part in training or in any choice, the model named the right class "
        f"for {part.correct} ({words.percent(accuracy.value)}; 95\N{NO-BREAK SPACE}% interval {words.span(accuracy)})."
    ]
    name, share = majority(data)
    sentences.append(f"Always answering “{name}”, the most common class, would be right for {words.percent(share)}.")
    roc = package.metric("auroc")
    if roc is not None:
        sentences.append(
            f"It ranks cases {'well' if (roc.lower or 0) > 0.8 else 'usefully' if (roc.lower or 0) > 0.6 else 'poorly or not reliably'}: "
            f"AUROC {words.figure(roc)} ({words.span(roc)})."
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


def _on_calibration(data: ReportData) -> str:
    error = needed(data.package, "ece")
    points = 100 * error.value
    found = f"on average they are off by {points:.1f} percentage points (ECE {words.figure(error)}; 95\N{NO-BREAK SPACE}% interval {words.span(error)})"
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
    asked = words.percent(conformal.coverage, 0)
    return (
        f"Its sets of classes, made to hold the truth in {asked} of cases, held it in {held} of {check.count} "
        f"({words.percent(check.coverage)}), with {check.mean_size:.2f} classes a set on average."
    )


def limits(data: ReportData) -> list[str]:
    """Say where a classifier must not be trusted, beyond what holds for every model."""
    package, part = data.package, classification(data)
    sentences = ["It must answer with one of its classes, also for an image that shows none of them."]
    rare = [
        f"“{name}” ({count})"
        for name, count in zip(package.classes, np.bincount(part.labels, minlength=len(package.classes)).tolist(), strict=True)
        if count < words.FEW
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
            f"{words.plural(conformal.calibration_count, 'calibration image')} are too few for sets of {words.percent(conformal.coverage, 0)}: every set holds every class."
        )
    if conformal is not None and check.interval is not None and check.interval.upper < conformal.coverage:
        sentences.append(
            f"Its prediction sets hold the truth less often than asked ({words.percent(check.coverage)} instead of {words.percent(conformal.coverage, 0)}): "
            "the test part differs from the part that they were found on."
        )
    others = int(package.details.get("test_images_of_other_classes", 0))
    if others:
        sentences.append(
            f"{words.plural(others, 'test image')} of classes without training images were left out; it cannot name those classes."
        )
    if package.calibration.get("at_limit"):
        sentences.append(
            "Its temperature lies at the limit of what is sought: the calibration part is too easy or too small to tell how sure it should be."
        )
    return sentences
