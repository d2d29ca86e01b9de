"""Writers of outside formats, by the format's name."""

from __future__ import annotations

from oteo_augment.exporting.writers.base import Job, Writer
from oteo_augment.exporting.writers.class_folders import ClassFolders
from oteo_augment.exporting.writers.coco import Coco
from oteo_augment.exporting.writers.color_masks import ColorMasks
from oteo_augment.exporting.writers.cvat import Cvat
from oteo_augment.exporting.writers.hdf5 import Hdf5
from oteo_augment.exporting.writers.instance_masks import InstanceMasks
from oteo_augment.exporting.writers.labelme import LabelMe
from oteo_augment.exporting.writers.masks import Masks
from oteo_augment.exporting.writers.numpy import Numpy
from oteo_augment.exporting.writers.oteo import Oteo
from oteo_augment.exporting.writers.table import Csv
from oteo_augment.exporting.writers.voc import PascalVoc
from oteo_augment.exporting.writers.webdataset import WebDataset
from oteo_augment.exporting.writers.yolo import Yolo

__all__ = ["WRITERS", "Job", "Writer"]

WRITERS: dict[str, type[Writer]] = {
    writer.name: writer
    for writer in (ClassFolders, Coco, PascalVoc, Yolo, Masks, ColorMasks, InstanceMasks, Csv, Numpy, Hdf5, WebDataset, LabelMe, Cvat, Oteo)
}
"""Writers by name; the names are those of `oteo_core.datasets.proto.FORMATS`."""
