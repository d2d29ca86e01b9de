"""Inputs that are wrong in one way each, drawn for the tests."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

from oteo_core.images import encode_png
from oteo_core.sampledata import CLASSES, draw_cell, draw_cells


def cells(folder: Path, count: int = 24, classes: tuple[str, ...] = CLASSES) -> Path:
    """Draw a folder of cells with which nothing is wrong; only these classes of it."""
    draw_cells(folder, count=count, size=64, flaws=False)
    for name in set(CLASSES) - set(classes):
        for file in (folder / name).iterdir():
            file.unlink()
        (folder / name).rmdir()
    return folder


def good_png() -> bytes:
    """Give a picture with which nothing is wrong."""
    return encode_png(draw_cell(0, size=64)[0])


def truncated_png() -> bytes:
    """Give a PNG that breaks off in its pixels."""
    data = good_png()
    return data[: len(data) * 2 // 3]


def png_bomb(side: int = 30_000) -> bytes:
    """Give a PNG of some 110 kB whose pixels would fill 30,000 x 30,000."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    pixels = b"".join(packer.compress(row * 100) for _ in range(side // 100)) + packer.flush()

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def with_file(folder: Path, name: str, data: bytes) -> Path:
    """Draw a good folder and add one file."""
    cells(folder)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return folder


def zip_of(folder: Path, archive: Path, *, extra: str = "", link_to: str = "") -> Path:
    """Pack a folder of cells as zip; with a member named `extra`, or with a symbolic link."""
    cells(folder)
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(folder.rglob("*.png")):
            packed.write(file, file.relative_to(folder).as_posix())
        if extra:
            packed.writestr(extra, good_png())
        if link_to:
            link = zipfile.ZipInfo(f"{CLASSES[0]}/link.png")
            link.create_system = 3
            link.external_attr = 0o120777 << 16
            packed.writestr(link, link_to)
    return archive


def tar_of(folder: Path, archive: Path, *, extra: str = "", link_to: str = "") -> Path:
    """Pack a folder of cells as tar.gz; with a member named `extra`, or with a symbolic link."""
    cells(folder)
    with tarfile.open(archive, "w:gz") as packed:
        for file in sorted(folder.rglob("*.png")):
            packed.add(file, file.relative_to(folder).as_posix())
        if extra:
            data = good_png()
            member = tarfile.TarInfo(extra)
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
        if link_to:
            link = tarfile.TarInfo(f"{CLASSES[0]}/link.png")
            link.type, link.linkname = tarfile.SYMTYPE, link_to
            packed.addfile(link)
    return archive
