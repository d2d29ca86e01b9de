"""Detection and segmentation: what differs between tasks whose answers have a place in the image, behind one base class."""

from oteo_automl.dense.base import DenseCandidate, DenseData, DenseTask, Facts, Served, find_task, is_dense

__all__ = ["DenseCandidate", "DenseData", "DenseTask", "Facts", "Served", "find_task", "is_dense"]
