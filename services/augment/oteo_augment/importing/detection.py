"""Which format a source is in."""

from __future__ import annotations

from oteo_augment.importing.readers import DETECTORS
from oteo_augment.importing.source import Source
from oteo_core.errors import InvalidArgument

_FOREIGN = (
    (".dcm", "DICOM"), (".dicom", "DICOM"), (".nii", "NIfTI"), (".nii.gz", "NIfTI"),
    (".h5", "HDF5 without data sets such as images and labels"), (".hdf5", "HDF5 without data sets such as images and labels"),
    (".npz", "NumPy archives without arrays such as train_images"), (".npy", "NumPy arrays"), (".svs", "whole-slide images"), (".mp4", "video"), (".avi", "video"),
)  # fmt: skip


def detect_format(source: Source) -> tuple[str, str]:
    """Find the format of a source.

    Returns
    -------
    tuple
        The format's name and, in a sentence, why.

    Raises
    ------
    InvalidArgument
        UNSUPPORTED_FORMAT, saying what was seen and what is read.
    """
    if why := DETECTORS["oteo"](source):
        return "oteo", why
    if not source.images:
        for ending, name in _FOREIGN:
            if source.ending_with(ending):
                raise _unsupported(f"it holds {name} ({source.ending_with(ending)[0]}), which this version does not read")
        shown = ", ".join(list(source.files)[:3])
        raise _unsupported(f"none of its {len(source.files)} files is an image ({shown}{', ...' if len(source.files) > 3 else ''})")
    for name, detect in DETECTORS.items():
        if why := detect(source):
            return name, why
    raise _unsupported(f"its {len(source.images)} images lie in one folder, and nothing says what is on them")


def _unsupported(why: str) -> InvalidArgument:
    return InvalidArgument(
        f"the source's format is not known: {why}. What is read: a folder for each class; COCO JSON; Pascal VOC XML; YOLO text files; "
        "a CSV of files and labels; masks beside images, with numbers or colours, or a file for each object; LabelMe JSON; CVAT XML; NumPy archives in MedMNIST's form; HDF5; WebDataset shards; datasets of Oteo's own.",
        reason="UNSUPPORTED_FORMAT",
        field="source_uri",
    )
