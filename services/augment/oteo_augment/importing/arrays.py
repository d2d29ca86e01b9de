"""NumPy archives in MedMNIST's form, opened: each picture becomes a PNG file beside a list that says what it is.

After the files of MedMNIST (medmnist.com): ``{part}_images`` of (N, H, W) or (N, H, W, 3) and ``{part}_labels`` of (N, 1) or (N, K), part being
train, val or test. An array ``classes`` with names, which MedMNIST keeps elsewhere, is read where it is.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from oteo_augment.importing.archives import ArchiveLimits
from oteo_augment.importing.paths import stem
from oteo_core.errors import InvalidArgument
from oteo_core.images import encode_png

LIST = "oteo-arrays.json"
"""The list beside the pictures."""
PARTS = ("train", "val", "test")
_MOST_CLASSES = 4096


@dataclass
class Arrays:
    """The list: `classes` by number, whether a picture may have several, and a row of path, part and class numbers for each picture."""

    classes: list[str]
    multiple: bool
    rows: list[tuple[str, str, list[int]]] = field(default_factory=list)

    def to_json(self) -> bytes:
        """Give the list as a file."""
        return json.dumps({"classes": self.classes, "multiple": self.multiple, "rows": self.rows}).encode()


def holds_pictures(archive: Path) -> bool:
    """Tell by its directory alone whether a file is such an archive."""
    try:
        with zipfile.ZipFile(archive) as file:
            return any(f"{part}_images.npy" in file.namelist() for part in PARTS)
    except (OSError, zipfile.BadZipFile):
        return False


def expand(archive: Path, goal: Path, limits: ArchiveLimits, check: Callable[[], None] = lambda: None, names: Sequence[str] = ()) -> None:
    """Write the pictures of an archive into a folder, one after the other: no more than one is held at a time.

    Parameters
    ----------
    archive
        The .npz file.
    goal
        A folder; made.
    limits
        How far it may grow.
    check
        Called for every picture; raises where the work is to stop.
    names
        Classes by number, where the archive itself does not say them.

    Raises
    ------
    InvalidArgument
        DAMAGED_ARCHIVE, UNSAFE_ARCHIVE for one that is too large, UNSUPPORTED_FORMAT for arrays of another shape or type.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            declared = sum(member.file_size for member in file.infolist())
            if declared > limits.max_bytes:
                raise InvalidArgument(
                    f"{archive.name} declares {declared} bytes; the limit is {limits.max_bytes}",
                    reason="UNSAFE_ARCHIVE",
                    field="source_uri",
                )
            members = set(file.namelist())
            labels = {part: _array(file, f"{part}_labels.npy") for part in PARTS if f"{part}_labels.npy" in members}
            found = meaning_of(
                archive.name, labels, _array(file, "classes.npy") if "classes.npy" in members else np.array([*names]) if names else None
            )
            for part in PARTS:
                if f"{part}_images.npy" in members:
                    _part(file, archive.name, part, labels.get(part), found, goal, check)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as exc:
        raise InvalidArgument(f"{archive.name} is damaged: {exc}", reason="DAMAGED_ARCHIVE", field="source_uri") from exc
    goal.mkdir(parents=True, exist_ok=True)
    (goal / LIST).write_bytes(found.to_json())


def _part(
    file: zipfile.ZipFile, archive: str, part: str, labels: NDArray[Any] | None, found: Arrays, goal: Path, check: Callable[[], None]
) -> None:
    with file.open(f"{part}_images.npy") as stream:
        shape, pictures = _pictures(stream, f"{part}_images of {archive}")
        if labels is not None and len(labels) != shape[0]:
            raise _unsupported(f"{archive} has {shape[0]} pictures in {part}_images and {len(labels)} rows in {part}_labels")
        width = len(str(max(0, shape[0] - 1)))
        folder = goal / part
        folder.mkdir(parents=True, exist_ok=True)
        for index, pixels in enumerate(pictures):
            check()
            name = f"{index:0{width}}.png"
            (folder / name).write_bytes(encode_png(pixels))
            classes: list[int] = []
            if labels is not None:
                classes = np.flatnonzero(labels[index]).tolist() if found.multiple else [int(labels[index].reshape(-1)[0])]
            found.rows.append((f"{part}/{name}", part, classes))


def _pictures(stream: IO[bytes], what: str) -> tuple[tuple[int, ...], Iterator[NDArray[Any]]]:
    version = npy.read_magic(stream)
    shape, fortran, dtype = npy.read_array_header_1_0(stream) if version == (1, 0) else npy.read_array_header_2_0(stream)
    flat = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3, 4))
    if not flat or dtype.str not in ("|u1", "<u2") or fortran or math.prod(shape) == 0:
        raise _unsupported(
            f"{what} are {dtype} of shape {shape}{' in Fortran order' if fortran else ''}; (N, H, W) or (N, H, W, 3) of uint8 or uint16 is read"
        )
    each = shape[1:] if len(shape) == 4 else (*shape[1:], 1)
    size = math.prod(each) * dtype.itemsize

    def pictures() -> Iterator[NDArray[Any]]:
        for index in range(shape[0]):
            data = stream.read(size)
            if len(data) != size:
                raise ValueError(f"{what} end within picture {index}")
            yield np.frombuffer(data, dtype).reshape(each)

    return shape, pictures()


def _array(file: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with file.open(name) as stream:
        array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
    return array


def meaning_of(archive: str, labels: dict[str, NDArray[Any]], names: NDArray[Any] | None) -> Arrays:
    """Work out classes from all labels together.

    Raises
    ------
    InvalidArgument
        UNSUPPORTED_FORMAT for labels of another shape or type.
    """
    for part, array in labels.items():
        if array.dtype.kind not in "bui" or array.ndim not in (1, 2) or (array.size and int(array.min()) < 0):
            raise _unsupported(
                f"{part}_labels of {archive} are {array.dtype} of shape {array.shape}; whole numbers from 0, (N, 1) or (N, K), are read"
            )
    widths = {1 if array.ndim == 1 else array.shape[1] for array in labels.values()}
    if len(widths) > 1:
        raise _unsupported(f"the parts of {archive} have labels of different widths: {sorted(widths)}")
    width = widths.pop() if widths else 1
    top = max((int(array.max()) for array in labels.values() if array.size), default=0)
    if width > 1 and top > 1:
        raise _unsupported(f"{archive} has several numbers a picture that are more than 0 and 1; what they mean is not known")
    count = width if width > 1 else top + 1
    if count > _MOST_CLASSES:
        raise _unsupported(f"{archive} has class numbers up to {top}; up to {_MOST_CLASSES} are read")
    given = [str(name) for name in names.tolist()] if names is not None and names.ndim == 1 and names.dtype.kind == "U" else []
    digits = len(str(count - 1))
    classes = given if len(given) >= count and len(set(given)) == len(given) else [f"{number:0{digits}}" for number in range(count)]
    return Arrays(classes, width > 1)


def folder_of(archive: str, taken: set[str]) -> str:
    """Give a folder name for one of several archives."""
    name, number = stem(archive), 2
    while name in taken:
        name, number = f"{stem(archive)}-{number}", number + 1
    taken.add(name)
    return name


def _unsupported(why: str) -> InvalidArgument:
    return InvalidArgument(why, reason="UNSUPPORTED_FORMAT", field="source_uri")
