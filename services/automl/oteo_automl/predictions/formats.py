"""Forms of prediction files by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oteo_automl.predictions.coco import read_coco, write_coco
from oteo_automl.predictions.records import PredictionSet, unreadable
from oteo_automl.predictions.table import read_csv, write_csv
from oteo_automl.predictions.voc import read_voc, write_voc
from oteo_core.errors import NotFound

FORMATS = ("csv", "coco", "voc")

IMAGES = "-images.json"
"""Ending of the file beside COCO's results that lists images and classes."""

NAMES = {"csv": "predictions.csv", "coco": "predictions.json", "voc": "predictions-voc.zip"}
"""Main file of each form."""


def write_predictions(predictions: PredictionSet, form: str) -> dict[str, bytes]:
    """Write predictions in a form: contents by file name, the main file (`NAMES`) first."""
    if form == "csv":
        return {NAMES[form]: write_csv(predictions)}
    if form == "voc":
        return {NAMES[form]: write_voc(predictions)}
    results, about = write_coco(predictions)
    return {NAMES[form]: results, NAMES[form].removesuffix(".json") + IMAGES: about}


def read_predictions(read: Callable[[str], bytes], path: str, *, classes: Sequence[str] | None = None) -> PredictionSet:
    """Read predictions in whatever form they are.

    Parameters
    ----------
    read
        Gives the content of a file by its path.
    path
        Of the main file.
    classes
        The classes and their order; None: the file's.

    Raises
    ------
    InvalidArgument
        ``UNREADABLE_PREDICTIONS``.
    NotFound
        The file is not there.
    """
    data = read(path)
    if data[:2] == b"PK":
        return read_voc(data, what=path, classes=classes)
    if data.lstrip()[:1] == b"[":
        beside = path.removesuffix(".json") + IMAGES
        try:
            about = read(beside)
        except NotFound as error:
            raise unreadable(path, f"COCO's results need the file {beside} beside them, which lists images and categories") from error
        return read_coco(data, about, what=path, classes=classes)
    return read_csv(data, what=path, classes=classes)
