"""HDF5 files of pictures, opened: each picture becomes a file beside a list that says what it is, as for NumPy archives.

Data sets are known by their names: ``images`` or ``x`` of (N, H, W), (N, H, W, C), (N, C, H, W) or (H, W), ``labels`` or ``y``
(masks where they have the pictures' own shape), ``masks``, ``split``,
``names``, ``groups``; the part also by a word of a data set's, a group's or a file's name (``x_train``, ``train/images``, PatchCamelyon's
``..._train_x.h5`` beside ``..._train_y.h5``). Names of classes come from an attribute or a data set ``classes``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from oteo_augment.importing.archives import ArchiveLimits
from oteo_augment.importing.arrays import meaning_of
from oteo_augment.importing.paths import split_of_name, stem
from oteo_core.datasets.media_files import encode_lossless
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


@dataclass(frozen=True, slots=True)
class _Data:
    """A data set, its file closed: the file, the path inside it, and what its header says."""

    file: Path
    path: str
    shape: tuple[int, ...]
    size: int


@dataclass(slots=True)
class _Set:
    """Data sets that belong together, a row for each picture; what `name` and `group` are is for pictures that have none of their own."""

    part: str
    name: str
    group: str = ""
    found: dict[str, _Data] = field(default_factory=dict)


@dataclass(slots=True)
class _Content:
    """What is known of all files: the sets, attributes of the files, names of classes."""

    sets: dict[tuple[str, ...], _Set] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)


def holds_pictures(path: Path) -> bool:
    """Tell whether a file is HDF5 and has data sets that are known, pictures or what belongs to those of another file."""
    content = _Content()
    try:
        _look_into(path.name, path, content)
    except OSError:
        return False
    return bool(content.sets)


def expand(files: Sequence[tuple[str, Path]], goal: Path, limits: ArchiveLimits, check: Callable[[], None] = lambda: None) -> None:
    """Write the pictures of HDF5 files that belong together into a folder; no more than a block of rows is held at a time.

    Parameters
    ----------
    files
        The files, each with its path inside the source, which may name a part.
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
    content = _Content()
    for name, path in files:
        check()
        try:
            _look_into(name, path, content)
        except OSError as exc:
            raise InvalidArgument(f"{name} is damaged: {exc}", reason="DAMAGED_ARCHIVE", field="source_uri") from exc
    total = sum(data.size for s in content.sets.values() for data in s.found.values())
    if total > limits.max_bytes:
        raise _unsafe(f"its data sets declare {total} bytes; the limit is {limits.max_bytes}")
    sets = [s for s in content.sets.values() if "images" in s.found]
    if not sets:
        raise _unsupported(f"{files[0][0]} has labels or masks and no pictures")
    # Files that differ in more than their part are cases, volumes mostly: their pictures belong together.
    alike = Counter(key[1:] for key, s in content.sets.items() if "images" in s.found)
    for key, s in content.sets.items():
        if "images" in s.found:
            _settle(s)
            if alike[key[1:]] == 1 and len(sets) > 1 and _count(s.found["images"]) > 1:
                s.group = s.name
    try:
        _write(sets, content, goal, check)
    except (OSError, ValueError, RuntimeError) as exc:
        raise InvalidArgument(f"{files[0][0]} cannot be read: {exc}", reason="DAMAGED_ARCHIVE", field="source_uri") from exc


def _look_into(name: str, path: Path, content: _Content) -> None:
    """Add what a file has: data sets go together by file, group and part, all words of roles aside."""
    of_file = [word for word in _WORDS.split(name.rpartition(".")[0].lower()) if word]
    with h5py.File(path, "r") as file:
        found: list[str] = []
        # Links to other files are not followed by this.
        file.visititems(lambda inside, node: found.append(inside) if isinstance(node, h5py.Dataset) else None)
        content.attributes.update(file.attrs.items())
        for inside in found:
            *folders, last = inside.lower().split("/")
            words = [word for word in _WORDS.split(last) if word]
            role = "classes" if inside == "classes" else next((_ROLE_OF[word] for word in words if word in _ROLE_OF), "")
            if not role:
                continue
            data = file[inside]
            _judge(data)
            if role == "classes":
                content.names = content.names or _texts(data[()])
                continue
            inner = [word for folder in folders for word in _WORDS.split(folder)] + words
            part = next((p for word in (*inner, *reversed(of_file)) if (p := split_of_name(word))), "")
            rest = [word for word in (*of_file, *inner) if word not in _ROLE_OF and not split_of_name(word)]
            group = content.sets.setdefault((part, *rest), _Set(part, stem(name)))
            if role in group.found:
                raise _unsupported(f"{name} has two data sets of {role} that nothing tells apart: /{group.found[role].path} and /{inside}")
            group.found[role] = _Data(path, inside, tuple(data.shape), data.nbytes)


def _judge(data: h5py.Dataset) -> None:
    if data.external or data.is_virtual:
        raise _unsafe(f"{data.name} takes its data from other files")
    if data.chunks and int(np.prod(data.chunks)) * data.dtype.itemsize > _LARGEST_CHUNK:
        raise _unsafe(f"{data.name} is stored in chunks of more than {_LARGEST_CHUNK} bytes")


def _settle(s: _Set) -> None:
    """Take labels of the pictures' own shape for masks, and hold the numbers of rows against each other."""
    images = s.found["images"]
    if "labels" in s.found and "masks" not in s.found and len(images.shape) > 1 and s.found["labels"].shape == images.shape:
        s.found["masks"] = s.found.pop("labels")
    count = _count(images)
    for data in s.found.values():
        rows = _count(data) if data is s.found.get("masks") or data is images else data.shape[0] if data.shape else 0
        if rows != count:
            raise _unsupported(f"/{images.path} has {count} pictures and /{data.path} is of shape {data.shape}")


def _count(data: _Data) -> int:
    """Give the number of pictures: of two axes it is one."""
    return 1 if len(data.shape) == 2 else data.shape[0] if data.shape else 0


def _write(sets: Sequence[_Set], content: _Content, goal: Path, check: Callable[[], None]) -> None:
    labels: dict[str, NDArray[Any]] = {}
    for number, s in enumerate(sets):
        if "labels" in s.found:
            with h5py.File(s.found["labels"].file, "r") as file:
                labels[str(number)] = _label_array(file[s.found["labels"].path])
    names = content.names or _texts(content.attributes.get("classes"))
    texts = {key: value for key, value in labels.items() if value.dtype.kind == "U"}
    if texts:
        names = names or sorted({name for value in texts.values() for name in value.tolist()})
        where = {name: number for number, name in enumerate(names)}
        labels = {
            key: np.array([where.setdefault(str(name), len(where)) for name in value.reshape(-1).tolist()]) for key, value in labels.items()
        }
        names = list(where)
    found = meaning_of("the file", labels, np.array(names, dtype=str) if names else None)
    rows: list[dict[str, Any]] = []
    taken: set[str] = set()
    for number, s in enumerate(sets):
        rows += _write_set(s, len(sets) > 1, labels.get(str(number)), found.multiple, goal, taken, check)
    values, kind = content.attributes.get("mask_values"), content.attributes.get("mask_kind")
    meaning: list[tuple[int, str]] = []
    if kind == "instance":
        meaning = [(-1, names[0] if names else "object")]
    elif values is not None and len(values) == len(names):
        meaning = [(int(value), name) for value, name in zip(values, names, strict=True)]
    listed = {"classes": found.classes if labels else [], "multiple": found.multiple, "mask_numbers": meaning, "rows": rows}
    _save(goal / LIST, json.dumps(listed).encode())


def _write_set(
    s: _Set, several: bool, labels: NDArray[Any] | None, multiple: bool, goal: Path, taken: set[str], check: Callable[[], None]
) -> list[dict[str, Any]]:
    rows = []
    with ExitStack() as stack:
        data = {role: stack.enter_context(h5py.File(d.file, "r"))[d.path] for role, d in s.found.items()}
        parts, groups, given = (_texts(data[role][()]) if role in data else [] for role in ("split", "groups", "names"))
        masks = _rows(data["masks"], check) if "masks" in data else None
        count = _count(s.found["images"])
        digits = len(str(max(0, count - 1)))
        for index, pixels in enumerate(_pictures(data["images"], check)):
            plain = f"{index:0{digits}}" if not several else s.name if count == 1 else f"{s.name}-{index:0{digits}}"
            part = (parts[index] if parts else "") or s.part
            name = _name(given[index] if given else plain, part, taken)
            ending, encoded = encode_lossless(pixels)
            row: dict[str, Any] = {
                "file": f"images/{name}{ending}",
                "part": part,
                "group": groups[index] if groups else s.group,
                "labels": None,
            }
            _save(goal / row["file"], encoded)
            if labels is not None:
                value = labels[index].reshape(-1)
                row["labels"] = np.flatnonzero(value).tolist() if multiple else [int(value[0])]
            if masks is not None:
                row["mask"] = f"masks/{name}.png"
                _save(goal / row["mask"], encode_lossless(_mask(next(masks), data["masks"]))[1])
            rows.append(row)
    return rows


def _save(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _name(given: str, part: str, taken: set[str]) -> str:
    """Give a path without ending below "images": nothing of it leads elsewhere, and no two are the same."""
    folder = _UNFIT.sub("_", part).strip(".")[:60]
    plain = _UNFIT.sub("_", given.replace("\\", "/").rpartition("/")[2]).strip(".")
    plain = (stem(plain) if "." in plain else plain)[:100] or "unnamed"
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
    """Give row after row, or the one picture of two axes; whole chunks are read at a time, since each is unpacked as a whole."""
    if data.ndim == 2:
        yield np.asarray(data[()])
        return
    each = max(1, data.nbytes // max(1, len(data)))
    step = max(1, _BLOCK // each)
    if data.chunks:
        step = max(1, step // data.chunks[0]) * data.chunks[0]
    for start in range(0, len(data), step):
        for row in np.asarray(data[start : start + step]):
            check()
            yield row


def _pictures(data: h5py.Dataset, check: Callable[[], None]) -> Iterator[NDArray[Any]]:
    shape, plain = data.shape, data.dtype.newbyteorder("=")
    last = data.ndim in (2, 3) or (data.ndim == 4 and shape[3] in (1, 3, 4))
    first = data.ndim == 4 and not last and shape[1] in (1, 3, 4)
    if plain.kind not in "uif" or not (last or first) or 0 in shape:
        raise _unsupported(
            f"/{data.name.lstrip('/')} is {data.dtype} of shape {shape}; pictures of numbers are read as (N, H, W), (N, H, W, C), (N, C, H, W) or (H, W)"
        )
    for row in _rows(data, check):
        pixels = row.transpose(1, 2, 0) if first else row
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        kind = plain if plain.name in _PIXELS else np.dtype(np.float32)
        kept = np.ascontiguousarray(pixels, dtype=kind)
        # Whole numbers with a sign, and wide fractions, are kept as float32 where that changes no number.
        if kind != plain and not np.array_equal(kept.astype(plain), pixels, equal_nan=plain.kind == "f"):
            raise _unsupported(f"{data.name} is {data.dtype} with numbers that float32 cannot hold; write it as {', '.join(_PIXELS)}")
        yield kept


def _mask(row: NDArray[Any], data: h5py.Dataset) -> NDArray[Any]:
    flat = row[..., 0] if row.ndim == 3 and row.shape[-1] == 1 else row[0] if row.ndim == 3 and row.shape[0] == 1 else row
    if flat.ndim != 2 or flat.dtype.kind not in "bui" or flat.min(initial=0) < 0 or flat.max(initial=0) > 65535:
        raise _unsupported(f"{data.name} is {data.dtype} of shape {data.shape}; masks are read as (N, H, W) of numbers from 0 to 65535")
    return np.ascontiguousarray(flat, dtype=np.uint8 if flat.max(initial=0) < 256 else np.uint16)[:, :, None]


def _unsafe(why: str) -> InvalidArgument:
    return InvalidArgument(f"the HDF5 file is not read: {why}", reason="UNSAFE_ARCHIVE", field="source_uri")


def _unsupported(why: str) -> InvalidArgument:
    return InvalidArgument(why, reason="UNSUPPORTED_FORMAT", field="source_uri")
