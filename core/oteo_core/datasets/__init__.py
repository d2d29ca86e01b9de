"""Datasets: `dataset.json` and `samples.parquet` beside the media, written once, read lazily.

A dataset exists if its `dataset.json` does; it is written last.
"""

from __future__ import annotations

from oteo_core.datasets.annotations import Box, Keypoint, Keypoints, OrientedBox, Polygons, Rle
from oteo_core.datasets.info import ClassInfo, DatasetInfo, FindingCount, MaskEncoding, SizeRange, SplitCount, Task
from oteo_core.datasets.listing import dataset_prefix, delete_dataset, list_datasets, new_id
from oteo_core.datasets.reader import DatasetReader
from oteo_core.datasets.sample import SPLITS, Finding, Sample, Severity
from oteo_core.datasets.skeletons import Skeleton, mirror_pairs
from oteo_core.datasets.writer import DatasetWriter, content_digest, media_path, row_digest

__all__ = [
    "SPLITS",
    "Box",
    "ClassInfo",
    "DatasetInfo",
    "DatasetReader",
    "DatasetWriter",
    "Finding",
    "FindingCount",
    "Keypoint",
    "Keypoints",
    "MaskEncoding",
    "OrientedBox",
    "Polygons",
    "Rle",
    "Sample",
    "Severity",
    "SizeRange",
    "Skeleton",
    "SplitCount",
    "Task",
    "content_digest",
    "dataset_prefix",
    "delete_dataset",
    "list_datasets",
    "media_path",
    "mirror_pairs",
    "new_id",
    "row_digest",
]
