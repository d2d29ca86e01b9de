"""Stacks, series, volumes and clips, drawn here."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pydicom
import tifffile
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def slices(seed: int, count: int = 6, size: int = 48, dtype: str = "uint8", top: int = 220) -> np.ndarray:
    """Give a stack (count, size, size): a disc that wanders over a ramp."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    stack = np.empty((count, size, size), dtype)
    for index in range(count):
        middle = size / 2 + 8 * np.sin(seed + index / 2), size / 2 + 8 * np.cos(seed + index / 3)
        disc = np.hypot(rows - middle[0], columns - middle[1]) < size / 5
        stack[index] = np.clip((rows + columns) / (2 * size) * top / 2 + disc * top / 2 + rng.normal(0, top / 100, (size, size)), 0, top)
    return stack


def write(path: Path, data: bytes) -> Path:
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def tiff(stack: np.ndarray, **options: Any) -> bytes:
    """Give a TIFF of a page for each slice."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, stack, photometric="minisblack", **options)
    return stream.getvalue()


def clip(path: Path, frames: np.ndarray, code: str = "MJPG") -> Path:
    """Write (N, H, W) or (N, H, W, 3) as a video; the ending says which container."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10, frames.shape[1:3][::-1])
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[:, :, ::-1]) if frame.ndim == 3 else cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
    writer.release()
    return path


def nifti(volume: np.ndarray, spacing: tuple[float, float, float] = (0.5, 0.5, 2.0), packed: bool = True) -> bytes:
    """Give (Z, H, W) as a NIfTI-1 volume."""
    image = nibabel.Nifti1Image(np.ascontiguousarray(volume.transpose(2, 1, 0)), np.diag([*spacing, 1.0]))
    data: bytes = image.to_bytes()
    return gzip.compress(data) if packed else data


def dicom(pixels: np.ndarray, place: float, *, series: str, patient: str = "DOE^JANE", **tags: Any) -> bytes:
    """Give (H, W) or (N, H, W) integers as a DICOM object; tags go over what is set here."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.SeriesInstanceUID, made.StudyInstanceUID = series, generate_uid()
    made.PatientID, made.PatientName, made.PatientBirthDate = f"ID-{patient}", patient, "19700131"
    made.Modality, made.PhotometricInterpretation = "MR", "MONOCHROME2"
    made.ImageOrientationPatient, made.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, place]
    made.PixelSpacing = [0.7, 0.5]
    made.SamplesPerPixel = 1
    if pixels.ndim == 3:
        made.NumberOfFrames = len(pixels)
    made.Rows, made.Columns = pixels.shape[-2:]
    made.BitsAllocated = 8 * pixels.dtype.itemsize
    made.BitsStored = 12 if made.BitsAllocated == 16 else 8
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(made, name, value)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, made)
    return stream.getvalue()


def packed(stack: np.ndarray, syntax: str, encode: Any, **tags: Any) -> bytes:
    """A DICOM object of compressed frames."""
    made = pydicom.dcmread(io.BytesIO(dicom(stack[..., 0] if stack.ndim == 4 else stack, 0, series="1.2")))
    made.PixelData = encapsulate([encode(frame) for frame in stack])
    made["PixelData"].is_undefined_length = True
    made.file_meta.TransferSyntaxUID = syntax
    for name, value in tags.items():
        setattr(made, name, value)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, made)
    return stream.getvalue()
