"""What figures are called, and what they mean, in a sentence."""

from __future__ import annotations

FIGURES: dict[str, tuple[str, str]] = {
    "accuracy": ("Accuracy", "share of images named rightly"),
    "balanced_accuracy": ("Balanced accuracy", "mean share found over the classes"),
    "f1": ("F1", "balance of finding and not crying wolf"),
    "f1_micro": ("F1 (micro)", "the same over all answers together"),
    "auroc": ("AUROC", "chance that an image of a class ranks above one without it; 0.5 is guessing"),
    "auprc": ("AUPRC", "mean precision over all thresholds"),
    "average_precision": ("Average precision", "mean precision over all thresholds"),
    "mean_average_precision": ("Mean average precision", "mean precision over all thresholds, mean over the classes"),
    "log_loss": ("Log-loss", "how badly the probabilities miss the truth, nats; 0 is perfect"),
    "brier": ("Brier score", "mean squared miss of the probabilities; 0 is perfect"),
    "mcc": ("Matthews correlation", "correlation of answer and truth, -1 to 1; 0 is guessing"),
    "kappa": ("Cohen's kappa", "agreement beyond chance, up to 1; 0 is guessing"),
    "ece": ("Calibration error (ECE)", "mean gap between how sure and how often right"),
    "ece_equal_mass": ("Calibration error, equal mass", "the same with bins of equal count"),
    "sensitivity": ("Sensitivity", "share of the class's images that are found"),
    "specificity": ("Specificity", "share of the other images that are left alone"),
    "precision": ("Precision", "share of what was found that is right"),
    "recall": ("Recall", "share of what is there that was found"),
    "subset_accuracy": ("Subset accuracy", "share of images with all classes right"),
    "hamming_loss": ("Hamming loss", "share of answers that are wrong, over images and classes; 0 is perfect"),
    "ranking_loss": ("Ranking loss", "share of pairs in which an absent class ranks above a present one; 0 is perfect"),
    "conformal_coverage": ("Coverage of the prediction sets", "share of images whose set holds the truth"),
    "conformal_set_size": ("Mean size of the prediction sets", "classes in a set"),
    "label_set_coverage": ("Coverage of the label sets", "share of the true labels that the sets hold"),
    "label_set_size": ("Mean size of the label sets", "labels in a set"),
    "map50_95": ("mAP (IoU .5 to .95)", "COCO's average precision, mean over ten overlaps and the classes"),
    "map50": ("mAP at IoU .5", "average precision where half overlap is enough"),
    "map75": ("mAP at IoU .75", "average precision where a close fit is asked for"),
    "iou": ("IoU", "overlap of what was found with the truth, as a share of both together"),
    "score_threshold": ("Score threshold", "from this score on an object counts as found in F1, precision and recall"),
    "dice": ("Dice", "overlap with the truth, 0 to 1; mean over images and classes"),
    "dice_pooled": ("Dice, pooled", "the same over the pixels of all images together"),
    "iou_pooled": ("IoU, pooled", "over the pixels of all images together"),
    "hausdorff95": ("Hausdorff distance, 95 %", "pixels within which 95 % of the outlines lie; 0 is perfect"),
    "hausdorff95_mm": ("Hausdorff distance, 95 %, mm", "the same in millimetres"),
    "hausdorff95_undefined": ("Images without a distance", "with the class in only one of truth and answer"),
    "surface_dice": ("Surface Dice", "share of the outlines within 2 pixels of each other"),
    "surface_dice_mm": ("Surface Dice, mm", "share of the outlines within 2 mm of each other"),
    "pq": ("Panoptic quality", "segmentation times recognition quality"),
    "sq": ("Segmentation quality", "mean overlap of the objects that were found"),
    "rq": ("Recognition quality", "F1 of the objects at IoU .5"),
    "aji": ("Aggregated Jaccard index", "overlap of all objects together, misses and false alarms included"),
    "map_dsb2018": ("Mean precision, DSB 2018", "TP / (TP + FP + FN) over IoU .5 to .95, mean over images"),
}
"""Name and meaning."""

HEADLINES: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", "balanced_accuracy", "auroc", "log_loss", "ece"),
    "multi_label_classification": ("mean_average_precision", "auroc", "f1", "subset_accuracy", "ece"),
    "detection": ("map50_95", "map50", "f1", "precision", "recall"),
    "semantic_segmentation": ("dice", "iou", "hausdorff95", "surface_dice"),
    "instance_segmentation": ("pq", "map50_95", "map50", "f1", "aji"),
}
"""Figures that are looked at first, by task; the first is the task's own."""

PER_CLASS: dict[str, tuple[str, ...]] = {
    "classification": ("sensitivity", "specificity", "precision", "f1", "auroc", "auprc"),
    "multi_label_classification": ("average_precision", "auroc", "sensitivity", "specificity", "precision", "f1"),
    "detection": ("map50_95", "map50", "f1", "precision", "recall", "iou"),
    "semantic_segmentation": ("dice", "iou", "hausdorff95", "surface_dice", "precision", "recall"),
    "instance_segmentation": ("pq", "sq", "rq", "map50_95", "map50", "aji"),
}
"""Columns of the table of classes."""

_SIZES = {"small": "small objects", "medium": "medium objects", "large": "large objects"}


def title(name: str) -> str:
    """Give a figure's name for people."""
    if name in FIGURES:
        return FIGURES[name][0]
    head, _, size = name.rpartition("_")
    if size in _SIZES and head in FIGURES:
        return f"{FIGURES[head][0]}, {_SIZES[size]}"
    head, _, point = name.partition("_at_")
    return f"{title(head)} at the point {point}" if point else name.replace("_", " ")


def meaning(name: str) -> str:
    """Give a figure's meaning; empty where its name says it."""
    return FIGURES[name][1] if name in FIGURES else ""
