"""Small files that become very large when they are unpacked."""

from __future__ import annotations

import io
import struct
import zlib

import pydicom
from fuzzing.mutations import behind_meta
from pydicom import uid
from sequence_files import dicom, slices


def deflated(size: int = 200 << 20) -> bytes:
    """Give a deflated DICOM file of some kilobytes with a picture of 8 x 8 and so many bytes of padding; size: whole MiB, bytes."""
    plain = pydicom.dcmread(io.BytesIO(dicom(slices(1, 1, size=8)[0], 0, series="1")))
    plain.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, plain)
    data = stream.getvalue()
    at = behind_meta(data)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    inflated = zlib.decompress(data[at:], -15)
    padding = struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, size)
    # Piece by piece, so that what it takes to unpack it is not hidden behind what it took to make it.
    pieces = [packer.compress(inflated + padding), *(packer.compress(bytes(1 << 20)) for _ in range(size >> 20)), packer.flush()]
    return data[:at] + b"".join(pieces)
