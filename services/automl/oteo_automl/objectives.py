"""What a training can choose by, for each task; the first is the usual one. Read by the service too, which imports no PyTorch."""

OBJECTIVES: dict[str, tuple[str, ...]] = {
    "classification": ("log_loss", "auroc", "balanced_accuracy", "accuracy", "f1"),
    "multi_label_classification": ("mean_average_precision", "auroc", "f1", "log_loss"),
    "detection": ("map50_95", "map50", "f1"),
    "semantic_segmentation": ("dice", "iou"),
    "instance_segmentation": ("pq", "map50_95", "map50", "f1"),
}
"""By the dataset's task: names as in `oteo_automl.evaluation`."""
