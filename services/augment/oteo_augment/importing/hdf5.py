"""HDF5 files of pictures, opened: each picture becomes a file beside a list that says what it is, as for NumPy archives.

Data sets are known by their names: ``images`` or ``x`` of (N, H, W), (N, H, W, C) or (N, C, H, W), ``labels`` or ``y``, ``masks``, ``split``,
``names``, ``groups``; the part also by a word of a data set's, a group's or a file's name (``x_train``, ``train/images``, PatchCamelyon's
``..._train_x.h5`` beside ``..._train_y.h5``). Names of classes come from an attribute or a data set ``classes``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from oteo_augment.encoding import encode_lossless
from oteo_augment.importing.archives import ArchiveLimits
from oteo_augment.importing.arrays import meaning_of
from oteo_augment.importing.paths import split_of_name, stem
from oteo_core.errors import InvalidArgument

LIST = "oteo-hdf5.json"
"""The list beside the pictures."""
ENDINGS = (".h5", ".hdf5")
_ROLES = {
    "images": ("x", "images", "image", "imgs", "img", "pictures", "data"),
    "labels": ("y", "labels", "label", "targets", "target"),
    "masks": ("masks", "mask", "segmentations", "segmentation", "seg"),
    "split": ("split", "splits"),
    "names": ("names", "filenames", "files", "ids"),
    "groups": ("groups", "patients", "patient"),
}
_ROLE_OF = {word: role for role, words in _ROLES.items() for word in words}
_WORDS = re.compile(r"[^a-z0-9]+")
_UNFIT = re.compile(r"[^\w.-]+")
_BLOCK = 32 << 20
_LARGEST_CHUNK = 1 << 30
_PIXELS = ("uint8", "uint16", "float32")


@dataclass(slots=True)
class _Set:
    """Data sets that belong together: one row each for one picture."""

    part: str
    found: dict[str, h5py.Dataset] = field(default_factory=dict)


def holds_pictures(path: Path) -> bool:
    """Tell whether a file is HDF5 and has data sets that are known, pictures or what belongs to those of another file."""
    try:
        with h5py.File(path, "r") as file:
            return bool(_sets([(path.name, file)]))
    except OSError:
        return False


def expand(files: Sequence[Path], goal: Path, limits: ArchiveLimits, check: Callable[[], None] = lambda: None) -> None:
    """Write the pictures of HDF5 files that belong together into a folder; no more than a block of rows is held at a time.

    Parameters
    ----------
    files
        The files.
    goal
        A folder; made.
    limits
        How far they may grow.
    check
        Called for every picture; raises where the work is to stop.

    Raises
    ------
    InvalidArgument
        DAMAGED_ARCHIVE; UNSAFE_ARCHIVE for files that are too large or point at other files; UNSUPPORTED_FORMAT for data of another shape or type.
    """
    with ExitStack() as stack:
        opened = []
        for path in files:
            try:
                opened.append((path.name, stack.enter_context(h5py.File(path, "r"))))
            except OSError as exc:
                raise InvalidArgument(f"{path.name} is damaged: {exc}", reason="DAMAGED_ARCHIVE", field="source_uri") from exc
        sets = _sets(opened)
        whole = [s for s in sets.values() if "images" in s.found]
        if not whole:
            raise _unsupported(f"{files[0].name} has labels or masks and no pictures")
        _judge([data for s in sets.values() for data in s.found.values()], limits)
        try:
            _write(whole, [file for _, file in opened], goal, check)
        except (OSError, ValueError, RuntimeError) as exc:
            raise InvalidArgument(f"{files[0].name} cannot be read: {exc}", reason="DAMAGED_ARCHIVE", field="source_uri") from exc


def _sets(files: Sequence[tuple[str, h5py.File]]) -> dict[tuple[str, ...], _Set]:
    """Give what belongs together by file, group and part, all words of roles aside."""
    sets: dict[tuple[str, ...], _Set] = {}
    for name, file in files:
        found: list[str] = []
        # Links to other files are not followed by this.
        file.visititems(lambda path, node, found=found: found.append(path) if isinstance(node, h5py.Dataset) else None)
        of_file = _WORDS.split(stem(name).lower())
        for path in found:
            *folders, last = path.lower().split("/")
            words = [word for word in _WORDS.split(last) if word]
            role = next((_ROLE_OF[word] for word in words if word in _ROLE_OF), "")
            if not role:
                continue
            inner = [word for folder in folders for word in _WORDS.split(folder)] + words
            part = next((p for word in inner if (p := split_of_name(word))), "") or next(
                (p for word in of_file if (p := split_of_name(word))), ""
            )
            rest = [word for word in (*of_file, *inner) if word not in _ROLE_OF and not split_of_name(word)]
            group = sets.setdefault((part, *rest), _Set(part))
            if role in group.found:
                raise _unsupported(f"{name} has two data sets of {role} that nothing tells apart: {group.found[role].name} and /{path}")
            group.found[role] = file[path]
    return sets


def _judge(data: Sequence[h5py.Dataset], limits: ArchiveLimits) -> None:
    total = sum(d.nbytes for d in data)
    if total > limits.max_bytes:
        raise _unsafe(f"its data sets declare {total} bytes; the limit is {limits.max_bytes}")
    for d in data:
        if d.external or d.is_virtual:
            raise _unsafe(f"{d.name} takes its data from other files")
        if d.chunks and int(np.prod(d.chunks)) * d.dtype.itemsize > _LARGEST_CHUNK:
            raise _unsafe(f"{d.name} is stored in chunks of more than {_LARGEST_CHUNK} bytes")


def _write(sets: Sequence[_Set], files: Sequence[h5py.File], goal: Path, check: Callable[[], None]) -> None:
    labels: dict[str, NDArray[Any]] = {}
    for number, s in enumerate(sets):
        count = len(s.found["images"]) if s.found["images"].ndim else 0
        for data in s.found.values():
            if not data.ndim or len(data) != count:
                raise _unsupported(f"{s.found['images'].name} has {count} pictures and {data.name} is of shape {data.shape}")
        if "labels" in s.found:
            labels[str(number)] = _label_array(s.found["labels"])
    attributes = {name: value for file in files for name, value in file.attrs.items()}
    names = next(
        (_texts(file["classes"][()]) for file in files if isinstance(file.get("classes"), h5py.Dataset)), _texts(attributes.get("classes"))
    )
    texts = {key: value for key, value in labels.items() if value.dtype.kind == "U"}
    if texts:
        names = names or sorted({name for value in texts.values() for name in value.tolist()})
        where = {name: number for number, name in enumerate(names)}
        labels = {key: np.array([where.setdefault(name, len(where)) for name in value.tolist()]) for key, value in labels.items()}
        names = list(where)
    found = meaning_of("the file", labels, np.array(names, dtype=str) if names else None)
    rows: list[dict[str, Any]] = []
    taken: set[str] = set()
    for number, s in enumerate(sets):
        parts, groups, given = (_texts(s.found[role][()]) if role in s.found else [] for role in ("split", "groups", "names"))
        numbers = labels.get(str(number))
        masks = _rows(s.found["masks"], check) if "masks" in s.found else None
        digits = len(str(max(0, len(s.found["images"]) - 1)))
        for index, pixels in enumerate(_pictures(s.found["images"], check)):
            part = (parts[index] if parts else "") or s.part
            name = _name(given[index] if given else f"{index:0{digits}}", part, number if len(sets) > 1 else 0, taken)
            ending, data = encode_lossless(pixels)
            row: dict[str, Any] = {"file": f"images/{name}{ending}", "part": part, "group": groups[index] if groups else "", "labels": None}
            _save(goal / row["file"], data)
            if numbers is not None:
                value = numbers[index].reshape(-1)
                row["labels"] = np.flatnonzero(value).tolist() if found.multiple else [int(value[0])]
            if masks is not None:
                row["mask"] = f"masks/{name}.png"
                _save(goal / row["mask"], encode_lossless(_mask(next(masks), s.found["masks"]))[1])
            rows.append(row)
    values, kind = attributes.get("mask_values"), attributes.get("mask_kind")
    meaning: list[tuple[int, str]] = []
    if kind == "instance":
        meaning = [(-1, names[0] if names else "object")]
    elif values is not None and len(values) == len(names):
        meaning = [(int(value), name) for value, name in zip(values, names, strict=True)]
    content = {"classes": found.classes if labels else [], "multiple": found.multiple, "mask_numbers": meaning, "rows": rows}
    _save(goal / LIST, json.dumps(content).encode())


def _save(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _name(given: str, part: str, number: int, taken: set[str]) -> str:
    """Give a path without ending below "images": nothing of it leads elsewhere, and no two are the same."""
    folder = "/".join(_UNFIT.sub("_", word).strip(".")[:60] for word in ((part,) if part else ()) + ((f"set{number}",) if number else ()))
    plain = _UNFIT.sub("_", stem(given.replace("\\", "/"))).strip(".")[:100] or "unnamed"
    name, count = plain, 2
    while f"{folder}/{name}".lower() in taken:
        name, count = f"{plain}-{count}", count + 1
    taken.add(f"{folder}/{name}".lower())
    return f"{folder}/{name}".lstrip("/")


def _label_array(data: h5py.Dataset) -> NDArray[Any]:
    array: NDArray[Any] = np.asarray(data[()])
    if h5py.check_string_dtype(data.dtype) is not None or array.dtype.kind in "SUO":
        return np.array(_texts(array), dtype=str)
    # (N, 1, 1, 1) is what PatchCamelyon has.
    return array.reshape(len(array), -1) if array.ndim > 2 else array


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    flat = np.asarray(value).reshape(-1).tolist()
    return [word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word) for word in flat]


def _rows(data: h5py.Dataset, check: Callable[[], None]) -> Iterator[NDArray[Any]]:
    """Give row after row; whole chunks are read at a time, since each is unpacked as a whole."""
    each = max(1, data.nbytes // max(1, len(data)))
    step = max(1, _BLOCK // each)
    if data.chunks:
        step = max(1, step // data.chunks[0]) * data.chunks[0]
    for start in range(0, len(data), step):
        for row in np.asarray(data[start : start + step]):
            check()
            yield row


def _pictures(data: h5py.Dataset, check: Callable[[], None]) -> Iterator[NDArray[Any]]:
    shape, plain = data.shape, data.dtype.newbyteorder("=").name
    last = data.ndim == 3 or (data.ndim == 4 and shape[3] in (1, 3, 4))
    first = data.ndim == 4 and not last and shape[1] in (1, 3, 4)
    if plain not in _PIXELS or not (last or first) or 0 in shape:
        raise _unsupported(
            f"{data.name} is {data.dtype} of shape {shape}; pictures are read as (N, H, W), (N, H, W, C) or (N, C, H, W) of {', '.join(_PIXELS)}"
        )
    for row in _rows(data, check):
        pixels = row.transpose(1, 2, 0) if first else row
        yield np.ascontiguousarray(pixels.reshape(*pixels.shape[:2], -1), dtype=plain)


def _mask(row: NDArray[Any], data: h5py.Dataset) -> NDArray[Any]:
    flat = row[..., 0] if row.ndim == 3 and row.shape[-1] == 1 else row[0] if row.ndim == 3 and row.shape[0] == 1 else row
    if flat.ndim != 2 or flat.dtype.kind not in "bui" or flat.min(initial=0) < 0 or flat.max(initial=0) > 65535:
        raise _unsupported(f"{data.name} is {data.dtype} of shape {data.shape}; masks are read as (N, H, W) of numbers from 0 to 65535")
    return np.ascontiguousarray(flat, dtype=np.uint8 if flat.max(initial=0) < 256 else np.uint16)[:, :, None]


def _unsafe(why: str) -> InvalidArgument:
    return InvalidArgument(f"the HDF5 file is not read: {why}", reason="UNSAFE_ARCHIVE", field="source_uri")


def _unsupported(why: str) -> InvalidArgument:
    return InvalidArgument(why, reason="UNSUPPORTED_FORMAT", field="source_uri")
