"""What the figures are called, how they are written and what they mean."""

from __future__ import annotations

from typing import NamedTuple


class About(NamedTuple):
    """A figure: its name for people, its meaning, and how it is written: "share" (percent), "plain", "px", "mm" or "count"."""

    title: str
    meaning: str
    unit: str = "plain"


METRICS = {
    "accuracy": About("Accuracy", "share of images named rightly", "share"),
    "balanced_accuracy": About(
        "Balanced accuracy", "mean share found over the classes, so that a rare class counts as much as a common one", "share"
    ),
    "f1": About("F1 (macro)", "balance of finding and not crying wolf, mean over the classes", "share"),
    "auroc": About("AUROC", "chance that an image of a class gets a higher probability for it than one of another class; 0.5 is guessing"),
    "auprc": About("AUPRC", "mean precision over all thresholds, mean over the classes"),
    "log_loss": About("Log-loss", "how badly the probabilities miss the truth, nats; 0 is perfect"),
    "brier": About("Brier score", "mean squared miss of the probabilities, 0 to 2; 0 is perfect"),
    "mcc": About("Matthews correlation", "correlation of answer and truth, −1 to 1; 0 is guessing"),
    "kappa": About("Cohen's kappa", "agreement beyond chance, up to 1; 0 is guessing"),
    "ece": About("Calibration error (ECE)", "mean gap between how sure and how often right, 15 bins of equal width"),
    "ece_equal_mass": About("Calibration error, equal mass", "the same with bins of equal count"),
    "ece_uncalibrated": About("Calibration error before calibration", "the same gap for the network's own probabilities"),
    "sensitivity": About("sensitivity", "share of the class's images that are called it", "share"),
    "specificity": About("specificity", "share of the others that are not", "share"),
    "precision": About("precision", "share of what it reports that is right", "share"),
    "recall": About("recall", "share of what is there that is found", "share"),
    "average_precision": About("average precision", "mean precision over all thresholds"),
    "mean_average_precision": About("mAP", "average precision (mean precision over all thresholds), mean over the labels"),
    "f1_micro": About("F1 (micro)", "balance of finding and not crying wolf, all labels together", "share"),
    "subset_accuracy": About("Exact match", "share of images with every label right", "share"),
    "hamming_loss": About("Hamming loss", "share of labels that are wrong, over all images and labels; 0 is perfect"),
    "ranking_loss": About("Ranking loss", "share of pairs in which a label that is absent ranks over one that is there; 0 is perfect"),
    "map50_95": About(
        "mAP (IoU .50 to .95)", "average precision, mean over the classes and over ten overlaps from rough to exact; COCO's figure"
    ),
    "map50": About("mAP at IoU .50", "average precision where half an overlap is enough, mean over the classes"),
    "map75": About("mAP at IoU .75", "average precision where the place must be exact, mean over the classes"),
    "iou": About("Overlap (IoU)", "what truth and answer share, over what they cover together; 1 is perfect"),
    "score_threshold": About("Score threshold", "objects with at least this score are reported"),
    "dice": About("Dice", "overlap of truth and answer, mean over images and classes; 1 is perfect"),
    "dice_pooled": About("Dice, all pixels together", "large objects count more"),
    "iou_pooled": About("IoU, all pixels together", "large objects count more"),
    "hausdorff95": About("Hausdorff distance, 95 %", "how far outlines are apart at their worst but for 5 %; 0 is perfect", "px"),
    "hausdorff95_mm": About("Hausdorff distance, 95 %", "the same in millimetres", "mm"),
    "surface_dice": About("Surface Dice", "share of the outlines that lie within 2 pixels of each other", "share"),
    "surface_dice_mm": About("Surface Dice, 2 mm", "share of the outlines that lie within 2 mm of each other", "share"),
    "hausdorff95_undefined": About("Without a distance", "images and classes that only truth or only answer has", "count"),
    "pq": About("Panoptic quality (PQ)", "recognition times segmentation quality; 1 is perfect"),
    "sq": About("Segmentation quality (SQ)", "mean overlap of the objects that were found"),
    "rq": About("Recognition quality (RQ)", "F1 of finding objects, half an overlap being enough"),
    "aji": About("Aggregated Jaccard index", "overlap of all objects, punishing merged and split ones; mean over images"),
    "map_dsb2018": About(
        "mAP as in the 2018 Data Science Bowl", "right objects over all true and false ones, ten overlaps, mean over images"
    ),
}

_OF_TASK = {
    "detection": {
        "f1": About("F1 at the threshold", "balance of finding and not crying wolf at the score threshold, mean over the classes", "share"),
        "precision": About("Precision at the threshold", "share of reported objects that are right, mean over the classes", "share"),
        "recall": About("Recall at the threshold", "share of the objects that are found, mean over the classes", "share"),
        "iou": About("Overlap of what is found", "mean IoU of the objects that were found"),
    },
    "semantic_segmentation": {
        "precision": About("Precision of pixels", "share of the pixels called a class that are it", "share"),
        "recall": About("Recall of pixels", "share of a class's pixels that are called it", "share"),
    },
    "instance_segmentation": {
        "f1": About("F1 of objects", "balance of finding and not crying wolf, half an overlap being enough", "share"),
        "precision": About("Precision of objects", "share of the answer's objects that are right", "share"),
        "recall": About("Recall of objects", "share of the objects that are found", "share"),
    },
    "multi_label_classification": {
        "auroc": About("AUROC", "chance that an image with a label gets a higher probability for it than one without; 0.5 is guessing"),
        "brier": About("Brier score", "mean squared miss of the probabilities, 0 to 1; 0 is perfect"),
    },
}
_SIZES = {"small": "small objects (below 32 × 32 pixels)", "medium": "middling objects", "large": "large objects (96 × 96 pixels and more)"}
_UNDER = {"_under_shift": "under simulated shifts, mean", "_under_worst_shift": "under the worst simulated shift"}
LOSSES = frozenset({"log_loss", "brier", "ece", "ece_equal_mass", "hamming_loss", "ranking_loss", "hausdorff95", "hausdorff95_mm"})
"""Figures of which less is better."""


def about(name: str, task: str = "") -> About:
    """Say what a figure is; one that is not known keeps its name."""
    for suffix, said in _UNDER.items():
        if name.endswith(suffix):
            whole = about(name.removesuffix(suffix), task)
            return About(f"{whole.title}, {said}", whole.meaning, whole.unit)
    stem, _, size = name.rpartition("_")
    if size in _SIZES and stem:
        whole = about(stem, task)
        return About(f"{whole.title}, {_SIZES[size].split(' (')[0]}", f"{whole.title} of {_SIZES[size]}", whole.unit)
    found = _OF_TASK.get(task, {}).get(name) or METRICS.get(name)
    return found or About(name.replace("_", " "), "")
