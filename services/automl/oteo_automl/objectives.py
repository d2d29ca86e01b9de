"""What a training can choose by, for each task; the first is the usual one. Read by the service too, which imports no PyTorch."""

from __future__ import annotations

from oteo_core.errors import InvalidArgument

OBJECTIVES: dict[str, tuple[str, ...]] = {
    "classification": ("log_loss", "auroc", "balanced_accuracy", "accuracy", "f1"),
    "multi_label_classification": ("mean_average_precision", "auroc", "f1", "log_loss"),
    "detection": ("map50_95", "map50", "f1"),
    "semantic_segmentation": ("dice", "iou"),
    "instance_segmentation": ("pq", "map50_95", "map50", "f1"),
}
"""By the dataset's task: names as in `oteo_core.evaluation`."""


def choose_objective(task: str, asked: str) -> str:
    """Give what a training of this task chooses by: what was asked for, or the usual one where that is empty.

    Raises
    ------
    InvalidArgument
        ``BAD_OBJECTIVE``: not one of the task's.
    """
    allowed = OBJECTIVES[task]
    if asked and asked not in allowed:
        raise InvalidArgument(
            f"{asked!r} is not an objective for {task}; there are: {', '.join(allowed)}", reason="BAD_OBJECTIVE", field="objective"
        )
    return asked or allowed[0]
