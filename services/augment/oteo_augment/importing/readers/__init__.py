"""Readers of outside formats: each makes a `Reading` of a source, and reports what it cannot take instead of dropping it.

Datumaro reads these formats too, and `tests/augment/test_import_formats.py` holds both against each other on sound data. On unsound data it
refuses a whole source for one undeclared label or one unknown category, where what is wanted here is a report sample by sample: so the raw
files are read here.
"""

from __future__ import annotations

from collections.abc import Callable

from oteo_augment.importing.items import Reading
from oteo_augment.importing.readers import (
    class_folders,
    coco,
    color_masks,
    csv,
    cvat,
    hdf5,
    instance_masks,
    labelme,
    masks,
    numpy,
    oteo,
    voc,
    webdataset,
    yolo,
)
from oteo_augment.importing.source import Source

READERS: dict[str, Callable[[Source], Reading]] = {
    "class_folders": class_folders.read,
    "coco": coco.read,
    "pascal_voc": voc.read,
    "yolo": yolo.read,
    "csv": csv.read,
    "masks": masks.read,
    "color_masks": color_masks.read,
    "instance_masks": instance_masks.read,
    "numpy": numpy.read,
    "hdf5": hdf5.read,
    "webdataset": webdataset.read,
    "labelme": labelme.read,
    "cvat": cvat.read,
    "oteo": oteo.read,
}
"""Readers by the format's name."""

DETECTORS: dict[str, Callable[[Source], str]] = {
    "oteo": oteo.detect,
    "numpy": numpy.detect,
    "hdf5": hdf5.detect,
    "webdataset": webdataset.detect,
    "coco": coco.detect,
    "labelme": labelme.detect,
    "cvat": cvat.detect,
    "pascal_voc": voc.detect,
    "yolo": yolo.detect,
    "color_masks": color_masks.detect,
    "instance_masks": instance_masks.detect,
    "masks": masks.detect,
    "csv": csv.detect,
    "class_folders": class_folders.detect,
}
"""Tell why a source is of a format, in a sentence, or give ""; asked in this order, since every format can lie in folders."""
